/**
 * Cuts frames to their first bytes, for who wants no more of them. What is left of a frame is plain bytes:
 * its vnet_hdr went with the rest, so its checksum is whatever stood there, and it is no GSO frame.
 */
import type { Burst } from '../mem/burst.ts'
import { FrameBuilder } from './frame-builder.ts'
import type { FrameTaker } from './stage.ts'

export class Cutter {
  readonly #builder: FrameBuilder

  /** `flushWrites` completes everything that ports were given. */
  constructor(flushWrites: () => void) {
    this.#builder = new FrameBuilder(flushWrites)
  }

  /** Hands on at most `length` bytes, 14 or more, of each frame; one that has no more is handed on as it is. @hot */
  cut(
    next: FrameTaker,
    length: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
  ): void {
    const end = first + count
    let at = first
    while (at < end && burst.length[list[at]] <= length) at++
    if (at === end) {
      next.transmit(burst, list, first, count, queue)
      return
    }
    const builder = this.#builder
    builder.begin(next, queue)
    for (at = first; at < end; at++) {
      const k = list[at]
      if (burst.length[k] <= length) builder.pass(burst, k)
      else builder.cut(burst, k, length)
    }
    builder.flush()
  }

  close(): void {
    this.#builder.close()
  }
}
