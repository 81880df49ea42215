/** The recorder on a small real ring, whose bytes are read back by our own reader. */
import { afterEach, describe, expect, test } from 'vitest'
import { Recorder } from '../../../src/capture/recorder.ts'
import type { CaptureRingHandle } from '../../../src/capture/ring.ts'
import {
  COUNT_COMPLETE,
  COUNT_DROPPED,
  COUNT_FRAMES,
  COUNT_PER_INTERFACE,
  createCaptureRing,
  RING_HEAD,
  RING_LENGTH,
  RING_TAIL,
} from '../../../src/capture/ring.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import { RecordEnginePort } from '../../../src/port/pcap/engine.ts'
import { allocateCounters, readCounters } from '../../../src/stats/port-counters.ts'
import { pcapHeader, readPcap } from '../../../src/wire/pcap.ts'
import { interfaceDescription, readPcapng, sectionHeader } from '../../../src/wire/pcapng.ts'

const LENGTH = 4096
const PORTS = 4
/** EPB without the frame: 28 bytes before it, 16 after it. */
const EPB_OVERHEAD = 44

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).toReversed()) cleanup()
})

interface Seen {
  readonly frame: Uint8Array
  readonly originalLength: number
  readonly timestampNs: bigint
  readonly interfaceId: number
}

/** A ring, its recorder, and a reader in place of the writer thread. */
class Rig {
  readonly handle: CaptureRingHandle
  readonly ring: Uint8Array
  readonly control: Int32Array
  readonly counts: Float64Array
  readonly recorder: Recorder
  readonly burst: Burst = new Burst()
  readonly copies: CopyProgram = new CopyProgram()
  readonly words: Int32Array = new Int32Array(8)
  readonly #frames: Window
  readonly #file: Uint8Array[] = []

  constructor(options: Partial<CaptureRingHandle> = {}, startAt = 0) {
    const fd = shim.memfdCreate('framepump-test', 1)
    shim.ftruncate(fd, LENGTH)
    const window = Window.map(LENGTH, { fd, mirrored: true })
    shim.close(fd)
    this.handle = {
      window: window.id,
      length: LENGTH,
      control: new SharedArrayBuffer(64),
      counts: new SharedArrayBuffer(1024),
      format: 'pcapng',
      direction: 'both',
      snapLength: 262144,
      countLimit: 0,
      ...options,
    }
    this.ring = new Uint8Array(window.buffer)
    this.control = new Int32Array(this.handle.control)
    this.counts = new Float64Array(this.handle.counts)
    this.control[RING_HEAD] = startAt
    this.control[RING_TAIL] = startAt
    this.recorder = new Recorder(this.handle, PORTS)
    this.#frames = Window.map(1 << 20)
    cleanups.push(() => {
      this.recorder.close()
      window.unmap()
      this.#frames.unmap()
      this.copies.close()
    })
  }

  describe(port: number, interfaceId: number): void {
    const isPcapng = this.handle.format === 'pcapng'
    const block = isPcapng
      ? interfaceDescription(`p${port}`, '', this.handle.snapLength)
      : new Uint8Array(0)
    this.recorder.addInterface(port, interfaceId, block)
  }

