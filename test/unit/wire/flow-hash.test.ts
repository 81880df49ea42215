/** The flow hash frame by frame; test/property/flow-hash.test.ts has what must hold for all. */
import { describe, expect, test } from 'vitest'
import { flowHash } from '../../../src/wire/flow-hash.ts'
import {
  bytesOf,
  ethernet,
  ipv4Address,
  ipv4Frame,
  ipv6Address,
  ipv6Fragment,
  ipv6Frame,
  ports,
  SCTP,
  TCP,
  UDP,
} from '../../support/flow-frames.ts'

const A4 = ipv4Address('192.0.2.1')
const B4 = ipv4Address('198.51.100.7')
const A6 = ipv6Address('2001:db8::1')
const B6 = ipv6Address('2001:db8:0:1::7')
const ICMP = 1
const HOP_BY_HOP = 0
const AUTHENTICATION = 51

const hashOf = (frame: Uint8Array): number => flowHash(frame, 0, frame.length)

describe('ports', () => {
  test.each([
    ['TCP', TCP],
    ['UDP', UDP],
    ['SCTP', SCTP],
  ])('of %s tell flows apart, in IPv4 and in IPv6', (_, protocol) => {
    const one = ports(1000, 80)
    const other = ports(1001, 80)
    expect(hashOf(ipv4Frame(A4, B4, protocol, one))).not.toBe(
      hashOf(ipv4Frame(A4, B4, protocol, other)),
    )
    expect(hashOf(ipv6Frame(A6, B6, protocol, one))).not.toBe(
      hashOf(ipv6Frame(A6, B6, protocol, other)),
    )
  })

  test('a protocol without ports is hashed by its addresses', () => {
    expect(hashOf(ipv4Frame(A4, B4, ICMP, ports(1, 2)))).toBe(
      hashOf(ipv4Frame(A4, B4, ICMP, ports(3, 4))),
    )
  })

  test('a port belongs to its address: swapping only the ports is another flow', () => {
    expect(hashOf(ipv4Frame(A4, B4, TCP, ports(1000, 80)))).not.toBe(
      hashOf(ipv4Frame(A4, B4, TCP, ports(80, 1000))),
    )
  })

  test('are found behind IPv4 options', () => {
    const options = bytesOf(1, 1, 1, 1, 1, 1, 1, 0)
    expect(hashOf(ipv4Frame(A4, B4, TCP, ports(1000, 80), { options }))).toBe(
      hashOf(ipv4Frame(A4, B4, TCP, ports(1000, 80))),
    )
  })

  test('are found behind IPv6 extension headers, the authentication header with its own units', () => {
    const hopByHop = [HOP_BY_HOP, bytesOf(0, 1, new Uint8Array(14))] as const
    const authentication = [AUTHENTICATION, bytesOf(0, 4, new Uint8Array(22))] as const
    const extensions = [hopByHop, authentication]
    expect(hashOf(ipv6Frame(A6, B6, UDP, ports(1000, 53), { extensions }))).toBe(
      hashOf(ipv6Frame(A6, B6, UDP, ports(1000, 53))),
    )
  })

  test('are not looked for behind more than eight extension headers', () => {
    const padding = [HOP_BY_HOP, new Uint8Array(8)] as const
    const frame = (count: number, port: number): Uint8Array => {
      const extensions = Array.from({ length: count }, () => padding)
      return ipv6Frame(A6, B6, UDP, ports(port, 53), { extensions })
    }
    expect(hashOf(frame(8, 1))).not.toBe(hashOf(frame(8, 2)))
    expect(hashOf(frame(9, 1))).toBe(hashOf(frame(9, 2)))
  })
})

describe('fragments', () => {
  test('of an IPv4 datagram hash alike, the first one too', () => {
    const first = ipv4Frame(A4, B4, UDP, ports(1000, 53), { fragment: 0x2000 })
    const middle = ipv4Frame(A4, B4, UDP, new Uint8Array(64).fill(7), { fragment: 0x2008 })
    const last = ipv4Frame(A4, B4, UDP, new Uint8Array(3), { fragment: 0x0010 })
    expect(hashOf(middle)).toBe(hashOf(first))
    expect(hashOf(last)).toBe(hashOf(first))
  })

  test('of an IPv6 datagram hash alike, whatever protocol the later ones name', () => {
    const first = ipv6Frame(A6, B6, UDP, ports(1000, 53), { extensions: [ipv6Fragment(0, true)] })
    const last = ipv6Frame(A6, B6, 0, new Uint8Array(9), { extensions: [ipv6Fragment(9, false)] })
    expect(hashOf(last)).toBe(hashOf(first))
  })

  test('a fragment header around a whole datagram makes no fragment', () => {
    const whole = ipv6Frame(A6, B6, UDP, ports(1000, 53), { extensions: [ipv6Fragment(0, false)] })
    expect(hashOf(whole)).toBe(hashOf(ipv6Frame(A6, B6, UDP, ports(1000, 53))))
  })
})

describe('VLAN tags', () => {
  const tagged = (...tags: number[][]): number =>
    hashOf(ipv4Frame(A4, B4, TCP, ports(1000, 80), { tags }))

  test.each([0x8100, 0x88a8, 0x9100])('of type 0x%x do not count', (tpid) => {
    expect(tagged([tpid, 0x2005])).toBe(tagged())
    expect(tagged([tpid, 0x2005], [0x8100, 7])).toBe(tagged())
  })

  test('three of them hide the IP header: MAC addresses count', () => {
    const three = [
      [0x8100, 1],
      [0x8100, 2],
      [0x8100, 3],
    ]
    const payload = ports(1000, 80)
    expect(tagged(...three)).toBe(hashOf(ethernet(0x88cc, payload)))
  })
})

describe('what is no readable IP', () => {
  test('is hashed by both MAC addresses, in either direction', () => {
    const [dst, src] = [bytesOf(2, 0, 0, 0, 0, 1), bytesOf(2, 0, 0, 0, 0, 2)]
    const there = hashOf(ethernet(0x0806, new Uint8Array(28), { dst, src }))
    expect(hashOf(ethernet(0x0806, new Uint8Array(28), { dst: src, src: dst }))).toBe(there)
    expect(hashOf(ethernet(0x0806, new Uint8Array(28), { dst, src: dst }))).not.toBe(there)
  })

  test('a wrong version or header length is no IP', () => {
    const link = hashOf(ethernet(0x0800, new Uint8Array(20)))
    const frame = ipv4Frame(A4, B4, TCP, ports(1, 2))
    for (const first of [0x65, 0x44, 0x00]) {
      frame[14] = first
      expect(hashOf(frame)).toBe(link)
    }
  })

  test('less than two MAC addresses is 0', () => {
    expect(flowHash(new Uint8Array(64).fill(1), 0, 11)).toBe(0)
    expect(flowHash(new Uint8Array(64).fill(1), 53, 64)).toBe(0)
  })
})

test('only the bytes that can be read count', () => {
  const frame = ipv4Frame(A4, B4, TCP, ports(1000, 80))
  const padded = bytesOf([9, 9, 9], frame, [8, 8])
  expect(flowHash(padded, 3, frame.length)).toBe(hashOf(frame))
  // Cut before the ports: addresses. Cut before the addresses' end: MAC addresses.
  expect(flowHash(frame, 0, 37)).toBe(hashOf(ipv4Frame(A4, B4, ICMP, bytesOf())))
  expect(flowHash(frame, 0, 33)).toBe(hashOf(ethernet(0x88cc, bytesOf())))
})
