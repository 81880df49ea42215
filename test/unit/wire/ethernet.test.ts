/** Addresses as the data plane holds them: words of the frame's first bytes, little-endian. */
import { describe, expect, test } from 'vitest'
import {
  ETHER_HEADER_LENGTH,
  formatMac,
  isGroup,
  isReservedGroup,
} from '../../../src/wire/ethernet.ts'

/** `01:80:c2:00:00:00` as [hi, lo], by way of memory, as the engine gets it. */
function words(mac: string): [hi: number, lo: number] {
  const bytes = new Uint8Array(8)
  bytes.set(mac.split(':').map((byte) => Number.parseInt(byte, 16)))
  const [hi, lo] = new Int32Array(bytes.buffer)
  return [hi, lo & 0xffff]
}

test('an Ethernet header is two addresses and a type', () => {
  expect(ETHER_HEADER_LENGTH).toBe(6 + 6 + 2)
})

describe('isGroup', () => {
  test.each([
    ['ff:ff:ff:ff:ff:ff', true],
    ['01:00:5e:00:00:01', true],
    ['33:33:00:00:00:01', true],
    ['01:80:c2:00:00:00', true],
    ['02:00:00:00:00:01', false],
    ['00:00:00:00:00:00', false],
    ['fe:ff:ff:ff:ff:ff', false],
    ['52:54:00:12:34:56', false],
  ])('%s: %s', (mac, expected) => {
    expect(isGroup(words(mac)[0])).toBe(expected)
  })
})

describe('isReservedGroup', () => {
  test.each(Array.from({ length: 16 }, (_, k) => k))('01:80:c2:00:00:0%# is reserved', (last) => {
    expect(isReservedGroup(...words(`01:80:c2:00:00:0${last.toString(16)}`))).toBe(true)
  })

  test.each([
    '01:80:c2:00:00:10',
    '01:80:c2:00:00:80',
    '01:80:c2:00:00:f0',
    '01:80:c2:00:01:00',
    '01:80:c2:01:00:00',
    '01:80:c3:00:00:00',
    '03:80:c2:00:00:00',
    '00:80:c2:00:00:00',
    'ff:ff:ff:ff:ff:ff',
  ])('%s is not', (mac) => {
    expect(isReservedGroup(...words(mac))).toBe(false)
  })
})

describe('formatMac', () => {
  test.each(['52:54:00:12:34:56', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00', '80:00:0a:f0:01:7f'])(
    '%s is written as it was read',
    (mac) => {
      expect(formatMac(...words(mac))).toBe(mac)
    },
  )

  test('bits of the next address in the second word do not show', () => {
    expect(formatMac(0x0000_5452, 0xabcd_5634 | 0)).toBe('52:54:00:00:34:56')
  })
})
