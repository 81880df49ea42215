/**
 * How the frames of a burst begin when they leave by a port with VLAN options: by frame, what stands behind its
 * addresses, and how many bytes more it has. The addresses are those of `heads`.
 *
 *     as it came   dst src word                 + from byte 16 on     0
 *     rewrite      dst src tag                  + from byte 16 on     0
 *     push         dst src tag, word 3 of heads + from byte 16 on     4
 *     pop          dst src inner                + from byte 20 on    -4
 *
 * All of them come from memory of ours, those as they came as well: a guest that changes its frame after its
 * tag was looked at sends what was looked at. The heads are those of one egress, until the next one.
 */
import { BURST_SIZE_MAX } from './burst.ts'

/**
 * Bytes of a frame that are looked at: its addresses, a tag, and what that stands before. Where the tag stays, and
 * the egress asks what is inside, all of these are ours (offload/tag-stage.ts, which builds such frames).
 */
export const LOOKED_AT = 20

export class NewHeads {
  /** Word 3 of the head with which frame k leaves, as in `heads`. */
  readonly word: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** 4, 0 or -4. */
  readonly moved: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** All of them begin the same, so far as bytes of ours go (`ownLength`). */
  isOne = false
}

/** Bytes of ours with which a frame begins. @hot */
export function ownLength(moved: number): number {
  return moved > 0 ? 20 : 16
}

/** Bytes of the frame as it came for which they stand. @hot */
export function skippedLength(moved: number): number {
  return moved < 0 ? 20 : 16
}

/** Into a copy program: the row behind one that has such a beginning, of the frame whose `heads` are at `at`. @hot */
export function writeHead(
  table: Int32Array,
  row: number,
  heads: Int32Array,
  at: number,
  word: number,
): void {
  table[row] = heads[at]
  table[row + 1] = heads[at + 1]
  table[row + 2] = heads[at + 2]
  table[row + 3] = word
  table[row + 4] = heads[at + 3]
}
