/**
 * The engine's clock: read at most once per turn, into memory, so that reading it allocates nothing.
 */
import { shim } from '../native/shim.ts'
import { Window } from './window.ts'

export interface Clock {
  /** [0]: monotonic microseconds of the last read. */
  readonly time: Float64Array
  /** Wall clock of the last read: [2], [3] low and high word of nanoseconds since 1970; [4], [5]
   *  seconds since 1970 and nanoseconds of the second. */
  readonly words: Int32Array
  /** @hot */
  read(): void
}

export class KernelClock implements Clock {
  readonly time: Float64Array
  readonly words: Int32Array
  readonly #window: Window

  constructor() {
    this.#window = Window.map(4096)
    this.time = new Float64Array(this.#window.buffer)
    this.words = new Int32Array(this.#window.buffer)
  }

  /** @hot */
  read(): void {
    shim.clockGettime(this.#window.id, 0)
  }
}
