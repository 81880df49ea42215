/**
 * Hostile messages about groups (P8): whatever comes, reading it neither throws nor looks behind its end, and what
 * is believed is of a group.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MembershipMessage, REPORT } from '../../src/wire/membership.ts'
import { ABOUT_GROUPS, MulticastHeader } from '../../src/wire/multicast.ts'
import {
  ALERT_IPV6,
  igmpLeave,
  igmpQuery,
  igmpReport,
  igmpRouter,
  igmpV3Query,
  igmpV3Report,
  ipv4Frame,
  ipv6Frame,
  mldQuery,
  mldReport,
  mldV2Query,
  mldV2Report,
  pimHello,
  pimV6Hello,
  RECORD,
  toGroup,
} from '../support/group-frames.ts'

const records = Array.from({ length: 5 }, (_, k) => ({
  type: 1 + k,
  group: `239.0.${k}.1`,
  sources: ['10.0.0.1', '10.0.0.2'].slice(0, k % 3),
}))
const records6 = records.map(({ type, sources }, k) => ({
  type,
  group: `ff15::${k}:1`,
  sources: sources.map((_, n) => `fd00::${n}`),
}))
const SEEDS = [
  igmpQuery(),
  igmpQuery({ group: '239.1.1.1', tags: [5] }),
  igmpV3Query({ sources: ['10.0.0.1'] }),
  igmpReport('239.1.1.1'),
  igmpLeave('239.1.1.1', { tags: [{ tpid: 0x88a8, vid: 4 }, 5] }),
  igmpV3Report(records),
  igmpRouter(0x30),
  mldQuery(),
  mldV2Query({ group: 'ff15::1', sources: ['fd00::1'] }),
  mldReport('ff15::1'),
  mldV2Report(records6, { tags: [9] }),
  pimHello(),
  pimV6Hello(),
  toGroup('239.1.1.1'),
  toGroup('ff15::1'),
]

/** All that is read of a frame that stands in such bytes from there on. */
function readAt(bytes: Uint8Array, at: number, length: number, hasPushed: boolean): unknown {
  const header = new MulticastHeader()
  const kind = header.read(bytes, at, length, hasPushed)
  const { isIpv6, inner, word0, word1, word2, word3 } = header
  const said: unknown[] = [kind]
  // Of what is no IP nothing is looked at.
  if (kind !== 0) said.push(isIpv6, inner, word0, word1, word2, word3)
  if (kind !== ABOUT_GROUPS) return said
  const message = new MembershipMessage()
  const what = message.read(bytes, at, length, header)
  said.push(what, header.destination)
  if (what === REPORT) {
    for (let wants = message.nextRecord(); wants >= 0; wants = message.nextRecord()) {
      said.push(wants, message.word0, message.word1, message.word2, message.word3)
    }
  }
  const { source0, source3, responseDs, robustness, intervalS, isPartial } = message
  return [...said, source0, source3, responseDs, robustness, intervalS, isPartial]
}

function isTheSameAnywhere(frame: Uint8Array, before: number, hasPushed: boolean): void {
  const [one, other] = [0x00, 0xff].map((around) => {
    const bytes = new Uint8Array(before + frame.length + 4096).fill(around)
    bytes.set(frame, before)
    return readAt(bytes, before, frame.length, hasPushed)
  })
  expect(one).toEqual(other)
  const exact = new Uint8Array(before + frame.length)
  exact.set(frame, before)
  expect(readAt(exact, before, frame.length, hasPushed)).toEqual(one)
}

const mutated = fc
  .tuple(
    fc.constantFrom(...SEEDS),
    fc.array(fc.tuple(fc.nat(120), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
    fc.nat(200),
  )
  .map(([seed, changes, length]) => {
    const bytes = Uint8Array.from(seed)
    for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
    return bytes.subarray(0, Math.max(1, length < 150 ? length : bytes.length))
  })

test('P8: nothing behind the end of a frame is looked at, whatever it says', () => {
  fc.assert(
    fc.property(mutated, fc.nat(40), fc.boolean(), (frame, before, hasPushed) =>
      isTheSameAnywhere(frame, before, hasPushed),
    ),
    { numRuns: 3000 },
  )
})

test('P8: the same with right checksums, of any message', () => {
  const octet = fc.integer({ min: 0, max: 255 })
  const message = fc
    .tuple(
      fc.constantFrom(0x11, 0x12, 0x16, 0x17, 0x22, 0x30, 130, 131, 132, 143, 151, 153),
      fc.array(fc.oneof(fc.constantFrom(0, 1, 2, 3), octet), { minLength: 3, maxLength: 90 }),
    )
    .map(([type, rest]) => [type, ...rest])
  const extensions = fc.oneof(
    fc.constant([0, ALERT_IPV6] as const),
    fc.array(octet, { minLength: 7, maxLength: 24 }).map((bytes) => [0, [58, ...bytes]] as const),
  )
  const options = fc.array(octet, { maxLength: 10 }).map((one) => one.flatMap((o) => [o, o, o, o]))
  fc.assert(
    fc.property(message, extensions, options, fc.boolean(), (bytes, between, words, isIpv6) => {
      const frame = isIpv6
        ? ipv6Frame(58, 'ff02::16', bytes, 2, { extensions: between })
        : ipv4Frame(2, '224.0.0.22', bytes, 2, { options: words })
      isTheSameAnywhere(frame, 0, false)
    }),
    { numRuns: 3000 },
  )
})

test('P8: what is reported is what is read', () => {
  const list = fc.array(
    fc.record({
      type: fc.constantFrom(...Object.values(RECORD)),
      group: fc.nat(255).map((n) => `239.0.0.${n}`),
      sources: fc.array(fc.constantFrom('10.0.0.1', '10.0.0.2'), { maxLength: 3 }),
      auxiliary: fc.nat(3),
    }),
    { maxLength: 40 },
  )
  fc.assert(
    fc.property(list, (wanted) => {
      const frame = igmpV3Report(wanted)
      const header = new MulticastHeader()
      header.read(frame, 0, frame.length, false)
      const message = new MembershipMessage()
      expect(message.read(frame, 0, frame.length, header)).toBe(REPORT)
      const read: number[] = []
      while (message.nextRecord() >= 0) read.push(message.word3 & 0xff)
      expect(read).toEqual(wanted.map(({ group }) => Number(group.split('.')[3])))
    }),
  )
})
