/**
 * Runs filter programs over frames of a burst: rows of frames and their segments, filled in TypeScript and gone
 * through by one call.
 *
 *     begin(); add(burst, k) ...; run(program)        passes(n): of the n-th that was added
 */
import { FILTER_ROW_INTS, SEGMENT_INTS, shim } from '../native/shim.ts'
import type { Burst } from './burst.ts'
import { BURST_SIZE_MAX, FURTHER_MAX, HEAD_WORDS } from './burst.ts'
import { LOOKED_AT, ownLength, skippedLength } from './new-heads.ts'
import { Window } from './window.ts'

/** Each frame has a head and a first segment, and those that it has further. */
const SEGMENTS_ROOM: number = 2 * FURTHER_MAX + 3 * BURST_SIZE_MAX
const SEGMENTS_AT: number = BURST_SIZE_MAX * FILTER_ROW_INTS * 4
const HEADS_AT: number = SEGMENTS_AT + SEGMENTS_ROOM * SEGMENT_INTS * 4
const HEAD_STRIDE: number = LOOKED_AT

export class FrameFilter {
  /** Made when there is the first filter. */
  readonly #window: Window = Window.map(HEADS_AT + BURST_SIZE_MAX * HEAD_STRIDE)
  readonly #words: Int32Array = new Int32Array(this.#window.buffer)
  #count = 0
  #segments = 0

  /** Other frames. @hot */
  begin(): void {
    this.#count = 0
    this.#segments = 0
  }

  /** Frame k as it came. @hot */
  add(burst: Burst, k: number): void {
    const first = this.#segments
    this.#addFrom(burst, k, 0)
    this.#end(first)
  }

  /** Frame k with another beginning, of mem/new-heads.ts: the word behind its addresses, and bytes more. @hot */
  addWithHead(burst: Burst, k: number, word: number, moved: number): void {
    const first = this.#segments
    const words = this.#words
    const { heads } = burst
    const at = HEADS_AT + this.#count * HEAD_STRIDE
    const to = at >> 2
    const head = k * HEAD_WORDS
    for (let n = 0; n < HEAD_WORDS - 1; n++) words[to + n] = heads[head + n]
    words[to + 3] = word
    words[to + 4] = heads[head + 3]
    const whole = burst.length[k] + moved
    const own = ownLength(moved)
    this.#addSegment(this.#window.id, at, own < whole ? own : whole)
    this.#addFrom(burst, k, skippedLength(moved))
    this.#end(first)
  }

  /** The rest of frame k behind so many bytes. @hot */
  #addFrom(burst: Burst, k: number, from: number): void {
    const isScattered = burst.isScattered(k)
    let skip = from
    const length = isScattered ? burst.firstLength[k] : burst.length[k]
    if (skip < length) {
      this.#addSegment(burst.window[k], burst.offset[k] + skip, length - skip)
      skip = 0
    } else skip -= length
    if (!isScattered) return
    const { furtherWindow, furtherOffset, furtherLength } = burst
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let at = burst.furtherFirst[k]; at < end; at++) {
      const piece = furtherLength[at]
      if (skip >= piece) {
        skip -= piece
        continue
      }
      this.#addSegment(furtherWindow[at], furtherOffset[at] + skip, piece - skip)
      skip = 0
    }
  }

  /** @hot */
  #addSegment(window: number, offset: number, length: number): void {
    const at = (SEGMENTS_AT >> 2) + this.#segments++ * SEGMENT_INTS
    const words = this.#words
    words[at] = window
    words[at + 1] = offset
    words[at + 2] = length
  }

  /** @hot */
  #end(first: number): void {
    const row = this.#count++ * FILTER_ROW_INTS
    const words = this.#words
    words[row] = first
    words[row + 1] = this.#segments - first
  }

  /** A program that `filterCheck` passes. @hot */
  run(program: Int32Array): void {
    const { id } = this.#window
    const done = shim.filterFrames(program, id, 0, this.#count, SEGMENTS_AT)
    if (done !== this.#count) throw new RangeError('place of a frame')
  }

  /** The n-th frame of `add` has what the filter wants, as of the last `run`. @hot */
  passes(n: number): boolean {
    return this.#words[n * FILTER_ROW_INTS + 2] !== 0
  }

  close(): void {
    this.#window.unmap()
  }
}
