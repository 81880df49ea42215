/**
 * Checksums, segmentation and coalescing in software: what comes out against what the standards say
 * of it, computed in another way; and that nothing which a peer writes makes more than a drop.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { TUN_F_CSUM, TUN_F_UDP_TUNNEL_GSO_CSUM } from '../../src/abi/if-tun.ts'
import { NEEDS_IPV4_CHECKSUM, OFFLOADS_ALL, OFFLOADS_PLAIN } from '../../src/wire/vnet-hdr.ts'
import type { IpFrame, IpFrameOptions, TunnelOptions } from '../support/ip-frames.ts'
import {
  checksumFault,
  ipFrame,
  payloadOf,
  referenceSum,
  tunnelFrame,
} from '../support/ip-frames.ts'
import type { GivenFrame, OffloadFrame } from '../support/offload-bench.ts'
import { OffloadBench } from '../support/offload-bench.ts'

const [FIN, PSH, ACK, ECE, CWR] = [0x01, 0x08, 0x10, 0x40, 0x80]
const [NEEDS_CSUM, DATA_VALID, TUNNEL_CSUM, ECN] = [1, 2, 8, 0x80]
const [IN_IPV4, IN_IPV6] = [0x20, 0x40]
const [TCPV4, TCPV6, UDP_L4] = [1, 4, 5]

let bench: OffloadBench

beforeAll(() => {
  bench = new OffloadBench()
})

afterAll(() => bench.close())

const headers = fc.record({
  vlans: fc.oneof(fc.constant([]), fc.constant([5]), fc.constant([7, 9])),
  isIpv6: fc.boolean(),
  id: fc.nat(0xffff),
  tos: fc.nat(255),
  ttl: fc.integer({ min: 1, max: 255 }),
  dontFragment: fc.boolean(),
  sourcePort: fc.nat(0xffff),
  sequence: fc.oneof(fc.nat(0xffff_ffff), fc.constant(0xffff_ff00)),
  acknowledgement: fc.nat(0xffff_ffff),
  window: fc.nat(0xffff),
  tcpOptions: fc.constantFrom([], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]),
})
const cuts = fc.oneof(
  fc.constant([]),
  fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 8 }),
)

/** The vnet_hdr of a TSO or USO frame; hdr_len is a lie. */
function gsoHeader(one: IpFrame, type: number, gsoSize: number): OffloadFrame['header'] {
  return [NEEDS_CSUM, type, 1, gsoSize, one.l4, one.checksumOffset]
}

function typeOf(options: IpFrameOptions): number {
  if (options.protocol === 'udp') return UDP_L4
  return options.isIpv6 === true ? TCPV6 : TCPV4
}

/** The frame that a sender without offloads would have sent instead as the n-th of so many. */
function expectedSegment(whole: IpFrameOptions, n: number, gsoSize: number): IpFrame {
  const payload = whole.payload.subarray(n * gsoSize, (n + 1) * gsoSize)
  const isLast = (n + 1) * gsoSize >= whole.payload.length
  let flags = whole.flags ?? ACK
  if (!isLast) flags &= ~(FIN | PSH)
  if (n > 0) flags &= ~CWR
  return ipFrame({
    ...whole,
    payload,
    flags,
    id: ((whole.id ?? 0) + n) & 0xffff,
    sequence: ((whole.sequence ?? 0) + n * gsoSize) >>> 0,
    checksum: 'full',
  })
}

