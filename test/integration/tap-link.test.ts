/**
 * A TAP on a link follows the guest at the other end: the length of its vnet_hdr, and which of its
 * queues are attached. The test keeps descriptors of its own of the same open files, so it sees what
 * the kernel has, also after the port is gone.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  IFF_DETACH_QUEUE,
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAMSIZ,
} from '../../src/abi/if-tun.ts'
import type { createSwitch as CreateSwitch, Switch, VirtioNetPort } from '../../src/index.ts'
import type { VirtioNetFrame } from '../../src/switch/api.ts'
import { shim } from '../../src/native/shim.ts'
import { openNetns } from '../../src/port/interface/netns.ts'
import { ipv4Address, ipv4Frame, bytesOf, u16, UDP } from '../support/flow-frames.ts'
import { FrontEnd, u32s } from '../support/front-end.ts'
import { IFNAME, IO, Lab } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const bit = (number: number): bigint => 1n << BigInt(number)
const VERSION_1 = bit(32)
const LEGACY = 0n
/** CSUM, HOST_TSO4, HOST_TSO6, HOST_USO, HOST_UDP_TUNNEL_GSO */
const TUNNELS = bit(0) | bit(11) | bit(12) | bit(56) | bit(67)
/** Of a TAP without a guest, since Linux 6.17: room for tunnels. */
const PRESET = 24
const MULTI_QUEUE = bit(17) | bit(22)
const TAP = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
const SOCK_STREAM = 1

let lab: Lab
let netns: string
let sw: Switch
const log: string[] = []
/** The test's own descriptors of the TAP's queues. */
const own: number[] = []

beforeEach(() => {
  log.length = 0
  lab = new Lab()
  netns = lab.netns()
  sw = createSwitch({ io: IO as 'auto', log: (text) => log.push(text) })
})

afterEach(async () => {
  await sw.close()
  for (const fd of own.splice(0)) shim.close(fd)
  await lab[Symbol.asyncDispose]()
})

/** Another descriptor of the same open file. */
function duplicate(fd: number): number {
  const ends = new Int32Array(2)
  const received = new Int32Array(1)
  shim.socketPair(SOCK_STREAM, ends)
  shim.sendMsg(ends[0], new Uint8Array(1), 0, 1, Int32Array.of(fd), 1, 0)
  shim.recvMsg(ends[1], new Uint8Array(1), received, new Int32Array(2), 0)
  for (const end of ends) shim.close(end)
  return received[0]
}

/** Adds port `t`: a TAP with so many queues in the namespace. */
async function addTap(queues: number): Promise<void> {
  const given = new Map<string, number>()
  const netnsFd = openNetns(shim, netns)
  const flags = queues > 1 ? TAP | IFF_MULTI_QUEUE : TAP
  for (let queue = 0; queue < queues; queue++) {
    const nameOut = new Uint8Array(IFNAMSIZ)
    const node = '/dev/net/tun'
    const fd = shim.tunOpen(netnsFd, node, IFNAME, flags, nameOut, new Int32Array(1))
    expect(fd).toBeGreaterThanOrEqual(0)
    given.set(`q${queue}`, fd)
    own.push(duplicate(fd))
  }
  shim.close(netnsFd)
  await sw.addPort({ type: 'tap', id: 't', fds: [...given.keys()].join(':') }, given)
  lab.exec(netns, 'sh', '-c', `echo 1 > /proc/sys/net/ipv6/conf/${IFNAME}/disable_ipv6`)
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'up')
}

async function addDevice(queues = 1): Promise<VirtioNetPort> {
  await sw.addPort({ type: 'virtio-net', id: 'v', queues })
  return sw.virtioNetPort('v')
}

const headerLengths = (): number[] => own.map((fd) => shim.tunGetVnetHdrSize(fd))

/** What each queue says of itself. */
const attached = (): boolean[] =>
  own.map((fd) => (shim.tunGetIff(fd, new Uint8Array(IFNAMSIZ)) & IFF_DETACH_QUEUE) === 0)

/** What netlink says: [attached, detached]. */
function queueCounts(): [number, number] {
  const [link] = JSON.parse(sh('ip', '-n', netns, '-d', '-j', 'link', 'show', IFNAME)) as {
    linkinfo: { info_data: { numqueues: number; numdisabled: number } }
  }[]
  const { numqueues, numdisabled } = link.linkinfo.info_data
  return [numqueues, numdisabled]
}

