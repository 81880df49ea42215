/**
 * The learning table: MAC address -> port, with the second it was last seen.
 *
 * Open addressing with linear probing over typed arrays, at most half full, at most PROBE_MAX cells
 * per lookup. Entries are removed by shifting back, so there are no tombstones. One table serves all
 * VLANs.
 *
 * When it is full, an old entry of the port that has the most gives way to a new address, so that a
 * sender of random addresses pushes out its own once it has as many as the busiest of the others. A
 * sender that picks colliding addresses fills the cells around one: there an old entry of the port
 * that has most of these cells gives way.
 */
import type { MacRows } from './messages.ts'
import { FEW_MOVES, MoveWatch } from './move-watch.ts'
import { PortShares } from './port-shares.ts'

const PROBE_MAX = 32
const FREE = -1

/** Cells that are looked at for an entry that gives way, and entries of which the oldest does. */
const EVICTION_CELLS = 128
const EVICTION_ENTRIES = 8
/** Cells that one step of the ageing sweep looks at, so that a huge table never stalls the engine. */
const SWEEP_CELLS = 16384
/** Bits of `#moved` that count; the second is in the others. */
const MOVED_BITS = 3
const MOVED_MASK = 7

export class MacTable {
  /** Entries in use. */
  entries = 0
  /** Times a known address was seen on another port. */
  moves = 0
  /** Times that the table, or the neighbourhood of an address, was full: another one had to give way. */
  full = 0
  /** Told of addresses that move more than a few times in a second. */
  readonly watch: MoveWatch = new MoveWatch()

  readonly #size: number
  readonly #mask: number
  readonly #shift: number
  readonly #seed: number
  readonly #hi: Int32Array
  readonly #lo: Int32Array
  readonly #port: Int32Array
  readonly #seen: Int32Array
  /** By cell: the second in which its address moved last, and how often in that second, FEW_MOVES at most. */
  readonly #moved: Int32Array
  readonly #shares: PortShares
  #sweepAt = 0
  #evictAt = 0

  /** `size` entries at most; `seed` makes the cells unpredictable for senders. */
  constructor(size: number, seed: number) {
    const bits = 33 - Math.clz32(Math.max(size, 16) - 1)
    const cells = 1 << bits
    this.#size = size
    this.#mask = cells - 1
    this.#shift = 32 - bits
    this.#seed = seed | 0
    this.#shares = new PortShares(size)
    this.#hi = new Int32Array(cells)
    this.#lo = new Int32Array(cells)
    this.#port = new Int32Array(cells).fill(FREE)
    this.#seen = new Int32Array(cells)
    this.#moved = new Int32Array(cells)
  }

  #cell(hi: number, lo: number): number {
    return Math.imul(hi ^ this.#seed ^ Math.imul(lo, 0x9e37_79b1), 0x85eb_ca6b) >>> this.#shift
  }

