/** IGMP and MLD snooping on the whole switch. RFC 4541; requirement P8. */
import { describe, expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { handOver, takeOver } from '../../src/engine/handing.ts'
import type { SnoopingSettings } from '../../src/engine/messages.ts'
import { groupEntries } from '../../src/switch/groups.ts'
import {
  icmpV6Router,
  igmpLeave,
  igmpQuery,
  igmpReport,
  igmpRouter,
  igmpV1Report,
  igmpV3Query,
  igmpV3Report,
  ipv4Frame,
  mldDone,
  mldQuery,
  mldReport,
  mldV2Query,
  mldV2Report,
  pimHello,
  pimV6Hello,
  RECORD,
  toGroup,
} from '../support/group-frames.ts'
import { frame, Sim } from '../support/sim.ts'

const ON: Partial<SnoopingSettings> = { igmp: true, mld: true }

function simOf(ports: number, snooping = ON, options: Record<number, SwitchingOptions> = {}): Sim {
  const sim = new Sim(ports, { snooping })
  for (const [port, its] of Object.entries(options)) sim.allow(Number(port), its)
  return sim
}

/** The ports that were given what one sent. */
function reached(sim: Sim, port: number, sent: Uint8Array): number[] {
  sim.send(port, sent)
  return sim.ports.flatMap((_, at) => (sim.receive(at).length > 0 ? [at] : []))
}

/** A querier behind the last port, which everybody has had the time to answer. */
function query(sim: Sim, port: number, sent: Uint8Array = igmpQuery()): void {
  reached(sim, port, sent)
  sim.wait(1)
}

const GROUP = '239.1.2.3'
const GROUP6 = 'ff15::1:2'

describe.each([
  ['IGMP', GROUP, igmpQuery, igmpReport],
  ['MLD', GROUP6, mldQuery, mldReport],
])('P8: %s', (_, group, ask, report) => {
  test('until a querier was seen everything is flooded, and known groups too', () => {
    using sim = simOf(4)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    expect(reached(sim, 1, report(group, { from: 2 }))).toEqual([0, 2, 3])
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    query(sim, 3, ask())
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 3])
  })

  test('a known group goes to members and routers, an unknown one to routers, reports to routers', () => {
    using sim = simOf(4)
    expect(reached(sim, 3, ask())).toEqual([0, 1, 2])
    sim.wait(1)
    expect(reached(sim, 0, toGroup(group))).toEqual([3])
    expect(reached(sim, 3, toGroup(group, { from: 99 }))).toEqual([])
    expect(sim.count(3).rx_drop_no_member).toBe(1)
    expect(reached(sim, 1, report(group, { from: 2 }))).toEqual([3])
    expect(reached(sim, 2, report(group, { from: 3 }))).toEqual([3])
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    expect(reached(sim, 1, toGroup(group, { from: 2 }))).toEqual([2, 3])
    expect(reached(sim, 3, toGroup(group, { from: 99 }))).toEqual([1, 2])
    expect(reached(sim, 3, ask())).toEqual([0, 1, 2])
  })

  test('nobody is left out before all had the time to answer the first query', () => {
    using sim = simOf(3)
    reached(sim, 2, ask({ code: group === GROUP ? 50 : 5000 }))
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2])
    sim.wait(4.9)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2])
    sim.wait(0.2)
    expect(reached(sim, 0, toGroup(group))).toEqual([2])
  })

  test('memberships and queriers that are not heard again are over', () => {
    using sim = simOf(3)
    query(sim, 2, ask())
    reached(sim, 1, report(group, { from: 2 }))
    sim.wait(200)
    reached(sim, 2, ask())
    sim.wait(50)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2])
    sim.wait(11)
    expect(reached(sim, 0, toGroup(group))).toEqual([2])
    sim.wait(200)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2])
    for (let second = 0; second < 12; second++) {
      sim.wait(1)
      reached(sim, 0, frame(255, 1))
    }
    expect(sim.engine.snooping.groups).toBe(0)
    expect(sim.engine.snooping.page(0, true).rows).toEqual([])
  })

  test('a port that is down or gone is no member, and its querier is none', () => {
    using sim = simOf(4)
    query(sim, 3, ask())
    for (const port of [1, 2]) reached(sim, port, report(group, { from: port + 1 }))
    sim.engine.forwarder.setLink(1, false)
    sim.engine.forwarder.setLink(1, true)
    expect(reached(sim, 0, toGroup(group))).toEqual([2, 3])
    sim.engine.removePort(2)
    sim.addPort(2)
    expect(reached(sim, 0, toGroup(group))).toEqual([3])
    sim.engine.forwarder.setLink(3, false)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2])
  })

  test('each VLAN has its members and queriers, and each VLAN inside of one', () => {
    using sim = simOf(4)
    query(sim, 3, ask({ tags: [10] }))
    reached(sim, 1, report(group, { from: 2, tags: [10] }))
    expect(reached(sim, 0, toGroup(group, { tags: [10] }))).toEqual([1, 3])
    expect(reached(sim, 0, toGroup(group, { tags: [20] }))).toEqual([1, 2, 3])
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    expect(reached(sim, 0, toGroup(group, { tags: [10, 5] }))).toEqual([1, 2, 3])
    query(sim, 3, ask({ tags: [10, 5] }))
    reached(sim, 2, report(group, { from: 3, tags: [10, 5] }))
    expect(reached(sim, 0, toGroup(group, { tags: [10, 5] }))).toEqual([2, 3])
    expect(reached(sim, 0, toGroup(group, { tags: [10, 6] }))).toEqual([1, 2, 3])
    expect(reached(sim, 0, toGroup(group, { tags: [10, 5, 5] }))).toEqual([1, 2, 3])
  })

  test('access, trunk and tunnel ports are members in their VLANs', () => {
    const tunnel = { 'vlan-mode': 'dot1q-tunnel', tag: 10 } as const
    using sim = simOf(5, ON, { 0: { tag: 10 }, 1: { tag: 10 }, 2: { tag: 20 }, 4: tunnel })
    query(sim, 3, ask({ tags: [10] }))
    expect(reached(sim, 1, report(group, { from: 2 }))).toEqual([3])
    expect(reached(sim, 2, report(group, { from: 3 }))).toEqual([3])
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 3])
    expect(reached(sim, 4, report(group, { from: 5 }))).toEqual([3])
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 3, 4])
    // What a customer's tag says is inside VLAN 10.
    query(sim, 3, ask({ tags: [10, 7] }))
    reached(sim, 4, report(group, { from: 5, tags: [7] }))
    expect(reached(sim, 3, toGroup(group, { from: 99, tags: [10, 7] }))).toEqual([4])
    expect(sim.engine.snooping.page(0, true).rows.map(([domain]) => domain & 0xffffff)).toContain(
      10 | (7 << 12),
    )
  })
})