describe('segmentation', () => {
  test('makes what a sender without offloads would have sent', () => {
    fc.assert(
      fc.property(
        headers,
        fc.boolean(),
        fc.constantFrom(ACK, ACK | PSH, ACK | FIN | PSH, ACK | ECE | CWR),
        fc.integer({ min: 1, max: 9000 }),
        fc.integer({ min: 100, max: 1500 }),
        cuts,
        (fields, isUdp, flags, length, gsoSize, pieces) => {
          const options: IpFrameOptions = {
            ...fields,
            flags,
            protocol: isUdp ? 'udp' : 'tcp',
            payload: payloadOf(length),
            checksum: 'partial',
          }
          const whole = ipFrame(options)
          const ecn = !isUdp && (flags & CWR) !== 0 ? ECN : 0
          const header = gsoHeader(whole, typeOf(options) | ecn, gsoSize)!
          const given = bench.run([{ bytes: whole.bytes, header, cuts: pieces }], 0)
          expect(given).toHaveLength(Math.ceil(length / gsoSize))
          given.forEach((segment, n) => {
            const expected = expectedSegment(options, n, gsoSize)
            expect(segment.bytes).toEqual(expected.bytes)
            expect(segment).toMatchObject({ gso: 0, needs: 0 })
            expect(checksumFault(segment.bytes, expected.l3, expected.l4)).toBeUndefined()
          })
        },
      ),
      { numRuns: 300 },
    )
  })

  test('of 64 KiB, and of many frames at once, is complete and in order', () => {
    const frames = Array.from({ length: 8 }, (_, k) => {
      const options = { payload: payloadOf(65000, k), checksum: 'partial' as const, source: k + 1 }
      const whole = ipFrame(options)
      return { options, frame: { bytes: whole.bytes, header: gsoHeader(whole, TCPV4, 1448)! } }
    })
    const given = bench.run(
      frames.map(({ frame }) => frame),
      0,
    )
    const each = Math.ceil(65000 / 1448)
    expect(given).toHaveLength(8 * each)
    given.forEach(({ bytes }, n) => {
      const { options } = frames[Math.floor(n / each)]
      expect(
        Buffer.compare(
          bytes,
          expectedSegment({ ...options, id: 0x1234, sequence: 1000 }, n % each, 1448).bytes,
        ),
      ).toBe(0)
    })
  })

  test('that would make a packet longer than its header can say is a drop', () => {
    const options: IpFrameOptions = { payload: payloadOf(65_503), checksum: 'partial' }
    const whole = ipFrame(options)
    const cutAt = (gsoSize: number): GivenFrame[] =>
      bench.run([{ bytes: whole.bytes, header: gsoHeader(whole, TCPV4, gsoSize)! }], 0)
    expect(cutAt(65_503)).toEqual([])
    expect(cutAt(65_496)).toEqual([])
    expect(cutAt(65_495).map(({ bytes }) => bytes.length)).toEqual([14 + 65_535, 54 + 8])
  })

  test('walks IPv6 extension headers and IPv4 options', () => {
    for (const more of [
      {
        isIpv6: true,
        extensions: [
          [0, 8],
          [60, 24],
        ] as const,
      },
      { ipOptions: 12 },
    ]) {
      const options: IpFrameOptions = { ...more, payload: payloadOf(3000), checksum: 'partial' }
      const whole = ipFrame(options)
      const header = gsoHeader(whole, typeOf(options), 1000)!
      const given = bench.run([{ bytes: whole.bytes, header }], 0)
      expect(given.map(({ bytes }) => bytes)).toEqual(
        [0, 1, 2].map(
          (n) => expectedSegment({ id: 0x1234, sequence: 1000, ...options }, n, 1000).bytes,
        ),
      )
    }
  })
})

