/**
 * Storm control: how many frames a second of a class are flooded that come in by a port. A token bucket for
 * each, on the engine's clock, which holds a tenth of a second of the rate, and 32 frames at least. A TSO or USO
 * frame takes as many as it has segments, in advance if there are less: or a sender had dozens for each.
 *
 *     admit: takes tokens; frames without one are dropped ...
 *     look:  once a second: which began to drop since, and which have dropped nothing for a second
 */
import type { Burst } from '../mem/burst.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { isGso } from '../wire/vnet-hdr.ts'
import type { StormChange, StormRates } from './messages.ts'

export const STORM_BROADCAST = 0
export const STORM_MULTICAST = 1
export const STORM_UNKNOWN = 2
const CLASSES = 3

const BURST_LEAST = 32
const BURST_PARTS = 10
const SECOND_US = 1_000_000

const NO_CHANGES: readonly StormChange[] = []

export class StormControl {
  /** By port and class: frames a second, 0: any; tokens; when they were counted last. */
  readonly #rate: Float64Array = new Float64Array(PORTS_MAX * CLASSES)
  readonly #tokens: Float64Array = new Float64Array(PORTS_MAX * CLASSES)
  readonly #atUs: Float64Array = new Float64Array(PORTS_MAX * CLASSES)
  /** Dropped since the last look, and since the storm began; whether that was told. */
  readonly #dropped: Float64Array = new Float64Array(PORTS_MAX * CLASSES)
  readonly #total: Float64Array = new Float64Array(PORTS_MAX * CLASSES)
  readonly #isTold: Uint8Array = new Uint8Array(PORTS_MAX * CLASSES)
  /** Ports that have a rate. */
  readonly #ports: number[] = []
  /** Storms that are over because their rates are: told with the next look. */
  readonly #over: StormChange[] = []
  readonly #time: Float64Array

  /** `time`: the engine clock's, microseconds first. */
  constructor(time: Float64Array) {
    this.#time = time
  }

  set(port: number, rates: StormRates | null): void {
    const at = this.#ports.indexOf(port)
    if (at >= 0) this.#ports.splice(at, 1)
    if (rates !== null) this.#ports.push(port)
    for (let kind = 0; kind < CLASSES; kind++) {
      const cell = port * CLASSES + kind
      const rate = rates === null ? 0 : rates[kind]
      // A bucket whose rate stays is as full as it was.
      if (rate !== 0 && rate === this.#rate[cell]) continue
      if (this.#isTold[cell] !== 0) {
        const dropped = this.#total[cell] + this.#dropped[cell]
        this.#over.push({ port, kind, isStorm: false, dropped })
      }
      this.#rate[cell] = rate
      this.#tokens[cell] = burstOf(rate)
      this.#atUs[cell] = 0
      this.#dropped[cell] = 0
      this.#total[cell] = 0
      this.#isTold[cell] = 0
    }
  }

  /** The port is gone: of what was there nothing is told any more. */
  clear(port: number): void {
    this.set(port, null)
    const others = this.#over.filter((change) => change.port !== port)
    this.#over.splice(0, this.#over.length, ...others)
  }

  /** How many of the frames first..end - 1 of the burst are flooded. @hot */
  admit(port: number, kind: number, burst: Burst, first: number, end: number): number {
    const cell = port * CLASSES + kind
    const rate = this.#rate[cell]
    if (rate === 0) return end - first
    const nowUs = this.#time[0]
    const passedUs = nowUs - this.#atUs[cell]
    this.#atUs[cell] = nowUs
    const most = burstOf(rate)
    let tokens = this.#tokens[cell]
    if (passedUs > 0) tokens += (passedUs * rate) / SECOND_US
    if (tokens > most) tokens = most
    let behind = first
    if (burst.hasOffloads) {
      for (; behind < end && tokens >= 1; behind++) tokens -= segmentsOf(burst, behind)
    } else if (tokens >= 1) {
      behind = tokens < end - first ? first + (tokens | 0) : end
      tokens -= behind - first
    }
    this.#tokens[cell] = tokens
    this.#dropped[cell] += end - behind
    return behind - first
  }

  /** What began or ended since the last call, about a second ago. */
  look(): readonly StormChange[] {
    if (this.#ports.length + this.#over.length === 0) return NO_CHANGES
    const changes = this.#over.splice(0)
    for (const port of this.#ports) {
      for (let kind = 0; kind < CLASSES; kind++) this.#lookAt(port, kind, changes)
    }
    return changes
  }

  #lookAt(port: number, kind: number, changes: StormChange[]): void {
    const cell = port * CLASSES + kind
    const dropped = this.#dropped[cell]
    const isStorm = dropped > 0
    this.#dropped[cell] = 0
    this.#total[cell] += dropped
    if (isStorm === (this.#isTold[cell] !== 0)) return
    this.#isTold[cell] = isStorm ? 1 : 0
    changes.push({ port, kind, isStorm, dropped: this.#total[cell] })
    if (!isStorm) this.#total[cell] = 0
  }
}

/** @hot */
function burstOf(rate: number): number {
  const part = rate / BURST_PARTS
  return part < BURST_LEAST ? BURST_LEAST : part
}

/** Frames that frame k is on the wire. @hot */
function segmentsOf({ gso, gsoSize, length }: Burst, k: number): number {
  const size = gsoSize[k] & 0xffff
  if (!isGso(gso[k]) || size === 0) return 1
  const payload = length[k] - (gso[k] >>> 16)
  return payload > size ? (((payload - 1) / size) | 0) + 1 : 1
}
