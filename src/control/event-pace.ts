/**
 * How often clients are told of the same thing: a guest that comes and goes without end is no flood of
 * events for everybody. As with QEMU's, what is left out is what was true in between; the last that
 * was said is told in the end.
 */

/** Of one thing that are told at once after a time of nothing. */
const BURST = 16
/** Then one each. */
const INTERVAL_MS = 100

interface Told<T> {
  /** May still be told at once, as of `filledMs`. */
  left: number
  filledMs: number
  waiting: { readonly said: T; readonly timer: NodeJS.Timeout } | undefined
}

export class EventPace<T> {
  readonly #tell: (said: T) => void
  /** By the thing that it is about; forgotten with it. */
  readonly #told = new Map<string, Told<T>>()

  constructor(tell: (said: T) => void) {
    this.#tell = tell
  }

  say(about: string, said: T): void {
    const nowMs = performance.now()
    const told = this.#told.get(about) ?? { left: BURST, filledMs: nowMs, waiting: undefined }
    this.#told.set(about, told)
    told.left = Math.min(BURST, told.left + (nowMs - told.filledMs) / INTERVAL_MS)
    told.filledMs = nowMs
    if (told.waiting !== undefined) {
      told.waiting = { said, timer: told.waiting.timer }
      return
    }
    if (told.left >= 1) {
      told.left--
      this.#tell(said)
      return
    }
    const timer = setTimeout(() => this.#tellWaiting(told), (1 - told.left) * INTERVAL_MS)
    told.waiting = { said, timer }
  }

  #tellWaiting(told: Told<T>): void {
    const { said } = told.waiting!
    told.waiting = undefined
    told.left = 0
    told.filledMs = performance.now()
    this.#tell(said)
  }

  /** It is gone, and what waits of it is not told. */
  forget(about: string): void {
    clearTimeout(this.#told.get(about)?.waiting?.timer)
    this.#told.delete(about)
  }

  close(): void {
    for (const about of this.#told.keys()) this.forget(about)
  }
}
