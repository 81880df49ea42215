/**
 * Splits a byte stream into JSON values, as QMP peers send them: one after another, with or without
 * newlines between, cut anywhere. Memory is bounded by the longest value, whatever arrives.
 */
import { JsonLexer, TOKEN_ERROR, TOKEN_NONE, TOKEN_STRUCTURE } from './json-lexer.ts'
import { parseJson } from './json-parser.ts'

/** Of a request. */
const VALUE_LENGTH_MAX = 1024 * 1024
/** As QEMU's. */
const DEPTH_MAX = 1024
const SPACE_MIN = 4096
/** More is given back after a value. */
const SPACE_KEPT = 65536
const STRAY_SHOWN_MAX = 64
const NEWLINE = 0x0a

export type JsonItem =
  | { readonly value: unknown; readonly error?: undefined }
  /** `value`: of one that came whole, but cannot be carried out. */
  | { readonly error: string; readonly value?: unknown }

export class JsonStream {
  readonly #lengthMax: number
  readonly #parse: (bytes: Uint8Array) => unknown
  readonly #lexer: JsonLexer = new JsonLexer()
  /** The value so far, from its first token on. */
  #bytes: Uint8Array = new Uint8Array(SPACE_MIN)
  #length = 0
  /** Where the token begins that is not ended yet. */
  #tokenAt = 0
  #braces = 0
  #brackets = 0
  /** A value that was too long: everything up to the next newline is skipped. */
  #isSkipping = false

  /** The value in the making; undefined: one that is skipped is. */
  get pending(): Uint8Array | undefined {
    return this.#isSkipping ? undefined : this.#bytes.slice(0, this.#length)
  }

  /** `lengthMax`: bytes of one value; `parse` throws for what is none. */
  constructor(
    lengthMax: number = VALUE_LENGTH_MAX,
    parse: (bytes: Uint8Array) => unknown = parseJson,
  ) {
    this.#lengthMax = lengthMax
    this.#parse = parse
  }

  /** The values that are complete with these bytes; what is none is told once. */
  push(bytes: Uint8Array): JsonItem[] {
    const items: JsonItem[] = []
    for (const byte of bytes) {
      if (this.#isSkipping) this.#isSkipping = byte !== NEWLINE
      else this.#add(items, byte)
    }
    return items
  }

  #add(items: JsonItem[], byte: number): void {
    const lexer = this.#lexer
    if (lexer.isBetween) this.#tokenAt = this.#length
    this.#keep(byte)
    for (;;) {
      const kind = lexer.step(byte)
      const { isRepeated } = lexer
      if (kind === TOKEN_ERROR) {
        items.push({ error: `JSON parse error, stray '${this.#token()}'` })
        this.#reset()
      } else if (kind !== TOKEN_NONE) {
        if (isRepeated) this.#length--
        this.#ended(items, kind)
        this.#tokenAt = this.#length
        if (isRepeated) this.#keep(byte)
      }
      if (!isRepeated) break
    }
    // Nothing is kept of what stands between values.
    if (lexer.isBetween && this.#braces === 0 && this.#brackets === 0) this.#length = 0
    if (this.#length < this.#lengthMax) return
    items.push({ error: `JSON value longer than ${this.#lengthMax} bytes` })
    this.#reset()
    lexer.reset()
    this.#isSkipping = byte !== NEWLINE
  }

  #keep(byte: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    this.#bytes[this.#length++] = byte
  }

  #token(): string {
    const end = Math.min(this.#length, this.#tokenAt + STRAY_SHOWN_MAX)
    return Buffer.from(this.#bytes.subarray(this.#tokenAt, end)).toString('utf8')
  }

  /** A token ended: with it the value may be complete, or can never be. */
  #ended(items: JsonItem[], kind: number): void {
    if (kind === TOKEN_STRUCTURE) {
      const byte = this.#bytes[this.#tokenAt]
      if (byte === 0x7b) this.#braces++
      else if (byte === 0x7d) this.#braces--
      else if (byte === 0x5b) this.#brackets++
      else if (byte === 0x5d) this.#brackets--
    }
    const depth = this.#braces + this.#brackets
    if (depth > DEPTH_MAX) items.push({ error: 'JSON nesting depth limit exceeded' })
    else if (this.#braces >= 0 && this.#brackets >= 0 && depth > 0) return
    else items.push(this.#item())
    this.#reset()
  }

  #item(): JsonItem {
    try {
      return { value: this.#parse(this.#bytes.subarray(0, this.#length)) }
    } catch (error) {
      return { error: (error as Error).message }
    }
  }

  #reset(): void {
    if (this.#bytes.length > SPACE_KEPT) this.#bytes = new Uint8Array(SPACE_MIN)
    this.#length = 0
    this.#tokenAt = 0
    this.#braces = 0
    this.#brackets = 0
  }
}
