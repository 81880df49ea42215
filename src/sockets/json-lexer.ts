/**
 * Bytes into the tokens of QMP's JSON, one byte at a time: JSON (RFC 8259), and strings in single
 * quotes as well. What is no token is told once; then everything up to the next bracket, comma, colon
 * or control character is skipped, so that a peer that lost its place finds it again. QEMU, "Client commands".
 */
export const TOKEN_NONE = 0
export const TOKEN_STRUCTURE = 1
export const TOKEN_STRING = 2
export const TOKEN_NUMBER = 3
export const TOKEN_KEYWORD = 4
/** Bytes that are no token. */
export const TOKEN_ERROR = 5

const START = 0
const STRING = 1
const ESCAPE = 2
const KEYWORD = 3
const MINUS = 4
const ZERO = 5
const DIGITS = 6
const POINT = 7
const FRACTION = 8
const EXPONENT = 9
const EXPONENT_SIGN = 10
const EXPONENT_DIGITS = 11
const LOST = 12

const STRUCTURE: ReadonlySet<number> = new Set(Buffer.from('{}[]:,'))
const SPACE: ReadonlySet<number> = new Set(Buffer.from(' \t\r\n'))
const TAB = 0x09
const DOUBLE_QUOTE = 0x22
const SINGLE_QUOTE = 0x27
const BACKSLASH = 0x5c
const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39
const isLetter = (byte: number): boolean => byte >= 0x61 && byte <= 0x7a
const isE = (byte: number): boolean => (byte | 0x20) === 0x65
/** Of a string: no control character, and nothing that no UTF-8 has. */
const isText = (byte: number): boolean => byte >= 0x20 && byte < 0xfe

export class JsonLexer {
  /** With the result of `step`: the byte is not part of that token, and must be given once more. */
  isRepeated = false
  #state = START
  #quote = 0

  /** No token has begun. */
  get isBetween(): boolean {
    return this.#state === START || this.#state === LOST
  }

  reset(): void {
    this.#state = START
  }

  /** Takes a byte; returns the kind of the token that it ends, or that ended before it. */
  step(byte: number): number {
    this.isRepeated = false
    switch (this.#state) {
      case START:
        return this.#start(byte)
      case STRING:
        if (byte === this.#quote) return this.#end(TOKEN_STRING)
        if (!isText(byte)) return this.#lost()
        if (byte === BACKSLASH) this.#state = ESCAPE
        return TOKEN_NONE
      case ESCAPE:
        return isText(byte) ? this.#to(STRING) : this.#lost()
      case KEYWORD:
        return isLetter(byte) ? TOKEN_NONE : this.#endBefore(TOKEN_KEYWORD)
      case LOST:
        if (STRUCTURE.has(byte) || (byte !== TAB && !isText(byte))) {
          return this.#endBefore(TOKEN_NONE)
        }
        return TOKEN_NONE
      default:
        return this.#number(byte)
    }
  }

  #start(byte: number): number {
    if (STRUCTURE.has(byte)) return TOKEN_STRUCTURE
    if (SPACE.has(byte)) return TOKEN_NONE
    if (byte === DOUBLE_QUOTE || byte === SINGLE_QUOTE) {
      this.#quote = byte
      return this.#to(STRING)
    }
    if (byte === 0x2d) return this.#to(MINUS)
    if (byte === 0x30) return this.#to(ZERO)
    if (isDigit(byte)) return this.#to(DIGITS)
    return isLetter(byte) ? this.#to(KEYWORD) : this.#lost()
  }

  #number(byte: number): number {
    const isA = isDigit(byte)
    switch (this.#state) {
      case MINUS:
        return isA ? this.#to(byte === 0x30 ? ZERO : DIGITS) : this.#lost()
      case POINT:
        return isA ? this.#to(FRACTION) : this.#lost()
      case EXPONENT:
        if (byte === 0x2b || byte === 0x2d) return this.#to(EXPONENT_SIGN)
        return isA ? this.#to(EXPONENT_DIGITS) : this.#lost()
      case EXPONENT_SIGN:
        return isA ? this.#to(EXPONENT_DIGITS) : this.#lost()
      case EXPONENT_DIGITS:
        return isA ? TOKEN_NONE : this.#endBefore(TOKEN_NUMBER)
    }
    if (isE(byte)) return this.#to(EXPONENT)
    if (isA) return this.#state === ZERO ? this.#lost() : TOKEN_NONE
    if (byte === 0x2e && this.#state !== FRACTION) return this.#to(POINT)
    return this.#endBefore(TOKEN_NUMBER)
  }

  #to(state: number): number {
    this.#state = state
    return TOKEN_NONE
  }

  #end(kind: number): number {
    this.#state = START
    return kind
  }

  #endBefore(kind: number): number {
    this.isRepeated = true
    return this.#end(kind)
  }

  #lost(): number {
    this.#state = LOST
    return TOKEN_ERROR
  }
}