const countsAre = (...counts: [number, number]): Promise<void> =>
  until(`netlink shows ${counts.join('/')}`, () => String(queueCounts()) === String(counts))

const setPairs = async (port: VirtioNetPort, pairs: number): Promise<void> =>
  expect(await port.control(Uint8Array.of(4, 0, pairs, 0))).toBe(0)

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** The next frames that the driver gets: `count` of them, or as many as come before a silence. */
async function receive(
  port: VirtioNetPort,
  count: number,
  silenceMs = 20_000,
): Promise<VirtioNetFrame[]> {
  const received: VirtioNetFrame[] = []
  try {
    while (received.length < count) {
      received.push(await port.next({ signal: AbortSignal.timeout(silenceMs) }))
    }
  } catch (error) {
    if ((error as Error).name !== 'TimeoutError') throw error
  }
  return received
}

test('the vnet_hdr of a TAP has the length that the guest negotiated, on a link only', async () => {
  await addTap(2)
  const port = await addDevice()
  await port.negotiate(LEGACY)
  expect(headerLengths()).toEqual([PRESET, PRESET])
  await sw.addLink('t', 'v')
  expect(headerLengths()).toEqual([10, 10])
  expect(sw.port('t').vnetHdrLength).toBe(10)
  await port.negotiate(VERSION_1)
  expect(headerLengths()).toEqual([12, 12])
  await port.negotiate(LEGACY)
  expect(headerLengths()).toEqual([10, 10])
  await port.negotiate(VERSION_1 | TUNNELS)
  expect(headerLengths()).toEqual([24, 24])
  await port.negotiate(LEGACY)
  expect(headerLengths()).toEqual([10, 10])
  await port.reset()
  expect(headerLengths()).toEqual([PRESET, PRESET])
  await port.negotiate(LEGACY)
  await sw.removeLink('v', 't')
  expect(headerLengths()).toEqual([PRESET, PRESET])
  expect(sw.port('t').vnetHdrLength).toBe(PRESET)
  await sw.addLink('t', 'v')
  expect(headerLengths()).toEqual([10, 10])
  await sw.removePort('v')
  expect(headerLengths()).toEqual([PRESET, PRESET])
})

test('a TAP is left as it was found, also from the middle of a link', async () => {
  await addTap(4)
  const port = await addDevice()
  await port.negotiate(LEGACY)
  await sw.addLink('t', 'v')
  expect(headerLengths()).toEqual([10, 10, 10, 10])
  await countsAre(1, 3)
  await sw.removePort('t')
  expect(headerLengths()).toEqual([PRESET, PRESET, PRESET, PRESET])
  expect(attached()).toEqual([true, true, true, true])
  expect(queueCounts()).toEqual([4, 0])
})

test('frames of both directions stay whole while the header changes under them', async () => {
  await addTap(1)
  const port = await addDevice()
  await port.negotiate(LEGACY)
  const rounds = 40
  const batch = 50
  const sender = lab.start(netns, lab.packetTool, 'send', IFNAME)
  const receiver = await lab.receive(netns, rounds * batch)
  const sent: string[] = []
  for (let round = 0; round < rounds; round++) {
    const numbers = Array.from({ length: batch }, (_, k) => round * batch + k)
    const changed = round % 2 === 0 ? sw.addLink('t', 'v') : sw.removeLink('t', 'v')
    const towards = numbers.map((n) => hex(frame(255, 1, n, 60 + (n % 1400))))
    sender.child.stdin!.write(`${towards.join('\n')}\n`)
    for (const n of numbers) {
      const bytes = frame(255, 2, n, 60 + ((n * 7) % 1400))
      expect(port.send(bytes)).toBe(true)
      sent.push(hex(bytes))
    }
    const received = await receive(port, batch)
    expect(received.map((one) => hex(one.frame))).toEqual(towards)
    expect(received.every(({ header }) => header.length === 10)).toBe(true)
    await changed
    expect(headerLengths()).toEqual([round % 2 === 0 ? 10 : PRESET])
  }
  expect(await receiver.frames()).toEqual(sent)
  expect(sw.port('t').counters).toMatchObject({
    rx_frames: rounds * batch,
    tx_frames: rounds * batch,
    rx_drop_malformed: 0,
    tx_drop_malformed: 0,
  })
})

