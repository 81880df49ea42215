/**
 * VLAN tags that are pushed, popped and rewritten before everything else that is done for an egress: what comes
 * out is what comes out for frames that had those tags from the beginning, in bytes and in vnet_hdrs.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { OFFLOADS_ALL } from '../../src/wire/vnet-hdr.ts'
import type { IpFrameOptions } from '../support/ip-frames.ts'
import { ipFrame, payloadOf, tunnelFrame } from '../support/ip-frames.ts'
import type { OffloadFrame } from '../support/offload-bench.ts'
import { OffloadBench } from '../support/offload-bench.ts'
import { policies, policy } from '../support/policies.ts'

const [NEEDS_CSUM, IN_IPV4] = [1, 0x20]
const [TCPV4, TCPV6, UDP_L4] = [1, 4, 5]

interface Action {
  readonly from: SwitchingOptions
  readonly to: SwitchingOptions
  readonly before: readonly number[]
  readonly after: readonly number[]
}

const native = (tag: number): SwitchingOptions => ({ 'vlan-mode': 'native-untagged', tag })
const tunnel = (tag: number): SwitchingOptions => ({ 'vlan-mode': 'dot1q-tunnel', tag })

const ACTIONS: Readonly<Record<string, Action>> = {
  push: { from: { tag: 10 }, to: {}, before: [], after: [10] },
  pop: { from: {}, to: { tag: 10 }, before: [10], after: [] },
  'pop of two': { from: {}, to: native(7), before: [7, 9], after: [9] },
  rewrite: { from: native(10), to: {}, before: [0], after: [10] },
  'push on a tag': { from: tunnel(7), to: {}, before: [9], after: [7, 9] },
  'tunnel to tunnel': { from: tunnel(7), to: tunnel(7), before: [9], after: [9] },
}

let bench: OffloadBench
beforeAll(() => {
  bench = new OffloadBench()
})
afterAll(() => bench.close())

const kinds = ['plain', 'partial', 'gso'] as const
type Kind = (typeof kinds)[number]

function frameOf(options: IpFrameOptions, kind: Kind, cuts: readonly number[]): OffloadFrame {
  const checksum = kind === 'plain' ? 'full' : 'partial'
  const one = ipFrame({ ...options, checksum })
  const { bytes, l4, end, checksumOffset } = one
  if (kind === 'plain') return { bytes, cuts }
  if (kind === 'partial') return { bytes, cuts, header: [NEEDS_CSUM, 0, 0, 0, l4, checksumOffset] }
  const tcp = options.isIpv6 === true ? TCPV6 : TCPV4
  const type = options.protocol === 'udp' ? UDP_L4 : tcp
  return { bytes, cuts, header: [NEEDS_CSUM, type, end, 500, l4, checksumOffset] }
}

const options = fc.record({
  isIpv6: fc.boolean(),
  protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  payload: fc.integer({ min: 0, max: 4000 }).map(payloadOf),
})
const cuts = fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 6 })

test.each(Object.keys(ACTIONS))(
  '%s: checksums, segments and headers are as they should be',
  (name) => {
    const { from, to, before, after } = ACTIONS[name]
    const all = policies()
    all.set(0, policy(from))
    all.set(1, policy(to))
    fc.assert(
      fc.property(
        fc.array(fc.tuple(options, fc.constantFrom(...kinds), cuts), {
          minLength: 1,
          maxLength: 6,
        }),
        fc.constantFrom(0, OFFLOADS_ALL),
        (frames, takes) => {
          const tagged = (tags: readonly number[]): OffloadFrame[] =>
            frames.map(([one, kind, pieces]) => frameOf({ ...one, vlans: tags }, kind, pieces))
          const wanted = bench.run(tagged(after), takes)
          expect(bench.runTagged(tagged(before), takes, all.vlans)).toEqual(wanted)
        },
      ),
      { numRuns: 40 },
    )
  },
)

test('offsets of a tunnel move as well', () => {
  const all = policies()
  all.set(0, policy({ tag: 10 }))
  const inner = ipFrame({ payload: payloadOf(3000), checksum: 'partial' })
  const made = [[], [10]].map((vlans: number[]) => tunnelFrame(inner, { vlans }))
  const [plain, tagged] = made.map((one): OffloadFrame => ({
    bytes: one.bytes,
    header: [NEEDS_CSUM, IN_IPV4 | TCPV4, one.end, 500, one.l4, one.checksumOffset],
    tunnel: [one.outerL4, one.l3],
  }))
  for (const takes of [0, OFFLOADS_ALL]) {
    expect(bench.runTagged([plain], takes, all.vlans)).toEqual(bench.run([tagged], takes))
  }
})

test('a vnet_hdr that points into the tag which goes cannot be said any more: the frame is dropped', () => {
  const all = policies()
  all.set(1, policy({ tag: 10 }))
  const { bytes } = ipFrame({ vlans: [10], payload: payloadOf(100) })
  const frame = { bytes, header: [NEEDS_CSUM, 0, 0, 0, 14, 0] } as const
  expect(bench.runTagged([frame], OFFLOADS_ALL, all.vlans)).toEqual([])
  expect(bench.counter('tx_drop_offload', 1)).toBe(1)
})

test.each([
  ['a trunk that leaves it as it came', { trunks: [10] }, { trunks: [10] }, [10]],
  ['an access port that rewrites it', { tag: 20 }, {}, [0]],
  ['a tunnel that has it inside', { 'vlan-mode': 'dot1q-tunnel', tag: 20 }, {}, [10]],
  ['a tunnel that takes off another one', {}, { 'vlan-mode': 'dot1q-tunnel', tag: 20 }, [20, 10]],
] as const)('no checksum is written to a tag: %s', (_, from, to, vlans) => {
  const all = policies()
  all.set(0, policy(from))
  all.set(1, policy(to))
  const { bytes, l4, checksumOffset } = ipFrame({ vlans, payload: payloadOf(100) })
  const before = bench.counter('tx_drop_offload', 1)
  const inTags = [14, 4 * vlans.length + 13].map((start): OffloadFrame => ({
    bytes,
    header: [NEEDS_CSUM, 0, 0, 0, start, 0],
  }))
  const right: OffloadFrame = { bytes, header: [NEEDS_CSUM, 0, 0, 0, l4, checksumOffset] }
  for (const takes of [0, OFFLOADS_ALL]) {
    expect(bench.runTagged([...inTags, right], takes, all.vlans)).toHaveLength(1)
  }
  expect(bench.counter('tx_drop_offload', 1)).toBe(before + 4)
})
