/** Messages about multicast groups, and what is none: P8. */
import { describe, expect, test } from 'vitest'
import {
  BAD_MESSAGE,
  MembershipMessage,
  NO_MESSAGE,
  OTHER_MESSAGE,
  QUERY,
  REPORT,
  ROUTER_HERE,
  WANTS_IT,
  WANTS_IT_NOT,
} from '../../../src/wire/membership.ts'
import {
  ABOUT_GROUPS,
  FOR_ALL,
  FOR_GROUP,
  MulticastHeader,
  NO_GROUP,
} from '../../../src/wire/multicast.ts'
import {
  ALERT_IPV6,
  igmpLeave,
  igmpQuery,
  igmpReport,
  igmpV1Report,
  igmpV3Query,
  igmpV3Report,
  ipv4Frame,
  ipv6Frame,
  mldQuery,
  mldReport,
  mldV2Report,
  pimHello,
  RECORD,
  toGroup,
} from '../../support/group-frames.ts'
import { octets } from '../../support/guard-frames.ts'

const header = new MulticastHeader()
const message = new MembershipMessage()
const kindOf = (frame: Uint8Array, hasPushed = false): number =>
  header.read(frame, 0, frame.length, hasPushed)
const read = (frame: Uint8Array): number =>
  kindOf(frame) === ABOUT_GROUPS ? message.read(frame, 0, frame.length, header) : -1

/** As captured of Linux 6.18: a host joins 239.1.1.1 by IGMPv3. */
const LINUX_V3 = octets(
  '01005e000016 020000000001 0800',
  '46c00028 00004000 0102f9f8 0a000001 e0000016 94040000',
  '2200e9fb 00000001 04000000 ef010101',
)
/** MLDv2 of one that has no address yet, about its solicited-node group. */
const LINUX_MLD = octets(
  '333300000016 020000000001 86dd',
  '60000000 00240001 00000000000000000000000000000000 ff020000000000000000000000000016',
  '3a00 0502 0000 0100',
  '8f00 6f89 0000 0001 04000000 ff0200000000000000000001ff000001',
)

test('P8: reports as Linux sends them', () => {
  expect(read(Uint8Array.from(LINUX_V3))).toBe(REPORT)
  expect([message.nextRecord(), message.word3 >>> 0]).toEqual([WANTS_IT, 0xef010101])
  expect(message.nextRecord()).toBe(-1)
  expect(read(Uint8Array.from(LINUX_MLD))).toBe(REPORT)
  expect([message.nextRecord(), message.word3 >>> 0]).toEqual([WANTS_IT, 0xff000001])
  expect(message.isNameless).toBe(true)
})

test('P8: versions, tags and options', () => {
  for (const tags of [[], [5], [{ tpid: 0x88a8, vid: 4 }, 5]]) {
    expect(read(igmpReport('239.1.1.1', { tags }))).toBe(REPORT)
    expect(message.nextRecord()).toBe(WANTS_IT)
    expect(header.inner).toBe(tags.length === 2 ? 5 : 0)
  }
  expect(kindOf(igmpReport('239.1.1.1', { tags: [5] }), true)).toBe(ABOUT_GROUPS)
  expect(header.inner).toBe(5)
  expect(kindOf(igmpReport('239.1.1.1', { tags: [5, 6] }), true)).toBe(NO_GROUP)
  expect(kindOf(igmpReport('239.1.1.1', { tags: [4, 5, 6] }))).toBe(NO_GROUP)
  expect(kindOf(igmpReport('239.1.1.1', { tags: [{ tpid: 0x9100, vid: 4 }] }))).toBe(NO_GROUP)
  // Without a router alert, and with other options, IGMP is IGMP.
  expect(read(igmpReport('239.1.1.1', { options: [] }))).toBe(REPORT)
  expect(read(igmpReport('239.1.1.1', { options: Array<number>(40).fill(1) }))).toBe(REPORT)
  expect(read(igmpV1Report('239.1.1.1'))).toBe(REPORT)
  expect(read(igmpLeave('239.1.1.1'))).toBe(REPORT)
  expect(message.nextRecord()).toBe(WANTS_IT_NOT)
  expect(read(igmpReport('239.1.1.1', { source: '0.0.0.0' }))).toBe(REPORT)
})

