/**
 * Snooping beside that of the kernel's bridge, P8: the same frames into both go to the same ports. Otherwise than
 * the bridge we give reports of IGMPv3 and MLDv2, and leaves, to routers only, ff02::2 and ff02::fb to all, and
 * take a record BLOCK for no report; of those only what follows from them is compared, or nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  icmpV6Router,
  igmpLeave,
  igmpQuery,
  igmpReport,
  igmpRouter,
  igmpV1Report,
  igmpV3Query,
  igmpV3Report,
  mldDone,
  mldQuery,
  mldReport,
  mldV2Query,
  mldV2Report,
  pimHello,
  RECORD,
  toGroup,
} from '../../support/group-frames.ts'
import { KernelBridge } from '../../support/kernel-bridge.ts'
import { Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { frame, Sim } from '../../support/sim.ts'

const PORTS = 5
const QUERIER = 4
/** Longer than what a query of these tests takes: a tenth of a second to answer, twice. */
const ANSWERED_MS = 400
/** Of a query within whose time everything of a test is done, in tenths of a second and in milliseconds. */
const [LONG_TENTHS, LONG_MS] = [240, 24_000]
/** Between two looks at a kernel whose timers are late, and all of them. */
const [LOOK_MS, LATE_MS] = [200, 20_000]

class Pair implements Disposable {
  readonly sim = new Sim(PORTS, { snooping: { igmp: true, mld: true } })
  readonly bridge: KernelBridge

  constructor(lab: Lab) {
    this.bridge = new KernelBridge(lab, PORTS, ['mcast_snooping', '1'])
  }

  /** What each gave to its ports, as hex. */
  async send(port: number, bytes: Uint8Array): Promise<{ ours: string[][]; theirs: string[][] }> {
    this.sim.send(port, bytes)
    const ours = this.sim.ports.map((_, at) => this.sim.receive(at).map(hex))
    const theirs = (await this.bridge.send(port, bytes)).map((frames) => frames.map(hex))
    return { ours, theirs }
  }

  async same(what: string, port: number, bytes: Uint8Array): Promise<number[]> {
    const { ours, theirs } = await this.send(port, bytes)
    expect({ what, port, given: ours }).toEqual({ what, port, given: theirs })
    return ours.flatMap((frames, at) => (frames.length > 0 ? [at] : []))
  }

  /**
   * The same of a frame for a group, which changes nothing: the kernel's own timers may be later than they ought to
   * be, and it is asked again.
   */
  async data(what: string, port: number, group: string): Promise<number[]> {
    const bytes = toGroup(group, { from: port + 1 })
    const agrees = async (): Promise<boolean> => {
      const { ours, theirs } = await this.send(port, bytes)
      if (JSON.stringify(ours) === JSON.stringify(theirs)) return true
      await sleep(LOOK_MS)
      return false
    }
    await until('the bridge has come so far', agrees, LATE_MS).catch(() => undefined)
    return this.same(what, port, bytes)
  }

  setRouter(port: number, option: keyof typeof MCAST_ROUTER): void {
    this.sim.allow(port, { 'multicast-router': option })
    this.bridge.set(port, 'mcast_router', MCAST_ROUTER[option])
  }

  async pass(): Promise<void> {
    await sleep(ANSWERED_MS)
    this.sim.wait(1)
  }

  [Symbol.dispose](): void {
    this.sim[Symbol.dispose]()
    this.bridge[Symbol.dispose]()
  }
}

const MCAST_ROUTER = { never: '0', auto: '1', always: '2' } as const

/** Without what stands behind the packet, which the bridge cuts off messages that it reads. */
const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(?:00)+$/, '')

const GROUP = '239.1.2.3'
const GROUP6 = 'ff15::1:2'

test.each([
  ['IGMP', GROUP, igmpQuery, LONG_TENTHS],
  ['MLD', GROUP6, mldQuery, LONG_MS],
])(
  'P8: %s, until all have had the time to answer data goes to all',
  async (_, group, ask, code) => {
    await using lab = new Lab()
    using pair = new Pair(lab)
    await pair.same('a query', QUERIER, ask({ code }))
    expect(await pair.data('data', 0, group)).toEqual([1, 2, 3, 4])
  },
)

