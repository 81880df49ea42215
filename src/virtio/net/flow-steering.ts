/**
 * Which receiveq a frame is for, when a device on the switch has several: the flow's, so that a flow
 * never reorders. (On a link, frames go queue to queue.)
 */
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX } from '../../mem/burst.ts'
import { CopyProgram } from '../../mem/copy-program.ts'
import { ownAll } from '../../mem/own-all.ts'
import { Window } from '../../mem/window.ts'
import { flowHash } from '../../wire/flow-hash.ts'
import type { Rss } from './rss.ts'

/** Bytes of a frame that are looked at: two tags, IPv6 with a few extension headers, ports. */
const HEAD_LENGTH = 128

export class FlowSteering {
  /** Frame numbers for each queue, BURST_SIZE_MAX per queue. */
  readonly lists: Int32Array
  readonly listLength: Int32Array
  readonly #heads: Window
  readonly #bytes: Uint8Array
  readonly #copies: CopyProgram

  constructor(queuesMax: number) {
    this.lists = new Int32Array(queuesMax * BURST_SIZE_MAX)
    this.listLength = new Int32Array(queuesMax)
    const made = ownAll((own) => ({
      heads: own(Window.map(BURST_SIZE_MAX * HEAD_LENGTH)),
      copies: own(new CopyProgram()),
    }))
    this.#heads = made.heads
    this.#bytes = new Uint8Array(made.heads.buffer)
    this.#copies = made.copies
  }

  /**
   * Sorts the frames list[first .. first + count) of the burst into `lists` of `queues` queues, each
   * in the order of arrival; by what the driver configured (`rss.isSteering`), else by a hash that is
   * the same in both directions. The caller empties `listLength`.
   * @hot
   */
  steer(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queues: number,
    rss: Rss,
  ): void {
    for (let n = 0; n < count; n++) {
      const k = list[first + n]
      const length = burst.length[k] < HEAD_LENGTH ? burst.length[k] : HEAD_LENGTH
      this.#copies.addFrame(burst, k, this.#heads.id, n * HEAD_LENGTH, length)
    }
    this.#copies.run()
    for (let n = 0; n < count; n++) {
      const k = list[first + n]
      const length = burst.length[k] < HEAD_LENGTH ? burst.length[k] : HEAD_LENGTH
      const queue = rss.isSteering
        ? rss.queueFor(this.#bytes, n * HEAD_LENGTH, length, queues)
        : (flowHash(this.#bytes, n * HEAD_LENGTH, length) >>> 0) % queues
      const listed = this.listLength[queue]
      this.lists[queue * BURST_SIZE_MAX + listed] = k
      this.listLength[queue] = listed + 1
    }
  }

  close(): void {
    this.#heads.unmap()
    this.#copies.close()
  }
}
