/**
 * A running capture, as the control plane sees it: the ring, the writer thread, and the interfaces
 * described so far. The engine's end is a Recorder; the caller attaches and detaches it.
 */
import { extname } from 'node:path'
import { ConfigError } from '../errors.ts'
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
import { WriterHold } from './hold.ts'
import type { CaptureRingHandle, RingMemory } from './ring.ts'
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

/** What another process needs to go on with a capture where it is written to: plain JSON. */
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
  /** It is to end as soon as all is written. Absent: when it is stopped. */
  readonly isComplete?: boolean
  /** Where its ring stands, which comes as well; absent: all that was recorded is written. */
  readonly ring?: { readonly head: number; readonly tail: number }
}

/** Of another process. */
export interface CameCapture {
  readonly state: CaptureState
  /** The session's with success. */
  readonly fd: number
  /** Memory of its ring, the session's; absent: it is made. */
  readonly ring?: RingMemory | undefined
}

export class CaptureSession implements Capture {
  readonly id: number
  readonly done: Promise<CaptureSummary>
  readonly ring: CaptureRingHandle
  /** Ids of the ports to record; null: all. */
  readonly ports: ReadonlySet<string> | null

  readonly #memory: RingMemory
  readonly #hold: WriterHold
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
  #isLeft = false
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
    const { memory, handle } = createCaptureRing(form, came?.ring)
    try {
      this.#destination =
        came === undefined
          ? openDestination(options.to, user)
          : cameFile(came.fd, came.state.path, user)
    } catch (error) {
      memory.close()
      throw error
    }
    this.ring = handle
    this.#memory = memory
    this.#counts = new Float64Array(handle.counts)
    this.#control = new Int32Array(handle.control)
    this.#hold = new WriterHold(this.#control)
    this.#detach = detach
    this.done = new Promise((resolve) => (this.#ended = resolve))
    this.#startNs =
      came === undefined ? BigInt(Date.now()) * 1_000_000n : BigInt(came.state.startNs)
    if (came !== undefined) {
      this.#restore(came.state)
      return
    }
    const header = format === 'pcapng' ? sectionHeader('framepump') : pcapHeader(handle.snapLength)
    new Uint8Array(memory.window.buffer).set(header)
    Atomics.store(this.#control, RING_HEAD, header.length)
  }

  /** Goes on with a capture of another process, where that one writes to. */
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

  #restore(state: CaptureState): void {
    const { frames, dropped, bytes, interfaces, countLimit, isComplete, ring } = state
    const counts = this.#counts
    Atomics.store(this.#control, RING_HEAD, ring?.head ?? 0)
    Atomics.store(this.#control, RING_TAIL, ring?.tail ?? 0)
    counts[COUNT_FRAMES] = frames
    counts[COUNT_DROPPED] = dropped
    counts[COUNT_BYTES] = bytes
    counts[COUNT_INTERFACES] = interfaces.length
    counts[COUNT_DESCRIBED] = interfaces.length
    if (isComplete === true || (countLimit !== 0 && frames >= countLimit))
      counts[COUNT_COMPLETE] = 1
    for (const [id, [name, recorded, lost]] of interfaces.entries()) {
      this.#names[id] = name
      counts[COUNT_PER_INTERFACE + 2 * id] = recorded
      counts[COUNT_PER_INTERFACE + 2 * id + 1] = lost
    }
  }

  /** Another process could not go on with it. */
  get isStream(): boolean {
    return this.#destination.isStream
  }

  /** Nothing is written, until it goes on here or is left. */
  get isHeld(): boolean {
    return this.#hold.isHeld
  }

  /** The number of the interface that a port had last; -1: it had none. */
  interfaceOf(name: string): number {
    return this.#names.lastIndexOf(name)
  }

  /**
   * Nothing more is written from now on, what is recorded waits in the ring: whether another process can go on
   * with that. Not one that ends, and not one that is written to right now and takes longer than so many
   * milliseconds for it.
   */
  async hold(waitMs: number): Promise<boolean> {
    const can = (): boolean => this.#hasBegun && !this.#isOver && this.#detached === undefined
    if (this.isStream || !can() || !this.#isDescribed) return false
    if ((await this.#hold.begin(waitMs)) && can()) return true
    this.goOn()
    return false
  }

  /** Of one that is held, and of which nothing is recorded any more. The descriptors stay ours. */
  handOverHeld(): { state: CaptureState; fd: number; ringFd: number } {
    const [head, tail] = [RING_HEAD, RING_TAIL].map((word) => Atomics.load(this.#control, word))
    const state = { ...this.#state(), ring: { head, tail } }
    return { state, fd: this.#destination.fd, ringFd: this.#memory.fd }
  }

  /** A descriptor by which another process has its ring. */
  get ringFd(): number {
    return this.#memory.fd
  }

  /** It is written here again. */
  goOn(): void {
    this.#hold.end()
    // Whoever asked for the end meanwhile has it now.
    if (this.#counts[COUNT_COMPLETE] !== 0) void this.stop()
  }

  /**
   * What another process needs to go on with it: nothing is recorded any more, and all that was is in the
   * file. The descriptor stays ours. Null: it ends here, as its file takes longer than so many milliseconds.
   */
  async handOver(waitMs: number): Promise<{ state: CaptureState; fd: number } | null> {
    if (!this.#hasBegun) return null
    const deadline = performance.now() + waitMs
    const control = this.#control
    while (Atomics.load(control, RING_HEAD) !== Atomics.load(control, RING_TAIL)) {
      if (performance.now() > deadline || this.#isOver) return null
      Atomics.notify(control, RING_STOP)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    if (this.#isOver || !this.#isDescribed) return null
    return { state: this.#state(), fd: this.#destination.fd }
  }

  /** No description of an interface waits for room in the ring. */
  get #isDescribed(): boolean {
    return this.#counts[COUNT_DESCRIBED] === this.#counts[COUNT_INTERFACES]
  }

  #state(): CaptureState {
    const counts = this.#counts
    const { format, direction, snapLength, countLimit } = this.ring
    return {
      path: this.#destination.name,
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
      ...(counts[COUNT_COMPLETE] === 0 ? {} : { isComplete: true }),
    }
  }

  /** Another process goes on with it. */
  async leave(): Promise<void> {
    if (!this.#hasBegun) return this.end()
    await this.#release()
    this.#isLeft = true
    this.#stop(STOP_LEAVE)
    this.#hold.end()
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
    this.#memory.close()
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
    if (this.isHeld || this.#isLeft) {
      // Whoever goes on with it ends it, be that this process.
      this.#counts[COUNT_COMPLETE] = 1
      return this.done
    }
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
    this.#memory.close()
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
