/**
 * The learning table: MAC address -> port, with the second it was last seen.
 *
 * Open addressing with linear probing over typed arrays, at most half full, at most PROBE_MAX cells
 * per lookup (a sender that picks colliding addresses makes its own frames flood, nothing slower).
 * Entries are removed by shifting back, so there are no tombstones. One table serves all VLANs.
 */
const PROBE_MAX = 32
const FREE = -1

/** Cells that one step of the ageing sweep looks at, so that a huge table never stalls the engine. */
const SWEEP_CELLS = 16384

export class MacTable {
  /** Entries in use. */
  entries = 0
  /** Times a known address was seen on another port. */
  moves = 0
  /** Times an address could not be learnt because the table (or its neighbourhood) was full. */
  full = 0

  readonly #size: number
  readonly #mask: number
  readonly #shift: number
  readonly #seed: number
  readonly #hi: Int32Array
  readonly #lo: Int32Array
  readonly #port: Int32Array
  readonly #seen: Int32Array
  #sweepAt = 0

  /** `size` entries at most; `seed` makes the cells unpredictable for senders. */
  constructor(size: number, seed: number) {
    const bits = 33 - Math.clz32(Math.max(size, 16) - 1)
    const cells = 1 << bits
    this.#size = size
    this.#mask = cells - 1
    this.#shift = 32 - bits
    this.#seed = seed | 0
    this.#hi = new Int32Array(cells)
    this.#lo = new Int32Array(cells)
    this.#port = new Int32Array(cells).fill(FREE)
    this.#seen = new Int32Array(cells)
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
        if (this.entries >= this.#size) break
        this.#hi[cell] = hi
        this.#lo[cell] = lo
        ports[cell] = port
        this.#seen[cell] = nowS
        this.entries++
        return
      }
      if (this.#hi[cell] === hi && this.#lo[cell] === lo) {
        if (known !== port) {
          ports[cell] = port
          this.moves++
        }
        this.#seen[cell] = nowS
        return
      }
      cell = (cell + 1) & mask
    }
    this.full++
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
    for (let cell = 0; cell <= this.#mask;) {
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

  /** Frees a cell and shifts back those behind it that would no longer be found. */
  #remove(cell: number): void {
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
        hole = next
      }
      next = (next + 1) & mask
    }
    this.#port[hole] = FREE
    this.entries--
  }
}
