/** The end of a capture whose reader is stuck, slow or failing: nobody hangs, nothing is unmapped early. */
import { spawnSync } from 'node:child_process'
import { Writable } from 'node:stream'
import { afterEach, expect, test } from 'vitest'
import type { CaptureSession as Session } from '../../../src/capture/capture.ts'
import { Recorder } from '../../../src/capture/recorder.ts'
import { RING_TAIL } from '../../../src/capture/ring.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import type { CaptureOptions } from '../../../src/switch/api.ts'
import { until } from '../../support/processes.ts'

// Worker threads start from built files only; their types are those of the sources.
const built: string = new URL('../../../build/capture/capture.js', import.meta.url).href
const { CaptureSession } = (await import(built)) as {
  CaptureSession: typeof Session
}

const SOCK_STREAM = 1
const O_NONBLOCK = 0o4000
const BURST = 256
const FRAME_LENGTH = 1514

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).toReversed()) cleanup()
})

/** A capture and its engine: this thread. Every frame starts with its number. */
class Rig {
  readonly session: Session
  readonly #recorder: Recorder
  readonly #frames: Window
  readonly #view: DataView
  readonly #burst: Burst = new Burst()
  readonly #copies: CopyProgram = new CopyProgram()
  readonly #list: Int32Array = Int32Array.from({ length: BURST }, (_, k) => k)
  readonly #words: Int32Array = new Int32Array(8)
  #isDetached = false
  #next = 0

  constructor(options: CaptureOptions) {
    this.session = new CaptureSession(1, options, () => this.#detach())
    this.session.begin()
    this.#recorder = new Recorder(this.session.ring, 4)
    const { id, block } = this.session.describe('p0', 'a port')
    this.#recorder.addInterface(0, id, block)
    this.#frames = Window.map(BURST * FRAME_LENGTH)
    this.#view = new DataView(this.#frames.buffer)
    cleanups.push(() => {
      this.#frames.unmap()
      this.#copies.close()
    })
  }

  /** Bytes that the writer has taken out of the ring. */
  get written(): number {
    return Atomics.load(new Int32Array(this.session.ring.control), RING_TAIL)
  }

  #detach(): Promise<void> {
    this.#isDetached = true
    this.#recorder.close()
    return Promise.resolve()
  }

  /** Records as many frames; returns those that found no room. */
  record(count: number): number {
    if (this.#isDetached) return 0
    for (let k = 0; k < count; k++) {
      this.#burst.window[k] = this.#frames.id
      this.#burst.offset[k] = k * FRAME_LENGTH
      this.#burst.length[k] = FRAME_LENGTH
      this.#view.setUint32(k * FRAME_LENGTH, this.#next++)
    }
    return this.#recorder.record(
      this.#burst,
      this.#list,
      0,
      count,
      0,
      false,
      this.#words,
      this.#copies,
    )
  }
}

function pair(): { theirs: number; ours: number } {
  const fds = new Int32Array(2)
  if (shim.socketPair(SOCK_STREAM, fds) !== 0) throw new Error('socketPair')
  shim.setStatusFlags(fds[1], O_NONBLOCK)
  return { theirs: fds[0], ours: fds[1] }
}

test('a reader that takes nothing does not hold up the stop', async () => {
  const { theirs, ours } = pair()
  cleanups.push(() => shim.close(ours))
  const rig = new Rig({ to: { fd: theirs } })
  for (let n = 0; n < 8; n++) rig.record(BURST)
  // The writer is stuck before the stop, not after it: there is far more than a socket holds.
  await until('it has begun to write', () => rig.written > 0)
  expect((await rig.session.stop()).error).toBe('nobody reads the given descriptor')
})

/** Who had no processor for so long may have been taken for one that does not read. */
const LONGEST_PAUSE_MS = 1500

test('a reader that is slow, but reads, gets everything after the stop', async () => {
  let longestMs = 0
  do {
    const { theirs, ours } = pair()
    const rig = new Rig({ to: { fd: theirs } })
    for (let n = 0; n < 12; n++) rig.record(BURST)
    const window = Window.map(1 << 20)
    let got = 0
    let lastMs = performance.now()
    longestMs = 0
    // Some 1.2 MB a second of 4.8 MB.
    const timer = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - lastMs)
      lastMs = performance.now()
      const length = shim.readInto(ours, window.id, 0, 60_000)
      if (length > 0) got += length
    }, 50)
    cleanups.push(() => {
      clearInterval(timer)
      window.unmap()
      shim.close(ours)
    })
    const { error, bytes } = await rig.session.stop()
    if (error !== undefined && longestMs > LONGEST_PAUSE_MS) continue
    expect(error).toBeUndefined()
    await until('the rest is read', () => got === bytes)
    return
  } while (longestMs > LONGEST_PAUSE_MS)
})

test('a stream that takes nothing does not hold up the stop', async () => {
  let isGiven = false
  const stream = new Writable({ write: () => void (isGiven = true) })
  const rig = new Rig({ to: stream })
  for (let n = 0; n < 8; n++) rig.record(BURST)
  await until('the stream has been given something', () => isGiven)
  expect((await rig.session.stop()).error).toBeDefined()
})

test('a stream that fails is named with its own error', async () => {
  const stream = new Writable({
    write(_part, _encoding, done) {
      done(new Error('no more'))
    },
  })
  const rig = new Rig({ to: stream })
  await until('the stream has failed', () => stream.destroyed)
  rig.record(BURST)
  expect((await rig.session.done).error).toContain('no more')
})

test('the ring stays mapped until the engine lets go, also when a write fails meanwhile', async () => {
  let lengthAtDetach = 0
  const session = new CaptureSession(1, { to: { path: '/dev/full' } }, async () => {
    await new Promise((resolve) => setTimeout(resolve, 500))
    lengthAtDetach = shim.windowLength(session.ring.window)
  })
  const length = shim.windowLength(session.ring.window)
  session.begin()
  await session.stop()
  expect(lengthAtDetach).toBe(length)
})

// In a process of its own: a recorder that outlives its ring is a segmentation fault.
test('a record port on a full disk fails, alone', () => {
  const code = `
    const { createSwitch } = await import(process.env.DIST)
    const sw = createSwitch({})
    await sw.addPort({ id: 'm', type: 'memory' })
    await sw.addPort({ id: 'rec', type: 'pcap', record: '/dev/full' })
    await sw.addPort({ id: 'other', type: 'memory' })
    const frame = new Uint8Array(60).fill(255)
    frame.set([2, 0, 0, 0, 0, 1], 6)
    const soon = () => new Promise((resolve) => setTimeout(resolve, 5))
    let sent = 0
    const send = () => sw.memoryPort('m').send(frame) && sent++
    // It holds 256 frames, and the writer may take its time to begin.
    const taken = () => { while (sw.memoryPort('other').receive() !== null); }
    for (; sw.port('rec').state !== 'failed'; await soon(), taken()) send()
    for (let n = 0; n < 10; n++) send()
    const { error } = sw.port('rec')
    if (!error.includes('No space left on device')) throw new Error(error)
    while (sw.port('other').counters.tx_frames !== sent) await soon()
    await sw.removePort('rec')
    await sw.close()`
  const { status, signal, stderr } = spawnSync(
    process.execPath,
    ['-e', `(async () => {${code}})()`],
    {
      encoding: 'utf8',
      timeout: 50_000,
      env: { ...process.env, DIST: new URL('../../../dist/index.js', import.meta.url).href },
    },
  )
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' })
})
