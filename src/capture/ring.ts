/**
 * The ring between the engine and the writer of one capture. It holds finished bytes of the file.
 *
 *     window (mapped twice, so nothing wraps):   |....tail#########head....|....#########....|
 *     control: Int32Array  [head, tail, stop, hold, writing]    counts: Float64Array [frames, dropped, ...]
 *
 * head and tail are bytes, free-running modulo 2^32. The engine stores head and never waits: what
 * does not fit is counted and lost. The writer stores tail. While the main thread has it held, nothing is
 * written, and tail stays where it is: another process can go on with the ring.
 */
import { StateError } from '../errors.ts'
import { Window } from '../mem/window.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { CaptureDirection, CaptureFormat } from './options.ts'

export const RING_HEAD = 0
export const RING_TAIL = 1
export const RING_STOP = 2
/** Values of the last: all is written, and the file completed; or nothing more, as another process goes on. */
export const STOP_COMPLETE = 1
export const STOP_LEAVE = 2
/** 1: the main thread wants nothing to be written. */
export const RING_HOLD = 3
/** 1: the writer writes, or has ended; it looks at the one before after it has said so. */
export const RING_WRITING = 4
const CONTROL_WORDS = 16

export const COUNT_FRAMES = 0
export const COUNT_DROPPED = 1
/** Interfaces that have a number. */
export const COUNT_INTERFACES = 2
/** The frame limit was reached. */
export const COUNT_COMPLETE = 3
/** Interfaces whose description is in the ring; the engine counts them. */
export const COUNT_DESCRIBED = 4
/** Bytes written; the writer counts them. */
export const COUNT_BYTES = 5
/** From here on two cells per interface: frames recorded, frames dropped. */
export const COUNT_PER_INTERFACE = 8
/** Interfaces of one capture: ports that come and go get a new one each. */
export const INTERFACES_MAX = 4096

/** Bytes between a stalled writer and loss; at 10 Gbit/s some 50 ms. A power of two. */
export const RING_LENGTH: number = 64 * 1024 * 1024

/** What another thread needs to use the ring. */
export interface CaptureRingHandle {
  readonly window: number
  readonly length: number
  readonly control: SharedArrayBuffer
  readonly counts: SharedArrayBuffer
  readonly format: CaptureFormat
  readonly direction: CaptureDirection
  readonly snapLength: number
  /** Frames after which it is complete; 0: no limit. */
  readonly countLimit: number
}

/** Of a ring that another release has made. */
const RING_LENGTH_MAX: number = 1 << 30

/**
 * The memory of a ring, with the descriptor by which another process has it, too. So much of it makes V8
 * collect garbage, which takes milliseconds.
 */
export class RingMemory {
  readonly window: Window
  /** A memfd. */
  readonly fd: number
  readonly length: number
  readonly #claim: FdClaim

  private constructor(fd: number, length: number) {
    this.window = Window.map(length, { fd, mirrored: true })
    this.fd = fd
    this.length = length
    this.#claim = claimFd(fd, 'it is the memory of a capture')
  }

  static create(): RingMemory {
    const fd = Window.createMemfd('framepump-capture', RING_LENGTH)
    return RingMemory.#owning(fd, RING_LENGTH)
  }

  /** Of another process. The descriptor is its own from the call on, also when it throws. */
  static of(fd: number): RingMemory {
    const length = shim.fileSize(fd)
    const isRing = length >= 4096 && length <= RING_LENGTH_MAX && (length & (length - 1)) === 0
    if (isRing) return RingMemory.#owning(fd, length)
    shim.close(fd)
    throw new StateError('HAND_OVER', `what came is no ring of a capture: ${length} bytes`)
  }

  static #owning(fd: number, length: number): RingMemory {
    try {
      return new RingMemory(fd, length)
    } catch (error) {
      shim.close(fd)
      throw error
    }
  }

  /** All other views of it are gone. */
  close(): void {
    this.#claim.end()
    this.window.unmap()
    shim.close(this.fd)
  }
}

/** `memory`: that is there already; the ring's with success. */
export function createCaptureRing(
  options: Pick<CaptureRingHandle, 'format' | 'direction' | 'snapLength' | 'countLimit'>,
  memory: RingMemory = RingMemory.create(),
): { readonly memory: RingMemory; readonly handle: CaptureRingHandle } {
  const handle: CaptureRingHandle = {
    window: memory.window.id,
    length: memory.length,
    control: new SharedArrayBuffer(CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT),
    counts: new SharedArrayBuffer(
      (COUNT_PER_INTERFACE + 2 * INTERFACES_MAX) * Float64Array.BYTES_PER_ELEMENT,
    ),
    ...options,
  }
  return { memory, handle }
}
