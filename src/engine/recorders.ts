/**
 * The captures that run: each frame where it enters, and where it leaves, as it leaves. What goes through a tag
 * stage is recorded behind that; everything else as the lists have it.
 */
import type { Recorder } from '../capture/recorder.ts'
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import type { Clock } from '../mem/clock.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import type { LeavingWatch } from '../offload/tag-stage.ts'
import type { Forwarder } from './forward.ts'

/** Frames numbered by their place: the list of all frames of a burst. */
const ALL: Int32Array = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)

export class Recorders implements LeavingWatch {
  isWatching = false
  readonly #recorders: Recorder[] = []
  readonly #clock: Clock
  readonly #copies: CopyProgram

  constructor(clock: Clock, copies: CopyProgram) {
    this.#clock = clock
    this.#copies = copies
  }

  add(recorder: Recorder): void {
    this.#recorders.push(recorder)
    this.isWatching = true
  }

  remove(recorder: Recorder): void {
    const at = this.#recorders.indexOf(recorder)
    if (at >= 0) this.#recorders.splice(at, 1)
    this.isWatching = this.#recorders.length > 0
    recorder.close()
  }

  removePort(port: number): void {
    for (const recorder of this.#recorders) recorder.removeInterface(port)
  }

  /** The whole burst came in by the port. @hot */
  recordEntering(burst: Burst, port: number): void {
    this.#record(burst, ALL, 0, burst.count, port, false)
  }

  /** What leaves with the tags with which it came in by `from`. @hot */
  recordLeaving(burst: Burst, forwarder: Forwarder, from: number): void {
    const { egress, egressCount, lists, listLength } = forwarder.given
    for (let at = 0; at < egressCount; at++) {
      const port = egress[at]
      if (forwarder.mayRetag(from, port)) continue
      this.#record(burst, lists, port * BURST_SIZE_MAX, listLength[port], port, true)
    }
  }

  /** @hot */
  leaves(burst: Burst, list: Int32Array, first: number, count: number, port: number): void {
    this.#record(burst, list, first, count, port, true)
  }

  /** @hot */
  #record(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    port: number,
    isOutbound: boolean,
  ): void {
    const { words } = this.#clock
    for (let at = 0; at < this.#recorders.length; at++) {
      this.#recorders[at].record(burst, list, first, count, port, isOutbound, words, this.#copies)
    }
  }
}
