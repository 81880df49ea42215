/**
 * Signals eventfds of which somebody else has a hand. That one may fill the counter and clear
 * O_NONBLOCK, which belongs to the open file and not to our descriptor, at any time: a write(2)
 * would then wait for ever. A request of Linux AIO that completes at once and names the eventfd has
 * the kernel add to it, which never waits (some 0.2 us dearer than the write).
 */
import { shim } from './shim.ts'

/** Requests whose completions are not yet taken back; the kernel rounds up to a page. */
const REQUESTS = 64

export class EventSignals {
  /** Number of the AIO context, for another thread's EventSignals; negative: there is none. */
  readonly context: number

  constructor(context: number) {
    this.context = context
  }

  /** A new context, or none where the kernel has no AIO to give (fs.aio-max-nr, no CONFIG_AIO). */
  static open(): EventSignals {
    return new EventSignals(shim.aioSetup(REQUESTS))
  }

  /** False: signals are plain writes, which a hostile peer can make wait. */
  get neverWaits(): boolean {
    return this.context >= 0
  }

  /** Adds 1 to the counter; a descriptor that is no eventfd is left alone. @hot */
  signal(fd: number): void {
    if (this.context < 0) {
      shim.eventfdWrite(fd)
      return
    }
    if (shim.aioSignal(this.context, fd) === 0) return
    // Most likely -EAGAIN: every request has completed and waits to be taken back.
    shim.aioReap(this.context)
    shim.aioSignal(this.context, fd)
  }

  /** Ends the context in all threads; takes some 30 ms. */
  close(): void {
    if (this.context >= 0) shim.aioDestroy(this.context)
  }
}