  /** Fills the burst with frames, one behind the other at odd places. */
  fill(frames: readonly Uint8Array[]): void {
    const bytes = new Uint8Array(this.#frames.buffer)
    let offset = 3
    frames.forEach((frame, k) => {
      bytes.set(frame, offset)
      this.burst.window[k] = this.#frames.id
      this.burst.offset[k] = offset
      this.burst.length[k] = frame.length
      offset += frame.length + 5
    })
    this.burst.count = frames.length
  }

  record(frames: readonly Uint8Array[], port = 0, isOutbound = false): number {
    this.fill(frames)
    const list = Int32Array.from(frames.keys())
    return this.recorder.record(
      this.burst,
      list,
      0,
      list.length,
      port,
      isOutbound,
      this.words,
      this.copies,
    )
  }

  get used(): number {
    return (this.control[RING_HEAD] - this.control[RING_TAIL]) >>> 0
  }

  /** Takes what the ring holds, as the writer does. */
  drain(): void {
    const used = this.used
    expect(used).toBeLessThanOrEqual(LENGTH)
    const at = this.control[RING_TAIL] & (LENGTH - 1)
    this.#file.push(this.ring.slice(at, at + used))
    this.control[RING_TAIL] = (this.control[RING_TAIL] + used) | 0
  }

  /** All frames recorded so far. */
  frames(): Seen[] {
    this.drain()
    const isPcapng = this.handle.format === 'pcapng'
    const header = isPcapng ? sectionHeader('test') : pcapHeader(this.handle.snapLength)
    const bytes = new Uint8Array(Buffer.concat([header, ...this.#file]))
    const frames: Seen[] = []
    const visitor = {
      frame(
        offset: number,
        length: number,
        originalLength: number,
        timestampNs: bigint,
        interfaceId: number,
      ): void {
        const frame = bytes.slice(offset, offset + length)
        frames.push({ frame, originalLength, timestampNs, interfaceId })
      },
      truncated(): void {
        throw new Error('half a record')
      },
    }
    if (isPcapng) readPcapng(bytes, visitor)
    else readPcap(bytes, visitor)
    return frames
  }

  bytes(): string {
    return Buffer.from(this.ring.subarray(0, this.used)).toString('hex')
  }

  interfaceCounts(interfaceId: number): { frames: number; dropped: number } {
    const cell = COUNT_PER_INTERFACE + 2 * interfaceId
    return { frames: this.counts[cell], dropped: this.counts[cell + 1] }
  }
}

function frame(length: number, fill: number): Uint8Array {
  return new Uint8Array(length).fill(fill)
}

const golden = (...parts: string[]): string => parts.join('').replaceAll(' ', '')

describe('records', () => {
  test('a pcapng frame is a whole Enhanced Packet Block', () => {
    const rig = new Rig()
    rig.recorder.addInterface(0, 0, new Uint8Array(0))
    rig.recorder.addInterface(2, 1, new Uint8Array(0))
    rig.words.set([0, 0, 0x708090a0, 0x17f3c2b1])
    // What the ring held before shows through nowhere.
    rig.ring.fill(0xee, 0, LENGTH)
    rig.record([Uint8Array.of(1, 2, 3, 4, 5)], 2, true)
    expect(rig.bytes()).toBe(
      golden(
        '06000000 34000000', // type, length 52
        '01000000', // interface
        'b1c2f317 a0908070', // timestamp, high word first
        '05000000 05000000', // captured, original length
        '0102030405 000000', // frame, padding
        '0200 0400 02000000', // epb_flags: outbound
        '0000 0000',
        '34000000',
      ),
    )
  })

  test('a pcap frame is a record header and the frame, not padded', () => {
    const rig = new Rig({ format: 'pcap', snapLength: 4 })
    rig.describe(0, 0)
    rig.words.set([0, 0, 0, 0, 1_700_000_000, 123_456])
    rig.record([Uint8Array.of(1, 2, 3, 4, 5)])
    expect(rig.bytes()).toBe(
      golden(
        '00f15365 40e20100', // seconds, nanoseconds
        '04000000 05000000', // captured, original length
        '01020304',
      ),
    )
  })

  test('frames of every length mod 4 come back whole, in order, with their interface', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.describe(3, 1)
    const sent = [60, 61, 62, 63, 64].map((length, n) => frame(length, n + 1))
    rig.words.set([0, 0, 5, 1])
    rig.record(sent.slice(0, 3), 3)
    rig.record(sent.slice(3), 0, true)
    expect(rig.frames()).toEqual(
      sent.map((bytes, n) => ({
        frame: bytes,
        originalLength: bytes.length,
        timestampNs: 0x1_0000_0005n,
        interfaceId: n < 3 ? 1 : 0,
      })),
    )
    expect(rig.counts[COUNT_FRAMES]).toBe(5)
    expect(rig.interfaceCounts(0)).toEqual({ frames: 2, dropped: 0 })
    expect(rig.interfaceCounts(1)).toEqual({ frames: 3, dropped: 0 })
  })

  test('only the listed part of the burst is recorded', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.fill([1, 2, 3, 4, 5].map((n) => frame(60, n)))
    const list = Int32Array.of(0, 4, 2, 1)
    rig.recorder.record(rig.burst, list, 1, 2, 0, false, rig.words, rig.copies)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual([5, 3])
  })

  test('snap length cuts the frame and keeps its length; a shorter frame is whole', () => {
    const rig = new Rig({ snapLength: 62 })
    rig.describe(0, 0)
    rig.record([frame(1514, 1), frame(62, 2), frame(60, 3)])
    expect(rig.frames().map((seen) => [seen.frame.length, seen.originalLength])).toEqual([
      [62, 1514],
      [62, 62],
      [60, 60],
    ])
  })

  test('more frames than a copy program has rows are all copied', () => {
    const rig = new Rig({ snapLength: 1, format: 'pcap' })
    rig.describe(0, 0)
    for (let round = 0; round < 6; round++) {
      const frames = Array.from({ length: 200 }, (_, n) => frame(60, (round * 200 + n) & 0xff))
      expect(rig.record(frames)).toBe(0)
      rig.drain()
    }
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual(
      Array.from({ length: 1200 }, (_, n) => n & 0xff),
    )
  })
})

describe('filters', () => {
  test.each([
    ['in', [1]],
    ['out', [2]],
    ['both', [1, 2]],
  ] as const)('direction %s', (direction, expected) => {
    const rig = new Rig({ direction })
    rig.describe(0, 0)
    rig.record([frame(60, 1)], 0, false)
    rig.record([frame(60, 2)], 0, true)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual(expected)
    expect(rig.counts[COUNT_FRAMES]).toBe(expected.length)
  })

  test('a port that was not added, or was removed, is not recorded and not counted', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.describe(1, 1)
    rig.record([frame(60, 1)], 2)
    rig.recorder.removeInterface(1)
    rig.record([frame(60, 2)], 1)
    rig.record([frame(60, 3)], 0)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual([3])
    expect(rig.counts[COUNT_DROPPED]).toBe(0)
  })

  test('a port that comes back has a new interface', () => {
    const rig = new Rig()
    rig.describe(1, 0)
    rig.record([frame(60, 1)], 1)
    rig.recorder.removeInterface(1)
    rig.describe(1, 1)
    rig.record([frame(60, 2)], 1)
    expect(rig.frames().map((seen) => seen.interfaceId)).toEqual([0, 1])
  })

  test('the count limit ends the recording in the middle of a burst', () => {
    const rig = new Rig({ countLimit: 5 })
    rig.describe(0, 0)
    rig.record([1, 2, 3].map((n) => frame(60, n)))
    expect(rig.counts[COUNT_COMPLETE]).toBe(0)
    expect(rig.record([4, 5, 6, 7].map((n) => frame(60, n)))).toBe(0)
    expect(rig.counts[COUNT_COMPLETE]).toBe(1)
    expect(rig.record([frame(60, 8)])).toBe(0)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual([1, 2, 3, 4, 5])
    expect(rig.counts[COUNT_FRAMES]).toBe(5)
    expect(rig.counts[COUNT_DROPPED]).toBe(0)
  })

  test('frames that found no room do not count towards the limit', () => {
    const rig = new Rig({ countLimit: 2 })
    rig.describe(0, 0)
    expect(rig.record([frame(5000, 1), frame(60, 2)])).toBe(1)
    expect(rig.counts[COUNT_COMPLETE]).toBe(0)
    rig.record([frame(60, 3)])
    expect(rig.counts[COUNT_COMPLETE]).toBe(1)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual([2, 3])
  })
})

describe('the ring', () => {
  test('holds as many records as fit; the rest is counted for its interface', () => {
    const rig = new Rig()
    rig.recorder.addInterface(0, 0, new Uint8Array(0))
    rig.recorder.addInterface(1, 1, new Uint8Array(0))
    const block = EPB_OVERHEAD + 60
    const fits = Math.floor(LENGTH / block)
    const frames = Array.from({ length: fits + 3 }, (_, n) => frame(60, n))
    expect(rig.record(frames, 1)).toBe(3)
    expect(rig.used).toBe(fits * block)
    expect(rig.record([frame(60, 0)], 0)).toBe(1)
    expect(rig.counts[COUNT_FRAMES]).toBe(fits)
    expect(rig.counts[COUNT_DROPPED]).toBe(4)
    expect(rig.interfaceCounts(0)).toEqual({ frames: 0, dropped: 1 })
    expect(rig.interfaceCounts(1)).toEqual({ frames: fits, dropped: 3 })
  })

  test('can be filled to the last byte, and not one record further', () => {
    const rig = new Rig()
    rig.recorder.addInterface(0, 0, new Uint8Array(0))
    // One byte more is one word more.
    expect(rig.record([frame(LENGTH - EPB_OVERHEAD + 1, 0)])).toBe(1)
    expect(rig.used).toBe(0)
    expect(rig.record([frame(LENGTH - EPB_OVERHEAD, 1)])).toBe(0)
    expect(rig.used).toBe(LENGTH)
    expect(rig.record([frame(14, 2)])).toBe(1)
    expect(rig.used).toBe(LENGTH)
  })

  test('takes a small frame after a large one that did not fit', () => {
    const rig = new Rig()
    rig.recorder.addInterface(0, 0, new Uint8Array(0))
    expect(rig.record([frame(3000, 1), frame(3000, 2), frame(60, 3)])).toBe(1)
    expect(rig.used).toBe(EPB_OVERHEAD + 3000 + EPB_OVERHEAD + 60)
  })

  test('has room again when the writer has taken something', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.record([frame(3000, 1)])
    expect(rig.record([frame(3000, 2)])).toBe(1)
    rig.drain()
    expect(rig.record([frame(3000, 3)])).toBe(0)
    expect(rig.frames().map((seen) => seen.frame[0])).toEqual([1, 3])
  })

  test('a record passes the end of the ring in one piece', () => {
    const rig = new Rig({}, LENGTH - 200)
    rig.describe(0, 0)
    rig.record([frame(1000, 1)])
    expect((rig.control[RING_HEAD] & (LENGTH - 1)) < LENGTH - 200).toBe(true)
    expect(rig.frames()[0].frame).toEqual(frame(1000, 1))
  })

  test('goes on when head passes 2^31 and 2^32', () => {
    for (const startAt of [0x7fff_ff00, -256]) {
      const rig = new Rig({}, startAt)
      rig.describe(0, 0)
      for (let n = 0; n < 8; n++) {
        expect(rig.record([frame(1000, n)])).toBe(0)
        rig.drain()
      }
      expect(rig.frames().map((seen) => seen.frame[0])).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    }
  })

  test('an interface that found no room is described before the first frame that does', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.record([frame(LENGTH - rig.used - EPB_OVERHEAD, 1)])
    expect(rig.used).toBe(LENGTH)
    rig.describe(1, 1)
    expect(rig.record([frame(60, 2), frame(60, 3)], 1)).toBe(2)
    expect(rig.interfaceCounts(1)).toEqual({ frames: 0, dropped: 2 })
    rig.drain()
    rig.record([frame(60, 4)], 1)
    expect(rig.frames().map((seen) => [seen.frame[0], seen.interfaceId])).toEqual([
      [1, 0],
      [4, 1],
    ])
  })