const tunnels = fc.record({
  isIpv6: fc.boolean(),
  vlans: fc.oneof(fc.constant([]), fc.constant([5])),
  id: fc.nat(0xffff),
  header: fc.constantFrom(undefined, [0x02, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
})

/** A header checksum that is wrong by as much as one that is right plus `fault`. */
function damageIpv4(bytes: Uint8Array, l3: number, fault: number): Uint8Array {
  const damaged = bytes.slice()
  const sum = ((damaged[l3 + 10] << 8) | damaged[l3 + 11]) + fault
  const folded = (sum & 0xffff) + (sum >>> 16)
  damaged[l3 + 10] = folded >>> 8
  damaged[l3 + 11] = folded & 0xff
  return damaged
}

describe('segmentation of a damaged frame', () => {
  const whole = ipFrame({ payload: payloadOf(3000), checksum: 'partial' })
  const header = gsoHeader(whole, TCPV4, 1000)!

  test('leaves a wrong IPv4 header checksum as wrong as it was', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 0xfffe }), (fault) => {
        const bytes = damageIpv4(whole.bytes, whole.l3, fault)
        fc.pre(bytes[whole.l3 + 10] !== 0 || bytes[whole.l3 + 11] !== 0)
        const given = bench.run([{ bytes, header }], 0)
        expect(given).toHaveLength(3)
        for (const one of given) {
          expect(referenceSum(one.bytes.subarray(whole.l3, whole.l4)) % 0xffff).toBe(fault)
        }
      }),
    )
  })

  test('the IPv4 headers of a tunnel and in it keep their damage apart', () => {
    const tunnel = tunnelFrame(whole)
    const around = [tunnel.outerL4, tunnel.l3] as const
    const gso = gsoHeader(tunnel, TCPV4 | IN_IPV4, 1000)!
    const inner = damageIpv4(tunnel.bytes, tunnel.l3, 5)
    const both = damageIpv4(inner, tunnel.outerL3, 9)
    const given = bench.run([{ bytes: both, header: gso, tunnel: around }], OFFLOADS_PLAIN)
    expect(given).toHaveLength(3)
    for (const { bytes } of given) {
      expect(referenceSum(bytes.subarray(tunnel.l3, tunnel.l4)) % 0xffff).toBe(5)
      expect(referenceSum(bytes.subarray(tunnel.outerL3, tunnel.outerL4)) % 0xffff).toBe(9)
    }
  })

  test('a checksum that was left zero is filled, one that is wrong beside it is not', () => {
    const tunnel = tunnelFrame(whole)
    const bytes = damageIpv4(tunnel.bytes, tunnel.outerL3, 9)
    const [given] = bench.run(
      [
        {
          bytes: Uint8Array.from(bytes).fill(0, tunnel.l3 + 10, tunnel.l3 + 12),
          header: gsoHeader(tunnel, TCPV4 | IN_IPV4, 1000)!,
          tunnel: [tunnel.outerL4, tunnel.l3],
          needs: NEEDS_IPV4_CHECKSUM,
        },
      ],
      OFFLOADS_ALL,
    )
    expect(given.bytes).toEqual(bytes)
  })

  test.each([
    ['IPv4 total length', {}, (one: IpFrame) => one.l3 + 2],
    ['IPv6 payload length', { isIpv6: true }, (one: IpFrame) => one.l3 + 4],
    ['UDP length', { protocol: 'udp' as const }, (one: IpFrame) => one.l4 + 4],
  ])('a wrong %s is a drop, zero is not', (_, options, place) => {
    const one = ipFrame({ ...options, payload: payloadOf(3000), checksum: 'partial' })
    const gso = gsoHeader(one, typeOf({ ...options, payload: payloadOf(0) }), 1000)!
    const given = (high: number): number => {
      const bytes = one.bytes.slice()
      bytes[place(one)] = high
      if (high === 0) bytes[place(one) + 1] = 0
      return bench.run([{ bytes, header: gso }], 0).length
    }
    expect([given(one.bytes[place(one)]), given(0), given(1), given(0xff)]).toEqual([3, 3, 0, 0])
  })

  test('whose checksum is neither left to us nor verified is a drop', () => {
    const flags = (value: number): number =>
      bench.run(
        [{ bytes: whole.bytes, header: [value, ...header.slice(1)] as never, needs: TUN_F_CSUM }],
        0,
      ).length
    expect([flags(NEEDS_CSUM), flags(DATA_VALID), flags(0)]).toEqual([3, 3, 0])
  })
})