test('P8: each version of IGMP is heeded', () => {
  using sim = simOf(5)
  query(sim, 4, igmpV3Query())
  reached(sim, 1, igmpV1Report(GROUP, { from: 2 }))
  reached(sim, 2, igmpReport(GROUP, { from: 3 }))
  const record = { type: RECORD.toEx, group: GROUP }
  expect(reached(sim, 3, igmpV3Report([record], { from: 4 }))).toEqual([4])
  expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 2, 3, 4])
})

test.each([
  ['MODE_IS_INCLUDE', RECORD.isIn, ['10.0.0.9'], true],
  ['MODE_IS_EXCLUDE', RECORD.isEx, [], true],
  ['MODE_IS_EXCLUDE with sources', RECORD.isEx, ['10.0.0.9'], true],
  ['TO_IN with sources', RECORD.toIn, ['10.0.0.9'], true],
  ['TO_IN without', RECORD.toIn, [], false],
  ['TO_EX', RECORD.toEx, [], true],
  ['ALLOW', RECORD.allow, ['10.0.0.9', '10.0.0.8'], true],
  ['ALLOW without sources', RECORD.allow, [], false],
  ['BLOCK', RECORD.block, ['10.0.0.9'], false],
  ['an unknown type', 9, ['10.0.0.9'], false],
])('P8: IGMPv3 and MLDv2 %s', (_, type, sources, isMember) => {
  using sim = simOf(3)
  query(sim, 2, igmpV3Query())
  query(sim, 2, mldV2Query())
  const wanted = isMember ? [1, 2] : [2]
  // The one that is meant comes between others, with auxiliary data.
  const others = (text: string): { type: number; group: string; auxiliary: number } => ({
    type: RECORD.toEx,
    group: text,
    auxiliary: 2,
  })
  const v3 = [others('239.9.9.9'), { type, group: GROUP, sources }, others('239.9.9.8')]
  reached(sim, 1, igmpV3Report(v3, { from: 2 }))
  expect(reached(sim, 0, toGroup(GROUP))).toEqual(wanted)
  expect(reached(sim, 0, toGroup('239.9.9.8'))).toEqual([1, 2])
  const v6 = sources.map((one) => `fd00::${one.at(-1)}`)
  const v2 = [others('ff15::9'), { type, group: GROUP6, sources: v6 }, others('ff15::8')]
  reached(sim, 1, mldV2Report(v2, { from: 2 }))
  expect(reached(sim, 0, toGroup(GROUP6))).toEqual(wanted)
  expect(reached(sim, 0, toGroup('ff15::8'))).toEqual([1, 2])
})

