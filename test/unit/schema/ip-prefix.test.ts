/** Addresses and prefixes as texts. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  IP_PATTERN,
  IPS_PATTERN,
  joinable,
  parseIpPrefix,
  splitIpPrefixes,
} from '../../../src/schema/ip-prefix.ts'

test('an address is a prefix of its own length', () => {
  expect(parseIpPrefix('10.0.0.1')).toEqual({ isIpv6: false, address: [0x0a000001], mask: [-1] })
  expect(parseIpPrefix('192.0.2.0/24')).toEqual({
    isIpv6: false,
    address: [0xc0000200 | 0],
    mask: [-256],
  })
  expect(parseIpPrefix('0.0.0.0/0')).toMatchObject({ address: [0], mask: [0] })
  expect(parseIpPrefix('fd00::1')).toEqual({
    isIpv6: true,
    address: [0xfd000000 | 0, 0, 0, 1],
    mask: [-1, -1, -1, -1],
  })
  expect(parseIpPrefix('2001:db8::/65')).toMatchObject({ mask: [-1, -1, 1 << 31, 0] })
  expect(parseIpPrefix('::')).toMatchObject({ address: [0, 0, 0, 0] })
  expect(parseIpPrefix('1::')).toMatchObject({ address: [0x10000, 0, 0, 0] })
})

test.each(['', '10.0.0', '10.0.0.256', '010.0.0.1', '10.0.0.1/33', '10.0.0.1/', '10.0.0.1/24/1'])(
  'not %j',
  (text) => expect(parseIpPrefix(text)).toBeUndefined(),
)
test.each(['fe80::1%eth0', 'fd00::1/129', 'fd00::1/-1', ':::', '1:2:3', 'x', '1.2.3.4/a'])(
  'nor %j',
  (text) => expect(parseIpPrefix(text)).toBeUndefined(),
)

test('any address of IPv6 is its eight halves', () => {
  fc.assert(
    fc.property(fc.ipV6(), (text) => {
      fc.pre(!text.includes('.'))
      expect(text).toMatch(new RegExp(IP_PATTERN))
      const parsed = parseIpPrefix(text)!
      const again = parsed.address.flatMap((word) => [(word >>> 16) & 0xffff, word & 0xffff])
      const shown = again.map((half) => half.toString(16)).join(':')
      const normal = (address: string): string => new URL(`http://[${address}]/`).hostname
      expect(normal(shown)).toBe(normal(text))
    }),
  )
})

test('a text of several has those of IPv6 in brackets', () => {
  expect(splitIpPrefixes('10.0.0.1:10.0.1.0/24')).toEqual(['10.0.0.1', '10.0.1.0/24'])
  expect(splitIpPrefixes('fd00::1')).toEqual(['fd00::1'])
  expect(splitIpPrefixes('[fd00::1]:10.0.0.1:[fd01::]/64')).toEqual([
    'fd00::1',
    '10.0.0.1',
    'fd01::/64',
  ])
})

test('whatever a text of several is made of, it is taken apart again', () => {
  const one = fc.constantFrom('10.0.0.1', '192.0.2.0/24', 'fd00::1', '::', '2001:db8::/32')
  fc.assert(
    fc.property(fc.array(one, { minLength: 1, maxLength: 4 }), (all) => {
      const text = all.map((each) => joinable(each)).join(':')
      expect(text).toMatch(new RegExp(IPS_PATTERN))
      expect(splitIpPrefixes(text)).toEqual(all)
    }),
  )
  for (const text of [
    '10.0.0.1::10.0.0.2',
    '[10.0.0.1]',
    '10.0.0.1:',
    '[fd00::1',
    'fd00::1:10.0.0.1',
  ]) {
    expect(splitIpPrefixes(text).every((each) => parseIpPrefix(each) !== undefined)).toBe(false)
    expect(text).not.toMatch(new RegExp(IPS_PATTERN))
  }
})