describe('segmentation in a UDP tunnel', () => {
  function given(
    options: IpFrameOptions,
    around: TunnelOptions,
    gsoSize: number,
    more: { cuts?: readonly number[]; offloads?: number; needs?: number } = {},
  ): GivenFrame[] {
    const checksum = around.checksum === 'full' ? 'partial' : 'none'
    const whole = tunnelFrame(ipFrame({ ...options, checksum: 'partial' }), { ...around, checksum })
    const family = around.isIpv6 === true ? IN_IPV6 : IN_IPV4
    const header = [...gsoHeader(whole, typeOf(options) | family, gsoSize)!] as number[]
    if (around.checksum === 'full') header[0] |= TUNNEL_CSUM
    const frame = {
      bytes: whole.bytes,
      header: header as unknown as OffloadFrame['header'],
      tunnel: [whole.outerL4, whole.l3] as const,
      cuts: more.cuts ?? [],
      needs: more.needs ?? 0,
    } as OffloadFrame
    return bench.run([frame], more.offloads ?? OFFLOADS_PLAIN)
  }

  test('makes what a sender without offloads would have sent', () => {
    fc.assert(
      fc.property(
        headers,
        tunnels,
        fc.boolean(),
        fc.constantFrom('full' as const, 'none' as const),
        fc.integer({ min: 1, max: 9000 }),
        fc.integer({ min: 100, max: 1400 }),
        cuts,
        (fields, { header, ...around }, isUdp, checksum, length, gsoSize, pieces) => {
          const protocol = isUdp ? ('udp' as const) : ('tcp' as const)
          const options = { ...fields, protocol, payload: payloadOf(length) }
          const tunnel = { ...around, checksum, ...(header === undefined ? {} : { header }) }
          const got = given(options, tunnel, gsoSize, { cuts: pieces })
          expect(got).toHaveLength(Math.ceil(length / gsoSize))
          got.forEach((segment, n) => {
            const inner = expectedSegment(options, n, gsoSize)
            const expected = tunnelFrame(inner, { ...tunnel, id: (tunnel.id + n) & 0xffff })
            expect(segment.bytes).toEqual(expected.bytes)
            expect(segment).toMatchObject({ gso: 0, needs: 0 })
          })
        },
      ),
      { numRuns: 300 },
    )
  })

  test('is not needed for a port that takes the tunnel, nor its checksum without one', () => {
    const options = { payload: payloadOf(3000) }
    expect(given(options, {}, 1000, { offloads: OFFLOADS_ALL })).toHaveLength(1)
    const withoutChecksum = OFFLOADS_ALL & ~TUN_F_UDP_TUNNEL_GSO_CSUM
    expect(given(options, {}, 1000, { offloads: withoutChecksum })).toHaveLength(1)
    const around = { checksum: 'full' as const }
    expect(given(options, around, 1000, { offloads: withoutChecksum })).toHaveLength(3)
  })

  test('the checksums of both IPv4 headers are filled where they were left zero', () => {
    const options = { payload: payloadOf(3000) }
    const whole = tunnelFrame(ipFrame({ ...options, checksum: 'partial' }))
    const bytes = whole.bytes.slice()
    for (const l3 of [whole.l3, whole.outerL3]) bytes.fill(0, l3 + 10, l3 + 12)
    const header = gsoHeader(whole, TCPV4 | IN_IPV4, 1000)!
    const tunnel = [whole.outerL4, whole.l3] as const
    const frame = { bytes, header, tunnel, needs: NEEDS_IPV4_CHECKSUM }
    const [got] = bench.run([frame], OFFLOADS_ALL)
    expect(got.bytes).toEqual(whole.bytes)
    expect(got.tunnel).toBe(whole.outerL4 | (whole.l3 << 16))
    expect(got.gso & 0xffff).toBe(NEEDS_CSUM | ((TCPV4 | IN_IPV4) << 8))
  })

  test.each([
    ['an inner packet that begins later', [34, 66]],
    ['an outer UDP header that begins later', [36, 64]],
    ['an inner packet in the inner Ethernet header', [34, 62]],
    ['an inner packet at an odd place', [34, 65]],
  ] as const)('a header that tells of %s is a drop', (_, tunnel) => {
    const whole = tunnelFrame(ipFrame({ payload: payloadOf(3000), checksum: 'partial' }))
    const header = gsoHeader(whole, TCPV4 | IN_IPV4, 1000)!
    const frame = { bytes: whole.bytes, header, tunnel, needs: TUN_F_CSUM }
    expect(bench.run([frame], 0)).toEqual([])
  })
})

