/**
 * A running capture, as the control plane sees it: the ring, the writer thread, and the interfaces
 * described so far. The engine's end is a Recorder; the caller attaches and detaches it.
 */
import { extname } from 'node:path'
import { ConfigError } from '../errors.ts'
import type { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import { WorkerThread } from '../native/worker-thread.ts'
import type {
  Capture,
  CaptureDirection,
  CaptureFormat,
  CaptureInfo,
  CaptureOptions,
  CaptureSummary,
} from './options.ts'
import { pcapHeader } from '../wire/pcap.ts'
import { interfaceDescription, sectionHeader } from '../wire/pcapng.ts'
import type { Destination } from './destination.ts'
import { cameFile, openDestination } from './destination.ts'
import type { CaptureRingHandle } from './ring.ts'
import {
  COUNT_BYTES,
  COUNT_COMPLETE,
  COUNT_DESCRIBED,
  COUNT_DROPPED,
  COUNT_FRAMES,
  COUNT_INTERFACES,
  COUNT_PER_INTERFACE,
  createCaptureRing,
  INTERFACES_MAX,
  RING_HEAD,
  RING_STOP,
  RING_TAIL,
  STOP_COMPLETE,
  STOP_LEAVE,
} from './ring.ts'
import type { WriterData, WriterEnd, WriterMessage } from './writer-worker.ts'

export const SNAP_LENGTH_MAX = 262144

/**
 * Detaches the engine's recorder; resolves when the engine no longer touches the ring. `error`: the
 * writer has failed, this is why.
 */
export type Detach = (error?: string) => Promise<void>

/** What another process needs to go on with a capture in its file: plain JSON. */
export interface CaptureState {
  readonly path: string
  readonly format: CaptureFormat
  readonly direction: CaptureDirection
  readonly snapLength: number
  /** 0: no limit. */
  readonly countLimit: number
  /** Null: all. */
  readonly ports: readonly string[] | null
  readonly frames: number
  readonly dropped: number
  readonly bytes: number
  /** By their number: whose it was last, and its frames recorded and dropped. */
  readonly interfaces: readonly (readonly [string, number, number])[]
  /** Nanoseconds since 1970, in decimal. */
  readonly startNs: string
}

/** Of another process. */
export interface CameCapture {
  readonly state: CaptureState
  /** The session's with success. */
  readonly fd: number
  /** Memory of its ring that is there already, the session's; absent: it is made. */
  readonly ring?: Window | undefined
}

export class CaptureSession implements Capture {
  readonly id: number
  readonly done: Promise<CaptureSummary>
  readonly ring: CaptureRingHandle
  /** Ids of the ports to record; null: all. */
  readonly ports: ReadonlySet<string> | null

  readonly #window: Window
  readonly #counts: Float64Array
  readonly #control: Int32Array
  readonly #detach: Detach
  readonly #destination: Destination
  #ended!: (summary: CaptureSummary) => void
  readonly #startNs: bigint
  /** Port ids, by the number of their interface. */
  readonly #names: string[] = []
  #hasBegun = false
  #isOver = false
  #why: string | undefined
  #detached: Promise<void> | undefined

  /** `user`: who captures, as people say. `came`: another process has begun it, and `options` are void. */
  constructor(
    id: number,
    options: CaptureOptions,
    detach: Detach,
    user: string = `capture ${id}`,
    came?: CameCapture,
  ) {
    checkOptions(options)
    const format = options.format ?? formatOf(options)
    this.id = id
    this.ports = options.ports === undefined ? null : new Set(options.ports)
    const form = {
      format,
      direction: options.direction ?? 'in',
      snapLength: options.snapLength ?? SNAP_LENGTH_MAX,
      countLimit: options.count ?? 0,
    } as const
    const { window, handle } = createCaptureRing(form, came?.ring)
    try {
      this.#destination =
        came === undefined
          ? openDestination(options.to, user)
          : cameFile(came.fd, came.state.path, user)
    } catch (error) {
      window.unmap()
      throw error
    }
    this.ring = handle
    this.#window = window
    this.#counts = new Float64Array(handle.counts)
    this.#control = new Int32Array(handle.control)
    this.#detach = detach
    this.done = new Promise((resolve) => (this.#ended = resolve))
    this.#startNs =
      came === undefined ? BigInt(Date.now()) * 1_000_000n : BigInt(came.state.startNs)
    if (came !== undefined) {
      this.#restore(came.state)
      return
    }
    const header = format === 'pcapng' ? sectionHeader('framepump') : pcapHeader(handle.snapLength)
    new Uint8Array(window.buffer).set(header)
    Atomics.store(this.#control, RING_HEAD, header.length)
  }

  /** Goes on with a capture of another process, in the same file. */
  static of(came: CameCapture, id: number, detach: Detach, user?: string): CaptureSession {
    const { ports, direction, snapLength, countLimit, format } = came.state
    const options = {
      ...(ports === null ? {} : { ports }),
      direction,
      snapLength,
      format,
      ...(countLimit === 0 ? {} : { count: countLimit }),
      to: { path: came.state.path },
    }
    return new CaptureSession(id, options, detach, user, came)
  }

  #restore({ frames, dropped, bytes, interfaces, countLimit }: CaptureState): void {
    const counts = this.#counts
    counts[COUNT_FRAMES] = frames
    counts[COUNT_DROPPED] = dropped
    counts[COUNT_BYTES] = bytes
    counts[COUNT_INTERFACES] = interfaces.length
    counts[COUNT_DESCRIBED] = interfaces.length
    if (countLimit !== 0 && frames >= countLimit) counts[COUNT_COMPLETE] = 1
    for (const [id, [name, recorded, lost]] of interfaces.entries()) {
      this.#names[id] = name
      counts[COUNT_PER_INTERFACE + 2 * id] = recorded
      counts[COUNT_PER_INTERFACE + 2 * id + 1] = lost
    }
  }

  /** It has a file of its own. */
  get isFile(): boolean {
    return this.#destination.isFile
  }

  /** The number of the interface that a port had last; -1: it had none. */
  interfaceOf(name: string): number {
    return this.#names.lastIndexOf(name)
  }

  /**
   * What another process needs to go on with it: nothing is recorded any more, and all that was is in the
   * file. The descriptor stays ours. Null: it ends here, as it has no file of its own, or its file takes
   * longer than so many milliseconds.
   */
  async handOver(waitMs: number): Promise<{ state: CaptureState; fd: number } | null> {
    const { fd, name, isFile } = this.#destination
    if (!isFile || !this.#hasBegun) return null
    const deadline = performance.now() + waitMs
    const control = this.#control
    while (Atomics.load(control, RING_HEAD) !== Atomics.load(control, RING_TAIL)) {
      if (performance.now() > deadline || this.#isOver) return null
      Atomics.notify(control, RING_STOP)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    const counts = this.#counts
    const isDescribed = counts[COUNT_DESCRIBED] === counts[COUNT_INTERFACES]
    if (this.#isOver || !isDescribed) return null
    const { format, direction, snapLength, countLimit } = this.ring
    const state = {
      path: name,
      format,
      direction,
      snapLength,
      countLimit,
      ports: this.ports === null ? null : [...this.ports],
      frames: counts[COUNT_FRAMES],
      dropped: counts[COUNT_DROPPED],
      bytes: counts[COUNT_BYTES],
      interfaces: this.#names.map((port, id): [string, number, number] => {
        const cell = COUNT_PER_INTERFACE + 2 * id
        return [port, counts[cell], counts[cell + 1]]
      }),
      startNs: String(this.#startNs),
    }
    return { state, fd }
  }

  /** Another process goes on with its file. */
  async leave(): Promise<void> {
    if (!this.#hasBegun) return this.end()
    await this.#release()
    this.#stop(STOP_LEAVE)
    await this.done
  }

  #stop(how: number): void {
    Atomics.store(this.#control, RING_STOP, how)
    Atomics.notify(this.#control, RING_STOP)
  }

  /** What it is, and how far it has come. */
  info(): CaptureInfo {
    const { format, direction, snapLength, countLimit } = this.ring
    return {
      id: this.id,
      to: this.#destination.name,
      format,
      direction,
      ...(this.ports === null ? {} : { ports: [...this.ports] }),
      snapLength,
      ...(countLimit === 0 ? {} : { count: countLimit }),
      frames: this.#counts[COUNT_FRAMES],
      dropped: this.#counts[COUNT_DROPPED],
    }
  }

  /**
   * Everything that can refuse it has been asked: from now on the destination is the capture's, and
   * a file's old contents are gone.
   */
  begin(): void {
    const { fd, name } = this.#destination
    this.#destination.begin()
    const data: WriterData = { ring: this.ring, fd, name, startNs: this.#startNs }
    let done!: (end: WriterEnd) => void
    const finished = new Promise<WriterEnd>((resolve) => (done = resolve))
    let isDone = false
    const writer = new WorkerThread<never, WriterMessage>(
      new URL('../capture/writer-worker.js', import.meta.url),
      data,
      {
        message: (message) => {
          if (message.type === 'complete') return void this.stop()
          isDone = true
          done(message)
        },
        ended: (failure) => {
          if (isDone) return
          // It ended before it came to closing the descriptor.
          shim.close(fd)
          done({ bytes: 0, error: `writer: ${failure?.reason ?? 'it was ended'}` })
        },
      },
    )
    this.#hasBegun = true
    void this.#run(writer, finished).then(this.#ended)
  }

  /** Ends it, also when it never began: then the destination is as it was, and a given one its giver's. */
  async end(): Promise<void> {
    if (this.#hasBegun) {
      await this.stop()
      return
    }
    await this.#release()
    this.#destination.abandon()
    this.#window.unmap()
    this.#ended({ frames: 0, dropped: 0, bytes: 0, error: 'it never began' })
  }

  /** Number and Interface Description Block for a port that is recorded from now on. */
  describe(name: string, description: string): { id: number; block: Uint8Array } {
    const id = this.#counts[COUNT_INTERFACES]
    if (id >= INTERFACES_MAX) {
      throw new ConfigError('CAPTURE_INTERFACES', `a capture has at most ${INTERFACES_MAX} ports`)
    }
    this.#counts[COUNT_INTERFACES] = id + 1
    this.#names[id] = name
    const isPcapng = this.ring.format === 'pcapng'
    const block = isPcapng
      ? interfaceDescription(name, description, this.ring.snapLength)
      : new Uint8Array(0)
    return { id, block }
  }

  /** The last description went nowhere: a reader numbers interfaces by those that are in the file. */
  undescribe(id: number): void {
    if (this.#counts[COUNT_INTERFACES] !== id + 1) return
    this.#counts[COUNT_INTERFACES] = id
    this.#names.length = id
  }

  /** `why`: nobody has asked for it. */
  async stop(why?: string): Promise<CaptureSummary> {
    this.#why ??= why
    await this.#release()
    this.#stop(STOP_COMPLETE)
    return this.done
  }

  /** Detaches the engine, once; whoever needs the ring to be ours waits for the same promise. */
  #release(error?: string): Promise<void> {
    this.#detached ??= this.#detach(error)
    return this.#detached
  }

  async #run(
    writer: WorkerThread<never, WriterMessage>,
    finished: Promise<WriterEnd>,
  ): Promise<CaptureSummary> {
    const { bytes, error } = await finished
    this.#isOver = true
    // After a write error the engine still holds the ring, also when a stop is under way.
    await this.#release(error)
    const streamError = await this.#destination.settle()
    await writer.end()
    this.#destination.released()
    this.#window.unmap()
    // To the writer a failed stream is a reader that went; the stream knows why.
    const reason = streamError ?? error ?? this.#why
    return {
      frames: this.#counts[COUNT_FRAMES],
      dropped: this.#counts[COUNT_DROPPED],
      bytes,
      ...(reason === undefined ? {} : { error: reason }),
    }
  }
}

function checkOptions(options: CaptureOptions): void {
  const { snapLength, count } = options
  if (
    snapLength !== undefined &&
    !(Number.isInteger(snapLength) && snapLength >= 1 && snapLength <= SNAP_LENGTH_MAX)
  ) {
    throw new ConfigError('BAD_OPTION', `snap length must be 1..${SNAP_LENGTH_MAX}`)
  }
  if (count !== undefined && !(Number.isSafeInteger(count) && count >= 1)) {
    throw new ConfigError('BAD_OPTION', 'count must be 1 or more')
  }
}

function formatOf(options: CaptureOptions): CaptureFormat {
  return 'path' in options.to && extname(options.to.path) === '.pcap' ? 'pcap' : 'pcapng'
}
