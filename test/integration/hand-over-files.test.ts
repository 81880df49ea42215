/** Captures and pcap ports that another switch goes on with: one file, no frame lost or twice in it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type {
  CaptureSummary,
  createSwitch as CreateSwitch,
  HandedSwitch,
  Switch,
} from '../../src/index.ts'
import {
  enhancedPacket,
  interfaceDescription,
  readPcapng,
  sectionHeader,
} from '../../src/wire/pcapng.ts'
import { shim } from '../../src/native/shim.ts'
import { moveSwitch, numbers, received } from '../support/hand-over.ts'
import { IO, Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const NUMBER_AT = 14
const INTERFACE = 1
const INTERFACE_STATISTICS = 5
const SECTION_HEADER = 0x0a0d0d0a

let directory: string
let sw: Switch
const made: Switch[] = []
function begin(): void {
  directory = mkdtempSync(join(tmpdir(), 'framepump-hand-over-'))
  sw = make()
}

async function end(): Promise<void> {
  for (const one of made.splice(0)) await one.close()
  rmSync(directory, { recursive: true })
}
beforeEach(begin)
afterEach(end)

function make(incoming = false): Switch {
  const one = createSwitch({ io: IO as 'auto', incoming })
  made.push(one)
  return one
}

const TRIES_MAX = 5

/**
 * What came last was not in a file soon enough: a record port is not handed over then, and a capture ends. On a busy
 * machine the thread that writes may not be run in the 50 or 200 ms that it has.
 */
class Late extends Error {}

/** A test that begins anew after that. */
const inTime = (body: () => Promise<void>) => async (): Promise<void> => {
  for (let tries = 1; ; tries++) {
    try {
      return await body()
    } catch (error) {
      if (!(error instanceof Late) || tries === TRIES_MAX) throw error
    }
    await end()
    begin()
  }
}

/** All captures cross that can; throws Late. */
async function crossing<T>(
  excluded: readonly string[],
  action: () => Promise<T>,
  crossed: (result: T) => readonly unknown[],
): Promise<T> {
  const { length } = sw.captures()
  const { endingCaptures } = await sw.outlineHandOver(excluded)
  const result = await action().catch((error: Error) => {
    throw error.message.includes('as fast as it has to be') ? new Late(error.message) : error
  })
  const lost = length - endingCaptures.length - crossed(result).length
  if (lost > 0) throw new Late(`${lost} captures have ended`)
  return result
}

const handOver = (excluded: readonly string[] = []): Promise<HandedSwitch> =>
  crossing(
    excluded,
    () => sw.handOver(excluded),
    ({ captures }) => captures,
  )

async function move(excluded: readonly string[] = []): Promise<void> {
  const next = make(true)
  await crossing(
    excluded,
    () => moveSwitch(sw, next, excluded),
    () => next.captures(),
  )
  sw = next
}

interface Found {
  readonly frames: number[]
  readonly interfaces: number[]
  readonly blocks: number[]
}

/** What a pcapng file has; numbers are of frames of `frame`. */
const read = (path: string): Found => parse(new Uint8Array(readFileSync(path)))

function parse(bytes: Uint8Array): Found {
  const view = new DataView(bytes.buffer)
  const found: Found = { frames: [], interfaces: [], blocks: [] }
  for (let at = 0; at < bytes.length; at += view.getUint32(at + 4, true)) {
    found.blocks.push(view.getUint32(at, true))
  }
  readPcapng(bytes, {
    frame: (offset, _length, _original, _time, interfaceId) => {
      found.frames.push(view.getUint32(offset + NUMBER_AT))
      found.interfaces.push(interfaceId)
    },
  })
  return found
}

/** A file with numbered frames, so many microseconds apart. */
function writeReplay(path: string, count: number, stepUs: number): void {
  const blocks = [sectionHeader('test'), interfaceDescription('x', 'x', 0)]
  for (let n = 0; n < count; n++) {
    blocks.push(enhancedPacket(0, BigInt(n * stepUs) * 1000n, frame(255, 1, n), 60, 0))
  }
  writeFileSync(path, Buffer.concat(blocks))
}

