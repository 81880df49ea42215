/**
 * Notices addresses that move between ports again and again. That is what a loop outside the switch
 * makes of whatever goes round in it (two ports on one kernel bridge, both ends of a veth pair): each
 * frame comes in by both. Two senders with one address look the same.
 *
 *     MAC table: an address moves for the sixth time in a second --note--> moves by pair of ports
 *     housekeeping: once a second                                --take--> the pairs, or nothing
 *
 * An address may move a few times without being noted, so however many hosts or guests change their
 * port at once, they are no loop. More than a few times in a second none does: LOOP_MOVES of them are
 * few, because in a storm an address moves once in a burst, and the bursts are long. Measured on TAPs
 * that share a kernel bridge: 700 to 80,000 moves a second with two of them, 140 to 200 with ten, 40 to
 * 90 with twenty, each frame of which leaves by nineteen ports and is forwarded by the bridge to as many.
 */
import type { MovingAddress } from './messages.ts'

/** Moves of an address in a second that mean nothing. */
export const FEW_MOVES = 5
/** Beyond those, moves of all addresses in a second that make a loop. */
export const LOOP_MOVES = 20
/** Pairs of ports that are told apart; the moves of others count for the whole. */
const PAIRS_MAX = 16
/** Of the moves of the busiest pair, those of another that is told as well: whoever talks moves now and then. */
const PART = 2

const NONE: readonly MovingAddress[] = []

export class MoveWatch {
  #moves = 0
  #pairs = 0
  /** By pair: its ports, the moves between them, and the address that was noted first. */
  readonly #lower: Int32Array = new Int32Array(PAIRS_MAX)
  readonly #upper: Int32Array = new Int32Array(PAIRS_MAX)
  readonly #pairMoves: Int32Array = new Int32Array(PAIRS_MAX)
  readonly #hi: Int32Array = new Int32Array(PAIRS_MAX)
  readonly #lo: Int32Array = new Int32Array(PAIRS_MAX)

  /** An address that has moved often in this second moved again. @hot */
  note(hi: number, lo: number, from: number, to: number): void {
    this.#moves++
    const lower = from < to ? from : to
    const upper = from < to ? to : from
    const pairs = this.#pairs
    let at = 0
    while (at < pairs && (this.#lower[at] !== lower || this.#upper[at] !== upper)) at++
    if (at === pairs) {
      if (pairs === PAIRS_MAX) return
      this.#pairs++
      this.#lower[at] = lower
      this.#upper[at] = upper
      this.#pairMoves[at] = 0
      this.#hi[at] = hi
      this.#lo[at] = lo
    }
    this.#pairMoves[at]++
  }

  /** The port is gone, or has another place: what was noted of it says nothing any more. */
  forgetPort(port: number): void {
    for (let at = this.#pairs - 1; at >= 0; at--) {
      if (this.#lower[at] !== port && this.#upper[at] !== port) continue
      this.#moves -= this.#pairMoves[at]
      const last = --this.#pairs
      for (const row of [this.#lower, this.#upper, this.#pairMoves, this.#hi, this.#lo]) {
        row[at] = row[last]
      }
    }
  }

  /** What was noted since the last call, the busiest pair first, if it is enough for a loop. */
  take(): readonly MovingAddress[] {
    const isLoop = this.#moves >= LOOP_MOVES
    const pairs = this.#pairs
    this.#moves = 0
    this.#pairs = 0
    if (!isLoop) return NONE
    const all = Array.from({ length: pairs }, (_, at) => ({
      hi: this.#hi[at],
      lo: this.#lo[at],
      ports: [this.#lower[at], this.#upper[at]] as const,
      moves: this.#pairMoves[at],
    })).toSorted((one, other) => other.moves - one.moves)
    return all.filter(({ moves }) => moves * PART >= all[0].moves)
  }
}
