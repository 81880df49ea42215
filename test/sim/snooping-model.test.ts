/** A model of snooping beside the real switch: whoever asks, joins and sends, in which VLAN, by ports of any kind. P8. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { igmpQuery, igmpReport, igmpV3Report, RECORD, toGroup } from '../support/group-frames.ts'
import { Sim } from '../support/sim.ts'

const PORTS = 5
const GROUPS = ['239.1.1.1', '239.129.1.1', '224.0.1.5'] as const

interface Domain {
  querier?: number
  readonly routers: Set<number>
  /** By group. */
  readonly members: Map<string, Set<number>>
}

class Model {
  readonly options: SwitchingOptions[]
  readonly domains = new Map<number, Domain>()

  constructor(options: readonly SwitchingOptions[]) {
    this.options = [...options]
  }

  /** The VLAN in which a frame comes in; undefined: it does not. */
  enter(port: number, vid: number): number | undefined {
    const { tag, trunks } = this.options[port]
    if (tag !== undefined) return vid === 0 ? tag : undefined
    return trunks === undefined || trunks.includes(vid) ? vid : undefined
  }

  domain(vlan: number): Domain {
    const known = this.domains.get(vlan)
    if (known !== undefined) return known
    const made: Domain = { routers: new Set(), members: new Map() }
    this.domains.set(vlan, made)
    return made
  }

  /** Those of some ports, or of those that take floods, that are given what comes in by a port. */
  given(from: number, vlan: number, ports: Iterable<number> | 'flood'): number[] {
    const all = Array.from({ length: PORTS }, (_, port) => port)
    const wanted =
      ports === 'flood' ? all.filter((port) => this.options[port]['mcast-flood'] !== false) : ports
    const isCarried = ({ tag, trunks }: SwitchingOptions): boolean =>
      tag === undefined ? trunks === undefined || trunks.includes(vlan) : tag === vlan
    const isApart = (port: number): boolean =>
      this.options[from].isolated === true && this.options[port].isolated === true
    return [...new Set(wanted)]
      .filter((port) => port !== from && isCarried(this.options[port]) && !isApart(port))
      .toSorted((a, b) => a - b)
  }

  ask(port: number, vlan: number): number[] {
    const domain = this.domain(vlan)
    domain.routers.add(port)
    // Those with a higher number have a higher address.
    // What comes by an isolated port is not heard by all.
    const isHeard = this.options[port].isolated !== true
    if (isHeard && (domain.querier === undefined || port <= domain.querier)) domain.querier = port
    const all = Array.from({ length: PORTS }, (_, at) => at)
    return this.given(port, vlan, all)
  }

  /** Ports with routers, as those are heard or as options say. */
  routers({ routers }: Domain): number[] {
    return this.options.flatMap(({ 'multicast-router': option = 'auto' }, port) =>
      option === 'always' || (option === 'auto' && routers.has(port)) ? [port] : [],
    )
  }

  report(port: number, vlan: number, group: string): number[] {
    const domain = this.domain(vlan)
    const members = domain.members.get(group) ?? new Set()
    domain.members.set(group, members.add(port))
    return this.given(port, vlan, domain.querier === undefined ? 'flood' : this.routers(domain))
  }

  data(port: number, vlan: number, group: string): number[] {
    const domain = this.domain(vlan)
    if (domain.querier === undefined) return this.given(port, vlan, 'flood')
    const members = domain.members.get(group) ?? []
    return this.given(port, vlan, [...this.routers(domain), ...members])
  }

  forget(port: number): void {
    for (const domain of this.domains.values()) {
      domain.routers.delete(port)
      for (const members of domain.members.values()) members.delete(port)
      if (domain.querier === port) delete domain.querier
    }
  }
}

const options: fc.Arbitrary<SwitchingOptions> = fc.record(
  {
    isolated: fc.boolean(),
    'mcast-flood': fc.boolean(),
    'multicast-router': fc.constantFrom('auto', 'never', 'always'),
    tag: fc.constantFrom(10, 20),
  },
  { requiredKeys: [] },
)
const trunk = options.map(({ tag, ...others }) =>
  tag === undefined ? others : { ...others, trunks: [0, tag] },
)
const step = fc.record({
  do: fc.constantFrom('ask', 'report', 'report', 'record', 'data', 'data', 'data', 'down', 'set'),
  port: fc.nat(PORTS - 1),
  vid: fc.constantFrom(0, 0, 10, 20),
  router: fc.constantFrom('auto', 'never', 'always'),
  group: fc.constantFrom(...GROUPS),
})

test('P8: it does what the model does', { timeout: 120_000 }, () => {
  let kept = 0
  fc.assert(
    fc.property(
      fc.array(fc.oneof(options, trunk), { minLength: PORTS, maxLength: PORTS }),
      fc.array(step, { minLength: 5, maxLength: 40 }),
      (all, steps) => {
        using sim = new Sim(PORTS, { snooping: { igmp: true } })
        all.forEach((one, port) => sim.allow(port, one))
        const model = new Model(all)
        for (const [at, one] of steps.entries()) {
          const { port, vid, group } = one
          if (one.do === 'down') {
            for (const isUp of [false, true]) sim.engine.forwarder.setLink(port, isUp)
            model.forget(port)
            continue
          }
          if (one.do === 'set') {
            model.options[port] = { ...model.options[port], 'multicast-router': one.router }
            sim.allow(port, model.options[port])
            continue
          }
          const parts = { from: port + 1, tags: vid === 0 ? [] : [vid] }
          const vlan = model.enter(port, vid)
          let wanted: number[] = []
          let sent: Uint8Array
          if (one.do === 'ask') {
            sent = igmpQuery(parts)
            if (vlan !== undefined) wanted = model.ask(port, vlan)
          } else if (one.do === 'data') {
            sent = toGroup(group, parts)
            if (vlan !== undefined) wanted = model.data(port, vlan, group)
          } else {
            const record = { type: RECORD.toEx, group }
            sent = one.do === 'record' ? igmpV3Report([record], parts) : igmpReport(group, parts)
            if (vlan !== undefined) wanted = model.report(port, vlan, group)
          }
          sim.send(port, sent)
          const given = sim.ports.flatMap((_, to) => (sim.receive(to).length > 0 ? [to] : []))
          expect({ at, ...one, given }).toEqual({ at, ...one, given: wanted })
          if (one.do === 'ask') sim.wait(1)
          if (one.do === 'data' && wanted.length < PORTS - 1) kept++
        }
      },
    ),
    { numRuns: 500 },
  )
  expect(kept).toBeGreaterThan(500)
})