test(
  'H5, H13, H16: a replay goes on where it was, and a record and a capture in their files',
  inTime(async () => {
    const [from, to, captured] = ['r', 'w', 'c'].map((name) => join(directory, `${name}.pcapng`))
    const count = 6000
    writeReplay(from, count, 500)
    await sw.addPort({ type: 'pcap', id: 'w', record: to })
    const capture = await sw.startCapture({ to: { path: captured } })
    // Before its first frame the capture has it.
    await sw.addPort({ type: 'pcap', id: 'r', replay: from }, undefined, { isHeld: true })
    await sw.release(['r'])
    expect((await sw.outlineHandOver()).endingCaptures).toEqual([])
    for (let moves = 0; sw.port('r').counters.rx_frames < count; moves++) {
      if (moves % 3 === 0) {
        await handOver()
        await sw.takeBack()
      } else await move()
    }
    expect(sw.captures()).toMatchObject([{ id: capture.id, to: captured, frames: count }])
    await until('it is recorded', () => sw.port('w').counters.tx_frames === count)
    const ended: [number, CaptureSummary][] = []
    sw.events.on('capture-ended', (...one) => ended.push(one))
    const summary = await sw.capture(capture.id).stop()
    expect(summary).toMatchObject({
      frames: count,
      dropped: 0,
      bytes: readFileSync(captured).length,
    })
    await until('it was told', () => ended.length === 1)
    expect(ended).toEqual([[capture.id, summary]])
    expect(() => sw.capture(capture.id)).toThrow(
      expect.objectContaining({ code: 'NO_CAPTURE' }) as Error,
    )
    await sw.close()
    for (const [path, ports] of [
      [to, 1],
      [captured, 2],
    ] as const) {
      const { frames, interfaces, blocks } = read(path)
      expect(frames).toEqual(numbers(0, count))
      expect(new Set(interfaces)).toEqual(new Set([ports - 1]))
      const blocksOf = (type: number): number => blocks.filter((one) => one === type).length
      // One section, each interface once, and its statistics once, at the end.
      expect([SECTION_HEADER, INTERFACE, INTERFACE_STATISTICS].map(blocksOf)).toEqual([
        1,
        ports,
        ports,
      ])
      expect(blocks.indexOf(INTERFACE_STATISTICS)).toBe(blocks.length - ports)
    }
  }),
)

test(
  'a capture of all ports keeps the numbers of their interfaces, and has those that come later',
  inTime(async () => {
    await using lab = new Lab()
    const path = join(directory, 'all.pcapng')
    const netns = [lab.netns(), lab.netns()]
    const capture = await sw.startCapture({ to: { path }, direction: 'in' })
    for (const [k, name] of netns.entries()) {
      await sw.addPort({ type: 'tap', id: `p${k}`, ifname: 'x0', netns: name, up: true })
      lab.address(name, `10.0.0.${k + 1}`)
    }
    expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
    const before = sw.captures()[0].frames
    await move()
    expect(lab.ping(netns[1], '10.0.0.1')).toBe(3)
    await sw.addPort({ type: 'memory', id: 'late' })
    sw.memoryPort('late').send(frame(255, 9, 7))
    await until('it has come', () => sw.port('late').counters.rx_frames === 1)
    await sw.capture(capture.id).stop()
    const { frames, interfaces, blocks } = read(path)
    // Hosts may ask for each other once more at any time.
    expect(frames.length).toBeGreaterThan(before + 6)
    expect(new Set(interfaces)).toEqual(new Set([0, 1, 2]))
    expect(interfaces.filter((one) => one === 2)).toHaveLength(1)
    expect(frames[interfaces.indexOf(2)]).toBe(7)
    expect(blocks.filter((type) => type === INTERFACE)).toHaveLength(3)
    expect(blocks.filter((type) => type === INTERFACE_STATISTICS)).toHaveLength(3)
  }),
)

test(
  'a capture into a stream ends here, whole; one into a file goes on after it was taken back',
  inTime(async () => {
    const path = join(directory, 'file.pcapng')
    await sw.addPort({ type: 'memory', id: 'm' })
    await sw.addPort({ type: 'pcap', id: 'w', record: join(directory, 'w.pcap') })
    const stream = new PassThrough()
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    const streamed = await sw.startCapture({ to: stream })
    await sw.startCapture({ to: { path } })
    expect((await sw.outlineHandOver(['m'])).endingCaptures).toEqual([streamed.id])
    sw.memoryPort('m').send(frame(255, 1, 0))
    await until('it was captured', () => sw.captures().every(({ frames }) => frames === 1))
    await until('it was written', () => readFileSync(path).length > 0)
    await handOver(['m'])
    await sw.takeBack()
    sw.memoryPort('m').send(frame(255, 1, 1))
    await until('it was captured', () => sw.captures().every(({ frames }) => frames === 2))
    await move(['m'])
    expect(await streamed.done).toMatchObject({ frames: 2, dropped: 0 })
    const bytes = new Uint8Array(Buffer.concat(chunks))
    let count = 0
    readPcapng(bytes, { frame: () => void count++ })
    expect(count).toBe(2)
    sw.memoryPort('m').send(frame(255, 1, 2))
    await until('it was captured', () => sw.captures()[0].frames === 3)
    await sw.close()
    expect(read(path).frames).toEqual([0, 1, 2])
  }),
)

