/**
 * A burst: up to 256 frames read from one rx queue in one step, as numbers in parallel typed
 * arrays. There is one burst per engine; its owner is the engine, its contents are valid until the
 * rx queue is asked for the next burst.
 *
 *     window[k] @ offset[k] - headLength[k]          offset[k]
 *                 | vnet_hdr (0 or headLength bytes) | L2 bytes, length[k] ... |
 *
 * A frame from a guest may lie in several segments. Then `furtherTotal` is not 0, and for every
 * frame of the burst the first segment is firstLength[k] bytes at offset[k], the others are
 * furtherCount[k] entries of furtherWindow, -Offset and -Length from furtherFirst[k] on.
 */
import { shim } from '../native/shim.ts'
import { HEADERS_MAX } from '../wire/headers.ts'
import { FrameHeaders } from './frame-headers.ts'
import { Window } from './window.ts'

export const BURST_SIZE_MAX = 256

/** A `headLength`: zeros stand before the frame, enough for a vnet_hdr of any length (24). */
export const ZEROS_BEFORE = 255

/** Segments of one frame beyond the first. Linux guests make up to 19, one per page and more. */
export const FURTHER_PER_FRAME_MAX = 62
/** Segments beyond the first of all frames of a burst; a burst ends early rather than exceed it. */
export const FURTHER_MAX = 4096
/** With those of frames that were kept (`keep`), each of which has one more. */
const FURTHER_ROOM: number = 2 * FURTHER_MAX + BURST_SIZE_MAX

/** Of a burst of full frames of TCP a port that cannot take them gets two thirds of it. */
export const SEGMENTS_MAX = 16384

/** Int32 words of `heads` per frame: the first 16 L2 bytes. */
export const HEAD_WORDS = 4

/** What the shim reads and writes stands in a window: heads, three columns, inners, a mask. */
const HEADS_LENGTH: number = BURST_SIZE_MAX * HEAD_WORDS * 4
const COLUMN_LENGTH: number = BURST_SIZE_MAX * 4
const WINDOWS_AT: number = HEADS_LENGTH
const OFFSETS_AT: number = WINDOWS_AT + COLUMN_LENGTH
const LENGTHS_AT: number = OFFSETS_AT + COLUMN_LENGTH
const INNERS_AT: number = LENGTHS_AT + COLUMN_LENGTH
const MASK_AT: number = INNERS_AT + HEADS_LENGTH
/** Words of a mask for `endOfAlike`. */
export const MASK_WORDS = 16
/** What stands in `heads`, and that with the word behind it. */
const HEAD_LENGTH: number = HEAD_WORDS * 4
const INNER_END: number = HEAD_LENGTH + 4
const HEADS_AT = 0
const NO_HEADS = -1