describe('P8: who leaves', () => {
  test.each([
    ['IGMPv2', GROUP, igmpQuery, igmpReport, igmpLeave, 10],
    ['IGMPv3', GROUP, igmpV3Query, igmpReport, igmpLeave, 10],
    ['MLDv1', GROUP6, mldQuery, mldReport, mldDone, 1000],
    ['MLDv2', GROUP6, mldV2Query, mldReport, mldDone, 1000],
  ])('%s: is a member until the querier has asked and nobody answered', (...of) => {
    const [, group, ask, report, leave, second] = of
    using sim = simOf(4)
    query(sim, 3, ask())
    for (const port of [1, 2]) reached(sim, port, report(group, { from: port + 1 }))
    expect(reached(sim, 1, leave(group, { from: 2 }))).toEqual([3])
    sim.wait(10)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    expect(reached(sim, 3, ask({ group, code: second }))).toEqual([0, 1, 2])
    reached(sim, 2, report(group, { from: 3 }))
    sim.wait(1.9)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 2, 3])
    sim.wait(0.3)
    expect(reached(sim, 0, toGroup(group))).toEqual([2, 3])
  })

  test('where there is no querier who would ask he is none after two seconds', () => {
    using sim = simOf(3)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    reached(sim, 1, igmpLeave(GROUP, { from: 2 }))
    sim.wait(2.1)
    query(sim, 2)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([2])
  })

  test.each([
    ['is not the querier', { from: 98 }],
    ['tells routers not to heed it', { isSuppressing: true }],
    ['asks about sources', { sources: ['10.0.0.7'] }],
    ['has no address', { source: '0.0.0.0' }],
    ['is not heard by the members', { to: '239.9.9.9' }],
    ['is not heard by their cards', { mac: [1, 0, 0x5e, 9, 9, 9] }],
  ])('a query changes nothing that %s', (_, parts) => {
    using sim = simOf(3)
    query(sim, 2, igmpV3Query())
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    expect(reached(sim, 2, igmpV3Query({ group: GROUP, ...parts }))).toEqual([0, 1])
    sim.wait(5)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 2])
  })

  test('nobody but the querier can ask for others', () => {
    using sim = simOf(4)
    query(sim, 3)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    reached(sim, 2, igmpQuery({ group: GROUP }))
    sim.wait(5)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 3])
  })
})