test(
  'what another process gives up on is as it was: the files go on where they were',
  inTime(async () => {
    const path = join(directory, 'file.pcapng')
    await sw.addPort({ type: 'memory', id: 'm' })
    await sw.addPort({ type: 'pcap', id: 'w', record: join(directory, 'w.pcapng') })
    await sw.startCapture({ to: { path } })
    sw.memoryPort('m').send(frame(255, 1, 0))
    await until(
      'it was written',
      () => readFileSync(path).length > 0 && read(path).frames.length > 0,
    )
    const all = await handOver(['m'])
    const ended = make(true)
    await ended.takeOver(received(all))
    await ended.close()
    const handed = received(all)
    const [capture] = handed.captures
    const next = make(true)
    await expect(
      next.takeOver({ ...handed, captures: [capture, { ...capture, id: 9, version: 3 }] }),
    ).rejects.toMatchObject({
      code: 'HAND_OVER',
      message: expect.stringContaining('capture 9') as string,
    })
    await next.close()
    await sw.takeBack()
    sw.memoryPort('m').send(frame(255, 1, 1))
    await until('it was captured', () => sw.captures()[0].frames === 2)
    await sw.close()
    for (const file of [path, join(directory, 'w.pcapng')]) {
      expect(read(file)).toMatchObject({ frames: [0, 1] })
      expect(
        read(file).blocks.filter((type) => type === INTERFACE_STATISTICS).length,
      ).toBeGreaterThan(0)
    }
  }),
)

test(
  'H4: the memory of a capture is there before frames wait, and goes when it does not come',
  inTime(async () => {
    const rings = (): number =>
      readFileSync('/proc/self/maps', 'utf8').split('memfd:framepump-capture').length - 1
    await sw.addPort({ type: 'pcap', id: 'w', record: join(directory, 'w.pcapng') })
    const before = rings()
    await sw.startCapture({ to: { path: join(directory, 'file.pcapng') } })
    const own = rings() - before
    expect(own).toBeGreaterThan(0)
    const outline = await sw.outlineHandOver()
    for (const giveUp of ['dropPreview', 'close'] as const) {
      const next = make(true)
      await next.prepareTakeOver(outline, received(await sw.previewHandOver()))
      expect(rings()).toBe(before + 2 * own)
      await next[giveUp]()
      expect(rings()).toBe(before + own)
    }
    await move()
    expect(rings()).toBe(before + own)
  }),
)

const O_NONBLOCK = 0o4000
const LONG = 1400

/** A client's descriptor, and what is read at the other end of it. */
class Reader implements Disposable {
  readonly theirs: number
  readonly #parts: Buffer[] = []
  readonly #ours: number

  constructor() {
    const fds = new Int32Array(2)
    if (shim.socketPair(1, fds) !== 0) throw new Error('socketPair')
    shim.setStatusFlags(fds[1], O_NONBLOCK)
    this.theirs = fds[0]
    this.#ours = fds[1]
  }

  /** All that is there now; whether it has ended. */
  read(): boolean {
    const bytes = new Uint8Array(1 << 20)
    const [fds, info] = [new Int32Array(1), new Int32Array(2)]
    for (;;) {
      const got = shim.recvMsg(this.#ours, bytes, fds, info, 0)
      if (got <= 0) return got === 0
      this.#parts.push(Buffer.from(bytes.slice(0, got)))
    }
  }

  get bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts))
  }

  [Symbol.dispose](): void {
    shim.close(this.#ours)
  }
}

/** Numbered frames, as fast as they are taken. */
async function sendFrames(first: number, count: number): Promise<void> {
  const memory = sw.memoryPort('m')
  for (const n of numbers(first, count)) {
    const bytes = frame(255, 1, n, LONG)
    await until('there is room', () => memory.send(bytes))
  }
}

