/**
 * Loops without a pause, each with an end: a test that does not yield cannot time out, and would hold
 * up the suite for ever.
 */

/** More than any test needs. */
const ROUNDS_MAX = 100_000

/** Does it until it answers false. */
export function whileTrue(what: string, step: () => boolean): void {
  for (let round = 0; round < ROUNDS_MAX; round++) if (!step()) return
  throw new Error(`${what}: no end after ${ROUNDS_MAX} times`)
}

/** Frames that are looked through at once: then whoever waits for one looks at the clock. */
const FRAMES_MAX = 4096

interface Receiver {
  receive(): Uint8Array | null
}

/** Whether the frame is among those that have come; those before it are thrown away. */
export function hasCome(receiver: Receiver, frame: Uint8Array): boolean {
  for (let count = 0; count < FRAMES_MAX; count++) {
    const bytes = receiver.receive()
    if (bytes === null) return false
    if (Buffer.compare(bytes, frame) === 0) return true
  }
  return false
}
