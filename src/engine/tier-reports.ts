/** What the I/O tier tells of single frames and queues, handed to the port whose they are. */
import type { TapQueue, TierEvents } from '../io/tier.ts'
import type { EnginePort } from '../port/contract.ts'
import type { PortFailure } from '../port/messages.ts'

export interface TierReportsTarget {
  port(index: number): EnginePort | null
  /** The port cannot go on: frames for it and from it are dropped. */
  portFailed(index: number, failure: PortFailure): void
}

export class TierReports implements TierEvents {
  readonly #target: TierReportsTarget

  constructor(target: TierReportsTarget) {
    this.#target = target
  }

  writeFailed(port: number, length: number, errno: number): void {
    const isGone = this.#target.port(port)?.writeFailed?.(length, errno)
    if (isGone === true) this.#interfaceDeleted(port, errno)
  }

  dropped(port: number, malformed: number, unknownGsoType: number, oversize: number): void {
    this.#target.port(port)?.dropped?.(malformed, unknownGsoType, oversize)
  }

  queueFailed(queue: TapQueue, errno: number): void {
    this.#interfaceDeleted(queue.port, errno)
  }

  /** What the tier has of a port, queues and sockets, ends with their interface and not before. */
  #interfaceDeleted(port: number, errno: number): void {
    this.#target.portFailed(port, { what: 'interface-deleted', errno })
  }
}
