/**
 * A memory port as the control plane keeps it, and its outside: frames come from and go to the program
 * that uses the library.
 */
import { ConfigError, StateError } from '../../errors.ts'
import { SLOT_CAPACITY } from '../../mem/frame-pool.ts'
import { Window } from '../../mem/window.ts'
import { COPY_ROW_INTS, shim } from '../../native/shim.ts'
import { ETHER_HEADER_LENGTH } from '../../wire/ethernet.ts'
import type { MemoryPort } from '../api.ts'
import type { ControlPort, PortFacts } from '../control-port.ts'
import { DevicelessPort } from '../deviceless.control.ts'
import type { MemoryOptions } from '../options.ts'
import type { MemoryDescription } from './messages.ts'
import { MemoryRing, RING_SLOTS } from './ring.ts'

/** Longest frame: 64 KiB of payload, Ethernet header. */
export const MEMORY_FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH

/** Bytes at the beginning of a frame that the engine looks at. */
const HEAD_LENGTH = 16
/** Where the frame of a stage begins. */
const STAGE_AT = 64

export class MemoryControlPort extends DevicelessPort implements ControlPort {
  readonly txOffloads = 0
  readonly memoryPort: MemoryEndpoint
  readonly description: MemoryDescription

  constructor(options: MemoryOptions, wake: () => void) {
    super()
    const { inward, outward } = MemoryRing.createPair()
    try {
      this.memoryPort = new MemoryEndpoint(options.id, inward, outward, wake)
    } catch (error) {
      for (const { window } of [inward, outward]) window.unmap()
      throw error
    }
    this.description = { kind: 'memory', inward: inward.handle, outward: outward.handle }
  }

  facts(): PortFacts {
    return {}
  }

  close(): Promise<void> {
    this.memoryPort.close()
    return Promise.resolve()
  }
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
