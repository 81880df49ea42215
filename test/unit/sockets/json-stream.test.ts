/** The byte stream of a control client: values come out whole, however they were cut; garbage is told. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { JsonItem } from '../../../src/sockets/json-stream.ts'
import { formatJson } from '../../../src/sockets/json-parser.ts'
import { JsonStream } from '../../../src/sockets/json-stream.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const MEBIBYTE = 1024 * 1024

function push(text: string): JsonItem[] {
  return new JsonStream().push(bytes(text))
}

test('a value in the making goes on in another stream', () => {
  const first = new JsonStream()
  expect(first.push(bytes('{"a":1} {"b":"x'))).toEqual([{ value: { a: 1 } }])
  const second = new JsonStream()
  expect(second.push(first.pending!)).toEqual([])
  expect(second.push(bytes('y"}'))).toEqual([{ value: { b: 'xy' } }])
  expect(second.pending).toEqual(new Uint8Array(0))
})

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
        const data = bytes(values.map((one) => JSON.stringify(one)).join('\n'))
        const places = [...new Set(cuts.map((cut) => cut % (data.length + 1)))]
        const stream = new JsonStream()
        const items: JsonItem[] = []
        let from = 0
        for (const to of [...places.toSorted((x, y) => x - y), data.length]) {
          items.push(...stream.push(data.subarray(from, to)))
          from = to
        }
        // Integers beyond 2^53 are bigints, which is another test.
        const come = items.map((item) => formatJson((item as { value: unknown }).value))
        expect(come.map((text) => JSON.parse(text) as unknown)).toEqual(
          values.map((one) => JSON.parse(JSON.stringify(one)) as unknown),
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

  test('are QEMU’s: single quotes, integers of 64 bits, no key twice', () => {
    expect(push(`{'a':'it\\'s "x"', "b":"it's"}`)).toEqual([
      { value: { a: `it's "x"`, b: `it's` } },
    ])
    const integers = '[9007199254740993, 18446744073709551615, -9223372036854775808, 7]'
    expect(push(integers)).toEqual([
      { value: [9007199254740993n, 18446744073709551615n, -9223372036854775808n, 7] },
    ])
    expect(push('[18446744073709551616, 1.50, 1E5, -0, 0.1e1]')).toEqual([
      { value: [2 ** 64, 1.5, 100000, -0, 1] },
    ])
    expect(push('["\\ud83d\\ude00\\u0041\\/\\b"]')).toEqual([{ value: ['\u{1f600}A/\b'] }])
    expect(push('{"__proto__":{"x":1},"constructor":2}')).toEqual([
      { value: JSON.parse('{"__proto__":{"x":1},"constructor":2}') as unknown },
    ])
  })
})

/** What QEMU says of it, less its prefix where it has one; test/interop compares with a real one. */
describe('garbage', () => {
  test.each([
    ['hello ', [`invalid keyword 'hello'`]],
    [`${'a'.repeat(5000)} `, [`invalid keyword '${'a'.repeat(64)}'`]],
    [`1${'0'.repeat(5000)} `, [`1${'0'.repeat(63)} is out of range`]],
    ['}', ['expecting value']],
    [':,', ['expecting value', 'expecting value']],
    ['{"a":}', ['expecting value']],
    ['{,}', ['expecting value']],
    ['[1,]', ['expecting value']],
    ['{a:1}', [`invalid keyword 'a'`]],
    ['{]', ['expecting value']],
    ['{"a":[1}]', ['expected separator in list']],
    ['{"a":1 "b":2}', ['expected separator in dict']],
    ['{"a" 1}', ['missing : in object pair']],
    ['{1:2}', ['key is not a string in object']],
    ['{"a":1,"a":2}', ['duplicate key']],
    ['["a\\q"]', ['invalid escape sequence in string']],
    ['["\\ud83d"]', ['\\ud83d is not a valid Unicode character']],
    ['["\\ude00"]', ['\\ude00 is not a valid Unicode character']],
    ['["a\\u0041\\ude00"]', ['\\ude00 is not a valid Unicode character']],
    ['["\\u12"]', ['\\u12 is not a valid Unicode character']],
    ['Hello ', [`stray 'H'`]],
    ['@x"y" ', [`stray '@'`]],
    ['[01]', [`stray '01'`, 'expecting value']],
    ['1.x ', [`stray '1.x'`]],
    ['- ', [`stray '- '`]],
    ['1e ', [`stray '1e '`]],
    ['"a\nb"', [`stray '"a\n'`]],
    ['/* c */', [`stray '/'`]],
    ['1e400 ', ['1e400 is out of range']],
  ])('%j is told', (text, errors) => {
    expect(push(text)).toEqual(errors.map((error) => ({ error: `JSON parse error, ${error}` })))
  })

  test.each([
    ['1 2', 1],
    ['"text"', 'text'],
    ['true ', true],
    ['null ', null],
  ])('%j is a value', (text, value) => {
    expect(push(text)).toEqual([{ value }])
  })

  test.each(['hello ', 'Hello ', '"a\nb', '{"a":nonsense}', '[01]', '/* c */', '@x\n', '1.', '}}'])(
    '%j is followed by what is right',
    (text) => {
      const items = push(`${text}{"b":2}{"b":3}`)
      expect(items.slice(-1)).toEqual([{ value: { b: 3 } }])
    },
  )

  test('nests no deeper than QEMU’s', () => {
    const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
    expect(push(nested(1024))[0].error).toBe(undefined)
    expect(push(nested(1025))[0]).toEqual({ error: 'JSON nesting depth limit exceeded' })
  })

  test('of bytes that are no UTF-8 is told', () => {
    const stream = new JsonStream()
    expect(stream.push(Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22))).toEqual([
      { error: 'JSON parse error, invalid UTF-8 sequence in string' },
    ])
    expect(stream.push(Uint8Array.of(0xff, 0x7b, 0x7d))).toEqual([
      { error: "JSON parse error, stray '\ufffd'" },
      { value: {} },
    ])
  })

  test('without an end is given up after a mebibyte, and only the rest of its line is lost', () => {
    const stream = new JsonStream()
    const part = bytes('x'.repeat(65536))
    const items = [...stream.push(bytes('{"a":"'))]
    for (let k = 0; k < 160; k++) items.push(...stream.push(part))
    expect(items).toEqual([{ error: `JSON value longer than ${MEBIBYTE} bytes` }])
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

describe('memory', () => {
  test('is that of the value, also when its bytes come one at a time', () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const text = `{"a":"${'x'.repeat(MEBIBYTE - 100)}"}`
    const data = bytes(text)
    const stream = new JsonStream()
    const used = (): number => {
      gc()
      const { heapUsed, external } = process.memoryUsage()
      return heapUsed + external
    }
    const before = used()
    let items = 0
    for (let at = 0; at < data.length - 1; at++) {
      items += stream.push(data.subarray(at, at + 1)).length
    }
    expect(items).toBe(0)
    expect(used() - before).toBeLessThan(4 * MEBIBYTE)
    expect(stream.push(data.subarray(-1))).toEqual([{ value: JSON.parse(text) as unknown }])
  })
})
