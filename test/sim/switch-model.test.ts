/**
 * A model of the whole switch (ports, VLANs, forwarding database, policy) beside the real one: whatever options
 * ports have and get, each frame leaves by the same ports, byte for byte the same.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { checkSwitching, vlanModeOf } from '../../src/port/switching-options.ts'
import { optionMacs } from '../../src/switch/policy.ts'
import { formatMac } from '../../src/wire/ethernet.ts'
import { frame, Sim } from '../support/sim.ts'
import type { Tag } from '../support/vlan-frames.ts'
import { C_TAG, S_TAG, tagged } from '../support/vlan-frames.ts'

const PORTS = 4
const BROADCAST = 255
const MULTICAST = 254

interface Sent {
  readonly to: number
  readonly from: number
  readonly tags: readonly Tag[]
}

/** A frame on the switch: its VLAN, and the tags that it has there. */
interface Inside {
  readonly vlan: number
  readonly tags: readonly Tag[]
  /** Its outer tag came with it. */
  readonly hadTag: boolean
}

const listed = (list: readonly (string | number)[] | undefined, vid: number): boolean =>
  list === undefined ||
  list.some((one) => {
    const [first, last = first] = String(one).split('-').map(Number)
    return vid >= first && vid <= last
  })

const outerOf = (tags: readonly Tag[]): Tag | undefined =>
  [C_TAG, S_TAG].includes(tags[0]?.tpid ?? 0) ? tags[0] : undefined

function enter(options: SwitchingOptions, tags: readonly Tag[]): Inside | undefined {
  const outer = outerOf(tags)
  const { vid = 0, pcp = 0, tpid = C_TAG } = outer ?? {}
  const { tag = 0 } = options
  const mode = vlanModeOf(options) ?? 'trunk'
  const hadTag = outer !== undefined
  const native = {
    hadTag,
    vlan: tag,
    tags: [{ tpid, vid: tag, pcp }, ...tags.slice(outer ? 1 : 0)],
  }
  switch (mode) {
    case 'access':
      return vid === 0 ? native : undefined
    case 'dot1q-tunnel': {
      const pushed = { tpid: options['qinq-ethtype'] === '0x8100' ? C_TAG : S_TAG, vid: tag }
      return listed(options.cvlans, vid)
        ? { hadTag: true, vlan: tag, tags: [pushed, ...tags] }
        : undefined
    }
    case 'trunk':
      return listed(options.trunks, vid) ? { hadTag, vlan: vid, tags } : undefined
    default:
      if (vid === 0) return native
      return vid === tag || listed(options.trunks, vid) ? { hadTag, vlan: vid, tags } : undefined
  }
}

/** The tags with which it leaves; undefined: it does not. */
function leave(
  options: SwitchingOptions,
  { vlan, tags, hadTag }: Inside,
): readonly Tag[] | undefined {
  const mode = vlanModeOf(options)
  if (mode === undefined) return tags
  const { tag, trunks, cvlans, 'priority-tags': priorityTags = 'never' } = options
  const outer = outerOf(tags)
  const rest = tags.slice(outer ? 1 : 0)
  const { vid: inner = 0 } = outerOf(rest) ?? {}
  const untagged = (): readonly Tag[] => {
    const { pcp = 0 } = outer ?? {}
    const tpid = mode === 'trunk' ? (outer?.tpid ?? C_TAG) : C_TAG
    const keepsPriority = priorityTags !== 'never' || mode === 'trunk'
    const isKept = (priorityTags === 'always' && hadTag) || (keepsPriority && pcp !== 0)
    return isKept ? [{ tpid, vid: 0, pcp }, ...rest] : rest
  }
  if (mode === 'access') return vlan === tag && inner === 0 ? untagged() : undefined
  if (mode === 'dot1q-tunnel') {
    if (vlan !== tag || !listed(cvlans, inner)) return undefined
    return outerOf(rest) === undefined ? untagged() : rest
  }
  if (mode === 'trunk') {
    if (!listed(trunks, vlan)) return undefined
    return vlan === 0 ? untagged() : tags
  }
  if (vlan === 0 || (vlan !== tag && !listed(trunks, vlan))) return undefined
  return mode === 'native-untagged' && vlan === tag ? untagged() : tags
}

