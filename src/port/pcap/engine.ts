/**
 * pcap ports as the engine sees them. A replay port hands the frames of a capture file to the
 * switch, a read for each burst; a record port is a capture of what it is given.
 */
import { EIO } from '../../abi/errno.ts'
import { Recorder } from '../../capture/recorder.ts'
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX } from '../../mem/burst.ts'
import type { CopyProgram } from '../../mem/copy-program.ts'
import { Window } from '../../mem/window.ts'
import { shim } from '../../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../stats/counters.ts'
import type { Clock } from '../../mem/clock.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import type { EngineKind, EnginePort, PolledPort, PortFailed } from '../contract.ts'
import { PORTS_MAX } from '../contract.ts'
import type { PortCall } from '../messages.ts'
import type {
  RecordDescription,
  ReplayDescription,
  ReplayFile,
  ReplayPosition,
} from './messages.ts'

/** A replay waits no longer at once: the engine asks again. */
const WAIT_US_MAX = 60_000_000

/** Bytes of a file that one burst reads: it stays in the cache, and has room for the longest frame. */
const READ_LENGTH_MAX = 512 * 1024

export const replayKind: EngineKind<ReplayDescription> = {
  make: ({ file, position }, { index }, { clock, portFailed }) =>
    new ReplayEnginePort(index, file, clock, portFailed, position),
}

export const recordKind: EngineKind<RecordDescription> = {
  make({ ring, block }, { index }, { clock, copies, counters }) {
    const recorder = new Recorder(ring, PORTS_MAX)
    recorder.addInterface(index, 0, block)
    return new RecordEnginePort(index, recorder, clock, copies, counters)
  },
}

export class ReplayEnginePort implements PolledPort {
  readonly index: number
  readonly rxQueues = 1
  readonly rxQueue = 0
  readonly txOffloads: number = OFFLOADS_ALL
  readonly #file: ReplayFile
  /** What was read of the file for the current burst. */
  readonly #window: Window = Window.map(READ_LENGTH_MAX)
  readonly #clock: Clock
  readonly #failed: PortFailed
  #isPaced: boolean
  #loop: number
  #hasFailed = false
  #at = 0
  #loopsDone = 0
  /** When the current loop started; 0: not yet. */
  #startUs = 0

  /** `failed` is told that the file was truncated, or cannot be read any more. */
  constructor(
    index: number,
    file: ReplayFile,
    clock: Clock,
    failed: PortFailed,
    position?: ReplayPosition,
  ) {
    this.index = index
    this.#file = file
    this.#clock = clock
    this.#failed = failed
    this.#isPaced = file.isPaced
    this.#loop = file.loop
    if (position === undefined) return
    this.#at = position.at
    this.#loopsDone = position.loopsDone
    this.#startUs = position.startUs
    this.#hasFailed = position.hasFailed
  }

