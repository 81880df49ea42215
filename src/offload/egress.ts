/**
 * Gives a port frames that it can take: what its vnet_hdr cannot say is done in software, for this
 * port alone. Per frame the result is: pass, complete the checksum, segment, or drop with a reason;
 * and segments of a sender without offloads are merged for a port that takes TSO.
 *
 * Order is kept: the frames that come of one stand in its place.
 */
import type { Burst } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { HEADERS_MAX } from '../wire/headers.ts'
import { isGso, NEEDS_IPV4_CHECKSUM } from '../wire/vnet-hdr.ts'
import { ChecksumFiller } from './checksum.ts'
import { Coalescer } from './coalesce.ts'
import type { FrameTaker } from './frame-builder.ts'
import { FrameBuilder } from './frame-builder.ts'
import { HeaderReader } from './header-reader.ts'
import { Segmenter } from './segment.ts'

export class EgressOffloads {
  /** Segments that were cut of the burst: once `segmentsMax` is reached, no other frame is cut. */
  segments = 0
  readonly #counters: Float64Array
  readonly #reader: HeaderReader = new HeaderReader()
  readonly #builder: FrameBuilder
  readonly #segmenter: Segmenter
  readonly #filler: ChecksumFiller
  readonly #coalescer: Coalescer

  /** `flushWrites` completes everything that ports were given. */
  constructor(counters: Float64Array, flushWrites: () => void) {
    this.#counters = counters
    this.#builder = new FrameBuilder(flushWrites)
    this.#segmenter = new Segmenter(this.#builder)
    this.#filler = new ChecksumFiller(this.#builder)
    this.#coalescer = new Coalescer(this.#builder, this.#reader)
  }

  /** Frames of another burst come: before the first port is given some. @hot */
  beginBurst(): void {
    this.segments = 0
  }

  /**
   * Hands the frames list[first .. first + count) to a port that takes `txOffloads`.
   * @hot
   */
  transmit(
    port: FrameTaker,
    index: number,
    txOffloads: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
  ): void {
    this.#builder.begin(port, queue)
    const end = first + count
    for (let at = first; at < end; at++) {
      const k = list[at]
      if ((burst.needs[k] & ~txOffloads) !== 0) this.#reader.add(burst, k)
    }
    this.#reader.run()
    for (let at = first; at < end; at++) {
      const k = list[at]
      if ((burst.needs[k] & ~txOffloads) === 0) this.#builder.pass(burst, k)
      else this.#convert(burst, k, index, txOffloads)
    }
    this.#builder.flush()
  }

  /** @hot */
  #convert(burst: Burst, k: number, index: number, txOffloads: number): void {
    const base = index * COUNTERS_STRIDE
    const { bytes } = this.#reader
    const at = k * HEADERS_MAX
    const needs = burst.needs[k] & ~NEEDS_IPV4_CHECKSUM
    let counter: number = COUNTERS.tx_checksummed
    let isDone: boolean
    if ((needs & ~txOffloads) === 0) isDone = this.#filler.fillIpv4(burst, k, bytes, at, needs)
    else if (!isGso(burst.gso[k])) {
      isDone = this.#filler.complete(burst, k, bytes, at)
    } else {
      counter = COUNTERS.tx_segmented
      isDone = this.segments < burst.segmentsMax && this.#segmenter.cut(burst, k, bytes, at)
      if (isDone) this.segments += ((burst.length[k] / (burst.gsoSize[k] & 0xffff)) | 0) + 1
    }
    this.#counters[base + (isDone ? counter : COUNTERS.tx_drop_offload)]++
  }

  /**
   * The same for frames of a sender without TSO, none of which needs what the port lacks: segments
   * that follow one another are merged.
   * @hot
   */
  transmitMerged(
    port: FrameTaker,
    index: number,
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
      port.transmit(burst, list, first, count, queue)
      return
    }
    this.#counters[index * COUNTERS_STRIDE + COUNTERS.tx_coalesced] += merged
    this.#builder.begin(port, queue)
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (coalescer.isMember(k)) continue
      if (coalescer.isMerged(k)) coalescer.build(burst, k)
      else this.#builder.pass(burst, k)
    }
    this.#builder.flush()
  }

  close(): void {
    this.#coalescer.close()
    this.#builder.close()
    this.#reader.close()
  }
}