  /**
   * Learns that a frame with source (hi, lo) came in by `port` at second `nowS`.
   * @hot
   */
  learn(hi: number, lo: number, port: number, nowS: number): void {
    const ports = this.#port
    const mask = this.#mask
    let cell = this.#cell(hi, lo)
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const known = ports[cell]
      if (known === FREE) {
        if (this.entries < this.#size) {
          this.entries++
          this.#put(cell, hi, lo, port, nowS)
        } else this.#learnInstead(hi, lo, port, nowS)
        return
      }
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) {
        if (known !== port) this.#move(cell, port, nowS)
        this.#seen[cell] = nowS
        return
      }
      cell = (cell + 1) & mask
    }
    this.full++
    this.#replaceNear(this.#cell(hi, lo), hi, lo, port, nowS)
  }

  /** @hot */
  #move(cell: number, port: number, nowS: number): void {
    const from = this.#port[cell]
    this.#port[cell] = port
    this.#shares.remove(from)
    this.#shares.add(port)
    this.moves++
    const moved = this.#moved[cell]
    const second = nowS << MOVED_BITS
    if ((moved & ~MOVED_MASK) !== second) this.#moved[cell] = second + 1
    else if ((moved & MOVED_MASK) < FEW_MOVES) this.#moved[cell] = moved + 1
    else this.watch.note(this.#hi[cell], this.#lo[cell], from, port)
  }

  /** The moves of the address before it in the cell are zeros already. @hot */
  #put(cell: number, hi: number, lo: number, port: number, nowS: number): void {
    this.#hi[cell] = hi
    this.#lo[cell] = lo
    this.#port[cell] = port
    this.#seen[cell] = nowS
    this.#shares.add(port)
  }

  /**
   * The table is full: learns the address in the place of another. Should the busiest port have so few
   * entries that none is found, the next address goes on looking. @hot
   */
  #learnInstead(hi: number, lo: number, port: number, nowS: number): void {
    this.full++
    const victim = this.#findOld(port)
    if (victim < 0) return
    this.#remove(victim)
    // What was behind the victim has moved, so the free cell is another one; there was one before as well.
    let cell = this.#cell(hi, lo)
    while (this.#port[cell] !== FREE) cell = (cell + 1) & this.#mask
    this.entries++
    this.#put(cell, hi, lo, port, nowS)
  }

  /**
   * The oldest of the next few entries of the busiest port, which is the learning one if no port has
   * more; -1: there was none among the cells that were looked at. @hot
   */
  #findOld(learning: number): number {
    const shares = this.#shares
    const busiest = shares.count(learning) === shares.most ? learning : shares.busiest
    const mask = this.#mask
    let oldest = -1
    let found = 0
    let cell = this.#evictAt
    for (let looked = 0; looked < EVICTION_CELLS && found < EVICTION_ENTRIES; looked++) {
      if (this.#port[cell] === busiest) {
        found++
        if (oldest < 0 || this.#seen[cell] < this.#seen[oldest]) oldest = cell
      }
      cell = (cell + 1) & mask
    }
    this.#evictAt = cell
    return oldest
  }

  /**
   * All cells from `home` on that a lookup looks at are taken: the address takes that of an old entry of the
   * port that has more than half of them, or of any if none has. No other entry moves. @hot
   */
  #replaceNear(home: number, hi: number, lo: number, port: number, nowS: number): void {
    const ports = this.#port
    const mask = this.#mask
    // A vote that only a majority is sure to win (Boyer, Moore), in one pass.
    let most = FREE
    let votes = 0
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const one = ports[(home + probe) & mask]
      if (votes === 0) most = one
      votes += one === most ? 1 : -1
    }
    let oldest = -1
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const cell = (home + probe) & mask
      if (ports[cell] !== most) continue
      if (oldest < 0 || this.#seen[cell] < this.#seen[oldest]) oldest = cell
    }
    this.#shares.remove(ports[oldest])
    this.#moved[oldest] = 0
    this.#put(oldest, hi, lo, port, nowS)
  }

  /**
   * The port of an address, -1 when it is unknown.
   * @hot
   */
  lookup(hi: number, lo: number): number {
    const ports = this.#port
    const mask = this.#mask
    let cell = this.#cell(hi, lo)
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const port = ports[cell]
      if (port === FREE) return FREE
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) return port
      cell = (cell + 1) & mask
    }
    return FREE
  }

  /**
   * Removes entries not seen since `beforeS`, a bounded number of cells per call. Returns true when
   * the whole table has been swept since it last returned true.
   */
  sweep(beforeS: number): boolean {
    const cells = this.#mask + 1
    const end = Math.min(this.#sweepAt + SWEEP_CELLS, cells)
    for (let cell = this.#sweepAt; cell < end;) {
      // A removal shifts another entry into this cell, which is then looked at as well.
      if (this.#port[cell] !== FREE && this.#seen[cell] < beforeS) this.#remove(cell)
      else cell++
    }
    this.#sweepAt = end === cells ? 0 : end
    return this.#sweepAt === 0
  }

  /** Forgets every address of a port. */
  forgetPort(port: number): void {
    this.watch.forgetPort(port)
    for (let cell = 0; cell <= this.#mask && this.#shares.count(port) > 0;) {
      if (this.#port[cell] === port) this.#remove(cell)
      else cell++
    }
  }

  /**
   * Calls `visit` for the entries from cell `from` on, of `cells` cells and some more; returns the cell
   * to go on at, -1 when that were all. It ends behind a free cell: what `#remove` shifts back does not
   * pass one. Control plane.
   */
  forEach(
    visit: (hi: number, lo: number, port: number, seenS: number) => void,
    from: number = 0,
    cells: number = Infinity,
  ): number {
    const end = this.#mask + 1
    for (let cell = from; cell < end; cell++) {
      const port = this.#port[cell]
      if (port !== FREE) visit(this.#hi[cell], this.#lo[cell], port, this.#seen[cell])
      else if (cell - from >= cells) return cell + 1 < end ? cell + 1 : -1
    }
    return -1
  }

  /** The entries that are not too old, as rows with their age; from a cell on, as `forEach`. */
  page(from: number, cells: number, nowS: number, agingS: number): MacRows {
    const rows: [number, number, number, number][] = []
    const visit = (hi: number, lo: number, port: number, seenS: number): void => {
      if (seenS >= nowS - agingS) rows.push([hi, lo, port, nowS - seenS])
    }
    const next = this.forEach(visit, from, cells)
    return { rows, next }
  }

  /** Frees a cell and shifts back those behind it that would no longer be found. */
  #remove(cell: number): void {
    this.#shares.remove(this.#port[cell])
    const mask = this.#mask
    let hole = cell
    let next = (hole + 1) & mask
    while (this.#port[next] !== FREE) {
      const home = this.#cell(this.#hi[next], this.#lo[next])
      // The entry may move into the hole unless its home lies cyclically in (hole, next].
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        this.#hi[hole] = this.#hi[next]!
        this.#lo[hole] = this.#lo[next]!
        this.#port[hole] = this.#port[next]!
        this.#seen[hole] = this.#seen[next]!
        this.#moved[hole] = this.#moved[next]!
        hole = next
      }
      next = (next + 1) & mask
    }
    this.#port[hole] = FREE
    this.#moved[hole] = 0
    this.entries--
  }
}
