/** From one guest's transmitq into another's receiveq: cut however, the bytes are the same. */
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { OFFLOADS_ALL } from '../../src/wire/vnet-hdr.ts'
import { Burst } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import { DELIVERED, FrameSink, NO_BUFFER, TOO_LONG } from '../../src/virtio/net/frame-sink.ts'
import { FrameSource } from '../../src/virtio/net/frame-source.ts'
import { ipFrame, tunnelFrame } from '../support/ip-frames.ts'
import type { Buffer as GuestBuffer, Guest } from '../support/guest.ts'
import {
  addChain,
  GUEST_ADDRESS,
  KINDS,
  makeQueues,
  region,
  USER_ADDRESS,
} from '../support/guest.ts'

const MEMORY = 1 << 20
const BUFFERS = 1 << 17
const SIZE = 512
const GUARD = 0xa5
const HEADER_LENGTHS = [10, 12, 20, 24]

function makeLastingGuest(): Guest {
  const window = Window.map(MEMORY)
  const { buffer } = window
  return {
    window,
    memory: new GuestMemory([region(window.id, MEMORY, GUEST_ADDRESS, USER_ADDRESS)]),
    bytes: new Uint8Array(buffer),
    words: new Int32Array(buffer),
    halfWords: new Uint16Array(buffer),
  }
}

const sender = makeLastingGuest()
const receiver = makeLastingGuest()
const source = new FrameSource()
const copies = new CopyProgram()
const sink = new FrameSink(copies)
const burst = new Burst()

afterAll(() => {
  source.close()
  sink.close()
  copies.close()
  for (const guest of [sender, receiver]) {
    guest.memory.detach()
    guest.window.unmap()
  }
})

/** Puts buffers of these lengths one behind the other, with gaps. */
class Places {
  #next = BUFFERS

  take(length: number, isWritable: boolean): GuestBuffer {
    const buffer = { offset: this.#next, length, isWritable }
    this.#next += length + 3
    return buffer
  }
}

interface Sent {
  readonly body: Uint8Array
  /** flags and csum_start: what is spelt again in the receiver's header. */
  readonly hasChecksum: boolean
  readonly cuts: readonly number[]
}

const sent: fc.Arbitrary<Sent> = fc.record({
  body: fc.oneof(
    fc.uint8Array({ minLength: 14, maxLength: 100 }),
    fc.uint8Array({ minLength: 40, maxLength: 3000, size: 'max' }),
  ),
  hasChecksum: fc.boolean(),
  cuts: fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 1000 })), {
    maxLength: 20,
  }),
})

const TUNNEL_HEADER_LENGTH = 24
const GSO_SIZE = 500

/** Where the header has room for it, some bodies are the payload of TCP in VXLAN. */
function tunnelOf({ body, hasChecksum }: Sent): ReturnType<typeof tunnelFrame> | undefined {
  if (source.headerLength !== TUNNEL_HEADER_LENGTH || !hasChecksum || body.length % 2 === 0) {
    return undefined
  }
  return tunnelFrame(ipFrame({ payload: body, checksum: 'partial' }))
}

const bytesOf = (frame: Sent): Uint8Array => tunnelOf(frame)?.bytes ?? frame.body

function headerOf(length: number, frame: Sent, buffers: number): Uint8Array {
  const { body, hasChecksum } = frame
  const bytes = new Uint8Array(length)
  const tunnel = tunnelOf(frame)
  if (tunnel !== undefined) {
    const { end, l3, l4, checksumOffset, outerL4 } = tunnel
    const words = [
      1 | (0x21 << 8),
      end,
      GSO_SIZE,
      l4,
      checksumOffset,
      buffers,
      0,
      0,
      0,
      0,
      outerL4,
      l3,
    ]
    return new Uint8Array(Uint16Array.from(words).buffer)
  }
  const isSpelt = hasChecksum && body.length >= 20
  if (isSpelt) bytes.set([1, 0, 0, 0, 0, 0, 14, 0, 4, 0])
  if (length > 10) new DataView(bytes.buffer).setUint16(10, buffers, true)
  return bytes
}

