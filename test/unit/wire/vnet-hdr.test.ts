/** What a vnet_hdr asks of an egress. VIRTIO 1.3 §5.1.6; the sender may be hostile. */
import { describe, expect, test } from 'vitest'
import {
  NEEDS_MALFORMED,
  NEEDS_UNKNOWN_TYPE,
  offloadNeeds,
  OFFLOADS_ALL,
  OFFLOADS_PLAIN,
} from '../../../src/wire/vnet-hdr.ts'

const NEEDS_CSUM = 1
const DATA_VALID = 2
const TUNNEL_CSUM_FLAG = 8
const ECN = 0x80
const [TCPV4, UDP, TCPV6, UDP_L4] = [1, 3, 4, 5]

// TUN_F_* of linux/if_tun.h, spelled out: the table shall not agree with the code by sharing it.
const CSUM = 0x01
const TSO4 = 0x02
const TSO6 = 0x04
const TSO_ECN = 0x08
const USO = 0x20 | 0x40
const TUNNEL = 0x80
const TUNNEL_CSUM = 0x100
const [IN_IPV4, IN_IPV6] = [0x20, 0x40]

interface Header {
  readonly flags?: number
  readonly gsoType?: number
  readonly hdrLen?: number
  readonly gsoSize?: number
  readonly csumStart?: number
  readonly csumOffset?: number
  readonly outerTh?: number
  readonly innerNh?: number
}

function needs(header: Header, length = 1514): number {
  const { flags = 0, gsoType = 0, hdrLen = 0, gsoSize = 0, csumStart = 0, csumOffset = 0 } = header
  const { outerTh = 0, innerNh = 0 } = header
  return offloadNeeds(
    flags | (gsoType << 8) | (hdrLen << 16),
    gsoSize | (csumStart << 16),
    csumOffset,
    length,
    outerTh | (innerNh << 16),
  )
}

/** A TCP frame over IPv4: checksum field at 34 + 16. */
const PARTIAL: Header = { flags: NEEDS_CSUM, csumStart: 34, csumOffset: 16 }

test('OFFLOADS_ALL is everything but UFO, OFFLOADS_PLAIN everything below the tunnel bits', () => {
  expect(OFFLOADS_ALL).toBe(0x1ef)
  expect(OFFLOADS_PLAIN).toBe(0x6f)
})

describe('no segmentation', () => {
  test('a header of zeros needs nothing', () => {
    expect(needs({})).toBe(0)
  })

  test('DATA_VALID is news, not a demand', () => {
    expect(needs({ flags: DATA_VALID })).toBe(0)
  })

  test('a partial checksum needs the checksum offload', () => {
    expect(needs(PARTIAL)).toBe(CSUM)
    expect(needs({ ...PARTIAL, flags: NEEDS_CSUM | DATA_VALID })).toBe(CSUM)
  })

  test('lengths mean nothing without a type', () => {
    expect(needs({ hdrLen: 0xffff, gsoSize: 0xffff })).toBe(0)
  })
})

describe('where a checksum field may lie', () => {
  test.each([
    ['right behind the Ethernet header', 14, 0, 60, CSUM],
    ['with its second byte the last of the frame', 34, 24, 60, CSUM],
    ['one byte too far', 34, 25, 60, NEEDS_MALFORMED],
    ['starting at the end', 60, 0, 60, NEEDS_MALFORMED],
    ['starting behind the end', 100, 16, 60, NEEDS_MALFORMED],
    ['within the Ethernet header', 13, 0, 60, NEEDS_MALFORMED],
    ['at 0', 0, 16, 60, NEEDS_MALFORMED],
    ['at the ends of both fields', 0xffff, 0xffff, 60, NEEDS_MALFORMED],
    // 14 + 0xfffe wraps to 12 in 16 bits.
    ['where 16 bits would wrap', 14, 0xfffe, 60, NEEDS_MALFORMED],
    ['where start is 32768 or more', 0x8000, 16, 65549, CSUM],
  ])('%s', (_, csumStart, csumOffset, length, expected) => {
    expect(needs({ flags: NEEDS_CSUM, csumStart, csumOffset }, length)).toBe(expected)
  })

  test('is not looked at when no checksum is asked for', () => {
    expect(needs({ flags: DATA_VALID, csumStart: 0xffff, csumOffset: 0xffff }, 60)).toBe(0)
  })
})