const captured = (count: number): Promise<void> =>
  until('they are captured', () => sw.captures()[0].frames === count)

test(
  'H5, H13: a capture into a descriptor goes on, with all that a stalled reader has not read',
  inTime(async () => {
    using reader = new Reader()
    await sw.addPort({ type: 'memory', id: 'm' })
    await sw.addPort({ type: 'pcap', id: 'w', record: join(directory, 'w.pcapng') })
    const { id } = await sw.startCapture({ to: { fd: reader.theirs }, ports: ['m'] })
    const [before, after] = [2000, 500]
    await sendFrames(0, before)
    await captured(before)
    for (const round of [1, 2, 3]) {
      await move(['m'])
      expect(sw.captures()).toMatchObject([
        { id, to: 'the given descriptor', frames: before + (round - 1) * after },
      ])
      await sendFrames(before + (round - 1) * after, after)
      await captured(before + round * after)
    }
    const count = before + 3 * after
    const ended = sw.capture(id).stop()
    await until('it has ended', () => reader.read())
    const { bytes } = reader
    expect(await ended).toEqual({ frames: count, dropped: 0, bytes: bytes.length })
    const { frames, blocks } = parse(bytes)
    expect(frames).toEqual(numbers(0, count))
    const blocksOf = (type: number): number => blocks.filter((one) => one === type).length
    // A port that is left out is another one of that name.
    expect([SECTION_HEADER, INTERFACE_STATISTICS].map(blocksOf)).toEqual([1, blocksOf(INTERFACE)])
    expect(blocks.at(-1)).toBe(INTERFACE_STATISTICS)
  }),
)

test(
  'a capture that is ended while it is handed over ends with whoever goes on with it',
  inTime(async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    const ended: number[] = []
    const listen = (one: Switch): unknown => one.events.on('capture-ended', (id) => ended.push(id))
    listen(sw)
    for (const isTaken of [false, true]) {
      using reader = new Reader()
      const { id } = await sw.startCapture({ to: { fd: reader.theirs } })
      await sendFrames(0, 3)
      const silencing = async (captures: readonly number[]): Promise<number[]> => {
        expect(captures).toEqual([id])
        void sw.capture(id).stop()
        return Promise.resolve([])
      }
      const outline = await sw.outlineHandOver(['m'])
      const handed = received(await sw.handOver(['m'], { silencing }))
      expect(handed.captures).toHaveLength(1)
      expect(ended).toEqual([])
      if (isTaken) {
        const next = make(true)
        listen(next)
        await next.prepareTakeOver(outline)
        await next.takeOver(handed)
        await next.resume()
        await sw.handedOver()
        sw = next
      } else {
        for (const { fds } of [...handed.ports, ...handed.captures])
          fds.forEach((fd) => shim.close(fd))
        await sw.takeBack()
      }
      await until('it was told', () => ended.length === 1)
      expect(ended.splice(0)).toEqual([id])
      await until('it is whole', () => reader.read())
      expect(parse(reader.bytes)).toMatchObject({ frames: [0, 1, 2] })
      expect(parse(reader.bytes).blocks.at(-1)).toBe(INTERFACE_STATISTICS)
    }
  }),
)

test(
  'a capture that shall not go on ends here, whole, and is told so',
  inTime(async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    using reader = new Reader()
    const capture = await sw.startCapture({ to: { fd: reader.theirs } })
    await sw.startCapture({ to: { path: join(directory, 'file.pcapng') } })
    await sendFrames(0, 3)
    await until('they are captured', () => sw.captures().every(({ frames }) => frames === 3))
    const outline = await sw.outlineHandOver(['m'])
    const silencing = (): Promise<number[]> => Promise.resolve([capture.id])
    const handed = received(await sw.handOver(['m'], { silencing }))
    expect(handed.captures.map(({ id }) => id)).toEqual([capture.id + 1])
    const next = make(true)
    await next.prepareTakeOver(outline)
    await next.takeOver(handed)
    await next.resume()
    await sw.handedOver()
    sw = next
    expect(await capture.done).toMatchObject({
      frames: 3,
      error: 'the switch was handed over: start it again',
    })
    await until('it is whole', () => reader.read())
    expect(parse(reader.bytes)).toMatchObject({ frames: [0, 1, 2] })
  }),
)
