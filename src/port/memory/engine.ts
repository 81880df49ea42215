/** A memory port as the engine sees it: it shares two rings with the caller's half (memory/control.ts). */
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX, ZEROS_BEFORE } from '../../mem/burst.ts'
import type { CopyProgram } from '../../mem/copy-program.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../stats/counters.ts'
import type { MemoryDescription } from './messages.ts'
import { MemoryRing, RING_SLOTS } from './ring.ts'
import type { EngineKind, PolledPort } from '../contract.ts'

export const memoryKind: EngineKind<MemoryDescription> = {
  make({ inward, outward }, { index }, { copies, counters }) {
    const rings = [MemoryRing.view(inward), MemoryRing.view(outward)] as const
    return new MemoryEnginePort(index, ...rings, copies, counters)
  },
}

export class MemoryEnginePort implements PolledPort {
  readonly index: number
  readonly rxQueues = 1
  readonly rxQueue = 0
  readonly txOffloads = 0

  readonly #inward: MemoryRing
  readonly #outward: MemoryRing
  readonly #copies: CopyProgram
  readonly #counters: Float64Array
  readonly #counterBase: number
  /** Positions up to which we took inward frames, and wrote outward ones. */
  #taken: number
  #written: number

  constructor(
    index: number,
    inward: MemoryRing,
    outward: MemoryRing,
    copies: CopyProgram,
    counters: Float64Array,
  ) {
    this.index = index
    this.#inward = inward
    this.#outward = outward
    this.#copies = copies
    this.#counters = counters
    this.#counterBase = index * COUNTERS_STRIDE
    this.#taken = inward.tail()
    this.#written = outward.head()
  }

  /** @hot */
  receive(burst: Burst): number {
    burst.clear()
    const ring = this.#inward
    const waiting = (ring.head() - this.#taken) | 0
    const count = waiting < BURST_SIZE_MAX ? waiting : BURST_SIZE_MAX
    const window = ring.window.id
    for (let k = 0; k < count; k++) {
      const position = (this.#taken + k) | 0
      burst.window[k] = window
      burst.offset[k] = ring.offset(position)
      burst.length[k] = ring.length(position)
      burst.headLength[k] = ZEROS_BEFORE
    }
    burst.count = count
    if (count > 0) burst.gatherHeads()
    burst.clearOffloads()
    this.#taken = (this.#taken + count) | 0
    return count
  }

  /** @hot */
  release(): void {
    this.#inward.release(this.#taken)
  }

  /** @hot */
  waitUs(): number {
    return this.#inward.head() === this.#taken ? -1 : 0
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number): void {
    const ring = this.#outward
    const room = RING_SLOTS - ((this.#written - ring.tail()) | 0)
    const taken = count < room ? count : room
    const window = ring.window.id
    let bytes = 0
    for (let at = first; at < first + taken; at++) {
      const k = list[at]
      const length = burst.length[k]
      this.#copies.addFrame(burst, k, window, ring.offset(this.#written), length)
      ring.setLength(this.#written, length)
      this.#written = (this.#written + 1) | 0
      bytes += length
    }
    const base = this.#counterBase
    this.#counters[base + COUNTERS.tx_frames] += taken
    this.#counters[base + COUNTERS.tx_bytes] += bytes
    this.#counters[base + COUNTERS.tx_drop_full] += count - taken
  }

  /** The copies have run: the reader may see them. @hot */
  endTurn(): void {
    this.#outward.publish(this.#written)
  }

  /** The memory is the endpoint's. */
  close(): void {
    this.#inward.window.detach()
    this.#outward.window.detach()
  }
}
