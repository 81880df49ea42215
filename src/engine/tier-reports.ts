/** What the I/O tier tells of single frames and queues, in the counters of their ports. */
import {
  EAGAIN,
  EBADF,
  EBADFD,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  ENXIO,
} from '../abi/errno.ts'
import type { TapQueue, TierEvents } from '../io/tier.ts'
import type { EnginePort } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'

export interface TierReportsTarget {
  readonly counters: Float64Array
  port(index: number): EnginePort | null
  /** The port cannot go on: frames for it and from it are dropped. */
  portFailed(index: number, errno: number): void
}

export class TierReports implements TierEvents {
  readonly #counters: Float64Array
  readonly #target: TierReportsTarget

  constructor(target: TierReportsTarget) {
    this.#target = target
    this.#counters = target.counters
  }

  writeFailed(port: number, length: number, errno: number): void {
    const base = port * COUNTERS_STRIDE
    const counters = this.#counters
    // It was counted as sent when it was queued.
    counters[base + COUNTERS.tx_frames]--
    counters[base + COUNTERS.tx_bytes] -= length - this.#vnetHdrLength(port)
    if (errno === EAGAIN || errno === ENOBUFS) counters[base + COUNTERS.tx_drop_full]++
    else if (errno === EIO || errno === ENETDOWN) counters[base + COUNTERS.tx_drop_link_down]++
    else if (errno === EMSGSIZE) counters[base + COUNTERS.tx_drop_mtu]++
    else if (errno === EINVAL) counters[base + COUNTERS.tx_drop_malformed]++
    else {
      counters[base + COUNTERS.tx_drop_error]++
      // A packet socket says ENXIO when its interface is gone.
      const isGone = errno === EBADFD || errno === EBADF || errno === ENXIO
      if (isGone) this.#target.portFailed(port, errno)
    }
  }

  #vnetHdrLength(port: number): number {
    const at = this.#target.port(port)
    return at !== null && 'vnetHdrLength' in at ? (at.vnetHdrLength as number) : 0
  }

  dropped(port: number, malformed: number, unknownGsoType: number, oversize: number): void {
    const base = port * COUNTERS_STRIDE
    this.#counters[base + COUNTERS.rx_drop_malformed] += malformed
    this.#counters[base + COUNTERS.rx_drop_gso_type] += unknownGsoType
    this.#counters[base + COUNTERS.rx_drop_oversize] += oversize
  }

  queueFailed(queue: TapQueue, errno: number): void {
    this.#target.portFailed(queue.port, errno)
  }
}
