/** Frames into a receiveq: header and bytes in the buffers that the driver offers, and no byte beside. */
import { describe, expect, test } from 'vitest'
import { TUN_F_CSUM } from '../../../src/abi/if-tun.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { BROKEN_EMPTY } from '../../../src/virtio/ring/chain.ts'
import { DirtyLog } from '../../../src/virtio/ring/dirty-log.ts'
import { DESCRIPTORS_AHEAD, FRAME_DESCRIPTORS } from '../../../src/virtio/net/descriptor-budget.ts'
import {
  DELIVERED,
  FrameSink,
  NO_BUFFER,
  TOO_DEAR,
  TOO_LONG,
} from '../../../src/virtio/net/frame-sink.ts'
import type { Guest, Kind, Queues } from '../../support/guest.ts'
import {
  addChain,
  atEnd,
  GUEST_ADDRESS,
  KINDS,
  makeGuest,
  makeQueues,
} from '../../support/guest.ts'

const MEMORY = 1 << 20
const BUFFERS = 1 << 18
const SIZE = 128
const GUARD = 0xa5
const SOURCE = 1 << 17
const HEADER_LENGTHS = [10, 12, 20, 24] as const
/** One of each kind of ring. */
const RINGS = KINDS.filter(({ hasEventIdx, tableEntries }) => !hasEventIdx && tableEntries === 0)
const [SPLIT] = RINGS

interface Used {
  readonly id: number
  readonly length: number
  readonly bytes: Uint8Array
}

class Bench {
  readonly guest: Guest = makeGuest(MEMORY)
  readonly queues: Queues
  readonly copies: CopyProgram = new CopyProgram()
  readonly sink: FrameSink = new FrameSink(this.copies)
  readonly burst: Burst = new Burst()
  readonly source: Window = Window.map(SOURCE)
  /** Where the buffers of a chain are, by its id. */
  readonly #places: (readonly (readonly [offset: number, length: number])[])[] = []
  #next = BUFFERS

  constructor(kind: Kind = SPLIT) {
    this.queues = makeQueues(this.guest, kind, SIZE)
    this.guest.bytes.fill(GUARD, BUFFERS)
    atEnd(() => {
      this.sink.close()
      this.copies.close()
      this.source.unmap()
    })
  }

  /** Offers one chain of buffers of these lengths, each at a multiple of 64 plus `shift`. */
  offer(lengths: readonly number[], shift = 0): number {
    const places = lengths.map((length) => {
      const offset = this.#next + shift
      this.#next += Math.ceil((length + shift + 16) / 64) * 64
      return [offset, length] as const
    })
    const buffers = places.map(([offset, length]) => ({ offset, length, isWritable: true }))
    const id = addChain(this.queues.driver, buffers)
    this.#places[id] = places
    this.queues.driver.publish()
    return id
  }

  /** Frame k of the burst is these bytes. */
  frame(k: number, bytes: Uint8Array, offset: number): void {
    const { burst } = this
    new Uint8Array(this.source.buffer).set(bytes, offset)
    burst.window[k] = this.source.id
    burst.offset[k] = offset
    burst.length[k] = bytes.length
    burst.firstLength[k] = bytes.length
    burst.furtherCount[k] = 0
    burst.count = Math.max(burst.count, k + 1)
  }

  deliver(k = 0): number {
    return this.sink.deliver(this.queues.device, this.burst, k)
  }

  /** What the driver gets; everything that was not written to is still GUARD. */
  collect(): Used[] {
    this.copies.run()
    this.queues.device.publish()
    const all: Used[] = []
    for (;;) {
      const id = this.queues.driver.takeUsed()
      if (id < 0) break
      const length = this.queues.driver.usedLength
      const bytes = this.#places[id].flatMap(([offset, part]) =>
        Array.from(this.guest.bytes.slice(offset, offset + part)),
      )
      for (const [offset, part] of this.#places[id]) {
        this.guest.bytes.fill(GUARD, offset, offset + part)
      }
      expect(bytes.slice(length).every((byte) => byte === GUARD)).toBe(true)
      all.push({ id, length, bytes: Uint8Array.from(bytes.slice(0, length)) })
    }
    expect(this.guest.bytes.subarray(BUFFERS).every((byte) => byte === GUARD)).toBe(true)
    return all
  }
}

function body(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 7 + seed * 31 + (at >> 8)) & 0xff)
}

/** A vnet_hdr of zeros but num_buffers, where it has that. */
function header(length: number, buffers: number): Uint8Array {
  const bytes = new Uint8Array(length)
  if (length > 10) bytes[10] = buffers
  return bytes
}

