/** What a TAP port gives to its tier: which bytes, with which vnet_hdr, by which queue. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { IoTier, TapQueue, WatchedSocket } from '../../../../src/io/tier.ts'
import { Burst, ZEROS_BEFORE } from '../../../../src/mem/burst.ts'
import { windowAddresses } from '../../../../src/mem/window.ts'
import { shim } from '../../../../src/native/shim.ts'
import { TapEnginePort } from '../../../../src/port/tap/engine.ts'
import { isUsableVnetHdrLength } from '../../../../src/port/tap/queues.ts'
import { COUNTERS_STRIDE } from '../../../../src/stats/counters.ts'
import { readCounters } from '../../../../src/stats/port-counters.ts'

const INDEX = 3
const WINDOW = 77
/** Headers that wait for one flush; as in the port. */
const HEADERS_MAX = 1024

/** A write as a list of [window, offset, length], the frame last. */
type Write = { fd: number; port: number; segments: [number, number, number][] }

class RecordingTier implements IoTier {
  readonly name = 'read-write'
  readonly isReading = false
  readonly spins = 0
  readonly queues: TapQueue[] = []
  readonly writes: Write[] = []
  /** Number of writes at each flush. */
  readonly flushes: number[] = []
  addQueue(queue: TapQueue): void {
    this.queues.push(queue)
  }
  removeQueue(): void {}
  watch(): void {}
  unwatch(): void {}
  watchSocket(fd: number): WatchedSocket {
    return { fd, id: 0, isArmed: false }
  }
  unwatchSocket(): void {}
  arm(): void {}
  pause(): void {}
  resume(): void {}
  limitFrames(): void {}
  nextBurst(): null {
    return null
  }
  write(fd: number, port: number, window: number, offset: number, length: number): void {
    this.writes.push({ fd, port, segments: [[window, offset, length]] })
  }
  writeWithHeader(fd: number, port: number, ...rest: number[]): void {
    const [headWindow, headOffset, headLength, window, offset, length] = rest
    const segments: Write['segments'] = [
      [headWindow, headOffset, headLength],
      [window, offset, length],
    ]
    this.writes.push({ fd, port, segments })
  }
  writeScattered(): void {}
  flush(): void {
    this.flushes.push(this.writes.length)
  }
  endTurn(): boolean {
    return false
  }
  spin(): boolean {
    return false
  }
  retry(): void {}
  close(): void {}
}

let tier: RecordingTier
let counters: Float64Array
let burst: Burst
let port: TapEnginePort

function setUp(vnetHdrLength: number, fds = [10]): void {
  port = new TapEnginePort({ index: INDEX, fds, vnetHdrLength, txOffloads: 0x7f }, tier, counters)
}

beforeEach(() => {
  tier = new RecordingTier()
  counters = new Float64Array(8 * COUNTERS_STRIDE)
  burst = new Burst()
})

afterEach(() => port.close())

/** Frame k of the burst: `length` bytes at `offset`, behind a header of `headLength`. */
function put(k: number, offset: number, length: number, headLength: number): void {
  burst.window[k] = WINDOW
  burst.offset[k] = offset
  burst.length[k] = length
  burst.headLength[k] = headLength
}

/** Bytes of a segment in a window that the shim knows. */
function bytesOf([window, offset, length]: [number, number, number]): number[] {
  expect(windowAddresses[window]).toBeGreaterThan(0)
  const buffer = shim.windowBuffer(window) as ArrayBuffer
  const bytes = [...new Uint8Array(buffer, offset, length)]
  shim.windowDetach(buffer)
  return bytes
}

test('every descriptor becomes a queue, for the engine to read', () => {
  setUp(12, [10, 11, 12])
  expect(
    port.queues.map(({ fd, port, index, vnetHdrLength }) => [fd, port, index, vnetHdrLength]),
  ).toEqual([
    [10, INDEX, 0, 12],
    [11, INDEX, 1, 12],
    [12, INDEX, 2, 12],
  ])
})

test('a flow stays on one queue: the rx queue chooses the tx queue', () => {
  setUp(0, [10, 11, 12])
  put(0, 1000, 60, 0)
  for (const queue of [0, 1, 2, 3, 7]) port.transmit(burst, Int32Array.from([0]), 0, 1, queue)
  expect(tier.writes.map(({ fd }) => fd)).toEqual([10, 11, 12, 10, 11])
})

