/** vhost-user ports against a front-end that is spoken by hand: what real guests do, and do not. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import {
  F_LOG_ALL,
  F_MRG_RXBUF,
  F_PROTOCOL,
  F_VERSION_1,
  FrontEnd,
  GUEST_BASE,
  MEMORY_LENGTH,
  RING_SIZE,
  u32s,
  u64,
  u64s,
  USER_BASE,
} from '../support/front-end.ts'
import { IO } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

let directory: string
let path: string
let sw: Switch
const log: string[] = []
const open: FrontEnd[] = []

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-vhost-'))
  path = join(directory, 'guest.sock')
  log.length = 0
  sw = createSwitch({ io: IO as 'auto', stateDirectory: directory, log: (text) => log.push(text) })
  await sw.addPort({ type: 'memory', id: 'm' })
})

afterEach(async () => {
  for (const guest of open.splice(0)) guest.close()
  await sw.close()
  rmSync(directory, { recursive: true })
})

function connect(): FrontEnd {
  const guest = FrontEnd.connect(path)
  open.push(guest)
  return guest
}

/** Ends a front-end as a killed process does. */
function kill(guest: FrontEnd): void {
  open.splice(open.indexOf(guest), 1)
  guest.close()
}

async function addGuestPort(options: object = {}): Promise<void> {
  await sw.addPort({ type: 'vhost-user', id: 'g', path, ...options })
}

const stateIs = (state: string): Promise<void> =>
  until(`the port is ${state}`, () => sw.port('g').state === state)

/** Its port takes the next guest as if nothing had been. */
async function expectReplaced(guest: FrontEnd): Promise<void> {
  kill(guest)
  await stateIs('disconnected')
  const next = connect()
  await next.start()
  next.transmit(frame(255, 1, 5))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 5))
}

const counter = (name: string): number =>
  (sw.port('g').counters as unknown as Record<string, number>)[name]

const guestMaps = (): number =>
  readFileSync('/proc/self/maps', 'utf8').split('framepump-test-guest').length - 1

test('frames pass between a guest and the switch, and the states tell who is there', async () => {
  await addGuestPort()
  expect(sw.port('g')).toMatchObject({ state: 'disconnected', path, queues: 1 })
  const guest = connect()
  await guest.start()
  await stateIs('connected')
  guest.transmit(frame(255, 1, 7))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 7))
  await until('the buffer is used', () => guest.usedIndex(1) === 1)
  expect(guest.usedElement(1, 0)).toEqual({ id: 0, length: 0 })
  guest.post(2)
  sw.memoryPort('m').send(frame(1, 2, 8))
  const received = await guest.receive()
  expect(received.frame).toEqual(frame(1, 2, 8))
  expect([...received.header]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
  expect(sw.port('g').counters).toMatchObject({ rx_frames: 1, tx_frames: 1, tx_bytes: 60 })
  kill(guest)
  await stateIs('disconnected')
  sw.memoryPort('m').send(frame(1, 2, 9))
  await until('the frame is dropped', () => counter('tx_drop_link_down') > 0)
})

test('the handshake is as the front-ends want it', async () => {
  await addGuestPort({ queues: 4 })
  const guest = connect()
  const offered = await guest.negotiate()
  for (const bit of [3, 15, 21, 22, 26, 27, 28, 29, 30, 32, 35]) {
    expect((offered >> BigInt(bit)) & 1n, `feature ${bit}`).toBe(1n)
  }
  const protocol = await guest.askU64(15)
  expect(protocol).toBe(0b1_1000_0000_0001_1111n)
  expect(await guest.askU64(17)).toBe(4n)
  expect(await guest.askU64(36)).toBe(509n)
  // With need_reply every message is answered, and one with a reply of its own once.
  expect(await guest.askU64(18, u32s(7, 1), [], 9)).toBe(0n)
  expect(await guest.askU64(1, u32s(), [], 9)).toBe(offered)
  expect(await guest.askU64(39, u64(5n), [], 9)).toBe(0n)
  expect(await guest.askU64(40)).toBe(5n)
  // What is unknown is refused, and the connection lives.
  expect(await guest.askU64(99, u32s(), [], 9)).toBe(1n)
  expect(await guest.askU64(20, u64(1500n), [], 9)).toBe(0n)
  await guest.barrier()
})

