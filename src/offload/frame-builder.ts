/**
 * Frames for one egress, made from frames of a burst: headers of our own in front of slices of the
 * original bytes, which are not copied. They are handed on when the burst of new frames is full, and at
 * the end; their checksums are summed up by one native call before that. Each kind of stage has one: the
 * frames of one stage are what the next one makes its own from.
 *
 *     | header, in our window | slice of the original | slice | ...
 */
import {
  Burst,
  BURST_SIZE_MAX,
  FURTHER_MAX,
  FURTHER_PER_FRAME_MAX,
  HEAD_WORDS,
  ZEROS_BEFORE,
} from '../mem/burst.ts'
import { Window } from '../mem/window.ts'
import { HEADERS_MAX, write16 } from '../wire/headers.ts'
import { CHECKSUM_ROWS_MAX, ChecksumProgram } from './checksum-program.ts'
import type { FrameTaker } from './stage.ts'

/** Headers between two flushes of the tier. */
const SLOTS = 1024
/** A multiple of 4. */
const SLOT_STRIDE: number = HEADERS_MAX
/** Slices of one frame: those of the longest scattered one, and what lies before its first cut. */
export const SLICES_MAX: number = FURTHER_PER_FRAME_MAX + 2
/** Frames numbered by their place. */
const ALL: Int32Array = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)
const NO_SUM = -1

export class FrameBuilder {
  /** The headers' bytes, by the offsets that `start` returns. */
  readonly bytes: Uint8Array
  /** The same by words: those offsets are multiples of 4. */
  readonly words: Int32Array
  readonly #burst: Burst = new Burst()
  readonly #window: Window
  readonly #flushWrites: () => void
  #taker: FrameTaker | null = null
  #queue = 0
  #slot = 0
  /** Of the frame that is being built: where it starts, and its further segments and their bytes. */
  #header = 0
  #first = 0
  #slices = 0
  #sliced = 0
  /** Where the original is read on: piece -1 is the first segment. */
  #source: Burst = this.#burst
  #sourceFrame = 0
  #piece = -1
  #pieceAt = 0

  readonly #checksums: ChecksumProgram = new ChecksumProgram()
  #rowsBefore = 0
  /** By frame: offset of its checksum in our window, or NO_SUM. */
  readonly #sumAt: Int32Array = new Int32Array(BURST_SIZE_MAX)