class Model {
  readonly options: SwitchingOptions[] = Array.from({ length: PORTS }, () => ({}))
  readonly isUp: boolean[] = Array.from({ length: PORTS }, () => true)
  /** By VLAN and station. */
  readonly fdb = new Map<string, { port: number; isStatic: boolean }>()

  forget(port: number, isStatic: boolean): void {
    for (const [key, entry] of this.fdb) {
      if (entry.port === port && entry.isStatic === isStatic) this.fdb.delete(key)
    }
  }

  /** By port: the tags with which it leaves there. */
  send(inPort: number, sent: Sent): Map<number, readonly Tag[]> {
    const given = new Map<number, readonly Tag[]>()
    const options = this.options[inPort]
    const inside = enter(options, sent.tags)
    if (!this.isUp[inPort] || inside === undefined) return given
    if (!this.#takesSender(inPort, options, `${inside.vlan} ${sent.from}`)) return given
    for (const port of this.#takers(inPort, sent.to, inside)) {
      const tags = leave(this.options[port], inside)
      if (this.isUp[port] && tags !== undefined) given.set(port, tags)
    }
    return given
  }

  #takesSender(port: number, options: SwitchingOptions, key: string): boolean {
    const known = this.fdb.get(key)
    if (options.locked === true) return known?.isStatic === true && known.port === port
    if (known?.isStatic === true || known?.port === port) return true
    if (known !== undefined && this.options[known.port].sticky === true) return false
    if (options.learning === false) return true
    const learnt = [...this.fdb.values()].filter((one) => one.port === port && !one.isStatic)
    if (learnt.length >= (options['mac-limit'] ?? Infinity)) {
      return options['mac-limit-action'] !== 'drop'
    }
    this.fdb.set(key, { port, isStatic: false })
    return true
  }

  #takers(inPort: number, to: number, { vlan }: Inside): number[] {
    const { hairpin = false, isolated = false } = this.options[inPort]
    const known = to < MULTICAST ? this.fdb.get(`${vlan} ${to}`) : undefined
    const flag = to === BROADCAST ? 'bcast-flood' : to === MULTICAST ? 'mcast-flood' : 'flood'
    const ports =
      known === undefined
        ? this.options.flatMap((one, port) => (one[flag] === false ? [] : [port]))
        : [known.port]
    return ports.filter(
      (port) => (port !== inPort || hairpin) && !(isolated && this.options[port].isolated === true),
    )
  }
}

function bytesOf({ to, from, tags }: Sent, number: number): Uint8Array {
  const bytes = frame(to === MULTICAST ? 1 : to, from, number)
  if (to === MULTICAST) bytes[0] = 3
  return tagged(bytes, ...tags)
}

const vid = fc.constantFrom(0, 10, 10, 20, 4095)
const tag: fc.Arbitrary<Tag> = fc.record({
  tpid: fc.constantFrom(C_TAG, C_TAG, S_TAG, 0x9100),
  vid,
  pcp: fc.constantFrom(0, 5),
})
const station = fc.integer({ min: 1, max: 5 })
const mac = station.map((last) => formatMac(2, last << 8))
const vlans = fc.array(fc.constantFrom(0, 10, 20, '10-20', 4095), { minLength: 1, maxLength: 2 })
const flag = fc.boolean()
const options: fc.Arbitrary<SwitchingOptions> = fc
  .record(
    {
      'vlan-mode': fc.constantFrom(
        ...(['access', 'trunk', 'native-tagged', 'native-untagged', 'dot1q-tunnel'] as const),
      ),
      tag: fc.constantFrom(10, 20),
      trunks: vlans,
      cvlans: vlans,
      'qinq-ethtype': fc.constantFrom('0x88a8' as const, '0x8100' as const),
      'priority-tags': fc.constantFrom(...(['never', 'if-nonzero', 'always'] as const)),
      isolated: flag,
      flood: flag,
      'mcast-flood': flag,
      'bcast-flood': flag,
      hairpin: flag,
      learning: flag,
      sticky: flag,
      locked: flag,
      macs: fc.array(mac, { minLength: 1, maxLength: 3 }),
      'mac-limit': fc.integer({ min: 1, max: 3 }),
      'mac-limit-action': fc.constantFrom('forward' as const, 'drop' as const),
    },
    { requiredKeys: [] },
  )
  .filter((one) => {
    try {
      checkSwitching(one, (key) => key)
      return true
    } catch {
      return false
    }
  })

