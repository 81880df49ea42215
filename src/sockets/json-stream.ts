/**
 * Splits a byte stream into JSON values, as QMP peers send them: one after another, with or without
 * newlines between, cut anywhere. Memory is bounded by VALUE_LENGTH_MAX whatever arrives.
 */
const VALUE_LENGTH_MAX = 1024 * 1024
const DEPTH_MAX = 64

const QUOTE = 0x22
const BACKSLASH = 0x5c
const NEWLINE = 0x0a

export type JsonItem =
  { readonly value: unknown; readonly error?: undefined } | { readonly error: string }

export class JsonStream {
  #parts: Uint8Array[] = []
  #length = 0
  #depth = 0
  #inString = false
  #isEscaped = false
  /** After an error everything up to the next newline is skipped. */
  #isSkipping = false

  /** The values that are complete with these bytes; a value that is none is told once. */
  push(bytes: Uint8Array): JsonItem[] {
    const items: JsonItem[] = []
    let start = 0
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]
      if (this.#isSkipping) {
        if (byte === NEWLINE) this.#reset()
        start = at + 1
      } else if (this.#inString) {
        if (this.#isEscaped) this.#isEscaped = false
        else if (byte === BACKSLASH) this.#isEscaped = true
        else if (byte === QUOTE) this.#inString = false
      } else if (this.#depth === 0 && isSpace(byte)) {
        start = at + 1
      } else if (byte === QUOTE && this.#depth > 0) {
        this.#inString = true
      } else if (byte === 0x7b || byte === 0x5b) {
        if (++this.#depth > DEPTH_MAX) start = this.#fail(items, at, 'nested too deeply')
      } else if (byte === 0x7d || byte === 0x5d) {
        if (--this.#depth === 0) {
          this.#take(bytes.subarray(start, at + 1))
          items.push(this.#parse())
          start = at + 1
        } else if (this.#depth < 0) start = this.#fail(items, at, 'unbalanced brackets')
      } else if (this.#depth === 0) {
        start = this.#fail(items, at, 'not a JSON object')
      }
      if (this.#length + at - start >= VALUE_LENGTH_MAX) {
        start = this.#fail(items, at, `longer than ${VALUE_LENGTH_MAX} bytes`)
      }
    }
    if (!this.#isSkipping) this.#take(bytes.subarray(start))
    return items
  }

  #take(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    // A copy: the caller reads into the same memory again.
    this.#parts.push(bytes.slice())
    this.#length += bytes.length
  }

  #parse(): JsonItem {
    const text = Buffer.concat(this.#parts).toString('utf8')
    this.#reset()
    try {
      return { value: JSON.parse(text) as unknown }
    } catch {
      return { error: 'Invalid JSON syntax' }
    }
  }

  #fail(items: JsonItem[], at: number, reason: string): number {
    items.push({ error: `Invalid JSON syntax: ${reason}` })
    this.#reset()
    this.#isSkipping = true
    return at + 1
  }

  #reset(): void {
    this.#parts = []
    this.#length = 0
    this.#depth = 0
    this.#inString = false
    this.#isEscaped = false
    this.#isSkipping = false
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === NEWLINE || byte === 0x0d
}
