/** What the fuzzer's targets share: reading their input, and telling what they have seen. */

const SLOTS = 1 << 17

/**
 * What inputs made happen, as numbers: an input that does something new is worth mutating further.
 * It is a table without strings and sets, since it is asked some hundred times per input.
 */
export class Features {
  /** Different ones so far. */
  size = 0
  /** Those of one input, while somebody wants them. */
  recorded: Set<number> | null = null
  readonly #known: Uint8Array = new Uint8Array(SLOTS)

  /** Up to four small numbers are one feature. */
  add(a: number, b = 0, c = 0, d = 0): void {
    let hash = Math.imul(a ^ 0x9e37_79b9, 0x85eb_ca6b)
    hash = Math.imul(hash ^ (hash >>> 15) ^ b, 0xc2b2_ae35)
    hash = Math.imul(hash ^ (hash >>> 13) ^ c, 0x27d4_eb2f)
    hash = Math.imul(hash ^ (hash >>> 16) ^ d, 0x1656_67b1)
    const slot = (hash ^ (hash >>> 15)) & (SLOTS - 1)
    if (this.#known[slot] === 0) {
      this.#known[slot] = 1
      this.size++
    }
    this.recorded?.add(slot)
  }

  /** A text is one too; digits in it do not count. */
  addText(text: string): void {
    let hash = 0
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at)
      if (code < 0x30 || code > 0x39) hash = (Math.imul(hash, 31) + code) | 0
    }
    this.add(hash, 0x7e87)
  }
}

/** Throws unless it holds. */
export function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`violated: ${what}`)
}

/** As `check`, for places that are passed often: the text is made only when it is needed. */
export function checkEqual(is: unknown, should: unknown, what: string): void {
  if (is !== should) throw new Error(`violated: ${what}: ${String(is)} where ${String(should)}`)
}

/** Throws where two arrays differ first. */
export function checkBytes(is: Uint8Array, should: Uint8Array, what: string): void {
  if (Buffer.compare(is, should) === 0) return
  let at = 0
  while (at < is.length && at < should.length && is[at] === should[at]) at++
  const lengths = `${is.length} and ${should.length} bytes`
  throw new Error(`violated: ${what}: byte ${at} is ${is[at]} where ${should[at]} (${lengths})`)
}

/** The bytes of an input one after another; zeros behind the last one. */
export class Operands {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length
  }

  /** The last byte, which may be an operand besides. */
  get last(): number {
    return this.#bytes.at(-1) ?? 0
  }

  byte(): number {
    return this.#at < this.#bytes.length ? this.#bytes[this.#at++] : 0
  }

  signed(): number {
    return (this.byte() << 24) >> 24
  }

  half(): number {
    return this.byte() | (this.byte() << 8)
  }

  word(): number {
    return this.half() | (this.half() << 16)
  }

  /** One of these. */
  pick<T>(from: readonly T[]): T {
    return from[this.byte() % from.length]
  }

  /** The next bytes, fewer at the end. */
  take(count: number): Uint8Array {
    const from = this.#at
    this.#at = Math.min(from + count, this.#bytes.length)
    return this.#bytes.slice(from, this.#at)
  }
}
