/** Stages are put together as one likes: each looks to the one before it like the port itself. */
import { afterAll, describe, expect, test } from 'vitest'
import type { Burst } from '../../../src/mem/burst.ts'
import {
  Burst as NewBurst,
  BURST_SIZE_MAX,
  HEAD_WORDS,
  ZEROS_BEFORE,
} from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { Cutter } from '../../../src/offload/cut-stage.ts'
import { Finisher, FinishStage } from '../../../src/offload/finish-stage.ts'
import { Merger, MergeStage } from '../../../src/offload/merge-stage.ts'
import type { FrameTaker } from '../../../src/offload/stage.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../../src/stats/counters.ts'
import { OFFLOADS_ALL } from '../../../src/wire/vnet-hdr.ts'
import { ipFrame, payloadOf } from '../../support/ip-frames.ts'

const window = Window.map(1 << 20)
const memory = new Uint8Array(window.buffer)
const output = Window.map(1 << 17)
const copies = new CopyProgram()
const burst = new NewBurst()
const counters = new Float64Array(4 * COUNTERS_STRIDE)
let flushes = 0
const finisher = new Finisher(counters, () => flushes++)
const merger = new Merger(counters, () => flushes++)
const cutter = new Cutter(() => flushes++)
const ALL = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)

afterAll(() => {
  for (const thing of [finisher, merger, cutter, burst, copies]) thing.close()
  for (const one of [window, output]) one.unmap()
})

/** A port that remembers what it is given, and by how many calls. */
class Port implements FrameTaker {
  readonly frames: Uint8Array[] = []
  readonly queues: number[] = []
  gso = 0

  transmit(given: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    this.queues.push(queue)
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      copies.addFrame(given, k, output.id, 0, given.length[k])
      copies.run()
      this.frames.push(new Uint8Array(output.buffer).slice(0, given.length[k]))
      if ((given.gso[k] & 0xff00) !== 0) this.gso++
    }
  }
}

function fill(frames: readonly Uint8Array[]): void {
  burst.clear()
  burst.hasOffloads = true
  for (const [k, bytes] of frames.entries()) {
    const at = 64 + k * 2048
    memory.set(bytes, at)
    burst.window[k] = window.id
    burst.offset[k] = at
    burst.length[k] = bytes.length
    burst.heads.set(new Int32Array(memory.slice(at, at + 16).buffer), k * HEAD_WORDS)
    for (const column of [burst.headLength, burst.gso, burst.gsoSize, burst.needs]) column[k] = 0
  }
  burst.count = frames.length
}

const segments = (count: number, source = 1): Uint8Array[] =>
  Array.from(
    { length: count },
    (_, n) => ipFrame({ source, payload: payloadOf(1000), id: n, sequence: 1 + n * 1000 }).bytes,
  )

test('what one merges the next one cuts: the port is given what came, in order', () => {
  counters.fill(0)
  const port = new Port()
  // As behind a stage that makes frames: the second is given the frames of the first.
  const finish = new FinishStage(finisher, port, 1, 0)
  const stages = new MergeStage(merger, finish, 2, OFFLOADS_ALL)
  const frames = [...segments(40), ...segments(3, 2)]
  fill(frames)
  finisher.beginBurst(1000)
  stages.transmit(burst, ALL, 0, frames.length, 3)
  expect(port.gso).toBe(0)
  expect(port.frames).toEqual(frames)
  expect(new Set(port.queues)).toEqual(new Set([3]))
  expect(counters[2 * COUNTERS_STRIDE + COUNTERS.tx_coalesced]).toBe(41)
  expect(counters[COUNTERS_STRIDE + COUNTERS.tx_segmented]).toBe(2)
})

test('one that is wrapped is asked as a port is', () => {
  const port = new Port()
  const seen: number[] = []
  const wrapped: FrameTaker = {
    transmit(given, list, first, count, queue): void {
      seen.push(count)
      port.transmit(given, list, first, count, queue)
    },
  }
  const stage = new MergeStage(merger, wrapped, 1, OFFLOADS_ALL)
  fill(segments(5))
  stage.transmit(burst, ALL, 0, 5, 0)
  fill([...segments(1), ...segments(1, 2)])
  stage.transmit(burst, ALL, 0, 2, 0)
  expect(seen).toEqual([1, 2])
  expect(port.gso).toBe(1)
})

