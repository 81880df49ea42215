/** Frames out of a transmitq: wherever a chain is cut, the burst describes the same frame. */
import { describe, expect, test } from 'vitest'
import { TUN_F_CSUM, TUN_F_TSO4 } from '../../../src/abi/if-tun.ts'
import { Burst, FURTHER_PER_FRAME_MAX, HEAD_WORDS } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'
import { FrameSource } from '../../../src/virtio/net/frame-source.ts'
import type { Buffer, Guest, Queues } from '../../support/guest.ts'
import { ipFrame, payloadOf } from '../../support/ip-frames.ts'
import { addChain, atEnd, KINDS, makeGuest, makeQueues } from '../../support/guest.ts'

const MEMORY = 1 << 20
const BUFFERS = 1 << 18
const OUTPUT = 1 << 17
const SIZE = 256
const HEADER_LENGTHS = [10, 12, 20, 24] as const
const [SPLIT] = KINDS

interface Bench extends Queues {
  readonly guest: Guest
  readonly source: FrameSource
  readonly burst: Burst
  /** Bytes of the burst's frame k, copied as a port would. */
  readonly bytesOf: (k: number) => Uint8Array
}

function setUp(kind = SPLIT): Bench {
  const guest = makeGuest(MEMORY)
  const source = new FrameSource()
  const burst = new Burst()
  const copies = new CopyProgram()
  const output = Window.map(OUTPUT)
  atEnd(() => {
    source.close()
    copies.close()
    output.unmap()
  })
  const bytesOf = (k: number): Uint8Array => {
    const bytes = new Uint8Array(output.buffer)
    bytes.fill(0xee)
    copies.addFrame(burst, k, output.id, 0, burst.length[k])
    copies.run()
    return bytes.slice(0, burst.length[k])
  }
  return { ...makeQueues(guest, kind, SIZE), guest, source, burst, bytesOf }
}

/** flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; the rest is not to be looked at. */
function header(
  length: number,
  fields: readonly [number, number, number, number, number, number] = [0, 0, 0, 0, 0, 0],
): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xfa)
  const view = new DataView(bytes.buffer)
  const [flags, type, ...rest] = fields
  view.setUint8(0, flags)
  view.setUint8(1, type)
  rest.forEach((value, at) => view.setUint16(2 + 2 * at, value, true))
  return bytes
}

function frame(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 7 + seed * 31 + (at >> 8)) & 0xff)
}

/** Writes the bytes into buffers of these lengths, the last takes the rest, with gaps between them. */
function scatter(
  guest: Guest,
  bytes: Uint8Array,
  cuts: readonly number[],
  start: number,
): Buffer[] {
  const buffers: Buffer[] = []
  let done = 0
  let offset = start
  for (const cut of [...cuts, bytes.length]) {
    const length = Math.min(cut, bytes.length - done)
    if (length === 0) continue
    guest.bytes.set(bytes.subarray(done, done + length), offset)
    buffers.push({ offset, length, isWritable: false })
    done += length
    offset += length + 5
  }
  return buffers
}

/** Makes a chain of header and frame available, cut into these lengths. */
function send(
  { guest, driver }: Bench,
  head: Uint8Array,
  body: Uint8Array,
  cuts: readonly number[] = [],
  start = BUFFERS,
): number {
  const whole = new Uint8Array([...head, ...body])
  const id = addChain(driver, scatter(guest, whole, cuts, start))
  expect(id).not.toBe(-1)
  driver.publish()
  return id
}

const headOf = (burst: Burst, k: number): Uint8Array =>
  new Uint8Array(burst.heads.slice(k * HEAD_WORDS, (k + 1) * HEAD_WORDS).buffer)

