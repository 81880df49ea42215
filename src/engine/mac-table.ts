/**
 * The forwarding database: (VLAN, MAC address) -> port, with the second it was last seen. The VLAN is in the
 * upper half of `lo`, whose lower half is the last two bytes of the address.
 *
 * Open addressing with linear probing over typed arrays, at most half full, at most PROBE_MAX cells
 * per lookup. Entries are removed by shifting back, so there are no tombstones. One table serves all
 * VLANs.
 *
 * Static entries do not age, move or give way, and a port keeps them when its link goes down.
 *
 * When it is full, an old entry of the port that has the most gives way to a new address, so that a
 * sender of random addresses pushes out its own once it has as many as the busiest of the others. A
 * sender that picks colliding addresses fills the cells around one: there an old entry of the port
 * that has most of these cells gives way.
 */
import { PORTS_MAX } from '../port/contract.ts'
import type { MacRows } from './messages.ts'
import { STATIC_AGE } from './messages.ts'
import { FEW_MOVES, MoveWatch } from './move-watch.ts'
import { PortShares } from './port-shares.ts'

const PROBE_MAX = 32
const FREE = -1
/** In a cell's port, beside its number: the entry is static. */
const STATIC: number = PORTS_MAX
const PORT_MASK: number = PORTS_MAX - 1

