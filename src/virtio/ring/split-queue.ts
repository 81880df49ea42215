/**
 * A split virtqueue, device side. Indices run free modulo 2^16 and are masked only to pick a slot.
 *
 *     descriptor table   size * 16 bytes
 *     avail ring         flags, idx, ring[size], used_event     the driver writes, we read
 *     used ring          flags, idx, { id, len }[size], avail_event   we write
 *
 * Descriptors and the avail ring may change under us at any time: each field is read once, then
 * checked, then used. Source: VIRTIO 1.3 §2.7.
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
import type { GuestMemory } from '../../mem/guest-memory.ts'
import { PIECE_LIMIT, PIECE_SHIFT, PIECE_START } from '../../mem/guest-memory.ts'
import type { Chain } from './chain.ts'
import {
  BROKEN_AVAIL_STEP,
  BROKEN_CHAIN_LENGTH,
  BROKEN_EMPTY,
  BROKEN_INDEX,
  BROKEN_INDIRECT,
  BROKEN_LOOP,
  CHAIN_SEGMENTS_MAX,
} from './chain.ts'
import type { DeviceQueue, RingPart, RingSetup } from './device-queue.ts'
import { ringPart } from './device-queue.ts'
import type { DirtyLog } from './dirty-log.ts'
import type { Places, PlainKind } from './plain-chains.ts'

/** A constant of this module is part of the machine code, an imported one is loaded at each use. */
const WORDS: number = DESC_WORDS
const HIGH: number = DESC_ADDR + 1
const LENGTH: number = DESC_LEN
const FLAGS: number = DESC_FLAGS_NEXT
const TWO_32 = 4294967296
const NOT_PLAIN: number = VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_INDIRECT
/** Descriptors of an indirect table: Linux makes them longer than a small queue. */
const INDIRECT_MAX = CHAIN_SEGMENTS_MAX

/** With avail_event behind the elements. */
function usedRingLength(size: number): number {
  return USED_RING_LENGTH + size * USED_ELEMENT_LENGTH + 2
}

export class SplitQueue implements DeviceQueue {
  readonly size: number
  broken = 0

  readonly #memory: GuestMemory
  readonly #parts: readonly RingPart[]
  readonly #mask: number
  readonly #hasEventIdx: boolean
  readonly #hasIndirect: boolean
  readonly #descriptors: Int32Array
  readonly #descriptorsAt: number
  readonly #avail: Uint16Array
  readonly #availAt: number
  readonly #used: Uint16Array
  readonly #usedAt: number
  readonly #usedWords: Int32Array
  readonly #usedWordsAt: number
  /** Next avail index that we take, and how many beyond it we know to be there. */
  #next: number
  #waiting = 0
  /** Used index up to which we put, and up to which the driver knows. */
  #usedIndex: number
  #published: number

  private constructor(setup: RingSetup, memory: GuestMemory, parts: readonly RingPart[]) {
    const [descriptors, avail, used] = parts
    this.size = setup.size
    this.#mask = setup.size - 1
    this.#memory = memory
    this.#parts = parts
    this.#hasEventIdx = setup.hasEventIdx
    this.#hasIndirect = setup.hasIndirect
    this.#descriptors = descriptors.words
    this.#descriptorsAt = descriptors.wordAt
    this.#avail = avail.halfWords
    this.#availAt = avail.halfWordAt
    this.#used = used.halfWords
    this.#usedAt = used.halfWordAt
    this.#usedWords = used.words
    this.#usedWordsAt = used.wordAt
    this.#next = setup.base & 0xffff
    this.#usedIndex = this.#next
    this.#published = this.#next
  }

  /** Null: the ring is not in the memory, or not aligned. `size` is a power of two. */
  static attach(setup: RingSetup, memory: GuestMemory): SplitQueue | null {
    const { size } = setup
    const descriptors = ringPart(memory, setup.descriptorAddress, size * DESC_LENGTH, 4)
    const avail = ringPart(memory, setup.availAddress, 2 * (AVAIL_RING + size + 1), 2)
    const used = ringPart(memory, setup.usedAddress, usedRingLength(size), 4)
    const parts = [descriptors, avail, used].filter((part) => part !== null)
    if (parts.length === 3) return new SplitQueue(setup, memory, parts)
    for (const { buffer } of parts) memory.release(buffer)
    return null
  }