describe('P8: routers', () => {
  test.each([
    ['PIM', GROUP, igmpQuery, pimHello()],
    ['PIM of IPv6', GROUP6, mldQuery, pimV6Hello()],
    ['MRD', GROUP, igmpQuery, igmpRouter(0x30)],
    ['MRD of IPv6', GROUP6, mldQuery, icmpV6Router(151)],
  ])('%s makes its port one', (_, group, ask, hello) => {
    using sim = simOf(4)
    query(sim, 3, ask())
    reached(sim, 1, hello)
    expect(reached(sim, 0, toGroup(group))).toEqual([1, 3])
    expect(reached(sim, 3, toGroup(group, { from: 99 }))).toEqual([1])
    sim.wait(256)
    reached(sim, 3, ask())
    sim.wait(1)
    expect(reached(sim, 0, toGroup(group))).toEqual([3])
  })

  test.each([
    ['IPv4', GROUP, igmpQuery, igmpRouter],
    ['IPv6', GROUP6, mldQuery, icmpV6Router],
  ])('one that says that it goes is none, but for the querier: %s', (_, group, ask, router) => {
    const [here, gone] = group === GROUP ? [0x30, 0x32] : [151, 153]
    using sim = simOf(4)
    query(sim, 3, ask())
    reached(sim, 1, router(here))
    reached(sim, 1, router(gone))
    reached(sim, 3, router(gone))
    expect(reached(sim, 0, toGroup(group))).toEqual([3])
  })

  test('a query without an address makes none, and is given to all', () => {
    using sim = simOf(3)
    expect(reached(sim, 2, igmpQuery({ source: '0.0.0.0' }))).toEqual([0, 1])
    sim.wait(1)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 2])
    query(sim, 2)
    reached(sim, 1, igmpQuery({ source: '0.0.0.0' }))
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([2])
    expect(reached(sim, 1, mldQuery({ source: '::' }))).toEqual([])
    expect(sim.count(1).rx_drop_membership).toBe(1)
  })

  test('of two queriers the one with the lower address says how long things last', () => {
    using sim = simOf(4)
    query(sim, 3, igmpV3Query({ from: 50, intervalCode: 10 }))
    query(sim, 2, igmpV3Query({ from: 60, intervalCode: 100 }))
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    const of = (port: number, isGroup: boolean): number | undefined =>
      sim.engine.snooping
        .page(0, true)
        .rows.find((row) => row[5] === port && (row[4] !== 0) === isGroup)?.[6]
    expect([of(1, true), of(2, false), of(3, false)]).toEqual([201, 1990, 180])
    // Both are routers.
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 2, 3])
    query(sim, 2, igmpV3Query({ from: 40, intervalCode: 100 }))
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    expect(of(1, true)).toBe(2001)
  })

  test('times are those of the query: QRV, QQIC and the time to answer, an hour at most', () => {
    const lasts = (sent: Uint8Array): number => {
      using sim = simOf(3)
      query(sim, 2, sent)
      reached(sim, 1, sent[12] === 8 ? igmpReport(GROUP) : mldReport(GROUP6))
      return sim.engine.snooping.page(0, true).rows.find((row) => row[5] === 1)![6]
    }
    expect(lasts(igmpQuery({ code: 100 }))).toBe(2600)
    expect(lasts(igmpQuery({ code: 0 }))).toBe(2600)
    expect(lasts(igmpV3Query({ robustness: 3, intervalCode: 20, code: 30 }))).toBe(630)
    // 0x8f: (15 | 16) << 3.
    expect(lasts(igmpV3Query({ robustness: 0, intervalCode: 0x8f, code: 1 }))).toBe(4961)
    expect(lasts(igmpV3Query({ robustness: 7, intervalCode: 0xff, code: 0xff }))).toBe(36_000)
    expect(lasts(mldV2Query({ robustness: 1, intervalCode: 10, code: 2000 }))).toBe(120)
    // 0x8001: 0x1001 << 3 ms.
    expect(lasts(mldV2Query({ robustness: 1, intervalCode: 10, code: 0x8001 }))).toBe(428)
  })
})

describe('P8: always for everybody', () => {
  test.each([
    ['224.0.0.0/24', toGroup('224.0.0.251')],
    ['ff02::1', toGroup('ff02::1')],
    ['ff02::2', toGroup('ff02::2')],
    ['ff02::fb', toGroup('ff02::fb')],
    ['what is not IP', frame(1, 1).fill(3, 0, 1)],
    ['unicast IP in multicast', ipv4Frame(17, '10.0.0.5', [0, 0, 0, 0], -1)],
    ['a broadcast', frame(255, 1)],
    ['an unknown message of IGMP', ipv4Frame(2, GROUP, [0x55, 0, 0, 0, 0, 0, 0, 0], 2)],
    ['a solicitation of routers', igmpRouter(0x31)],
    ['cut off before its address', toGroup(GROUP).slice(0, 30)],
    ['cut off in a tag', toGroup(GROUP, { tags: [1, 2] }).slice(0, 20)],
  ])('%s', (_, sent) => {
    using sim = simOf(4)
    query(sim, 3)
    query(sim, 3, mldQuery())
    if (sent[12] === 0x81) query(sim, 3, igmpQuery({ tags: [1, 2] }))
    expect(reached(sim, 0, sent)).toEqual([1, 2, 3])
  })

  test('groups with the same MAC address are different ones', () => {
    using sim = simOf(4)
    query(sim, 3)
    reached(sim, 1, igmpReport('239.1.2.3', { from: 2 }))
    expect(reached(sim, 0, toGroup('239.129.2.3'))).toEqual([3])
    expect(reached(sim, 0, toGroup('239.0.0.251'))).toEqual([3])
    // And also when they follow one another in one burst.
    for (const group of ['239.1.2.3', '239.129.2.3', '239.1.2.3']) sim.ports[0].send(toGroup(group))
    while (sim.engine.turn(false, 0) > 0);
    expect([1, 2, 3].map((port) => sim.receive(port).length)).toEqual([2, 0, 3])
  })
})

