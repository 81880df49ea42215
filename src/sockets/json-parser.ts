/**
 * One QMP value from its bytes. Beside JSON.parse: strings in single quotes, integers beyond 2^53
 * exact (as bigint, up to 64 bits, as QEMU has them), and no key twice. Errors are in QEMU's words.
 */
import {
  JsonLexer,
  TOKEN_ERROR,
  TOKEN_KEYWORD,
  TOKEN_NONE,
  TOKEN_NUMBER,
  TOKEN_STRING,
} from './json-lexer.ts'

const INT64_MIN: bigint = -(2n ** 63n)
const UINT64_MAX: bigint = 2n ** 64n - 1n
const SPACE = 0x20
/** Characters of a token that an error repeats. */
const SHOWN_MAX = 64

interface Token {
  readonly kind: number
  /** As it stands; of a string without its quotes. */
  readonly text: string
}

/** Throws SyntaxError. `bytes` are whole tokens. */
export function parseJson(bytes: Uint8Array): unknown {
  return new Parser(bytes).parse()
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function tokenOf(kind: number, bytes: Uint8Array): Token {
  if (kind !== TOKEN_STRING) return { kind, text: Buffer.from(bytes).toString('latin1') }
  try {
    return { kind, text: utf8.decode(bytes.subarray(1, -1)) }
  } catch {
    throw new SyntaxError('JSON parse error, invalid UTF-8 sequence in string')
  }
}

class Parser {
  readonly #bytes: Uint8Array
  readonly #lexer: JsonLexer = new JsonLexer()
  #at = 0
  /** The next token; undefined: there is none. */
  #next: Token | undefined

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#next = this.#read()
  }

  parse(): unknown {
    return this.#value()
  }

  #read(): Token | undefined {
    const bytes = this.#bytes
    const lexer = this.#lexer
    let start = this.#at
    // One byte more ends a number or a keyword.
    for (; this.#at <= bytes.length; this.#at++) {
      const at = this.#at
      if (lexer.isBetween) start = at
      const kind = lexer.step(at < bytes.length ? bytes[at] : SPACE)
      if (kind === TOKEN_ERROR) throw new SyntaxError('JSON parse error, expecting value')
      if (kind === TOKEN_NONE) continue
      this.#at = lexer.isRepeated ? at : at + 1
      return tokenOf(kind, bytes.subarray(start, this.#at))
    }
    return undefined
  }

  #shift(): Token | undefined {
    const token = this.#next
    this.#next = this.#read()
    return token
  }

  /** The structure at this place, and over it; empty for anything else. */
  #take(): string {
    const token = this.#shift()
    return token === undefined || token.kind === TOKEN_STRING ? '' : token.text
  }

  #isNext(text: string): boolean {
    const token = this.#next
    if (token === undefined || token.kind === TOKEN_STRING || token.text !== text) return false
    this.#shift()
    return true
  }

  #value(): unknown {
    const token = this.#shift()
    switch (token?.kind) {
      case TOKEN_STRING:
        return unescape(token.text)
      case TOKEN_NUMBER:
        return numberOf(token.text)
      case TOKEN_KEYWORD:
        return keywordOf(token.text)
    }
    if (token?.text === '{') return this.#object()
    if (token?.text === '[') return this.#array()
    throw new SyntaxError('JSON parse error, expecting value')
  }

  #array(): unknown[] {
    const values: unknown[] = []
    if (this.#isNext(']')) return values
    for (;;) {
      values.push(this.#value())
      const next = this.#take()
      if (next === ']') return values
      if (next !== ',') throw new SyntaxError('JSON parse error, expected separator in list')
    }
  }

  #object(): Record<string, unknown> {
    const members = new Map<string, unknown>()
    if (this.#isNext('}')) return {}
    for (;;) {
      const key = this.#value()
      if (typeof key !== 'string') {
        throw new SyntaxError('JSON parse error, key is not a string in object')
      }
      if (this.#take() !== ':') {
        throw new SyntaxError('JSON parse error, missing : in object pair')
      }
      const value = this.#value()
      if (members.has(key)) throw new SyntaxError('JSON parse error, duplicate key')
      members.set(key, value)
      const next = this.#take()
      // Not by assignment, which would take `__proto__` for something else.
      if (next === '}') return Object.fromEntries(members)
      if (next !== ',') throw new SyntaxError('JSON parse error, expected separator in dict')
    }
  }
}

function keywordOf(word: string): unknown {
  if (word === 'true') return true
  if (word === 'false') return false
  if (word === 'null') return null
  throw new SyntaxError(`JSON parse error, invalid keyword '${word.slice(0, SHOWN_MAX)}'`)
}

function numberOf(text: string): number | bigint {
  const number = Number(text)
  if (!Number.isFinite(number)) {
    const shown = text.slice(0, SHOWN_MAX)
    throw new SyntaxError(`JSON parse error, ${shown} is out of range`)
  }
  if (Number.isSafeInteger(number) || /[.eE]/.test(text)) return number
  const integer = BigInt(text)
  return integer >= INT64_MIN && integer <= UINT64_MAX ? integer : number
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  [`'`, `'`],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
])

function unescape(text: string): string {
  if (!text.includes('\\')) return text
  return text.replace(/\\(?:u([^]{0,4})(?:\\u(d[c-f][0-9a-f]{2}))?|([^]))/gi, (all, ...found) => {
    const [hex, low, letter] = found as [string?, string?, string?]
    if (hex === undefined) {
      const plain = ESCAPES.get(letter!)
      if (plain !== undefined) return plain
      throw new SyntaxError('JSON parse error, invalid escape sequence in string')
    }
    const high = /^[0-9a-f]{4}$/i.test(hex) ? Number.parseInt(hex, 16) : -1
    if (high >= 0xd800 && high < 0xdc00 && low !== undefined) {
      const rest = Number.parseInt(low, 16) & 0x3ff
      return String.fromCodePoint(0x1_0000 + ((high & 0x3ff) << 10) + rest)
    }
    // A low surrogate behind anything else stands alone.
    if (high < 0 || (high >= 0xd800 && high < 0xe000) || low !== undefined) {
      const at = low === undefined || high < 0 || (high >= 0xd800 && high < 0xe000) ? 0 : 6
      throw new SyntaxError(
        `JSON parse error, ${all.slice(at, at + 6)} is not a valid Unicode character`,
      )
    }
    return String.fromCharCode(high)
  })
}

/** JSON text of a parsed value, bigints as the integers that they are. */
export function formatJson(value: unknown): string {
  if (typeof value === 'bigint') return value.toString()
  // No integer any more whose digits mean something.
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return (value as number).toExponential()
  }
  if (Array.isArray(value)) return `[${value.map(formatJson).join(', ')}]`
  if (value !== null && typeof value === 'object') {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => `${JSON.stringify(key)}: ${formatJson(member)}`)
    return `{${members.join(', ')}}`
  }
  return JSON.stringify(value ?? null)
}
