/**
 * A packed virtqueue, device side. One ring, which both sides write; its size is any number, so
 * positions count to the size and a wrap counter turns over with each lap.
 *
 *     ring           size * { u64 addr, u32 len, u16 id, u16 flags }
 *     driver event   when to call: the driver writes, we read        ("avail" address)
 *     device event   when to kick: we write                          ("used" address)
 *
 *     flags & 0x8080, AVAIL and USED:   available   AVAIL is the lap's wrap counter, USED is not
 *                                       used        both are
 *
 *          used    taken, being filled    available
 *     ----------|---------------------|-------------|------
 *           #usedNext              #next
 *
 * Descriptors may change under us at any time: each word is read once, then checked, then used.
 * Source: VIRTIO 1.3 §2.8.
 */
import {
  DESC_ADDR,
  DESC_LEN,
  DESC_LENGTH,
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
import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { Chain } from './chain.ts'
import {
  BROKEN_AVAIL_STEP,
  BROKEN_CHAIN_LENGTH,
  BROKEN_EMPTY,
  BROKEN_INDIRECT,
  BROKEN_LOOP,
  CHAIN_SEGMENTS_MAX,
} from './chain.ts'
import type { DeviceQueue, RingPart, RingSetup } from './device-queue.ts'
import { ringPart } from './device-queue.ts'
import type { DirtyLog } from './dirty-log.ts'
import type { Places, PlainKind } from './plain-chains.ts'
import { EVENT_OFFSET_MASK, EVENT_WRAP_BIT, isNotified } from './packed-event.ts'

const NOT_PLAIN: number = VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_INDIRECT
const AVAIL_MASK: number = 1 << VIRTQ_DESC_F_AVAIL_BIT
const USED_MASK: number = 1 << VIRTQ_DESC_F_USED_BIT
/** A descriptor and its flags, in u16. */
const DESC_HALF_WORDS: number = PACKED_DESC_LENGTH / 2
const DESC_ID_HALF: number = 2 * PACKED_DESC_ID_FLAGS
const DESC_FLAGS_HALF: number = DESC_ID_HALF + 1

export class PackedQueue implements DeviceQueue {
  readonly size: number
  broken = 0

  readonly #memory: GuestMemory
  readonly #parts: readonly RingPart[]
  readonly #hasEventIdx: boolean
  readonly #hasIndirect: boolean
  readonly #ringAddress: number
  readonly #deviceEventAddress: number
  readonly #words: Int32Array
  readonly #wordsAt: number
  readonly #halfWords: Uint16Array
  readonly #halfWordsAt: number
  readonly #driverEvent: Int32Array
  readonly #driverEventAt: number
  readonly #deviceEvent: Int32Array
  readonly #deviceEventAt: number
  /** Next entry that we take, and the wrap counter of its lap. */
  #next: number
  #wrap: number
  /** Next entry that we put, and the wrap counter of its lap. */
  #usedNext: number
  #usedWrap: number
  /** Entries that were taken and are not published: the driver may not touch them. */
  #outstanding: number
  /** Entries of the chains taken last, for `untake`: one place for each that can be outstanding. */
  readonly #takenEntries: Uint16Array
  readonly #takenMask: number
  #taken = 0
  /** What was put since the last `publish`: first entry, its wrap counter, its flags; entries. */
  #first = 0
  #firstWrap = 0
  #firstFlags = 0
  #unpublished = 0

  private constructor(setup: RingSetup, memory: GuestMemory, parts: readonly RingPart[]) {
    const [ring, driverEvent, deviceEvent] = parts
    this.size = setup.size
    this.#memory = memory
    this.#parts = parts
    this.#hasEventIdx = setup.hasEventIdx
    this.#hasIndirect = setup.hasIndirect
    this.#ringAddress = setup.descriptorAddress
    this.#deviceEventAddress = setup.usedAddress
    this.#words = ring.words
    this.#wordsAt = ring.wordAt
    this.#halfWords = ring.halfWords
    this.#halfWordsAt = ring.halfWordAt
    this.#driverEvent = driverEvent.words
    this.#driverEventAt = driverEvent.wordAt
    this.#deviceEvent = deviceEvent.words
    this.#deviceEventAt = deviceEvent.wordAt
    const { avail, used } = halves(setup.base)
    this.#next = avail & EVENT_OFFSET_MASK
    this.#wrap = avail >>> EVENT_WRAP_BIT
    this.#usedNext = used & EVENT_OFFSET_MASK
    this.#usedWrap = used >>> EVENT_WRAP_BIT
    this.#outstanding = entriesBetween(setup.base, setup.size)
    this.#takenMask = 2 ** Math.ceil(Math.log2(setup.size)) - 1
    this.#takenEntries = new Uint16Array(this.#takenMask + 1)
  }

  /** Null: the ring is not in the memory, not aligned, or has no such base. */
  static attach(setup: RingSetup, memory: GuestMemory): PackedQueue | null {
    const { size } = setup
    const ring = ringPart(memory, setup.descriptorAddress, size * PACKED_DESC_LENGTH, 4)
    const driverEvent = ringPart(memory, setup.availAddress, EVENT_SUPPRESSION_LENGTH, 4)
    const deviceEvent = ringPart(memory, setup.usedAddress, EVENT_SUPPRESSION_LENGTH, 4)
    const parts = [ring, driverEvent, deviceEvent].filter((part) => part !== null)
    if (parts.length === 3 && entriesBetween(setup.base, size) >= 0) {
      return new PackedQueue(setup, memory, parts)
    }
    for (const { buffer } of parts) memory.release(buffer)
    return null
  }

  /** @hot */
  hasChain(): boolean {
    if (this.broken !== 0) return false
    const at = this.#halfWordsAt + this.#next * DESC_HALF_WORDS + DESC_FLAGS_HALF
    const flags = Atomics.load(this.#halfWords, at)
    if ((flags & (AVAIL_MASK | USED_MASK)) !== (this.#wrap === 0 ? USED_MASK : AVAIL_MASK)) {
      return false
    }
    if (this.#outstanding < this.size) return true
    this.broken = BROKEN_AVAIL_STEP
    return false
  }

  /** @hot */
  take(chain: Chain): boolean {
    if (!this.hasChain()) return false
    const broken = this.#walk(chain)
    if (broken !== 0) {
      this.broken = broken
      return false
    }
    this.#advance(chain.entries)
    return true
  }

  /** @hot */
  takePlain(kind: PlainKind, places: Places, at: number, most: number): number {
    const { isWritable, skipped, lengthMin, lengthMax, id } = kind
    const { window, offset, length } = places
    // Of what is read, the flag that it may be written means nothing: see Chain.isReadOnly.
    const flags = isWritable ? VIRTQ_DESC_F_WRITE : 0
    const mask = isWritable ? NOT_PLAIN | VIRTQ_DESC_F_WRITE : NOT_PLAIN
    const words = this.#words
    const memory = this.#memory
    let n = 0
    for (; n < most && this.hasChain(); n++) {
      const word = this.#wordsAt + this.#next * DESC_WORDS
      const low = words[word + DESC_ADDR]
      const high = words[word + DESC_ADDR + 1]
      const bytes = words[word + DESC_LEN]
      const idFlags = words[word + PACKED_DESC_ID_FLAGS]
      if (((idFlags >>> 16) & mask) !== flags) break
      if (bytes < lengthMin || bytes > lengthMax) break
      if (!isWritable && bytes > kind.bytesLeft) break
      if (!memory.locate(low, high) || bytes > memory.room) break
      window[at + n] = memory.window
      offset[at + n] = memory.offset + skipped
      length[at + n] = bytes - skipped
      this.#advance(1)
      if (isWritable) id[n] = idFlags & 0xffff
      else {
        kind.bytesLeft -= bytes
        this.put(idFlags & 0xffff, 1, 0)
      }
    }
    return n
  }

  /** A chain of so many entries has been taken. @hot */
  #advance(entries: number): void {
    this.#takenEntries[this.#taken & this.#takenMask] = entries
    this.#taken = (this.#taken + 1) & 0xffff
    this.#outstanding += entries
    let next = this.#next + entries
    if (next >= this.size) {
      next -= this.size
      this.#wrap ^= 1
    }
    this.#next = next
  }

  /** Translates the chain that begins at `#next`; 0 or what is wrong with it. @hot */
  #walk(chain: Chain): number {
    chain.clear()
    const words = this.#words
    const writeMask = chain.isReadOnly ? 0 : VIRTQ_DESC_F_WRITE
    const size = this.size
    const most = size - this.#outstanding
    let index = this.#next
    for (let entries = 1; ; entries++) {
      chain.descriptors++
      const at = this.#wordsAt + index * DESC_WORDS
      const low = words[at + DESC_ADDR]
      const high = words[at + DESC_ADDR + 1]
      const length = words[at + DESC_LEN] >>> 0
      const idFlags = words[at + PACKED_DESC_ID_FLAGS]
      const flags = idFlags >>> 16
      let broken = 0
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!this.#hasIndirect || (flags & VIRTQ_DESC_F_NEXT) !== 0) return BROKEN_INDIRECT
        broken = this.#walkIndirect(chain, low, high, length)
      } else {
        broken = chain.add(this.#memory, low, high, length, (flags & writeMask) !== 0)
      }
      if (broken !== 0) return broken
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) {
        // The buffer id is that of the last descriptor; those of the others mean nothing.
        chain.id = idFlags & 0xffff
        chain.entries = entries
        return chain.count === 0 ? BROKEN_EMPTY : 0
      }
      if (entries === most) return BROKEN_LOOP
      if (entries === CHAIN_SEGMENTS_MAX) return BROKEN_CHAIN_LENGTH
      if (++index === size) index = 0
    }
  }

  /**
   * The same in an indirect table of `length` bytes: all of its descriptors, in order. WRITE is the
   * only flag that means something there.
   * @hot
   */
  #walkIndirect(chain: Chain, tableLow: number, tableHigh: number, length: number): number {
    const memory = this.#memory
    const size = length / DESC_LENGTH
    if (length % DESC_LENGTH !== 0 || size === 0 || size > CHAIN_SEGMENTS_MAX) {
      return BROKEN_INDIRECT
    }
    if (!memory.locate(tableLow, tableHigh) || memory.room < length) return BROKEN_INDIRECT
    if ((memory.offset & 3) !== 0) return BROKEN_INDIRECT
    chain.readTable(memory, length)
    const words = chain.table
    const writeMask = chain.isReadOnly ? 0 : VIRTQ_DESC_F_WRITE
    chain.descriptors += size
    const end = size * DESC_WORDS
    for (let at = 0; at < end; at += DESC_WORDS) {
      const low = words[at + DESC_ADDR]
      const high = words[at + DESC_ADDR + 1]
      const bytes = words[at + DESC_LEN] >>> 0
      const flags = words[at + PACKED_DESC_ID_FLAGS] >>> 16
      const broken = chain.add(memory, low, high, bytes, (flags & writeMask) !== 0)
      if (broken !== 0) return broken
    }
    return 0
  }

  /** @hot */
  untake(chains: number): void {
    for (let left = chains; left > 0; left--) {
      this.#taken = (this.#taken - 1) & 0xffff
      const entries = this.#takenEntries[this.#taken & this.#takenMask]
      this.#outstanding -= entries
      let next = this.#next - entries
      if (next < 0) {
        next += this.size
        this.#wrap ^= 1
      }
      this.#next = next
    }
  }

  /** @hot */
  put(id: number, entries: number, length: number): void {
    const used = this.#usedNext
    const at = this.#wordsAt + used * DESC_WORDS
    const wrapFlags = this.#usedWrap === 0 ? 0 : AVAIL_MASK | USED_MASK
    // WRITE says that the length means something.
    const flags = length === 0 ? wrapFlags : wrapFlags | VIRTQ_DESC_F_WRITE
    this.#words[at + DESC_LEN] = length
    if (this.#unpublished === 0) {
      // Its flags are written when it is published: a driver looks at no later entry before it has seen these.
      this.#first = used
      this.#firstWrap = this.#usedWrap
      this.#firstFlags = flags
      this.#halfWords[this.#halfWordsAt + used * DESC_HALF_WORDS + DESC_ID_HALF] = id
    } else {
      this.#words[at + PACKED_DESC_ID_FLAGS] = id | (flags << 16)
    }
    this.#unpublished += entries
    let next = used + entries
    if (next >= this.size) {
      next -= this.size
      this.#usedWrap ^= 1
    }
    this.#usedNext = next
  }

  /** @hot */
  publish(): boolean {
    const count = this.#unpublished
    if (count === 0) return false
    this.#unpublished = 0
    this.#outstanding -= count
    const at = this.#halfWordsAt + this.#first * DESC_HALF_WORDS + DESC_FLAGS_HALF
    // A store and a load that no processor may swap: both are sequentially consistent.
    Atomics.store(this.#halfWords, at, this.#firstFlags)
    const event = Atomics.load(this.#driverEvent, this.#driverEventAt)
    return isNotified(event, this.#hasEventIdx, this.size, this.#first, this.#firstWrap, count)
  }

  /** @hot */
  enableKick(): boolean {
    const event = this.#hasEventIdx
      ? this.#next | (this.#wrap << EVENT_WRAP_BIT) | (RING_EVENT_FLAGS_DESC << 16)
      : RING_EVENT_FLAGS_ENABLE << 16
    Atomics.store(this.#deviceEvent, this.#deviceEventAt, event)
    // It may have made one available before it could see that.
    return this.hasChain()
  }

  /** @hot */
  disableKick(): void {
    Atomics.store(this.#deviceEvent, this.#deviceEventAt, RING_EVENT_FLAGS_DISABLE << 16)
  }

  /** The whole ring: what was put lies anywhere in it. @hot */
  logWritten(log: DirtyLog): void {
    log.note(this.#ringAddress, this.size * PACKED_DESC_LENGTH)
    log.note(this.#deviceEventAddress, EVENT_SUPPRESSION_LENGTH)
  }

  base(): number {
    const avail = this.#next | (this.#wrap << EVENT_WRAP_BIT)
    const used = this.#usedNext | (this.#usedWrap << EVENT_WRAP_BIT)
    return (avail | (used << 16)) >>> 0
  }

  close(): void {
    for (const { buffer } of this.#parts) this.#memory.release(buffer)
  }
}

/**
 * The two positions in a base, each an offset with the wrap counter above it. A front-end that fills
 * in only the low half (DPDK's) means that nothing is in flight.
 */
function halves(base: number): { readonly avail: number; readonly used: number } {
  const avail = base & 0xffff
  const high = base >>> 16
  return { avail, used: high === 0 ? avail : high }
}

/** Entries between the positions of a base: taken, not used. Negative: no ring of this size. */
function entriesBetween(base: number, size: number): number {
  const { avail, used } = halves(base)
  const next = avail & EVENT_OFFSET_MASK
  const usedNext = used & EVENT_OFFSET_MASK
  if (next >= size || usedNext >= size) return -1
  const lap = avail >>> EVENT_WRAP_BIT === used >>> EVENT_WRAP_BIT ? 0 : size
  const entries = next + lap - usedNext
  return entries > size ? -1 : entries
}
