/** vhost-user ports that another switch goes on with: guests keep their connection, and no frame is lost or doubled. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  featureMask,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
} from '../../src/abi/virtio-features.ts'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import { F_MRG_RXBUF, F_PROTOCOL, F_VERSION_1, FrontEnd, u32s, u64 } from '../support/front-end.ts'
import { moveSwitch, numbers, received } from '../support/hand-over.ts'
import { IO, Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'
import { VhostGuest } from '../support/vhost-guest.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const SPLIT = featureMask(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF)
const PACKED = SPLIT | featureMask(VIRTIO_F_RING_PACKED)
const EVENT_IDX = featureMask(VIRTIO_RING_F_EVENT_IDX)
const NUMBER_AT = 14
/** Frames on their way: fewer than a queue has room for. */
const WINDOW = 100
/** Every third is taken back. */
const MOVES = 12

let directory: string
let sw: Switch
const made: Switch[] = []
const guests: { close(): void }[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-hand-over-'))
  sw = make()
})

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close()
  for (const one of made.splice(0)) await one.close()
  rmSync(directory, { recursive: true })
})

function make(incoming = false): Switch {
  const one = createSwitch({ io: IO as 'auto', stateDirectory: directory, incoming })
  made.push(one)
  return one
}

const pathOf = (id: string): string => join(directory, `${id}.sock`)

async function addGuestPort(id: string, queues = 1): Promise<void> {
  await sw.addPort({ type: 'vhost-user', id, path: pathOf(id), queues })
}

function connect(id: string): FrontEnd {
  const guest = FrontEnd.connect(pathOf(id))
  guests.push(guest)
  return guest
}

async function move(): Promise<void> {
  const next = make(true)
  await moveSwitch(sw, next)
  sw = next
}

async function takeBack(): Promise<void> {
  await sw.handOver()
  await sw.takeBack()
}

/** Two guests that send numbered frames to each other, as many as they can. */
class Exchange {
  readonly #ends: readonly [VhostGuest, VhostGuest]
  readonly sent = [0, 0]
  readonly got: number[][] = [[], []]
  /** No more are sent. */
  isEnding = false

  constructor(ends: readonly [VhostGuest, VhostGuest]) {
    this.#ends = ends
  }

  get isOver(): boolean {
    return this.isEnding && this.got.every(({ length }, k) => length >= this.sent[1 - k])
  }

  turn(): void {
    for (const [from, end] of this.#ends.entries()) {
      const to = 1 - from
      while (
        !this.isEnding &&
        this.sent[from] - this.got[to].length < WINDOW &&
        end.send(frame(to + 1, from + 1, this.sent[from]))
      ) {
        this.sent[from]++
      }
      for (let one = end.take(); one !== null; one = end.take()) {
        this.got[from].push(new DataView(one.buffer).getUint32(NUMBER_AT))
      }
      end.flush()
    }
  }
}

test.each([
  ['split', SPLIT, SPLIT],
  ['split with event_idx, and packed', SPLIT | EVENT_IDX, PACKED],
  ['packed with event_idx, and split', PACKED | EVENT_IDX, SPLIT],
])('H5, H14, H16: %s: frames of two guests are there once and in order', async (_what, a, b) => {
  await addGuestPort('a')
  await addGuestPort('b')
  const none = new Uint8Array(0)
  const ends = [
    await VhostGuest.start(pathOf('a'), a, none),
    await VhostGuest.start(pathOf('b'), b, none),
  ] as const
  guests.push(...ends)
  await until('both run', () => sw.ports().every(({ state }) => state === 'connected'))
  // Both addresses are known before the first numbered frame.
  for (const [k, end] of ends.entries()) {
    end.send(frame(255, k + 1, 0))
    end.flush()
    await until('it was flooded', () => ends[1 - k].take() !== null)
  }
  const exchange = new Exchange(ends)
  let moves = 0
  let moving: Promise<void> | undefined
  await until(
    'all has come',
    async () => {
      for (let turns = 0; turns < 50; turns++) {
        exchange.turn()
        await new Promise((resolve) => setImmediate(resolve))
      }
      if (moves < MOVES) {
        moving ??= (moves++ % 3 === 0 ? takeBack() : move()).finally(() => (moving = undefined))
      } else exchange.isEnding = moving === undefined
      return exchange.isOver
    },
    60_000,
  )
  for (const [k, { counters, state }] of sw.ports().entries()) {
    const count = exchange.sent[1 - k]
    expect(count).toBeGreaterThan(MOVES * WINDOW)
    expect(exchange.got[k]).toEqual(numbers(0, count))
    expect(state).toBe('connected')
    expect(counters).toMatchObject({ tx_frames: count + 1, tx_drop_full: 0 })
  }
})

