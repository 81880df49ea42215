/** Which frames the driver of an in-process device wants to see; one with a guest behind it has no filter. */
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../../mem/burst.ts'
import type { RxFilter, RxFilterSettings } from '../../virtio/net/rx-filter.ts'
import { filterOf, vlanOf } from '../../virtio/net/rx-filter.ts'

export class WantedFrames {
  /** After `choose`: those that are wanted. */
  readonly list: Int32Array = new Int32Array(BURST_SIZE_MAX)
  #filter: RxFilter | null = null

  /** Null: the driver wants everything. */
  set(settings: RxFilterSettings | null): void {
    this.#filter = filterOf(settings)
  }

  /** There is a filter to ask. */
  get isFiltered(): boolean {
    return this.#filter !== null
  }

  /** Into `list`; returns how many. @hot */
  choose(burst: Burst, list: Int32Array, first: number, count: number): number {
    const filter = this.#filter!
    const { heads } = burst
    let wanted = 0
    for (let at = first; at < first + count; at++) {
      const head = list[at] * HEAD_WORDS
      const lo = heads[head + 1] & 0xffff
      if (filter.accepts(heads[head], lo, vlanOf(heads[head + 3]))) this.list[wanted++] = list[at]
    }
    return wanted
  }
}