test('cut is so much of a burst as it may be, for all ports together; the rest is a drop', () => {
  counters.fill(0)
  const port = new Port()
  const stages = [0, 1].map((at) => new FinishStage(finisher, port, at, 0))
  const whole = ipFrame({ payload: payloadOf(1500), checksum: 'partial' })
  const gso = (): void => {
    fill([whole.bytes, whole.bytes])
    for (const k of [0, 1]) {
      burst.gso[k] = 1 | (1 << 8) | (whole.end << 16)
      burst.gsoSize[k] = 500 | (whole.l4 << 16)
      burst.csumOffset[k] = 16
      burst.needs[k] = 3
    }
  }
  gso()
  finisher.beginBurst(6)
  for (const stage of stages) stage.transmit(burst, ALL, 0, 2, 0)
  expect(finisher.segments).toBe(8)
  expect(port.frames).toHaveLength(6)
  expect(counters[COUNTERS.tx_segmented]).toBe(2)
  expect(counters[COUNTERS_STRIDE + COUNTERS.tx_drop_offload]).toBe(2)
  gso()
  finisher.beginBurst(6)
  stages[1].transmit(burst, ALL, 0, 2, 0)
  expect(port.frames).toHaveLength(12)
})

test('more headers than there is memory for are written in several goes', () => {
  const port = new Port()
  const whole = ipFrame({ payload: payloadOf(1500), checksum: 'partial' })
  const stage = new FinishStage(finisher, port, 0, 0)
  fill(Array.from({ length: 256 }, () => whole.bytes))
  burst.gso.fill(1 | (1 << 8) | (whole.end << 16))
  burst.gsoSize.fill(200 | (whole.l4 << 16))
  burst.csumOffset.fill(16)
  burst.needs.fill(3)
  finisher.beginBurst(16384)
  flushes = 0
  stage.transmit(burst, ALL, 0, 256, 0)
  expect(port.frames).toHaveLength(256 * 8)
  expect(flushes).toBeGreaterThan(0)
  burst.clearOffloads()
})

describe('M5: what is cut', () => {
  test('is the beginning of each frame that is longer, wherever its pieces end', () => {
    const frames = segments(4).map((bytes) => bytes.slice(0, 600))
    for (const length of [14, 63, 64, 65, 199, 200, 201, 599, 600, 601]) {
      fill(frames)
      // The second lies in three pieces, 64, 136 and 400 bytes long.
      burst.furtherTotal = 2
      for (const k of [0, 2, 3]) burst.furtherCount[k] = 0
      for (const k of [0, 2, 3]) burst.firstLength[k] = 600
      burst.firstLength[1] = 64
      burst.furtherFirst[1] = 0
      burst.furtherCount[1] = 2
      for (const [piece, from, pieceLength] of [
        [0, 64, 136],
        [1, 200, 400],
      ]) {
        burst.furtherWindow[piece] = window.id
        burst.furtherOffset[piece] = burst.offset[1] + from
        burst.furtherLength[piece] = pieceLength
      }
      const port = new Port()
      cutter.cut(port, length, burst, ALL, 0, frames.length, 2)
      expect(port.frames).toEqual(frames.map((bytes) => bytes.slice(0, length)))
      expect(port.queues).toEqual([2])
    }
  })

  test('has no offloads any more and no vnet_hdr before it; what is not cut keeps both', () => {
    const frames = segments(2)
    fill([frames[0], frames[1].slice(0, 100)])
    const columns = ['gso', 'gsoSize', 'csumOffset', 'needs', 'tunnel', 'headLength'] as const
    for (const column of columns) burst[column].fill(12, 0, 2)
    const seen: number[][] = []
    const port = {
      transmit: (given: Burst, list: Int32Array, first: number, count: number): void => {
        for (let at = first; at < first + count; at++) {
          seen.push(columns.map((column) => given[column][list[at]]))
        }
      },
    }
    cutter.cut(port, 100, burst, ALL, 0, 2, 0)
    expect(seen).toEqual([
      [0, 0, 0, 0, 0, 0],
      [12, 12, 12, 12, 12, 12],
    ])
    for (const column of columns) burst[column].fill(0, 0, 2)
    // Zeros before a frame are no vnet_hdr of another one.
    burst.headLength.fill(ZEROS_BEFORE, 0, 2)
    seen.length = 0
    cutter.cut(port, 99, burst, ALL, 0, 2, 0)
    expect(seen.map((row) => row.at(-1))).toEqual([ZEROS_BEFORE, ZEROS_BEFORE])
  })
})