const port = fc.nat(PORTS - 1)
const sent = fc.record({
  to: fc.oneof(station, station, fc.constantFrom(BROADCAST, MULTICAST)),
  from: station,
  tags: fc.array(tag, { maxLength: 3 }),
})
type Step =
  | { readonly do: 'send'; readonly port: number; readonly frames: readonly Sent[] }
  | { readonly do: 'allow'; readonly port: number; readonly options: SwitchingOptions }
  | { readonly do: 'link'; readonly port: number }
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      port,
      frames: fc.array(sent, { minLength: 1, maxLength: 8 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('allow' as const), port, options }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('link' as const), port }) },
)

class Pair implements Disposable {
  readonly sim = new Sim(PORTS)
  readonly model = new Model()
  given = 0

  run(one: Step, number: number): void {
    if (one.do === 'send') this.#send(one.port, one.frames, number)
    else if (one.do === 'allow') this.#allow(one.port, one.options)
    else {
      const isUp = !this.model.isUp[one.port]
      this.model.isUp[one.port] = isUp
      if (!isUp) this.model.forget(one.port, false)
      this.sim.engine.forwarder.setLink(one.port, isUp)
    }
  }

  /** As a change of options does it. */
  #allow(at: number, wanted: SwitchingOptions): void {
    const { model, sim } = this
    const { macTable } = sim.engine.forwarder
    macTable.forgetStatic(at)
    model.forget(at, true)
    for (const [hi, lo] of optionMacs(wanted)) {
      macTable.addStatic(hi, lo, at)
      const key = `${lo >>> 16} ${(lo >>> 8) & 0xff}`
      model.fdb.set(key, { port: at, isStatic: true })
    }
    sim.allow(at, wanted)
    model.options[at] = wanted
    macTable.flush(at, -1)
    model.forget(at, false)
  }

  #send(at: number, frames: readonly Sent[], number: number): void {
    const { model, sim } = this
    const wanted = Array.from({ length: PORTS }, (): string[] => [])
    for (const [k, one] of frames.entries()) {
      sim.ports[at].send(bytesOf(one, 16 * number + k))
      for (const [to, tags] of model.send(at, one)) {
        wanted[to].push(hex(bytesOf({ ...one, tags }, 16 * number + k)))
      }
    }
    while (sim.engine.turn(false, 0) > 0);
    const given = sim.ports.map((_, to) => sim.receive(to).map(hex))
    expect(given).toEqual(wanted)
    this.given += given.flat().length
  }

  [Symbol.dispose](): void {
    this.sim[Symbol.dispose]()
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(0, 34)).toString('hex')

test('V1-V7, F1-F6, P1-P3, P6: it does what the model does', { timeout: 120_000 }, () => {
  let given = 0
  fc.assert(
    fc.property(
      fc.array(options, { maxLength: PORTS }),
      fc.array(step, { minLength: 1, maxLength: 20 }),
      (first, steps) => {
        using pair = new Pair()
        first.forEach((one, at) => pair.run({ do: 'allow', port: at, options: one }, 0))
        steps.forEach((one, number) => pair.run(one, number))
        given += pair.given
      },
    ),
    { numRuns: 400 },
  )
  expect(given).toBeGreaterThan(500)
})