/** Makes the frame available, cut into pieces. */
function send(driver: ReturnType<typeof makeQueues>['driver'], places: Places, frame: Sent): void {
  const head = headerOf(source.headerLength, frame, 0xfafa)
  const whole = Uint8Array.from([...head, ...bytesOf(frame)])
  const buffers: GuestBuffer[] = []
  let done = 0
  for (const cut of [...frame.cuts, whole.length]) {
    const length = Math.min(cut, whole.length - done)
    if (length === 0) break
    const buffer = places.take(length, false)
    sender.bytes.set(whole.subarray(done, done + length), buffer.offset)
    buffers.push(buffer)
    done += length
  }
  expect(addChain(driver, buffers)).not.toBe(-1)
}

test.each(
  KINDS.filter(({ hasEventIdx, tableEntries }) => !hasEventIdx && tableEntries === 0).flatMap(
    (kind) => [false, true].map((isMergeable) => ({ ...kind, isMergeable })),
  ),
)('$name queues, merged $isMergeable: frames arrive whole, or are dropped', (kind) => {
  const exchange = (
    frames: readonly Sent[],
    offered: readonly (readonly number[])[],
    headerLength: number,
  ): void => {
    receiver.bytes.fill(GUARD)
    source.headerLength = headerLength
    source.offloads = OFFLOADS_ALL
    sink.headerLength = headerLength
    sink.offloads = OFFLOADS_ALL
    sink.isMergeable = kind.isMergeable
    const from = makeQueues(sender, kind, SIZE)
    const to = makeQueues(receiver, kind, SIZE)
    const places = new Places()
    for (const frame of frames) send(from.driver, places, frame)
    from.driver.publish()
    // The receiver's buffers, by id of their chain, and in the order in which they are offered.
    const buffersOf: GuestBuffer[][] = []
    const ids: number[] = []
    const room = new Places()
    for (const lengths of offered) {
      const buffers = lengths.map((length) => room.take(length, true))
      const id = addChain(to.driver, buffers)
      buffersOf[id] = buffers
      ids.push(id)
    }
    to.driver.publish()

    expect(source.fill(from.device, burst)).toBe(frames.length)
    expect(burst.count).toBe(frames.length)
    const capacities = offered.map((lengths) => lengths.reduce((sum, each) => sum + each, 0))
    const expected: (readonly [frame: Sent, buffers: number])[] = []
    let next = 0
    for (const [k, frame] of frames.entries()) {
      const total = headerLength + bytesOf(frame).length
      let buffers = 0
      let capacity = 0
      while (
        capacity < total &&
        next + buffers < offered.length &&
        (kind.isMergeable || buffers < 1)
      ) {
        capacity += capacities[next + buffers++]
      }
      const isFit = capacity >= total
      const failure = kind.isMergeable || buffers === 0 ? NO_BUFFER : TOO_LONG
      const result = sink.deliver(to.device, burst, k)
      expect(result).toBe(isFit ? DELIVERED : failure)
      if (!isFit) continue
      expected.push([frame, buffers])
      next += buffers
    }
    copies.run()
    to.device.publish()
    from.device.publish()

    let at = 0
    for (const [frame, buffers] of expected) {
      const got: number[] = []
      for (let part = 0; part < buffers; part++) {
        const id = to.driver.takeUsed()
        expect(id).toBe(ids[at++])
        const all = buffersOf[id].flatMap(({ offset, length }) =>
          Array.from(receiver.bytes.slice(offset, offset + length)),
        )
        got.push(...all.slice(0, to.driver.usedLength))
        for (const { offset, length } of buffersOf[id]) {
          receiver.bytes.fill(GUARD, offset, offset + length)
        }
        // Not a byte beyond what is said to be used.
        expect(all.slice(to.driver.usedLength).every((byte) => byte === GUARD)).toBe(true)
      }
      const head = headerOf(headerLength, frame, buffers)
      expect(
        Buffer.compare(Uint8Array.from(got), Uint8Array.from([...head, ...bytesOf(frame)])),
      ).toBe(0)
    }
    expect(to.driver.takeUsed()).toBe(-1)
    expect(receiver.bytes.subarray(BUFFERS).every((byte) => byte === GUARD)).toBe(true)
    for (let k = 0; k < frames.length; k++) expect(from.driver.takeUsed()).not.toBe(-1)
    expect(from.driver.free).toBe(SIZE)
  }
  fc.assert(
    fc.property(
      fc.array(sent, { minLength: 1, maxLength: 12 }),
      fc.array(
        fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 200, max: 2000 })), {
          minLength: 1,
          maxLength: 4,
        }),
        { maxLength: 40 },
      ),
      fc.constantFrom(...HEADER_LENGTHS),
      exchange,
    ),
    { numRuns: 200 },
  )
})
