/** The Toeplitz hash against Microsoft's RSS verification suite ("Verifying the RSS hash
 *  calculation", NDIS documentation). */
import { describe, expect, test } from 'vitest'
import { Toeplitz, TOEPLITZ_KEY_LENGTH_MAX } from '../../../src/virtio/net/toeplitz.ts'
import { bytesOf, ipv4Address, ipv6Address, u16 } from '../../support/flow-frames.ts'
import { RSS_KEY, RSS_VECTORS_IPV4, RSS_VECTORS_IPV6 } from '../../support/rss-vectors.ts'

/** Big-endian words. */
function words(bytes: Uint8Array): Int32Array {
  const view = new DataView(bytes.buffer)
  return Int32Array.from({ length: bytes.length / 4 }, (_, word) => view.getInt32(4 * word))
}

function hashOf(key: Uint8Array, input: Uint8Array): number {
  const toeplitz = new Toeplitz()
  toeplitz.setKey(key)
  return toeplitz.hash(words(input), input.length / 4) >>> 0
}

describe('the verification suite', () => {
  test.each(RSS_VECTORS_IPV4)('IPv4 %s:%d to %s:%d', (src, sport, dst, dport, plain, tcp) => {
    const addresses = bytesOf(ipv4Address(src), ipv4Address(dst))
    expect(hashOf(RSS_KEY, addresses)).toBe(plain)
    expect(hashOf(RSS_KEY, bytesOf(addresses, u16(sport), u16(dport)))).toBe(tcp)
  })

  test.each(RSS_VECTORS_IPV6)(
    'IPv6 %s port %d to %s port %d',
    (src, sport, dst, dport, plain, tcp) => {
      const addresses = bytesOf(ipv6Address(src), ipv6Address(dst))
      expect(hashOf(RSS_KEY, addresses)).toBe(plain)
      expect(hashOf(RSS_KEY, bytesOf(addresses, u16(sport), u16(dport)))).toBe(tcp)
    },
  )
})

test('a short key is as if zeros stood behind it', () => {
  const input = bytesOf(Array.from({ length: 36 }, (_, at) => 255 - at))
  const short = RSS_KEY.subarray(0, 11)
  const padded = bytesOf(short, new Uint8Array(TOEPLITZ_KEY_LENGTH_MAX - 11))
  expect(hashOf(short, input)).toBe(hashOf(padded, input))
  expect(hashOf(bytesOf(), input)).toBe(0)
})

test('a second key replaces the first', () => {
  const toeplitz = new Toeplitz()
  toeplitz.setKey(RSS_KEY)
  toeplitz.setKey(bytesOf(0x80))
  // One bit of key: the hash is the input itself, as far as it is in its first bit.
  expect(toeplitz.hash(Int32Array.of(1 << 31), 1) >>> 0).toBe(0x8000_0000)
  expect(toeplitz.hash(Int32Array.of(0x7fff_ffff), 1)).toBe(0)
})

test('the hash of nothing is 0', () => {
  expect(hashOf(RSS_KEY, bytesOf())).toBe(0)
})