test('P8: only the families that are on are snooped on, and it changes while it runs', () => {
  using sim = simOf(3, { igmp: true })
  query(sim, 2)
  query(sim, 2, mldQuery())
  expect([reached(sim, 0, toGroup(GROUP)), reached(sim, 0, toGroup(GROUP6))]).toEqual([[2], [1, 2]])
  const settings = { pace: 'interrupt', macAgingS: 300, groups: 0xffff } as const
  const limits = { maxGroups: 2048, maxGroupsPerPort: 256 }
  const set = (igmp: boolean, mld: boolean): void =>
    sim.engine.configure({ ...settings, snooping: { igmp, mld, ...limits } })
  set(true, true)
  expect([reached(sim, 0, toGroup(GROUP)), reached(sim, 0, toGroup(GROUP6))]).toEqual([[2], [1, 2]])
  query(sim, 2, mldQuery())
  set(false, true)
  expect([reached(sim, 0, toGroup(GROUP)), reached(sim, 0, toGroup(GROUP6))]).toEqual([[1, 2], [2]])
  // What was known before it was off is so no more.
  set(true, true)
  expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 2])
  set(false, false)
  expect(reached(sim, 0, toGroup(GROUP6))).toEqual([1, 2])
})

describe('P8: limits', () => {
  const groupOf = (n: number): string => `239.7.${n >> 8}.${n & 0xff}`
  const join = (sim: Sim, port: number, from: number, count: number): void => {
    for (let first = 0; first < count; first += 100) {
      const list = Array.from({ length: Math.min(100, count - first) }, (_, k) => ({
        type: RECORD.toEx,
        group: groupOf(from + first + k),
      }))
      reached(sim, port, igmpV3Report(list, { from: port + 1 }))
    }
  }

  test('a port that wants more groups than it may have is given all, and others are not', () => {
    using sim = simOf(4, { igmp: true, maxGroupsPerPort: 10 })
    query(sim, 3)
    join(sim, 1, 0, 11)
    join(sim, 2, 1000, 1)
    expect(sim.engine.snooping.groups).toBe(11)
    expect(reached(sim, 0, toGroup(groupOf(10)))).toEqual([1, 3])
    expect(reached(sim, 0, toGroup(groupOf(77)))).toEqual([1, 3])
    expect(reached(sim, 0, toGroup(groupOf(1000)))).toEqual([1, 2, 3])
    expect(sim.engine.snooping.full).toBe(1)
    sim.wait(250)
    reached(sim, 3, igmpQuery())
    sim.wait(11)
    expect(reached(sim, 0, toGroup(groupOf(10)))).toEqual([3])
  })

  test('that goes on in another engine, also where there is less room', () => {
    using sim = simOf(4, { igmp: true, maxGroupsPerPort: 10 })
    query(sim, 3)
    join(sim, 1, 0, 11)
    join(sim, 2, 1000, 8)
    const handed = handOver(sim.engine)
    expect(handed.havingAll).toEqual([[1, 2501]])
    const { rows } = sim.engine.snooping.page(0, true)
    const goOn = (maxGroupsPerPort: number): Sim => {
      const next = simOf(4, { igmp: true, maxGroupsPerPort })
      takeOver(next.engine, handed, null, rows, next.clock)
      return next
    }
    using next = goOn(10)
    expect(reached(next, 0, toGroup(groupOf(10)))).toEqual([1, 3])
    expect(reached(next, 0, toGroup(groupOf(1000)))).toEqual([1, 2, 3])
    next.wait(261)
    next.clock.read()
    expect(next.engine.snooping.havingAll).toEqual([])
    using less = goOn(5)
    expect(reached(less, 0, toGroup(groupOf(77)))).toEqual([1, 2, 3])
  })

  test('when the table is full nobody misses what he wants, and nobody loses what he has', () => {
    using sim = simOf(4, { igmp: true, maxGroups: 16 })
    query(sim, 3)
    join(sim, 1, 0, 40)
    join(sim, 2, 100, 1)
    expect(sim.engine.snooping.groups).toBe(16)
    expect(reached(sim, 0, toGroup(groupOf(100)))).toEqual([1, 2, 3])
    expect(reached(sim, 0, toGroup(groupOf(3)))).toEqual([1, 2, 3])
    sim.engine.forwarder.setLink(1, false)
    expect(sim.engine.snooping.groups).toBe(0)
  })

  test('whatever is said in how many VLANs ever, memory stays what it was', () => {
    using sim = simOf(3, { igmp: true, maxGroups: 64 })
    for (let vlan = 1; vlan < 4095; vlan++) {
      sim.ports[0].send(igmpQuery({ tags: [vlan] }))
      sim.ports[0].send(igmpReport(groupOf(vlan), { tags: [vlan] }))
      if (vlan % 16 === 0) while (sim.engine.turn(false, 0) > 0);
      for (const port of [1, 2]) sim.receive(port)
    }
    while (sim.engine.turn(false, 0) > 0);
    expect(sim.engine.snooping.groups).toBe(64)
    expect(sim.engine.snooping.page(0, true).rows.length).toBeLessThanOrEqual(64 + 2048)
  })
})

