/**
 * A context of Linux AIO, by which the shim reads or writes a burst of frames in one io_submit(2). It
 * is older than io_uring, and allowed in most containers that forbid that.
 */
import { shim } from '../native/shim.ts'

/** At least as many as the shim hands to the kernel at once. */
const REQUESTS = 256
const TWO_32 = 4294967296

export class Aio {
  /** The context's number, in the halves that the shim takes. */
  readonly low: number
  readonly high: number
  readonly #context: number

  private constructor(context: number) {
    this.#context = context
    this.low = context | 0
    this.high = (context / TWO_32) | 0
  }

  /** null: the kernel has none to give (fs.aio-max-nr, no CONFIG_AIO, a sandbox). */
  static open(): Aio | null {
    const context = shim.aioSetup(REQUESTS)
    return context < 0 ? null : new Aio(context)
  }

  /** Takes some 30 ms. */
  close(): void {
    shim.aioDestroy(this.#context)
  }
}
