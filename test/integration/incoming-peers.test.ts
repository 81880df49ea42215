/** What is on a link with a postponed TAP: F1 to F5 of spec/tap.md 1.4, D8, and guests that wait. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortInfo, Switch } from '../../src/index.ts'
import type { PortOptions, TapOptions } from '../../src/port/options.ts'
import { HOST_MASK } from '../../src/switch/guest-features.ts'
import { F_LOG_ALL, F_PROTOCOL, F_VERSION_1, FrontEnd, u32s, u64 } from '../support/front-end.ts'
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
  test.each([undefined, true, false])(
    'is offered everything (vnet_hdr %s), without the link it is not',
    async (vnetHdr) => {
      await addTap(vnetHdr === undefined ? {} : { vnet_hdr: vnetHdr })
      await sw.addPort({ type: 'memory', id: 'm' })
      await addGuestPort()
      expect((await connect().negotiate()) & HOST_MASK).toBe(HOST_MASK)
      await sw.removeLink('guest', 'tap')
      expect((await connect().negotiate()) & HOST_MASK).toBe(0n)
    },
  )

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

  const REFUSED = 'its guest acked csum, tso4, which tap cannot take'

  test('fails, when it acked what the TAP lacks, and stands still until it negotiates anew', async () => {
    await addTap({ vnet_hdr: false })
    await addGuestPort()
    await sw.addPort({ type: 'memory', id: 'a' })
    await sw.addPort({ type: 'memory', id: 'b' })
    await sw.addLink('a', 'b')
    const guest = connect()
    await guest.start(PLAIN | F_CSUM | F_HOST_TSO4)
    guest.transmit(frame(255, 1, 1))
    await sw.migrateIncoming()
    expect(sw.port('guest')).toMatchObject({ state: 'failed', error: REFUSED })
    await sw.resume()
    // While the engine served somebody else it did not look at the guest.
    const next = sw.memoryPort('b').next()
    sw.memoryPort('a').send(frame(255, 2))
    await next
    expect(guest.usedIndex(1)).toBe(0)
    // Neither an enabled queue nor a migration's log wakes it.
    guest.send(18, u32s(1, 1))
    guest.send(2, u64(PLAIN | F_CSUM | F_HOST_TSO4 | F_LOG_ALL))
    await guest.barrier()
    expect(guest.usedIndex(1)).toBe(0)
    expect(sw.port('guest')).toMatchObject({ state: 'failed', error: REFUSED })
    expect([await guest.stopQueue(0), await guest.stopQueue(1)]).toEqual([0, 0])
    await guest.start(PLAIN)
    await until('it is served', () => stateOf('guest') === 'connected')
    await until('what waited has passed', () => sw.port('tap').counters.tx_frames === 1)
    expect(guest.usedIndex(1)).toBe(1)
    await expectToKernel(guest)
  })

  test('fails also when it acks that later, and is not offered it any more', async () => {
    await addTap({ vnet_hdr: false })
    await addGuestPort()
    const guest = connect()
    expect((await guest.negotiate()) & HOST_MASK).toBe(HOST_MASK)
    await sw.migrateIncoming()
    expect(stateOf('guest')).toBe('disconnected')
    await sw.resume()
    await guest.start(PLAIN | F_CSUM | F_HOST_TSO4)
    await until('it has failed', () => stateOf('guest') === 'failed')
    expect(sw.port('guest').error).toBe(REFUSED)
    // Its queues stand where they were served last.
    expect(await guest.stopQueue(1)).toBe(guest.usedIndex(1))
    await guest.stopQueue(0)
    await until('it is gone', () => stateOf('guest') === 'disconnected')
    await guest.start(PLAIN | F_CSUM | F_HOST_TSO4)
    await until('it has failed again', () => stateOf('guest') === 'failed')
    // Another front-end starts afresh.
    const next = connect()
    expect((await next.negotiate()) & HOST_MASK).toBe(0n)
    await next.start(PLAIN)
    await until('it is served', () => stateOf('guest') === 'connected')
    expect(sw.port('guest')).not.toHaveProperty('error')
    await expectToKernel(next)
  })

  test('does not fail when the signal does', async () => {
    await addTap({ vnet_hdr: false })
    await addGuestPort()
    const scripts = { script: 'no', downscript: 'no' }
    await sw.addPort({ type: 'tap', id: 'late', ifname: 't1', netns, persist: true, ...scripts })
    const guest = connect()
    await guest.start(PLAIN | F_CSUM)
    const missing = `tap late queue 0: no interface "t1" in netns ${netns}`
    expect(await messageOf(sw.migrateIncoming())).toBe(missing)
    expect([stateOf('tap'), stateOf('guest')]).toEqual(['postponed', 'connected'])
    makeTap(netns, 1, 't1')
    await sw.migrateIncoming()
    expect([stateOf('tap'), stateOf('guest')]).toEqual(['open', 'failed'])
  })
})

describe('F4: an in-process device on a link with a postponed TAP', () => {
  test('is offered everything and fails, when it took what the TAP lacks', async () => {
    await addTap({ vnet_hdr: false })
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    const device = sw.virtioNetPort('device')
    expect(device.offered & HOST_MASK).toBe(HOST_MASK)
    await device.negotiate(F_VERSION_1 | F_CSUM)
    await sw.migrateIncoming()
    expect(sw.port('device')).toMatchObject({
      state: 'failed',
      error: 'its guest acked csum, which tap cannot take',
    })
    expect(device.offered & HOST_MASK).toBe(0n)
    expect(await device.negotiate(F_VERSION_1 | F_CSUM)).toBe(F_VERSION_1)
    expect(stateOf('device')).toBe('connected')
    await sw.resume()
    device.send(frame(255, 1))
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
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

  test('an open one that lacks features fails the load with EINVAL, and nothing changes', async () => {
    await addTap({ vnet_hdr: false })
    await sw.addPort({ type: 'virtio-net', id: 'device' })
    await sw.addLink('tap', 'device')
    await sw.migrateIncoming()
    const device = sw.virtioNetPort('device')
    await device.negotiate(F_VERSION_1)
    const { mac } = device.config
    const saved = await stateWith(F_VERSION_1 | F_CSUM)
    await expect(device.loadState(saved)).rejects.toMatchObject({ errno: EINVAL })
    expect(device.features).toBe(F_VERSION_1)
    expect(device.config.mac).toEqual(mac)
    expect(stateOf('device')).toBe('connected')
    await sw.resume()
    device.send(frame(255, 1))
    await until('the TAP has it', () => sw.port('tap').counters.tx_frames === 1)
    await device.loadState(await stateWith(F_VERSION_1))
    expect(device.config.mac).not.toEqual(mac)
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
