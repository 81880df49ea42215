/** What signals do to a daemon, from before it starts until it has ended. */
import { CLOSE_MS, endNow, endWithin } from './deadline.ts'
import type { CaughtSignal } from './signals.ts'
import { receiveSignals } from './signals.ts'
import type { Log } from '../text.ts'

/** One order to end may come as several signals: to the process and to its group, from a terminal and from npm. */
const SAME_ORDER_MS = 250

export class DaemonSignals {
  /** Aborted by the first signal to end. */
  readonly ending: AbortSignal
  /** Its name. */
  readonly ended: Promise<CaughtSignal>
  readonly #log: Log
  readonly #abort: AbortController = new AbortController()
  #endingAtMs = 0
  #reload: (() => void) | undefined
  #isReloadWanted = false
  #upgrade: (() => void) | undefined
  /** Told once each, however often they come. */
  readonly #ignored = new Set<CaughtSignal>()

  constructor(log: Log) {
    this.#log = log
    this.ending = this.#abort.signal
    this.ended = new Promise((resolve) => {
      this.ending.addEventListener('abort', () => resolve(this.ending.reason as CaughtSignal))
    })
    receiveSignals((signal) => this.#receive(signal))
  }

  /** Once the daemon is there; at once when it was asked for meanwhile. */
  onReload(reload: () => void): void {
    this.#reload = reload
    if (this.#isReloadWanted) reload()
  }

  /** A daemon that is there can be replaced. */
  onUpgrade(upgrade: () => void): void {
    this.#upgrade = upgrade
  }

  #receive(signal: CaughtSignal): void {
    switch (signal) {
      case 'SIGTERM':
      case 'SIGINT':
        return this.#end(signal)
      case 'SIGHUP':
        this.#isReloadWanted = true
        return this.#reload?.()
      case 'SIGUSR2':
        return this.#upgrade === undefined ? this.#ignore(signal) : this.#upgrade()
      case 'SIGUSR1':
        return this.#ignore(signal)
    }
  }

  #ignore(signal: CaughtSignal): void {
    if (!this.#ignored.has(signal)) this.#log(`signal: ${signal} ignored`)
    this.#ignored.add(signal)
  }

  #end(signal: CaughtSignal): void {
    const nowMs = performance.now()
    if (!this.ending.aborted) {
      this.#endingAtMs = nowMs
      endWithin(CLOSE_MS, 'closing')
      this.#abort.abort(signal)
    } else if (nowMs - this.#endingAtMs > SAME_ORDER_MS) endNow(`a second ${signal}`)
  }
}
