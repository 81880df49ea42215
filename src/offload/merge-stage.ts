/**
 * Merges what a sender without TSO has cut, for a port that takes TSO: frames of which none needs what
 * the port lacks. What becomes of them is the Coalescer's decision; nothing is held back for later.
 */
import type { Burst } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { Coalescer } from './coalesce.ts'
import { FrameBuilder } from './frame-builder.ts'
import type { FrameTaker } from './stage.ts'

/** What the stages of all egresses share: its memory is in use only while one of them has frames. */
export class Merger {
  readonly #counters: Float64Array
  readonly #builder: FrameBuilder
  readonly #coalescer: Coalescer

  /** `flushWrites` completes everything that ports were given. */
  constructor(counters: Float64Array, flushWrites: () => void) {
    this.#counters = counters
    this.#builder = new FrameBuilder(flushWrites)
    this.#coalescer = new Coalescer(this.#builder)
  }

  /** For the port of that number, which takes `txOffloads`. @hot */
  merge(
    next: FrameTaker,
    port: number,
    txOffloads: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
  ): void {
    const coalescer = this.#coalescer
    const merged = coalescer.group(burst, list, first, count, txOffloads)
    if (merged === 0) {
      next.transmit(burst, list, first, count, queue)
      return
    }
    this.#counters[port * COUNTERS_STRIDE + COUNTERS.tx_coalesced] += merged
    const builder = this.#builder
    builder.begin(next, queue)
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (coalescer.isMember(k)) continue
      if (coalescer.isMerged(k)) coalescer.build(burst, k)
      else builder.pass(burst, k)
    }
    builder.flush()
  }

  close(): void {
    this.#coalescer.close()
    this.#builder.close()
  }
}

export class MergeStage implements FrameTaker {
  readonly #merger: Merger
  readonly #next: FrameTaker
  readonly #port: number
  readonly #txOffloads: number

  /** `port` is the number under which it is counted; it takes `txOffloads`. */
  constructor(merger: Merger, next: FrameTaker, port: number, txOffloads: number) {
    this.#merger = merger
    this.#next = next
    this.#port = port
    this.#txOffloads = txOffloads
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const takes = this.#txOffloads
    this.#merger.merge(this.#next, this.#port, takes, burst, list, first, count, queue)
  }
}
