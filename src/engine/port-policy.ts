/**
 * What each port is allowed, as the data plane asks: a word of flags per port, which is 0 for a port without
 * any of these options, and what belongs to the flags. Set before the port's first frame; a port that is
 * replaced by another one with its number keeps it.
 */
import { PORTS_MAX } from '../port/contract.ts'
import {
  MODE_ACCESS,
  MODE_NATIVE_TAGGED,
  MODE_NATIVE_UNTAGGED,
  MODE_TRUNK,
  MODE_TUNNEL,
  PRIORITY_ALWAYS,
  PRIORITY_IF_NONZERO,
  PRIORITY_NEVER,
  VlanPorts,
} from '../offload/vlan-ports.ts'
import { TPID_8100, TPID_88A8, VlanSet } from '../wire/vlan.ts'
import { Guards } from './guards.ts'
import type { GuardDrops, PortPolicy, StormChange, VlanPolicy } from './messages.ts'
import { ROUTERS_ALWAYS, ROUTERS_AUTO, ROUTERS_NEVER } from './router-ports.ts'
import { Snooping } from './snooping.ts'
import { StormControl } from './storm.ts'

/** It is no transparent trunk. */
export const HAS_VLANS: number = 1 << 0
/** What tag is inside makes a difference. */
export const ASKS_INNER: number = 1 << 1
export const IS_ISOLATED: number = 1 << 2
/** Unknown unicast, multicast and broadcast are not flooded to it. */
export const NO_UNKNOWN: number = 1 << 3
export const NO_MULTICAST: number = 1 << 4
export const NO_BROADCAST: number = 1 << 5
export const LEARNS_NOT: number = 1 << 6
export const IS_LOCKED: number = 1 << 7
export const HAIRPINS: number = 1 << 8
/** Frames whose source is not learnt because the port has enough are dropped. */
export const DROPS_OVER_LIMIT: number = 1 << 9
export const HAS_STORM_CONTROL: number = 1 << 10
export const HAS_GUARD: number = 1 << 11
/** It makes a difference what addresses its frames have: they leave with those that were looked at. */
export const KEEPS_HEADS: number = 1 << 12
/** Its guard looks at more than addresses. */
export const READS_ON: number = 1 << 13

const MODES: Readonly<Record<VlanPolicy['mode'], number>> = {
  access: MODE_ACCESS,
  trunk: MODE_TRUNK,
  'native-tagged': MODE_NATIVE_TAGGED,
  'native-untagged': MODE_NATIVE_UNTAGGED,
  'dot1q-tunnel': MODE_TUNNEL,
}
const PRIORITY_TAGS: Readonly<Record<VlanPolicy['priorityTags'], number>> = {
  never: PRIORITY_NEVER,
  'if-nonzero': PRIORITY_IF_NONZERO,
  always: PRIORITY_ALWAYS,
}
const ROUTERS: Readonly<Record<PortPolicy['multicastRouter'], number>> = {
  auto: ROUTERS_AUTO,
  never: ROUTERS_NEVER,
  always: ROUTERS_ALWAYS,
}

/** Of a port that decides itself which group addresses pass; else those of the switch do. */
const OF_SWITCH = -1
const ALL_GROUPS = 0xffff

export interface PolicyEvents {
  /** Frames began to be dropped by storm control, or ended. */
  readonly onStorms: (changes: readonly StormChange[]) => void
  readonly onGuardDrops: (drops: readonly GuardDrops[]) => void
}

export class PortPolicies {
  readonly flags: Int32Array = new Int32Array(PORTS_MAX)
  readonly vlans: VlanPorts = new VlanPorts(PORTS_MAX)
  readonly storm: StormControl
  readonly guards: Guards
  readonly snooping: Snooping
  /** By port: bit n, 01-80-C2-00-00-0n passes that comes in by it. */
  readonly groups: Int32Array = new Int32Array(PORTS_MAX).fill(ALL_GROUPS)
  readonly #ownGroups: Int32Array = new Int32Array(PORTS_MAX).fill(OF_SWITCH)
  #switchGroups = ALL_GROUPS
  /** By port: addresses that were learnt there may come by no other; and how many such ports there are. */
  readonly #isSticky: Uint8Array = new Uint8Array(PORTS_MAX)
  #stickyCount = 0

