/** What is on a link with a postponed TAP, and guests that wait. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortInfo, Switch } from '../../src/index.ts'
import type { PortOptions, TapOptions } from '../../src/port/options.ts'
import { F_PROTOCOL, F_VERSION_1, FrontEnd } from '../support/front-end.ts'
import { ipFrame, payloadOf } from '../support/ip-frames.ts'
import { IO, Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'
import { deleteLink, Holder, makeTap, tunDescriptors, tunState } from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const bit = (number: number): bigint => 1n << BigInt(number)
const F_CSUM = bit(0)
const F_HOST_TSO4 = bit(11)
const F_HOST_TSO6 = bit(12)
const F_HOST_ECN = bit(13)
const F_HOST_USO = bit(56)
const HOST_MASK = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_HOST_USO
const F_MQ = bit(22)
const F_CTRL_VQ = bit(17)
const PLAIN = F_VERSION_1 | F_PROTOCOL
const VHOST_USER_SEND_RARP = 19
const EINVAL = 22

let lab: Lab
let netns: string
let sw: Switch
let guestPath: string
let guests: FrontEnd[]

beforeEach(async () => {
  lab = new Lab()
  netns = lab.netns()
  guestPath = join(lab.directory, 'guest.sock')
  guests = []
  sw = createSwitch({ io: IO as 'auto', incoming: true, stateDirectory: lab.directory })
  makeTap(netns, 2, 't0')
})

afterEach(async () => {
  for (const guest of guests) guest.close()
  await sw.close()
  expect(tunDescriptors(process.pid)).toEqual([])
  await lab[Symbol.asyncDispose]()
})

function addTap(options: Partial<TapOptions> = {}): Promise<PortInfo> {
  const scripts = { script: 'no', downscript: 'no' }
  const tap = { type: 'tap', id: 'tap', ifname: 't0', netns, queues: 2, ...scripts } as const
  return sw.addPort({ ...tap, ...options })
}

/** A vhost-user port on a link with the TAP. */
async function addGuestPort(): Promise<void> {
  await sw.addPort({ type: 'vhost-user', id: 'guest', path: guestPath })
  await sw.addLink('guest', 'tap')
}

function connect(): FrontEnd {
  const guest = FrontEnd.connect(guestPath)
  guests.push(guest)
  return guest
}

const stateOf = (id: string): string => sw.port(id).state
const held = (): number | undefined => tunState(netns, 't0')?.held

/** A TCP segment whose checksum is left to the device, and the vnet_hdr that says so. */
function partialFrame(): { bytes: Uint8Array; header: Uint8Array } {
  const { bytes, l4, checksumOffset } = ipFrame({ payload: payloadOf(100), checksum: 'partial' })
  const header = new Uint8Array(12)
  const view = new DataView(header.buffer)
  view.setUint8(0, 1)
  view.setUint16(6, l4, true)
  view.setUint16(8, checksumOffset, true)
  return { bytes, header }
}

async function messageOf(action: Promise<unknown>): Promise<string> {
  return action.then(
    () => 'no error',
    (error: Error) => error.message,
  )
}

/** The TAP hands a frame of the guest to the kernel. */
async function expectToKernel(guest: FrontEnd): Promise<void> {
  const before = sw.port('tap').counters.tx_frames
  guest.transmit(frame(255, 1, 7))
  await until('the TAP has it', () => sw.port('tap').counters.tx_frames > before)
}

