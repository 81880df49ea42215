/**
 * A memory port: frames come from and go to the program that uses the library. The engine's half
 * (MemoryEnginePort) and the caller's half (MemoryEndpoint) share two rings.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, ZEROS_BEFORE } from '../mem/burst.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import { SLOT_CAPACITY } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { COPY_ROW_INTS, shim } from '../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { ETHER_HEADER_LENGTH } from '../wire/ethernet.ts'
import { ConfigError, StateError } from '../errors.ts'
import { MemoryRing, RING_SLOTS } from './memory-ring.ts'
import type { PolledPort } from './port.ts'

/** Longest frame: 64 KiB of payload, Ethernet header. */
export const MEMORY_FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH

/** Bytes at the beginning of a frame that the engine looks at. */
const HEAD_LENGTH = 16
/** Where the frame of a stage begins. */
const STAGE_AT = 64

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
    burst.furtherTotal = 0
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

/** The outside of a `memory` port. */
export interface MemoryPort {
  readonly id: string
  /** Hands a frame (L2 bytes without FCS, 14..65549) to the switch. False: ring full, not taken. */
  send(frame: Uint8Array): boolean
  /** The oldest frame that the switch gave to this port, as a copy; null when there is none. */
  receive(): Uint8Array | null
  /** Resolves with the next frame. */
  next(options?: { readonly signal?: AbortSignal }): Promise<Uint8Array>
}

export class MemoryEndpoint implements MemoryPort {
  readonly id: string
  readonly inward: MemoryRing
  readonly outward: MemoryRing
  readonly #wake: () => void
  /** A frame on its way into a ring or out of it, behind the row that moves it. */
  readonly #stage: Window = Window.map(STAGE_AT + SLOT_CAPACITY)
  readonly #row: Int32Array = new Int32Array(this.#stage.buffer, 0, COPY_ROW_INTS)
  readonly #bytes: Uint8Array = new Uint8Array(this.#stage.buffer, STAGE_AT)
  #isClosed = false

  /** `wake` is called when the engine may sleep and there is something for it. */
  constructor(id: string, inward: MemoryRing, outward: MemoryRing, wake: () => void) {
    this.id = id
    this.inward = inward
    this.outward = outward
    this.#wake = wake
  }

  send(frame: Uint8Array): boolean {
    this.#assertOpen()
    if (frame.length < ETHER_HEADER_LENGTH || frame.length > MEMORY_FRAME_LENGTH_MAX) {
      throw new ConfigError(
        'FRAME_LENGTH',
        `a frame has ${ETHER_HEADER_LENGTH} to ${MEMORY_FRAME_LENGTH_MAX} bytes, not ${frame.length}`,
      )
    }
    const ring = this.inward
    const head = ring.head()
    if (((head - ring.tail()) | 0) >= RING_SLOTS) return false
    this.#bytes.set(frame)
    // The engine looks at the first bytes together: leave nothing of an older frame there.
    if (frame.length < HEAD_LENGTH) this.#bytes.fill(0, frame.length, HEAD_LENGTH)
    const length = Math.max(frame.length, HEAD_LENGTH)
    this.#move(this.#stage.id, STAGE_AT, ring.window.id, ring.offset(head), length)
    ring.setLength(head, frame.length)
    ring.publish((head + 1) | 0)
    this.#wake()
    return true
  }

  receive(): Uint8Array | null {
    this.#assertOpen()
    const ring = this.outward
    const tail = ring.tail()
    if (ring.head() === tail) return null
    const length = ring.length(tail)
    this.#move(ring.window.id, ring.offset(tail), this.#stage.id, STAGE_AT, length)
    ring.release((tail + 1) | 0)
    return this.#bytes.slice(0, length)
  }

  #move(window: number, offset: number, toWindow: number, toOffset: number, length: number): void {
    this.#row.set([window, offset, toWindow, toOffset, length])
    if (shim.copyRows(this.#stage.id, 0, 1) !== 1) throw new RangeError('slot of a memory port')
  }

  async next(options: { readonly signal?: AbortSignal } = {}): Promise<Uint8Array> {
    const { signal } = options
    for (;;) {
      signal?.throwIfAborted()
      const seen = this.outward.head()
      const frame = this.receive()
      if (frame !== null) return frame
      await abortable(this.outward.changed(seen), signal)
    }
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new StateError('PORT_CLOSED', `port "${this.id}" is closed`)
  }

  /** After the engine let go of the port: readers that wait are woken, the memory is unmapped. */
  close(): void {
    this.#isClosed = true
    this.outward.publish((this.outward.head() + 1) | 0)
    this.#stage.unmap()
    this.inward.window.unmap()
    this.outward.window.unmap()
  }
}

function abortable(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    void promise.then(() => {
      signal.removeEventListener('abort', abort)
      resolve()
    })
  })
}
