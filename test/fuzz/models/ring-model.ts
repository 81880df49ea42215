/**
 * What a device may do with a virtqueue, from VIRTIO 1.3 §2.6 to §2.8 alone: it works on a memory of
 * its own (GuestModel), says what the device should answer, and writes what the device should write.
 */
import type { GuestModel, Part } from './guest-model.ts'

export interface ModelRing {
  readonly size: number
  readonly base: number
  /** Guest-physical addresses. */
  readonly descriptors: number
  readonly avail: number
  readonly used: number
  readonly hasEventIdx: boolean
  readonly hasIndirect: boolean
}

export interface ModelChain {
  id: number
  /** Ring entries: 1 in a split queue. */
  entries: number
  /** Those to read first. */
  readonly readable: readonly Part[]
  readonly writable: readonly Part[]
  readonly readableLength: number
  readonly writableLength: number
}

/** Numbers of the reasons, as `broken` of a queue has them. */
export const INDEX = 1
export const AVAIL_STEP = 2
export const LOOP = 3
export const CHAIN_LENGTH = 4
export const ADDRESS = 5
export const INDIRECT = 6
export const ORDER = 7
export const EMPTY = 8

const SEGMENTS_MAX = 1024
export const [F_NEXT, F_WRITE, F_INDIRECT] = [1, 2, 4]

export interface Descriptor {
  readonly address: number
  readonly length: number
  readonly flags: number
  /** next (split) or buffer id (packed). */
  readonly last: number
}

/** Collects what a chain's descriptors describe. */
class Collected {
  readonly readable: Part[] = []
  readonly writable: Part[] = []
  readableLength = 0
  writableLength = 0
  readonly #memory: GuestModel
  readonly #isReadOnly: boolean

  constructor(memory: GuestModel, isReadOnly: boolean) {
    this.#memory = memory
    this.#isReadOnly = isReadOnly
  }

  /** 0 or why it cannot be. */
  add({ address, length, flags }: Descriptor): number {
    const isWritable = (flags & F_WRITE) !== 0 && !this.#isReadOnly
    if (!isWritable && this.writable.length > 0) return ORDER
    const room = SEGMENTS_MAX - this.readable.length - this.writable.length
    if (isWritable) this.writableLength += length
    else this.readableLength += length
    let [at, left] = [address, length]
    for (let n = 0; left > 0; n++) {
      if (n === room) return CHAIN_LENGTH
      const [part] = this.#memory.parts(at, 1) ?? []
      if (part === undefined) return ADDRESS
      const inRegion = this.#memory.regions[part.region].bytes.length - part.offset
      const some = Math.min(left, inRegion)
      const list = isWritable ? this.writable : this.readable
      list.push({ region: part.region, offset: part.offset, length: some })
      at += some
      left -= some
    }
    return 0
  }

  get isEmpty(): boolean {
    return this.readable.length + this.writable.length === 0
  }
}

/** A chain of one buffer that lies in one region. */
export interface ModelPlain {
  readonly id: number
  readonly part: Part
}

export interface ModelPlainKind {
  readonly isWritable: boolean
  readonly lengthMin: number
  readonly lengthMax: number
}

export abstract class RingModel {
  broken = 0
  /** Where the indirect tables were that have been read. */
  readonly tables: Part[] = []
  /** The device only reads: a flag that it may write means nothing. */
  isReadOnly = false
  /** What the driver wrote leaves the answer of the last `publish` open. */
  isOpen = false
  readonly ring: ModelRing
  readonly memory: GuestModel

  constructor(ring: ModelRing, memory: GuestModel) {
    this.ring = ring
    this.memory = memory
  }

  abstract hasChain(): boolean
  /** Why the next chain is wrong, or the chain. */
  protected abstract read(collected: Collected): { id: number; entries: number } | number
  protected abstract advance(entries: number): void
  abstract untake(chains: number): void
  abstract put(id: number, entries: number, length: number): void
  abstract publish(): boolean
  abstract enableKick(): boolean
  abstract disableKick(): void
  abstract base(): number
  /** The driver has made more available than it may, as far as one looks ahead. */
  abstract isOverstepped(): boolean

