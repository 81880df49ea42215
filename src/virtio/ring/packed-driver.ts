/**
 * A packed virtqueue, driver side. Ids come from a stack; which entries a chain has is remembered
 * here and not read back from shared memory.
 *
 *          being used by the device     free
 *     ----|---------------------------|------
 *      #usedNext                    #next
 *
 * Source: VIRTIO 1.3 §2.8.
 */
import {
  DESC_ADDR,
  DESC_LEN,
  DESC_WORDS,
  EVENT_SUPPRESSION_LENGTH,
  PACKED_DESC_ID_FLAGS,
  PACKED_DESC_LENGTH,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_AVAIL_BIT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED_BIT,
  VIRTQ_DESC_F_WRITE,
} from '../../abi/virtio-ring.ts'
import type { DriverQueue, DriverSetup, RingLayout } from './driver-queue.ts'
import { alignUp } from './driver-queue.ts'
import { EVENT_WRAP_BIT, isNotified } from './packed-event.ts'

const TWO_32 = 4294967296
const AVAIL_MASK: number = 1 << VIRTQ_DESC_F_AVAIL_BIT
const USED_MASK: number = 1 << VIRTQ_DESC_F_USED_BIT

/** The base of a ring that no one has used: both wrap counters are 1. */
export const PACKED_BASE_INITIAL = 0x80008000

/** The ring of a queue of `size` entries, with indirect tables of `tableEntries` descriptors. */
export function packedLayout(size: number, tableEntries: number): RingLayout {
  const availOffset = size * PACKED_DESC_LENGTH
  const usedOffset = availOffset + EVENT_SUPPRESSION_LENGTH
  const tableOffset = alignUp(usedOffset + EVENT_SUPPRESSION_LENGTH, PACKED_DESC_LENGTH)
  const length = tableOffset + size * tableEntries * PACKED_DESC_LENGTH
  return { descriptorOffset: 0, availOffset, usedOffset, tableOffset, length }
}

export class PackedDriver implements DriverQueue {
  readonly size: number
  free: number
  isBroken = false
  usedLength = 0

  readonly #hasEventIdx: boolean
  readonly #tableEntries: number
  /** All parts of the ring lie in one buffer. */
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #ringAt: number
  readonly #driverEventAt: number
  readonly #deviceEventAt: number
  readonly #tablesAt: number
  /** Address of the table of each id: low and high half. */
  readonly #tableAddresses: Int32Array
  /** Ids that no chain has: a stack of #idCount. */
  readonly #ids: Uint16Array
  #idCount: number
  /** Ring entries of the chain with this id; 0: there is none. */
  readonly #entries: Uint16Array
  /** Next entry that we fill, and the next that the device uses, each with its wrap counter. */
  #next = 0
  #wrap = 1
  #usedNext = 0
  #usedWrap = 1
  /** What was committed since the last `publish`: first entry, its wrap counter, flags; entries. */
  #first = 0
  #firstWrap = 0
  #firstFlags = 0
  #unpublished = 0
  /** The chain being made: its id, ring entries, buffers to come, next descriptor in a table. */
  #id = 0
  #chainEntries = 0
  #left = 0
  #tableAt = 0

  /** Clears the memory of the ring: the device attaches afterwards, with PACKED_BASE_INITIAL. */
  constructor(setup: DriverSetup) {
    const { size, memory, tableEntries } = setup
    const layout = packedLayout(size, tableEntries)
    const { buffer, offset } = memory
    new Uint8Array(buffer, offset, layout.length).fill(0)
    this.size = size
    this.free = size
    this.#hasEventIdx = setup.hasEventIdx
    this.#tableEntries = tableEntries
    this.#words = new Int32Array(buffer, 0, buffer.byteLength >> 2)
    this.#halfWords = new Uint16Array(buffer, 0, buffer.byteLength >> 1)
    this.#ringAt = (offset + layout.descriptorOffset) >> 2
    this.#driverEventAt = (offset + layout.availOffset) >> 2
    this.#deviceEventAt = (offset + layout.usedOffset) >> 2
    this.#tablesAt = (offset + layout.tableOffset) >> 2
    this.#tableAddresses = new Int32Array(2 * size)
    for (let id = 0; id < size; id++) {
      const table =
        memory.guestAddress + layout.tableOffset + id * tableEntries * PACKED_DESC_LENGTH
      this.#tableAddresses[2 * id] = table
      this.#tableAddresses[2 * id + 1] = table / TWO_32
    }
    this.#ids = Uint16Array.from({ length: size }, (_, at) => size - 1 - at)
    this.#idCount = size
    this.#entries = new Uint16Array(size)
  }

