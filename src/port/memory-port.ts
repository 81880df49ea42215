/**
 * A memory port: frames come from and go to the program that uses the library. The engine's half
 * (MemoryEnginePort) and the caller's half (MemoryEndpoint) share two rings.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS, ZEROS_BEFORE } from '../mem/burst.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import type { MemoryPort } from '../switch/api.ts'
import { ETHER_HEADER_LENGTH } from '../wire/ethernet.ts'
import { ConfigError, StateError } from '../errors.ts'
import { MemoryRing, RING_SLOTS } from './memory-ring.ts'
import type { PolledPort } from './port.ts'

/** Longest frame: 64 KiB of payload, Ethernet header. */
export const MEMORY_FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH

export class MemoryEnginePort implements PolledPort {
  readonly index: number
  readonly rxQueues = 1
  readonly rxQueue = 0
  readonly txOffloads = 0

  readonly #inward: MemoryRing
  readonly #outward: MemoryRing
  readonly #words: Int32Array
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
    this.#words = new Int32Array(inward.window.buffer)
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
      const offset = ring.offset(position)
      burst.window[k] = window
      burst.offset[k] = offset
      burst.length[k] = ring.length(position)
      burst.headLength[k] = ZEROS_BEFORE
      const word = offset >> 2
      const head = k * HEAD_WORDS
      burst.heads[head] = this.#words[word]!
      burst.heads[head + 1] = this.#words[word + 1]!
      burst.heads[head + 2] = this.#words[word + 2]!
      burst.heads[head + 3] = this.#words[word + 3]!
    }
    burst.count = count
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

  close(): void {
    this.#inward.window.detach()
    this.#outward.window.detach()
  }
}

export class MemoryEndpoint implements MemoryPort {
  readonly id: string
  readonly inward: MemoryRing
  readonly outward: MemoryRing
  readonly #wake: () => void
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
    const offset = ring.offset(head)
    ring.bytes.set(frame, offset)
    // The engine reads the first 16 bytes as words: leave nothing of an older frame there.
    if (frame.length < 16) ring.bytes.fill(0, offset + frame.length, offset + 16)
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
    const offset = ring.offset(tail)
    const frame = ring.bytes.slice(offset, offset + ring.length(tail))
    ring.release((tail + 1) | 0)
    return frame
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
