/**
 * What the engine reads: the TAP queues that the tier has, and the ports that are asked once per turn.
 *
 * A port that is held is not read: what it has for the switch waits in its queues (a TAP's in the
 * kernel, a guest's in its rings), until the ports that it is to meet are there.
 */
import type { IoTier, TapQueue } from '../io/tier.ts'
import type { EnginePort, PolledPort } from '../port/contract.ts'
import { isPolled, queuesOf } from '../port/contract.ts'

export class Intake {
  /** In the order in which they are asked. */
  readonly polled: PolledPort[] = []
  readonly #tier: () => IoTier
  readonly #drain: (isBusy: () => boolean) => void
  readonly #held = new Set<number>()
  /** Held ports that would be asked. */
  readonly #waiting: PolledPort[] = []

  /** `drain` runs turns while there is something to wait for. */
  constructor(tier: () => IoTier, drain: (isBusy: () => boolean) => void) {
    this.#tier = tier
    this.#drain = drain
  }

  isHeld(index: number): boolean {
    return this.#held.has(index)
  }

  /** Those that have memory which may be taken away, held ones among them. */
  get withMemory(): readonly PolledPort[] {
    return [...this.polled, ...this.#waiting]
  }

  /** All of its queues are read, or it is closed and none is: its descriptors are about to be closed. */
  read(port: EnginePort): void {
    if (this.isHeld(port.index)) return
    try {
      for (const queue of queuesOf(port)) this.#add(queue)
    } catch (error) {
      this.endReads(queuesOf(port))
      port.close()
      throw error
    }
  }

  /** It is asked in each turn, if it is one that is. */
  ask(port: EnginePort): void {
    if (!isPolled(port)) return
    if (this.isHeld(port.index)) this.#waiting.push(port)
    else this.polled.push(port)
  }

  /** Neither read nor asked any more; the number's next port is held if this one was. */
  stop(index: number, queues: readonly TapQueue[]): void {
    this.endReads(queues)
    for (const list of [this.polled, this.#waiting]) {
      const at = list.findIndex((port) => port.index === index)
      if (at >= 0) list.splice(at, 1)
    }
  }

  /** The number's next port is held from its start on. */
  holdNext(index: number): void {
    this.#held.add(index)
  }

  /** What was read before is forwarded still. */
  hold(port: EnginePort): void {
    if (this.isHeld(port.index)) return
    this.stop(port.index, queuesOf(port))
    this.#held.add(port.index)
    this.ask(port)
  }

  /** When a queue cannot be read this throws, and the port is held again. */
  release(port: EnginePort): void {
    const { index } = port
    if (!this.#held.delete(index)) return
    try {
      for (const queue of queuesOf(port)) this.#add(queue)
    } catch (error) {
      this.endReads(queuesOf(port))
      this.#held.add(index)
      throw error
    }
    const at = this.#waiting.findIndex((waiting) => waiting.index === index)
    if (at >= 0) this.polled.push(...this.#waiting.splice(at, 1))
  }

  /** The port is gone, and with it that it was held. */
  forget(index: number): void {
    this.#held.delete(index)
  }

  #add(queue: TapQueue): void {
    if (queue.isAttached && queue.failure === 0) this.#tier().addQueue(queue)
  }

  /** What was read before has been delivered, all writes are done, and no read is under way. */
  endReads(queues: readonly TapQueue[]): void {
    for (const queue of queues) if (queue.id >= 0) this.#tier().removeQueue(queue)
    this.#drain(() => queues.some((queue) => queue.isReading))
  }

  /** Runs a change between two reads of these queues; those attached after it are read again. */
  withoutReading(queues: readonly TapQueue[], change: () => void): void {
    this.endReads(queues)
    change()
    for (const queue of queues) if (!this.isHeld(queue.port)) this.#add(queue)
  }
}