describe('P8 with other options of ports', () => {
  test('P1: isolated ports are no members of one another', () => {
    using sim = simOf(4, ON, { 0: { isolated: true }, 1: { isolated: true } })
    query(sim, 3)
    for (const port of [1, 2]) reached(sim, port, igmpReport(GROUP, { from: port + 1 }))
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([2, 3])
  })

  test.each([
    ['IGMP', GROUP, igmpQuery, igmpV3Query, igmpReport],
    ['MLD', GROUP6, mldQuery, mldV2Query, mldReport],
  ])('P1: who does not hear a query loses nothing by it: %s', (_, group, ask, askV3, report) => {
    const apart = { isolated: true }
    // Longer than the mtu of some port might be.
    const long = (short: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(1500)
      bytes.set(short)
      return bytes
    }
    for (const [options, sent, asked] of [
      [apart, askV3({ from: 1, robustness: 1, intervalCode: 1 }), ask({ from: 1, group })],
      [{}, long(askV3({ from: 1, robustness: 1, intervalCode: 1 })), long(ask({ from: 1, group }))],
    ] as const) {
      using sim = simOf(4, ON, { 0: options, 1: apart })
      query(sim, 3, ask())
      for (let second = 0; second < 5; second++) {
        // By its low address it would be the querier, whose times count.
        reached(sim, 0, sent)
        if (second === 0) reached(sim, 1, report(group, { from: 2 }))
        reached(sim, 0, asked)
        sim.wait(1)
      }
      expect(reached(sim, 3, toGroup(group, { from: 4 }))).toEqual([1])
      // It is a router all the same, and where nobody else asks nothing is held back.
      reached(sim, 0, sent)
      expect(reached(sim, 3, toGroup(group, { from: 4 }))).toEqual([0, 1])
      sim.wait(300)
      reached(sim, 0, sent)
      sim.wait(1)
      expect(reached(sim, 3, toGroup(group, { from: 4 }))).toEqual([0, 1, 2])
    }
  })

  test('P1: a querier whose port is isolated later is none any more', () => {
    using sim = simOf(4)
    query(sim, 0)
    expect(reached(sim, 3, toGroup(GROUP, { from: 4 }))).toEqual([0])
    sim.allow(0, { isolated: true })
    expect(reached(sim, 3, toGroup(GROUP, { from: 4 }))).toEqual([0, 1, 2])
  })

  test('P2: a member has its groups, a router all, and everybody queries, whatever is flooded to them', () => {
    const off = { 'mcast-flood': false }
    using sim = simOf(4, ON, { 1: off, 2: off, 3: off })
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([])
    expect(reached(sim, 3, igmpQuery())).toEqual([0, 1, 2])
    sim.wait(1)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 3])
    expect(reached(sim, 0, toGroup('224.0.0.9'))).toEqual([])
  })

  test('P5: what goes to members is no flood, everything else is', () => {
    using sim = simOf(3, ON, { 0: { storm: { multicast: 1 } } })
    query(sim, 2)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    const passed = (group: string): number => {
      for (let k = 0; k < 60; k++) sim.ports[0].send(toGroup(group))
      while (sim.engine.turn(false, 0) > 0);
      sim.receive(1)
      return sim.receive(2).length
    }
    expect([passed(GROUP), passed('239.9.9.9')]).toEqual([60, 32])
    // A report that is dropped is not heeded.
    reached(sim, 0, igmpReport('239.5.5.5'))
    expect(reached(sim, 1, toGroup('239.5.5.5', { from: 2 }))).toEqual([2])
  })

  test('P6: with hairpin a member has what it sends itself', () => {
    using sim = simOf(3, ON, { 1: { hairpin: true } })
    query(sim, 2)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    expect(reached(sim, 1, toGroup(GROUP, { from: 2 }))).toEqual([1, 2])
  })

  test('a port that is held has nothing meanwhile, and is a member as before', () => {
    using sim = simOf(4)
    query(sim, 3)
    reached(sim, 1, igmpReport(GROUP, { from: 2 }))
    sim.engine.forwarder.setHeld([1], true)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([3])
    sim.engine.forwarder.setHeld([1], false)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 3])
  })

  test('a port on a link is no member any more, and has nothing to do with it', () => {
    using sim = simOf(5)
    query(sim, 4)
    for (const port of [1, 2]) reached(sim, port, igmpReport(GROUP, { from: port + 1 }))
    sim.engine.forwarder.wire(2, 3)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 4])
    expect(reached(sim, 2, igmpReport(GROUP, { from: 3 }))).toEqual([3])
    sim.engine.forwarder.unwire(2, 3)
    expect(reached(sim, 0, toGroup(GROUP))).toEqual([1, 4])
  })
})

