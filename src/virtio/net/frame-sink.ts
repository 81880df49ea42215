/**
 * From a burst into a receiveq: one copy of each frame into the buffers that the driver offers,
 * behind a vnet_hdr spelt from what the switch knows of the frame. With mergeable buffers a frame
 * takes as many chains as it needs, and num_buffers says how many.
 *
 * Copies are rows of the engine's program: the driver learns of them (publish) after it has run.
 *
 * A driver could make every frame dear that others send to it: chains of 1024 descriptors of no bytes, or
 * buffers of one byte each. So the descriptors that are read are counted against what its frames may
 * cost; when they exceed that, its frames are dropped (`tooDear`) until turns have made up for it.
 * Source: VIRTIO 1.3 §5.1.6.3, §5.1.6.4.
 */
import { VNET_HDR_MRG_LENGTH, VNET_HDR_OUTER_TH_OFFSET } from '../../abi/virtio-net.ts'
import type { Burst } from '../../mem/burst.ts'
import { HEAD_WORDS } from '../../mem/burst.ts'
import type { CopyProgram } from '../../mem/copy-program.ts'
import { COPY_ROWS_MAX } from '../../mem/copy-program.ts'
import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { NewHeads } from '../../mem/new-heads.ts'
import { ownLength, skippedLength, writeHead } from '../../mem/new-heads.ts'
import { ownAll } from '../../mem/own-all.ts'
import { Window } from '../../mem/window.ts'
import {
  COPY_BEHIND_HEAD,
  COPY_BEHIND_HEADER,
  COPY_BEHIND_TAG,
  COPY_ROW_INTS,
  COPY_SAME_HEAD,
} from '../../native/shim.ts'
import { isTunnelled, moveChecksum, moveHeaderLength, moveTunnel } from '../../wire/vnet-hdr.ts'
import { BROKEN_EMPTY, Chain } from '../ring/chain.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import type { DirtyLog } from '../ring/dirty-log.ts'
import { PlainKind, PlainPlaces } from '../ring/plain-chains.ts'
import {
  DESCRIPTOR_BYTES_SHIFT,
  DESCRIPTORS_AHEAD,
  FRAME_DESCRIPTORS,
} from './descriptor-budget.ts'
import { makeRoom, Targets } from './targets.ts'

/** Results of `deliver`. */
export const DELIVERED = 0
/** The driver offers no buffer, or too few for this frame. */
export const NO_BUFFER = 1
/** Longer than a buffer, and the driver takes no merged ones. */
export const TOO_LONG = 2
/** The driver's buffers have used up what they may cost for now. */
export const TOO_DEAR = 3

/** Buffers of one frame, in chains and in segments: 64 KiB in buffers of 256 bytes and more. */
const TARGETS_MAX = 1024
/** vnet_hdrs between two runs of the copy program, which has no more rows than that. */
const HEADERS: number = COPY_ROWS_MAX
const HEADER_STRIDE = 32
const HEADER_WORDS: number = HEADER_STRIDE / 4
/** As many heads of frames behind them. */
const HEADS_AT: number = (HEADERS + 1) * HEADER_STRIDE
const TUNNEL_WORD: number = VNET_HDR_OUTER_TH_OFFSET >> 2
/** A constant of this module is part of the machine code, an imported one is loaded at each use. */
const HEADER_LENGTH: number = VNET_HDR_MRG_LENGTH
const ROW_INTS: number = COPY_ROW_INTS
const BEHIND_HEADER: number = COPY_BEHIND_HEADER
const BEHIND_HEAD: number = COPY_BEHIND_HEAD
const BEHIND_TAG: number = COPY_BEHIND_TAG
const SAME_HEAD: number = COPY_SAME_HEAD
/** Of a head of ours, which has at most so many bytes. */
const HEAD_STRIDE = 20
/** Of the frames of a list that all begin the same. */
const ONE_HEAD_ROWS = 2
/** Where it is written, and nobody reads it. */
const UNUSED_HEAD: number = HEADS_AT + HEADERS * HEAD_STRIDE
/** num_buffers 1, behind csum_offset. */
const ONE_BUFFER: number = 1 << 16