/** What becomes of a source: it is at the port now, or was not learnt because the port has enough. */
export const LEARNT = 0
export const OVER_LIMIT = 1
/** It belongs to another port, from which it does not move. */
export const STAYS_ELSEWHERE = 2

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
  /** Entries that came, went or moved, since the start; an int32 that wraps. */
  changes = 0
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
  /** Of entries that are not static. */
  readonly #shares: PortShares
  /** By port: learnt entries at most, and whether those stay there. */
  readonly #limit: Int32Array = new Int32Array(PORTS_MAX).fill(0x7fff_ffff)
  readonly #isSticky: Uint8Array = new Uint8Array(PORTS_MAX)
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

  /** For a port: `limit` entries are learnt at most, and do not move from a sticky one. */
  setPort(port: number, limit: number, isSticky: boolean): void {
    this.#limit[port] = limit
    this.#isSticky[port] = isSticky ? 1 : 0
  }

  /**
   * Learns that a frame with source (hi, lo) came in by `port` at second `nowS`. Returns LEARNT, OVER_LIMIT
   * or STAYS_ELSEWHERE.
   * @hot
   */
  learn(hi: number, lo: number, port: number, nowS: number): number {
    const cell = this.#cell(hi, lo)
    // Mostly it is known there: that much is compiled into the caller.
    if (this.#port[cell] === port && this.#lo[cell] === lo && this.#hi[cell] === hi) {
      this.#seen[cell] = nowS
      return LEARNT
    }
    return this.#learnFrom(cell, hi, lo, port, nowS)
  }

  /** @hot */
  #learnFrom(home: number, hi: number, lo: number, port: number, nowS: number): number {
    const ports = this.#port
    const mask = this.#mask
    let cell = home
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const known = ports[cell]
      if (known === FREE) {
        if (this.#shares.count(port) >= this.#limit[port]) return OVER_LIMIT
        if (this.entries < this.#size) {
          this.entries++
          this.#put(cell, hi, lo, port, nowS)
        } else this.#learnInstead(hi, lo, port, nowS)
        return LEARNT
      }
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) {
        const verdict = known === port ? LEARNT : this.#move(cell, port, nowS)
        if (verdict === LEARNT) this.#seen[cell] = nowS
        return verdict
      }
      cell = (cell + 1) & mask
    }
    if (this.#shares.count(port) >= this.#limit[port]) return OVER_LIMIT
    this.full++
    this.#replaceNear(home, hi, lo, port, nowS)
    return LEARNT
  }

  /** A frame with this source may come in by a port where nothing is learnt: it belongs to no sticky one. @hot */
  mayCome(hi: number, lo: number, port: number): boolean {
    const cell = this.#find(hi, lo)
    if (cell < 0) return true
    const known = this.#port[cell]
    return known === port || (known & STATIC) !== 0 || this.#isSticky[known] === 0
  }

  /** A static entry stays where it is, and frames from elsewhere are forwarded as its own are. @hot */
  #move(cell: number, port: number, nowS: number): number {
    const from = this.#port[cell]
    if ((from & STATIC) !== 0) return LEARNT
    if (this.#isSticky[from] !== 0) return STAYS_ELSEWHERE
    if (this.#shares.count(port) >= this.#limit[port]) return OVER_LIMIT
    this.#port[cell] = port
    this.#shares.remove(from)
    this.#shares.add(port)
    this.moves++
    this.changes = (this.changes + 1) | 0
    const moved = this.#moved[cell]
    const second = nowS << MOVED_BITS
    if ((moved & ~MOVED_MASK) !== second) this.#moved[cell] = second + 1
    else if ((moved & MOVED_MASK) < FEW_MOVES) this.#moved[cell] = moved + 1
    else this.watch.note(this.#hi[cell], this.#lo[cell], from, port)
    return LEARNT
  }

  /** The moves of the address before it in the cell are zeros already. @hot */
  #put(cell: number, hi: number, lo: number, port: number, nowS: number): void {
    this.#hi[cell] = hi
    this.#lo[cell] = lo
    this.#port[cell] = port
    this.#seen[cell] = nowS
    this.#shares.add(port)
    this.changes = (this.changes + 1) | 0
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
    this.entries++
    this.#put(this.#freeCell(hi, lo), hi, lo, port, nowS)
  }

  /** There is one: the table is never more than half full. @hot */
  #freeCell(hi: number, lo: number): number {
    let cell = this.#cell(hi, lo)
    while (this.#port[cell] !== FREE) cell = (cell + 1) & this.#mask
    return cell
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
      if ((one & STATIC) !== 0) continue
      if (votes === 0) most = one
      votes += one === most ? 1 : -1
    }
    let oldest = -1
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const cell = (home + probe) & mask
      if (ports[cell] !== most) continue
      if (oldest < 0 || this.#seen[cell] < this.#seen[oldest]) oldest = cell
    }
    // All of them are static.
    if (oldest < 0) return
    this.#shares.remove(ports[oldest])
    this.#moved[oldest] = 0
    this.#put(oldest, hi, lo, port, nowS)
  }

  /**
   * The port of an address, -1 when it is unknown.
   * @hot
   */
  lookup(hi: number, lo: number): number {
    const cell = this.#cell(hi, lo)
    if (this.#lo[cell] === lo && this.#hi[cell] === hi) {
      const port = this.#port[cell]
      // A cell that was freed still has its address.
      return port === FREE ? FREE : port & PORT_MASK
    }
    return this.#lookupFrom(cell, hi, lo)
  }

  /** @hot */
  #lookupFrom(home: number, hi: number, lo: number): number {
    const ports = this.#port
    const mask = this.#mask
    let cell = home
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const port = ports[cell]
      if (port === FREE) return FREE
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) return port & PORT_MASK
      cell = (cell + 1) & mask
    }
    return FREE
  }

  /** The address has a static entry of the port. @hot */
  isStatic(hi: number, lo: number, port: number): boolean {
    const cell = this.#find(hi, lo)
    return cell >= 0 && this.#port[cell] === (port | STATIC)
  }

  /** The cell of an address, -1: it has none. @hot */
  #find(hi: number, lo: number): number {
    const mask = this.#mask
    let cell = this.#cell(hi, lo)
    for (let probe = 0; probe < PROBE_MAX && this.#port[cell] !== FREE; probe++) {
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) return cell
      cell = (cell + 1) & mask
    }
    return -1
  }

  /**
   * Puts a static entry in the place of whatever is known of the address, or of a learnt one when there is no
   * room. False: static entries take all that the table, or the neighbourhood of the address, has.
   */
  addStatic(hi: number, lo: number, port: number): boolean {
    const known = this.#find(hi, lo)
    if (known >= 0) this.#remove(known)
    for (;;) {
      const cell = this.#freeCell(hi, lo)
      const isNear = ((cell - this.#cell(hi, lo)) & this.#mask) < PROBE_MAX
      if (isNear && this.entries < this.#size) {
        this.entries++
        this.#hi[cell] = hi
        this.#lo[cell] = lo
        this.#port[cell] = port | STATIC
        this.#seen[cell] = 0
        this.changes = (this.changes + 1) | 0
        return true
      }
      const victim = this.#findLearnt(this.#cell(hi, lo), isNear ? this.#mask + 1 : PROBE_MAX)
      if (victim < 0) return false
      this.#remove(victim)
    }
  }

  /** The first entry that is not static among so many cells; -1: there is none. */
  #findLearnt(home: number, cells: number): number {
    for (let at = 0; at < cells; at++) {
      const cell = (home + at) & this.#mask
      const port = this.#port[cell]
      if (port !== FREE && (port & STATIC) === 0) return cell
    }
    return -1
  }

  /** Removes the static entry of that address at the port. False: there is none. */
  removeStatic(hi: number, lo: number, port: number): boolean {
    if (!this.isStatic(hi, lo, port)) return false
    this.#remove(this.#find(hi, lo))
    return true
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
      const port = this.#port[cell]
      if (port !== FREE && this.#seen[cell] < beforeS && (port & STATIC) === 0) this.#remove(cell)
      else cell++
    }
    this.#sweepAt = end === cells ? 0 : end
    return this.#sweepAt === 0
  }

  /** Forgets every address that was learnt at a port. */
  forgetPort(port: number): void {
    this.watch.forgetPort(port)
    for (let cell = 0; cell <= this.#mask && this.#shares.count(port) > 0;) {
      if (this.#port[cell] === port) this.#remove(cell)
      else cell++
    }
  }

  /** Forgets what was learnt, at a port (-1: at any) and in a VLAN (-1: in any). Control plane. */
  flush(port: number, vlan: number): void {
    for (let cell = 0; cell <= this.#mask;) {
      const at = this.#port[cell]
      const isMeant =
        at !== FREE &&
        (at & STATIC) === 0 &&
        (port < 0 || at === port) &&
        (vlan < 0 || this.#lo[cell] >>> 16 === vlan)
      if (isMeant) this.#remove(cell)
      else cell++
    }
  }

  /** Forgets everything. Control plane. */
  clear(): void {
    if (this.entries === 0) return
    this.#port.fill(FREE)
    this.#moved.fill(0)
    this.#shares.clear()
    this.entries = 0
  }

  /** Forgets the static entries of a port. Control plane. */
  forgetStatic(port: number): void {
    for (let cell = 0; cell <= this.#mask;) {
      if (this.#port[cell] === (port | STATIC)) this.#remove(cell)
      else cell++
    }
  }

  /**
   * Calls `visit` for the entries from cell `from` on, of `cells` cells and some more; returns the cell
   * to go on at, -1 when that were all. Of a static one `seenS` is STATIC_AGE. It ends behind a free cell: what `#remove` shifts back does not
   * pass one. Control plane.
   */
  forEach(
    visit: (hi: number, lo: number, port: number, seenS: number) => void,
    from: number = 0,
    cells: number = Infinity,
  ): number {
    const end = this.#mask + 1
    const ports = this.#port
    for (let cell = from; cell < end; cell++) {
      const port = ports[cell]
      if (port !== FREE) {
        const seenS = (port & STATIC) === 0 ? this.#seen[cell] : STATIC_AGE
        visit(this.#hi[cell], this.#lo[cell], port & PORT_MASK, seenS)
      }
      if (port === FREE && cell - from >= cells) return cell + 1 < end ? cell + 1 : -1
    }
    return -1
  }

  /** The entries that are not too old, as rows with their age; from a cell on, as `forEach`. */
  page(from: number, cells: number, nowS: number, agingS: number): MacRows {
    const rows: number[] = []
    const visit = (hi: number, lo: number, port: number, seenS: number): void => {
      if (seenS === STATIC_AGE) rows.push(hi, lo, port, STATIC_AGE)
      else if (seenS >= nowS - agingS) rows.push(hi, lo, port, Math.max(0, nowS - seenS))
    }
    const next = this.forEach(visit, from, cells)
    return { rows: Int32Array.from(rows), next, changes: this.changes }
  }

  /** Frees a cell and shifts back those behind it that would no longer be found. */
  #remove(cell: number): void {
    if ((this.#port[cell] & STATIC) === 0) this.#shares.remove(this.#port[cell])
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
    this.changes = (this.changes + 1) | 0
  }
}