  take(): ModelChain | null {
    if (!this.hasChain()) return null
    const collected = new Collected(this.memory, this.isReadOnly)
    const found = this.read(collected)
    if (typeof found === 'number') {
      this.broken = found
      return null
    }
    this.advance(found.entries)
    const { readable, writable, readableLength, writableLength } = collected
    return { ...found, readable, writable, readableLength, writableLength }
  }

  /** The next chains that are plain, at most so many; those to read are put at once. */
  takePlain(kind: ModelPlainKind, most: number): ModelPlain[] {
    const taken: ModelPlain[] = []
    while (taken.length < most && this.looksAhead(most - taken.length)) {
      const next = this.peek()
      if (next === null || !this.#isPlain(kind, next.descriptor)) break
      const [part] = this.memory.parts(next.descriptor.address, next.descriptor.length)!
      taken.push({ id: next.id, part })
      this.advance(1)
      if (!kind.isWritable) this.put(next.id, 1, 0)
    }
    return taken
  }

  #isPlain(kind: ModelPlainKind, { flags, length, address }: Descriptor): boolean {
    const known = F_NEXT | F_INDIRECT | (this.isReadOnly ? 0 : F_WRITE)
    if ((flags & known) !== (kind.isWritable ? F_WRITE : 0)) return false
    if (length < kind.lengthMin || length > kind.lengthMax) return false
    return this.memory.isWhole(address, length)
  }

  /** There is a chain; how far ahead the driver's index is read is part of what it may break. */
  protected abstract looksAhead(chains: number): boolean
  /** The first descriptor of the next chain; null: its number is wrong. */
  protected abstract peek(): { id: number; descriptor: Descriptor } | null

  protected descriptor(address: number): Descriptor {
    const { memory } = this
    const low = memory.read32(address)
    const high = memory.read32(address + 4)
    const [third, fourth] = [memory.read16(address + 12), memory.read16(address + 14)]
    const isPacked = this.isPacked()
    return {
      address: high * 2 ** 32 + low,
      length: memory.read32(address + 8),
      flags: isPacked ? fourth : third,
      last: isPacked ? third : fourth,
    }
  }

  protected abstract isPacked(): boolean

  /** How many descriptors the indirect table has; 0: it is none. */
  protected tableSize({ address, length, flags }: Descriptor): number {
    if (!this.ring.hasIndirect || (flags & F_NEXT) !== 0) return 0
    const size = length / 16
    if (!Number.isInteger(size) || size < 1 || size > SEGMENTS_MAX) return 0
    // Its descriptors are read as words: where they lie in a page says whether they are aligned.
    if (!this.memory.isWhole(address, length) || address % 4 !== 0) return 0
    this.tables.push(...this.memory.parts(address, length)!)
    return size
  }
}

export class SplitModel extends RingModel {
  #next: number
  /** Chains that the driver's index has told of, as far as the device has looked. */
  #told = 0
  #used: number
  #published: number

  constructor(ring: ModelRing, memory: GuestModel) {
    super(ring, memory)
    this.#next = ring.base & 0xffff
    this.#used = this.#next
    this.#published = this.#next
  }

  protected isPacked(): boolean {
    return false
  }

  #ahead(): number {
    return (this.memory.read16(this.ring.avail + 2) - this.#next) & 0xffff
  }

  isOverstepped(): boolean {
    return this.#ahead() > this.ring.size
  }