test('the listed frames leave, in the order of the list', () => {
  setUp(0)
  for (let k = 0; k < 5; k++) put(k, 1000 * k, 60 + k, 0)
  port.transmit(burst, Int32Array.from([4, 3, 0, 2, 1]), 1, 3, 0)
  expect(tier.writes.map(({ segments }) => segments)).toEqual([
    [[WINDOW, 3000, 63]],
    [[WINDOW, 0, 60]],
    [[WINDOW, 2000, 62]],
  ])
  expect(readCounters(counters, INDEX)).toMatchObject({ tx_frames: 3, tx_bytes: 185 })
})

describe('vnet_hdr', () => {
  test('a TAP without one is given the L2 bytes alone, whatever stands before them', () => {
    setUp(0)
    put(0, 1000, 60, 12)
    port.transmit(burst, Int32Array.from([0]), 0, 1, 0)
    expect(tier.writes).toEqual([{ fd: 10, port: INDEX, segments: [[WINDOW, 1000, 60]] }])
  })

  test('one of the wanted length passes with the frame, in one piece', () => {
    setUp(12)
    put(0, 1000, 60, 12)
    port.transmit(burst, Int32Array.from([0]), 0, 1, 0)
    expect(tier.writes[0].segments).toEqual([[WINDOW, 988, 72]])
    // L2 bytes are counted, not the header's.
    expect(readCounters(counters, INDEX)).toMatchObject({ tx_frames: 1, tx_bytes: 60 })
  })

  test.each([10, 12, 20, 24])('one of another length is spelled anew in %i bytes', (length) => {
    setUp(length)
    put(0, 1000, 60, length === 12 ? 10 : 12)
    burst.gso[0] = 0x0042_0101
    burst.gsoSize[0] = (34 << 16) | 1448
    burst.csumOffset[0] = 16
    burst.tunnel[0] = 34 | (64 << 16)
    port.transmit(burst, Int32Array.from([0]), 0, 1, 0)
    const [head, body] = tier.writes[0].segments
    expect(body).toEqual([WINDOW, 1000, 60])
    expect(head[2]).toBe(length)
    expect(bytesOf(head)).toEqual([
      // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
      0x01,
      0x01,
      0x42,
      0x00,
      0xa8,
      0x05,
      0x22,
      0x00,
      0x10,
      0x00,
      // num_buffers, or what follows: nobody's on a TAP.
      ...Array.from({ length: Math.min(length, 20) - 10 }, () => 0),
      ...(length === 24 ? [34, 0, 64, 0] : []),
    ])
  })

  test.each([10, 12, 20, 24])('zeros before the frame are one of %i bytes', (length) => {
    setUp(length)
    put(0, 1000, 60, ZEROS_BEFORE)
    port.transmit(burst, Int32Array.from([0]), 0, 1, 0)
    expect(tier.writes[0].segments).toEqual([[WINDOW, 1000 - length, 60 + length]])
  })

  test('headers that wait do not overwrite each other: a flush comes first', () => {
    setUp(10)
    for (let k = 0; k < 256; k++) put(k, 1000 * k, 60, 12)
    const all = Int32Array.from({ length: 256 }, (_, k) => k)
    for (let round = 0; round < 9; round++) {
      burst.csumOffset.fill(round)
      port.transmit(burst, all, 0, 256, 0)
    }
    expect(tier.flushes).toEqual([HEADERS_MAX, 2 * HEADERS_MAX])
    for (const start of [0, HEADERS_MAX, 2 * HEADERS_MAX]) {
      const waiting = tier.writes.slice(start, start + HEADERS_MAX)
      const places = waiting.map(({ segments }) => segments[0][1])
      expect(new Set(places).size).toBe(waiting.length)
    }
  })
})

describe('isUsableVnetHdrLength', () => {
  test.each([0, 10, 12, 14, 16, 18, 20, 22, 24])('%i is', (length) => {
    expect(isUsableVnetHdrLength(length)).toBe(true)
  })

  test.each([-25, -1, 1, 2, 8, 9, 11, 13, 23, 25, 26, 64, 1 << 20])('%i is not', (length) => {
    expect(isUsableVnetHdrLength(length)).toBe(false)
  })
})