describe('segmentation', () => {
  test.each([
    ['TCPv4', TCPV4, CSUM | TSO4],
    ['TCPv6', TCPV6, CSUM | TSO6],
    ['TCPv4 with ECN', TCPV4 | ECN, CSUM | TSO4 | TSO_ECN],
    ['TCPv6 with ECN', TCPV6 | ECN, CSUM | TSO6 | TSO_ECN],
    ['UDP segments, both families at once', UDP_L4, CSUM | USO],
  ])('%s', (_, gsoType, expected) => {
    expect(needs({ ...PARTIAL, gsoType, gsoSize: 1448, hdrLen: 66 })).toBe(expected)
    // The checksum is part of segmenting, asked for or not.
    expect(needs({ gsoType, gsoSize: 1448, hdrLen: 66 })).toBe(expected)
  })

  test.each([TCPV4, TCPV6, UDP, UDP_L4, TCPV4 | ECN])(
    'type %i without a size is malformed',
    (gsoType) => {
      expect(needs({ ...PARTIAL, gsoType })).toBe(NEEDS_MALFORMED)
    },
  )

  test('a size in the upper half of the word is csum_start, not gso_size', () => {
    expect(needs({ ...PARTIAL, gsoType: TCPV4, gsoSize: 0, csumStart: 34 })).toBe(NEEDS_MALFORMED)
  })

  test('ECN without a type is malformed', () => {
    expect(needs({ gsoType: ECN, gsoSize: 1448 })).toBe(NEEDS_MALFORMED)
    expect(needs({ ...PARTIAL, gsoType: ECN, gsoSize: 1448 })).toBe(NEEDS_MALFORMED)
  })

  test('a bad checksum field counts before the type', () => {
    const header = { flags: NEEDS_CSUM, csumStart: 2000, csumOffset: 16, gsoSize: 1448 }
    expect(needs({ ...header, gsoType: TCPV4 })).toBe(NEEDS_MALFORMED)
    expect(needs({ ...header, gsoType: 2 })).toBe(NEEDS_MALFORMED)
  })

  const known = new Set([0, TCPV4, UDP, TCPV6, UDP_L4])
  const unknown = Array.from({ length: 32 }, (_, type) => type).filter((type) => !known.has(type))
  test.each(unknown)('type %i is nobody’s', (gsoType) => {
    expect(needs({ gsoType, gsoSize: 1448 })).toBe(NEEDS_UNKNOWN_TYPE)
    expect(needs({ gsoType: gsoType | ECN, gsoSize: 1448 })).toBe(NEEDS_UNKNOWN_TYPE)
  })
})

describe('segmentation in a UDP tunnel', () => {
  /** TCPv4 in VXLAN over IPv4: 14 + 20 is the outer UDP header, 8 + 8 + 14 behind it the inner IP. */
  const VXLAN: Header = {
    flags: NEEDS_CSUM,
    gsoType: TCPV4 | IN_IPV4,
    gsoSize: 1398,
    outerTh: 34,
    innerNh: 64,
    csumStart: 84,
    csumOffset: 16,
  }
  const VXLAN6: Header = { ...VXLAN, outerTh: 54, innerNh: 84, csumStart: 124 }

  test.each([
    ['TCPv4 in IPv4', VXLAN, CSUM | TSO4 | TUNNEL],
    ['TCPv6 in IPv6', { ...VXLAN6, gsoType: TCPV6 | IN_IPV6 }, CSUM | TSO6 | TUNNEL],
    [
      'TCPv4 with ECN',
      { ...VXLAN, gsoType: TCPV4 | IN_IPV4 | ECN },
      CSUM | TSO4 | TSO_ECN | TUNNEL,
    ],
    ['UDP', { ...VXLAN, gsoType: UDP_L4 | IN_IPV4 }, CSUM | USO | TUNNEL],
    [
      'with a checksum around it',
      { ...VXLAN, flags: NEEDS_CSUM | TUNNEL_CSUM_FLAG },
      CSUM | TSO4 | TUNNEL | TUNNEL_CSUM,
    ],
  ])('%s', (_, header, expected) => {
    expect(needs(header)).toBe(expected)
  })

  test.each([
    ['of both families at once', { gsoType: TCPV4 | IN_IPV4 | IN_IPV6 }],
    ['without a checksum', { flags: 0 }],
    ['whose UDP header is in the IP header', { outerTh: 33 }],
    ['over IPv6 whose UDP header is in the IP header', { gsoType: TCPV4 | IN_IPV6, outerTh: 53 }],
    ['whose inside is in the UDP header', { innerNh: 41 }],
    ['whose checksum starts in the inner IP header', { csumStart: 83 }],
    ['without its offsets', { outerTh: 0, innerNh: 0 }],
    ['that segments nothing', { gsoType: IN_IPV4 }],
    ['without a size', { gsoSize: 0 }],
  ])('%s is malformed', (_, difference) => {
    expect(needs({ ...VXLAN, ...difference })).toBe(NEEDS_MALFORMED)
  })

  test('of UDP fragments is nobody’s', () => {
    expect(needs({ ...VXLAN, gsoType: UDP | IN_IPV4 })).toBe(NEEDS_UNKNOWN_TYPE)
  })

  test('the flag without a tunnel means nothing', () => {
    expect(needs({ ...VXLAN, flags: NEEDS_CSUM | TUNNEL_CSUM_FLAG, gsoType: TCPV4 })).toBe(
      CSUM | TSO4,
    )
  })
})