export class FrameSink {
  /** 10, 12, 20 or 24 bytes. */
  headerLength = 12
  isMergeable = false
  /** TUN_F_* bits that the driver takes; 0: its headers are all zero but num_buffers. */
  offloads = 0
  /** Set while the guest migrates. */
  log: DirtyLog | null = null
  /** How frames begin, while they begin otherwise than they came. */
  heads: NewHeads | null = null
  /** Of the last `deliverAll`: frames and their L2 bytes that were delivered, and others by reason. */
  frames = 0
  bytes = 0
  tooLong = 0
  tooDear = 0
  /** Descriptors that may still be read; set before and taken back after by the port. */
  descriptorsLeft: number = DESCRIPTORS_AHEAD

  readonly #copies: CopyProgram
  readonly #chain: Chain
  readonly #kind: PlainKind = new PlainKind(true)
  readonly #places: PlainPlaces = new PlainPlaces()
  readonly #headers: Window
  readonly #headerWords: Int32Array
  #header = 0
  #head = 0
  /** Where the bytes of one frame go, and the chains that is of. */
  readonly #targets: Targets
  readonly #ids: Int32Array = new Int32Array(TARGETS_MAX)
  readonly #entries: Int32Array = new Int32Array(TARGETS_MAX)
  readonly #capacities: Float64Array = new Float64Array(TARGETS_MAX)

  constructor(copies: CopyProgram) {
    this.#copies = copies
    this.#targets = new Targets(copies, TARGETS_MAX)
    const made = ownAll((own) => ({
      chain: own(new Chain()),
      headers: own(Window.map(UNUSED_HEAD + HEAD_STRIDE)),
    }))
    this.#chain = made.chain
    this.#headers = made.headers
    this.#headerWords = new Int32Array(this.#headers.buffer)
  }

  /**
   * Frames list[first .. first + count) of the burst into the queue, in that order; afterwards
   * `frames`, `bytes`, `tooLong` and `tooDear` say what became of them, the rest found no buffer.
   * @hot
   */
  deliverAll(
    queue: DeviceQueue,
    memory: GuestMemory,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
  ): void {
    this.frames = 0
    this.bytes = 0
    this.tooLong = 0
    this.tooDear = 0
    const end = first + count
    let at = first
    // Buffers that turn out not to be plain are looked at again: not all of them for every frame.
    let most = count
    while (at < end) {
      if (this.headerLength === HEADER_LENGTH) {
        const asked = most < end - at ? most : end - at
        const plain = this.#deliverPlain(queue, memory, burst, list, at, asked)
        at += plain
        if (at === end) return
        most = plain === asked ? 2 * asked : plain === 0 ? 1 : plain
        if (plain === asked) continue
      }
      const k = list[at]
      const result = this.deliver(queue, burst, k)
      if (result === DELIVERED) {
        this.frames++
        this.bytes += burst.length[k] + this.#moved(k)
      } else if (result === TOO_LONG) this.tooLong++
      else if (result === TOO_DEAR) {
        this.tooDear += end - at
        return
      } else if (!queue.hasChain()) return
      at++
    }
  }

