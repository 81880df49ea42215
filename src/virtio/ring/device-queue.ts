/**
 * The device side of a virtqueue, split or packed: takes descriptor chains that the driver made
 * available, and puts them back used. Both kinds have this face; the port (port/virtio/engine.ts) does
 * not know which it has.
 *
 *     take -> take -> ...  put -> put -> ...  publish
 *
 * What is put becomes visible to the driver with `publish`, in the order of `put`. A driver that
 * breaks the rules breaks its queue: `broken` says why, and nothing is taken any more.
 * Source: VIRTIO 1.3 §2.6 to §2.8.
 */
import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { Chain } from './chain.ts'
import type { DirtyLog } from './dirty-log.ts'
import type { Places, PlainKind } from './plain-chains.ts'

const TWO_32 = 4294967296

export interface DeviceQueue {
  readonly size: number
  /** A BROKEN_* of chain.ts, 0: it works. Set by the queue and by who finds a chain unusable. */
  broken: number
  /** The driver has made something available that was not taken yet; reads shared memory. @hot */
  hasChain(): boolean
  /** Takes the next chain. False: there is none, or it broke the queue. @hot */
  take(chain: Chain): boolean
  /**
   * Takes up to `most` chains that are a single buffer of a kind, in one piece of memory; where they
   * are goes into `places` from `at` on. Returns how many there were before the first that is another
   * kind or is wrong, which is left to `take`. Readable ones are put in the same step, of no bytes:
   * the driver has them back with the next `publish`.
   * @hot
   */
  takePlain(kind: PlainKind, places: Places, at: number, most: number): number
  /** Gives the last `chains` taken chains back untouched; none of them was put. @hot */
  untake(chains: number): void
  /** A taken chain is used, `length` bytes were written into it. @hot */
  put(id: number, entries: number, length: number): void
  /** Makes what was put visible. True: the driver asks to be called. @hot */
  publish(): boolean
  /** Asks the driver to kick for the next chain. True: there is one already. @hot */
  enableKick(): boolean
  /** The driver need not kick: the queue is polled. @hot */
  disableKick(): void
  /**
   * Notes the parts of the ring that we write. A split queue takes the address of its used ring
   * from the front-end, which may name another page for it; what a packed one writes is two parts,
   * of which it knows the guest-physical addresses itself.
   * @hot
   */
  logWritten(log: DirtyLog, usedAddress: number): void
  /** Where the queue stands, as GET_VRING_BASE tells it; every taken chain has been put. */
  base(): number
  /** Ends this thread's views of the ring. A second call does nothing. */
  close(): void
}

/** Where a ring is and where it stands. */
export interface RingPlace {
  /** Entries: a power of two up to 32768 (packed: any number up to that). */
  readonly size: number
  /** Addresses of descriptor table, avail ring (driver area) and used ring (device area). */
  readonly descriptorAddress: number
  readonly availAddress: number
  readonly usedAddress: number
  /**
   * Split: the next avail index, used index the same. Packed: avail index in bits 0-14, its wrap
   * counter in bit 15; the used position in bits 16-31 likewise.
   */
  readonly base: number
}

/** A queue to start. Addresses are the driver's own; -1 is no descriptor. */
export interface QueueSetup extends RingPlace {
  /** Guest-physical address at which writes to the used ring are logged; -1: they are not. */
  readonly logAddress: number
  /** eventfd on which the driver kicks; -1: it does not, the queue is polled. */
  readonly kickFd: number
  /** eventfd on which the driver is called; -1: it is not. CALL_BY_EVENT: the engine's owner is. */
  readonly callFd: number
}

export const CALL_BY_EVENT = -2

/** A ring in memory, at guest-physical addresses. */
export interface RingSetup extends RingPlace {
  readonly hasEventIdx: boolean
  readonly hasIndirect: boolean
}

/** Words and half words of a part of a ring, and where it starts in them. */
export interface RingPart {
  readonly buffer: ArrayBuffer
  readonly words: Int32Array
  readonly halfWords: Uint16Array
  readonly wordAt: number
  readonly halfWordAt: number
}

/** A view begins at a multiple of this, so that whatever stands in it is aligned as in the window. */
const VIEW_ALIGNMENT = 64

/**
 * The typed arrays of a part of a ring. Null: not in one region of the memory, or not aligned.
 * Alignment is checked for what is read: 4 bytes, and 2 for the avail ring.
 */
export function ringPart(
  memory: GuestMemory,
  address: number,
  length: number,
  alignment: number,
): RingPart | null {
  if (!memory.locate(address | 0, (address / TWO_32) | 0) || memory.room < length) return null
  if (memory.offset % alignment !== 0) return null
  const inside = memory.offset % VIEW_ALIGNMENT
  const buffer = memory.view(memory.window, memory.offset - inside, inside + length)
  return {
    buffer,
    words: new Int32Array(buffer, 0, buffer.byteLength >> 2),
    halfWords: new Uint16Array(buffer, 0, buffer.byteLength >> 1),
    wordAt: inside >> 2,
    halfWordAt: inside >> 1,
  }
}
