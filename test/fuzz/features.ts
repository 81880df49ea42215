/** What the fuzzer's targets share: reading their input, and telling what they have seen. */

/** What an input made happen; one that does something new is worth mutating further. */
export type Features = Set<string>

/** Throws unless it holds. */
export function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`violated: ${what}`)
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

  /** The next bytes, fewer at the end. */
  take(count: number): Uint8Array {
    const from = this.#at
    this.#at = Math.min(from + count, this.#bytes.length)
    return this.#bytes.slice(from, this.#at)
  }
}