describe('checksums', () => {
  test('are completed, wherever the frame is cut; 0 becomes 0xffff', () => {
    fc.assert(
      fc.property(headers, fc.boolean(), fc.nat(3000), cuts, (fields, isUdp, length, pieces) => {
        const options: IpFrameOptions = {
          ...fields,
          protocol: isUdp ? 'udp' : 'tcp',
          payload: payloadOf(length),
        }
        const partial = ipFrame({ ...options, checksum: 'partial' })
        const header = [NEEDS_CSUM, 0, 0, 0, partial.l4, partial.checksumOffset] as const
        const [given] = bench.run([{ bytes: partial.bytes, header, cuts: pieces }], 0)
        expect(given.bytes).toEqual(ipFrame(options).bytes)
        expect(given).toMatchObject({ gso: 0, needs: 0 })
      }),
      { numRuns: 200 },
    )
  })

  test('of an IPv4 header that was left zero is filled, and the rest stays', () => {
    const whole = ipFrame({ payload: payloadOf(4000), checksum: 'partial' })
    const bytes = whole.bytes.slice()
    bytes.fill(0, whole.l3 + 10, whole.l3 + 12)
    const header = gsoHeader(whole, TCPV4, 1000)!
    const [given] = bench.run([{ bytes, header, needs: NEEDS_IPV4_CHECKSUM }], OFFLOADS_ALL)
    expect(given.bytes).toEqual(whole.bytes)
    expect(given.gso & 0xffff).toBe(NEEDS_CSUM | (TCPV4 << 8))
    expect(given.needs & NEEDS_IPV4_CHECKSUM).toBe(0)
  })
})

/** The segments of a frame, as frames without offloads. */
function segmentsOf(options: IpFrameOptions, gsoSize: number): OffloadFrame[] {
  const count = Math.ceil(options.payload.length / gsoSize)
  return Array.from({ length: count }, (_, n) => ({
    bytes: expectedSegment(options, n, gsoSize).bytes,
  }))
}

function expectWhole(given: GivenFrame, options: IpFrameOptions, gsoSize: number): void {
  const whole = ipFrame({ ...options, checksum: 'partial' })
  const isEcn = ((options.flags ?? ACK) & CWR) !== 0
  expect(given.bytes).toEqual(whole.bytes)
  expect(given.gso).toBe(
    NEEDS_CSUM | ((typeOf(options) | (isEcn ? ECN : 0)) << 8) | (whole.end << 16),
  )
  expect(given.gsoSize).toBe(gsoSize | (whole.l4 << 16))
  expect(given.csumOffset).toBe(16)
}

/** A TCP checksum of 0 or 0xffff, which are one number: segmentation would not know which it was. */
function hasTwoSpellings({ bytes }: OffloadFrame, { l4 }: IpFrame): boolean {
  return ((bytes[l4 + 16] << 8) | bytes[l4 + 17]) % 0xffff === 0
}

