/**
 * Byte strings as what a QMP peer sends, cut anywhere: the values are those of the whole text, read by
 * another parser, and nothing that comes makes it remember more than a value may have.
 *
 *     a byte n < 200: the next n & 15 bytes, as a piece of their own
 *     else: a byte that follows, repeated
 */
import { JsonStream } from '../../src/sockets/json-stream.ts'
import type { Features } from './features.ts'
import { checkEqual, Operands } from './features.ts'

const DEPTH_MAX = 64
const LENGTH_MAX = 1024 * 1024
const REPEATS = [2, 5, 63, 64, 65, 66, 200]
const LETTERS = '{}[]"\\:,0a \n'
const ERROR = 'an error'

export function fuzzJsonStream(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const stream = new JsonStream()
  const items: string[] = []
  const all: number[] = []
  const push = (bytes: Uint8Array): void => {
    for (const item of stream.push(bytes)) {
      items.push(item.error === undefined ? JSON.stringify(item.value) : ERROR)
      if (item.error !== undefined) seen.addText(item.error)
    }
    for (const byte of bytes) all.push(byte)
    // The caller uses its memory again.
    bytes.fill(0x7b)
  }
  while (!operands.isAtEnd) {
    const control = operands.byte()
    if (control < 100) push(operands.take(control & 15))
    else if (control < 250) {
      // Mostly of the letters that mean something.
      const bytes = operands.take(control & 15)
      push(bytes.map((byte) => LETTERS.charCodeAt(byte % LETTERS.length)))
    } else {
      const byte = operands.byte()
      const letter = byte < 128 ? LETTERS.charCodeAt(byte % LETTERS.length) : byte
      push(new Uint8Array(operands.pick(REPEATS)).fill(letter))
    }
  }
  const should = valuesOf(Uint8Array.from(all))
  checkEqual(items.join('\n'), should.join('\n'), 'values')
  seen.add(items.length, items.filter((item) => item === ERROR).length)
}

/** The values of a whole text, by their ends. */
function valuesOf(bytes: Uint8Array): string[] {
  const text = Buffer.from(bytes).toString('latin1')
  const values: string[] = []
  let at = 0
  for (;;) {
    while (at < text.length && ' \t\n\r'.includes(text[at])) at++
    if (at >= text.length) return values
    const end = endOf(text, at)
    if (end === undefined) return values
    if (end > 0) {
      try {
        const whole = Buffer.from(text.slice(at, end), 'latin1').toString('utf8')
        values.push(JSON.stringify(JSON.parse(whole) as unknown))
      } catch {
        values.push(ERROR)
      }
      at = end
      continue
    }
    // What cannot be one is told once, and the rest of its line is nothing.
    values.push(ERROR)
    const line = text.indexOf('\n', -end + 1)
    if (line < 0) return values
    at = line + 1
  }
}

/** Where the value that begins at `from` ends; negative: where it is wrong; undefined: not yet. */
function endOf(text: string, from: number): number | undefined {
  if (text[from] !== '{' && text[from] !== '[') return -from
  let depth = 0
  for (let at = from; at < text.length; at++) {
    if (at - from >= LENGTH_MAX) return -at
    const letter = text[at]
    if (letter === '"') {
      for (at++; at < text.length && text[at] !== '"'; at++) if (text[at] === '\\') at++
      if (at >= text.length) return undefined
    } else if (letter === '{' || letter === '[') {
      if (++depth > DEPTH_MAX) return -at
    } else if ((letter === '}' || letter === ']') && --depth === 0) return at + 1
  }
  return undefined
}
