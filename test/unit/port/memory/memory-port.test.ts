/** Both halves of a memory port, in one thread: the engine's by the port contract, the caller's. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConfigError, StateError } from '../../../../src/errors.ts'
import { Burst, BURST_SIZE_MAX, HEAD_WORDS, ZEROS_BEFORE } from '../../../../src/mem/burst.ts'
import { CopyProgram } from '../../../../src/mem/copy-program.ts'
import { MEMORY_FRAME_LENGTH_MAX, MemoryEndpoint } from '../../../../src/port/memory/control.ts'
import { MemoryEnginePort } from '../../../../src/port/memory/engine.ts'
import { Window } from '../../../../src/mem/window.ts'
import { MemoryRing, RING_SLOTS } from '../../../../src/port/memory/ring.ts'
import { COUNTERS_STRIDE } from '../../../../src/stats/counters.ts'
import { readCounters } from '../../../../src/stats/port-counters.ts'

const INDEX = 2
/** Positions just before they wrap, as bits. */
const BEFORE_WRAP = -5

let inward: MemoryRing
let outward: MemoryRing
let copies: CopyProgram
let counters: Float64Array
let port: MemoryEnginePort
let endpoint: MemoryEndpoint
let burst: Burst
let wakes: number

function setUp(position = 0): void {
  inward = MemoryRing.create()
  outward = MemoryRing.create()
  for (const ring of [inward, outward]) {
    ring.publish(position)
    ring.release(position)
  }
  copies = new CopyProgram()
  counters = new Float64Array(8 * COUNTERS_STRIDE)
  port = new MemoryEnginePort(INDEX, inward, outward, copies, counters)
  wakes = 0
  endpoint = new MemoryEndpoint('m', inward, outward, () => void wakes++)
  burst = new Burst()
}

beforeEach(() => setUp())

afterEach(() => {
  endpoint.close()
  copies.close()
})

function frame(length: number, fill = 0x5a): Uint8Array {
  return Uint8Array.from({ length }, (_, k) => (k < 4 ? length >> (8 * k) : fill + k) & 0xff)
}

/** All that is in the inward ring. */
function bytes(): Uint8Array {
  const view = Window.view(inward.window.id)
  const copy = new Uint8Array(view.buffer).slice()
  view.detach()
  return copy
}

/** Bytes of frame k of the burst. */
function received(k: number): Uint8Array {
  return bytes().slice(burst.offset[k], burst.offset[k] + burst.length[k])
}

/** Takes everything that came in and sends it out by the same port. */
function loop(): number {
  const count = port.receive(burst)
  const list = Int32Array.from({ length: count }, (_, k) => k)
  port.transmit(burst, list, 0, count)
  copies.run()
  port.endTurn()
  port.release()
  return count
}

describe('inwards', () => {
  test('a sent frame is one of the next burst, in place, with nothing asked of the egress', () => {
    expect(endpoint.send(frame(60))).toBe(true)
    expect(port.receive(burst)).toBe(1)
    expect(burst.count).toBe(1)
    expect(burst.window[0]).toBe(inward.window.id)
    expect(received(0)).toEqual(frame(60))
    const { gso, gsoSize, csumOffset, needs } = burst
    expect([gso[0], gsoSize[0], csumOffset[0], needs[0]]).toEqual([0, 0, 0, 0])
    const heads = new Uint8Array(burst.heads.buffer, 0, HEAD_WORDS * 4)
    expect(heads.slice()).toEqual(frame(60).slice(0, 16))
  })

  test('the bytes before a frame are a vnet_hdr of zeros, whatever the slot held', () => {
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < RING_SLOTS; n++) endpoint.send(frame(1514, 0xff))
      expect(port.receive(burst)).toBe(RING_SLOTS)
      const held = bytes()
      for (let k = 0; k < RING_SLOTS; k++) {
        expect(burst.headLength[k]).toBe(ZEROS_BEFORE)
        const header = held.slice(burst.offset[k] - 24, burst.offset[k])
        expect(header.every((byte) => byte === 0)).toBe(true)
      }
      port.release()
    }
  })

  test('a frame of an Ethernet header alone shows nothing of an older one in its first words', () => {
    for (let n = 0; n < RING_SLOTS; n++) endpoint.send(frame(60, 0xee))
    port.receive(burst)
    port.release()
    endpoint.send(frame(14))
    port.receive(burst)
    expect(burst.heads[3] >>> 16).toBe(0)
  })

  test('a frame is as it was when it was sent', () => {
    const bytes = frame(60)
    endpoint.send(bytes)
    bytes.fill(0)
    port.receive(burst)
    expect(received(0)).toEqual(frame(60))
  })

  test.each([0, 13, MEMORY_FRAME_LENGTH_MAX + 1])('a frame of %i bytes is refused', (length) => {
    let error: unknown
    try {
      endpoint.send(new Uint8Array(length))
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ConfigError)
    expect(error).toMatchObject({
      code: 'FRAME_LENGTH',
      message: `a frame has 14 to 65549 bytes, not ${length}`,
    })
    expect(port.receive(burst)).toBe(0)
  })

  test.each([14, 15, 16, MEMORY_FRAME_LENGTH_MAX])('one of %i bytes is taken whole', (length) => {
    expect(endpoint.send(frame(length))).toBe(true)
    port.receive(burst)
    expect(received(0)).toEqual(frame(length))
  })

  test('a full ring takes no more until the frames before are released', () => {
    for (let n = 0; n < RING_SLOTS; n++) expect(endpoint.send(frame(60))).toBe(true)
    expect(endpoint.send(frame(61))).toBe(false)
    expect(port.receive(burst)).toBe(RING_SLOTS)
    // Delivered, but their memory is still in use.
    expect(endpoint.send(frame(61))).toBe(false)
    port.release()
    expect(endpoint.send(frame(61))).toBe(true)
    expect(port.receive(burst)).toBe(1)
    expect(burst.length[0]).toBe(61)
  })

  test('the engine is woken for every frame that was taken, and for no other', () => {
    for (let n = 0; n < RING_SLOTS + 3; n++) endpoint.send(frame(60))
    expect(wakes).toBe(RING_SLOTS)
  })

  test('there is no wait while frames are there, and none known otherwise', () => {
    expect(port.waitUs()).toBe(-1)
    endpoint.send(frame(60))
    expect(port.waitUs()).toBe(0)
    port.receive(burst)
    expect(port.waitUs()).toBe(-1)
  })
})