  /** `flushWrites` completes everything that ports were given: headers may be reused after it. */
  constructor(flushWrites: () => void) {
    this.#flushWrites = flushWrites
    this.#burst.hasOffloads = true
    this.#window = Window.map(SLOTS * SLOT_STRIDE)
    this.bytes = new Uint8Array(this.#window.buffer)
    this.words = new Int32Array(this.#window.buffer)
  }

  /** From now on frames are for this one. @hot */
  begin(taker: FrameTaker, queue: number): void {
    this.#taker = taker
    this.#queue = queue
  }

  /** Starts a frame; returns where its header, of at most HEADERS_MAX bytes, goes in `bytes`. @hot */
  start(): number {
    this.#makeRoom()
    if (this.#slot === SLOTS) {
      this.flush()
      this.#flushWrites()
      this.#slot = 0
    }
    const k = this.#burst.count
    this.#header = this.#slot++ * SLOT_STRIDE
    this.#first = this.#burst.furtherTotal
    this.#slices = 0
    this.#sliced = 0
    this.#sumAt[k] = NO_SUM
    this.#rowsBefore = this.#checksums.count
    return this.#header
  }

  /** @hot */
  #makeRoom(): void {
    const burst = this.#burst
    if (
      burst.count === BURST_SIZE_MAX ||
      burst.furtherTotal + SLICES_MAX > FURTHER_MAX ||
      this.#checksums.count + SLICES_MAX + 1 > CHECKSUM_ROWS_MAX
    ) {
      this.flush()
    }
  }

  /**
   * The frame has a checksum at `at` of its header, over the `length` bytes at `from` of the header,
   * everything that is taken from now on, and `initial`, the sum of the rest.
   * @hot
   */
  startSum(at: number, from: number, length: number, initial: number): void {
    const k = this.#burst.count
    this.#sumAt[k] = this.#header + at
    this.#checksums.start(k, initial)
    this.#checksums.add(this.#window.id, this.#header + from, length)
  }

  /** The following `take`s are of frame k of this burst, from byte `from` on. @hot */
  readFrom(burst: Burst, k: number, from: number): void {
    this.#source = burst
    this.#sourceFrame = k
    this.#piece = -1
    this.#pieceAt = 0
    let left = from
    while (left > 0) {
      const length = this.#pieceLength()
      if (left < length) {
        this.#pieceAt = left
        return
      }
      left -= length
      this.#piece++
    }
  }

  /** @hot */
  #pieceLength(): number {
    const { furtherFirst, furtherLength, firstLength, length } = this.#source
    const k = this.#sourceFrame
    if (this.#piece >= 0) return furtherLength[furtherFirst[k] + this.#piece]
    return this.#source.isScattered(k) ? firstLength[k] : length[k]
  }

  /**
   * Appends the next bytes of the original, which has as many. False: they lie in too many pieces;
   * the frame cannot be built, and the next `start` takes its place.
   * @hot
   */
  take(bytes: number): boolean {
    const source = this.#source
    const k = this.#sourceFrame
    let left = bytes
    while (left > 0) {
      const rest = this.#pieceLength() - this.#pieceAt
      const part = left < rest ? left : rest
      if (part > 0) {
        if (this.#slices === SLICES_MAX) {
          this.#checksums.cutBack(this.#rowsBefore)
          return false
        }
        const piece = source.furtherFirst[k] + this.#piece
        const isFirst = this.#piece < 0
        const window = isFirst ? source.window[k] : source.furtherWindow[piece]
        const base = isFirst ? source.offset[k] : source.furtherOffset[piece]
        this.#addSlice(window, base + this.#pieceAt, part)
      }
      left -= part
      this.#pieceAt += part
      if (part === rest) {
        this.#piece++
        this.#pieceAt = 0
      }
    }
    return true
  }

  /** @hot */
  #addSlice(window: number, offset: number, length: number): void {
    const burst = this.#burst
    const at = this.#first + this.#slices
    burst.furtherWindow[at] = window
    burst.furtherOffset[at] = offset
    burst.furtherLength[at] = length
    this.#slices++
    this.#sliced += length
    if (this.#sumAt[burst.count] !== NO_SUM) this.#checksums.add(window, offset, length)
  }

  /** Ends the frame, whose header has this length and whose vnet_hdr says this. @hot */
  end(
    headerLength: number,
    gso: number,
    gsoSize: number,
    csumOffset: number,
    needs: number,
    tunnel: number,
  ): void {
    const burst = this.#burst
    const k = burst.count
    burst.window[k] = this.#window.id
    burst.offset[k] = this.#header
    burst.length[k] = headerLength + this.#sliced
    burst.firstLength[k] = headerLength
    burst.furtherFirst[k] = this.#first
    burst.furtherCount[k] = this.#slices
    burst.furtherTotal = this.#first + this.#slices
    burst.headLength[k] = 0
    burst.gso[k] = gso
    burst.gsoSize[k] = gsoSize
    burst.csumOffset[k] = csumOffset
    burst.needs[k] = needs
    burst.tunnel[k] = tunnel
    const word = this.#header >> 2
    const head = k * HEAD_WORDS
    for (let at = 0; at < HEAD_WORDS; at++) burst.heads[head + at] = this.words[word + at]
    burst.count = k + 1
  }

  /** Frame k of the burst as it is. @hot */
  pass(from: Burst, k: number): void {
    this.#makeRoom()
    const burst = this.#burst
    const to = burst.count
    burst.take(from, k, to)
    this.#sumAt[to] = NO_SUM
    if (from.isScattered(k)) this.#passFurther(from, k, to)
    else burst.furtherCount[to] = 0
    burst.count = to + 1
  }

  /** @hot */
  #passFurther(from: Burst, k: number, to: number): void {
    const burst = this.#burst
    const first = burst.furtherTotal
    const count = from.furtherCount[k]
    burst.furtherFirst[to] = first
    for (let at = 0; at < count; at++) {
      const piece = from.furtherFirst[k] + at
      burst.furtherWindow[first + at] = from.furtherWindow[piece]
      burst.furtherOffset[first + at] = from.furtherOffset[piece]
      burst.furtherLength[first + at] = from.furtherLength[piece]
    }
    burst.furtherTotal = first + count
  }

  /** The first `length` bytes of frame k, which has more: without what its vnet_hdr said of the whole. @hot */
  cut(from: Burst, k: number, length: number): void {
    this.pass(from, k)
    const burst = this.#burst
    const to = burst.count - 1
    burst.length[to] = length
    // A vnet_hdr that stands before the frame is not that of its beginning.
    if (burst.headLength[to] !== ZEROS_BEFORE) burst.headLength[to] = 0
    burst.gso[to] = 0
    burst.gsoSize[to] = 0
    burst.csumOffset[to] = 0
    burst.needs[to] = 0
    burst.tunnel[to] = 0
    if (burst.isScattered(to)) this.#cutFurther(to, length)
  }

  /** @hot */
  #cutFurther(to: number, length: number): void {
    const burst = this.#burst
    const first = burst.furtherFirst[to]
    let left = length - burst.firstLength[to]
    if (left < 0) burst.firstLength[to] = length
    let pieces = 0
    while (left > 0) {
      const piece = burst.furtherLength[first + pieces]
      if (piece > left) burst.furtherLength[first + pieces] = left
      left -= piece
      pieces++
    }
    burst.furtherCount[to] = pieces
    burst.furtherTotal = first + pieces
  }

  /** Hands on the frames built so far. @hot */
  flush(): void {
    const burst = this.#burst
    const count = burst.count
    if (this.#checksums.count > 0) this.#fillChecksums(count)
    if (count > 0) this.#taker!.transmit(burst, ALL, 0, count, this.#queue)
    burst.clear()
  }

  /** @hot */
  #fillChecksums(count: number): void {
    const checksums = this.#checksums
    checksums.run()
    for (let k = 0; k < count; k++) {
      if (this.#sumAt[k] === NO_SUM) continue
      // 0 means "none" in UDP, and 0xffff is the same number to everybody.
      const checksum = ~checksums.sum(k) & 0xffff
      write16(this.bytes, this.#sumAt[k], checksum === 0 ? 0xffff : checksum)
    }
  }

  close(): void {
    this.#window.unmap()
    this.#checksums.close()
    this.#burst.close()
  }
}
