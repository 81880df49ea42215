/** The byte stream of a control client: values come out whole, however they were cut; garbage is told. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { JsonItem } from '../../../src/sockets/json-stream.ts'
import { JsonStream } from '../../../src/sockets/json-stream.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const MEBIBYTE = 1024 * 1024

function push(text: string): JsonItem[] {
  return new JsonStream().push(bytes(text))
}

describe('values', () => {
  test('need nothing between them', () => {
    expect(push('{"a":1}{"b":[2,{}]} [3]\r\n\t{}')).toEqual([
      { value: { a: 1 } },
      { value: { b: [2, {}] } },
      { value: [3] },
      { value: {} },
    ])
  })

  test('hold brackets, quotes and backslashes in strings', () => {
    const value = { a: '}]{["\\', b: '\\\\"', 'c}': '\u{1f600}' }
    expect(push(JSON.stringify(value))).toEqual([{ value }])
  })

  test('cut at every byte come out the same', () => {
    const text = '{"a":"ä\u{1f600}\\"}"} [1, {"b": null}]'
    const data = bytes(text)
    for (let cut = 0; cut <= data.length; cut++) {
      const stream = new JsonStream()
      const items = [...stream.push(data.subarray(0, cut)), ...stream.push(data.subarray(cut))]
      expect(items).toEqual([{ value: { a: 'ä\u{1f600}"}' } }, { value: [1, { b: null }] }])
    }
  })

  test('of any kind, cut anywhere, come out the same', () => {
    const value = fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue()))
    fc.assert(
      fc.property(fc.array(value), fc.array(fc.nat()), (values, cuts) => {
        // What nests deeper than the stream allows is another test.
        fc.pre(values.every((one) => depth(one) <= 64))
        const data = bytes(values.map((one) => JSON.stringify(one)).join('\n'))
        const places = [...new Set(cuts.map((cut) => cut % (data.length + 1)))]
        const stream = new JsonStream()
        const items: JsonItem[] = []
        let from = 0
        for (const to of [...places.toSorted((x, y) => x - y), data.length]) {
          items.push(...stream.push(data.subarray(from, to)))
          from = to
        }
        expect(items).toEqual(
          values.map((one) => ({ value: JSON.parse(JSON.stringify(one)) as unknown })),
        )
      }),
    )
  })

  test('are not of the memory that they were read into', () => {
    const stream = new JsonStream()
    const memory = bytes('{"a":')
    stream.push(memory)
    memory.fill(0x7d)
    expect(stream.push(bytes('1}'))).toEqual([{ value: { a: 1 } }])
  })
})

describe('garbage', () => {
  test.each([
    ['hello', 'Invalid JSON syntax: not a JSON object'],
    ['17', 'Invalid JSON syntax: not a JSON object'],
    ['"text"', 'Invalid JSON syntax: not a JSON object'],
    ['}', 'Invalid JSON syntax: unbalanced brackets'],
    ['{"a":}', 'Invalid JSON syntax'],
    ['{a:1}', 'Invalid JSON syntax'],
    ['{]', 'Invalid JSON syntax'],
    ['['.repeat(65), 'Invalid JSON syntax: nested too deeply'],
  ])('%j is told once', (text, error) => {
    expect(push(text)).toEqual([{ error }])
  })

  test('ends with its line: what follows is read', () => {
    expect(push('what is this {"a":1} }}}\n{"b":2}')).toEqual([
      { error: 'Invalid JSON syntax: not a JSON object' },
      { value: { b: 2 } },
    ])
  })

  test('without an end is given up after a mebibyte, and only the rest of its line is lost', () => {
    const stream = new JsonStream()
    const part = bytes('x'.repeat(65536))
    const items = [...stream.push(bytes('{"a":"'))]
    for (let k = 0; k < 160; k++) items.push(...stream.push(part))
    expect(items).toEqual([{ error: `Invalid JSON syntax: longer than ${MEBIBYTE} bytes` }])
    expect(stream.push(bytes('"}\n{"b":2}'))).toEqual([{ value: { b: 2 } }])
  })

  test('of any bytes never throws', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array()), (parts) => {
        const stream = new JsonStream()
        for (const part of parts) stream.push(part)
      }),
    )
  })
})

function depth(value: unknown): number {
  if (value === null || typeof value !== 'object') return 0
  return 1 + Math.max(0, ...Object.values(value).map((inner) => depth(inner)))
}