test('a queue stops and starts again where it was', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  guest.post(8)
  for (let n = 0; n < 5; n++) {
    guest.transmit(frame(255, 1, n))
    expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, n))
    sw.memoryPort('m').send(frame(1, 2, n))
    expect((await guest.receive()).frame).toEqual(frame(1, 2, n))
  }
  expect(await guest.stopQueue(0)).toBe(5)
  expect(await guest.stopQueue(1)).toBe(5)
  await stateIs('disconnected')
  guest.transmit(frame(255, 1, 77))
  sw.memoryPort('m').send(frame(1, 2, 78))
  await until('the frame is dropped', () => counter('tx_drop_link_down') > 0)
  expect(guest.usedIndex(0)).toBe(5)
  expect(guest.usedIndex(1)).toBe(5)
  for (const queue of [0, 1]) guest.startQueue(queue, 5)
  await guest.barrier()
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 77))
  sw.memoryPort('m').send(frame(1, 2, 79))
  expect((await guest.receive()).frame).toEqual(frame(1, 2, 79))
})

test('a disabled transmitq is read and dropped, a disabled receiveq is given nothing', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  for (const queue of [0, 1]) guest.send(18, u32s(queue, 0))
  await guest.barrier()
  guest.post(1)
  guest.transmit(frame(255, 1, 1))
  await until('the frame is read', () => guest.usedIndex(1) === 1)
  sw.memoryPort('m').send(frame(1, 2, 2))
  await until('the frame is dropped', () => counter('tx_drop_link_down') === 1)
  expect(counter('rx_drop_link_down')).toBe(1)
  expect([counter('rx_frames'), counter('rx_bytes')]).toEqual([1, 60])
  expect(sw.memoryPort('m').receive()).toBeNull()
  expect(guest.usedIndex(0)).toBe(0)
})

test('without protocol features a ring is enabled by its start', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.askU64(1)
  guest.send(2, u64(F_VERSION_1))
  guest.send(5, guest.memoryTable(), [guest.memfd])
  for (const queue of [0, 1]) guest.startQueue(queue)
  await guest.barrier()
  guest.transmit(frame(255, 1, 1))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 1))
})

test('a frame longer than a buffer is merged when the guest takes that, else dropped', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  guest.post(4)
  const long = frame(1, 2, 3, 5000)
  sw.memoryPort('m').send(long)
  await until('three buffers are used', () => guest.usedIndex(0) === 3)
  const parts = [await guest.receive(), await guest.receive(), await guest.receive()]
  expect(parts[0].header[10]).toBe(3)
  const bytes = Buffer.concat([
    parts[0].frame,
    ...parts.slice(1).flatMap((part) => [part.header, part.frame]),
  ])
  expect(new Uint8Array(bytes)).toEqual(long)
  kill(guest)
  await stateIs('disconnected')
  const plain = connect()
  await plain.start()
  plain.post(1)
  sw.memoryPort('m').send(long)
  await until('it is dropped', () => counter('tx_drop_buffer') === 1)
  sw.memoryPort('m').send(frame(1, 2, 4))
  expect((await plain.receive()).frame).toEqual(frame(1, 2, 4))
})

test('a gone guest leaves no memory mapped and no descriptor open', async () => {
  await addGuestPort()
  const first = connect()
  await first.start()
  kill(first)
  await stateIs('disconnected')
  const fds = readdirSync('/proc/self/fd').length
  const maps = guestMaps()
  for (let round = 0; round < 20; round++) {
    const guest = connect()
    await guest.start()
    await stateIs('connected')
    kill(guest)
    await stateIs('disconnected')
  }
  await until('descriptors are closed', () => readdirSync('/proc/self/fd').length <= fds)
  await until('the memory is unmapped', () => guestMaps() === maps)
  expect(maps).toBe(0)
})

test('memory regions come and go one by one', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.negotiate()
  const region = u64s(0, GUEST_BASE, MEMORY_LENGTH, USER_BASE, 0)
  const empty = u64s(0, 0x4000_0000, MEMORY_LENGTH, USER_BASE + 0x4000_0000, 0)
  for (const queue of [0, 1]) guest.startQueue(queue)
  expect(await guest.askU64(37, empty, [guest.memfd], 9)).toBe(0n)
  expect(sw.port('g').state).toBe('disconnected')
  expect(await guest.askU64(37, region, [guest.memfd], 9)).toBe(0n)
  for (const queue of [0, 1]) guest.send(18, u32s(queue, 1))
  await guest.barrier()
  expect(await guest.askU64(38, empty, [], 9)).toBe(0n)
  expect(await guest.askU64(38, empty, [], 9)).toBe(1n)
  guest.transmit(frame(255, 1, 1))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 1))
  // The region of the rings goes and comes back: they stand still meanwhile.
  expect(await guest.askU64(38, region, [guest.memfd], 9)).toBe(0n)
  guest.transmit(frame(255, 1, 2))
  expect(await guest.askU64(37, region, [guest.memfd], 9)).toBe(0n)
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 2))
})