  get #position(): ReplayPosition {
    return {
      at: this.#at,
      loopsDone: this.#loopsDone,
      startUs: this.#startUs,
      hasFailed: this.#hasFailed,
    }
  }

  /** It goes on where it is: what is paced from now on is due from now on. */
  call(call: PortCall): unknown {
    if (call.do !== 'change-replay') return this.#position
    const { isPaced, loop } = call.settings
    if (isPaced && !this.#isPaced && this.#at < this.#file.dueUs.length) {
      this.#startUs = this.#nowUs() - this.#file.dueUs[this.#at]
    }
    this.#isPaced = isPaced
    this.#loop = loop
    return undefined
  }

  /** @hot */
  receive(burst: Burst): number {
    burst.clear()
    const file = this.#file
    let count = 0
    if (!this.#isDone()) {
      const nowUs = this.#nowUs()
      const elapsed = this.#isPaced ? nowUs - this.#startUs : Infinity
      const total = file.offset.length
      const start = this.#at < total ? file.offset[this.#at] : 0
      let end = start
      while (count < BURST_SIZE_MAX && this.#at < total && file.dueUs[this.#at] <= elapsed) {
        const offset = file.offset[this.#at]
        const length = file.length[this.#at]
        if (offset < end || offset + length - start > READ_LENGTH_MAX) break
        burst.window[count] = this.#window.id
        burst.offset[count] = offset - start
        burst.length[count] = length
        burst.headLength[count] = 0
        end = offset + length
        this.#at++
        count++
      }
      if (count > 0 && !this.#read(start, end - start)) count = 0
      else if (this.#at === total) this.#nextLoop()
    }
    burst.count = count
    burst.clearOffloads()
    // Frames of a file start anywhere: the shim gathers their first bytes, aligned.
    if (count > 0) burst.gatherHeads()
    return count
  }

  /** @hot */
  #nowUs(): number {
    this.#clock.read()
    const nowUs = this.#clock.time[0]
    if (this.#startUs === 0) this.#startUs = nowUs
    return nowUs
  }

  /**
   * Reads that part of the file for the burst. In one that was cut there are zeros behind its new end,
   * up to the page's: its size is asked afterwards, so that none of them is taken for a frame. @hot
   */
  #read(offset: number, length: number): boolean {
    const { fd, size } = this.#file
    const got = shim.preadInto(fd, this.#window.id, 0, length, offset)
    if (got === length && shim.fileSize(fd) >= size) return true
    this.#hasFailed = true
    const isCut = got >= 0
    const what = isCut ? 'file-truncated' : 'file-unreadable'
    this.#failed(this.index, { what, errno: isCut ? EIO : -got })
    return false
  }

  #nextLoop(): void {
    this.#at = 0
    this.#startUs = 0
    this.#loopsDone++
  }

  #isDone(): boolean {
    const loop = this.#loop
    const { offset } = this.#file
    return this.#hasFailed || offset.length === 0 || (loop !== 0 && this.#loopsDone >= loop)
  }

  /** @hot */
  release(): void {
    // The next burst is read over it.
  }

  /** @hot */
  waitUs(): number {
    if (this.#isDone()) return -1
    if (!this.#isPaced || this.#startUs === 0) return 0
    const waitUs = this.#startUs + this.#file.dueUs[this.#at] - this.#clock.time[0]
    // A small integer: a fraction would be an allocation where V8 does not inline the call.
    return Math.max(0, Math.min(Math.ceil(waitUs), WAIT_US_MAX)) | 0
  }

  /** What the switch gives to a replay port has no reader: it counts as delivered. @hot */
  transmit(): void {
    // Nothing to do.
  }

  /** @hot */
  endTurn(): void {
    // Nothing waits.
  }

  close(): void {
    this.#window.unmap()
  }
}

export class RecordEnginePort implements EnginePort {
  readonly index: number
  /** A GSO frame is one record, so it can be given anything. */
  readonly txOffloads: number = OFFLOADS_ALL
  readonly #recorder: Recorder
  readonly #clock: Clock
  readonly #copies: CopyProgram
  readonly #counters: Float64Array
  readonly #counterBase: number

  constructor(
    index: number,
    recorder: Recorder,
    clock: Clock,
    copies: CopyProgram,
    counters: Float64Array,
  ) {
    this.index = index
    this.#recorder = recorder
    this.#clock = clock
    this.#copies = copies
    this.#counters = counters
    this.#counterBase = index * COUNTERS_STRIDE
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number): void {
    const recorder = this.#recorder
    const lost = recorder.record(
      burst,
      list,
      first,
      count,
      this.index,
      true,
      this.#clock.words,
      this.#copies,
    )
    let bytes = 0
    for (let at = first; at < first + count; at++) bytes += burst.length[list[at]]
    const base = this.#counterBase
    this.#counters[base + COUNTERS.tx_frames] += count - lost
    this.#counters[base + COUNTERS.tx_bytes] += bytes - recorder.lostBytes
    this.#counters[base + COUNTERS.tx_drop_full] += lost
  }

  /** @hot */
  endTurn(): void {
    // The recorder publishes burst by burst.
  }

  close(): void {
    this.#recorder.close()
  }
}
