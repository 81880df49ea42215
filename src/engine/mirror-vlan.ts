/**
 * The way of copies into a VLAN (RSPAN): to every port of the switch that carries it, as if they were frames
 * of it, also to that by which they came; see `ofproto-dpif-xlate.c` of Open vSwitch (`mirror_packet`).
 *
 *     as it was seen -> [inner tags] -> tags of the VLAN -> as to any output
 *
 * What ports are allowed holds for copies, too: an isolated port has none of what came by another such port.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import type { Retagger } from '../offload/retag-stage.ts'
import type { FrameTaker } from '../offload/stage.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { keepWithInnerTag } from './inner-tags.ts'
import type { CopyTaker, MirrorPorts } from './mirror-output.ts'
import { MirrorOutput } from './mirror-output.ts'
import { NO_PORT } from './places.ts'
import { ASKS_INNER, HAS_VLANS, IS_ISOLATED } from './port-policy.ts'

export class MirrorVlan implements CopyTaker {
  isWanted = false
  readonly #vlan: number
  readonly #ports: MirrorPorts
  readonly #retag: RetagStage
  /** To one port after the other. */
  readonly #way: MirrorOutput
  #from = NO_PORT
  #cost = 0

  constructor(vlan: number, ports: MirrorPorts) {
    this.#vlan = vlan
    this.#ports = ports
    this.#way = new MirrorOutput(NO_PORT, ports)
    this.#retag = new RetagStage(vlan, ports, this.#way.seen)
    this.#way.seen = this.#retag
  }

  /** @hot */
  begin(from: number): void {
    this.#from = from
    this.#cost = 0
  }

  /** @hot */
  give(
    burst: Burst,
    list: Int32Array,
    count: number,
    as: number,
    snapLength: number,
    queue: number,
  ): void {
    const { members, memberCount } = this.#ports.places
    const retag = this.#retag
    const way = this.#way
    retag.from = as < 0 ? this.#from : as
    for (let at = 0; at < memberCount; at++) {
      const port = members[at]
      if (!this.#mayHave(port)) continue
      retag.to = port
      way.port = port
      way.begin()
      way.give(burst, list, count, as, snapLength, queue)
      this.#cost += way.end()
    }
  }

  /** @hot */
  #mayHave(port: number): boolean {
    const { flags, vlans } = this.#ports.policies
    const its = flags[port]
    if ((its & HAS_VLANS) !== 0 && !vlans.carries(port, this.#vlan)) return false
    return (its & flags[this.#from] & IS_ISOLATED) === 0 || port === this.#from
  }

  /** @hot */
  end(): number {
    return this.#cost
  }
}

/** Copies become frames of the VLAN. */
class RetagStage implements FrameTaker {
  /** The port by which they are taken to have come, and that by which they leave. */
  from = NO_PORT
  to = NO_PORT
  readonly #vlan: number
  readonly #ports: MirrorPorts
  readonly #retagger: Retagger
  readonly #next: FrameTaker
  readonly #list: Int32Array = new Int32Array(BURST_SIZE_MAX)

  constructor(vlan: number, ports: MirrorPorts, next: FrameTaker) {
    this.#vlan = vlan
    this.#ports = ports
    this.#retagger = ports.machinery.retagger
    this.#next = next
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const { from, to } = this
    const { counters, policies } = this.#ports
    const own = this.#list
    for (let at = 0; at < count; at++) own[at] = list[first + at]
    let kept = count
    if ((policies.flags[to] & ASKS_INNER) !== 0) {
      kept = keepWithInnerTag(burst, own, 0, count, from, to, policies.vlans)
      counters[to * COUNTERS_STRIDE + COUNTERS.tx_drop_vlan] += count - kept
      if (kept === 0) return
    }
    this.#retagger.retag(this.#next, this.#vlan, from, to, burst, own, kept, queue)
  }
}
