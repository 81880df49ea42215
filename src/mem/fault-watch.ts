/**
 * Tells that windows were lost: the files behind them were truncated by somebody else, and the SIGBUS
 * handler has put empty memory in their place (native-shim/src/window.c). It counts for the whole
 * process, so that a glance tells whether there is anything to look for.
 */
import { shim } from '../native/shim.ts'

export class FaultWatch {
  /** Windows lost so far. */
  readonly #count: Int32Array = new Int32Array(shim.windowFaultCounter() as ArrayBuffer)
  #seen: number = this.#count[0]

  /** Windows were lost since the last `acknowledge`. @hot */
  hasNew(): boolean {
    return Atomics.load(this.#count, 0) !== this.#seen
  }

  /** Before looking whose they are: what is lost meanwhile is new again. */
  acknowledge(): void {
    this.#seen = Atomics.load(this.#count, 0)
  }
}