describe('coalescing', () => {
  test('of the segments of a frame is the frame', () => {
    fc.assert(
      fc.property(
        headers,
        fc.constantFrom(ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR),
        fc.integer({ min: 2, max: 30 }),
        fc.integer({ min: 1, max: 1448 }),
        fc.integer({ min: 200, max: 1448 }),
        cuts,
        (fields, flags, count, rest, gsoSize, pieces) => {
          const length = (count - 1) * gsoSize + Math.min(rest, gsoSize)
          const options: IpFrameOptions = { ...fields, flags, payload: payloadOf(length) }
          const frames = segmentsOf(options, gsoSize)
          fc.pre(!frames.some((frame) => hasTwoSpellings(frame, ipFrame(options))))
          frames[1] = { ...frames[1], cuts: pieces }
          const given = bench.run(frames, OFFLOADS_ALL, true)
          expect(given).toHaveLength(1)
          expectWhole(given[0], options, gsoSize)
        },
      ),
      { numRuns: 80 },
    )
  })

  test.each([0, 0xffff])('leaves a segment whose checksum is %i alone', (checksum) => {
    const payload = payloadOf(3000)
    const options = { payload, id: 7, sequence: 1000 }
    // What the sum of the second segment lacks is added to its payload.
    payload.fill(0, 1000, 1002)
    const second = expectedSegment(options, 1, 1000)
    payload.set(second.bytes.subarray(second.l4 + 16, second.l4 + 18), 1000)
    const frames = segmentsOf(options, 1000)
    expect(hasTwoSpellings(frames[1], second)).toBe(true)
    frames[1].bytes.fill(checksum, second.l4 + 16, second.l4 + 18)
    const given = bench.run(frames, OFFLOADS_ALL, true)
    expect(given.map((one) => one.bytes)).toEqual(frames.map((one) => one.bytes))
  })

  test('of interleaved flows keeps each of them in order', () => {
    const flows = [1, 2, 3].map((source) => ({ source, payload: payloadOf(5000, source) }))
    const segments = flows.map((flow) => segmentsOf({ ...flow, id: 5, sequence: 9 }, 1000))
    const mixed = Array.from({ length: 5 }, (_, n) => segments.map((list) => list[n])).flat()
    const given = bench.run(mixed, OFFLOADS_ALL, true)
    expect(given).toHaveLength(3)
    given.forEach((one, k) => expectWhole(one, { ...flows[k], id: 5, sequence: 9 }, 1000))
  })

  /** Each makes the second segment one that must not be merged with the first. */
  const DIFFERENCES: [string, Partial<IpFrameOptions>][] = [
    ['a gap', { sequence: 2001 }],
    ['a repetition', { sequence: 1000 }],
    ['another acknowledgement', { acknowledgement: 1 }],
    ['another window', { window: 1 }],
    ['another TTL', { ttl: 3 }],
    ['another TOS', { tos: 4 }],
    ['another id', { id: 77 }],
    ['DF', { dontFragment: false }],
    ['another VLAN', { vlans: [6] }],
    ['no VLAN', { vlans: [] }],
    ['another port', { sourcePort: 1 }],
    ['another host', { source: 9 }],
    ['options', { tcpOptions: [1, 1, 1, 1] }],
    ['URG', { flags: ACK | 0x20 }],
    ['SYN', { flags: ACK | 0x02 }],
    ['RST', { flags: ACK | 0x04 }],
    ['CWR', { flags: ACK | CWR }],
    ['ECE', { flags: ACK | ECE }],
    ['a longer payload', { payload: payloadOf(1001) }],
    ['no payload', { payload: payloadOf(0) }],
    ['IPv6', { isIpv6: true }],
    ['UDP', { protocol: 'udp' }],
    ['a wrong checksum', { checksum: 'none' }],
  ]
  test.each(DIFFERENCES)('never goes across %s', (_, difference) => {
    const base = { vlans: [5], payload: payloadOf(1000), id: 1, sequence: 1000 }
    const first = ipFrame(base).bytes
    const second = ipFrame({ ...base, id: 2, sequence: 2000, ...difference }).bytes
    const given = bench.run([{ bytes: first }, { bytes: second }], OFFLOADS_ALL, true)
    expect(given.map(({ bytes }) => bytes)).toEqual([first, second])
    expect(given.every(({ gso }) => gso === 0)).toBe(true)
  })

  test.each([
    ['an acknowledgement without payload', { payload: payloadOf(0) }, false],
    ['a frame that is to be segmented', { payload: payloadOf(2000) }, true],
  ] as const)('never goes past %s of its flow', (_, options, isGso) => {
    const segment = (n: number): OffloadFrame => ({
      bytes: ipFrame({ payload: payloadOf(500), id: n, sequence: 1 + n * 500 }).bytes,
    })
    const between = ipFrame({
      ...options,
      id: 9,
      sequence: 501,
      checksum: isGso ? 'partial' : 'full',
    })
    const header = isGso ? { header: gsoHeader(between, TCPV4, 500)! } : {}
    const frames = [segment(0), { bytes: between.bytes, ...header }, segment(1)]
    const given = bench.run(frames, OFFLOADS_ALL, true)
    expect(given.map(({ bytes }) => bytes)).toEqual(frames.map(({ bytes }) => bytes))
  })

  test.each([
    ['PSH', ACK | PSH],
    ['FIN', ACK | FIN],
  ])('ends with %s', (_, flags) => {
    const at = (n: number, flag: number): OffloadFrame => ({
      bytes: ipFrame({ payload: payloadOf(500), id: n, sequence: 1 + n * 500, flags: flag }).bytes,
    })
    const given = bench.run([at(0, ACK), at(1, flags), at(2, ACK), at(3, ACK)], OFFLOADS_ALL, true)
    expect(given.map(({ bytes }) => bytes.length - 54)).toEqual([1000, 1000])
  })

  test('ends with 64 KiB', () => {
    const options = { payload: payloadOf(100 * 1400), id: 0, sequence: 1 }
    const given = bench.run(segmentsOf(options, 1400), OFFLOADS_ALL, true)
    const lengths = given.map(({ bytes }) => bytes.length - 14)
    expect(Math.max(...lengths)).toBeLessThanOrEqual(65535)
    expect(lengths.reduce((sum, length) => sum + length - 40, 0)).toBe(100 * 1400)
  })

  test('a port without TSO for that family is given the segments', () => {
    const segments = segmentsOf({ isIpv6: true, payload: payloadOf(3000), sequence: 1 }, 1000)
    expect(bench.run(segments, 0x03, true)).toHaveLength(3)
  })
})

