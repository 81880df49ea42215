/**
 * How fast the guests of a port may come and change their memory: mapping it takes time of the control plane, and
 * every change that of the engine, which attaches the queues again; one that comes, breaks and comes
 * again takes as much. Who is faster is read more slowly, and let in later; nobody else waits. A guest that starts, or is given memory while it runs, does not come near it: QEMU
 * sends a table for each queue pair and each change of its memory map, some thousand windows in all.
 */

/** A window that is mapped, a queue that is attached again, and a table itself are a unit each. */
const UNITS_PER_S = 1024
/** A connection, its session and their end. */
export const CONNECTION_UNITS = 8
/** What may be done at once after a time of nothing. */
const UNITS_BURST = 8192
/** Longest wait after one message: the end of a connection is told when the wait is over. */
const WAIT_MS_MAX = 1000
const LEAST: number = (-UNITS_PER_S * WAIT_MS_MAX) / 1000

export class MemoryPace {
  readonly #now: () => number
  /** Below 0: so much was done too early. */
  #left = UNITS_BURST
  #filledMs: number

  /** `now` gives milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#filledMs = now()
  }

  #fill(): void {
    const nowMs = this.#now()
    const more = ((nowMs - this.#filledMs) * UNITS_PER_S) / 1000
    this.#left = Math.min(UNITS_BURST, this.#left + more)
    this.#filledMs = nowMs
  }

  /** Something was done. */
  charge(units: number): void {
    this.#fill()
    // Whoever comes after him who did it waits for no more than one such time.
    this.#left = Math.max(LEAST, this.#left - units)
  }

  /** How long nothing more should be read from who did it; 0: it may go on. */
  waitMs(): number {
    this.#fill()
    if (this.#left >= 0) return 0
    return Math.min(WAIT_MS_MAX, Math.ceil((-this.#left * 1000) / UNITS_PER_S))
  }
}