describe.each(HEADER_LENGTHS)('with a vnet_hdr of %i bytes', (headerLength) => {
  test.each([
    ['in one buffer', []],
    ['with the header in a buffer of its own', [headerLength]],
    ['with the header and a part of the addresses', [headerLength + 3]],
    ['with the header cut', [4]],
    ['byte by byte up to the payload', Array.from({ length: headerLength + 14 }, () => 1)],
    ['in three parts', [headerLength + 100, 700]],
  ])('a frame %s is described', (_, cuts) => {
    const bench = setUp()
    const { source, device, burst, driver, bytesOf } = bench
    source.headerLength = headerLength
    const body = frame(1000)
    const id = send(bench, header(headerLength), body, cuts)
    expect(source.fill(device, burst)).toBe(1)
    expect(burst.count).toBe(1)
    expect(burst.length[0]).toBe(1000)
    expect(burst.gso[0]).toBe(0)
    expect(burst.needs[0]).toBe(0)
    expect(headOf(burst, 0)).toEqual(body.slice(0, 16))
    expect(bytesOf(0)).toEqual(body)
    expect(driver.takeUsed()).toBe(-1)
    device.publish()
    expect(driver.takeUsed()).toBe(id)
    expect(driver.usedLength).toBe(0)
  })

  test.each([[[]], [[headerLength]], [[1, 1, 1, 5]], [[3, headerLength]]])(
    'its fields are read, cut as %j',
    (cuts) => {
      const bench = setUp()
      const { source, device, burst } = bench
      source.headerLength = headerLength
      source.offloads = TUN_F_CSUM | TUN_F_TSO4
      const { bytes } = ipFrame({ payload: payloadOf(2946) })
      // hdr_len, csum_start and csum_offset are not what the frame says.
      send(bench, header(headerLength, [1, 1, 20, 1448, 14, 6]), bytes, cuts)
      expect(source.fill(device, burst)).toBe(1)
      expect(burst.count).toBe(1)
      expect(burst.gso[0]).toBe(1 | (1 << 8) | (54 << 16))
      expect(burst.gsoSize[0]).toBe(1448 | (34 << 16))
      expect(burst.csumOffset[0]).toBe(16)
      expect(burst.needs[0]).toBe(TUN_F_CSUM | TUN_F_TSO4)
      // What stands before the frame is not what was found.
      expect(burst.headLength[0]).toBe(0)
    },
  )

  test('a driver without offloads is not asked for them', () => {
    const bench = setUp()
    const { source, device, burst } = bench
    source.headerLength = headerLength
    send(bench, header(headerLength, [1, 1, 54, 1448, 34, 16]), frame(3000))
    source.fill(device, burst)
    expect(burst.count).toBe(1)
    expect([burst.gso[0], burst.gsoSize[0], burst.csumOffset[0], burst.needs[0]]).toEqual([
      0, 0, 0, 0,
    ])
    expect(burst.headLength[0]).toBe(0)
  })

  test.each([
    ['of 13 bytes', 13],
    ['of none', 0],
  ])('a frame %s is malformed, and given back', (_, length) => {
    const bench = setUp()
    const { source, device, burst, driver } = bench
    source.headerLength = headerLength
    const id = send(bench, header(headerLength), frame(length))
    expect(source.fill(device, burst)).toBe(1)
    expect(burst.count).toBe(0)
    expect(source.malformed).toBe(1)
    device.publish()
    expect(driver.takeUsed()).toBe(id)
  })
})

test('a chain shorter than its header is malformed', () => {
  const bench = setUp()
  send(bench, frame(5), frame(0))
  expect(bench.source.fill(bench.device, bench.burst)).toBe(1)
  expect(bench.source.malformed).toBe(1)
})

test('a chain with nothing to read is malformed', () => {
  const { source, device, driver, burst } = setUp()
  addChain(driver, [{ offset: BUFFERS, length: 2000, isWritable: true }])
  driver.publish()
  expect(source.fill(device, burst)).toBe(1)
  expect(source.malformed).toBe(1)
})

test('the longest frame is 64 KiB of payload behind an Ethernet header with two tags', () => {
  const bench = setUp()
  const { source, device, burst, bytesOf } = bench
  const longest = frame(65535 + 14 + 8)
  send(bench, header(12), longest, [12])
  send(bench, header(12), frame(longest.length + 1), [12], BUFFERS + longest.length + 1000)
  expect(source.fill(device, burst)).toBe(2)
  expect(burst.count).toBe(1)
  expect(source.oversize).toBe(1)
  expect(bytesOf(0)).toEqual(longest)
})

test('a frame in more segments than a frame may have is malformed, one in as many is not', () => {
  const bench = setUp()
  const { source, device, burst, bytesOf } = bench
  const cuts = (segments: number): number[] => [
    12,
    ...Array.from({ length: segments - 1 }, () => 9),
  ]
  const body = frame(1000)
  send(bench, header(12), body, cuts(FURTHER_PER_FRAME_MAX + 1))
  send(bench, header(12), frame(1000), cuts(FURTHER_PER_FRAME_MAX + 2), BUFFERS + 8192)
  expect(source.fill(device, burst)).toBe(2)
  expect(burst.count).toBe(1)
  expect(source.malformed).toBe(1)
  expect(burst.furtherCount[0]).toBe(FURTHER_PER_FRAME_MAX)
  expect(bytesOf(0)).toEqual(body)
})

