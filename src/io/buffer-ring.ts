/**
 * The provided-buffer ring of an engine: the free slots of its frame pool, from which the kernel
 * takes one for every frame that a multishot read delivers. One group serves all TAPs.
 *
 * The kernel takes slots in turn, so all that are on offer pass through the cache. Only as many as
 * the traffic needs are in rotation: a shortage doubles them, a long time without one halves them. And no
 * more than stay in the cache with frames of the present length: TCP with 64 KiB frames takes 0.85 of the CPU
 * with 16 slots instead of 32 (EPYC with 512 KiB of second-level cache). With 8 a turn in six ran out of
 * them, which gave it all back.
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
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { FramePool, SLOT_CAPACITY, SLOT_HEADROOM, SLOT_STRIDE } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'

export const BUFFER_GROUP = 0

const TWO_32 = 4294967296
const ROTATION_MIN = 16
/** What the frames in them may add up to: servers have 512 KiB to 2 MiB of second-level cache. */
const ROTATION_BYTES = 1024 * 1024
/** Turns without a shortage after which half of the slots rest. */
const PLENTY_TURNS = 16384

export class BufferRing {
  readonly #uringFd: number
  readonly #window: Window
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #mask: number
  readonly #dataAt: number
  readonly #slots: number
  #tail = 0
  /** Slots that rest, the last one put there is the first to come back. */
  readonly #resting: Int32Array
  #restingCount = 0
  /** Slots that are with the kernel or in a burst should be so many. */
  #rotation: number
  /** They may be so many. */
  #most: number
  /** Bytes of a frame, on the average of the last turn that had some. */
  #frameLength = 0
  #turns = 0

  /** Registers a ring of `pool.slots` (a power of two) entries and offers the first slots. */
  constructor(uringFd: number, pool: FramePool) {
    this.#uringFd = uringFd
    this.#slots = pool.slots
    this.#mask = pool.slots - 1
    this.#resting = new Int32Array(pool.slots)
    this.#rotation = Math.min(ROTATION_MIN, pool.slots)
    this.#most = pool.slots
    this.#dataAt = pool.window.address + SLOT_HEADROOM
    this.#window = Window.map(pool.slots * BUF_LENGTH)
    this.#words = new Int32Array(this.#window.buffer)
    this.#halfWords = new Uint16Array(this.#window.buffer)
    const result = registerBufferRing(uringFd, this.#window.address, pool.slots)
    if (result < 0) {
      this.#window.unmap()
      throw new SysError('IO_URING_UNAVAILABLE', `PBUF_RING: ${strerror(-result)}`, {
        syscall: 'io_uring_register',
        errno: -result,
      })
    }
    for (let slot = pool.slots - 1; slot >= 0; slot--) this.#resting[this.#restingCount++] = slot
    this.#wake()
  }

  get rotation(): number {
    return this.#rotation
  }

  /**
   * Takes back the first `count` of `slots`, at least one, which nobody uses any more. Their frames had
   * `bytes` altogether.
   * @hot
   */
  giveBack(slots: Int32Array, count: number, bytes: number): void {
    this.#frameLength = (bytes / count) | 0
    const isPlenty = ++this.#turns === PLENTY_TURNS
    if (isPlenty) this.#turns = 0
    if (
      this.#rotation > ROTATION_MIN &&
      (isPlenty || this.#rotation * this.#frameLength > ROTATION_BYTES)
    )
      this.#rotation >>= 1
    let at = 0
    let excess = this.#slots - this.#restingCount - this.#rotation
    for (; at < count && excess > 0; excess--) this.#resting[this.#restingCount++] = slots[at++]
    for (; at < count; at++) this.#add(slots[at])
    this.#publish()
  }

  /** The kernel found no slot for a frame: there will be more, as long as they stay in the cache. */
  widen(): void {
    this.#turns = 0
    if (2 * this.#rotation * this.#frameLength > ROTATION_BYTES) return
    this.#rotation = Math.min(2 * this.#rotation, this.#most)
    this.#wake()
  }

  /** From now on so many are in rotation at most; those that are too many rest when they come back. */
  limit(most: number): void {
    this.#most = Math.max(1, Math.min(most, this.#slots))
    this.#rotation = Math.min(this.#rotation, this.#most)
  }

  /** Offers resting slots until as many are in rotation as should be. */
  #wake(): void {
    while (this.#slots - this.#restingCount < this.#rotation) {
      this.#add(this.#resting[--this.#restingCount])
    }
    this.#publish()
  }

  /** Offers a slot to the kernel; visible to it after `#publish`. @hot */
  #add(slot: number): void {
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
  #publish(): void {
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
