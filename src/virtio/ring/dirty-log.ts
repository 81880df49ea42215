/**
 * The dirty log of a live migration: a bitmap in memory of the front-end, a bit for each 4 KiB page
 * of guest memory, which it reads and clears while we set bits. vhost-user, "Migration".
 *
 * What was written is noted burst by burst and marked before the driver learns of it.
 */
import { Window } from '../../mem/window.ts'
import { DIRTY_ROW_INTS, shim } from '../../native/shim.ts'

/** Pieces that are noted between two `mark`s: some bursts of TCP-sized frames in small buffers. */
const ROWS_MAX = 16384
export const LOG_PAGE_LENGTH = 4096
/** Rows are int32: 8 TiB of guest memory. Longer bitmaps are refused where they are mapped. */
const PAGES_MAX = 0x7fff_ffff

export class DirtyLog {
  readonly #bitmap: Window
  readonly #table: Window
  readonly #rows: Int32Array
  readonly #pages: number
  #count = 0

  /** `window` maps the bitmap. */
  constructor(window: number) {
    this.#bitmap = Window.view(window)
    this.#pages = Math.min(8 * this.#bitmap.buffer.byteLength, PAGES_MAX)
    try {
      this.#table = Window.map(ROWS_MAX * DIRTY_ROW_INTS * 4)
    } catch (error) {
      this.#bitmap.detach()
      throw error
    }
    this.#rows = new Int32Array(this.#table.buffer)
  }

  /** The next note makes a row longer than it has to be: whoever can, marks before. @hot */
  get isFull(): boolean {
    return this.#count === ROWS_MAX
  }

  /**
   * Notes that `length` bytes at a guest-physical address were written. Pages beyond the bitmap are
   * the front-end's mistake, and must not take others along: a row has them or it has not.
   * @hot
   */
  note(address: number, length: number): void {
    if (length <= 0) return
    const rows = this.#rows
    let first = Math.floor(address / LOG_PAGE_LENGTH)
    let last = Math.floor((address + length - 1) / LOG_PAGE_LENGTH)
    if (first >= this.#pages) return
    if (last >= this.#pages) last = this.#pages - 1
    if (this.#count === ROWS_MAX) {
      // Not the time to mark, the copies have yet to run: the last row grows to have both.
      const full = --this.#count * DIRTY_ROW_INTS
      const lastOfFull = rows[full] + rows[full + 1] - 1
      if (rows[full] < first) first = rows[full]
      if (lastOfFull > last) last = lastOfFull
    }
    const row = this.#count * DIRTY_ROW_INTS
    rows[row] = first
    rows[row + 1] = last - first + 1
    this.#count++
  }

  /** Sets the bits of what was noted. A row outside the bitmap is our own mistake. @hot */
  mark(): void {
    const count = this.#count
    if (count === 0) return
    this.#count = 0
    const done = shim.markDirty(this.#bitmap.id, this.#table.id, 0, count)
    if (done !== count) throw new RangeError('dirty row')
  }

  /** The front-end has truncated the bitmap's file since the last call: what was marked is lost. */
  hasFaulted(): boolean {
    return shim.windowFaults(this.#bitmap.id) > 0
  }

  /** Ends this thread's view of the bitmap. */
  close(): void {
    this.#bitmap.detach()
    this.#table.unmap()
  }
}