describe.each([
  ['IGMP', GROUP, igmpQuery, igmpReport, pimHello()],
  ['MLD', GROUP6, mldQuery, mldReport, pimV6Hello()],
])('P8, multicast-router: %s', (_, group, ask, report, hello) => {
  const data = (sim: Sim): number[] => reached(sim, 0, toGroup(group))

  test('never: whatever comes by the port it is given what its hosts want, and no more', () => {
    using sim = simOf(5, ON, { 1: { 'multicast-router': 'never' } })
    query(sim, 1, ask({ from: 2 }))
    reached(sim, 1, hello)
    expect(data(sim)).toEqual([])
    expect(sim.count(0).rx_drop_no_member).toBe(1)
    expect(reached(sim, 2, report(group, { from: 3 }))).toEqual([])
    query(sim, 4, ask({ from: 5 }))
    expect(data(sim)).toEqual([2, 4])
    expect(reached(sim, 1, report(group, { from: 2 }))).toEqual([4])
    expect(data(sim)).toEqual([1, 2, 4])
  })

  test('always: the port is given everything in each VLAN that it carries, also what is in no list', () => {
    const options = {
      'multicast-router': 'always',
      'vlan-mode': 'native-untagged',
      tag: 10,
    } as const
    using sim = simOf(4, ON, { 1: { ...options, trunks: [20] } })
    for (const tags of [[10], [20], [30]]) query(sim, 3, ask({ tags }))
    for (const [vlan, ports] of [
      [10, [1, 3]],
      [20, [1, 3]],
      [30, [3]],
    ] as const) {
      expect(reached(sim, 0, toGroup(group, { tags: [vlan] }))).toEqual(ports)
      expect(reached(sim, 2, report(group, { from: 3, tags: [vlan] }))).toEqual(ports)
      expect(reached(sim, 0, toGroup(group, { tags: [vlan] }))).toEqual([
        ...ports.slice(0, -1),
        2,
        3,
      ])
    }
    sim.engine.forwarder.setLink(1, false)
    expect(reached(sim, 0, toGroup(group, { tags: [20] }))).toEqual([2, 3])
    sim.engine.forwarder.setLink(1, true)
    expect(reached(sim, 0, toGroup(group, { tags: [20] }))).toEqual([1, 2, 3])
  })

  test('it changes while the port is there, and goes with it', () => {
    using sim = simOf(4)
    query(sim, 3, ask())
    expect(data(sim)).toEqual([3])
    sim.allow(1, { 'multicast-router': 'always' })
    sim.allow(3, { 'multicast-router': 'never' })
    expect(data(sim)).toEqual([1])
    sim.allow(3, {})
    expect(data(sim)).toEqual([1, 3])
    sim.allow(1, { 'multicast-router': 'never' })
    expect(data(sim)).toEqual([3])
    sim.allow(1, { 'multicast-router': 'always' })
    sim.engine.removePort(1)
    sim.addPort(1)
    expect(data(sim)).toEqual([3])
  })

  test('a port that is always one has what is for nobody, and a port without room all the same', () => {
    const small = { ...ON, maxGroups: 16, maxGroupsPerPort: 1 }
    using sim = simOf(5, small, {
      1: { 'multicast-router': 'always' },
      2: { 'multicast-router': 'never' },
    })
    query(sim, 4, ask())
    for (const one of [group, `${group.slice(0, -1)}7`]) reached(sim, 2, report(one, { from: 3 }))
    expect(reached(sim, 0, toGroup(`${group.slice(0, -1)}9`))).toEqual([1, 2, 4])
  })
})