/** A front-end that has the port, and one that waits, with a frame sent. */
async function startTwo(): Promise<[ReturnType<typeof connect>, ReturnType<typeof connect>]> {
  await addGuestPort()
  const first = connect()
  await first.start()
  const second = connect()
  await second.start()
  second.transmit(frame(255, 3, 1))
  return [first, second]
}

test('a second front-end waits until the first one stops, and takes over', async () => {
  const [first, second] = await startTwo()
  first.transmit(frame(255, 1, 2))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, 2))
  expect(second.usedIndex(1)).toBe(0)
  await first.stopQueue(0)
  await first.stopQueue(1)
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 3, 1))
  kill(first)
  second.transmit(frame(255, 3, 4))
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 3, 4))
  await stateIs('connected')
})

test('the front-end that waits does not answer for the broken queue of the one before it', async () => {
  const [first, second] = await startTwo()
  const states: string[] = []
  sw.events.on('port-changed', ({ state }) => states.push(state))
  first.descriptor(1, 0, 0x7fff_0000_0000, 100, 0)
  first.offer(1, 0)
  await until('the queue is broken', () => sw.port('g').state === 'failed')
  kill(first)
  // What it had sent by then passes as well.
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 3, 1))
  await until('it is connected', () => sw.port('g').state === 'connected')
  expect(sw.port('g').error).toBeUndefined()
  expect(states).toEqual(['failed', 'disconnected', 'connected'])
  // It answers for its own.
  second.descriptor(1, 1, 0x7fff_0000_0000, 100, 0)
  second.offer(1, 1)
  await until('its queue is broken', () => sw.port('g').state === 'failed')
})

test('the front-end that waits stays when the one before it takes its memory away', async () => {
  const [first] = await startTwo()
  shim.ftruncate(first.memfd, 0)
  shim.eventfdWrite(first.kicks[1])
  await first.hungUp()
  expect(await sw.memoryPort('m').next()).toEqual(frame(255, 3, 1))
  await until('it is connected', () => sw.port('g').state === 'connected')
})

test('every page that is written is in the dirty log, while it is on', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  guest.post(3)
  const logLength = 4096
  const logFd = shim.memfdCreate('framepump-test-log', 1)
  shim.ftruncate(logFd, logLength)
  expect(await guest.askU64(6, u64s(logLength, 0), [logFd])).toBe(0n)
  const features = F_VERSION_1 | F_PROTOCOL
  expect(await guest.askU64(2, u64(features | F_LOG_ALL), [], 9)).toBe(0n)
  for (const queue of [0, 1]) {
    const usedGuestAddress = GUEST_BASE + queue * 0x4000 + 0x2000
    guest.send(9, guest.ringAddress(queue, 1, usedGuestAddress))
  }
  await guest.barrier()
  const dirty = (): number[] => {
    const bytes = readFileSync(`/proc/self/fd/${logFd}`)
    return [...bytes].flatMap((byte, at) =>
      [0, 1, 2, 3, 4, 5, 6, 7]
        .filter((bit) => ((byte >> bit) & 1) === 1)
        .map((bit) => at * 8 + bit),
    )
  }
  sw.memoryPort('m').send(frame(1, 2, 3))
  await guest.receive()
  const page = (offset: number): number => (GUEST_BASE + offset) / 4096
  await until('the page of the buffer is dirty', () =>
    dirty().includes(Math.floor(page(guest.bufferOffset(0, 0)))),
  )
  await until('the page of the used ring is dirty', () => dirty().includes(page(0x2000)))
  guest.transmit(frame(255, 1, 4))
  await sw.memoryPort('m').next()
  await until('the used ring is dirty', () => dirty().includes(page(0x6000)))
  const allowed = [page(0x2000), page(0x6000), Math.floor(page(guest.bufferOffset(0, 0)))]
  expect(dirty().filter((dirtyPage) => !allowed.includes(dirtyPage))).toEqual([])
  // Off again: nothing more is logged.
  expect(await guest.askU64(2, u64(features), [], 9)).toBe(0n)
  const before = dirty()
  for (let n = 0; n < 2; n++) {
    sw.memoryPort('m').send(frame(1, 2, n))
    await guest.receive()
  }
  await guest.barrier()
  expect(dirty()).toEqual(before)
  shim.close(logFd)
})

test('SEND_RARP tells the other ports where the guest is', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  guest.send(19, Uint8Array.of(2, 0, 0, 0, 0, 9, 0, 0))
  const rarp = await sw.memoryPort('m').next()
  expect(rarp).toHaveLength(60)
  expect(Array.from(rarp.slice(0, 14))).toEqual([
    255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x80, 0x35,
  ])
  expect(rarp[21]).toBe(3)
  expect(await sw.macTable()).toMatchObject([{ mac: '02:00:00:00:00:09', port: 'g' }])
})

