/**
 * The provided-buffer ring of an engine: the free slots of its frame pool, from which the kernel
 * takes one for every frame that a multishot read delivers. One group serves all TAPs.
 * Source: io_uring_register(2), IORING_REGISTER_PBUF_RING; struct io_uring_buf_ring.
 */
import {
  BUF_LENGTH,
  BUF_REG_LENGTH,
  BUF_RING_TAIL_U16,
  BUF_WORDS,
  IORING_REGISTER_PBUF_RING,
  IORING_UNREGISTER_PBUF_RING,
} from '../abi/io-uring.ts'
import { errnoName, SysError } from '../errors.ts'
import { FramePool, SLOT_CAPACITY, SLOT_HEADROOM, SLOT_STRIDE } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'

export const BUFFER_GROUP = 0

const TWO_32 = 4294967296

export class BufferRing {
  readonly #uringFd: number
  readonly #window: Window
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #mask: number
  readonly #dataAt: number
  #tail = 0

  /** Registers a ring of `pool.slots` (a power of two) entries and fills it with all slots. */
  constructor(uringFd: number, pool: FramePool) {
    this.#uringFd = uringFd
    this.#mask = pool.slots - 1
    this.#dataAt = pool.window.address + SLOT_HEADROOM
    this.#window = Window.map(pool.slots * BUF_LENGTH)
    this.#words = new Int32Array(this.#window.buffer)
    this.#halfWords = new Uint16Array(this.#window.buffer)
    const result = registerBufferRing(uringFd, this.#window.address, pool.slots)
    if (result < 0) {
      this.#window.unmap()
      throw new SysError('IO_URING_UNAVAILABLE', `PBUF_RING: ${errnoName(result)}`, {
        syscall: 'io_uring_register',
        errno: -result,
      })
    }
    for (let slot = 0; slot < pool.slots; slot++) this.add(slot)
    this.publish()
  }

  /**
   * Offers a slot to the kernel; visible to it after `publish`.
   * @hot
   */
  add(slot: number): void {
    const address = this.#dataAt + slot * SLOT_STRIDE
    const entry = (this.#tail & this.#mask) * BUF_WORDS
    const words = this.#words
    words[entry] = address | 0
    words[entry + 1] = (address / TWO_32) | 0
    words[entry + 2] = SLOT_CAPACITY
    this.#halfWords[(entry + 3) * 2] = slot
    this.#tail = (this.#tail + 1) & 0xffff
  }

  /** @hot */
  publish(): void {
    Atomics.store(this.#halfWords, BUF_RING_TAIL_U16, this.#tail)
  }

  close(): void {
    withBufReg(0, 0, (argument) =>
      shim.uringRegister(this.#uringFd, IORING_UNREGISTER_PBUF_RING, argument, 0, 1),
    )
    this.#window.unmap()
  }
}

function registerBufferRing(uringFd: number, address: number, entries: number): number {
  return withBufReg(address, entries, (argument) =>
    shim.uringRegister(uringFd, IORING_REGISTER_PBUF_RING, argument, 0, 1),
  )
}

/** Calls `use` with the number of a window that holds a struct io_uring_buf_reg. */
function withBufReg(address: number, entries: number, use: (window: number) => number): number {
  const argument = Window.map(BUF_REG_LENGTH)
  try {
    const view = new DataView(argument.buffer)
    view.setUint32(0, address >>> 0, true)
    view.setUint32(4, Math.floor(address / TWO_32), true)
    view.setUint32(8, entries, true)
    view.setUint16(12, BUFFER_GROUP, true)
    return use(argument.id)
  } finally {
    argument.unmap()
  }
}
