/**
 * Whether the writer of a capture may write. The main thread holds it while another process may go on with the
 * ring, and with what has not been written of it. Either side says what it wants before it looks at the other:
 *
 *     main     hold = 1, and waits for writing = 0
 *     writer   writing = 1, looks at hold; when that is 1, writing = 0, and waits for hold = 0
 */
import { setTimeout } from 'node:timers/promises'
import { RING_HOLD, RING_WRITING } from './ring.ts'

const LOOK_MS = 1

/** The main thread's end of it. */
export class WriterHold {
  isHeld = false
  readonly #control: Int32Array

  constructor(control: Int32Array) {
    this.#control = control
  }

  /** Whether nothing is written from now on; false: something still is after so many milliseconds. */
  async begin(waitMs: number): Promise<boolean> {
    const deadline = performance.now() + waitMs
    this.isHeld = true
    Atomics.store(this.#control, RING_HOLD, 1)
    while (Atomics.load(this.#control, RING_WRITING) !== 0) {
      if (performance.now() > deadline) this.end()
      else await setTimeout(LOOK_MS)
      if (!this.isHeld) return false
    }
    return true
  }

  end(): void {
    this.isHeld = false
    Atomics.store(this.#control, RING_HOLD, 0)
    Atomics.notify(this.#control, RING_HOLD)
  }
}

/** The writer's: returns once it may write, until `endWriting`. */
export function beginWriting(control: Int32Array): void {
  for (;;) {
    Atomics.store(control, RING_WRITING, 1)
    if (Atomics.load(control, RING_HOLD) === 0) return
    Atomics.store(control, RING_WRITING, 0)
    Atomics.wait(control, RING_HOLD, 1)
  }
}

export function endWriting(control: Int32Array): void {
  Atomics.store(control, RING_WRITING, 0)
}
