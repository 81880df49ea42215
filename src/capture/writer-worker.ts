/**
 * The writer thread of one capture: writes the ring's bytes to the descriptor, and at the end the
 * interface statistics. A slow disk fills the ring, a stuck pipe is polled; neither stops anybody.
 */
import { fstatSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { POLLERR, POLLHUP, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN, EPIPE } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { Window } from '../mem/window.ts'
import { dropThreadCapabilities } from '../native/capabilities.ts'
import { shim } from '../native/shim.ts'
import { interfaceStatistics } from '../wire/pcapng.ts'
import type { CaptureRingHandle } from './ring.ts'
import {
  COUNT_BYTES,
  COUNT_COMPLETE,
  COUNT_DESCRIBED,
  COUNT_PER_INTERFACE,
  RING_HEAD,
  RING_STOP,
  RING_TAIL,
  STOP_LEAVE,
} from './ring.ts'

export interface WriterData {
  readonly ring: CaptureRingHandle
  readonly fd: number
  /** What the descriptor is, for messages. */
  readonly name: string
  /** When it was begun, in nanoseconds since 1970. */
  readonly startNs: bigint
}

/** To the main thread: `complete` asks it to stop the capture, `done` is the last message. */
export type WriterMessage = { readonly type: 'complete' } | ({ readonly type: 'done' } & WriterEnd)

export interface WriterEnd {
  readonly bytes: number
  readonly error?: string
}

const WRITE_LENGTH_MAX = 1 << 20
/** How long an empty ring or a full pipe is left alone. */
const IDLE_MS = 5
const POLL_MS = 100
/** A reader that takes nothing for so long after the end has lost its last bytes. */
const STUCK_MS = 2000

dropThreadCapabilities()
const { ring, fd, name, startNs } = workerData as WriterData
const window = Window.view(ring.window)
const control = new Int32Array(ring.control)
const counts = new Float64Array(ring.counts)
const isRegularFile = fstatSync(fd).isFile()
const readerClosed = `the reader closed ${name}`

/** Writes some of a window's bytes; returns how many, or throws the reason why it is over. */
function write(from: number, offset: number, length: number): number {
  let deadline = Infinity
  for (;;) {
    const done = shim.writeFrom(fd, from, offset, length, isRegularFile ? 0 : 1)
    if (done >= 0) {
      counts[COUNT_BYTES] += done
      return done
    }
    if (done === -EPIPE) throw new Error(readerClosed)
    if (done !== -EAGAIN) {
      const reason = strerror(-done)
      throw new Error(`cannot write ${name}: ${reason}`)
    }
    // The end may come while we wait here; a reader that still takes something has another turn.
    if (isStopped() && deadline === Infinity) deadline = Date.now() + STUCK_MS
    if (Date.now() > deadline) throw new Error(`nobody reads ${name}`)
    shim.poll(fd, POLLOUT, POLL_MS)
  }
}

function isStopped(): boolean {
  return Atomics.load(control, RING_STOP) !== 0
}

function drain(): void {
  let tail = Atomics.load(control, RING_TAIL)
  let isCompleteTold = false
  for (;;) {
    // Whoever sets stop has detached the engine before: nothing comes after an empty ring.
    const wasStopped = isStopped()
    const waiting = (Atomics.load(control, RING_HEAD) - tail) >>> 0
    if (waiting > 0) {
      const length = Math.min(waiting, WRITE_LENGTH_MAX)
      const done = write(ring.window, tail & (ring.length - 1), length)
      tail = (tail + done) | 0
      Atomics.store(control, RING_TAIL, tail)
    } else if (wasStopped) {
      return
    } else {
      if (counts[COUNT_COMPLETE] !== 0 && !isCompleteTold) {
        isCompleteTold = true
        post({ type: 'complete' })
      }
      // Without a frame to write, a pipe that lost its reader tells nobody by itself.
      if ((shim.poll(fd, 0, 0) & (POLLERR | POLLHUP)) !== 0) throw new Error(readerClosed)
      Atomics.wait(control, RING_STOP, 0, IDLE_MS)
    }
  }
}

function writeStatistics(): void {
  if (ring.format !== 'pcapng') return
  const endNs = BigInt(Date.now()) * 1_000_000n
  const scratch = Window.map(4096)
  const bytes = new Uint8Array(scratch.buffer)
  try {
    for (let id = 0; id < counts[COUNT_DESCRIBED]; id++) {
      const cell = COUNT_PER_INTERFACE + 2 * id
      const block = interfaceStatistics(id, startNs, endNs, counts[cell], counts[cell + 1])
      bytes.set(block)
      for (let at = 0; at < block.length;) {
        at += write(scratch.id, at, block.length - at)
      }
    }
  } finally {
    scratch.unmap()
  }
}

function post(message: WriterMessage): void {
  parentPort!.postMessage(message)
}

let error: string | undefined
try {
  drain()
  if (Atomics.load(control, RING_STOP) !== STOP_LEAVE) writeStatistics()
} catch (thrown) {
  error = (thrown as Error).message
}
window.detach()
shim.close(fd)
post({ type: 'done', bytes: counts[COUNT_BYTES], ...(error === undefined ? {} : { error }) })