  hasChain(): boolean {
    if (this.broken !== 0) return false
    if (this.#told > 0) return true
    if (this.isOverstepped()) {
      this.broken = AVAIL_STEP
      return false
    }
    this.#told = this.#ahead()
    return this.#told > 0
  }

  protected looksAhead(chains: number): boolean {
    if (this.broken !== 0) return false
    if (this.#told < chains) {
      if (this.isOverstepped()) this.broken = AVAIL_STEP
      else this.#told = this.#ahead()
    }
    return this.broken === 0 && this.#told > 0
  }

  protected peek(): { id: number; descriptor: Descriptor } | null {
    const { size, avail, descriptors } = this.ring
    const id = this.memory.read16(avail + 4 + 2 * (this.#next % size))
    return id < size ? { id, descriptor: this.descriptor(descriptors + 16 * id) } : null
  }

  protected read(collected: Collected): { id: number; entries: number } | number {
    const { size, avail, descriptors } = this.ring
    const head = this.memory.read16(avail + 4 + 2 * (this.#next % size))
    if (head >= size) return INDEX
    const broken = this.#follow(collected, descriptors, size, head, LOOP, true)
    return broken === 0 ? { id: head, entries: 1 } : broken
  }

  /** A list in a table of `size` descriptors, from `first` on. */
  #follow(
    collected: Collected,
    table: number,
    size: number,
    first: number,
    tooLong: number,
    mayBeIndirect: boolean,
  ): number {
    let index = first
    for (let steps = 1; ; steps++) {
      if (steps > size) return tooLong
      if (steps > SEGMENTS_MAX) return CHAIN_LENGTH
      const descriptor = this.descriptor(table + 16 * index)
      const { flags, address, last } = descriptor
      if ((flags & F_INDIRECT) !== 0) {
        if (!mayBeIndirect) return INDIRECT
        const entries = this.tableSize(descriptor)
        if (entries === 0) return INDIRECT
        return this.#follow(collected, address, entries, 0, LOOP, false)
      }
      const broken = collected.add(descriptor)
      if (broken !== 0) return broken
      if ((flags & F_NEXT) === 0) return collected.isEmpty ? EMPTY : 0
      if (last >= size) return INDEX
      index = last
    }
  }

  protected advance(): void {
    this.#next = (this.#next + 1) & 0xffff
    this.#told--
  }

  untake(chains: number): void {
    this.#next = (this.#next - chains) & 0xffff
    this.#told += chains
  }

  put(id: number, _entries: number, length: number): void {
    const { used, size } = this.ring
    const element = used + 4 + 8 * (this.#used % size)
    this.memory.write32(element, id)
    this.memory.write32(element + 4, length)
    this.#used = (this.#used + 1) & 0xffff
  }

  publish(): boolean {
    const { used, avail, size, hasEventIdx } = this.ring
    const [before, now] = [this.#published, this.#used]
    if (before === now) return false
    this.#published = now
    this.memory.write16(used + 2, now)
    if (!hasEventIdx) return (this.memory.read16(avail) & 1) === 0
    // §2.7.7.2: whether used_event lies among the indices that were passed.
    const event = this.memory.read16(avail + 4 + 2 * size)
    for (let index = before; index !== now; index = (index + 1) & 0xffff) {
      if (index === event) return true
    }
    return false
  }

  enableKick(): boolean {
    const { used, size, hasEventIdx } = this.ring
    if (hasEventIdx) this.memory.write16(used + 4 + 8 * size, this.#next)
    else this.memory.write16(used, 0)
    return this.hasChain()
  }

  disableKick(): void {
    if (!this.ring.hasEventIdx) this.memory.write16(this.ring.used, 1)
  }

  base(): number {
    return this.#next
  }
}

/** A place in a packed ring: entries since the ring began, so that laps need no flags. */
export class PackedModel extends RingModel {
  #next: number
  #used: number
  /** Entries of each chain that was taken, and of those that were put since `publish`. */
  readonly #taken: number[] = []
  #unpublished: { at: number; flags: number } | null = null
  #pending = 0
  #outstanding: number

  constructor(ring: ModelRing, memory: GuestModel) {
    super(ring, memory)
    const low = ring.base & 0xffff
    const high = ring.base >>> 16 === 0 ? low : ring.base >>> 16
    // The first lap's wrap counter is 1. What is used may be one lap behind.
    this.#used = (high >>> 15 === 1 ? 0 : ring.size) + (high & 0x7fff)
    this.#next = (low >>> 15 === 1 ? 0 : ring.size) + (low & 0x7fff)
    if (this.#next < this.#used) this.#next += 2 * ring.size
    this.#outstanding = this.#next - this.#used
  }

  protected isPacked(): boolean {
    return true
  }

  #wrapOf(place: number): number {
    return Math.floor(place / this.ring.size) % 2 === 0 ? 1 : 0
  }

  #addressOf(place: number): number {
    return this.ring.descriptors + 16 * (place % this.ring.size)
  }

  #isAvailable(place: number): boolean {
    const flags = this.memory.read16(this.#addressOf(place) + 14)
    const wrap = this.#wrapOf(place)
    return ((flags >>> 7) & 1) === wrap && ((flags >>> 15) & 1) !== wrap
  }

  isOverstepped(): boolean {
    const free = this.ring.size - this.#outstanding
    for (let ahead = 0; ahead <= free; ahead++) {
      if (!this.#isAvailable(this.#next + ahead)) return false
    }
    return true
  }

  hasChain(): boolean {
    if (this.broken !== 0 || !this.#isAvailable(this.#next)) return false
    if (this.#outstanding === this.ring.size) this.broken = AVAIL_STEP
    return this.broken === 0
  }

  protected looksAhead(): boolean {
    return this.hasChain()
  }

  protected peek(): { id: number; descriptor: Descriptor } {
    const descriptor = this.descriptor(this.#addressOf(this.#next))
    return { id: descriptor.last, descriptor }
  }

  protected read(collected: Collected): { id: number; entries: number } | number {
    const free = this.ring.size - this.#outstanding
    for (let entries = 1; ; entries++) {
      const descriptor = this.descriptor(this.#addressOf(this.#next + entries - 1))
      const { flags, last } = descriptor
      const broken =
        (flags & F_INDIRECT) === 0 ? collected.add(descriptor) : this.#table(collected, descriptor)
      if (broken !== 0) return broken
      if ((flags & F_NEXT) === 0) return collected.isEmpty ? EMPTY : { id: last, entries }
      if (entries === free) return LOOP
      if (entries === SEGMENTS_MAX) return CHAIN_LENGTH
    }
  }

  /** §2.8.7: all descriptors of the table, whatever their NEXT says. */
  #table(collected: Collected, indirect: Descriptor): number {
    const size = this.tableSize(indirect)
    if (size === 0) return INDIRECT
    for (let at = 0; at < size; at++) {
      const broken = collected.add(this.descriptor(indirect.address + 16 * at))
      if (broken !== 0) return broken
    }
    return 0
  }

  protected advance(entries: number): void {
    this.#next += entries
    this.#outstanding += entries
    this.#taken.push(entries)
  }

  untake(chains: number): void {
    for (let n = 0; n < chains; n++) {
      const entries = this.#taken.pop()!
      this.#next -= entries
      this.#outstanding -= entries
    }
  }

  put(id: number, entries: number, length: number): void {
    const at = this.#addressOf(this.#used)
    const wrap = this.#wrapOf(this.#used) === 1 ? 0x8080 : 0
    const flags = wrap | (length > 0 ? F_WRITE : 0)
    this.memory.write32(at + 8, length)
    this.memory.write16(at + 12, id)
    // The driver must not see any of them before it can see all.
    if (this.#unpublished === null) this.#unpublished = { at: this.#used, flags }
    else this.memory.write16(at + 14, flags)
    this.#used += entries
    this.#pending += entries
  }

  publish(): boolean {
    if (this.#unpublished === null) return false
    const { at: first, flags } = this.#unpublished
    this.memory.write16(this.#addressOf(first) + 14, flags)
    this.#unpublished = null
    this.#outstanding -= this.#pending
    const passed = this.#pending
    this.#pending = 0
    // §2.8.10: the driver's event suppression structure.
    const [offset, mode] = [
      this.memory.read16(this.ring.avail),
      this.memory.read16(this.ring.avail + 2) & 3,
    ]
    // An entry that the ring does not have.
    this.isOpen = mode === 2 && (offset & 0x7fff) >= this.ring.size
    if (mode === 1) return false
    if (mode !== 2 || !this.ring.hasEventIdx) return true
    for (let place = first; place < first + passed; place++) {
      const isHere = place % this.ring.size === (offset & 0x7fff)
      if (isHere && this.#wrapOf(place) === offset >>> 15) return true
    }
    return false
  }

  enableKick(): boolean {
    const { used, hasEventIdx, size } = this.ring
    const here = (this.#next % size) | (this.#wrapOf(this.#next) << 15)
    this.memory.write16(used, hasEventIdx ? here : 0)
    this.memory.write16(used + 2, hasEventIdx ? 2 : 0)
    return this.hasChain()
  }

  disableKick(): void {
    this.memory.write16(this.ring.used, 0)
    this.memory.write16(this.ring.used + 2, 1)
  }

  base(): number {
    const half = (place: number): number => (place % this.ring.size) | (this.#wrapOf(place) << 15)
    return (half(this.#next) | (half(this.#used) << 16)) >>> 0
  }
}
