/** The writer thread of a capture, from the built package, with a recorder instead of an engine. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import type { CaptureSession as Session } from '../../../src/capture/capture.ts'
import { Recorder } from '../../../src/capture/recorder.ts'
import { RING_HEAD, RING_LENGTH, RING_TAIL } from '../../../src/capture/ring.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import type { CaptureOptions } from '../../../src/switch/api.ts'
import { readPcap } from '../../../src/wire/pcap.ts'
import { readPcapng } from '../../../src/wire/pcapng.ts'
import { until } from '../../support/processes.ts'

// Worker threads start from built files only; their types are those of the sources.
const built: string = new URL('../../../build/capture/capture.js', import.meta.url).href
const { CaptureSession } = (await import(built)) as {
  CaptureSession: typeof Session
}

const SOCK_STREAM = 1
const O_NONBLOCK = 0o4000
const EBADF = 9
const BURST = 256
const FRAME_LENGTH = 1514

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).toReversed()) cleanup()
})

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'framepump-writer-'))
  cleanups.push(() => rmSync(path, { recursive: true }))
  return path
}

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

  #detach(): Promise<void> {
    this.#isDetached = true
    this.#recorder.close()
    return Promise.resolve()
  }

  /** Bytes that the writer has not written yet. */
  used(): number {
    const control = new Int32Array(this.session.ring.control)
    return (Atomics.load(control, RING_HEAD) - Atomics.load(control, RING_TAIL)) >>> 0
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

/** Numbers of the frames in a capture. */
function numbers(bytes: Buffer, reader: typeof readPcapng = readPcapng): number[] {
  const found: number[] = []
  reader(bytes, {
    frame(offset) {
      found.push(bytes.readUInt32BE(offset))
    },
    truncated(offset) {
      throw new Error(`cut off at ${offset}`)
    },
  })
  return found
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

/** isb_ifrecv and isb_ifdrop of the last block. */
function statistics(bytes: Buffer): { type: number; received: bigint; dropped: bigint } {
  const block = bytes.subarray(bytes.length - bytes.readUInt32LE(bytes.length - 4))
  return {
    type: block.readUInt32LE(0),
    // After the fixed part (20) and both times (12 each), past the option's code and length (4).
    received: block.readBigUInt64LE(48),
    dropped: block.readBigUInt64LE(60),
  }
}

/** A stream socket: the capture's end, and ours, which does not block. */
function pair(): { theirs: number; ours: number } {
  const fds = new Int32Array(2)
  if (shim.socketPair(SOCK_STREAM, fds) !== 0) throw new Error('socketPair')
  shim.setStatusFlags(fds[1], O_NONBLOCK)
  return { theirs: fds[0], ours: fds[1] }
}

describe('a file', () => {
  test('has every frame and the statistics of its interface', async () => {
    const path = join(directory(), 'a.pcapng')
    const rig = new Rig({ to: { path } })
    for (let n = 0; n < 8; n++) expect(rig.record(BURST)).toBe(0)
    const summary = await rig.session.stop()
    const bytes = readFileSync(path)
    expect(summary).toEqual({ frames: 8 * BURST, dropped: 0, bytes: bytes.length })
    expect(numbers(bytes)).toEqual(upTo(8 * BURST))
    expect(statistics(bytes)).toEqual({ type: 5, received: BigInt(8 * BURST), dropped: 0n })
  })

  test('named .pcap is pcap, without statistics', async () => {
    const path = join(directory(), 'a.pcap')
    const rig = new Rig({ to: { path }, snapLength: 64 })
    rig.record(10)
    const summary = await rig.session.stop()
    expect(summary).toEqual({ frames: 10, dropped: 0, bytes: 24 + 10 * (16 + 64) })
    expect(numbers(readFileSync(path), readPcap)).toEqual(upTo(10))
  })

  test('is written again from its start', async () => {
    const path = join(directory(), 'a.pcapng')
    for (const count of [100, 3]) {
      const rig = new Rig({ to: { path } })
      rig.record(count)
      await rig.session.stop()
    }
    expect(numbers(readFileSync(path))).toEqual(upTo(3))
  })

  test('without a frame is a capture all the same', async () => {
    const path = join(directory(), 'a.pcapng')
    const rig = new Rig({ to: { path } })
    expect(await rig.session.stop()).toMatchObject({ frames: 0, dropped: 0 })
    expect(numbers(readFileSync(path))).toEqual([])
  })

  test('larger than the ring is complete when the writer keeps up', async () => {
    const path = join(directory(), 'a.pcapng')
    const rig = new Rig({ to: { path } })
    let count = 0
    // Bytes past the ring's end, and a second time round.
    while (count * FRAME_LENGTH < 1.2 * RING_LENGTH) {
      expect(rig.record(BURST)).toBe(0)
      count += BURST
      await until('the ring has room', () => rig.used() < RING_LENGTH / 2)
    }
    expect(await rig.session.stop()).toMatchObject({ frames: count, dropped: 0 })
    expect(numbers(readFileSync(path))).toEqual(upTo(count))
  })

  test('that cannot be created is an error at once, with its path', () => {
    expect(() => new Rig({ to: { path: '/nowhere/a.pcapng' } })).toThrow(
      expect.objectContaining({
        code: 'CAPTURE_FILE',
        path: '/nowhere/a.pcapng',
        message: 'cannot create /nowhere/a.pcapng: No such file or directory',
      }) as Error,
    )
  })

  test('on a full disk ends the capture and detaches the engine', async () => {
    const rig = new Rig({ to: { path: '/dev/full' } })
    const { error } = await rig.session.done
    expect(error).toBe('cannot write /dev/full: No space left on device')
    expect(await rig.session.stop()).toMatchObject({ error })
  })
})

describe('a capture', () => {
  test('ends by itself at its count', async () => {
    const path = join(directory(), 'a.pcapng')
    const rig = new Rig({ to: { path }, count: 5 })
    rig.record(3)
    rig.record(10)
    expect(await rig.session.done).toMatchObject({ frames: 5, dropped: 0 })
    expect(numbers(readFileSync(path))).toEqual(upTo(5))
  })

  test('can be stopped twice, and gives the same summary', async () => {
    const rig = new Rig({ to: { path: join(directory(), 'a.pcapng') } })
    rig.record(1)
    const [first, second] = await Promise.all([rig.session.stop(), rig.session.stop()])
    expect(second).toBe(first)
    expect(await rig.session.done).toBe(first)
  })

  test('gives back its descriptor, its ring and its thread', async () => {
    const path = join(directory(), 'a.pcapng')
    const run = async (): Promise<number> => {
      const rig = new Rig({ to: { path } })
      rig.record(1)
      await rig.session.stop()
      return rig.session.ring.window
    }
    // The first thread of a process opens descriptors of its own.
    await run()
    const count = (): number => readdirSync('/proc/self/fd').length
    const before = count()
    for (let n = 0; n < 3; n++) expect(shim.windowLength(await run())).toBe(-EBADF)
    await until('the threads are gone', () => count() <= before)
  })

  test.each([
    [{ snapLength: 0 }, 'snap length'],
    [{ snapLength: 262145 }, 'snap length'],
    [{ snapLength: 1.5 }, 'snap length'],
    [{ count: 0 }, 'count'],
    [{ count: -1 }, 'count'],
  ])('refuses %j', (options, text) => {
    const path = join(directory(), 'a.pcapng')
    const start = (): unknown => new Rig({ to: { path }, ...options })
    expect(start).toThrow(expect.objectContaining({ code: 'BAD_OPTION' }) as Error)
    expect(start).toThrow(text)
  })
})

describe('a descriptor', () => {
  /** Reads into `parts` until the other end is closed. */
  async function readAll(fd: number, parts: Buffer[]): Promise<void> {
    const window = Window.map(1 << 20)
    const view = new Uint8Array(window.buffer)
    try {
      for (;;) {
        const length = shim.readInto(fd, window.id, 0, view.length)
        if (length === 0) return
        if (length > 0) parts.push(Buffer.from(view.slice(0, length)))
        // However much it is, and however slow the machine.
        else await new Promise((resolve) => setTimeout(resolve, 1))
      }
    } finally {
      window.unmap()
      shim.close(fd)
    }
  }

  test('gets the frames while the capture runs, and is closed at its end', async () => {
    const { theirs, ours } = pair()
    const rig = new Rig({ to: { fd: theirs } })
    const parts: Buffer[] = []
    const reading = readAll(ours, parts)
    rig.record(2)
    const length = (): number => parts.reduce((sum, part) => sum + part.length, 0)
    await until('both frames are there', () => length() > 2 * FRAME_LENGTH)
    rig.record(1)
    const { bytes } = await rig.session.stop()
    await reading
    expect(length()).toBe(bytes)
    expect(numbers(Buffer.concat(parts))).toEqual(upTo(3))
  })

  test('whose reader is slow loses frames beyond the ring, and says how many', async () => {
    const { theirs, ours } = pair()
    const rig = new Rig({ to: { fd: theirs } })
    let sent = 0
    let dropped = 0
    while (dropped === 0) {
      dropped += rig.record(BURST)
      sent += BURST
      if (sent * FRAME_LENGTH > 4 * RING_LENGTH) throw new Error('the ring is never full')
    }
    const parts: Buffer[] = []
    const reading = readAll(ours, parts)
    await until('the ring is empty', () => rig.used() === 0)
    const summary = await rig.session.stop()
    await reading
    const bytes = Buffer.concat(parts)
    expect(summary).toEqual({ frames: sent - dropped, dropped, bytes: bytes.length })
    expect(numbers(bytes)).toEqual(upTo(sent - dropped))
    expect(statistics(bytes)).toMatchObject({
      received: BigInt(sent - dropped),
      dropped: BigInt(dropped),
    })
  })

  test('whose reader goes ends the capture', async () => {
    const { theirs, ours } = pair()
    const rig = new Rig({ to: { fd: theirs } })
    shim.close(ours)
    rig.record(1)
    expect((await rig.session.done).error).toBe('the reader closed the given descriptor')
  })
})

describe('a stream', () => {
  test('gets the whole capture', async () => {
    const stream = new PassThrough()
    const parts: Buffer[] = []
    stream.on('data', (part: Buffer) => parts.push(part))
    const rig = new Rig({ to: stream })
    for (let n = 0; n < 4; n++) rig.record(BURST)
    const { bytes, error } = await rig.session.stop()
    expect(error).toBeUndefined()
    const file = Buffer.concat(parts)
    expect(file).toHaveLength(bytes)
    expect(numbers(file)).toEqual(upTo(4 * BURST))
  })

  test('is given no more than it takes', async () => {
    let taken = 0
    let isBusy = false
    const parts: Buffer[] = []
    const stream = new Writable({
      highWaterMark: 1,
      write(part: Buffer, _encoding, done) {
        expect(isBusy).toBe(false)
        isBusy = true
        taken++
        parts.push(part)
        setImmediate(() => {
          isBusy = false
          done()
        })
      },
    })
    const rig = new Rig({ to: stream })
    for (let n = 0; n < 4; n++) rig.record(BURST)
    expect(await rig.session.stop()).toMatchObject({ frames: 4 * BURST, dropped: 0 })
    expect(taken).toBeGreaterThan(1)
    expect(numbers(Buffer.concat(parts))).toEqual(upTo(4 * BURST))
  })

  test('that fails ends the capture', async () => {
    const stream = new Writable({
      write(_part, _encoding, done) {
        done(new Error('no more'))
      },
    })
    const rig = new Rig({ to: stream })
    await until('the stream has failed', () => stream.destroyed)
    rig.record(BURST)
    expect((await rig.session.done).error).toBeDefined()
  })
})