describe('F1, D8: a peer that does not accept a postponed TAP makes it open when it is wired', () => {
  const replay = (): PortOptions => {
    const path = join(lab.directory, 'empty.pcap')
    // Magic, version 2.4, no offsets, snaplen, Ethernet; no frame.
    writeFileSync(path, Uint32Array.of(0xa1b2c3d4, 0x0004_0002, 0, 0, 65535, 1))
    return { type: 'pcap', id: 'virtio-net-0', replay: path }
  }
  const record = (): PortOptions => ({
    type: 'pcap',
    id: 'virtio-net-0',
    record: join(lab.directory, 'out.pcapng'),
  })
  // What a port is called has no say: its kind does.
  const memory = (): PortOptions => ({ type: 'memory', id: 'virtio-net-0' })

  test.each([
    ['memory', memory],
    ['pcap record', record],
    ['pcap replay', replay],
  ])('%s', async (_kind, options) => {
    await addTap()
    await sw.addPort(options())
    expect([stateOf('tap'), held()]).toEqual(['postponed', 0])
    await sw.addLink('virtio-net-0', 'tap')
    expect([stateOf('tap'), held()]).toEqual(['open', 2])
    expect(sw.links()).toEqual([['tap', 'virtio-net-0']])
    // It is open for good, and the signal has nothing more to do with it.
    await sw.removeLink('tap', 'virtio-net-0')
    await sw.migrateIncoming()
    expect([stateOf('tap'), held()]).toEqual(['open', 2])
  })

  test('its failure fails the link and leaves it postponed', async () => {
    await addTap()
    await sw.addPort(memory())
    const error = 'tap tap queue 0: t0: 1 queue is still attached by another process'
    {
      using holder = new Holder(netns, 1, 't0', true)
      expect(holder.fds).toHaveLength(1)
      expect(await messageOf(sw.addLink('tap', 'virtio-net-0'))).toBe(error)
    }
    expect(sw.port('tap')).toMatchObject({ state: 'postponed', error })
    expect(sw.port('tap')).not.toHaveProperty('peer')
    expect([sw.links(), held()]).toEqual([[], 0])
    await sw.addLink('tap', 'virtio-net-0')
    expect(sw.port('tap')).toMatchObject({ state: 'open', peer: 'virtio-net-0' })
    expect(sw.port('tap')).not.toHaveProperty('error')
  })
})

test('F1, F2: TAPs, virtio-net and vhost-user ports leave it postponed', async () => {
  await addTap()
  const others: PortOptions[] = [
    { type: 'tap', id: 'other', ifname: 't1', netns, script: 'no', downscript: 'no' },
    { type: 'tap', id: 'open', ifname: 't2', netns },
    { type: 'virtio-net', id: 'device' },
    { type: 'vhost-user', id: 'guest', path: guestPath },
  ]
  for (const options of others) {
    const { id } = await sw.addPort(options)
    await sw.addLink('tap', id)
    expect([stateOf('tap'), held()]).toEqual(['postponed', 0])
    await sw.removeLink(id, 'tap')
  }
})

test('F3: a driver that sets its queue pairs early does nothing to the TAP', async () => {
  await addTap()
  await sw.addPort({ type: 'virtio-net', id: 'device', queues: 2 })
  await sw.addLink('tap', 'device')
  const device = sw.virtioNetPort('device')
  await device.negotiate(F_VERSION_1 | F_MQ | F_CTRL_VQ)
  for (const pairs of [2, 1, 2]) {
    expect(await device.control(Uint8Array.of(4, 0, pairs, 0))).toBe(0)
    expect([stateOf('tap'), held()]).toEqual(['postponed', 0])
  }
  await sw.migrateIncoming()
  expect([stateOf('tap'), held(), stateOf('device')]).toEqual(['open', 2, 'connected'])
  await sw.resume()
  const before = sw.port('tap').counters.tx_frames
  for (const queue of [0, 1]) expect(device.send(frame(255, 1), { queue })).toBe(true)
  await until('both have passed', () => sw.port('tap').counters.tx_frames === before + 2)
})