/** What a receiver without offloads would see of these frames. */
function onWire(given: readonly GivenFrame[]): Buffer[] {
  return given.flatMap(({ bytes, gso, gsoSize, csumOffset }) => {
    if (gso === 0) return [Buffer.from(bytes)]
    const header = [
      gso & 0xff,
      (gso >>> 8) & 0xff,
      gso >>> 16,
      gsoSize & 0xffff,
      gsoSize >>> 16,
      csumOffset,
    ] as const
    return bench.run([{ bytes, header }], 0).map((one) => Buffer.from(one.bytes))
  })
}

describe('coalescing and damage', () => {
  const base = { payload: payloadOf(300), id: 7, sequence: 1000 }
  const segment = (n: number, more: Partial<IpFrameOptions> = {}): IpFrame =>
    ipFrame({ ...base, id: base.id + n, sequence: 1000 + n * 300, ...more })
  const l3 = 14

  test('what is segmented after it is what came, byte for byte, whatever was wrong with it', () => {
    const spot = fc.record({
      frame: fc.nat(4),
      at: fc.oneof(fc.integer({ min: 12, max: 60 }), fc.nat(350)),
      flip: fc.integer({ min: 1, max: 255 }),
    })
    fc.assert(
      fc.property(
        fc.constantFrom<Partial<IpFrameOptions>>({}, { isIpv6: true }, { vlans: [5] }),
        fc.constantFrom(0, 1, 0xffff),
        fc.array(spot, { maxLength: 3 }),
        fc.boolean(),
        (more, idStep, spots, isValid) => {
          const frames = Array.from({ length: 5 }, (_, n) =>
            segment(n, { ...more, id: (7 + n * idStep) & 0xffff }).bytes.slice(),
          )
          for (const { frame, at, flip } of spots) {
            if (at < frames[frame].length) frames[frame][at] ^= flip
          }
          const flags = isValid ? DATA_VALID : 0
          const given = bench.run(
            frames.map((bytes) => ({ bytes, header: [flags, 0, 0, 0, 0, 0] as const })),
            OFFLOADS_ALL,
            true,
          )
          const plain = given.map((one) => ((one.gso & 0xff00) === 0 ? { ...one, gso: 0 } : one))
          // Frames of another flow may be overtaken, none is lost or changed.
          const sorted = (list: readonly Uint8Array[]): string[] =>
            list.map((bytes) => Buffer.from(bytes).toString('hex')).sort()
          expect(sorted(onWire(plain))).toEqual(sorted(frames))
        },
      ),
      { numRuns: 1000 },
    )
  })

  test.each([
    ['a wrong IPv4 header checksum', (bytes: Uint8Array) => (bytes[l3 + 10] ^= 0x55), 0],
    [
      'one, though the TCP checksum was verified',
      (bytes: Uint8Array) => (bytes[l3 + 10] ^= 0x55),
      2,
    ],
    [
      'a wrong TCP checksum that is said to be verified',
      (bytes: Uint8Array) => (bytes[90] ^= 1),
      2,
    ],
  ])('%s is passed on', (_, damage, flags) => {
    const frames = [0, 1, 2].map((n) => segment(n).bytes.slice())
    damage(frames[1])
    const given = bench.run(
      frames.map((bytes) => ({ bytes, header: [flags, 0, 0, 0, 0, 0] as const })),
      OFFLOADS_ALL,
      true,
    )
    expect(given.map(({ bytes }) => bytes)).toEqual(frames)
  })

  test('a partial checksum is completed as its sender began it, or not merged', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, 0, 1, 0x5555),
        fc.constantFrom(0, 0, 2, -2),
        fc.constantFrom(0, 0, 3),
        (fieldFlip, startShift, ipFlip) => {
          const frames = [0, 1, 2].map((n) => {
            const one = segment(n, { checksum: 'partial' })
            const bytes = one.bytes.slice()
            const header = [NEEDS_CSUM, 0, 0, 0, one.l4, one.checksumOffset]
            if (n === 1) {
              bytes[one.l4 + 16] ^= fieldFlip >>> 8
              bytes[one.l4 + 17] ^= fieldFlip & 0xff
              bytes[l3 + 11] ^= ipFlip
              header[4] += startShift
            }
            return { bytes, header } as unknown as OffloadFrame
          })
          const alone = frames.flatMap((frame) => bench.run([frame], 0).map(({ bytes }) => bytes))
          const given = bench.run(frames, OFFLOADS_ALL, true)
          const isDamaged = fieldFlip !== 0 || startShift !== 0 || ipFlip !== 0
          expect(given).toHaveLength(isDamaged ? 3 : 1)
          if (!isDamaged) expect(onWire(given)).toEqual(alone.map((bytes) => Buffer.from(bytes)))
        },
      ),
    )
  })
})