test('H14: after the pause nothing of a guest is written or read, before or after it is taken over', async () => {
  await addGuestPort('a')
  await sw.addPort({ type: 'memory', id: 'm' })
  const guest = connect('a')
  await guest.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  guest.post(16)
  await until('it runs', () => sw.port('a').state === 'connected')
  const handed = received(await sw.handOver(['m']))
  const before = new Uint8Array(guest.memory.buffer).slice(0, 0x8000)
  const next = make(true)
  await next.takeOver(handed)
  // The driver goes on meanwhile: what it has put there waits.
  guest.transmit(frame(255, 1, 1))
  const rings = new Uint8Array(guest.memory.buffer).slice(0, 0x8000)
  await new Promise((resolve) => setTimeout(resolve, 100))
  const after = new Uint8Array(guest.memory.buffer).slice(0, 0x8000)
  expect(after).toEqual(rings)
  // Used rings of both queues.
  for (const at of [0x2000, 0x6000]) {
    expect(after.slice(at, at + 0x1000)).toEqual(before.slice(at, at + 0x1000))
  }
  await next.resume()
  await sw.handedOver()
  sw = next
  await until('the frame was taken', () => guest.usedIndex(1) === 1)
  await until('it came', () => sw.port('a').counters.rx_frames === 1)
})

test('H14: a message in the making, with its descriptor, is completed elsewhere; replies go on', async () => {
  await addGuestPort('a')
  await sw.addPort({ type: 'memory', id: 'm' })
  const guest = connect('a')
  await guest.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  guest.post(16)
  const call = shim.eventfd(0, 0o2004000)
  const message = Buffer.concat([u32s(13, 1, 8), u64(0n)])
  guest.sendBytes(message.subarray(0, 5), [call])
  await until('it runs', () => sw.port('a').state === 'connected')
  const next = make(true)
  await moveSwitch(sw, next, ['m'])
  sw = next
  guest.sendBytes(message.subarray(5))
  await guest.barrier()
  sw.memoryPort('m').send(frame(255, 9, 7))
  expect((await guest.receive()).frame).toEqual(frame(255, 9, 7))
  await until('the new call was signalled', () => shim.eventfdRead(call) > 0)
  shim.close(call)
  expect(await guest.stopQueue(0)).toBe(1)
  expect(await guest.stopQueue(1)).toBe(0)
})

test('H14b: a front-end that waits goes on waiting, and takes over when the first one stops', async () => {
  await addGuestPort('a')
  await sw.addPort({ type: 'memory', id: 'm' })
  const [first, second] = [connect('a'), connect('a')]
  await first.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  await until('it runs', () => sw.port('a').state === 'connected')
  await second.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  first.post(8)
  second.post(8)
  const next = make(true)
  await moveSwitch(sw, next, ['m'])
  sw = next
  sw.memoryPort('m').send(frame(255, 9, 1))
  expect((await first.receive()).frame).toEqual(frame(255, 9, 1))
  for (const queue of [0, 1]) await first.stopQueue(queue)
  await second.barrier()
  await until('the second one has the port', () => sw.port('a').state === 'connected')
  sw.memoryPort('m').send(frame(255, 9, 2))
  expect((await second.receive()).frame).toEqual(frame(255, 9, 2))
})