describe('F4: a guest on a link with a postponed TAP', () => {
  test.each([undefined, true, false])('is offered everything (vnet_hdr %s)', async (vnetHdr) => {
    await addTap(vnetHdr === undefined ? {} : { vnet_hdr: vnetHdr })
    await addGuestPort()
    expect((await connect().negotiate()) & HOST_MASK).toBe(HOST_MASK)
  })

  test('is served once the TAP is open and can take what the guest acked', async () => {
    await addTap()
    await addGuestPort()
    const guest = connect()
    await guest.start(PLAIN | F_CSUM | F_HOST_TSO4)
    guest.transmit(frame(255, 1, 1))
    expect(stateOf('guest')).toBe('connected')
    await sw.migrateIncoming()
    expect([stateOf('tap'), stateOf('guest')]).toEqual(['open', 'connected'])
    await guest.barrier()
    // D6: neither way anything passes before cont.
    expect([guest.usedIndex(1), sw.port('tap').counters.tx_frames]).toEqual([0, 0])
    await sw.resume()
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
    await expectToKernel(guest)
  })

  test('may announce itself: the RARP leaves after cont', async () => {
    await addTap()
    await addGuestPort()
    const guest = connect()
    await guest.start(PLAIN)
    const announce = async (): Promise<void> => {
      guest.send(VHOST_USER_SEND_RARP, Uint8Array.of(0x52, 0x54, 0, 0, 0, 1, 0, 0))
      await guest.barrier()
    }
    await announce()
    await sw.migrateIncoming()
    await announce()
    expect(sw.port('tap').counters).toMatchObject({ tx_frames: 0, tx_drop_link_down: 0 })
    await sw.resume()
    await until('both have left', () => sw.port('tap').counters.tx_frames === 2)
  })

  test('is served also by a TAP that lacks what it acked: in software', async () => {
    await addTap({ vnet_hdr: false })
    await addGuestPort()
    const guest = connect()
    await guest.start(PLAIN | F_CSUM | F_HOST_TSO4)
    const { bytes, header } = partialFrame()
    guest.transmit(bytes, header)
    await sw.migrateIncoming()
    expect(stateOf('guest')).toBe('connected')
    await sw.resume()
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
    expect(sw.port('tap').counters).toMatchObject({ tx_checksummed: 1, tx_drop_offload: 0 })
  })
})

describe('F4: an in-process device on a link with a postponed TAP', () => {
  test('is offered everything, and served by a TAP that lacks it', async () => {
    await addTap({ vnet_hdr: false })
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    const device = sw.virtioNetPort('device')
    expect(device.offered & HOST_MASK).toBe(HOST_MASK)
    await device.negotiate(F_VERSION_1 | F_CSUM)
    await sw.migrateIncoming()
    await sw.resume()
    const { bytes, header } = partialFrame()
    device.send(bytes, { header })
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
    expect(sw.port('tap').counters).toMatchObject({ tx_checksummed: 1, tx_drop_offload: 0 })
  })
})

describe('F5: before a device is loaded its peer is looked at again', () => {
  /** The state of a device that acked these features. */
  async function stateWith(features: bigint): Promise<unknown> {
    await using other = createSwitch({ io: IO as 'auto' })
    await other.addPort({ type: 'tap', id: 'tap', ifname: 'other', netns })
    await other.addPort({ type: 'virtio-net', id: 'device' })
    const device = other.virtioNetPort('device')
    expect(await device.negotiate(features)).toBe(features)
    return JSON.parse(JSON.stringify(device.saveState()))
  }

  test('while it is postponed everything is loaded', async () => {
    await addTap({ vnet_hdr: false })
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    const device = sw.virtioNetPort('device')
    await device.loadState(await stateWith(F_VERSION_1 | F_CSUM))
    expect([stateOf('tap'), stateOf('device')]).toEqual(['postponed', 'connected'])
  })

  test('an open one without vnet_hdr is served in software, and everything is loaded', async () => {
    await addTap({ vnet_hdr: false })
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    await sw.migrateIncoming()
    const device = sw.virtioNetPort('device')
    await device.loadState(await stateWith(F_VERSION_1 | F_CSUM))
    expect(device.features).toBe(F_VERSION_1 | F_CSUM)
    await sw.resume()
    device.send(frame(255, 1))
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
  })

  test('one that is gone fails it as well', async () => {
    await addTap()
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    await sw.migrateIncoming()
    const device = sw.virtioNetPort('device')
    const saved = await stateWith(F_VERSION_1 | F_CSUM)
    deleteLink(netns, 't0')
    await expect(device.loadState(saved)).rejects.toMatchObject({ errno: EINVAL })
    expect(device.features).toBe(0n)
    expect(stateOf('device')).toBe('disconnected')
  })
})
