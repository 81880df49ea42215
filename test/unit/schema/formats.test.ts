/** Texts that are more than texts: what is refused, and that the pattern for editors agrees. */
import { describe, expect, test } from 'vitest'
import type { FormatName } from '../../../src/schema/formats.ts'
import { FORMATS, vlanRange } from '../../../src/schema/formats.ts'

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
  vlans: [
    ['0', '1', '010', '999', '4095', '1-1', '10-20', '0-4095'],
    ['', '4096', '0010', '-1', '1-', '1-2-3', '1-4096', 'x', '1 ', '0x1'],
  ],
  mac: [
    ['02:00:00:00:00:01', 'aa-BB-cc-DD-ee-FF'],
    ['', '02:00:00:00:00', '02:00:00:00:00:01:02', '2:0:0:0:0:1', '02:00:00:00:00:0g'],
  ],
  ip: [
    [
      '10.0.0.1',
      '0.0.0.0/0',
      '192.0.2.0/24',
      'fd00::1',
      '::',
      'fd00::/64',
      '1:2:3:4:5:6:7:8',
      '1:2:3:4:5:6:7::',
      '::/128',
    ],
    [
      '',
      'x',
      '10.0.0',
      '10.0.0.256',
      '10.0.0.1/33',
      '10.0.0.1/',
      'fd00::1/129',
      'fd00::1%eth0',
      '::1.2.3.4',
      '1::2::3',
      '10.0.0.1/08',
    ],
  ],
  octet: [
    ['0', '00', '0e', 'F', '9'],
    ['', '10', '000', 'g', '0x1'],
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

test('a range goes up', () => {
  expect(FORMATS.vlans.refuse('20-10', 'trunks')?.message).toContain('no range')
  expect(vlanRange('10-20')).toEqual([10, 20])
})

test('in an option string addresses stand behind one another', () => {
  const [one, other] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
  expect(FORMATS.mac.split!(`${one}:${other}`)).toEqual([one, other])
  expect(FORMATS.mac.split!('02-00-00-00-00-01')).toEqual(['02-00-00-00-00-01'])
  expect(FORMATS.mac.split!(`02-00-00-00-00-01:${other}:02-00`)).toEqual([
    '02-00-00-00-00-01',
    other,
    '02-00',
  ])
  expect(FORMATS.mac.split!(`${one}:02:00`)).toEqual([one, '02:00'])
})

test('bytes are counted, which no pattern does', () => {
  expect(FORMATS.ifname.refuse('ä'.repeat(8), 'ifname')?.message).toContain('is 16 bytes long')
  expect(FORMATS['socket-path'].refuse('ä'.repeat(54), 'path')?.message).toContain('108 bytes')
})