/** UDP of so many flows; the number of the frame is its payload. */
const flows = (count: number, n: number): Uint8Array[] =>
  Array.from({ length: count }, (_, flow) =>
    ipv4Frame(
      ipv4Address('10.0.0.1'),
      ipv4Address('10.0.0.2'),
      UDP,
      bytesOf(u16(1000 + flow), u16(53), u16(30), u16(0), u16(n), new Uint8Array(20)),
    ),
  )

test('the queues follow the pairs that the driver uses, and no flow goes elsewhere', async () => {
  await addTap(4)
  const port = await addDevice(4)
  await port.negotiate(VERSION_1 | MULTI_QUEUE)
  await sw.addLink('t', 'v')
  const sender = lab.start(netns, lab.packetTool, 'send', IFNAME)
  /** Queue pairs by which frames of 64 flows come. */
  const queuesOf = async (n: number): Promise<Set<number>> => {
    const frames = flows(64, n).map(hex)
    sender.child.stdin!.write(`${frames.join('\n')}\n`)
    const received = await receive(port, frames.length)
    expect(received.map((one) => hex(one.frame)).toSorted()).toEqual(frames.toSorted())
    return new Set(received.map(({ queue }) => queue))
  }
  let n = 0
  await countsAre(1, 3)
  for (const pairs of [1, 4, 2, 3, 1, 4]) {
    await setPairs(port, pairs)
    await countsAre(pairs, 4 - pairs)
    expect(attached()).toEqual([0, 1, 2, 3].map((queue) => queue < pairs))
    expect(await queuesOf(n++)).toEqual(new Set([0, 1, 2, 3].slice(0, pairs)))
    await until('it is shown', () => (sw.port('t').queuesAttached ?? 4) === pairs)
    expect(sw.port('t').queues).toBe(4)
    // Whichever pair the driver sends by, it gets out.
    const receiver = await lab.receive(netns, 4)
    for (let queue = 0; queue < pairs; queue++) port.send(frame(255, 2, queue), { queue })
    for (let rest = pairs; rest < 4; rest++) port.send(frame(255, 2, rest))
    expect((await receiver.frames()).toSorted()).toEqual(
      [0, 1, 2, 3].map((queue) => hex(frame(255, 2, queue))),
    )
  }
  await setPairs(port, 2)
  await countsAre(2, 2)
  await port.reset()
  expect(queueCounts()).toEqual([4, 0])
  await port.negotiate(VERSION_1 | MULTI_QUEUE)
  await countsAre(1, 3)
  await sw.removeLink('t', 'v')
  expect(queueCounts()).toEqual([4, 0])
  await sw.addLink('t', 'v')
  await countsAre(1, 3)
  await sw.removePort('v')
  expect(queueCounts()).toEqual([4, 0])
  expect(sw.port('t')).not.toHaveProperty('queuesAttached')
  expect(log).toEqual([])
})

/**
 * The kernel throws away what gets into a queue between our last read and its leaving: a few frames
 * now and then (measured: 5 in 360 detached queues at 50,000 frames a second), not all that wait.
 */
test('traffic goes on while queues come and go: attaching loses nothing, detaching next to nothing', async () => {
  await addTap(4)
  const port = await addDevice(4)
  await port.negotiate(VERSION_1 | MULTI_QUEUE)
  await sw.addLink('t', 'v')
  const sender = lab.start(netns, lab.packetTool, 'send', IFNAME)
  let lost = 0
  for (let round = 0; round < 24; round++) {
    const frames = flows(32, round).map(hex)
    const isDown = round % 2 === 0
    const isSettled = (): boolean => queueCounts()[0] === (isDown ? 1 : 4)
    await setPairs(port, isDown ? 1 : 4)
    do {
      sender.child.stdin!.write(`${frames.join('\n')}\n`)
      // Those of this round that come later would be taken for the next one's.
      const received = await receive(port, frames.length, isDown ? 5000 : undefined)
      const whole = new Set(received.map((one) => hex(one.frame)))
      expect(whole.size).toBe(received.length)
      expect([...whole].filter((one) => !frames.includes(one))).toEqual([])
      if (isDown) lost += frames.length - whole.size
      else expect(whole.size).toBe(frames.length)
    } while (!isSettled())
  }
  expect(lost).toBeLessThan(100)
  expect(sw.port('t').counters).toMatchObject({ rx_drop_malformed: 0, tx_drop_link_down: 0 })
})