test('nothing that a peer writes makes more than a drop, or reads outside its frame', () => {
  const base = [
    ipFrame({ payload: payloadOf(3000), checksum: 'partial' }).bytes,
    ipFrame({ payload: payloadOf(3000), isIpv6: true, extensions: [[0, 8]] }).bytes,
    ipFrame({ payload: payloadOf(900), vlans: [1, 2], protocol: 'udp' }).bytes,
    tunnelFrame(ipFrame({ payload: payloadOf(900) }), { checksum: 'partial' }).bytes,
  ]
  const mutation = fc.tuple(fc.nat(120), fc.nat(255))
  fc.assert(
    fc.property(
      fc.constantFrom(...base),
      fc.array(mutation, { maxLength: 6 }),
      fc.integer({ min: 14, max: 3100 }),
      fc.tuple(
        fc.constantFrom(0, 1, 2, 3, 9),
        fc.constantFrom(0, 1, 4, 5, 0x81, 0x84, 0x21, 0x44, 0x25),
        fc.nat(0xffff),
        fc.oneof(fc.nat(20), fc.nat(0xffff)),
        fc.oneof(fc.nat(200), fc.nat(0xffff)),
        fc.oneof(fc.nat(20), fc.nat(0xffff)),
      ),
      fc.oneof(fc.constant([34, 64] as const), fc.tuple(fc.nat(200), fc.nat(0xffff))),
      cuts,
      fc.boolean(),
      fc.constantFrom(0, 1, 3, 7, OFFLOADS_ALL),
      (whole, mutations, length, header, tunnel, pieces, isMerging, offloads) => {
        const bytes = whole.slice(0, Math.min(length, whole.length))
        for (const [at, value] of mutations) if (at < bytes.length) bytes[at] = value
        const frames = Array.from({ length: 3 }, () => ({ bytes, header, tunnel, cuts: pieces }))
        const given = bench.run(frames, offloads, isMerging)
        for (const one of given)
          expect(one.bytes.length).toBeLessThanOrEqual(3 * bytes.length + 200)
      },
    ),
    { numRuns: 2000 },
  )
})