test('the socket goes on: others connect to whoever has it, who removes its file', async () => {
  await addGuestPort('a')
  await sw.handOver()
  const early = connect('a')
  await sw.takeBack()
  await early.start(F_VERSION_1 | F_PROTOCOL)
  await move()
  expect(existsSync(pathOf('a'))).toBe(true)
  early.close()
  guests.splice(guests.indexOf(early), 1)
  await until('it is gone', () => sw.port('a').state === 'disconnected')
  const late = connect('a')
  await late.start(F_VERSION_1 | F_PROTOCOL)
  await until('it runs', () => sw.port('a').state === 'connected')
  await sw.close()
  expect(existsSync(pathOf('a'))).toBe(false)
})

test('H14: a port that connects (server=off) keeps its connection, and whoever has it connects again', async () => {
  const listener = shim.socketUnix(1)
  expect(shim.bindUnix(listener, pathOf('a'))).toBe(0)
  expect(shim.listen(listener, 1)).toBe(0)
  await sw.addPort({ type: 'vhost-user', id: 'a', path: pathOf('a'), server: false })
  let sent = 0
  const accept = async (): Promise<FrontEnd> => {
    let fd = -1
    await until('it connects', () => (fd = shim.accept(listener)) >= 0)
    const guest = new FrontEnd(fd)
    guests.push(guest)
    await guest.start()
    return guest
  }
  const expectPassing = async (guest: FrontEnd): Promise<void> => {
    guest.transmit(frame(255, 1, ++sent))
    await until('its frame has come', () => sw.port('a').counters.rx_frames === sent)
  }
  const hangUp = async (guest: FrontEnd): Promise<void> => {
    guest.close()
    guests.splice(guests.indexOf(guest), 1)
    await until('it is gone', () => sw.port('a').state === 'disconnected')
  }
  const first = await accept()
  await expectPassing(first)
  await move()
  await expectPassing(first)
  await takeBack()
  await expectPassing(first)
  await hangUp(first)
  const second = await accept()
  await expectPassing(second)
  await hangUp(second)
  // While there is nobody at the other end.
  await move()
  await expectPassing(await accept())
  // The file of the socket is its front-end's.
  await sw.close()
  expect(existsSync(pathOf('a'))).toBe(true)
  shim.close(listener)
})

test('H9, H11: memory that cannot be mapped is refused by name, nothing stays, and the source goes on', async () => {
  await addGuestPort('a')
  await addGuestPort('b')
  await sw.addPort({ type: 'memory', id: 'm' })
  const all = [connect('a'), connect('b')]
  for (const guest of all) {
    await guest.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
    guest.post(8)
  }
  await until('they run', () =>
    sw
      .ports()
      .slice(0, 2)
      .every(({ state }) => state === 'connected'),
  )
  const handed = received(await sw.handOver(['m']))
  const [a, b] = handed.ports
  const state = JSON.parse(JSON.stringify(b.state)) as {
    connections: { device: { regions: { size: number }[] } }[]
  }
  state.connections[0].device.regions[0].size *= 1024
  const next = make(true)
  const wrong = { ...handed, ports: [a, { ...b, state: state as never }, handed.ports[2]] }
  await expect(next.takeOver(wrong)).rejects.toMatchObject({
    code: 'HAND_OVER',
    port: 'b',
    message: expect.stringContaining('cannot be mapped') as string,
  })
  expect(next.ports()).toEqual([])
  await sw.takeBack()
  for (const [k, guest] of all.entries()) {
    sw.memoryPort('m').send(frame(255, 9, k))
    expect((await guest.receive()).frame).toEqual(frame(255, 9, k))
    if (k === 0) await all[1].receive()
  }
})

test('H8: queues of a TAP that its guest does not use are handed over detached, and stay so', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  await sw.addPort({ type: 'tap', id: 't', ifname: 'x0', netns, queues: 2, up: true })
  await addGuestPort('a', 2)
  await sw.addLink('t', 'a')
  const guest = connect('a')
  await guest.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  guest.post(8)
  await until('one is detached', () => sw.port('t').queuesAttached === 1)
  const offloads = sw.port('t').offloads
  await takeBack()
  await move()
  expect(sw.port('t')).toMatchObject({ queues: 2, queuesAttached: 1, offloads, peer: 'a' })
  await move()
  lab.address(netns, '10.0.0.1')
  guest.transmit(frame(255, 1, 3))
  await until('it left', () => sw.port('t').counters.tx_frames === 1)
})