const join = (...parts: readonly Uint8Array[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => [...part]))

describe.each(HEADER_LENGTHS)('with a vnet_hdr of %i bytes', (headerLength) => {
  test.each([
    ['one buffer', [2000], 0],
    ['one buffer of just the length', [headerLength + 1000], 0],
    ['one buffer that is not aligned', [2000], 3],
    ['a buffer for the header', [headerLength, 1500], 0],
    ['a header that is cut', [7, 2000], 1],
    ['many small ones', Array.from({ length: 100 }, () => 17), 2],
  ])('a frame fills %s', (_, lengths, shift) => {
    const bench = new Bench()
    bench.sink.headerLength = headerLength
    const id = bench.offer(lengths, shift)
    bench.frame(0, body(1000), 128)
    expect(bench.deliver()).toBe(DELIVERED)
    expect(bench.queues.driver.takeUsed()).toBe(-1)
    const bytes = join(header(headerLength, 1), body(1000))
    expect(bench.collect()).toEqual([{ id, length: headerLength + 1000, bytes }])
  })

  test('offloads are spelt if the driver takes them', () => {
    const bench = new Bench()
    bench.sink.headerLength = headerLength
    for (const offloads of [0, TUN_F_CSUM]) {
      bench.sink.offloads = offloads
      bench.frame(0, body(1000), 128)
      bench.burst.hasOffloads = true
      bench.burst.gso[0] = 1 | (4 << 8) | (74 << 16)
      bench.burst.gsoSize[0] = 1440 | (54 << 16)
      bench.burst.csumOffset[0] = 16
      bench.offer([1500])
      bench.deliver()
      const fields = [1, 4, 74, 0, 0xa0, 0x05, 54, 0, 16, 0]
      const expected = header(headerLength, 1)
      if (offloads !== 0) expected.set(fields)
      expect(bench.collect()[0].bytes.slice(0, headerLength)).toEqual(expected)
    }
  })

  test('a frame longer than a buffer is dropped and the buffer kept, if they cannot be merged', () => {
    const bench = new Bench()
    bench.sink.headerLength = headerLength
    const ids = [bench.offer([headerLength + 999]), bench.offer([2000])]
    bench.frame(0, body(1000), 128)
    bench.frame(1, body(999, 1), 4096)
    expect(bench.deliver(0)).toBe(TOO_LONG)
    expect(bench.deliver(0)).toBe(TOO_LONG)
    expect(bench.deliver(1)).toBe(DELIVERED)
    expect(bench.deliver(0)).toBe(DELIVERED)
    expect(bench.collect().map(({ id, length }) => [id, length])).toEqual([
      [ids[0], headerLength + 999],
      [ids[1], headerLength + 1000],
    ])
  })
})

