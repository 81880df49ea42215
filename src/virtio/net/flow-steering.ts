/**
 * Which receiveq a frame is for, when a device on the switch has several: the flow's, so that a flow
 * never reorders. (On a link, frames go queue to queue.)
 */
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX } from '../../mem/burst.ts'
import { FLOW_HEADERS_MAX } from '../../mem/frame-headers.ts'
import type { Rss } from './rss.ts'

export class FlowSteering {
  /** Frame numbers for each queue, BURST_SIZE_MAX per queue. */
  readonly lists: Int32Array
  readonly listLength: Int32Array

  constructor(queuesMax: number) {
    this.lists = new Int32Array(queuesMax * BURST_SIZE_MAX)
    this.listLength = new Int32Array(queuesMax)
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
    const { headers } = burst
    const { isSteering } = rss
    for (let at = first; at < first + count; at++) headers.want(list[at], FLOW_HEADERS_MAX)
    headers.read()
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      const queue = isSteering
        ? rss.queueFor(headers.bytes, headers.at(k), headers.flowLength(k), queues)
        : (headers.flowHash(k) >>> 0) % queues
      const listed = this.listLength[queue]
      this.lists[queue * BURST_SIZE_MAX + listed] = k
      this.listLength[queue] = listed + 1
    }
  }
}
