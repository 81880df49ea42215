/** Texts that are more than texts: what is refused, and that the pattern for editors agrees. */
import { describe, expect, test } from 'vitest'
import type { FormatName } from '../../../src/schema/formats.ts'
import { FORMATS } from '../../../src/schema/formats.ts'

const EXAMPLES: Readonly<Record<FormatName, readonly [good: string[], bad: string[]]>> = {
  id: [
    ['a', 'vm1', 'A-b.c_d', 'a'.repeat(63)],
    ['', '1a', '-a', 'a b', 'a\n', 'ä', 'a'.repeat(64)],
  ],
  ifname: [
    ['', 'eth0', 'tap%d', '%d', 'eth0.100', '...', 'x'.repeat(15)],
    ['.', '..', 'a/b', 'a:b', 'a b', 'a\tb', 'a\n', '%', '%s', '%d%d', 'x'.repeat(16)],
  ],
  'ifname-of-one': [
    ['eth0', 'eth0.100', 'x'.repeat(15)],
    ['', '.', '..', 'a/b', 'a b', 'eth%d', '%', 'x'.repeat(16)],
  ],
  'socket-path': [
    ['/x', 'x', ' ', 'x'.repeat(107)],
    ['', 'x'.repeat(108)],
  ],
  descriptors: [
    ['', '3', '3:4', 'x:y', ':', Array.from({ length: 1024 }, () => '3').join(':')],
    [Array.from({ length: 1025 }, () => '3').join(':')],
  ],
}

describe.each(Object.keys(EXAMPLES) as FormatName[])('%s', (name) => {
  const { pattern, lengthMax = Infinity } = FORMATS[name]
  const fits = (text: string): boolean =>
    new RegExp(pattern, 'u').test(text) && text.length <= lengthMax
  const [good, bad] = EXAMPLES[name]

  test.each(good)('%j is one', (text) => {
    expect([FORMATS[name].refuse(text, 'key'), fits(text)]).toEqual([undefined, true])
  })

  test.each(bad)('%j is none', (text) => {
    expect(FORMATS[name].refuse(text, 'key')?.message).toMatch(/\S/)
    expect(fits(text)).toBe(false)
  })
})

test('bytes are counted, which no pattern does', () => {
  expect(FORMATS.ifname.refuse('ä'.repeat(8), 'ifname')?.message).toContain('is 16 bytes long')
  expect(FORMATS['socket-path'].refuse('ä'.repeat(54), 'path')?.message).toContain('108 bytes')
})
