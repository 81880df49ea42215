/** Which fields are hashed, what is reported, and which queue it picks: VIRTIO 1.3 §5.1.6.4. */
import { describe, expect, test } from 'vitest'
import * as abi from '../../../src/abi/virtio-net.ts'
import type { RssConfig } from '../../../src/virtio/net/rss.ts'
import { Rss, RSS_SUPPORTED_HASH_TYPES, rssConfigFault } from '../../../src/virtio/net/rss.ts'
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
import { RSS_KEY, RSS_VECTORS_IPV4, RSS_VECTORS_IPV6 } from '../../support/rss-vectors.ts'

const DESTINATION_OPTIONS = 60
const ROUTING = 43
const ALL = RSS_SUPPORTED_HASH_TYPES
/** No EX types. */
const PLAIN = 0x3f
const IP_ONLY = abi.VIRTIO_NET_RSS_HASH_TYPE_IPv4 | abi.VIRTIO_NET_RSS_HASH_TYPE_IPv6
/** hash_report has these values for them, linux/virtio_net.h. */
const REPORT_IPV6_EX = 7
const REPORT_TCPV6_EX = 8
const REPORT_UDPV6_EX = 9

function rss(more: Partial<RssConfig> = {}): Rss {
  const own = new Rss()
  own.configure({
    isSteering: true,
    hashTypes: ALL,
    unclassifiedQueue: 0,
    indirectionTable: [0],
    hashKey: RSS_KEY,
    ...more,
  })
  return own
}

function report(own: Rss, frame: Uint8Array): [type: number, value: number] {
  own.calculate(frame, 0, frame.length)
  return [own.hashReport, own.hashValue >>> 0]
}

const [src4, sport, dst4, dport, plain4, tcp4] = RSS_VECTORS_IPV4[0]
const [src6, , dst6, , plain6, tcp6] = RSS_VECTORS_IPV6[0]
const A4 = ipv4Address(src4)
const B4 = ipv4Address(dst4)
const A6 = ipv6Address(src6)
const B6 = ipv6Address(dst6)
const L4 = ports(sport, dport)

describe('hash and report', () => {
  test.each([
    ['TCP', TCP, ALL, abi.VIRTIO_NET_HASH_REPORT_TCPv4, tcp4],
    ['UDP', UDP, ALL, abi.VIRTIO_NET_HASH_REPORT_UDPv4, tcp4],
    ['SCTP, by its addresses', SCTP, ALL, abi.VIRTIO_NET_HASH_REPORT_IPv4, plain4],
    ['TCP of which only IP is enabled', TCP, IP_ONLY, abi.VIRTIO_NET_HASH_REPORT_IPv4, plain4],
    ['UDP of which nothing is enabled', UDP, abi.VIRTIO_NET_RSS_HASH_TYPE_TCPv4, 0, 0],
  ])('of IPv4 %s', (_, protocol, hashTypes, type, value) => {
    expect(report(rss({ hashTypes }), ipv4Frame(A4, B4, protocol, L4))).toEqual([type, value])
  })

  test.each([
    ['TCP', TCP, ALL, abi.VIRTIO_NET_HASH_REPORT_TCPv6, tcp6],
    ['UDP', UDP, ALL, abi.VIRTIO_NET_HASH_REPORT_UDPv6, tcp6],
    ['SCTP, by its addresses', SCTP, ALL, abi.VIRTIO_NET_HASH_REPORT_IPv6, plain6],
    ['TCP of which only IP is enabled', TCP, IP_ONLY, abi.VIRTIO_NET_HASH_REPORT_IPv6, plain6],
    ['UDP of which nothing is enabled', UDP, abi.VIRTIO_NET_RSS_HASH_TYPE_TCPv6, 0, 0],
  ])('of IPv6 %s', (_, protocol, hashTypes, type, value) => {
    expect(report(rss({ hashTypes }), ipv6Frame(A6, B6, protocol, L4))).toEqual([type, value])
  })

  test('a VLAN tag does not matter, and a fragment has no ports', () => {
    const tags = [[0x8100, 5]]
    expect(report(rss(), ipv4Frame(A4, B4, TCP, L4, { tags }))[1]).toBe(tcp4)
    expect(report(rss(), ipv4Frame(A4, B4, TCP, L4, { fragment: 0x2000 }))).toEqual([
      abi.VIRTIO_NET_HASH_REPORT_IPv4,
      plain4,
    ])
    const extensions = [ipv6Fragment(0, true)]
    expect(report(rss({ hashTypes: PLAIN }), ipv6Frame(A6, B6, TCP, L4, { extensions }))).toEqual([
      abi.VIRTIO_NET_HASH_REPORT_IPv6,
      plain6,
    ])
  })

  test('what is no IP has none', () => {
    expect(report(rss(), ethernet(0x0806, new Uint8Array(28)))).toEqual([0, 0])
  })
})

