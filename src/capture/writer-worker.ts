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
import { beginWriting, endWriting } from './hold.ts'
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

/** A hand-over waits for the write that is under way (HOLD_MS): on a slow disk, too. */
const WRITE_LENGTH_MAX = 1 << 17
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

/** Since when nothing has been taken after the end; Infinity: there is time. */
let deadline = Infinity
let isCompleteTold = false

/** Writes some of a window's bytes; returns how many, 0: none now, or throws the reason why it is over. */
function write(from: number, offset: number, length: number): number {
  const done = shim.writeFrom(fd, from, offset, length, isRegularFile ? 0 : 1)
  if (done >= 0) {
    counts[COUNT_BYTES] += done
    deadline = Infinity
    return done
  }
  if (done === -EAGAIN) return 0
  if (done === -EPIPE) throw new Error(readerClosed)
  const reason = strerror(-done)
  throw new Error(`cannot write ${name}: ${reason}`)
}

function waitForRoom(): void {
  // The end may come while we wait here; a reader that still takes something has another turn.
  if (isStopped() && deadline === Infinity) deadline = Date.now() + STUCK_MS
  if (Date.now() > deadline) throw new Error(`nobody reads ${name}`)
  shim.poll(fd, POLLOUT, POLL_MS)
}

function isStopped(): boolean {
  return Atomics.load(control, RING_STOP) !== 0
}

type Step = 'written' | 'full' | 'empty' | 'over'

/** Writes some of the ring, unless that is another process's from now on. */
function writeSome(): Step {
  // Whoever sets stop has detached the engine before: nothing comes after an empty ring.
  const stop = Atomics.load(control, RING_STOP)
  if (stop === STOP_LEAVE) return 'over'
  const tail = Atomics.load(control, RING_TAIL)
  const waiting = (Atomics.load(control, RING_HEAD) - tail) >>> 0
  if (waiting > 0) {
    const length = Math.min(waiting, WRITE_LENGTH_MAX)
    const done = write(ring.window, tail & (ring.length - 1), length)
    Atomics.store(control, RING_TAIL, (tail + done) | 0)
    return done > 0 ? 'written' : 'full'
  }
  if (stop !== 0) return 'over'
  // Without a frame to write, a pipe that lost its reader tells nobody by itself.
  if ((shim.poll(fd, 0, 0) & (POLLERR | POLLHUP)) !== 0) throw new Error(readerClosed)
  return 'empty'
}

function drain(): void {
  for (;;) {
    beginWriting(control)
    let step: Step
    try {
      step = writeSome()
    } finally {
      endWriting(control)
    }
    if (step === 'over') return
    if (step === 'full') waitForRoom()
    if (step !== 'empty') continue
    if (counts[COUNT_COMPLETE] !== 0 && !isCompleteTold) {
      isCompleteTold = true
      post({ type: 'complete' })
    }
    Atomics.wait(control, RING_STOP, 0, IDLE_MS)
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
        const done = write(scratch.id, at, block.length - at)
        at += done
        if (done === 0) waitForRoom()
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
// For good: nobody else is given a descriptor that we are about to close.
beginWriting(control)
window.detach()
shim.close(fd)
post({ type: 'done', bytes: counts[COUNT_BYTES], ...(error === undefined ? {} : { error }) })