  /**
   * The first of those frames, as long as each finds a single buffer that takes it all; returns how
   * many. Headers are rows of the program as well: the guest's memory is the shim's alone to write.
   * @hot
   */
  #deliverPlain(
    queue: DeviceQueue,
    memory: GuestMemory,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
  ): number {
    const chains = queue.takePlain(this.#kind, this.#places, 0, count)
    if (chains === 0) return 0
    const start = this.#copies.reserve(3 * chains + ONE_HEAD_ROWS)
    const { heads } = this
    const hasOffloads = this.offloads !== 0 && burst.hasOffloads
    const isPlain = heads === null || (heads.isOne && !hasOffloads)
    const n = isPlain
      ? this.#addPlain(queue, burst, list, first, chains, start, heads)
      : this.#addWithHeads(queue, burst, list, first, chains, start, heads)
    if (burst.furtherTotal !== 0) this.#addFurther(burst, list, first, n, isPlain ? 1 : 0)
    if (this.log !== null) this.#noteAll(this.log, memory, burst, list, first, n)
    if (n < chains) queue.untake(chains - n)
    this.frames += n
    return n
  }

  /**
   * Their rows, as they came or all with the same head, with a second piece; returns of how many. No call but the put:
   * what does not change is loaded once.
   * @hot
   */
  #addPlain(
    queue: DeviceQueue,
    burst: Burst,
    list: Int32Array,
    first: number,
    chains: number,
    start: number,
    heads: NewHeads | null,
  ): number {
    const { id } = this.#kind
    const { window: toWindows, offset: toOffsets, length: rooms } = this.#places
    const { window: windows, offset: offsets, length: lengths } = burst
    const { gso, gsoSize, csumOffset, firstLength, furtherCount } = burst
    const { furtherFirst, furtherWindow, furtherOffset, furtherLength } = burst
    const hasOffloads = this.offloads !== 0 && burst.hasOffloads
    const hasFurther = burst.furtherTotal !== 0
    const { table } = this.#copies
    let row = start
    const headers = this.#headers.id
    const words = this.#headerWords
    let flags = BEHIND_HEADER
    let moved = 0
    let skipped = 0
    if (heads !== null) {
      const one = list[first]
      this.#addHead(burst, one, heads.word[one], row)
      row += ONE_HEAD_ROWS * ROW_INTS
      moved = heads.moved[one]
      skipped = skippedLength(moved)
      flags |= BEHIND_HEAD | SAME_HEAD | (moved > 0 ? BEHIND_TAG : 0)
    }
    let bytes = 0
    let n = 0
    for (; n < chains; n++) {
      const k = list[first + n]
      const length = lengths[k] + moved
      let offset = toOffsets[n]
      if (rooms[n] < HEADER_LENGTH + length) break
      const toWindow = toWindows[n]
      let flag = flags
      if (hasOffloads) {
        const header = this.#header
        this.#header = (header + 1) & (HEADERS - 1)
        const at = header * HEADER_WORDS
        words[at] = gso[k]
        words[at + 1] = gsoSize[k]
        words[at + 2] = csumOffset[k] | ONE_BUFFER
        table[row] = headers
        table[row + 1] = header * HEADER_STRIDE
        table[row + 2] = toWindow
        table[row + 3] = offset
        table[row + 4] = HEADER_LENGTH
        row += ROW_INTS
        offset += HEADER_LENGTH
        flag = 0
      }
      table[row] = windows[k]
      table[row + 1] = offsets[k] + skipped
      table[row + 2] = toWindow
      table[row + 3] = offset
      if (hasFurther && furtherCount[k] !== 0) {
        table[row + 4] = (firstLength[k] - skipped) | flag
        if (furtherCount[k] === 1) {
          row += ROW_INTS
          const further = furtherFirst[k]
          table[row] = furtherWindow[further]
          table[row + 1] = furtherOffset[further]
          table[row + 2] = toWindow
          table[row + 3] = toOffsets[n] + HEADER_LENGTH + firstLength[k] + moved
          table[row + 4] = furtherLength[further]
        }
      } else table[row + 4] = (lengths[k] - skipped) | flag
      row += ROW_INTS
      queue.put(id[n], 1, HEADER_LENGTH + length)
      bytes += length
    }
    this.#copies.append(((row - start) / ROW_INTS) | 0)
    this.bytes += bytes
    return n
  }

  /** A row that copies nothing, and says what all that follow begin with. @hot */
  #addHead({ heads }: Burst, k: number, word: number, row: number): void {
    const { table } = this.#copies
    table[row] = this.#headers.id
    table[row + 1] = UNUSED_HEAD
    table[row + 2] = this.#headers.id
    table[row + 3] = UNUSED_HEAD
    table[row + 4] = BEHIND_HEAD
    writeHead(table, row + ROW_INTS, heads, k * HEAD_WORDS, word)
  }

  /** The same with heads of their own. @hot */
  #addWithHeads(
    queue: DeviceQueue,
    burst: Burst,
    list: Int32Array,
    first: number,
    chains: number,
    start: number,
    { word, moved }: NewHeads,
  ): number {
    const { id } = this.#kind
    const { window: toWindows, offset: toOffsets, length: rooms } = this.#places
    const { window: windows, offset: offsets, length: lengths, heads } = burst
    const { firstLength, furtherCount } = burst
    const hasOffloads = this.offloads !== 0 && burst.hasOffloads
    const hasFurther = burst.furtherTotal !== 0
    const { table } = this.#copies
    let row = start
    let bytes = 0
    let n = 0
    for (; n < chains; n++) {
      const k = list[first + n]
      const by = moved[k]
      const length = lengths[k] + by
      let offset = toOffsets[n]
      if (rooms[n] < HEADER_LENGTH + length) break
      let flags = by > 0 ? BEHIND_HEAD | BEHIND_TAG : BEHIND_HEAD
      if (hasOffloads) {
        table[row] = this.#headers.id
        table[row + 1] = this.#spellHeader(burst, k, by)
        table[row + 2] = toWindows[n]
        table[row + 3] = offset
        table[row + 4] = HEADER_LENGTH
        row += ROW_INTS
        offset += HEADER_LENGTH
      } else flags |= BEHIND_HEADER
      const piece = hasFurther && furtherCount[k] !== 0 ? firstLength[k] : lengths[k]
      const skipped = skippedLength(by)
      table[row] = windows[k]
      table[row + 1] = offsets[k] + skipped
      table[row + 2] = toWindows[n]
      table[row + 3] = offset
      table[row + 4] = (piece - skipped) | flags
      writeHead(table, row + ROW_INTS, heads, k * HEAD_WORDS, word[k])
      row += 2 * ROW_INTS
      queue.put(id[n], 1, HEADER_LENGTH + length)
      bytes += length
    }
    this.#copies.append(((row - start) / ROW_INTS) | 0)
    this.bytes += bytes
    return n
  }

  /** What those frames have in further segments; those of `done` have their rows. @hot */
  #addFurther(burst: Burst, list: Int32Array, first: number, count: number, done: number): void {
    const { window, offset } = this.#places
    for (let n = 0; n < count; n++) {
      const k = list[first + n]
      if (burst.furtherCount[k] <= done) continue
      const to = offset[n] + HEADER_LENGTH + this.#moved(k)
      this.#copies.addFurther(burst, k, window[n], to, burst.length[k])
    }
  }

  /** @hot */
  #noteAll(
    log: DirtyLog,
    memory: GuestMemory,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
  ): void {
    const { window, offset } = this.#places
    for (let n = 0; n < count; n++) {
      const address = memory.addressOf(window[n]) + offset[n]
      makeRoom(log, this.#copies)
      const k = list[first + n]
      log.note(address, HEADER_LENGTH + burst.length[k] + this.#moved(k))
    }
  }

  /** So many bytes more than in the burst frame k has when it is delivered. @hot */
  #moved(k: number): number {
    return this.heads === null ? 0 : this.heads.moved[k]
  }

  /** Frame k of the burst into the next buffers of the queue, however they are cut. @hot */
  deliver(queue: DeviceQueue, burst: Burst, k: number): number {
    const chain = this.#chain
    if (this.descriptorsLeft < 0) return TOO_DEAR
    this.descriptorsLeft += FRAME_DESCRIPTORS + (burst.length[k] >> DESCRIPTOR_BYTES_SHIFT)
    if (!queue.take(chain)) return NO_BUFFER
    const total = this.headerLength + burst.length[k] + this.#moved(k)
    return this.#deliverScattered(queue, burst, k, total)
  }

  /** The chain that was taken is the first of those that the frame needs. @hot */
  #deliverScattered(queue: DeviceQueue, burst: Burst, k: number, total: number): number {
    const chain = this.#chain
    this.#targets.begin(this.log)
    let chains = 0
    let capacity = 0
    for (;;) {
      if (chain.writableLength === 0) {
        queue.broken = BROKEN_EMPTY
        queue.untake(chains + 1)
        return NO_BUFFER
      }
      this.#ids[chains] = chain.id
      this.#entries[chains] = chain.entries
      this.#capacities[chains] = chain.writableLength
      chains++
      this.descriptorsLeft -= chain.descriptors
      const hasRoom = this.#targets.add(chain)
      capacity += chain.writableLength
      if (hasRoom && capacity >= total) break
      if (!hasRoom || !this.isMergeable || chains === TARGETS_MAX) {
        queue.untake(chains)
        return TOO_LONG
      }
      if (this.descriptorsLeft < 0) {
        queue.untake(chains)
        return TOO_DEAR
      }
      if (!queue.take(chain)) {
        queue.untake(chains)
        return NO_BUFFER
      }
    }
    this.#copyHeader(burst, k, chains)
    this.#copyFrame(burst, k)
    let left = total
    for (let at = 0; at < chains; at++) {
      const used = left < this.#capacities[at] ? left : this.#capacities[at]
      queue.put(this.#ids[at], this.#entries[at], used)
      left -= used
    }
    return DELIVERED
  }

  /** @hot */
  #copyHeader(burst: Burst, k: number, buffers: number): void {
    const offset = this.#spellHeader(burst, k, this.#moved(k))
    const words = this.#headerWords
    const at = offset >> 2
    // Words 3 and 4 stay zero: no hash is reported.
    if (this.offloads === 0) words.fill(0, at, at + 2)
    words[at + 2] = (this.offloads === 0 ? 0 : burst.csumOffset[k]) | (buffers << 16)
    words[at + TUNNEL_WORD] = isTunnelled(words[at])
      ? moveTunnel(words[at], burst.tunnel[k], this.#moved(k))
      : 0
    this.#targets.copy(this.#headers.id, offset, this.headerLength)
  }

  /** The vnet_hdr of frame k, which has so many bytes more, but for that of a tunnel; returns where it stands. @hot */
  #spellHeader(burst: Burst, k: number, moved: number): number {
    const header = this.#header
    this.#header = (header + 1) & (HEADERS - 1)
    const words = this.#headerWords
    const at = header * HEADER_WORDS
    const gso = burst.gso[k]
    words[at] = moveHeaderLength(gso, moved)
    words[at + 1] = moveChecksum(gso, burst.gsoSize[k], moved)
    words[at + 2] = burst.csumOffset[k] | ONE_BUFFER
    return header * HEADER_STRIDE
  }

  /** @hot */
  #copyFrame(burst: Burst, k: number): void {
    const skip = this.heads === null ? 0 : this.#copyHead(burst, k, this.heads)
    const length = burst.isScattered(k) ? burst.firstLength[k] : burst.length[k]
    this.#targets.copy(burst.window[k], burst.offset[k] + skip, length - skip)
    if (!burst.isScattered(k)) return
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let at = burst.furtherFirst[k]; at < end; at++) {
      this.#targets.copy(burst.furtherWindow[at], burst.furtherOffset[at], burst.furtherLength[at])
    }
  }

  /** Returns how much of the frame it stands for. @hot */
  #copyHead(burst: Burst, k: number, { word, moved }: NewHeads): number {
    const at = HEADS_AT + this.#head * HEAD_STRIDE
    this.#head = (this.#head + 1) & (HEADERS - 1)
    const words = this.#headerWords
    const to = at >> 2
    const head = k * HEAD_WORDS
    for (let n = 0; n < HEAD_WORDS - 1; n++) words[to + n] = burst.heads[head + n]
    words[to + 3] = word[k]
    words[to + 4] = burst.heads[head + 3]
    this.#targets.copy(this.#headers.id, at, ownLength(moved[k]))
    return skippedLength(moved[k])
  }

  close(): void {
    this.#chain.close()
    this.#headers.unmap()
  }
}
