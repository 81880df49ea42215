/**
 * Frames for several ports: floods of unknown unicast, broadcast and multicast, and multicast where it is known
 * who wants it. Each port is given them as far as it takes that kind of frame.
 */
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { isBroadcast, isGroup, isReservedGroup, reservedGroupOf } from '../wire/ethernet.ts'
import type { VlanSet } from '../wire/vlan.ts'
import type { Given } from './given.ts'
import type { Places } from './places.ts'
import type { PortPolicies } from './port-policy.ts'
import {
  ASKS_INNER,
  HAIRPINS,
  HAS_STORM_CONTROL,
  HAS_VLANS,
  IS_ISOLATED,
  NO_BROADCAST,
  NO_MULTICAST,
  NO_UNKNOWN,
} from './port-policy.ts'
import { ASK_HEED, TO_EVERYBODY, TO_FLOOD, TO_MEMBERS, TO_NOBODY, TO_ROUTERS } from './snooping.ts'
import { STORM_BROADCAST, STORM_MULTICAST, STORM_UNKNOWN } from './storm.ts'

export class Floods {
  readonly #given: Given
  readonly #counters: Float64Array
  readonly #places: Places
  readonly #policies: PortPolicies
  readonly #copyVlans: VlanSet

  /** `copyVlans`: VLANs in which mirrors give out copies. */
  constructor(
    counters: Float64Array,
    places: Places,
    policies: PortPolicies,
    given: Given,
    copyVlans: VlanSet,
  ) {
    this.#counters = counters
    this.#places = places
    this.#policies = policies
    this.#given = given
    this.#copyVlans = copyVlans
  }

  /**
   * Unknown unicast, broadcast and multicast: to every port of the VLAN but the in-port, as far as ports
   * take that kind of frame. @hot
   */
  flood(burst: Burst, first: number, end: number, inPort: number, vlan: number): void {
    const policies = this.#policies
    const hi = burst.heads[first * HEAD_WORDS]
    const lo = burst.heads[first * HEAD_WORDS + 1] & 0xffff
    if (isReservedGroup(hi, lo) && (policies.groups[inPort] & (1 << reservedGroupOf(lo))) === 0) {
      this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_group_address] += end - first
      return
    }
    let kind = STORM_UNKNOWN
    let barred = NO_UNKNOWN
    if (isGroup(hi)) {
      if (isBroadcast(hi, lo)) {
        kind = STORM_BROADCAST
        barred = NO_BROADCAST
      } else {
        // A copy of what somebody has said is not said again.
        if (policies.snooping.isOn && !this.#copyVlans.has(vlan)) {
          this.#snoop(burst, first, end, inPort, vlan)
          return
        }
        kind = STORM_MULTICAST
        barred = NO_MULTICAST
      }
    }
    const behind = this.#admit(burst, inPort, kind, first, end)
    if (behind === first) return
    const { members, memberCount } = this.#places
    const takers = this.#giveEach(members, memberCount, burst, first, behind, inPort, vlan, barred)
    if (takers === 0) {
      this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_no_port] += behind - first
    }
  }

  /** Behind the frames that may be flooded as far as there is a limit for their kind. @hot */
  #admit(burst: Burst, inPort: number, kind: number, first: number, end: number): number {
    const { flags, storm } = this.#policies
    if ((flags[inPort] & HAS_STORM_CONTROL) === 0) return end
    const behind = first + storm.admit(inPort, kind, burst, first, end)
    this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_storm] += end - behind
    return behind
  }

  /**
   * Gives frames to those of the ports that take them: they carry the VLAN, do not bar such frames, and are
   * not isolated from the in-port. Returns how many. @hot
   */
  #giveEach(
    ports: Int32Array,
    count: number,
    burst: Burst,
    first: number,
    end: number,
    inPort: number,
    vlan: number,
    notTo: number,
  ): number {
    const { flags, vlans } = this.#policies
    const has = flags[inPort]
    const barred = notTo | (has & IS_ISOLATED)
    let takers = 0
    for (let at = 0; at < count; at++) {
      const port = ports[at]
      if (port === inPort && (has & HAIRPINS) === 0) continue
      const its = flags[port]
      if ((its & (barred | HAS_VLANS)) !== 0) {
        if ((its & barred) !== 0) continue
        if (!vlans.carries(port, vlan)) continue
        if ((its & ASKS_INNER) !== 0) this.#given.asksInner = true
      }
      takers++
      this.#given.give(burst, first, end, port)
    }
    return takers
  }

  /** Multicast, where it is known who is to have it: group after group. @hot */
  #snoop(burst: Burst, first: number, end: number, inPort: number, vlan: number): void {
    const { snooping } = this.#policies
    const base = inPort * COUNTERS_STRIDE
    for (let at = first; at < end;) {
      let verdict = snooping.find(burst, at, end, inPort, vlan)
      const next = snooping.behind
      // What goes to members is no flood.
      const behind =
        verdict === TO_MEMBERS ? next : this.#admit(burst, inPort, STORM_MULTICAST, at, next)
      if (behind > at) {
        if (verdict === ASK_HEED) verdict = snooping.heed(burst, at, inPort, vlan)
        if (verdict === TO_NOBODY) this.#counters[base + COUNTERS.rx_drop_membership]++
        else if (this.#giveBy(verdict, burst, at, behind, inPort, vlan) === 0) {
          const isAsked = verdict === TO_MEMBERS || verdict === TO_ROUTERS
          const reason = isAsked ? COUNTERS.rx_drop_no_member : COUNTERS.rx_drop_no_port
          this.#counters[base + reason] += behind - at
        }
      }
      at = next
    }
  }

  /** Gives frames to whom snooping says; returns how many ports took them. @hot */
  #giveBy(
    verdict: number,
    burst: Burst,
    first: number,
    end: number,
    inPort: number,
    vlan: number,
  ): number {
    const places = this.#places
    if (verdict === TO_FLOOD || verdict === TO_EVERYBODY) {
      const barred = verdict === TO_FLOOD ? NO_MULTICAST : 0
      const { members, memberCount } = places
      return this.#giveEach(members, memberCount, burst, first, end, inPort, vlan, barred)
    }
    const { snooping } = this.#policies
    const count = places.keepMembers(snooping.ports, snooping.portCount)
    return this.#giveEach(snooping.ports, count, burst, first, end, inPort, vlan, 0)
  }
}