describe.each(RINGS)('into a $name queue with mergeable buffers', (kind) => {
  test.each([
    ['two', [600, 600], [600, 412]],
    ['exactly two', [506, 506], [506, 506]],
    ['four', [300, 300, 300, 300], [300, 300, 300, 112]],
    ['one and the header', [12, 2000], [12, 1000]],
    ['some that are shorter than the header', [5, 5, 1500], [5, 5, 1002]],
  ])('a frame takes %s, and num_buffers says so', (_, lengths, usedLengths) => {
    const bench = new Bench(kind)
    bench.sink.isMergeable = true
    const ids = lengths.map((length) => bench.offer([length]))
    bench.frame(0, body(1000), 128)
    expect(bench.deliver()).toBe(DELIVERED)
    const used = bench.collect()
    expect(used.map(({ id }) => id)).toEqual(ids.slice(0, usedLengths.length))
    expect(used.map(({ length }) => length)).toEqual(usedLengths)
    expect(join(...used.map(({ bytes }) => bytes))).toEqual(
      join(header(12, usedLengths.length), body(1000)),
    )
  })

  test('a frame for which there are too few buffers waits for none: they are kept', () => {
    const bench = new Bench(kind)
    bench.sink.isMergeable = true
    const ids = [bench.offer([400, 100]), bench.offer([400])]
    bench.frame(0, body(1000), 128)
    bench.frame(1, body(488, 1), 8192)
    expect(bench.deliver(0)).toBe(NO_BUFFER)
    expect(bench.deliver(1)).toBe(DELIVERED)
    expect(bench.deliver(0)).toBe(NO_BUFFER)
    expect(bench.collect().map(({ id }) => id)).toEqual([ids[0]])
    ids.push(bench.offer([1000]))
    expect(bench.deliver(0)).toBe(DELIVERED)
    expect(bench.collect().map(({ id, length }) => [id, length])).toEqual([
      [ids[1], 400],
      [ids[2], 612],
    ])
  })

  test('a burst of frames of many lengths arrives in order', { timeout: 30_000 }, () => {
    const bench = new Bench(kind)
    bench.sink.isMergeable = true
    for (let round = 0; round < 30; round++) {
      const frames = [60, 1514, 2, 700, 3000].map((length, k) => body(length, round * 5 + k))
      while (bench.queues.driver.free >= 8) bench.offer([512])
      frames.forEach((bytes, k) => bench.frame(k, bytes, 8192 * (k + 1)))
      frames.forEach((_, k) => expect(bench.deliver(k)).toBe(DELIVERED))
      const used = bench.collect()
      for (const bytes of frames) {
        const count = used[0].bytes[10]
        const got = join(...used.splice(0, count).map((each) => each.bytes))
        expect(got).toEqual(join(header(12, Math.ceil((12 + bytes.length) / 512)), bytes))
      }
      expect(used).toEqual([])
    }
  })

  test('without a buffer there is NO_BUFFER', () => {
    const bench = new Bench(kind)
    bench.frame(0, body(60), 128)
    expect(bench.deliver()).toBe(NO_BUFFER)
    expect(bench.queues.device.broken).toBe(0)
  })

  test.each([false, true])(
    'a chain that cannot be written breaks the queue: merged %s',
    (merged) => {
      const bench = new Bench(kind)
      const { driver, device } = bench.queues
      bench.sink.isMergeable = merged
      const before = device.base()
      if (merged) bench.offer([100])
      addChain(driver, [{ offset: BUFFERS, length: 2000, isWritable: false }])
      driver.publish()
      bench.offer([2000])
      bench.frame(0, body(1000), 128)
      expect(bench.deliver()).toBe(NO_BUFFER)
      expect(device.broken).toBe(BROKEN_EMPTY)
      expect(bench.deliver()).toBe(NO_BUFFER)
      expect(device.base()).toBe(before)
      expect(bench.collect()).toEqual([])
    },
  )
})

test('readable buffers of a chain are left alone', () => {
  const bench = new Bench()
  const { driver } = bench.queues
  bench.guest.bytes.fill(1, BUFFERS, BUFFERS + 64)
  addChain(driver, [
    { offset: BUFFERS, length: 64, isWritable: false },
    { offset: BUFFERS + 64, length: 2000, isWritable: true },
  ])
  driver.publish()
  bench.frame(0, body(100), 128)
  expect(bench.deliver()).toBe(DELIVERED)
  bench.copies.run()
  expect(bench.guest.bytes.subarray(BUFFERS, BUFFERS + 64).every((byte) => byte === 1)).toBe(true)
  expect(bench.guest.bytes.slice(BUFFERS + 64 + 12, BUFFERS + 64 + 112)).toEqual(body(100))
})

test('a frame in several segments is put together', () => {
  const bench = new Bench()
  bench.sink.isMergeable = true
  const { burst } = bench
  const whole = body(1000)
  bench.frame(0, whole.slice(0, 100), 128)
  new Uint8Array(bench.source.buffer).set(whole.slice(100, 101), 4096)
  new Uint8Array(bench.source.buffer).set(whole.slice(101), 8192)
  burst.length[0] = 1000
  burst.furtherTotal = 2
  burst.furtherCount[0] = 2
  burst.furtherWindow.fill(bench.source.id, 0, 2)
  burst.furtherOffset.set([4096, 8192])
  burst.furtherLength.set([1, 899])
  for (const lengths of [[2000], [300, 300, 300, 300]]) {
    for (const length of lengths) bench.offer([length])
    expect(bench.deliver()).toBe(DELIVERED)
    const used = bench.collect()
    expect(join(...used.map(({ bytes }) => bytes))).toEqual(join(header(12, lengths.length), whole))
  }
})

