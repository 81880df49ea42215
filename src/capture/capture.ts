/**
 * A running capture, as the control plane sees it: the ring, the writer thread, and the interfaces
 * described so far. The engine's end is a Recorder; the caller attaches and detaches it.
 */
import { constants } from 'node:fs'
import { Socket } from 'node:net'
import { extname } from 'node:path'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { getSystemErrorMap } from 'node:util'
import { Worker } from 'node:worker_threads'
import { ConfigError, errnoName, SysError } from '../errors.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import type { Capture, CaptureFormat, CaptureOptions, CaptureSummary } from '../switch/api.ts'
import { pcapHeader } from '../wire/pcap.ts'
import { interfaceDescription, sectionHeader } from '../wire/pcapng.ts'
import type { CaptureRingHandle } from './ring.ts'
import {
  COUNT_DROPPED,
  COUNT_FRAMES,
  COUNT_INTERFACES,
  createCaptureRing,
  INTERFACES_MAX,
  RING_HEAD,
  RING_STOP,
} from './ring.ts'
import type { WriterMessage } from './writer-worker.ts'

export const SNAP_LENGTH_MAX = 262144

const SOCK_STREAM = 1
/** A stream that takes nothing for so long after the end has lost its last bytes. */
const STREAM_STUCK_MS = 2000

/**
 * Detaches the engine's recorder; resolves when the engine no longer touches the ring. `error`: the
 * writer has failed, this is why.
 */
export type Detach = (error?: string) => Promise<void>

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
  #detached: Promise<void> | undefined

  constructor(id: number, options: CaptureOptions, detach: Detach) {
    checkOptions(options)
    const format = options.format ?? formatOf(options)
    const { fd, name, settle } = openDestination(options.to)
    this.id = id
    this.ports = options.ports === undefined ? null : new Set(options.ports)
    const { window, handle } = createCaptureRing({
      format,
      direction: options.direction ?? 'in',
      snapLength: options.snapLength ?? SNAP_LENGTH_MAX,
      countLimit: options.count ?? 0,
    })
    this.ring = handle
    this.#window = window
    this.#counts = new Float64Array(handle.counts)
    this.#control = new Int32Array(handle.control)
    this.#detach = detach
    const header = format === 'pcapng' ? sectionHeader('framepump') : pcapHeader(handle.snapLength)
    new Uint8Array(window.buffer).set(header)
    Atomics.store(this.#control, RING_HEAD, header.length)
    const worker = new Worker(new URL('./writer-worker.js', import.meta.url), {
      workerData: { ring: handle, fd, name },
    })
    this.done = this.#run(worker, settle)
  }

  /** Number and Interface Description Block for a port that is recorded from now on. */
  describe(name: string, description: string): { id: number; block: Uint8Array } {
    const id = this.#counts[COUNT_INTERFACES]
    if (id >= INTERFACES_MAX) {
      throw new ConfigError('CAPTURE_INTERFACES', `a capture has at most ${INTERFACES_MAX} ports`)
    }
    this.#counts[COUNT_INTERFACES] = id + 1
    const isPcapng = this.ring.format === 'pcapng'
    const block = isPcapng
      ? interfaceDescription(name, description, this.ring.snapLength)
      : new Uint8Array(0)
    return { id, block }
  }

  async stop(): Promise<CaptureSummary> {
    await this.#release()
    Atomics.store(this.#control, RING_STOP, 1)
    Atomics.notify(this.#control, RING_STOP)
    return this.done
  }

  /** Detaches the engine, once; whoever needs the ring to be ours waits for the same promise. */
  #release(error?: string): Promise<void> {
    this.#detached ??= this.#detach(error)
    return this.#detached
  }

  async #run(worker: Worker, settle: Destination['settle']): Promise<CaptureSummary> {
    const { bytes, error } = await new Promise<{ bytes: number; error?: string }>((resolve) => {
      worker.on('message', (message: WriterMessage) => {
        if (message.type === 'complete') void this.stop()
        else resolve(message)
      })
      worker.on('error', (cause) => resolve({ bytes: 0, error: `writer: ${cause.message}` }))
    })
    // After a write error the engine still holds the ring, also when a stop is under way.
    await this.#release(error)
    const streamError = await settle()
    await worker.terminate()
    this.#window.unmap()
    // To the writer a failed stream is a reader that went; the stream knows why.
    const reason = streamError ?? error
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

interface Destination {
  readonly fd: number
  readonly name: string
  /** Waits, after the writer's end, until all has reached a stream; tells what went wrong there. */
  readonly settle: () => Promise<string | undefined>
}

function openDestination(to: CaptureOptions['to']): Destination {
  const settle = (): Promise<undefined> => Promise.resolve(undefined)
  if ('fd' in to && typeof to.fd === 'number' && !('write' in to)) {
    return { fd: to.fd, name: 'the given descriptor', settle }
  }
  if ('path' in to && typeof to.path === 'string' && !('write' in to)) {
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = constants
    const O_CLOEXEC = 0o2000000
    // Without O_NONBLOCK a FIFO that nobody reads would hold up the whole control plane.
    const fd = shim.open(to.path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC)
    if (fd < 0) {
      const reason = getSystemErrorMap().get(fd)?.[1] ?? errnoName(fd)
      throw new SysError('CAPTURE_FILE', `cannot create ${to.path}: ${reason}`, {
        syscall: 'open',
        errno: -fd,
        path: to.path,
      })
    }
    return { fd, name: to.path, settle }
  }
  return openStream(to as Writable)
}

/** A socket pair whose other end is piped into the stream, at the stream's own pace. */
function openStream(stream: Writable): Destination {
  const fds = new Int32Array(2)
  const made = shim.socketPair(SOCK_STREAM, fds)
  if (made < 0) {
    throw new SysError('OUT_OF_RESOURCES', `socketpair: ${errnoName(made)}`, { errno: -made })
  }
  const source = new Socket({ fd: fds[1], readable: true, writable: false })
  const stuck = new AbortController()
  const flushed = pipeline(source, stream, { signal: stuck.signal }).then(
    () => undefined,
    (error: Error) =>
      stuck.signal.aborted ? 'nobody reads the stream' : `stream: ${error.message}`,
  )
  const settle = async (): Promise<string | undefined> => {
    const flow = (): string => `${source.bytesRead} ${stream.writableLength}`
    let before = ''
    const timer = setInterval(() => {
      const now = flow()
      if (now === before) stuck.abort()
      before = now
    }, STREAM_STUCK_MS)
    return flushed.finally(() => clearInterval(timer))
  }
  return { fd: fds[0], name: 'the stream', settle }
}
