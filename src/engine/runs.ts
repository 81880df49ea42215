/** Frames of a burst that follow one another and are decided together. */
import { HEAD_WORDS } from '../mem/burst.ts'
import { TAGGED_LENGTH_MIN } from '../wire/vlan.ts'

/** Behind the frames from `first` on that have the same addresses, and the same word 3 as far as `mask` says. @hot */
export function endOfRun(heads: Int32Array, first: number, count: number, mask: number): number {
  const at = first * HEAD_WORDS
  const word0 = heads[at]
  const word1 = heads[at + 1]
  const word2 = heads[at + 2]
  const word3 = heads[at + 3]
  const behind = count * HEAD_WORDS
  let next = at + HEAD_WORDS
  while (
    next < behind &&
    heads[next] === word0 &&
    heads[next + 1] === word1 &&
    heads[next + 2] === word2 &&
    ((heads[next + 3] ^ word3) & mask) === 0
  ) {
    next += HEAD_WORDS
  }
  return (next / HEAD_WORDS) | 0
}

/** Behind the tagged frames from `first` on that are not cut off inside their tag. @hot */
export function endOfLongEnough(lengths: Int32Array, first: number, end: number): number {
  let k = first
  while (k < end && lengths[k] >= TAGGED_LENGTH_MIN) k++
  return k
}
