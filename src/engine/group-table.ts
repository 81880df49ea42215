/**
 * Who is to have which multicast: (domain, group) -> ports, each until some time. A domain is a VLAN with what tag
 * is inside it, and a family of IP (engine/snooping.ts); a group is four words, all zero for the routers of
 * the domain. Times are tenths of a second.
 *
 *     cell:  domain, group, first row, and of a domain's own cell: its querier
 *     row:   port, until when, next row of the cell
 *
 * Open addressing with linear probing, at most half full; entries are removed by shifting back. Everything has
 * a limit: groups, domains, rows of all ports, and rows of each, so that one port cannot take the room of others.
 */
import { PORTS_MAX } from '../port/contract.ts'
import type { GroupRow } from './messages.ts'

const FREE = -1
/** Words of a cell, which is a line of the cache. */
const CELL_WORDS = 16
const CELL_BITS = 4
/** Where in a cell what is. */
const DOMAIN = 0
const WORD0 = 1
const WORD1 = 2
const WORD2 = 3
const WORD3 = 4
const FIRST_ROW = 5
/** Of a domain's own cell: there is a querier until then, and it has been heard by all from then on. */
export const QUERIER_UNTIL = 6
export const QUERIER_HEARD = 7
/** Where it is, and its address. */
export const QUERIER_PORT = 8
export const QUERIER_WORD0 = 9
/** By its word: tenths of a second that a membership lasts, and how many messages may get lost. */
export const MEMBERSHIP_DS = 13
export const ROBUSTNESS = 14

const ROW_WORDS = 3
const ROW_PORT = 0
const ROW_UNTIL = 1
const ROW_NEXT = 2

/** Domains: 4096 VLANs of one family, or half as many of both. */
const DOMAINS_MAX = 4096
/** Rows of routers that one port has. */
const ROUTER_ROWS_MAX = 2048
/** Members of a group, on average, for which there is room. */
const MEMBERS_EACH = 8
const PROBE_MAX = 64
const SWEEP_CELLS = 2048

export class GroupTable {
  /** Groups and domains that are there. */
  groups = 0
  #domains = 0
  readonly #groupsMax: number
  readonly #portMax: number
  readonly #mask: number
  readonly #shift: number
  readonly #seed: number
  readonly cells: Int32Array
  readonly #rows: Int32Array
  /** First row that is free, or FREE; they are linked. */
  #freeRow = FREE
  /** Rows that were never used. */
  #freshRow = 0
  /** By port: its rows of groups, and of domains. */
  readonly #groupRows: Int32Array = new Int32Array(PORTS_MAX)
  readonly #routerRows: Int32Array = new Int32Array(PORTS_MAX)
  #sweepAt = 0

  /** `groupsMax` groups, `portMax` of them for one port; `seed` makes cells unpredictable. */
  constructor(groupsMax: number, portMax: number, seed: number) {
    const entries = groupsMax + DOMAINS_MAX
    const bits = 33 - Math.clz32(entries - 1)
    this.#groupsMax = groupsMax
    this.#portMax = portMax
    this.#mask = (1 << bits) - 1
    this.#shift = 32 - bits
    this.#seed = seed | 0
    this.cells = new Int32Array(CELL_WORDS << bits).fill(FREE)
    this.#rows = new Int32Array(ROW_WORDS * (groupsMax * MEMBERS_EACH + DOMAINS_MAX))
  }

  #home(domain: number, word0: number, word1: number, word2: number, word3: number): number {
    let hash = Math.imul(domain ^ this.#seed, 0x9e37_79b1)
    hash = Math.imul((hash ^ (hash >>> 15)) + word0, 0x85eb_ca6b)
    hash = Math.imul((hash ^ (hash >>> 13)) + word1, 0xc2b2_ae35)
    hash = Math.imul((hash ^ (hash >>> 16)) + word2, 0x27d4_eb2f)
    hash = Math.imul((hash ^ (hash >>> 15)) + word3, 0x1656_67b1)
    return Math.imul(hash ^ (hash >>> 14), 0x9e37_79b1) >>> this.#shift
  }

  /** The cell of a group, as where it begins in `cells`; -1: there is none. @hot */
  find(domain: number, word0: number, word1: number, word2: number, word3: number): number {
    const at = this.#probe(domain, word0, word1, word2, word3)
    return at >= 0 && this.cells[at + DOMAIN] !== FREE ? at : -1
  }

  /** The cell of the domain itself. @hot */
  findDomain(domain: number): number {
    return this.find(domain, 0, 0, 0, 0)
  }