test('a driver that breaks its queue fails its port, which comes back with a new start', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  const err = shim.eventfd(0, 0o2004000)
  guest.send(14, u64(1n), [err])
  await guest.barrier()
  guest.setAvailIndex(1, RING_SIZE + 1)
  shim.eventfdWrite(guest.kicks[1])
  await stateIs('failed')
  expect(sw.port('g').error).toContain('queue 1 is broken: more chains made available')
  await until('the front-end is told', () => shim.eventfdRead(err) > 0)
  shim.close(err)
  // Neither does another memory table repair it.
  guest.send(5, guest.memoryTable(), [guest.memfd])
  await guest.barrier()
  guest.setAvailIndex(1, 1)
  shim.eventfdWrite(guest.kicks[1])
  await guest.barrier()
  expect(sw.port('g').state).toBe('failed')
  expect(guest.usedIndex(1)).toBe(0)
  sw.memoryPort('m').send(frame(1, 2, 3))
  await until('frames for it are dropped', () => counter('tx_drop_link_down') === 1)
  await expectReplaced(guest)
})

test('memory that is truncated under us fails that port and nothing else', async () => {
  await addGuestPort()
  const guest = connect()
  await guest.start()
  guest.post(4)
  shim.ftruncate(guest.memfd, 0)
  sw.memoryPort('m').send(frame(255, 2, 3))
  await guest.hungUp()
  await until('the port is not connected', () => sw.port('g').state !== 'connected')
  await expectReplaced(guest)
})

test('a port that connects finds its front-end whenever it comes, and again', async () => {
  const listener = shim.socketUnix(1)
  await addGuestPort({ server: false })
  expect(shim.bindUnix(listener, path)).toBe(0)
  expect(shim.listen(listener, 1)).toBe(0)
  for (let round = 0; round < 2; round++) {
    let fd = -1
    await until('it connects', () => (fd = shim.accept(listener)) >= 0)
    const guest = new FrontEnd(fd)
    open.push(guest)
    await guest.start()
    guest.transmit(frame(255, 1, round))
    expect(await sw.memoryPort('m').next()).toEqual(frame(255, 1, round))
    kill(guest)
    await stateIs('disconnected')
  }
  shim.close(listener)
})

test('what a guest acknowledged is offered again after a restart, or the port says why not', async () => {
  await addGuestPort({ queues: 2 })
  const guest = connect()
  const offered = await guest.negotiate(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
  await guest.barrier()
  await sw.removePort('g')
  const file = join(directory, 'vhost-user-g.json')
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ queuePairs: 2 })
  await expect(addGuestPort({ queues: 1 })).rejects.toMatchObject({
    code: 'VHOST_USER_ACKED',
    hint: expect.stringContaining('give queues=2 or more'),
  })
  await addGuestPort({ queues: 2 })
  expect(await connect().negotiate()).toBe(offered)
})

test('a guest that reconnects is offered what it uses, whoever has come meanwhile', async () => {
  const csum = 1n
  await sw.removePort('m')
  await sw.addPort({ type: 'virtio-net', id: 'v' })
  await sw.virtioNetPort('v').negotiate(F_VERSION_1 | (1n << 1n))
  await addGuestPort()
  const guest = connect()
  expect((await guest.negotiate(F_VERSION_1 | F_PROTOCOL | csum)) & csum).toBe(csum)
  await guest.barrier()
  // A memory port takes no frame whose checksum is not complete.
  await sw.addPort({ type: 'memory', id: 'm' })
  kill(guest)
  expect((await connect().negotiate()) & csum).toBe(csum)
})

test('the socket: a stale file is replaced, a live one and a plain file are respected', async () => {
  const stale = shim.socketUnix(1)
  shim.bindUnix(stale, path)
  shim.close(stale)
  await addGuestPort()
  await expect(sw.addPort({ type: 'vhost-user', id: 'h', path })).rejects.toMatchObject({
    code: 'VHOST_USER_SOCKET',
    message: `port "g" listens on ${path}`,
  })
  expect(sw.port('g').state).toBe('disconnected')
  // Made with the socket, and gone with it.
  const inNew = join(directory, 'new', 'er', 'x')
  await sw.addPort({ type: 'vhost-user', id: 'h', path: inNew })
  expect(existsSync(inNew)).toBe(true)
  await sw.removePort('h')
  expect(existsSync(join(directory, 'new'))).toBe(false)
  await expect(
    sw.addPort({ type: 'vhost-user', id: 'h', path: '/proc/none/x' }),
  ).rejects.toMatchObject({
    code: 'VHOST_USER_SOCKET',
    message:
      'vhost-user socket /proc/none/x: its directory /proc/none cannot be made: No such file or directory',
    hint: 'make it first, or give another path',
  })
  await sw.removePort('g')
  expect(existsSync(path)).toBe(false)
})