const sorted = (rows: readonly (readonly number[])[]): string[] => rows.map(String).sort()

test('P8, M4: what mirrors give out in a VLAN is a copy, by which nobody joins', () => {
  using sim = simOf(4)
  query(sim, 3, igmpQuery({ tags: [10] }))
  const mirror = {
    number: 0,
    sources: [],
    destinations: [],
    vlans: null,
    filter: null,
    snapLength: 0,
  }
  sim.engine.forwarder.setMirrors([{ ...mirror, output: -1, outputVlan: 10 }])
  expect(reached(sim, 1, igmpReport(GROUP, { from: 2, tags: [10] }))).toEqual([0, 2, 3])
  expect(reached(sim, 0, toGroup(GROUP, { tags: [10] }))).toEqual([1, 2, 3])
  expect(sim.engine.snooping.page(0, true).rows.every(([, , , , word3]) => word3 === 0)).toBe(true)
})

test('P8: what is known goes over to another engine', () => {
  using sim = simOf(4)
  query(sim, 3, igmpV3Query({ intervalCode: 60 }))
  reached(sim, 1, igmpReport(GROUP, { from: 2 }))
  reached(sim, 2, mldReport(GROUP6, { from: 3 }))
  const { rows } = sim.engine.snooping.page(0, true)
  using next = simOf(4)
  for (const row of rows) next.engine.snooping.restore(row)
  expect(sorted(next.engine.snooping.page(0, true).rows)).toEqual(sorted(rows))
  expect(reached(next, 0, toGroup(GROUP))).toEqual([1, 3])
  expect(reached(next, 0, toGroup(GROUP6))).toEqual([1, 2, 3])
  reached(next, 3, igmpV3Query({ group: GROUP }))
  next.wait(1)
  expect(reached(next, 0, toGroup(GROUP))).toEqual([3])
  const ports = new Map(['a', 'b', 'c', 'd'].map((id, port) => [port, { id }]))
  const shown = rows.flatMap((row) => groupEntries(row, ports))
  expect(shown).toContainEqual({
    vlan: 0,
    family: 'ipv4',
    port: 'd',
    expiresS: 119,
    querier: '10.0.0.99',
  })
  expect(shown).toContainEqual({
    vlan: 0,
    family: 'ipv6',
    group: 'ff15::1:2',
    port: 'c',
    expiresS: 260,
  })
})

test('P8: a message costs the turn of its sender what it takes to read it, also when nobody has it', () => {
  using sim = simOf(2)
  const costOf = (length: number): number => {
    const before = sim.count(0).rx_drop_membership
    const message = [0x22, ...Array<number>(7 + length).fill(0)]
    sim.send(0, ipv4Frame(2, '224.0.0.22', message, 2, { wrong: 1 }))
    expect(sim.count(0).rx_drop_membership).toBe(before + 1)
    return sim.engine.forwarder.costNs
  }
  expect(costOf(8000)).toBeGreaterThan(costOf(0) + 7000)
})