test('a frame of more buffers than a chain has segments is dropped and they are kept', () => {
  const guest = makeGuest(MEMORY)
  const { driver, device } = makeQueues(guest, SPLIT, 2048)
  const copies = new CopyProgram()
  const sink = new FrameSink(copies)
  const burst = new Burst()
  atEnd(() => {
    sink.close()
    copies.close()
  })
  sink.isMergeable = true
  burst.window[0] = guest.window.id
  burst.offset[0] = BUFFERS
  burst.length[0] = 3000
  for (let at = 0; at < 2048; at++) {
    addChain(driver, [{ offset: BUFFERS + 4096 + 2 * at, length: 2, isWritable: true }])
  }
  driver.publish()
  expect(sink.deliver(device, burst, 0)).toBe(TOO_LONG)
  expect(device.base()).toBe(0)
  // What it cost to find that out counts in this turn.
  expect(sink.deliver(device, burst, 0)).toBe(TOO_DEAR)
  sink.descriptorsLeft = DESCRIPTORS_AHEAD
  burst.length[0] = 2 * 1024 - 12
  expect(sink.deliver(device, burst, 0)).toBe(DELIVERED)
})

test.each([[[2000]], [[100, 100, 900]], [[12, 4096, 4096]]])(
  'the pages that are written to buffers of %j are logged, and no others',
  (lengths) => {
    const bench = new Bench()
    const bitmap = Window.map(Math.ceil((GUEST_ADDRESS + MEMORY) / 4096 / 8))
    const log = new DirtyLog(bitmap.id)
    atEnd(() => {
      log.close()
      bitmap.unmap()
    })
    bench.sink.isMergeable = true
    bench.sink.log = log
    for (const length of lengths) bench.offer([length], 3)
    bench.frame(0, body(1000), 128)
    expect(bench.deliver()).toBe(DELIVERED)
    bench.copies.run()
    log.mark()
    const bits = new Uint8Array(bitmap.buffer)
    const first = Math.floor(GUEST_ADDRESS / 4096)
    for (let page = 0; page < MEMORY / 4096; page++) {
      const isWritten = bench.guest.bytes
        .subarray(Math.max(page * 4096, BUFFERS), (page + 1) * 4096)
        .some((byte) => byte !== GUARD)
      const number = first + page
      const isDirty = ((bits[number >> 3] >> (number & 7)) & 1) === 1
      expect(isDirty).toBe(isWritten)
    }
  },
)

describe.each(RINGS)('a driver whose buffers are dear, $name', (kind) => {
  test(
    'has frames dropped until the turn ends, and then as many again',
    { timeout: 30_000 },
    () => {
      const bench = new Bench(kind)
      bench.sink.isMergeable = true
      const { device } = bench.queues
      const [frames, length] = [100, 60]
      // Of each chain one byte is room, so a frame takes 72 of them.
      const list = Int32Array.from({ length: frames }, (_, k) => k)
      for (let k = 0; k < frames; k++) bench.frame(k, body(length), 0)
      let offered = 0
      const offer = (): void => {
        for (; offered < SIZE; offered++) bench.offer([1])
      }
      const turns: number[] = []
      for (let turn = 0; turn < 3; turn++) {
        // As if the ring never ended: a chain that comes back is offered again.
        let delivered = 0
        for (let calls = 0; calls < 40; calls++) {
          offer()
          bench.sink.deliverAll(device, bench.guest.memory, bench.burst, list, 0, 1)
          delivered += bench.sink.frames
          expect(bench.sink.frames + bench.sink.tooDear).toBe(1)
          bench.copies.run()
          device.publish()
          while (bench.queues.driver.takeUsed() >= 0) offered--
        }
        turns.push(delivered)
        bench.sink.descriptorsLeft = DESCRIPTORS_AHEAD
      }
      const most = Math.ceil(DESCRIPTORS_AHEAD / (12 + length - FRAME_DESCRIPTORS)) + 1
      expect(turns[0]).toBeLessThanOrEqual(most)
      expect(turns[0]).toBeGreaterThan(10)
      expect(turns).toEqual([turns[0], turns[0], turns[0]])
    },
  )

  test('that are too short for each second frame are not all looked at again for each', () => {
    const bench = new Bench(kind)
    const { device } = bench.queues
    for (let k = 0; k < SIZE; k++) bench.offer([100])
    for (let k = 0; k < 64; k++) bench.frame(k, body(k % 2 === 0 ? 60 : 200), 0)
    let looked = 0
    const takePlain = device.takePlain.bind(device)
    device.takePlain = (...args) => {
      const taken = takePlain(...args)
      looked += taken
      return taken
    }
    const list = Int32Array.from({ length: 64 }, (_, k) => k)
    bench.sink.deliverAll(device, bench.guest.memory, bench.burst, list, 0, 64)
    expect([bench.sink.frames, bench.sink.tooLong, bench.sink.tooDear]).toEqual([32, 32, 0])
    expect(looked).toBeLessThan(4 * 64)
  })
})