  /** `time`: the engine clock's, microseconds first; `counters`: of the ports. */
  constructor(time: Float64Array, counters: Float64Array) {
    this.storm = new StormControl(time)
    this.guards = new Guards(counters)
    this.snooping = new Snooping(time, this.vlans)
  }

  /** Those pass that come in by a port which does not say otherwise. */
  setGroups(mask: number): void {
    this.#switchGroups = mask
    for (let port = 0; port < PORTS_MAX; port++) this.#choose(port)
  }

  /** And whether heads are kept, which depends on that. */
  #choose(port: number): void {
    const own = this.#ownGroups[port]
    this.groups[port] = own === OF_SWITCH ? this.#switchGroups : own
    const flags = this.flags[port] & ~KEEPS_HEADS
    const othersAreSticky = this.#stickyCount > this.#isSticky[port]
    const mustKeep =
      this.groups[port] !== ALL_GROUPS ||
      (flags & (IS_LOCKED | DROPS_OVER_LIMIT)) !== 0 ||
      othersAreSticky
    this.flags[port] = mustKeep ? flags | KEEPS_HEADS : flags
  }

  /** It makes a difference to all other ports. */
  #setSticky(port: number, isSticky: boolean): void {
    const before = this.#isSticky[port]
    this.#isSticky[port] = isSticky ? 1 : 0
    this.#stickyCount += this.#isSticky[port] - before
    for (let other = 0; other < PORTS_MAX; other++) this.#choose(other)
  }

  set(port: number, policy: PortPolicy): void {
    this.#setVlans(port, policy.vlan)
    this.storm.set(port, policy.storm)
    this.guards.set(port, policy.guard)
    this.snooping.routers.setMode(port, ROUTERS[policy.multicastRouter])
    this.snooping.setIsolated(port, policy.isIsolated)
    let flags = 0
    if (policy.vlan !== null) flags |= HAS_VLANS
    if (this.vlans.asksInner(port)) flags |= ASKS_INNER
    if (policy.isIsolated) flags |= IS_ISOLATED
    if (!policy.floodsUnknown) flags |= NO_UNKNOWN
    if (!policy.floodsMulticast) flags |= NO_MULTICAST
    if (!policy.floodsBroadcast) flags |= NO_BROADCAST
    if (!policy.learns) flags |= LEARNS_NOT
    if (policy.isLocked) flags |= IS_LOCKED
    if (policy.hairpins) flags |= HAIRPINS
    if (policy.dropsOverLimit) flags |= DROPS_OVER_LIMIT
    if (policy.storm !== null) flags |= HAS_STORM_CONTROL
    if (policy.guard !== null) flags |= HAS_GUARD
    if (policy.guard?.checks.some((check) => check !== 'mac') === true) flags |= READS_ON
    this.flags[port] = flags
    this.#ownGroups[port] = policy.groups ?? OF_SWITCH
    this.#setSticky(port, policy.isSticky)
  }

  clear(port: number): void {
    this.flags[port] = 0
    this.vlans.clear(port)
    this.storm.clear(port)
    this.guards.set(port, null)
    this.snooping.routers.setMode(port, ROUTERS_AUTO)
    this.snooping.setIsolated(port, false)
    this.#ownGroups[port] = OF_SWITCH
    this.#setSticky(port, false)
  }

  /** Tells what is to be told since the last call, about a second ago. */
  look({ onStorms, onGuardDrops }: PolicyEvents): void {
    const changes = this.storm.look()
    if (changes.length > 0) onStorms(changes)
    const drops = this.guards.look()
    if (drops.length > 0) onGuardDrops(drops)
    this.snooping.look()
  }

  #setVlans(port: number, vlan: VlanPolicy | null): void {
    if (vlan === null) {
      this.vlans.clear(port)
      return
    }
    const { mode, tag, isQinq8100, priorityTags, trunks, cvlans } = vlan
    this.vlans.set(
      port,
      MODES[mode],
      tag,
      isQinq8100 ? TPID_8100 : TPID_88A8,
      PRIORITY_TAGS[priorityTags],
      trunks === null ? null : new VlanSet(trunks),
      cvlans === null ? null : new VlanSet(cvlans),
    )
  }
}
