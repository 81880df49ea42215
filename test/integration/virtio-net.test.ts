/** The in-process device: a driver in this program, and ours in a thread, on real rings. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch, VirtioNetPort } from '../../src/index.ts'
import { ipFrame, payloadOf } from '../support/ip-frames.ts'
import { IO } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const bit = (number: number): bigint => 1n << BigInt(number)
const VERSION_1 = bit(32)
const RING_PACKED = bit(34)
const EVENT_IDX = bit(29)
const MRG_RXBUF = bit(15)
const CTRL = bit(17) | bit(18) | bit(19) | bit(20) | bit(23) | bit(2)
const GUEST_CSUM_TSO4 = bit(1) | bit(7)
const MQ_RSS = bit(22) | bit(60)

let sw: Switch
beforeEach(async () => {
  sw = createSwitch({ io: IO as 'auto' })
  await sw.addPort({ type: 'memory', id: 'm' })
})
afterEach(() => sw.close())

async function device(features: bigint, options: object = {}): Promise<VirtioNetPort> {
  await sw.addPort({ type: 'virtio-net', id: 'v', ...options })
  const port = sw.virtioNetPort('v')
  expect(await port.negotiate(features)).toBe(features)
  return port
}

const counter = (name: string): number =>
  (sw.port('v').counters as unknown as Record<string, number>)[name]

const command = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes)

describe.each([
  ['split', VERSION_1],
  ['split, event_idx', VERSION_1 | EVENT_IDX],
  ['packed', VERSION_1 | RING_PACKED],
  ['packed, event_idx', VERSION_1 | RING_PACKED | EVENT_IDX],
  ['split, mergeable', VERSION_1 | MRG_RXBUF],
  ['legacy', 0n],
])('%s', (_name, features) => {
  test('frames of all lengths pass both ways, in order, for several laps of the rings', async () => {
    const port = await device(features)
    expect(sw.port('v')).toMatchObject({ state: 'connected', queues: 1 })
    const memory = sw.memoryPort('m')
    const headerLength = features === 0n ? 10 : 12
    for (let n = 0; n < 1000; n++) {
      const length = n % 100 === 99 ? 9000 : 60 + n
      const out = memory.next()
      expect(port.send(frame(255, 1, n, length))).toBe(true)
      expect(await out).toEqual(frame(255, 1, n, length))
      const back = port.next()
      memory.send(frame(1, 2, n, length))
      const received = await back
      expect(received.frame).toEqual(frame(1, 2, n, length))
      expect(received.header).toHaveLength(headerLength)
    }
  })
})

test('before it is negotiated and after a reset there is nobody', async () => {
  await sw.addPort({ type: 'virtio-net', id: 'v' })
  const port = sw.virtioNetPort('v')
  expect(sw.port('v').state).toBe('disconnected')
  expect(() => port.send(frame(255, 1, 1))).toThrow('has not been negotiated')
  await port.negotiate(VERSION_1)
  expect(sw.port('v').state).toBe('connected')
  await port.reset()
  expect(sw.port('v').state).toBe('disconnected')
  expect(() => port.receive()).toThrow('has not been negotiated')
  expect(await port.negotiate(VERSION_1 | bit(7) | bit(63))).toBe(VERSION_1)
  sw.memoryPort('m').send(frame(255, 2, 5))
  expect((await port.next()).frame).toEqual(frame(255, 2, 5))
  await expect(port.next({ signal: AbortSignal.timeout(20) })).rejects.toThrow()
  expect(() => sw.virtioNetPort('m')).toThrow('not a virtio-net port')
})

test('the driver’s filter decides what it is given', async () => {
  const port = await device(VERSION_1 | CTRL)
  const memory = sw.memoryPort('m')
  const own = port.config.mac
  const to = (mac: ArrayLike<number>): Uint8Array => {
    const bytes = frame(1, 2, 3)
    bytes.set(mac)
    return bytes
  }
  const stranger = [0x02, 0, 0, 0, 9, 9]
  memory.send(to(stranger))
  expect((await port.next()).frame).toEqual(to(stranger))
  expect(await port.control(command(0, 0, 0))).toBe(0)
  memory.send(to(stranger))
  memory.send(to(own))
  expect((await port.next()).frame).toEqual(to(own))
  expect(counter('tx_drop_filter')).toBe(1)
  // Broadcast until NOBCAST, multicast after ALLMULTI.
  expect(await port.control(command(0, 5, 1))).toBe(0)
  expect(await port.control(command(0, 1, 1))).toBe(0)
  memory.send(to([255, 255, 255, 255, 255, 255]))
  memory.send(to([1, 0, 0x5e, 0, 0, 1]))
  expect((await port.next()).frame).toEqual(to([1, 0, 0x5e, 0, 0, 1]))
  // Another address.
  expect(await port.control(command(1, 1, ...stranger))).toBe(0)
  expect(port.config.mac).toEqual(Uint8Array.from(stranger))
  memory.send(to(own))
  memory.send(to(stranger))
  expect((await port.next()).frame).toEqual(to(stranger))
  // Wrong ones are answered, and one without a header needs a reset.
  expect(await port.control(command(9, 9))).toBe(1)
  expect(await port.control(command(1, 1, 2))).toBe(1)
  await expect(port.control(command(0))).rejects.toThrow('needs a reset')
})

test('a flow stays in one queue, and RSS says which', async () => {
  const port = await device(VERSION_1 | CTRL | MQ_RSS, { queues: 4 })
  const memory = sw.memoryPort('m')
  const udp = (source: number, n: number): Uint8Array => {
    const bytes = frame(1, 2, n)
    bytes.set([0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0], 12)
    bytes.set([10, 0, 0, 1, 10, 0, 0, 2, source >> 8, source & 255, 0, 53], 26)
    return bytes
  }
  const queuesOf = async (flows: number): Promise<number[][]> => {
    const seen: number[][] = Array.from({ length: flows }, () => [])
    for (let n = 0; n < 8; n++) {
      for (let flow = 0; flow < flows; flow++) {
        memory.send(udp(1000 + flow, n))
        const { queue } = await port.next()
        if (!seen[flow].includes(queue)) seen[flow].push(queue)
      }
    }
    return seen
  }
  expect((await queuesOf(2)).flat()).toEqual([0, 0])
  expect(() => port.send(frame(255, 1, 1), { queue: 1 })).toThrow('queue 1 of 1 in use')
  expect(await port.control(command(4, 0, 5, 0))).toBe(1)
  expect(await port.control(command(4, 0, 4, 0))).toBe(0)
  const spread = await queuesOf(24)
  expect(spread.every((queues) => queues.length === 1)).toBe(true)
  expect(new Set(spread.flat()).size).toBeGreaterThan(2)
  expect(port.send(frame(255, 1, 7), { queue: 3 })).toBe(true)
  expect(await memory.next()).toEqual(frame(255, 1, 7))
  // UDP over IPv4 hashed, all of it to queue 2; the rest to queue 1.
  const key = Array.from({ length: 40 }, (_, at) => at)
  const rss = [4, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0, 4, 0, 40, ...key]
  expect(await port.control(command(...rss))).toBe(0)
  expect((await queuesOf(8)).flat()).toEqual(Array.from({ length: 8 }, () => 2))
  memory.send(frame(1, 2, 9))
  expect((await port.next()).queue).toBe(1)
})

test('offloads pass between two drivers as each of them negotiated', async () => {
  await sw.removePort('m')
  const port = await device(VERSION_1 | CTRL | GUEST_CSUM_TSO4)
  await sw.addPort({ type: 'virtio-net', id: 'w' })
  const other = sw.virtioNetPort('w')
  await until('its frames may be GSO', () => (other.offered & bit(11)) !== 0n)
  const accepted = await other.negotiate(VERSION_1 | bit(0) | bit(11))
  expect(accepted).toBe(VERSION_1 | bit(0) | bit(11))
  const { bytes } = ipFrame({ payload: payloadOf(3946), checksum: 'partial' })
  const header = Uint8Array.of(1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0)
  expect(other.send(bytes, { header })).toBe(true)
  const received = await port.next()
  expect(received.frame).toEqual(bytes)
  expect([...received.header]).toEqual([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0])
  // Without TSO4 it is given segments.
  expect(await port.control(command(5, 0, 2, 0, 0, 0, 0, 0, 0, 0))).toBe(0)
  other.send(bytes, { header })
  await until('it is segmented', () => counter('tx_segmented') === 1)
  const lengths = [await port.next(), await port.next(), await port.next()].map(
    (segment) => segment.frame.length,
  )
  expect(lengths).toEqual([1514, 1514, 1080])
})

test('a saved device goes on as another one', async () => {
  const port = await device(VERSION_1 | CTRL | MQ_RSS, { queues: 2 })
  await port.control(command(0, 0, 0))
  await port.control(command(4, 0, 2, 0))
  const saved = JSON.parse(JSON.stringify(port.saveState())) as unknown
  await sw.removePort('v')
  await sw.addPort({ type: 'virtio-net', id: 'v', queues: 2 })
  const next = sw.virtioNetPort('v')
  await expect(next.loadState({ ...(saved as object), version: 2 })).rejects.toMatchObject({
    code: 'DEVICE_STATE',
  })
  expect(next.features).toBe(0n)
  await next.loadState(saved)
  expect(next.features).toBe(VERSION_1 | CTRL | MQ_RSS)
  expect(next.config.mac).toEqual(port.config.mac)
  sw.memoryPort('m').send(frame(7, 2, 1))
  const forIt = frame(7, 2, 2)
  forIt.set(next.config.mac)
  sw.memoryPort('m').send(forIt)
  expect((await next.next()).frame).toEqual(forIt)
  expect(next.send(frame(255, 1, 7), { queue: 1 })).toBe(true)
})

test('echo sends frames back, sink takes them, generate makes them', async () => {
  const memory = sw.memoryPort('m')
  await sw.addPort({ type: 'virtio-net', id: 'v', driver: 'echo', queues: 2 })
  await until('the driver runs', () => sw.port('v').state === 'connected')
  expect(() => sw.virtioNetPort('v').send(frame(255, 1, 1))).toThrow('has a driver: echo')
  for (let n = 0; n < 600; n++) {
    const sent = frame(9, 2, n, 60 + n)
    memory.send(sent)
    const back = await memory.next()
    expect([back.slice(0, 6), back.slice(6, 12)]).toEqual([sent.slice(6, 12), sent.slice(0, 6)])
    expect(back.slice(12)).toEqual(sent.slice(12))
  }
  await sw.removePort('v')
  await sw.addPort({ type: 'virtio-net', id: 'v', driver: 'sink' })
  await until('the driver runs', () => sw.port('v').state === 'connected')
  for (let n = 0; n < 600; n++) {
    memory.send(frame(9, 2, n))
    await until('it is taken', () => counter('tx_frames') === n + 1)
  }
  expect(counter('tx_drop_full')).toBe(0)
  await sw.removePort('v')
  await sw.addPort({ type: 'virtio-net', id: 'v', driver: 'generate' })
  await until('many frames have come', () => counter('rx_frames') > 100_000)
  expect((await memory.next()).slice(12, 14)).toEqual(Uint8Array.of(0x88, 0xb5))
})
