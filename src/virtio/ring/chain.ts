/**
 * One descriptor chain, translated: segments in windows of the guest's memory, the readable ones
 * first. There is one per port; a queue fills it and it is used up before the next is taken.
 */
import type { GuestMemory } from '../../mem/guest-memory.ts'
import { Window } from '../../mem/window.ts'
import { COPY_ROW_INTS, shim } from '../../native/shim.ts'

const TWO_32 = 4294967296

/** Segments of one chain. A chain that has more breaks its queue. */
export const CHAIN_SEGMENTS_MAX = 1024

/** Bytes of the longest indirect table, which is copied behind the row that copies it. */
const TABLE_LENGTH: number = CHAIN_SEGMENTS_MAX * 16
const TABLE_AT = 64

export class Chain {
  /**
   * It is of a queue whose device only reads, where VIRTQ_DESC_F_WRITE says nothing: a packed transmitq.
   * DPDK leaves it set in the tables of one, and device sides take them as they are meant.
   */
  readonly isReadOnly: boolean
  /** Segments in use; the first `readable` are for the device to read, the others to write. */
  count = 0
  readable = 0
  /** Bytes of each kind; may exceed 2^32. */
  readableLength = 0
  writableLength = 0
  /** Descriptors that were read: those of no bytes are no segments. */
  descriptors = 0
  /** What `put` needs: the head (split) or buffer id (packed), and the ring entries taken (packed). */
  id = 0
  entries = 0
  readonly window: Int32Array = new Int32Array(CHAIN_SEGMENTS_MAX)
  readonly offset: Int32Array = new Int32Array(CHAIN_SEGMENTS_MAX)
  readonly length: Int32Array = new Int32Array(CHAIN_SEGMENTS_MAX)
  /** Guest-physical address, for the dirty log. */
  readonly address: Float64Array = new Float64Array(CHAIN_SEGMENTS_MAX)

  /** Where an indirect table is read to. */
  readonly #tables: Window
  /** The table of the last `readTable`. */
  readonly table: Int32Array
  readonly #row: Int32Array

  /** Throws SysError OUT_OF_MEMORY: here, and not at a driver's first indirect table. */
  constructor(isReadOnly = false) {
    this.isReadOnly = isReadOnly
    this.#tables = Window.map(TABLE_AT + TABLE_LENGTH)
    this.#row = new Int32Array(this.#tables.buffer, 0, COPY_ROW_INTS)
    this.table = new Int32Array(this.#tables.buffer, TABLE_AT)
  }

  /**
   * Copies the indirect table that `memory.locate` has found, at most CHAIN_SEGMENTS_MAX descriptors,
   * into `table`. What is checked there is what is used.
   * @hot
   */
  readTable(memory: GuestMemory, length: number): void {
    const { id } = this.#tables
    const row = this.#row
    row[0] = memory.window
    row[1] = memory.offset
    row[2] = id
    row[3] = TABLE_AT
    row[4] = length
    if (shim.copyRows(id, 0, 1) !== 1) throw new RangeError('indirect table')
  }

  close(): void {
    this.#tables.unmap()
  }

  /** @hot */
  clear(): void {
    this.count = 0
    this.readable = 0
    this.readableLength = 0
    this.writableLength = 0
    this.descriptors = 0
  }

  /**
   * Appends a buffer of `length` bytes at a guest address, as one segment for each piece of memory
   * it lies in. The address is in two halves: a call that is not inlined would box it. Returns 0 or the reason (a BROKEN_* of device-queue.ts) why it cannot be.
   * @hot
   */
  add(memory: GuestMemory, low: number, high: number, length: number, isWritable: boolean): number {
    if (isWritable) this.writableLength += length
    else if (this.count > this.readable) return BROKEN_ORDER
    else this.readableLength += length
    let left = length
    let from = (high >>> 0) * TWO_32 + (low >>> 0)
    while (left > 0) {
      if (this.count === CHAIN_SEGMENTS_MAX) return BROKEN_CHAIN_LENGTH
      if (!memory.locate(from | 0, (from / TWO_32) | 0)) return BROKEN_ADDRESS
      const part = left < memory.room ? left : memory.room
      const at = this.count
      this.window[at] = memory.window
      this.offset[at] = memory.offset
      this.length[at] = part
      this.address[at] = from
      this.count = at + 1
      if (!isWritable) this.readable = at + 1
      left -= part
      from += part
    }
    return 0
  }
}

/** Why a queue is broken: what its driver did. 0: it is not. */
export const BROKEN_INDEX = 1
export const BROKEN_AVAIL_STEP = 2
export const BROKEN_LOOP = 3
export const BROKEN_CHAIN_LENGTH = 4
export const BROKEN_ADDRESS = 5
export const BROKEN_INDIRECT = 6
export const BROKEN_ORDER = 7
export const BROKEN_EMPTY = 8

export const BROKEN_TEXT: readonly string[] = [
  '',
  'descriptor index beyond the table',
  'more chains made available than the queue has',
  'descriptor chain longer than the queue, or a loop',
  'descriptor chain of too many segments',
  'buffer outside the guest’s memory',
  'malformed indirect table',
  'readable buffer behind a writable one',
  'chain without a buffer of the right kind',
]
