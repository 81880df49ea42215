/**
 * When the frames of a file are due. Times of files go back and leap: frames of several interfaces are
 * written a little out of order, clocks are set, and some frames have no time.
 *
 *     a little earlier than the one before    at once; those behind it keep their times
 *     earlier by more, or later by a day      the clock was set: at once, and the pace goes on from there
 *     no time                                 together with the one before
 */
/** A bigger step back is no disorder of interfaces, but a clock that was set. */
const DISORDER_US = 100_000
/** Nobody waits so long between two frames of a file. */
const GAP_US: number = 24 * 3600 * 1e6

export class Pace {
  /** Times that the clock was set. */
  steps = 0
  /** Time of a frame that would be due at 0; undefined: no frame had a time yet. */
  #baseNs: bigint | undefined
  #lastUs = 0

  /** Microseconds after the first frame, never less than those of the frame before. */
  dueUs(timestampNs: bigint | null): number {
    if (timestampNs === null) return this.#lastUs
    this.#baseNs ??= timestampNs
    const dueUs = Number(timestampNs - this.#baseNs) / 1000
    const lateUs = dueUs - this.#lastUs
    if (lateUs >= -DISORDER_US && lateUs <= GAP_US) {
      if (lateUs > 0) this.#lastUs = dueUs
      return this.#lastUs
    }
    this.steps++
    this.#baseNs = timestampNs - BigInt(Math.round(this.#lastUs * 1000))
    return this.#lastUs
  }
}
