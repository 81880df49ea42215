/**
 * Byte strings as what a QMP peer sends, cut anywhere: values that are made of the operands are read as
 * JSON.parse reads them, those that are too deep or too long are told once and nothing else is lost
 * with them; and whatever comes instead, cut differently it means the same.
 */
import { formatJson } from '../../src/sockets/json-parser.ts'
import { JsonStream } from '../../src/sockets/json-stream.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

/** What the stream has to allow, and not more. */
const DEPTH_MAX = 1024
const LENGTH_MAX = 5000
const DEPTHS = [1, 2, 63, 64, 65, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 2000]
const LETTERS = `{}[]"'\\:,0a1-.e \n\u0001\u00ff`
const ERROR = 'an error'

export function fuzzJsonStream(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const isOrderly = operands.byte() < 160
  const should: string[] = []
  const text = isOrderly ? orderly(operands, should) : noise(operands)
  const items = read(new JsonStream(LENGTH_MAX), text, operands.last, seen)
  if (isOrderly) checkEqual(items.join('\n'), should.join('\n'), 'values')
  else {
    const again = read(new JsonStream(LENGTH_MAX), text, 1, seen)
    checkEqual(items.join('\n'), again.join('\n'), 'values, cut in another way')
  }
  seen.add(isOrderly ? 1 : 0, Math.min(items.length, 9))
}

function read(stream: JsonStream, text: Buffer, step: number, seen: Features): string[] {
  const items: string[] = []
  const pieces = 1 + (step & 31)
  for (let at = 0; at < text.length; at += pieces) {
    const piece = new Uint8Array(text.subarray(at, at + pieces))
    for (const item of stream.push(piece)) {
      if (item.error === undefined) items.push(formatJson(item.value))
      else {
        check(item.error.length < 200, 'an error is a short text')
        items.push(ERROR)
        seen.addText(item.error.slice(0, 30))
      }
    }
    // The caller uses its memory again.
    piece.fill(0x7b)
  }
  return items
}

/** Values, a line each, and what they are. */
function orderly(operands: Operands, should: string[]): Buffer {
  let text = ''
  for (let n = 0; n < 8 && !operands.isAtEnd; n++) {
    const control = operands.byte()
    let value: string
    if (control < 2) {
      const depth = operands.pick(DEPTHS)
      value = '['.repeat(depth) + ']'.repeat(depth)
      if (depth > DEPTH_MAX) {
        // It is told at the bracket that is too much; each of those that are left closes nothing.
        value = '['.repeat(DEPTH_MAX + 1)
        should.push(ERROR)
      } else should.push(formatJson(JSON.parse(value)))
    } else if (control < 4) {
      const length = LENGTH_MAX - 8 + (operands.byte() & 15)
      value = `["${'x'.repeat(length - 4)}"]`
      should.push(length > LENGTH_MAX ? ERROR : formatJson(JSON.parse(value)))
    } else {
      value = valueOf(operands, 0)
      if (!'{['.includes(value[0])) value = `[${value}]`
      should.push(formatJson(JSON.parse(value)))
    }
    text += `${value}${(control & 1) === 0 ? '\n' : ' \r\n\t'}`
  }
  return Buffer.from(text)
}

function valueOf(operands: Operands, depth: number): string {
  const kind = operands.byte()
  const space = (kind & 128) === 0 ? '' : ' '
  switch (depth > 5 ? 4 + (kind & 3) : kind & 7) {
    case 0:
    case 1: {
      const values = Array.from({ length: (kind >> 3) & 3 }, () => valueOf(operands, depth + 1))
      return `[${space}${values.join(`,${space}`)}]`
    }
    case 2:
    case 3: {
      const members = Array.from(
        { length: (kind >> 3) & 3 },
        (_, n) => `"k${n}"${space}:${valueOf(operands, depth + 1)}`,
      )
      return `{${members.join(`${space},`)}${space}}`
    }
    case 4:
      return ['true', 'false', 'null', '0', '-0', '1e3', '-1.25', '12E-2'][(kind >> 3) & 7]
    case 5:
      return String(operands.word())
    case 6:
      return JSON.stringify(operands.take(kind >> 5).toString())
    default:
      return JSON.stringify(Buffer.from(operands.take(kind >> 4)).toString('latin1'))
  }
}

function noise(operands: Operands): Buffer {
  const bytes: number[] = []
  while (!operands.isAtEnd) {
    const byte = operands.byte()
    const letter = byte < 200 ? LETTERS.charCodeAt(byte % LETTERS.length) : operands.byte()
    for (let count = byte === 199 ? operands.pick([64, 1024, 5000]) : 1; count > 0; count--) {
      bytes.push(letter)
    }
  }
  return Buffer.from(bytes)
}
