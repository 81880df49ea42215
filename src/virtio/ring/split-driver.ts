/**
 * A split virtqueue, driver side. Free descriptors are a list through an array of our own: what
 * stands in shared memory is written for the device and never read back.
 *
 *     free list    #freeHead -> next -> next ...      #next[descriptor]
 *     chain        id (its head) -> ... -> #last[id]  through the same array
 *
 * Source: VIRTIO 1.3 §2.7.
 */
import {
  AVAIL_FLAGS,
  AVAIL_IDX,
  AVAIL_RING,
  DESC_ADDR,
  DESC_FLAGS_NEXT,
  DESC_LEN,
  DESC_LENGTH,
  DESC_WORDS,
  USED_ELEMENT_LENGTH,
  USED_FLAGS,
  USED_IDX,
  USED_RING_LENGTH,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../../abi/virtio-ring.ts'
import type { DriverQueue, DriverSetup, RingLayout } from './driver-queue.ts'
import { alignUp } from './driver-queue.ts'

const TWO_32 = 4294967296

/** The ring of a queue of `size` entries, with indirect tables of `tableEntries` descriptors. */
export function splitLayout(size: number, tableEntries: number): RingLayout {
  const availOffset = size * DESC_LENGTH
  // Each ring ends with the event of the other one.
  const usedOffset = alignUp(availOffset + 2 * (AVAIL_RING + size + 1), 4)
  const usedLength = USED_RING_LENGTH + size * USED_ELEMENT_LENGTH + 2
  const tableOffset = alignUp(usedOffset + usedLength, DESC_LENGTH)
  const length = tableOffset + size * tableEntries * DESC_LENGTH
  return { descriptorOffset: 0, availOffset, usedOffset, tableOffset, length }
}

export class SplitDriver implements DriverQueue {
  readonly size: number
  free: number
  isBroken = false
  usedLength = 0

  readonly #mask: number
  readonly #hasEventIdx: boolean
  readonly #tableEntries: number
  /** All parts of the ring lie in one buffer. */
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #descriptorsAt: number
  readonly #availAt: number
  readonly #usedAt: number
  readonly #usedWordsAt: number
  readonly #tablesAt: number
  /** Address of the table of each id: low and high half. */
  readonly #tableAddresses: Int32Array
  readonly #next: Uint16Array
  readonly #last: Uint16Array
  /** Descriptors of the chain with this id; 0: there is none. */
  readonly #counts: Uint16Array
  #freeHead = 0
  /** Avail index behind what was committed, and behind what the device may see. */
  #availIndex = 0
  #published = 0
  /** Used index of what we take next; used chains beyond it that we know of; chains in flight. */
  #usedIndex = 0
  #waiting = 0
  #inFlight = 0
  /** The chain being made: head, descriptors, buffers to come, next descriptor's word in a table. */
  #head = 0
  #descriptors = 0
  #left = 0
  #tableAt = 0
  #tableIndex = 0
  #tail = 0

  /** Clears the memory of the ring: the device attaches to it afterwards, with base 0. */
  constructor(setup: DriverSetup) {
    const { size, memory, tableEntries } = setup
    const layout = splitLayout(size, tableEntries)
    const { buffer, offset } = memory
    new Uint8Array(buffer, offset, layout.length).fill(0)
    this.size = size
    this.free = size
    this.#mask = size - 1
    this.#hasEventIdx = setup.hasEventIdx
    this.#tableEntries = tableEntries
    this.#words = new Int32Array(buffer, 0, buffer.byteLength >> 2)
    this.#halfWords = new Uint16Array(buffer, 0, buffer.byteLength >> 1)
    this.#descriptorsAt = (offset + layout.descriptorOffset) >> 2
    this.#availAt = (offset + layout.availOffset) >> 1
    this.#usedAt = (offset + layout.usedOffset) >> 1
    this.#usedWordsAt = (offset + layout.usedOffset) >> 2
    this.#tablesAt = (offset + layout.tableOffset) >> 2
    this.#tableAddresses = new Int32Array(2 * size)
    for (let id = 0; id < size; id++) {
      const table = memory.guestAddress + layout.tableOffset + id * tableEntries * DESC_LENGTH
      this.#tableAddresses[2 * id] = table
      this.#tableAddresses[2 * id + 1] = table / TWO_32
    }
    this.#next = Uint16Array.from({ length: size }, (_, at) => at + 1)
    this.#last = new Uint16Array(size)
    this.#counts = new Uint16Array(size)
  }

  /** @hot */
  begin(count: number, isIndirect: boolean): boolean {
    const isInTable = isIndirect && count <= this.#tableEntries
    const descriptors = isInTable ? 1 : count
    if (descriptors > this.free || this.isBroken) return false
    const head = this.#freeHead
    this.#head = head
    this.#descriptors = descriptors
    this.#left = count
    this.#tableIndex = isInTable ? 1 : 0
    if (isInTable) {
      const table = head * this.#tableEntries
      this.#tableAt = this.#tablesAt + table * DESC_WORDS
      const at = this.#descriptorsAt + head * DESC_WORDS
      const low = this.#tableAddresses[2 * head]
      const high = this.#tableAddresses[2 * head + 1]
      this.#write(at, low, high, count * DESC_LENGTH, VIRTQ_DESC_F_INDIRECT, 0)
      this.#freeHead = this.#next[head]
      this.#tail = head
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
    const flags = (left > 0 ? VIRTQ_DESC_F_NEXT : 0) | (isWritable ? VIRTQ_DESC_F_WRITE : 0)
    if (this.#tableIndex > 0) {
      this.#write(this.#tableAt, low, high, length, flags, left > 0 ? this.#tableIndex : 0)
      this.#tableAt += DESC_WORDS
      this.#tableIndex++
      return
    }
    const at = this.#freeHead
    const next = this.#next[at]
    const word = this.#descriptorsAt + at * DESC_WORDS
    this.#write(word, low, high, length, flags, left > 0 ? next : 0)
    this.#freeHead = next
    this.#tail = at
  }

  /** @hot */
  #write(at: number, low: number, high: number, length: number, flags: number, next: number): void {
    const words = this.#words
    words[at + DESC_ADDR] = low
    words[at + DESC_ADDR + 1] = high
    words[at + DESC_LEN] = length
    words[at + DESC_FLAGS_NEXT] = flags | (next << 16)
  }

  /** @hot */
  commit(): number {
    const head = this.#head
    this.#last[head] = this.#tail
    this.#counts[head] = this.#descriptors
    this.free -= this.#descriptors
    this.#inFlight++
    this.#halfWords[this.#availAt + AVAIL_RING + (this.#availIndex & this.#mask)] = head
    this.#availIndex = (this.#availIndex + 1) & 0xffff
    return head
  }

  /** @hot */
  publish(): boolean {
    const before = this.#published
    const index = this.#availIndex
    if (index === before) return false
    this.#published = index
    const halfWords = this.#halfWords
    // A store and a load that no processor may swap: both are sequentially consistent.
    Atomics.store(halfWords, this.#availAt + AVAIL_IDX, index)
    if (!this.#hasEventIdx) {
      return (Atomics.load(halfWords, this.#usedAt + USED_FLAGS) & VIRTQ_USED_F_NO_NOTIFY) === 0
    }
    const eventAt = this.#usedAt + 2 + this.size * (USED_ELEMENT_LENGTH / 2)
    const event = Atomics.load(halfWords, eventAt)
    return ((index - event - 1) & 0xffff) < ((index - before) & 0xffff)
  }

  /** Reads the device's index. @hot */
  #look(): boolean {
    if (this.isBroken) return false
    const index = Atomics.load(this.#halfWords, this.#usedAt + USED_IDX)
    const waiting = (index - this.#usedIndex) & 0xffff
    if (waiting > this.#inFlight) {
      this.isBroken = true
      return false
    }
    this.#waiting = waiting
    return waiting > 0
  }

  /** @hot */
  takeUsed(): number {
    if (this.#waiting === 0 && !this.#look()) return -1
    const at = this.#usedWordsAt + 1 + 2 * (this.#usedIndex & this.#mask)
    const id = this.#words[at] >>> 0
    const length = this.#words[at + 1] >>> 0
    if (id >= this.size || this.#counts[id] === 0) {
      this.isBroken = true
      this.#waiting = 0
      return -1
    }
    this.usedLength = length
    this.free += this.#counts[id]
    this.#counts[id] = 0
    this.#next[this.#last[id]] = this.#freeHead
    this.#freeHead = id
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff
    this.#waiting--
    this.#inFlight--
    return id
  }

  /** @hot */
  enableCall(): boolean {
    if (this.#hasEventIdx) {
      Atomics.store(this.#halfWords, this.#availAt + AVAIL_RING + this.size, this.#usedIndex)
    } else {
      Atomics.store(this.#halfWords, this.#availAt + AVAIL_FLAGS, 0)
    }
    // It may have used one before it could see that.
    return this.#waiting > 0 || this.#look()
  }

  /** With event_idx there is nothing to do: an event that has passed asks for no call. @hot */
  disableCall(): void {
    if (!this.#hasEventIdx) {
      Atomics.store(this.#halfWords, this.#availAt + AVAIL_FLAGS, VIRTQ_AVAIL_F_NO_INTERRUPT)
    }
  }
}