  test('interfaces are described in the order of their numbers, however long they wait', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.record([frame(LENGTH - rig.used - EPB_OVERHEAD, 1)])
    // No room: both wait, and the second has a frame first.
    rig.describe(1, 1)
    rig.describe(2, 2)
    rig.drain()
    rig.record([frame(60, 2)], 2)
    rig.record([frame(60, 3)], 1)
    expect(rig.frames().map((seen) => [seen.frame[0], seen.interfaceId])).toEqual([
      [1, 0],
      [2, 2],
      [3, 1],
    ])
  })

  test('an interface whose port goes before it was described keeps its number', () => {
    const rig = new Rig()
    rig.describe(0, 0)
    rig.record([frame(LENGTH - rig.used - EPB_OVERHEAD, 1)])
    rig.describe(1, 1)
    rig.recorder.removeInterface(1)
    rig.describe(2, 2)
    rig.drain()
    rig.record([frame(60, 2)], 2)
    expect(rig.frames().map((seen) => [seen.frame[0], seen.interfaceId])).toEqual([
      [1, 0],
      [2, 2],
    ])
  })

  test('of a capture is a power of two that is mapped twice', () => {
    const { memory, handle } = createCaptureRing({
      format: 'pcapng',
      direction: 'both',
      snapLength: 128,
      countLimit: 0,
    })
    try {
      expect(handle.length).toBe(RING_LENGTH)
      expect(Math.log2(RING_LENGTH) % 1).toBe(0)
      const bytes = new Uint8Array(memory.window.buffer)
      expect(bytes).toHaveLength(2 * RING_LENGTH)
      bytes[5] = 7
      expect(bytes[RING_LENGTH + 5]).toBe(7)
    } finally {
      memory.close()
    }
  })
})

test('a record port counts the bytes of those frames that it has recorded', () => {
  const rig = new Rig()
  rig.describe(0, 0)
  const counters = new Float64Array(allocateCounters(1))
  const clock = { time: new Float64Array(4), words: rig.words, read: () => undefined }
  const port = new RecordEnginePort(0, rig.recorder, clock, rig.copies, counters)
  rig.fill([1400, 1401, 1402, 300, 1403].map((length) => new Uint8Array(length)))
  port.transmit(rig.burst, Int32Array.of(0, 1, 2, 3, 4), 0, 5)
  const { tx_frames, tx_bytes, tx_drop_full } = readCounters(counters, 0)
  expect({ tx_frames, tx_bytes, tx_drop_full }).toEqual({
    tx_frames: 3,
    tx_bytes: 1400 + 1401 + 300,
    tx_drop_full: 2,
  })
})
