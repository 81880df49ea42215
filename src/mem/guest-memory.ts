/**
 * The memory of a guest, as the engine sees it: regions of guest-physical addresses, each mapped by
 * windows of up to 2 GiB. A window starts every GiB and reaches to the next but one, so whatever is
 * shorter than 1 GiB lies in one window as long as it stays in its region:
 *
 *     region    |------------------------------------------------|
 *     window 0  |=============================|
 *     window 1                 |=============================|
 *     piece     |-- window 0 --|-- window 1 --| ...
 *
 * Nothing that a guest says is believed: an address that no region has is not found. Its memory is
 * read and written by rows of the shim; only the rings are looked at from here, in views of just their
 * bytes, because V8 would count whole windows as memory of its own and collect garbage over them
 * (measured: 13 ms for each GiB of each memory table).
 */
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { Window } from './window.ts'
import { forgetWindow, knowWindow } from './window.ts'

/** One window of a region. */
export interface GuestWindow {
  readonly window: number
  /** Offset in the region of the window's first usable byte. */
  readonly regionOffset: number
  /** Where in the window that byte is. */
  readonly windowOffset: number
  /** Usable bytes from there on. */
  readonly length: number
}

/** A region as the control plane mapped it. Addresses and sizes are numbers below 2^53. */
export interface GuestRegion {
  readonly guestAddress: number
  readonly size: number
  /** Address in the driver's own address space. */
  readonly userAddress: number
  readonly windows: readonly GuestWindow[]
}

const TWO_32 = 4294967296

/** Cells of `piece`. */
export const PIECE_START = 0
export const PIECE_LIMIT = 1
/** Added to a guest-physical address in the piece: its offset in the window. */
export const PIECE_SHIFT = 2

/** A window of ours as a region that the driver knows under the same addresses. */
export function wholeWindow(window: Window, guestAddress: number): GuestRegion {
  const size = shim.windowLength(window.id)
  const windows = [{ window: window.id, regionOffset: 0, windowOffset: 0, length: size }]
  return { guestAddress, userAddress: guestAddress, size, windows }
}

export class GuestMemory {
  /** Result of `locate`: the window, the offset in it, and the bytes from there to its end. */
  window = 0
  offset = 0
  room = 0

  /** With `locate`: the piece that has the address; empty before the first one. */
  readonly piece: Float64Array = new Float64Array(3)
  /** Numbers of all windows. */
  readonly windows: Int32Array

  readonly #regions: readonly GuestRegion[]
  /** Views that are not detached. */
  readonly #views = new Set<ArrayBuffer>()
  /** Pieces in the order of their addresses: first address, first address behind, window, offset. */
  readonly #starts: Float64Array
  readonly #limits: Float64Array
  readonly #windows: Int32Array
  readonly #offsets: Int32Array
  readonly #rooms: Int32Array
  #lastPiece = 0

  constructor(regions: readonly GuestRegion[]) {
    this.#regions = regions
    const pieces = regions
      .flatMap((region) =>
        region.windows.map((part, at) => ({
          start: region.guestAddress + part.regionOffset,
          limit:
            region.guestAddress +
            (region.windows[at + 1]?.regionOffset ?? part.regionOffset + part.length),
          part,
        })),
      )
      .sort((a, b) => a.start - b.start)
    this.#starts = Float64Array.from(pieces, ({ start }) => start)
    this.#limits = Float64Array.from(pieces, ({ limit }) => limit)
    this.#windows = Int32Array.from(pieces, ({ part }) => part.window)
    this.#offsets = Int32Array.from(pieces, ({ part }) => part.windowOffset)
    this.#rooms = Int32Array.from(pieces, ({ part }) => part.length)
    this.windows = this.#windows
    // Frames leave by a TAP from where they are.
    for (const window of this.#windows) knowWindow(window)
  }

  /** Before what replaces it is made: no frame is read from it or written to it any more. */
  forget(): void {
    for (const window of this.#windows) forgetWindow(window)
  }

  /** This thread's view of a part of a window of ours, until `release`. */
  view(window: number, offset: number, length: number): ArrayBuffer {
    const buffer = shim.windowPart(window, offset, length)
    if (typeof buffer === 'number') {
      throw new SysError('OUT_OF_MEMORY', `cannot view window ${window}: ${strerror(-buffer)}`, {
        errno: -buffer,
      })
    }
    this.#views.add(buffer)
    return buffer
  }

  /** Ends a view; a second call does nothing. */
  release(buffer: ArrayBuffer): void {
    if (this.#views.delete(buffer)) shim.windowDetach(buffer)
  }

  /** The guest-physical address of the first byte of a window, not all of which need be the guest's. */
  addressOf(window: number): number {
    const piece = this.#windows.indexOf(window)
    return this.#starts[piece] - this.#offsets[piece]
  }

  /**
   * Finds a guest-physical address: sets `window`, `offset` and `room`. False: no region has it. It is
   * given in halves: as one number beyond 2^31 it is an allocation, where V8 does not inline the call.
   * @hot
   */
  locate(low: number, high: number): boolean {
    const address = (high >>> 0) * TWO_32 + (low >>> 0)
    const last = this.piece
    if (!(address >= last[PIECE_START] && address < last[PIECE_LIMIT])) {
      if (!this.#search(address)) return false
    }
    const piece = this.#lastPiece
    const inside = address - last[PIECE_START]
    this.offset = (this.#offsets[piece] + inside) | 0
    this.room = (this.#rooms[piece] - inside) | 0
    return true
  }

  /** @hot */
  #search(address: number): boolean {
    const starts = this.#starts
    // The piece is one of [low, high), if there is one: a guest may have a thousand, and use them in turn.
    let low = 0
    let high = starts.length
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (address >= starts[middle]) low = middle
      else high = middle
    }
    if (low === high || address < starts[low] || address >= this.#limits[low]) return false
    this.piece[PIECE_START] = starts[low]
    this.piece[PIECE_LIMIT] = this.#limits[low]
    this.piece[PIECE_SHIFT] = this.#offsets[low] - starts[low]
    this.#lastPiece = low
    this.window = this.#windows[low]
    return true
  }

  /** The guest-physical address of an address of the driver's address space; -1: not in a region. */
  guestAddress(userAddress: number): number {
    for (const region of this.#regions) {
      const inside = userAddress - region.userAddress
      if (inside >= 0 && inside < region.size) return region.guestAddress + inside
    }
    return -1
  }

  /** Ends this thread's views. The windows are unmapped by whoever mapped them. */
  detach(): void {
    for (const view of this.#views) shim.windowDetach(view)
    this.#views.clear()
  }
}
