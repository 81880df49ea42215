/**
 * A copy program: rows of (source window, offset, destination window, offset, length), filled in
 * TypeScript and run by one shim call, which checks each row against its windows.
 */
import { COPY_ROW_INTS, shim } from '../native/shim.ts'
import type { Burst } from './burst.ts'
import { Window } from './window.ts'

/** Rows that wait at most before they are run, unless told otherwise. */
export const COPY_ROWS_MAX = 1024
/** A constant of this module is part of the machine code, an imported one is loaded at each use. */
const ROW_INTS: number = COPY_ROW_INTS

export class CopyProgram {
  readonly #window: Window
  /** The rows, of which `reserve` gives some to write. */
  readonly table: Int32Array
  readonly #rowsMax: number
  #rows = 0

  constructor(rowsMax: number = COPY_ROWS_MAX) {
    this.#rowsMax = rowsMax
    this.#window = Window.map(rowsMax * COPY_ROW_INTS * 4)
    this.table = new Int32Array(this.#window.buffer)
  }

  /**
   * Room for so many rows, at most COPY_ROWS_MAX, which the caller writes into `table` from the
   * returned index on and then counts with `append`.
   * @hot
   */
  reserve(rows: number): number {
    if (this.#rows + rows > this.#rowsMax) this.run()
    return this.#rows * ROW_INTS
  }

  /** @hot */
  append(rows: number): void {
    this.#rows += rows
  }

  /**
   * Adds a copy; runs the program first when it is full. Order of the rows is order of execution.
   * @hot
   */
  add(
    sourceWindow: number,
    sourceOffset: number,
    destinationWindow: number,
    destinationOffset: number,
    length: number,
  ): void {
    if (this.#rows === this.#rowsMax) this.run()
    const table = this.table
    const row = this.#rows * ROW_INTS
    table[row] = sourceWindow
    table[row + 1] = sourceOffset
    table[row + 2] = destinationWindow
    table[row + 3] = destinationOffset
    table[row + 4] = length
    this.#rows++
  }

  /**
   * Adds the copies of the first `length` bytes of frame k, wherever its segments lie.
   * @hot
   */
  addFrame(
    burst: Burst,
    k: number,
    destinationWindow: number,
    destinationOffset: number,
    length: number,
  ): void {
    if (!burst.isScattered(k)) {
      this.add(burst.window[k], burst.offset[k], destinationWindow, destinationOffset, length)
      return
    }
    const first = burst.firstLength[k]
    const done = first < length ? first : length
    this.add(burst.window[k], burst.offset[k], destinationWindow, destinationOffset, done)
    this.addFurther(burst, k, destinationWindow, destinationOffset, length)
  }

  /**
   * The same without the first segment, for a frame that has several.
   * @hot
   */
  addFurther(
    burst: Burst,
    k: number,
    destinationWindow: number,
    destinationOffset: number,
    length: number,
  ): void {
    let done = burst.firstLength[k]
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let at = burst.furtherFirst[k]; at < end && done < length; at++) {
      const left = length - done
      const part = burst.furtherLength[at] < left ? burst.furtherLength[at] : left
      const to = destinationOffset + done
      this.add(burst.furtherWindow[at], burst.furtherOffset[at], destinationWindow, to, part)
      done += part
    }
  }

  /** Adds the copies of `length` bytes of frame k, from byte `from` on; the frame has as many. @hot */
  addPart(
    burst: Burst,
    k: number,
    from: number,
    destinationWindow: number,
    destinationOffset: number,
    length: number,
  ): void {
    if (!burst.isScattered(k)) {
      const offset = burst.offset[k] + from
      this.add(burst.window[k], offset, destinationWindow, destinationOffset, length)
      return
    }
    const to = from + length
    const first = burst.firstLength[k]
    if (from < first) {
      const end = first < to ? first : to
      const offset = burst.offset[k] + from
      this.add(burst.window[k], offset, destinationWindow, destinationOffset, end - from)
    }
    let start = first
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let at = burst.furtherFirst[k]; at < end && start < to; at++) {
      const next = start + burst.furtherLength[at]
      const begin = from > start ? from : start
      const behind = next < to ? next : to
      if (begin < behind) {
        const offset = burst.furtherOffset[at] + begin - start
        const target = destinationOffset + begin - from
        this.add(burst.furtherWindow[at], offset, destinationWindow, target, behind - begin)
      }
      start = next
    }
  }

  /**
   * Executes and empties the program. A row outside its windows is our own mistake.
   * @hot
   */
  run(): void {
    const rows = this.#rows
    if (rows === 0) return
    this.#rows = 0
    if (shim.copyRows(this.#window.id, 0, rows) !== rows) throw new RangeError('copy row')
  }

  close(): void {
    this.#window.unmap()
  }
}