describe('P8: nothing is believed of', () => {
  const report = igmpReport('239.1.1.1')
  const v3 = [{ type: RECORD.toEx, group: '239.1.1.1', sources: ['10.0.0.1'] }]
  const cut = (frame: Uint8Array, length: number): Uint8Array => frame.slice(0, length)
  const alert = (...bytes: number[]): { extensions: readonly [number, readonly number[]] } => ({
    extensions: [0, [58, 0, ...bytes]],
  })
  const changed = (frame: Uint8Array, at: number, value: number): Uint8Array =>
    frame.with(at, value)
  const v6 = mldReport('ff15::1')
  test.each([
    ['a wrong checksum', igmpReport('239.1.1.1', { wrong: 1 })],
    ['a wrong checksum of the header', igmpReport('239.1.1.1', { wrongHeader: 1 })],
    ['a fragment', igmpReport('239.1.1.1', { fragment: 0x2000 })],
    ['a later fragment', igmpReport('239.1.1.1', { fragment: 5 })],
    ['a message that is cut off', cut(report, 14 + 24 + 7)],
    ['a header that is longer than the packet', changed(report, 14, 0x4f)],
    ['a header that is shorter than any', changed(report, 14, 0x44)],
    ['a packet that is longer than the frame', changed(report, 16, 1)],
    ['too few bytes for IGMP', ipv4Frame(2, '224.0.0.1', [0x16, 0, 0, 0], 2)],
    ['a query of no version', ipv4Frame(2, '224.0.0.1', [0x11, 9, 0, 0, 0, 0, 0, 0, 2, 9], 2)],
    ['a query with fewer sources than it says', cut(igmpV3Query({ sources: ['1.2.3.4'] }), 50)],
    [
      'a query that says that it has more sources',
      ipv4Frame(2, '224.0.0.1', [0x11, 9, 0, 0, 0, 0, 0, 0, 2, 9, 0, 1], 2),
    ],
    [
      'fewer records than it says',
      ipv4Frame(2, '224.0.0.22', [0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 1, 1], 2),
    ],
    [
      'a record with fewer sources than it says',
      ipv4Frame(2, '224.0.0.22', [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 255, 255, 239, 1, 1, 1], 2),
    ],
    ['auxiliary data that is not there', changed(igmpV3Report(v3), 14 + 24 + 9, 200)],
    ['MLD with a wrong checksum', mldReport('ff15::1', { wrong: 1 })],
    ['MLD that was forwarded', mldReport('ff15::1', { ttl: 64 })],
    ['MLD without an alert', mldReport('ff15::1', alert(1, 4, 0, 0, 0, 0))],
    ['MLD with an alert about something else', mldReport('ff15::1', alert(5, 2, 0, 1, 1, 0))],
    ['MLD with an option that is longer than all', mldReport('ff15::1', alert(5, 2, 0, 0, 1, 9))],
    ['MLD with an alert that is too short', mldReport('ff15::1', alert(5, 1, 0, 1, 1, 0))],
    [
      'MLD that is too short',
      ipv6Frame(58, 'ff02::2', [131, 0, 0, 0, 0, 0, 0, 0], 2, alert(5, 2, 0, 0, 1, 0)),
    ],
    ['an MLD query from elsewhere', mldQuery({ source: 'fd00::1' })],
    ['an MLD query from nowhere', mldQuery({ source: '::' })],
    ['MLDv2 with more records than bytes', changed(mldV2Report([]), 14 + 40 + 8 + 7, 1)],
  ])('%s', (_, frame) => expect(read(frame)).toBe(BAD_MESSAGE))

  test.each([
    ['options that go on behind the packet', changed(v6, 14 + 40 + 1, 99)],
    [
      'another header behind the options',
      mldReport('ff15::1', { extensions: [0, [60, 0, 5, 2, 0, 0, 1, 0]] }),
    ],
    ['MLD that is cut off', cut(v6, v6.length - 1)],
    [
      'another ICMPv6',
      ipv6Frame(58, 'ff15::1', [135, 0, 0, 0, 0, 0, 0, 0], 2, { extensions: [0, ALERT_IPV6] }),
    ],
    ['PIM with a wrong checksum', pimHello({ wrong: 1 })],
    ['PIM to another group', pimHello({ to: '224.0.0.14' })],
    ['PIM to nobody', pimHello({ mac: [1, 0, 0x5e, 1, 2, 3] })],
    ['PIM that is no hello', ipv4Frame(103, '224.0.0.13', [0x23, 0, 0, 0], 2, { options: [] })],
  ])('%s, which goes where its group goes', (_, frame) => expect(read(frame)).toBe(NO_MESSAGE))

  test.each([
    ['a query that not everybody hears', igmpQuery({ to: '239.9.9.9' })],
    ['a query that no card hears', igmpQuery({ mac: [1, 0, 0x5e, 9, 9, 9] })],
    ['an MLD query that not everybody hears', mldQuery({ to: 'ff15::1' })],
    ['an MLD query that no card hears', mldQuery({ mac: [0x33, 0x33, 9, 9, 9, 9] })],
  ])('%s', (_, frame) => expect(read(frame)).toBe(OTHER_MESSAGE))
})

