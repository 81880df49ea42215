/**
 * Finishes what the sender of a frame left to us and the port cannot take: what its vnet_hdr cannot say
 * is done in software, for this port alone. Per frame the result is: pass, complete the checksum, segment,
 * or drop with a reason. All of it is one stage, as the frames of a flow need now one and now the other.
 *
 * Order is kept: the frames that come of one stand in its place.
 */
import type { Burst } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { HEADERS_MAX } from '../wire/headers.ts'
import { isGso, NEEDS_IPV4_CHECKSUM } from '../wire/vnet-hdr.ts'
import { ChecksumFiller } from './checksum.ts'
import { FrameBuilder } from './frame-builder.ts'
import { Segmenter } from './segment.ts'
import type { FrameTaker } from './stage.ts'

/** What the stages of all egresses share: its memory is in use only while one of them has frames. */
export class Finisher {
  /** Segments that were cut of the burst: once they are so many, no other frame is cut. */
  segments = 0
  #segmentsMax = 0
  readonly #counters: Float64Array
  readonly #builder: FrameBuilder
  readonly #segmenter: Segmenter
  readonly #filler: ChecksumFiller

  /** `flushWrites` completes everything that ports were given. */
  constructor(counters: Float64Array, flushWrites: () => void) {
    this.#counters = counters
    this.#builder = new FrameBuilder(flushWrites)
    this.#segmenter = new Segmenter(this.#builder)
    this.#filler = new ChecksumFiller(this.#builder)
  }

  /** Frames of another burst come, which may be cut into so many for all ports together. @hot */
  beginBurst(segmentsMax: number): void {
    this.segments = 0
    this.#segmentsMax = segmentsMax
  }

  /** For the port of that number, which takes `txOffloads`. @hot */
  finish(
    next: FrameTaker,
    port: number,
    txOffloads: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
  ): void {
    const builder = this.#builder
    const { headers, needs } = burst
    const end = first + count
    for (let at = first; at < end; at++) {
      const k = list[at]
      if ((needs[k] & ~txOffloads) !== 0) headers.want(k, HEADERS_MAX)
    }
    headers.read()
    builder.begin(next, queue)
    for (let at = first; at < end; at++) {
      const k = list[at]
      if ((needs[k] & ~txOffloads) === 0) builder.pass(burst, k)
      else this.#convert(burst, k, port, txOffloads)
    }
    builder.flush()
  }

  /** @hot */
  #convert(burst: Burst, k: number, port: number, txOffloads: number): void {
    const needs = burst.needs[k] & ~NEEDS_IPV4_CHECKSUM
    let counter: number = COUNTERS.tx_checksummed
    let isDone: boolean
    if ((needs & ~txOffloads) === 0) isDone = this.#filler.fillIpv4(burst, k, needs)
    else if (!isGso(burst.gso[k])) isDone = this.#filler.complete(burst, k)
    else {
      counter = COUNTERS.tx_segmented
      isDone = this.segments < this.#segmentsMax && this.#segmenter.cut(burst, k)
      if (isDone) this.segments += ((burst.length[k] / (burst.gsoSize[k] & 0xffff)) | 0) + 1
    }
    this.#counters[port * COUNTERS_STRIDE + (isDone ? counter : COUNTERS.tx_drop_offload)]++
  }

  close(): void {
    this.#builder.close()
  }
}

export class FinishStage implements FrameTaker {
  readonly #finisher: Finisher
  readonly #next: FrameTaker
  readonly #port: number
  readonly #txOffloads: number

  /** `port` is the number under which it is counted; it takes `txOffloads`. */
  constructor(finisher: Finisher, next: FrameTaker, port: number, txOffloads: number) {
    this.#finisher = finisher
    this.#next = next
    this.#port = port
    this.#txOffloads = txOffloads
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const takes = this.#txOffloads
    this.#finisher.finish(this.#next, this.#port, takes, burst, list, first, count, queue)
  }
}