  /** @hot */
  hasChain(): boolean {
    return this.broken === 0 && (this.#waiting > 0 || this.#look())
  }

  /** Reads the driver's index. @hot */
  #look(): boolean {
    const index = Atomics.load(this.#avail, this.#availAt + AVAIL_IDX)
    const waiting = (index - this.#next) & 0xffff
    if (waiting > this.size) {
      this.broken = BROKEN_AVAIL_STEP
      return false
    }
    this.#waiting = waiting
    return waiting > 0
  }

  /** @hot */
  take(chain: Chain): boolean {
    if (!this.hasChain()) return false
    const head = this.#avail[this.#availAt + AVAIL_RING + (this.#next & this.#mask)]
    const broken = head < this.size ? this.#walk(chain, head) : BROKEN_INDEX
    if (broken !== 0) {
      this.broken = broken
      return false
    }
    chain.id = head
    chain.entries = 1
    this.#next = (this.#next + 1) & 0xffff
    this.#waiting--
    return true
  }

  /** @hot */
  takePlain(kind: PlainKind, places: Places, at: number, most: number): number {
    if (this.broken !== 0 || (this.#waiting < most && !this.#look())) return 0
    const available = this.#waiting < most ? this.#waiting : most
    const { isWritable, skipped, lengthMin, lengthMax, id } = kind
    const { window, offset, length } = places
    const flags = isWritable ? VIRTQ_DESC_F_WRITE : 0
    const words = this.#descriptors
    const descriptorsAt = this.#descriptorsAt
    const avail = this.#avail
    const ringAt = this.#availAt + AVAIL_RING
    const usedWords = this.#usedWords
    const elementsAt = this.#usedWordsAt + 1
    const { size } = this
    const mask = this.#mask
    const first = this.#next
    const used = this.#usedIndex
    const memory = this.#memory
    const { piece } = memory
    let { bytesLeft } = kind
    let n = 0
    let lookedAt = -1
    for (;;) {
      const start = piece[PIECE_START]
      const limit = piece[PIECE_LIMIT]
      const shift = piece[PIECE_SHIFT] + skipped
      const { window: inWindow } = memory
      let from = 0
      // No call in this loop: what does not change is then checked and loaded before it, once.
      for (; n < available; n++) {
        const head = avail[ringAt + ((first + n) & mask)]
        if (head >= size) break
        const word = descriptorsAt + head * WORDS
        from = (words[word + HIGH] >>> 0) * TWO_32 + (words[word] >>> 0)
        const bytes = words[word + LENGTH]
        if ((words[word + FLAGS] & NOT_PLAIN) !== flags) break
        if (bytes < lengthMin || bytes > lengthMax) break
        if (!(from >= start && from + bytes <= limit)) break
        window[at + n] = inWindow
        offset[at + n] = (from + shift) | 0
        length[at + n] = bytes - skipped
        if (isWritable) id[n] = head
        else {
          if (bytes > bytesLeft) break
          bytesLeft -= bytes
          const element = elementsAt + 2 * ((used + n) & mask)
          usedWords[element] = head
          usedWords[element + 1] = 0
        }
      }
      // It may only lie in another piece of memory than the one before: once more, in that.
      if (n === available || n === lookedAt || !memory.locate(from | 0, (from / TWO_32) | 0)) break
      lookedAt = n
    }
    this.#next = (first + n) & 0xffff
    this.#waiting -= n
    kind.bytesLeft = bytesLeft
    if (!isWritable) this.#usedIndex = (used + n) & 0xffff
    return n
  }

  /** Translates the chain that begins at `head`; 0 or what is wrong with it. @hot */
  #walk(chain: Chain, head: number): number {
    chain.clear()
    const words = this.#descriptors
    let index = head
    for (let steps = 0; ; steps++) {
      chain.descriptors++
      if (steps === this.size) return BROKEN_LOOP
      // Descriptors of no bytes make no segments, but take time.
      if (steps === CHAIN_SEGMENTS_MAX) return BROKEN_CHAIN_LENGTH
      const at = this.#descriptorsAt + index * DESC_WORDS
      const low = words[at + DESC_ADDR]
      const high = words[at + DESC_ADDR + 1]
      const length = words[at + DESC_LEN] >>> 0
      const flagsNext = words[at + DESC_FLAGS_NEXT]
      if ((flagsNext & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!this.#hasIndirect || (flagsNext & VIRTQ_DESC_F_NEXT) !== 0) return BROKEN_INDIRECT
        return this.#walkIndirect(chain, low, high, length)
      }
      const isWritable = (flagsNext & VIRTQ_DESC_F_WRITE) !== 0
      const broken = chain.add(this.#memory, low, high, length, isWritable)
      if (broken !== 0) return broken
      if ((flagsNext & VIRTQ_DESC_F_NEXT) === 0) return chain.count === 0 ? BROKEN_EMPTY : 0
      index = flagsNext >>> 16
      if (index >= this.size) return BROKEN_INDEX
    }
  }

  /** The same in an indirect table of `length` bytes. @hot */
  #walkIndirect(chain: Chain, tableLow: number, tableHigh: number, length: number): number {
    const memory = this.#memory
    const size = length / DESC_LENGTH
    if (length % DESC_LENGTH !== 0 || size === 0 || size > INDIRECT_MAX) return BROKEN_INDIRECT
    if (!memory.locate(tableLow, tableHigh) || memory.room < length) return BROKEN_INDIRECT
    if ((memory.offset & 3) !== 0) return BROKEN_INDIRECT
    chain.readTable(memory, length)
    const words = chain.table
    let index = 0
    for (let steps = 0; ; steps++) {
      chain.descriptors++
      if (steps === size) return BROKEN_LOOP
      const at = index * DESC_WORDS
      const low = words[at + DESC_ADDR]
      const high = words[at + DESC_ADDR + 1]
      const bytes = words[at + DESC_LEN] >>> 0
      const flagsNext = words[at + DESC_FLAGS_NEXT]
      if ((flagsNext & VIRTQ_DESC_F_INDIRECT) !== 0) return BROKEN_INDIRECT
      const broken = chain.add(memory, low, high, bytes, (flagsNext & VIRTQ_DESC_F_WRITE) !== 0)
      if (broken !== 0) return broken
      if ((flagsNext & VIRTQ_DESC_F_NEXT) === 0) return chain.count === 0 ? BROKEN_EMPTY : 0
      index = flagsNext >>> 16
      if (index >= size) return BROKEN_INDEX
    }
  }

  /** @hot */
  untake(chains: number): void {
    this.#next = (this.#next - chains) & 0xffff
    this.#waiting += chains
  }

  /** @hot */
  put(id: number, _entries: number, length: number): void {
    const at = this.#usedWordsAt + 1 + 2 * (this.#usedIndex & this.#mask)
    this.#usedWords[at] = id
    this.#usedWords[at + 1] = length
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff
  }

  /** @hot */
  publish(): boolean {
    const before = this.#published
    const index = this.#usedIndex
    if (index === before) return false
    this.#published = index
    // A store and a load that no processor may swap: both are sequentially consistent.
    Atomics.store(this.#used, this.#usedAt + USED_IDX, index)
    if (!this.#hasEventIdx) {
      const flags = Atomics.load(this.#avail, this.#availAt + AVAIL_FLAGS)
      return (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0
    }
    const event = Atomics.load(this.#avail, this.#availAt + AVAIL_RING + this.size)
    return ((index - event - 1) & 0xffff) < ((index - before) & 0xffff)
  }

  /** @hot */
  enableKick(): boolean {
    if (this.#hasEventIdx) {
      const at = this.#usedAt + 2 + this.size * (USED_ELEMENT_LENGTH / 2)
      Atomics.store(this.#used, at, this.#next)
    } else {
      Atomics.store(this.#used, this.#usedAt + USED_FLAGS, 0)
    }
    // It may have made one available before it could see that.
    return this.hasChain()
  }

  /** With event_idx there is nothing to do: an event that has passed asks for no kick. @hot */
  disableKick(): void {
    if (!this.#hasEventIdx) {
      Atomics.store(this.#used, this.#usedAt + USED_FLAGS, VIRTQ_USED_F_NO_NOTIFY)
    }
  }

  /** The whole used ring, a page or two: what was put lies anywhere in it. @hot */
  logWritten(log: DirtyLog, usedAddress: number): void {
    log.note(usedAddress, usedRingLength(this.size))
  }

  base(): number {
    return this.#next
  }

  close(): void {
    for (const { buffer } of this.#parts) this.#memory.release(buffer)
  }
}