describe('IPv6 with extension headers', () => {
  const empty = [DESTINATION_OPTIONS, new Uint8Array(8)] as const
  /** Pad1, PadN of one byte, home address; padded to 24 bytes. */
  const home = [
    DESTINATION_OPTIONS,
    bytesOf(0, 2, 0, 1, 0, [0xc9, 16], A6, new Uint8Array(1)),
  ] as const
  const routing = [ROUTING, bytesOf(0, 2, 2, 1, [0, 0, 0, 0], B6)] as const
  const other = ipv6Address('2001:db8::99')

  test.each([
    ['TCP', TCP, ALL, REPORT_TCPV6_EX, tcp6],
    ['UDP', UDP, ALL, REPORT_UDPV6_EX, tcp6],
    ['SCTP', SCTP, ALL, REPORT_IPV6_EX, plain6],
    ['TCP without the EX types', TCP, PLAIN, abi.VIRTIO_NET_HASH_REPORT_TCPv6, tcp6],
  ])('%s', (_, protocol, hashTypes, type, value) => {
    const frame = ipv6Frame(A6, B6, protocol, L4, { extensions: [empty] })
    expect(report(rss({ hashTypes }), frame)).toEqual([type, value])
  })

  test('EX types hash the home address and the address of a type 2 routing header', () => {
    const frame = ipv6Frame(other, other, TCP, L4, { extensions: [routing, home] })
    expect(report(rss(), frame)).toEqual([REPORT_TCPV6_EX, tcp6])
    const withoutEx = report(rss({ hashTypes: PLAIN }), frame)
    expect(withoutEx).toEqual(report(rss(), ipv6Frame(other, other, TCP, L4)))
  })

  test('a routing header of another type has no such address', () => {
    const type0 = [ROUTING, bytesOf(0, 2, 0, 1, [0, 0, 0, 0], other)] as const
    expect(report(rss(), ipv6Frame(A6, B6, TCP, L4, { extensions: [type0] }))[1]).toBe(tcp6)
  })
})

describe('steering', () => {
  const indirectionTable = [3, 2, 1, 0]
  const queueFor = (own: Rss, frame: Uint8Array, pairs: number): number =>
    own.queueFor(frame, 0, frame.length, pairs)

  test('the low bits of the hash pick the entry', () => {
    const own = rss({ indirectionTable })
    for (const [src, sport, dst, dport, , tcp] of RSS_VECTORS_IPV4) {
      const frame = ipv4Frame(ipv4Address(src), ipv4Address(dst), TCP, ports(sport, dport))
      expect(queueFor(own, frame, 4)).toBe(indirectionTable[tcp & 3])
      expect(own.hashValue >>> 0).toBe(tcp)
    }
  })

  test('a frame without a hash goes to the unclassified queue', () => {
    const own = rss({ indirectionTable, unclassifiedQueue: 2 })
    expect(queueFor(own, ethernet(0x0806, new Uint8Array(28)), 4)).toBe(2)
  })

  test('a queue that is not active is never picked', () => {
    const own = rss({ indirectionTable: [3], unclassifiedQueue: 2 })
    expect(queueFor(own, ipv4Frame(A4, B4, TCP, L4), 2)).toBe(1)
    expect(queueFor(own, ethernet(0x0806, new Uint8Array(28)), 2)).toBe(0)
  })

  test('switched off, nothing is hashed', () => {
    const own = rss()
    own.configure(null)
    expect(own.isSteering).toBe(false)
    expect(own.config).toBeNull()
    expect(report(own, ipv4Frame(A4, B4, TCP, L4))).toEqual([0, 0])
  })
})

test.each([
  ['an unknown hash type', { hashTypes: 0x200 }],
  ['an unknown hash type in bit 31', { hashTypes: 0x8000_0000 }],
  ['no table', { indirectionTable: [] }],
  ['a table that is no power of two', { indirectionTable: [0, 0, 0] }],
  ['a table of 256', { indirectionTable: Array.from({ length: 256 }, () => 0) }],
  ['an unclassified queue that is not there', { unclassifiedQueue: 4 }],
  ['a queue in the table that is not there', { indirectionTable: [0, 4] }],
  ['a key of 41 bytes', { hashKey: new Uint8Array(41) }],
  ['no key', { hashKey: new Uint8Array(0) }],
])('%s is a fault', (_, more) => {
  const good: RssConfig = {
    isSteering: true,
    hashTypes: ALL,
    unclassifiedQueue: 3,
    indirectionTable: [0, 3],
    hashKey: RSS_KEY,
  }
  expect(rssConfigFault(good, 4)).toBe('')
  expect(rssConfigFault({ ...good, ...more }, 4)).not.toBe('')
})