test('P8: MLD behind other headers, or without options, is no MLD', () => {
  expect(kindOf(mldReport('ff15::1', { extensions: [58, []] }))).toBe(FOR_GROUP)
  expect(kindOf(mldReport('ff15::1', { extensions: [60, [58, 0, 5, 2, 0, 0, 1, 0]] }))).toBe(
    FOR_GROUP,
  )
  expect(kindOf(mldReport('ff15::1', { extensions: [44, [58, 0, 0, 0, 0, 0, 0, 0]] }))).toBe(
    FOR_GROUP,
  )
})

test('P8: what is asked is told', () => {
  expect(read(igmpQuery({ code: 77 }))).toBe(QUERY)
  expect(message).toMatchObject({ isAboutAll: true, responseDs: 77, robustness: 2, intervalS: 125 })
  // Version 1 asks about all groups, whatever stands there.
  expect(read(igmpQuery({ code: 0, group: '239.1.1.1', to: '224.0.0.1' }))).toBe(QUERY)
  expect(message).toMatchObject({ isAboutAll: true, responseDs: 100 })
  expect(read(igmpQuery({ group: '239.1.1.1' }))).toBe(QUERY)
  expect(message).toMatchObject({ isAboutAll: false, isPartial: false, word3: 0xef010101 | 0 })
  expect(read(igmpV3Query({ robustness: 3, intervalCode: 20, code: 0x9f }))).toBe(QUERY)
  expect(message).toMatchObject({ robustness: 3, intervalS: 20, responseDs: 31 << 4 })
  expect(read(mldQuery({ code: 150 }))).toBe(QUERY)
  expect(message).toMatchObject({ isAboutAll: true, responseDs: 2 })
  expect(read(pimHello())).toBe(ROUTER_HERE)
})

test('P8: for whom a frame is', () => {
  expect(kindOf(toGroup('239.1.1.1'))).toBe(FOR_GROUP)
  expect(kindOf(toGroup('224.0.1.0'))).toBe(FOR_GROUP)
  expect(kindOf(toGroup('224.0.0.255'))).toBe(FOR_ALL)
  for (const last of ['1', '2', 'fb']) expect(kindOf(toGroup(`ff02::${last}`))).toBe(FOR_ALL)
  for (const other of ['ff02::3', 'ff02::1:ff00:1', 'ff05::1']) {
    expect(kindOf(toGroup(other))).toBe(FOR_GROUP)
  }
  expect(kindOf(toGroup('fd00::1'))).toBe(NO_GROUP)
  expect(kindOf(toGroup('239.1.1.1').with(14, 0x65))).toBe(NO_GROUP)
})