test.each([
  ['IGMP', GROUP, igmpQuery, igmpReport, igmpLeave, pimHello(), igmpRouter(0x30)],
  // The bridge knows no PIM of IPv6.
  ['MLD', GROUP6, mldQuery, mldReport, mldDone, icmpV6Router(151), icmpV6Router(151)],
])('P8: %s, step by step', async (_, group, ask, report, leave, hello, mrd) => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  const data = (port: number): Promise<number[]> => pair.data('data', port, group)
  expect(await data(0)).toEqual([1, 2, 3, 4])
  await pair.same('a report without a querier', 1, report(group, { from: 2 }))
  expect(await data(0)).toEqual([1, 2, 3, 4])
  await pair.same('a query', QUERIER, ask())
  await pair.pass()
  expect(await data(0)).toEqual([1, 4])
  expect(await pair.same('a report', 2, report(group, { from: 3 }))).toEqual([4])
  expect(await data(0)).toEqual([1, 2, 4])
  expect(await data(1)).toEqual([2, 4])
  expect(await data(4)).toEqual([1, 2])
  await pair.send(1, leave(group, { from: 2 }))
  expect(await data(0)).toEqual([1, 2, 4])
  await pair.same('a query about a group', QUERIER, ask({ group }))
  await pair.same('a report', 2, report(group, { from: 3 }))
  await pair.pass()
  expect(await data(0)).toEqual([2, 4])
  await pair.same('a router', 0, hello)
  expect(await data(1)).toEqual([0, 2, 4])
  await pair.same('a router', 3, mrd)
  expect(await data(1)).toEqual([0, 2, 3, 4])
  expect(await pair.same('a report', 2, report(group, { from: 3 }))).toEqual([0, 3, 4])
})

test.each([
  ['IGMP', GROUP, igmpQuery, igmpReport, pimHello],
  ['MLD', GROUP6, mldQuery, mldReport, (parts: object) => icmpV6Router(151, parts)],
])('P8, multicast-router, beside mcast_router: %s', async (_, group, ask, report, hello) => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  const data = (port: number): Promise<number[]> => pair.data('data', port, group)
  pair.setRouter(1, 'never')
  pair.setRouter(2, 'always')
  expect(await data(0)).toEqual([1, 2, 3, 4])
  // The querier may be there all the same.
  await pair.same('a query', 1, ask({ from: 2 }))
  await pair.pass()
  expect(await data(0)).toEqual([2])
  await pair.same('a router', 1, hello({ from: 2 }))
  expect(await data(0)).toEqual([2])
  expect(await pair.same('a report', 3, report(group, { from: 4 }))).toEqual([2])
  expect(await data(0)).toEqual([2, 3])
  expect(await pair.same('a report', 1, report(group, { from: 2 }))).toEqual([2])
  expect(await data(0)).toEqual([1, 2, 3])
  pair.setRouter(2, 'auto')
  expect(await data(0)).toEqual([1, 3])
  await pair.same('a router', 2, hello({ from: 3 }))
  expect(await data(0)).toEqual([1, 2, 3])
  pair.setRouter(2, 'never')
  expect(await data(0)).toEqual([1, 3])
  pair.setRouter(4, 'always')
  expect(await data(0)).toEqual([1, 3, 4])
})

test('P8: what is wrong is dropped and believed by neither', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  await pair.same('a query', QUERIER, igmpQuery())
  await pair.same('a query', QUERIER, mldQuery())
  await pair.pass()
  const record = [{ type: RECORD.toEx, group: GROUP }]
  const wrong: [string, Uint8Array][] = [
    ['checksum of IGMP', igmpReport(GROUP, { wrong: 1 })],
    ['checksum of IGMPv3', igmpV3Report(record, { wrong: 0x100 })],
    ['checksum of IPv4', igmpReport(GROUP, { wrongHeader: 1 })],
    ['length of IPv4', igmpReport(GROUP).with(16, 1)],
    ['checksum of MLD', mldReport(GROUP6, { wrong: 1 })],
    ['an MLD query from elsewhere', mldQuery({ source: 'fd00::1' })],
    ['cut off', igmpReport(GROUP).slice(0, 44)],
  ]
  for (const [what, bytes] of wrong) {
    expect([what, await pair.same(what, 1, bytes)]).toEqual([what, []])
  }
  expect(await pair.data('IPv4', 0, GROUP)).toEqual([4])
  expect(await pair.data('IPv6', 0, GROUP6)).toEqual([4])
})

/** A step; `isSame`: the frame itself goes to the same ports. */
interface Step {
  readonly what: string
  readonly port: number
  readonly bytes: Uint8Array
  readonly isSame: boolean
  /** Of data. */
  readonly group?: string
}