test.each([
  ['that was not negotiated', [1, 1, 54, 1448, 34, 16] as const, TUN_F_CSUM, 'malformed'],
  ['without a size', [1, 1, 54, 0, 34, 16] as const, TUN_F_CSUM | TUN_F_TSO4, 'malformed'],
  ['whose checksum lies outside', [1, 0, 0, 0, 990, 16] as const, TUN_F_CSUM, 'malformed'],
  ['of an unknown type', [0, 6, 54, 1448, 0, 0] as const, TUN_F_CSUM, 'unknownType'],
])('a header with an offload %s drops its frame, and no other one', (_, wrong, offloads, count) => {
  const bench = setUp()
  const { source, device, burst, bytesOf, driver } = bench
  source.offloads = offloads
  const bodies = [0, 1, 2].map((seed) => frame(1000, seed))
  send(bench, header(12), bodies[0], [], BUFFERS)
  send(bench, header(12, [...wrong]), bodies[1], [20, 100], BUFFERS + 4096)
  send(bench, header(12, [1, 0, 0, 0, 34, 6]), bodies[2], [5, 9, 300], BUFFERS + 8192)
  expect(source.fill(device, burst)).toBe(3)
  expect(burst.count).toBe(2)
  expect(source[count as 'malformed' | 'unknownType']).toBe(1)
  expect(source.malformed + source.unknownType + source.oversize).toBe(1)
  expect(bytesOf(0)).toEqual(bodies[0])
  expect(bytesOf(1)).toEqual(bodies[2])
  expect(headOf(burst, 1)).toEqual(bodies[2].slice(0, 16))
  expect(burst.needs[0]).toBe(0)
  expect(burst.needs[1]).toBe(TUN_F_CSUM)
  device.publish()
  for (let at = 0; at < 3; at++) expect(driver.takeUsed()).not.toBe(-1)
})

test('heads are right however many frames of a burst are cut into bytes', () => {
  const bench = setUp(KINDS.find((kind) => kind.isPacked && kind.tableEntries === 0))
  const { guest, driver, source, device, burst } = bench
  source.offloads = TUN_F_CSUM
  // Ten frames of 25 buffers each; twelve bytes of header and twelve of the frame stand alone.
  for (let round = 0; round < 20; round++) {
    const seeds = Array.from({ length: 10 }, (_, at) => round * 10 + at)
    for (const [at, seed] of seeds.entries()) {
      const whole = new Uint8Array([
        ...header(12, [1, 0, 0, 0, 14 + (seed % 32), 2]),
        ...frame(60, seed),
      ])
      const cuts = Array.from({ length: 24 }, () => 1)
      addChain(driver, scatter(guest, whole, cuts, BUFFERS + at * 1024))
    }
    driver.publish()
    expect(source.fill(device, burst)).toBe(10)
    expect(burst.count).toBe(10)
    for (const [k, seed] of seeds.entries()) {
      expect(headOf(burst, k)).toEqual(frame(60, seed).slice(0, 16))
      expect(burst.gsoSize[k] >>> 16).toBe(14 + (seed % 32))
    }
    device.publish()
    while (driver.takeUsed() !== -1);
  }
})

test('heads are right when the pieces of one burst are more than a copy program holds', () => {
  const guest = makeGuest(1 << 22)
  const kind = KINDS.find((each) => each.isPacked && each.tableEntries === 0)!
  const { driver, device } = makeQueues(guest, kind, 8192)
  const source = new FrameSource()
  const burst = new Burst()
  atEnd(() => source.close())
  source.offloads = TUN_F_CSUM
  for (let seed = 0; seed < 100; seed++) {
    const whole = new Uint8Array([
      ...header(12, [1, 0, 0, 0, 14 + (seed % 32), 2]),
      ...frame(60, seed),
    ])
    const cuts = Array.from({ length: 27 }, () => 1)
    addChain(driver, scatter(guest, whole, cuts, (1 << 20) + seed * 1024))
  }
  driver.publish()
  expect(source.fill(device, burst)).toBe(100)
  expect(burst.count).toBe(100)
  for (let k = 0; k < 100; k++) {
    expect(headOf(burst, k)).toEqual(frame(60, k).slice(0, 16))
    expect(burst.gsoSize[k] >>> 16).toBe(14 + (k % 32))
  }
})

test('what was taken before the driver broke its queue is delivered and given back', () => {
  const bench = setUp()
  const { source, device, burst, driver } = bench
  const id = send(bench, header(12), frame(100))
  driver.begin(1, false)
  driver.add(0, 100, false)
  driver.commit()
  driver.publish()
  expect(source.fill(device, burst)).toBe(1)
  expect(burst.count).toBe(1)
  expect(device.broken).not.toBe(0)
  device.publish()
  expect(driver.takeUsed()).toBe(id)
  expect(driver.takeUsed()).toBe(-1)
})

