/**
 * Which frames of a burst each port is given: lists of frame numbers, made while the burst is classified and
 * emptied when it is delivered.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { isGso } from '../wire/vnet-hdr.ts'
import type { Egress } from './egress.ts'
import { NO_LIMIT } from './egress.ts'
import { keepWithInnerTag } from './inner-tags.ts'
import type { Places } from './places.ts'
import type { PortPolicies } from './port-policy.ts'
import { ASKS_INNER } from './port-policy.ts'

export class Given {
  /** Frame numbers for each egress port, BURST_SIZE_MAX per port. */
  readonly lists: Int32Array = new Int32Array(PORTS_MAX * BURST_SIZE_MAX)
  readonly listLength: Int32Array = new Int32Array(PORTS_MAX)
  /** Egress ports of the current burst. */
  readonly egress: Int32Array = new Int32Array(PORTS_MAX)
  egressCount = 0
  /** A port was given frames that asks what tag is inside. */
  asksInner = false
  readonly #counters: Float64Array
  readonly #places: Places
  readonly #policies: PortPolicies
  readonly #egresses: readonly (Egress | null)[]

  constructor(
    counters: Float64Array,
    places: Places,
    policies: PortPolicies,
    egresses: readonly (Egress | null)[],
  ) {
    this.#counters = counters
    this.#places = places
    this.#policies = policies
    this.#egresses = egresses
  }

  /** Appends frames first..end - 1 to the list of a port, or drops them for a reason it has. @hot */
  give(burst: Burst, first: number, end: number, port: number): void {
    const base = port * COUNTERS_STRIDE
    if (this.#places.passes[port] === 0) {
      this.#counters[base + COUNTERS.tx_drop_link_down] += end - first
      return
    }
    const egress = this.#egresses[port]!
    const { lengthMax } = egress
    const lists = this.lists
    const list = port * BURST_SIZE_MAX
    const before = this.listLength[port]
    let listed = before
    // Where every frame is as good as any other they are not looked at.
    if (!burst.hasOffloads && lengthMax === NO_LIMIT) {
      for (let k = first; k < end; k++) lists[list + listed++] = k
    } else {
      const { needs, length, gso, gsoSize } = burst
      const lacking = ~egress.txOffloads
      let unmet = 0
      for (let k = first; k < end; k++) {
        const wanted = needs[k]
        unmet |= wanted & lacking
        let onWire = length[k]
        // A GSO frame leaves the next hop in segments: hdr_len + gso_size is what the mtu limits.
        if (wanted !== 0 && isGso(gso[k])) {
          onWire = (gso[k] >>> 16) + (gsoSize[k] & 0xffff)
        }
        if (onWire <= lengthMax) lists[list + listed++] = k
      }
      const given = listed - before
      if (given < end - first) this.#counters[base + COUNTERS.tx_drop_mtu] += end - first - given
      if (given === 0) return
      if (unmet !== 0) egress.isShort = true
    }
    if (before === 0) this.egress[this.egressCount++] = port
    this.listLength[port] = listed
  }

  /** Ports are left those frames whose inner tag they take. @hot */
  dropByInnerTags(burst: Burst, inPort: number): void {
    this.asksInner = false
    const { flags, vlans } = this.#policies
    for (let at = 0; at < this.egressCount; at++) {
      const port = this.egress[at]
      if ((flags[port] & ASKS_INNER) === 0) continue
      const list = port * BURST_SIZE_MAX
      const before = this.listLength[port]
      const left = keepWithInnerTag(burst, this.lists, list, before, inPort, port, vlans)
      this.listLength[port] = left
      this.#counters[port * COUNTERS_STRIDE + COUNTERS.tx_drop_vlan] += before - left
    }
  }
}