describe('outwards', () => {
  test('frames come out as they went in, oldest first, once published', () => {
    endpoint.send(frame(60))
    endpoint.send(frame(1514))
    port.receive(burst)
    port.transmit(burst, Int32Array.from([9, 1, 0]), 1, 2)
    copies.run()
    expect(endpoint.receive()).toBeNull()
    port.endTurn()
    expect(endpoint.receive()).toEqual(frame(1514))
    expect(endpoint.receive()).toEqual(frame(60))
    expect(endpoint.receive()).toBeNull()
    expect(readCounters(counters, INDEX)).toMatchObject({
      tx_frames: 2,
      tx_bytes: 1574,
      tx_drop_full: 0,
    })
  })

  test('what does not fit is dropped and counted: the oldest stay', () => {
    for (let n = 0; n < 200; n++) endpoint.send(frame(100 + n))
    loop()
    for (let n = 0; n < 100; n++) endpoint.send(frame(1000 + n))
    loop()
    expect(readCounters(counters, INDEX)).toMatchObject({ tx_frames: 256, tx_drop_full: 44 })
    for (let n = 0; n < 200; n++) expect(endpoint.receive()).toEqual(frame(100 + n))
    for (let n = 0; n < 56; n++) expect(endpoint.receive()).toEqual(frame(1000 + n))
    expect(endpoint.receive()).toBeNull()
  })

  test('a received frame is a copy: the ring may go on', () => {
    endpoint.send(frame(60))
    loop()
    const first = endpoint.receive()
    for (let n = 0; n < RING_SLOTS; n++) endpoint.send(frame(60, 0))
    loop()
    expect(first).toEqual(frame(60))
  })

  test('it takes no offloads', () => {
    expect(port.txOffloads).toBe(0)
  })
})

test('positions run free: nothing happens when they wrap', () => {
  endpoint.close()
  copies.close()
  for (const position of [BEFORE_WRAP, 0x7fff_ffff - 4]) {
    setUp(position)
    for (let n = 0; n < 20; n++) {
      expect(endpoint.send(frame(60 + n))).toBe(true)
      expect(loop()).toBe(1)
      expect(endpoint.receive()).toEqual(frame(60 + n))
    }
    if (position === BEFORE_WRAP) {
      endpoint.close()
      copies.close()
    }
  }
})

test('a burst is never longer than a burst', () => {
  expect(RING_SLOTS).toBeLessThanOrEqual(BURST_SIZE_MAX)
})

describe('next', () => {
  test('resolves with the frame that is there, or that comes', async () => {
    endpoint.send(frame(60))
    loop()
    expect(await endpoint.next()).toEqual(frame(60))
    const coming = endpoint.next()
    endpoint.send(frame(70))
    loop()
    expect(await coming).toEqual(frame(70))
  })

  test('two that wait are given a frame each', async () => {
    const both = Promise.all([endpoint.next(), endpoint.next()])
    for (const length of [60, 70]) {
      endpoint.send(frame(length))
      loop()
    }
    expect((await both).map((bytes) => bytes.length).toSorted((a, b) => a - b)).toEqual([60, 70])
  })

  test('an abort rejects with its reason, before or while it waits, and takes no frame', async () => {
    const reason = new Error('enough')
    await expect(endpoint.next({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const waiting = endpoint.next({ signal: controller.signal })
    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
    endpoint.send(frame(60))
    loop()
    expect(endpoint.receive()).toEqual(frame(60))
  })

  test('a port that closes ends it, and everything else', async () => {
    const waiting = endpoint.next()
    endpoint.close()
    await expect(waiting).rejects.toMatchObject({ code: 'PORT_CLOSED' })
    expect(() => endpoint.send(frame(60))).toThrow(StateError)
    expect(() => endpoint.receive()).toThrow('port "m" is closed')
    setUp()
  })
})
