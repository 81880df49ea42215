/**
 * One's complement sums of many frames by one native call: each sum is of any number of byte ranges,
 * one behind the other, wherever they lie. RFC 1071.
 */
import { BURST_SIZE_MAX, FURTHER_MAX } from '../mem/burst.ts'
import { Window } from '../mem/window.ts'
import { CHECKSUM_ROW_INTS, shim } from '../native/shim.ts'
import { fold } from '../wire/headers.ts'

/** A sum of every frame of a burst, of every segment. */
export const CHECKSUM_ROWS_MAX: number = FURTHER_MAX + 2 * BURST_SIZE_MAX

export class ChecksumProgram {
  readonly #table: Window
  readonly #rows: Int32Array
  readonly #rowKey: Int32Array = new Int32Array(CHECKSUM_ROWS_MAX)
  readonly #rowIsOdd: Uint8Array = new Uint8Array(CHECKSUM_ROWS_MAX)
  #count = 0
  readonly #sum: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** The sum that ranges are added to, and the bytes of it so far. */
  #key = 0
  #length = 0

  constructor() {
    this.#table = Window.map(CHECKSUM_ROWS_MAX * CHECKSUM_ROW_INTS * 4)
    this.#rows = new Int32Array(this.#table.buffer)
  }

  /** Ranges that have been added since the last `run`. @hot */
  get count(): number {
    return this.#count
  }

  /** Starts the sum with number `key`, 0..BURST_SIZE_MAX - 1. @hot */
  start(key: number, initial: number): void {
    this.#key = key
    this.#sum[key] = initial
    this.#length = 0
  }

  /** The next bytes of the sum that was started last. @hot */
  add(window: number, offset: number, length: number): void {
    const row = this.#count * CHECKSUM_ROW_INTS
    const rows = this.#rows
    rows[row] = window
    rows[row + 1] = offset
    rows[row + 2] = length
    rows[row + 3] = 0
    this.#rowKey[this.#count] = this.#key
    this.#rowIsOdd[this.#count] = this.#length & 1
    this.#count++
    this.#length += length
  }

  /** Forgets the ranges behind the first `count`. @hot */
  cutBack(count: number): void {
    this.#count = count
  }

  /** A range outside its window is our own mistake. @hot */
  run(): void {
    const count = this.#count
    if (count === 0) return
    this.#count = 0
    if (shim.checksumRows(this.#table.id, 0, count) !== count) throw new RangeError('checksum row')
    const sums = this.#sum
    for (let row = 0; row < count; row++) {
      const result = this.#rows[row * CHECKSUM_ROW_INTS + 4]
      // What starts at an odd byte of the sum has its bytes in each other's place.
      const swapped = ((result & 0xff) << 8) | (result >>> 8)
      sums[this.#rowKey[row]] += this.#rowIsOdd[row] !== 0 ? swapped : result
    }
  }

  /** The folded sum, after `run`. @hot */
  sum(key: number): number {
    return fold(this.#sum[key])
  }

  close(): void {
    this.#table.unmap()
  }
}