  /** @hot */
  begin(count: number, isIndirect: boolean): boolean {
    const isInTable = isIndirect && count <= this.#tableEntries
    if ((isInTable ? 1 : count) > this.free || this.isBroken) return false
    const id = this.#ids[--this.#idCount]
    this.#id = id
    this.#chainEntries = 0
    this.#left = count
    this.#tableAt = 0
    if (isInTable) {
      const table = id * this.#tableEntries
      this.#tableAt = this.#tablesAt + table * DESC_WORDS
      const low = this.#tableAddresses[2 * id]
      const high = this.#tableAddresses[2 * id + 1]
      this.#writeEntry(low, high, count * PACKED_DESC_LENGTH, VIRTQ_DESC_F_INDIRECT)
    }
    return true
  }

  /** @hot */
  add(address: number, length: number, isWritable: boolean): void {
    this.addHalves(address | 0, (address / TWO_32) | 0, length, isWritable)
  }

  /** @hot */
  addHalves(low: number, high: number, length: number, isWritable: boolean): void {
    const left = --this.#left
    const flags = isWritable ? VIRTQ_DESC_F_WRITE : 0
    if (this.#tableAt === 0) {
      this.#writeEntry(low, high, length, left > 0 ? flags | VIRTQ_DESC_F_NEXT : flags)
      return
    }
    const at = this.#tableAt
    this.#writeBuffer(at, low, high, length)
    this.#words[at + PACKED_DESC_ID_FLAGS] = flags << 16
    this.#tableAt = at + DESC_WORDS
  }

  /** @hot */
  #writeBuffer(at: number, low: number, high: number, length: number): void {
    this.#words[at + DESC_ADDR] = low
    this.#words[at + DESC_ADDR + 1] = high
    this.#words[at + DESC_LEN] = length
  }

  /** @hot */
  #writeEntry(low: number, high: number, length: number, chainFlags: number): void {
    const entry = this.#next
    const at = this.#ringAt + entry * DESC_WORDS
    const flags = chainFlags | (this.#wrap === 0 ? USED_MASK : AVAIL_MASK)
    this.#writeBuffer(at, low, high, length)
    if (this.#unpublished === 0) {
      // Its flags are written when it is published: a device looks at no later entry before it has seen these.
      this.#first = entry
      this.#firstWrap = this.#wrap
      this.#firstFlags = flags
      this.#halfWords[2 * (at + PACKED_DESC_ID_FLAGS)] = this.#id
    } else {
      this.#words[at + PACKED_DESC_ID_FLAGS] = this.#id | (flags << 16)
    }
    this.#unpublished++
    this.#chainEntries++
    if (entry + 1 === this.size) {
      this.#next = 0
      this.#wrap ^= 1
    } else {
      this.#next = entry + 1
    }
  }

  /** @hot */
  commit(): number {
    const id = this.#id
    this.#entries[id] = this.#chainEntries
    this.free -= this.#chainEntries
    return id
  }

  /** @hot */
  publish(): boolean {
    const count = this.#unpublished
    if (count === 0) return false
    this.#unpublished = 0
    const at = 2 * (this.#ringAt + this.#first * DESC_WORDS + PACKED_DESC_ID_FLAGS) + 1
    // A store and a load that no processor may swap: both are sequentially consistent.
    Atomics.store(this.#halfWords, at, this.#firstFlags)
    const event = Atomics.load(this.#words, this.#deviceEventAt)
    return isNotified(event, this.#hasEventIdx, this.size, this.#first, this.#firstWrap, count)
  }

  /** The device has used the entry that it uses next. @hot */
  #hasUsed(): boolean {
    const at = 2 * (this.#ringAt + this.#usedNext * DESC_WORDS + PACKED_DESC_ID_FLAGS) + 1
    const flags = Atomics.load(this.#halfWords, at) & (AVAIL_MASK | USED_MASK)
    return flags === (this.#usedWrap === 0 ? 0 : AVAIL_MASK | USED_MASK)
  }

  /** @hot */
  takeUsed(): number {
    if (this.isBroken || !this.#hasUsed()) return -1
    const at = this.#ringAt + this.#usedNext * DESC_WORDS
    const id = this.#words[at + PACKED_DESC_ID_FLAGS] & 0xffff
    const length = this.#words[at + DESC_LEN] >>> 0
    const entries = id < this.size ? this.#entries[id] : 0
    if (entries === 0) {
      this.isBroken = true
      return -1
    }
    this.usedLength = length
    this.free += entries
    this.#entries[id] = 0
    this.#ids[this.#idCount++] = id
    let next = this.#usedNext + entries
    if (next >= this.size) {
      next -= this.size
      this.#usedWrap ^= 1
    }
    this.#usedNext = next
    return id
  }

  /** @hot */
  enableCall(): boolean {
    const event = this.#hasEventIdx
      ? this.#usedNext | (this.#usedWrap << EVENT_WRAP_BIT) | (RING_EVENT_FLAGS_DESC << 16)
      : RING_EVENT_FLAGS_ENABLE << 16
    Atomics.store(this.#words, this.#driverEventAt, event)
    // It may have used one before it could see that.
    return !this.isBroken && this.#hasUsed()
  }

  /** @hot */
  disableCall(): void {
    Atomics.store(this.#words, this.#driverEventAt, RING_EVENT_FLAGS_DISABLE << 16)
  }
}