const group4 = fc.constantFrom(GROUP, '239.129.2.3', '224.1.2.3', '224.0.0.9', '239.0.0.251')
const group6 = fc.constantFrom(GROUP6, 'ff15::2', 'ff02::1:ff00:1', 'ff05::1', 'ff02::1')
const port = fc.nat(PORTS - 2)
const type = fc.constantFrom(RECORD.isIn, RECORD.isEx, RECORD.toIn, RECORD.toEx, RECORD.allow, 9)
const records = <T>(
  group: fc.Arbitrary<string>,
  make: (n: number) => T,
): fc.Arbitrary<{ type: number; group: string; sources: T[] }[]> =>
  fc.array(
    fc
      .record({ type, group, sources: fc.array(fc.nat(3).map(make), { maxLength: 2 }) })
      // The bridge takes one that allows nothing for a report.
      .filter((one) => one.type !== RECORD.allow || one.sources.length > 0),
    { minLength: 1, maxLength: 3 },
  )
const step = (
  what: string,
  isSame: boolean,
  make: fc.Arbitrary<(from: number) => Uint8Array>,
): fc.Arbitrary<Step> =>
  fc.tuple(port, make).map(([at, bytes]) => ({ what, port: at, bytes: bytes(at + 1), isSame }))
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.tuple(port, fc.oneof(group4, group6)).map(([at, group]) => ({
        what: 'data',
        port: at,
        bytes: toGroup(group, { from: at + 1 }),
        isSame: true,
        group,
      })),
    },
    {
      weight: 2,
      arbitrary: step(
        'IGMPv2',
        true,
        group4.map((to) => (from) => igmpReport(to, { from })),
      ),
    },
    {
      weight: 1,
      arbitrary: step(
        'IGMPv1',
        true,
        group4.map((to) => (from) => igmpV1Report(to, { from })),
      ),
    },
    {
      weight: 2,
      arbitrary: step(
        'MLDv1',
        true,
        group6.map((to) => (from) => mldReport(to, { from })),
      ),
    },
    {
      weight: 2,
      arbitrary: step(
        'IGMPv3',
        false,
        records(group4, (n) => `10.0.0.${n}`).map((list) => (from) => igmpV3Report(list, { from })),
      ),
    },
    {
      weight: 2,
      arbitrary: step(
        'MLDv2',
        false,
        records(group6, (n) => `fd00::${n}`).map((list) => (from) => mldV2Report(list, { from })),
      ),
    },
    {
      weight: 1,
      arbitrary: step(
        'leave',
        false,
        group4.map((to) => (from) => igmpLeave(to, { from })),
      ),
    },
    {
      weight: 1,
      arbitrary: step(
        'done',
        false,
        group6.map((to) => (from) => mldDone(to, { from })),
      ),
    },
    {
      weight: 1,
      arbitrary: step(
        'other',
        true,
        fc.constant((from) => frame(1, from).fill(3, 0, 1)),
      ),
    },
    {
      weight: 1,
      arbitrary: step(
        'PIM',
        true,
        fc.constant((from) => pimHello({ from })),
      ),
    },
  ),
  { minLength: 5, maxLength: 40 },
)

test(
  'P8: whoever joins and leaves, data goes to the same ports',
  { timeout: 120_000 },
  async () => {
    let reached = 0
    await fc.assert(
      fc.asyncProperty(steps, fc.boolean(), async (list, isNew) => {
        await using lab = new Lab()
        using pair = new Pair(lab)
        await pair.same('a query', QUERIER, isNew ? igmpV3Query() : igmpQuery())
        await pair.same('a query', QUERIER, isNew ? mldV2Query() : mldQuery())
        await pair.pass()
        for (const group of [GROUP, GROUP6]) await pair.data('data', 0, group)
        for (const { what, port: at, bytes, isSame, group } of list) {
          if (group !== undefined) reached += (await pair.data(what, at, group)).length
          else if (isSame) reached += (await pair.same(what, at, bytes)).length
          else await pair.send(at, bytes)
        }
        // One of the groups is asked about, and nobody answers.
        await pair.same(
          'a query',
          QUERIER,
          isNew ? igmpV3Query({ group: GROUP }) : igmpQuery({ group: GROUP }),
        )
        await pair.same(
          'a query',
          QUERIER,
          isNew ? mldV2Query({ group: GROUP6 }) : mldQuery({ group: GROUP6 }),
        )
        await pair.pass()
        for (const to of [GROUP, '239.129.2.3', '224.1.2.3', GROUP6, 'ff15::2', 'ff02::1:ff00:1']) {
          reached += (await pair.data(to, 0, to)).length
        }
      }),
      { numRuns: 15 },
    )
    expect(reached).toBeGreaterThan(100)
  },
)