test('a flag that is for tunnels only, and those that are not for drivers, are cleared', () => {
  const bench = setUp()
  const { source, device, burst } = bench
  source.offloads = TUN_F_CSUM
  send(bench, header(12, [0xff, 0, 0, 0, 34, 6]), frame(1000, 0), [], BUFFERS)
  expect(source.fill(device, burst)).toBe(1)
  expect(burst.gso[0] & 0xff).toBe(1)
  // So the header that stands before the frame is not it.
  expect(burst.headLength[0]).toBe(0)
})

describe.each(KINDS)('what a burst may take, from a $name queue', (kind) => {
  const lengths = Array.from({ length: 40 }, (_, k) => (k % 3 === 0 ? 60 : 400))

  /** Forty frames, of which every fourth is in pieces. */
  function offerAll(bench: Bench): void {
    let at = BUFFERS
    for (const [k, length] of lengths.entries()) {
      const bytes = Uint8Array.from([...header(12), ...frame(length, k)])
      const cuts = k % 4 === 0 ? [12, 14, 20] : []
      addChain(bench.driver, scatter(bench.guest, bytes, cuts, at))
      at += 1024
    }
    bench.driver.publish()
  }

  /** The lengths of the frames of each burst, until there are none. */
  function bursts(bench: Bench): number[][] {
    const all: number[][] = []
    for (let count = 0; ; count++) {
      if (count > 10_000) throw new Error('bursts without end')
      const taken = bench.source.fill(bench.device, bench.burst)
      if (taken === 0) return all
      expect(taken).toBe(bench.burst.count)
      all.push(Array.from(bench.burst.length.subarray(0, taken)))
      bench.device.publish()
    }
  }

  test.each([
    ['frames', { framesMax: 7 }],
    ['bytes', { bytesMax: 2000 }],
    ['descriptors', { descriptorsMax: 9 }],
    ['hardly any', { framesMax: 1, bytesMax: 1, descriptorsMax: 1 }],
  ])('is limited in %s, and the next burst goes on where it ended', (_what, limits) => {
    const bench = setUp(kind)
    offerAll(bench)
    Object.assign(bench.burst, limits)
    const all = bursts(bench)
    expect(all.flat()).toEqual(lengths)
    expect(all.length).toBeGreaterThan(3)
    const { framesMax, bytesMax } = bench.burst
    for (const one of all) {
      expect(one.length).toBeLessThanOrEqual(framesMax)
      // The frame that exceeds the limit is the last.
      const sum = one.slice(0, -1).reduce((total, length) => total + length, 0)
      expect(sum).toBeLessThan(bytesMax)
    }
  })

  test('chains of nothing are counted, and end the burst', () => {
    const bench = setUp(kind)
    const nothing = Array.from({ length: 6 }, () => ({
      offset: BUFFERS,
      length: 0,
      isWritable: false,
    }))
    const one = { offset: BUFFERS, length: 1, isWritable: false }
    for (let k = 0; k < 16; k++) addChain(bench.driver, [...nothing, one])
    bench.driver.publish()
    bench.burst.descriptorsMax = 20
    const taken: number[] = []
    for (let chains = -1; chains !== 0; taken.push(chains)) {
      chains = bench.source.fill(bench.device, bench.burst)
      expect(bench.source.malformed).toBe(chains)
      // A descriptor of the ring more where they are in a table.
      expect(bench.burst.descriptors).toBeGreaterThanOrEqual(7 * chains)
      expect(bench.burst.descriptors).toBeLessThan(20 + 8)
      bench.device.publish()
    }
    expect(taken.slice(0, -2)).toEqual([3, 3, 3, 3, 3])
  })
})

describe.each(KINDS)('buffers that a driver calls writable, in a $name transmitq', (kind) => {
  test.each([[[false, true, true]], [[true, true, true]], [[true, false, true]], [[true]]])(
    'are frames if the ring is packed: %j',
    (writable) => {
      const bench = setUp(kind)
      const bytes = Uint8Array.from([...header(12), ...frame(300, 5)])
      const cuts = writable.slice(1).map((_, k) => 12 + k)
      const parts = scatter(bench.guest, bytes, cuts, BUFFERS)
      addChain(
        bench.driver,
        parts.map((part, k) => ({ ...part, isWritable: writable[k] })),
      )
      bench.driver.publish()
      const taken = bench.source.fill(bench.device, bench.burst)
      if (kind.isPacked) {
        expect([taken, bench.burst.count, bench.device.broken]).toEqual([1, 1, 0])
        expect(bench.bytesOf(0)).toEqual(frame(300, 5))
      } else expect(bench.burst.count).toBe(0)
    },
  )
})