test('a queue that was given detached is attached, and a single one never is detached', async () => {
  await addTap(2)
  await sw.removePort('t')
  expect(shim.tunSetQueue(own[1], IFF_DETACH_QUEUE)).toBe(0)
  const given = new Map(own.map((fd, queue) => [`q${queue}`, duplicate(fd)]))
  await sw.addPort({ type: 'tap', id: 't', fds: 'q0:q1' }, given)
  expect(attached()).toEqual([true, true])
  await sw.removePort('t')
  const [first] = own
  await sw.addPort({ type: 'tap', id: 't', fd: 'one' }, new Map([['one', duplicate(first)]]))
  const port = await addDevice(2)
  await port.negotiate(VERSION_1 | MULTI_QUEUE)
  await sw.addLink('t', 'v')
  await setPairs(port, 2)
  await setPairs(port, 1)
  expect(attached()).toEqual([true, true])
  expect(log).toEqual([])
})

test('nothing is detached while the switch stands still: what waits is delivered', async () => {
  await addTap(4)
  const port = await addDevice(4)
  await port.negotiate(VERSION_1 | MULTI_QUEUE)
  await sw.addLink('t', 'v')
  await setPairs(port, 4)
  expect(attached()).toEqual([true, true, true, true])
  await sw.pause()
  const frames = flows(64, 1).map(hex)
  await lab.send(netns, frames)
  await setPairs(port, 1)
  // Longer than a queue stays attached that is not used.
  const settled = Date.now() + 300
  await until('it would have been detached', () => Date.now() > settled)
  expect(queueCounts()).toEqual([4, 0])
  await sw.resume()
  const received = await receive(port, frames.length)
  expect(received.map((one) => hex(one.frame)).toSorted()).toEqual(frames.toSorted())
  await countsAre(1, 3)
})

test('the queues follow SET_VRING_ENABLE, and all are attached when the guest is gone', async () => {
  const path = join(lab.directory, 'guest.sock')
  const enable = 18
  await addTap(4)
  await sw.addPort({ type: 'vhost-user', id: 'v', path, queues: 4 })
  await sw.addLink('t', 'v')
  // The first guest also makes what stays.
  let descriptors = -1
  for (const features of [bit(30), bit(30) | VERSION_1, bit(30)]) {
    const guest = FrontEnd.connect(path)
    try {
      await guest.start(features)
      expect(headerLengths()).toEqual(features === bit(30) ? [10, 10, 10, 10] : [12, 12, 12, 12])
      await countsAre(1, 3)
      for (let queue = 2; queue < 8; queue++) guest.startQueue(queue)
      await guest.barrier()
      expect(attached()).toEqual([true, false, false, false])
      for (let queue = 2; queue < 6; queue++) guest.send(enable, u32s(queue, 1))
      await guest.barrier()
      expect(attached()).toEqual([true, true, true, false])
      for (const queue of [2, 3]) guest.send(enable, u32s(queue, 0))
      await until('queue 1 is detached', () => !attached()[1])
      expect(attached()).toEqual([true, false, true, false])
      // Its own pair is off, so another one takes what the guest sends by the first.
      const receiver = await lab.receive(netns, 1)
      guest.transmit(frame(255, 1, 7), new Uint8Array(headerLengths()[0]))
      expect(await receiver.frames()).toEqual([hex(frame(255, 1, 7))])
    } finally {
      guest.close()
    }
    await until('the guest is gone', () => sw.port('v').state === 'disconnected')
    await until('all queues are back', () => !attached().includes(false))
    expect(headerLengths()).toEqual([PRESET, PRESET, PRESET, PRESET])
    expect(queueCounts()).toEqual([4, 0])
    const open = readdirSync('/proc/self/fd').length
    if (descriptors < 0) descriptors = open
    else await until('nothing leaks', () => readdirSync('/proc/self/fd').length <= descriptors)
  }
  expect(log.filter((line) => line.includes('queue'))).toEqual([])
})
