/**
 * A copy program: rows of (source window, offset, destination window, offset, length), filled in
 * TypeScript and run by one shim call, which checks each row against its windows.
 */
import { COPY_ROW_INTS, shim } from '../native/shim.ts'
import type { Burst } from './burst.ts'
import { Window } from './window.ts'

/** Rows that wait at most before they are run. */
const ROWS_MAX = 1024

export class CopyProgram {
  readonly #window: Window
  readonly #table: Int32Array
  #rows = 0

  constructor() {
    this.#window = Window.map(ROWS_MAX * COPY_ROW_INTS * 4)
    this.#table = new Int32Array(this.#window.buffer)
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
    if (this.#rows === ROWS_MAX) this.run()
    const table = this.#table
    const row = this.#rows * COPY_ROW_INTS
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
    let done = first < length ? first : length
    this.add(burst.window[k], burst.offset[k], destinationWindow, destinationOffset, done)
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let at = burst.furtherFirst[k]; at < end && done < length; at++) {
      const left = length - done
      const part = burst.furtherLength[at] < left ? burst.furtherLength[at] : left
      const to = destinationOffset + done
      this.add(burst.furtherWindow[at], burst.furtherOffset[at], destinationWindow, to, part)
      done += part
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