export class Burst {
  /** Frames in use: 0..BURST_SIZE_MAX. */
  count = 0
  /**
   * What a polled port may put into it (engine/turn-budget.ts): frames, and chains that become none;
   * L2 bytes and descriptors, of which the chain that exceeds them is the last.
   */
  framesMax: number = BURST_SIZE_MAX
  bytesMax = 0x7fff_ffff
  descriptorsMax = 0x7fff_ffff
  /** Into how many segments its frames may be cut, for all ports together (offload/finish-stage.ts). */
  segmentsMax: number = SEGMENTS_MAX
  /**
   * So many bytes of each frame are read when it comes, and leave as they were read: for a port whose frames are
   * looked at, and which writes to them meanwhile. 0: `heads` only. More than HEAD_LENGTH.
   */
  ownLength = 0
  /** So much was read of each of the frames that are in it. */
  #isOwn = false
  /** And none of them has more. */
  #areWhole = false
  /** All of its frames have the same addresses and tag, as most bursts have; whoever finds out says so. */
  isOneRun = false
  /** Descriptors that were read for it, those of unusable chains as well; 0: there was no chain. */
  descriptors = 0
  readonly #columns: Window = Window.map(MASK_AT + 4 * MASK_WORDS)
  /** Window in which frame k lies. */
  readonly window: Int32Array = new Int32Array(this.#columns.buffer, WINDOWS_AT, BURST_SIZE_MAX)
  /** Offset of the first L2 byte in that window. */
  readonly offset: Int32Array = new Int32Array(this.#columns.buffer, OFFSETS_AT, BURST_SIZE_MAX)
  /** L2 bytes, without vnet_hdr and FCS. */
  readonly length: Int32Array = new Int32Array(this.#columns.buffer, LENGTHS_AT, BURST_SIZE_MAX)
  /** Bytes of vnet_hdr that stand right before the L2 bytes; 0: none; or ZEROS_BEFORE. */
  readonly headLength: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** First 16 L2 bytes of frame k at word k * HEAD_WORDS, as little-endian words. */
  readonly heads: Int32Array = new Int32Array(this.#columns.buffer, 0, BURST_SIZE_MAX * HEAD_WORDS)
  /**
   * After `readInners`: the word behind the head of frame k, at word k * HEAD_WORDS. Of a frame with a tag
   * it is what is inside. Of a frame that ends before it is any value.
   */
  readonly inners: Int32Array = new Int32Array(
    this.#columns.buffer,
    INNERS_AT,
    BURST_SIZE_MAX * HEAD_WORDS,
  )
  readonly #mask: Int32Array = new Int32Array(this.#columns.buffer, MASK_AT, MASK_WORDS)
  #hasInners = false
  /** They are all the same. */
  hasOneInner = false
  /** Clear: gso to needs are zero for every frame. Whoever writes anything else sets it. */
  hasOffloads = false
  /** vnet_hdr word 0: flags | gso_type << 8 | hdr_len << 16. */
  readonly gso: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** vnet_hdr word 1: gso_size | csum_start << 16. */
  readonly gsoSize: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** csum_offset of the vnet_hdr. */
  readonly csumOffset: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** TUN_F_* bits that an egress must be able to take for this frame; 0 for a plain one. */
  readonly needs: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** outer_th_offset | inner_nh_offset << 16 of the vnet_hdr; any value if gso_type has no tunnel. */
  readonly tunnel: Int32Array = new Int32Array(BURST_SIZE_MAX)

  /** Further segments of all frames together; 0: every frame is one segment. */
  furtherTotal = 0
  readonly firstLength: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly furtherFirst: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly furtherCount: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly furtherWindow: Int32Array = new Int32Array(FURTHER_ROOM)
  readonly furtherOffset: Int32Array = new Int32Array(FURTHER_ROOM)
  readonly furtherLength: Int32Array = new Int32Array(FURTHER_ROOM)

  /** More of its frames than `heads`, for who asks. */
  readonly headers: FrameHeaders

  /** `flushWrites` completes everything that ports were given: who gives it may `keep` frames. */
  constructor(flushWrites: (() => void) | null = null) {
    this.headers = new FrameHeaders(this, BURST_SIZE_MAX, flushWrites)
  }

  /** Whoever fills the burst begins with that: nothing is known of what comes. @hot */
  clear(): void {
    this.count = 0
    this.furtherTotal = 0
    this.#hasInners = false
    this.#isOwn = false
    this.isOneRun = false
    this.headers.forget()
  }

  /** Frame k lies in more than one segment. @hot */
  isScattered(k: number): boolean {
    return this.furtherTotal !== 0 && this.furtherCount[k] !== 0
  }

  /**
   * Frame k of a burst, which may be this one, becomes frame `to`. Its further segments stay where
   * they are described. What is known of its headers goes with it within a burst.
   * @hot
   */
  take(from: Burst, k: number, to: number): void {
    if (from === this) {
      this.headers.move(k, to)
      this.inners[to * HEAD_WORDS] = this.inners[k * HEAD_WORDS]
    }
    for (let word = 0; word < HEAD_WORDS; word++) {
      this.heads[to * HEAD_WORDS + word] = from.heads[k * HEAD_WORDS + word]
    }
    this.window[to] = from.window[k]
    this.offset[to] = from.offset[k]
    this.length[to] = from.length[k]
    this.headLength[to] = from.headLength[k]
    if (from === this && this.window[to] === this.headers.windowId) {
      this.offset[to] = this.headers.at(to)
    }
    this.gso[to] = from.gso[k]
    this.gsoSize[to] = from.gsoSize[k]
    this.csumOffset[to] = from.csumOffset[k]
    this.needs[to] = from.needs[k]
    this.tunnel[to] = from.tunnel[k]
    this.firstLength[to] = from.firstLength[k]
    this.furtherFirst[to] = from.furtherFirst[k]
    this.furtherCount[to] = from.furtherCount[k]
  }

  /**
   * Reads `heads` from where the frames lie, all of them by one call that prefetches: read one by
   * one they would be one cache miss after the other. Of a frame whose first segment is shorter
   * they are wrong behind its end. With an `ownLength` that much is read, and frames that are not longer have
   * come into memory of ours.
   * @hot
   */
  gatherHeads(): void {
    const { count } = this
    if (this.ownLength > 0 && this.furtherTotal === 0) {
      this.#areWhole = this.#gatherFrames(this.ownLength, HEADS_AT) === count
      this.headers.keep(count - 1)
      this.#isOwn = true
      return
    }
    const { id } = this.#columns
    const done = shim.gatherHeads(id, WINDOWS_AT, OFFSETS_AT, count, id, 0, 0)
    if (done !== count) throw new RangeError('place of a frame')
  }

  /** Reads `inners`, once in the life of the burst. @hot */
  readInners(): void {
    if (this.#hasInners) return
    this.#hasInners = true
    const { count, headers, inners } = this
    if (this.furtherTotal === 0) {
      const { id } = this.#columns
      const done = shim.gatherHeads(id, WINDOWS_AT, OFFSETS_AT, count, id, INNERS_AT, HEAD_LENGTH)
      if (done !== count) throw new RangeError('place of a frame')
    } else {
      for (let k = 0; k < count; k++) headers.want(k, INNER_END)
      headers.read()
      const { words } = headers
      for (let k = 0; k < count; k++) {
        inners[k * HEAD_WORDS] = words[(headers.at(k) + HEAD_LENGTH) >> 2]
      }
    }
    let others = 0
    for (let at = 0; at < count * HEAD_WORDS; at += HEAD_WORDS) others |= inners[at] ^ inners[0]
    this.hasOneInner = others === 0
  }

  /**
   * Frame k begins from now on with what was read of its headers: whoever has the memory that it came in
   * changes nothing there. False: it lies in too many pieces for that.
   * @hot
   */
  keep(k: number): boolean {
    const { headers, heads } = this
    if (this.window[k] === headers.windowId) return true
    const kept = headers.available(k)
    if (kept < this.length[k] && !this.#keepRest(k, kept)) return false
    if (kept >= this.length[k]) this.furtherCount[k] = 0
    this.window[k] = headers.windowId
    this.offset[k] = headers.keep(k)
    this.firstLength[k] = kept
    this.headLength[k] = 0
    const word = headers.at(k) >> 2
    for (let at = 0; at < HEAD_WORDS; at++) heads[k * HEAD_WORDS + at] = headers.words[word + at]
    return true
  }

  /** `keep` of all frames, if as much of each was read when it came (`ownLength`); false: it was not. @hot */
  keepAll(): boolean {
    if (!this.#isOwn) return false
    const { count, headers, window, offset, length, firstLength, headLength } = this
    // Where they lie now was said when they were read.
    if (this.#areWhole) return true
    const { furtherFirst, furtherCount, furtherWindow, furtherOffset, furtherLength } = this
    const own = headers.windowId
    let further = 0
    for (let k = 0; k < count; k++) {
      furtherCount[k] = 0
      if (window[k] === own) continue
      const kept = headers.available(k)
      if (kept < length[k]) {
        furtherFirst[k] = further
        furtherCount[k] = 1
        furtherWindow[further] = window[k]
        furtherOffset[further] = offset[k] + kept
        furtherLength[further] = length[k] - kept
        further++
      }
      window[k] = own
      offset[k] = headers.at(k)
      firstLength[k] = kept
      headLength[k] = 0
    }
    this.furtherTotal = further
    return true
  }

  /** What is behind so many bytes of frame k is what it has further. @hot */
  #keepRest(k: number, kept: number): boolean {
    const { furtherWindow, furtherOffset, furtherLength } = this
    const isScattered = this.isScattered(k)
    const first = isScattered ? this.firstLength[k] : this.length[k]
    let from = this.furtherFirst[k]
    const end = isScattered ? from + this.furtherCount[k] : from
    if (first > kept) {
      // The rest of the first piece, and the others behind it.
      const count = end - from + 1
      if (count > FURTHER_PER_FRAME_MAX) return false
      let to = this.furtherTotal
      // The others are single segments, which is not said of each as long as all are.
      if (to === 0) this.furtherCount.fill(0, 0, this.count)
      this.furtherFirst[k] = to
      this.furtherCount[k] = count
      this.furtherTotal = to + count
      furtherWindow[to] = this.window[k]
      furtherOffset[to] = this.offset[k] + kept
      furtherLength[to] = first - kept
      for (; from < end; from++) {
        to++
        furtherWindow[to] = furtherWindow[from]
        furtherOffset[to] = furtherOffset[from]
        furtherLength[to] = furtherLength[from]
      }
      return true
    }
    let left = kept - first
    while (left >= furtherLength[from]) left -= furtherLength[from++]
    furtherOffset[from] += left
    furtherLength[from] -= left
    this.furtherFirst[k] = from
    this.furtherCount[k] = end - from
    return true
  }

  /** Reads the first `length` bytes of all of them, HEADERS_MAX at most. @hot */
  readHeaders(length: number): void {
    const { count, headers } = this
    if (this.#isOwn && length <= this.ownLength) return
    if (this.furtherTotal === 0 && headers.isUnread) {
      this.#gatherFrames(length, NO_HEADS)
      return
    }
    for (let k = 0; k < count; k++) headers.want(k, length)
    headers.read()
  }

  /**
   * Behind the first of the frames, of which there is one at least, that are as long as frame 0 and like it in all bits
   * that the mask has of their first 64 bytes, of which as many as it has were read.
   * @hot
   */
  endOfAlike(mask: Int32Array): number {
    for (let n = 0; n < MASK_WORDS; n++) this.#mask[n] = mask[n]
    const { count, headers } = this
    const { windowId } = headers
    const { id } = this.#columns
    const at = headers.at(0)
    const end = shim.alikeRows(windowId, at, HEADERS_MAX, count, id, MASK_AT, id, LENGTHS_AT)
    if (end < 1) throw new RangeError('place of a frame')
    return end
  }

  /** Returns how many have no more. @hot */
  #gatherFrames(length: number, headsAt: number): number {
    const { count, headers } = this
    const to = headers.readAll(length)
    const { id } = this.#columns
    const whole = shim.gatherFrames(
      id,
      WINDOWS_AT,
      OFFSETS_AT,
      LENGTHS_AT,
      count,
      headers.windowId,
      to,
      length,
      headsAt,
    )
    if (whole < 0) throw new RangeError('place of a frame')
    return whole
  }

  /** No frame of the burst has a vnet_hdr that says anything. @hot */
  clearOffloads(): void {
    if (!this.hasOffloads) return
    this.hasOffloads = false
    this.gso.fill(0)
    this.gsoSize.fill(0)
    this.csumOffset.fill(0)
    this.needs.fill(0)
  }

  /** The window that begins with `heads`, for who puts one of them together from pieces. */
  get headsWindow(): number {
    return this.#columns.id
  }

  close(): void {
    this.headers.close()
    this.#columns.unmap()
  }
}