  /** Where it is, or a free cell where it may be; -1: there is neither. @hot */
  #probe(domain: number, word0: number, word1: number, word2: number, word3: number): number {
    const { cells } = this
    let cell = this.#home(domain, word0, word1, word2, word3)
    for (let probe = 0; probe < PROBE_MAX; probe++) {
      const at = cell << CELL_BITS
      if (cells[at + DOMAIN] === FREE) return at
      const isIt =
        cells[at + WORD3] === word3 &&
        cells[at + DOMAIN] === domain &&
        cells[at + WORD2] === word2 &&
        cells[at + WORD1] === word1 &&
        cells[at + WORD0] === word0
      if (isIt) return at
      cell = (cell + 1) & this.#mask
    }
    return -1
  }

  /**
   * The port is to have the group until then, which may be sooner than before. False: there is no room for it.
   * @hot
   */
  add(
    domain: number,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    port: number,
    until: number,
  ): boolean {
    const { cells } = this
    const at = this.#probe(domain, word0, word1, word2, word3)
    if (at < 0) return false
    const isDomain = (word0 | word1 | word2 | word3) === 0
    const isNew = cells[at + DOMAIN] === FREE
    if (!isNew) {
      const known = this.#rowOf(at, port)
      if (known >= 0) {
        this.#rows[known + ROW_UNTIL] = until
        return true
      }
    } else if (isDomain ? this.#domains === DOMAINS_MAX : this.groups === this.#groupsMax) {
      return false
    }
    const counts = isDomain ? this.#routerRows : this.#groupRows
    if (counts[port] >= (isDomain ? ROUTER_ROWS_MAX : this.#portMax)) return false
    const row = this.#takeRow()
    if (row < 0) return false
    if (isNew) {
      cells[at + DOMAIN] = domain
      cells[at + WORD0] = word0
      cells[at + WORD1] = word1
      cells[at + WORD2] = word2
      cells[at + WORD3] = word3
      cells[at + FIRST_ROW] = FREE
      cells[at + QUERIER_UNTIL] = 0
      cells[at + QUERIER_PORT] = FREE
      if (isDomain) this.#domains++
      else this.groups++
    }
    counts[port]++
    this.#rows[row + ROW_PORT] = port
    this.#rows[row + ROW_UNTIL] = until
    this.#rows[row + ROW_NEXT] = cells[at + FIRST_ROW]
    cells[at + FIRST_ROW] = row
    return true
  }

  /** @hot */
  #takeRow(): number {
    const row = this.#freeRow
    if (row >= 0) {
      this.#freeRow = this.#rows[row + ROW_NEXT]
      return row
    }
    const fresh = this.#freshRow
    if (fresh === this.#rows.length) return -1
    this.#freshRow = fresh + ROW_WORDS
    return fresh
  }

  /** The row of a port, -1: it has none. @hot */
  #rowOf(at: number, port: number): number {
    const rows = this.#rows
    let row = this.cells[at + FIRST_ROW]
    while (row >= 0 && rows[row + ROW_PORT] !== port) row = rows[row + ROW_NEXT]
    return row
  }

  /** Of what the port has of the group, nothing lasts longer than until then; -1: of what any port has. @hot */
  shorten(at: number, port: number, until: number): void {
    const rows = this.#rows
    for (let row = this.cells[at + FIRST_ROW]; row >= 0; row = rows[row + ROW_NEXT]) {
      if (port >= 0 && rows[row + ROW_PORT] !== port) continue
      if (rows[row + ROW_UNTIL] > until) rows[row + ROW_UNTIL] = until
    }
  }

  /** Writes the ports that are to have the group now to `ports` from `count` on; returns the new count. @hot */
  list(at: number, now: number, ports: Int32Array, count: number): number {
    const rows = this.#rows
    let listed = count
    for (let row = this.cells[at + FIRST_ROW]; row >= 0; row = rows[row + ROW_NEXT]) {
      if (rows[row + ROW_UNTIL] > now) ports[listed++] = rows[row + ROW_PORT]
    }
    return listed
  }

  /** Removes what is over, a bounded number of cells per call; true: it was once round. @hot */
  sweep(now: number): boolean {
    const cells = this.#mask + 1
    const end = this.#sweepAt + SWEEP_CELLS < cells ? this.#sweepAt + SWEEP_CELLS : cells
    for (let cell = this.#sweepAt; cell < end;) {
      // Another one may be shifted into this cell.
      if (!this.#clean(cell << CELL_BITS, now, -1)) cell++
    }
    this.#sweepAt = end === cells ? 0 : end
    return this.#sweepAt === 0
  }

  /** Removes from a cell the rows that are over and those of a port (-1: of none); true: the cell as well. @hot */
  #clean(at: number, now: number, port: number): boolean {
    const { cells } = this
    if (cells[at + DOMAIN] === FREE) return false
    const rows = this.#rows
    const isDomain = (cells[at + WORD0] | cells[at + WORD3]) === 0
    const counts = isDomain ? this.#routerRows : this.#groupRows
    let before = FREE
    let row = cells[at + FIRST_ROW]
    while (row >= 0) {
      const next = rows[row + ROW_NEXT]
      const its = rows[row + ROW_PORT]
      if (its === port || rows[row + ROW_UNTIL] <= now) {
        counts[its]--
        if (before < 0) cells[at + FIRST_ROW] = next
        else rows[before + ROW_NEXT] = next
        rows[row + ROW_NEXT] = this.#freeRow
        this.#freeRow = row
      } else before = row
      row = next
    }
    if (isDomain && cells[at + QUERIER_PORT] === port) cells[at + QUERIER_UNTIL] = 0
    if (cells[at + FIRST_ROW] >= 0) return false
    if (isDomain) this.#domains--
    else this.groups--
    this.#remove(at >>> CELL_BITS)
    return true
  }

  /** Removes what a port has (-1: any port) in the domains with these bits under the mask. Control plane. */
  flush(port: number, mask: number, bits: number): void {
    for (let cell = 0; cell <= this.#mask;) {
      const at = cell << CELL_BITS
      const domain = this.cells[at + DOMAIN]
      const isMeant = domain !== FREE && (domain & mask) === bits
      const isGone = isMeant && this.#clean(at, port < 0 ? 0x7fff_ffff : 0, port)
      if (!isGone) cell++
    }
  }

  /** Forgets what a port has. */
  forgetPort(port: number): void {
    if (this.#groupRows[port] + this.#routerRows[port] > 0) this.flush(port, 0, 0)
  }

  /**
   * Calls `visit` for the rows that are not over, of the cells from `from` on; returns the cell to go on at, -1
   * when that were all. Control plane.
   */
  page(now: number, from: number, cells: number, visit: (row: GroupRow) => void): number {
    for (let cell = from; cell <= this.#mask; cell++) {
      const at = cell << CELL_BITS
      const [domain, ...its] = this.cells.subarray(at, at + CELL_WORDS)
      // What is removed shifts back no cell that stands behind a free one.
      if (domain === FREE) {
        if (cell - from >= cells) return cell
        continue
      }
      const group = its.slice(0, FIRST_ROW - WORD0)
      const rows = this.#rows
      for (let row = this.cells[at + FIRST_ROW]; row >= 0; row = rows[row + ROW_NEXT]) {
        const [port, until] = rows.subarray(row + ROW_PORT)
        if (until <= now) continue
        const querier = port === this.cells[at + QUERIER_PORT] ? this.#querier(at, now) : []
        visit([domain, ...group, port, until - now, ...querier])
      }
    }
    return -1
  }

  #querier(at: number, now: number): number[] {
    const { cells } = this
    const left = cells[at + QUERIER_UNTIL] - now
    if (left <= 0) return []
    const known = cells.subarray(at + QUERIER_WORD0, at + ROBUSTNESS + 1)
    return [left, ...known, Math.max(0, cells[at + QUERIER_HEARD] - now)]
  }

  /** Takes a row that was told by `page`, elsewhere. False: there is no room for it. Control plane. */
  restore(row: GroupRow, now: number): boolean {
    const [domain, word0, word1, word2, word3, port, left, ...querier] = row
    if (!this.add(domain, word0, word1, word2, word3, port, now + left)) return false
    if (querier.length === 0) return true
    const { cells } = this
    const at = this.findDomain(domain)
    const [querierLeft, ...known] = querier
    cells[at + QUERIER_UNTIL] = now + querierLeft
    cells[at + QUERIER_PORT] = port
    cells[at + QUERIER_HEARD] = now + known.pop()!
    cells.set(known, at + QUERIER_WORD0)
    return true
  }

  /** Frees a cell and shifts back those behind it that would no longer be found. @hot */
  #remove(cell: number): void {
    const { cells } = this
    const mask = this.#mask
    let hole = cell
    let next = (hole + 1) & mask
    while (cells[(next << CELL_BITS) + DOMAIN] !== FREE) {
      const from = next << CELL_BITS
      const home = this.#home(
        cells[from + DOMAIN],
        cells[from + WORD0],
        cells[from + WORD1],
        cells[from + WORD2],
        cells[from + WORD3],
      )
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        cells.copyWithin(hole << CELL_BITS, from, from + CELL_WORDS)
        hole = next
      }
      next = (next + 1) & mask
    }
    cells[(hole << CELL_BITS) + DOMAIN] = FREE
  }
}
