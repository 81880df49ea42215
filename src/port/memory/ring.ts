/**
 * One direction of a memory port: frames from one thread to another, oldest first.
 *
 *     slots:  a window of RING_SLOTS slots (mem/frame-pool.ts's shape: zero headroom, then the frame),
 *             hidden: a thousand ports have 36 GB of them, most of it never touched
 *     index:  shared Int32Array  [head, tail, length of slot 0, 1, 2 ...]
 *
 * head and tail run free modulo 2^32; the producer stores head, the consumer stores tail. Exactly
 * one thread is the producer and one the consumer.
 */
import { SLOT_HEADROOM, SLOT_STRIDE } from '../../mem/frame-pool.ts'
import { HiddenWindow } from '../../mem/window.ts'

export const RING_SLOTS = 256

const HEAD = 0
const TAIL = 1
const LENGTHS = 2

/** What a thread needs to view a ring that another one made. */
export interface MemoryRingHandle {
  readonly window: number
  readonly index: SharedArrayBuffer
}

export class MemoryRing {
  readonly window: HiddenWindow
  readonly index: Int32Array

  constructor(window: HiddenWindow, index: SharedArrayBuffer) {
    this.window = window
    this.index = new Int32Array(index)
  }

  static create(): MemoryRing {
    const index = new SharedArrayBuffer((LENGTHS + RING_SLOTS) * Int32Array.BYTES_PER_ELEMENT)
    return new MemoryRing(HiddenWindow.map(RING_SLOTS * SLOT_STRIDE), index)
  }

  /** Both directions of a port, or none. */
  static createPair(): { inward: MemoryRing; outward: MemoryRing } {
    const inward = MemoryRing.create()
    try {
      return { inward, outward: MemoryRing.create() }
    } catch (error) {
      inward.window.unmap()
      throw error
    }
  }

  static view(handle: MemoryRingHandle): MemoryRing {
    return new MemoryRing(HiddenWindow.of(handle.window), handle.index)
  }

  get handle(): MemoryRingHandle {
    return { window: this.window.id, index: this.index.buffer as SharedArrayBuffer }
  }

  /** @hot */
  head(): number {
    return Atomics.load(this.index, HEAD)
  }

  /** @hot */
  tail(): number {
    return Atomics.load(this.index, TAIL)
  }

  /** Publishes the slots before `head` to the consumer. @hot */
  publish(head: number): void {
    Atomics.store(this.index, HEAD, head)
    Atomics.notify(this.index, HEAD)
  }

  /** Returns the slots before `tail` to the producer. @hot */
  release(tail: number): void {
    Atomics.store(this.index, TAIL, tail)
  }

  /** Offset of the first frame byte of the slot at a free-running position. @hot */
  offset(position: number): number {
    return (position & (RING_SLOTS - 1)) * SLOT_STRIDE + SLOT_HEADROOM
  }

  /** @hot */
  length(position: number): number {
    return this.index[LENGTHS + (position & (RING_SLOTS - 1))]
  }

  /** @hot */
  setLength(position: number, length: number): void {
    this.index[LENGTHS + (position & (RING_SLOTS - 1))] = length
  }

  /** Resolves when head is no longer `seen`. */
  async changed(seen: number): Promise<void> {
    const wait = Atomics.waitAsync(this.index, HEAD, seen)
    if (wait.async) await wait.value
  }
}
