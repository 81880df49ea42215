/**
 * The way of copies to the port that is the output of mirrors:
 *
 *     as it came ------------------------\
 *     as it leaves by a port: [tag] of it -> [cut] -> mtu, captures -> [finish] -> port
 *
 * There is no merging: a copy is what was seen, not what TCP would make of it. Copies for a VLAN go the same
 * way to each of its ports, and have the tags of the VLAN before they are cut (engine/mirror-vlan.ts).
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import type { FrameTaker } from '../offload/stage.ts'
import type { EnginePort } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import type { Egress, StageMachinery } from './egress.ts'
import type { Places } from './places.ts'
import type { PortPolicies } from './port-policy.ts'

/** The switch, as mirrors have to know it. */
export interface MirrorPorts {
  /** Of the ports. */
  readonly counters: Float64Array
  readonly machinery: StageMachinery
  readonly policies: PortPolicies
  readonly places: Places
  /** Copies are captured where they leave. */
  readonly recordCopies: CopyRecorder
  /** Null: there is no such port. */
  egressOf(port: number): Egress | null
  /** What comes in by one leaves by the other with other tags, maybe. @hot */
  mayRetag(from: number, to: number): boolean
  /** It is given frames in this turn. @hot */
  touch(port: number): void
}

/** Captures of the port have these frames, which leave by it. */
export type CopyRecorder = (
  burst: Burst,
  list: Int32Array,
  first: number,
  count: number,
  port: number,
) => void

/** Whoever is given copies: a port, or a VLAN. */
export interface CopyTaker {
  /** There are copies for it of the current burst. */
  isWanted: boolean
  /** Copies of a burst come, which came in by the port `from`. @hot */
  begin(from: number): void
  /**
   * Frames list[0 .. count) of the burst: with the tags with which they leave by the port `as`, or, if that is
   * negative, as they came; at most `snapLength` bytes of each.
   * @hot
   */
  give(
    burst: Burst,
    list: Int32Array,
    count: number,
    as: number,
    snapLength: number,
    queue: number,
  ): void
  /** Returns what the copies of the burst cost, in reckoned nanoseconds. @hot */
  end(): number
}

export class MirrorOutput implements CopyTaker, FrameTaker {
  /** Changes between bursts only. */
  port: number
  isWanted = false
  readonly #ports: MirrorPorts
  /** Of the current burst; null: there is none now that could take them. */
  #egress: Egress | null = null
  #given = 0
  /** That were cut of the burst before. */
  #segmentsBefore = 0
  /** Takes copies that have the tags with which they were seen; a stage may be put in front of it. */
  seen: FrameTaker
  readonly #cutter: CopyCutter
  readonly #list: Int32Array = new Int32Array(BURST_SIZE_MAX)

  constructor(port: number, ports: MirrorPorts) {
    this.port = port
    this.#ports = ports
    this.#cutter = new CopyCutter(ports.machinery, this)
    this.seen = this.#cutter
  }

  /** @hot */
  begin(): void {
    const egress = this.#ports.egressOf(this.port)
    this.#egress = egress
    this.#given = 0
    this.#segmentsBefore = this.#ports.machinery.finisher.segments
    if (egress === null) return
    this.#cutter.told = egress.port.isCut === undefined ? null : egress.port
    this.#ports.touch(this.port)
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
    if (this.#egress === null) return
    if (!this.#ports.places.isUp(this.port)) {
      this.#ports.counters[this.port * COUNTERS_STRIDE + COUNTERS.tx_drop_link_down] += count
      return
    }
    const { tagger } = this.#ports.machinery
    this.#cutter.snapLength = snapLength
    if (as < 0) this.seen.transmit(burst, list, 0, count, queue)
    else tagger.tag(this.seen, as, burst, list, 0, count, queue, this.port)
  }

  /** Copies as the port shall have them, but for what it cannot take. @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const egress = this.#egress!
    const { needs } = burst
    const lacking = ~egress.txOffloads
    let unmet = 0
    let listed = 0
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (egress.isTooLong(burst, k)) continue
      unmet |= needs[k] & lacking
      this.#list[listed++] = k
    }
    if (listed < count) {
      this.#ports.counters[this.port * COUNTERS_STRIDE + COUNTERS.tx_drop_mtu] += count - listed
      if (listed === 0) return
    }
    this.#given += listed
    this.#ports.recordCopies(burst, this.#list, 0, listed, this.port)
    const taker = unmet === 0 ? egress.plain : egress.finishing
    taker.transmit(burst, this.#list, 0, listed, queue)
  }

  /** @hot */
  end(): number {
    if (this.#egress === null) return 0
    const segments = this.#ports.machinery.finisher.segments - this.#segmentsBefore
    return (this.#given + segments) * this.#egress.deliveryNs
  }
}

/** Cuts copies, each run of them to its own length. */
class CopyCutter implements FrameTaker {
  snapLength = 0
  /** The port, if it wants to know which of them were cut. */
  told: EnginePort | null = null
  readonly #machinery: StageMachinery
  readonly #next: FrameTaker

  constructor(machinery: StageMachinery, next: FrameTaker) {
    this.#machinery = machinery
    this.#next = next
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const { cutter } = this.#machinery
    const { snapLength, told } = this
    if (told === null) {
      cutter.cut(this.#next, snapLength, burst, list, first, count, queue)
      return
    }
    const { length } = burst
    const end = first + count
    let at = first
    while (at < end) {
      const isCut = length[list[at]] > snapLength
      let behind = at + 1
      while (behind < end && length[list[behind]] > snapLength === isCut) behind++
      told.isCut = isCut
      cutter.cut(this.#next, snapLength, burst, list, at, behind - at, queue)
      at = behind
    }
    told.isCut = false
  }
}
