/**
 * What becomes of a raw socket port when something happens to its interface: it is told, the port comes
 * back with the interface, and nothing else stops.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortInfo, Switch } from '../../src/index.ts'
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 } from '../../src/abi/virtio-net.ts'
import { ipFrame } from '../support/ip-frames.ts'
import { frameHex, IO, Lab } from '../support/lab.ts'
import { packetSocket } from '../support/packet-socket.ts'
import { sh, until } from '../support/processes.ts'
import { addAddresses, addHosts, addPair, rawStar, setLink } from '../support/raw-lab.ts'
import { numbers } from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'

let lab: Lab
let uplink: string
let hosts: string[]
let sw: Switch
const log: string[] = []
/** States of port p0, as they were told. */
const told: string[] = []

beforeEach(() => {
  log.length = 0
  told.length = 0
  lab = new Lab()
  ;({ uplink, hosts } = addHosts(lab, 3))
  addAddresses(lab, hosts)
  sw = createSwitch({ io: IO as 'auto', log: (text) => log.push(text) })
  sw.events.on('port-changed', ({ id, state, device }) => {
    if (id === 'p0') told.push(`${state} ${device}`)
  })
})

afterEach(async () => {
  await sw.close()
  await lab[Symbol.asyncDispose]()
})

type More = Readonly<Record<string, unknown>>

const add = (k: number, more: More = {}): Promise<PortInfo> =>
  sw.addPort({ type: 'raw-socket', id: `p${k}`, ifname: `u${k}`, netns: uplink, ...more })

async function addAll(more: More = {}): Promise<void> {
  for (const k of [0, 1, 2]) await add(k, more)
}

const stateIs = (state: string, id = 'p0'): Promise<void> =>
  until(`${id} is ${state}`, () => sw.port(id).state === state)

const deleteInterface = (): string => sh('ip', '-n', uplink, 'link', 'del', 'u0')
const makeInterface = (ifname = 'u0'): void => {
  addPair(uplink, ifname, hosts[0])
  addAddresses(lab, [hosts[0]])
}

/** Host 0 reaches the others, or they each other only. */
async function expectPassing(isPassing = true): Promise<void> {
  if (isPassing) {
    await until('host 0 answers', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
    expect(lab.ping(hosts[0], '10.0.0.3', 3)).toBe(3)
  }
  expect(lab.ping(hosts[1], '10.0.0.3', 3)).toBe(3)
}

/** Descriptors of the process, by what they are. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\[\d+\]/, '')]
      } catch {
        return []
      }
    })
    .filter((one) => !one.startsWith('/proc/'))
    .sort()
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const setDown = (netns: string, ifname: string): string => setLink(netns, ifname, 'down')

describe.each([{}, { vnet_hdr: false }])('with %o', (more) => {
  test('down and up: frames for it are dropped meanwhile, and the state is told', async () => {
    await addAll(more)
    await expectPassing()
    for (const round of [1, 2]) {
      told.length = 0
      setDown(uplink, 'u0')
      await stateIs('down')
      expect(sw.port('p0')).toMatchObject({ device: 'down', ifname: 'u0' })
      // A frame that is flooded.
      await lab.send(hosts[1], [frameHex(BROADCAST, SOURCE, round)])
      await until('it is dropped', () => sw.port('p0').counters.tx_drop_link_down >= round)
      await expectPassing(false)
      setLink(uplink, 'u0', 'up')
      await stateIs('open')
      await expectPassing()
      await until('that is told', () => told.at(-1) === 'open up')
      expect(told[0]).toBe('down down')
    }
    expect(sw.port('p0').counters.tx_drop_error).toBe(0)
    expect(log).toEqual([])
  })

  test('its carrier goes and comes with the other end', async () => {
    await addAll(more)
    await expectPassing()
    setDown(hosts[0], 'x0')
    await stateIs('down')
    expect(sw.port('p0')).toMatchObject({ device: 'no-carrier' })
    expect((await sw.macTable()).filter(({ port }) => port === 'p0')).toEqual([])
    await expectPassing(false)
    setLink(hosts[0], 'x0', 'up')
    await stateIs('open')
    addAddresses(lab, [])
    sh('ip', '-n', hosts[0], 'addr', 'replace', '10.0.0.1/24', 'dev', 'x0')
    await expectPassing()
  })

  test('deleted and made again, several times: the port comes back, and nothing is left', async () => {
    await addAll({ queues: 2, ...more })
    await expectPassing()
    const before = descriptors()
    for (let round = 0; round < 3; round++) {
      told.length = 0
      deleteInterface()
      await stateIs('failed')
      expect(sw.port('p0').error).toBe(
        'No such device: the interface u0 was deleted or moved away (the port goes on when there is an interface u0)',
      )
      await until('that is told', () => told.includes('failed undefined'))
      await lab.send(hosts[1], [frameHex(BROADCAST, SOURCE, round)])
      await expectPassing(false)
      makeInterface()
      await stateIs('open')
      await expectPassing()
      expect(sw.port('p0')).toMatchObject({ device: 'up', queues: 2 })
      await until('that is told', () => told.at(-1) === 'open up')
      expect(told.filter((state) => state.startsWith('failed'))).toHaveLength(1)
    }
    await until('no descriptor is left', () => descriptors().join() === before.join())
    expect(log.filter((line) => line.includes('failed'))).toHaveLength(3)
    expect(log.filter((line) => line.includes('open again'))).toHaveLength(3)
  })

  test('moved to another namespace and back', async () => {
    await addAll(more)
    const elsewhere = lab.netns()
    setLink(uplink, 'u0', 'netns', elsewhere)
    await stateIs('failed')
    await expectPassing(false)
    setLink(elsewhere, 'u0', 'netns', uplink)
    setLink(uplink, 'u0', 'up')
    await stateIs('open')
    await expectPassing()
  })
})

test('renamed: the port stays with it, and follows its name when it is gone', async () => {
  await addAll()
  await expectPassing()
  setDown(uplink, 'u0')
  setLink(uplink, 'u0', 'name', 'other')
  setLink(uplink, 'other', 'up')
  await until('the new name is told', () => sw.port('p0').ifname === 'other')
  await expectPassing()
  // Another one of the old name is nobody's.
  addPair(uplink, 'u0', hosts[0], 'x1')
  await lab.send(hosts[1], [frameHex(BROADCAST, SOURCE, 1)])
  await expectPassing()
  expect(sw.port('p0')).toMatchObject({ state: 'open', ifname: 'other' })
  // It is taken when the first one is gone.
  sh('ip', '-n', uplink, 'link', 'del', 'other')
  await until('the other one is taken', () => sw.port('p0').ifname === 'u0')
  await stateIs('open')
  expect(log.filter((line) => line.includes('failed'))).toEqual([])
})

test('an interface that becomes part of a bridge is told of, once', async () => {
  await addAll({})
  sh('ip', '-n', uplink, 'link', 'add', 'br0', 'type', 'bridge')
  for (const round of [1, 2]) {
    setLink(uplink, 'u0', 'master', 'br0')
    await until('the log has it', () => log.length === round)
    expect(log.at(-1)).toMatch(/^raw-socket p0: u0 is part of a bridge or bond now/)
    setLink(uplink, 'u0', 'nomaster')
    // Seen by now, and nothing more is told.
    setDown(uplink, 'u0')
    await stateIs('down')
    setLink(uplink, 'u0', 'up')
    await stateIs('open')
  }
  await expectPassing()
  expect(log).toHaveLength(2)
})

test('an mtu that changes is what a port without vnet_hdr cuts to', async () => {
  await addAll({ vnet_hdr: false })
  await expectPassing()
  /** The lengths of what comes of a TCP frame with 3000 bytes, which its sender has left in one piece. */
  const lengths = async (): Promise<number[]> => {
    const receiver = await lab.receiveTagged(hosts[1], 40, 1000)
    const { bytes, l4, end, checksumOffset } = ipFrame({
      payload: new Uint8Array(3000),
      checksum: 'partial',
    })
    const header = new DataView(new ArrayBuffer(10))
    header.setUint16(0, VIRTIO_NET_HDR_F_NEEDS_CSUM | (VIRTIO_NET_HDR_GSO_TCPV4 << 8), true)
    for (const [at, value] of [end, 500, l4, checksumOffset].entries()) {
      header.setUint16(2 + 2 * at, value, true)
    }
    const before = sw.port('p1').counters.tx_segmented
    await lab.send(hosts[0], [hex(new Uint8Array(header.buffer)) + hex(bytes)], true)
    await until('it was cut', () => sw.port('p1').counters.tx_segmented > before)
    // And the turn is over.
    await sw.currentCounters()
    // Hosts say something of their own as well, by IPv6.
    const isTcp = (frame: string): boolean =>
      frame.startsWith('0800', 24) && frame.startsWith('06', 46)
    const came = (await receiver.frames()).filter(isTcp)
    return came.map((frame) => frame.length / 2)
  }
  expect(await lengths()).toEqual([1514, 1514, 54 + 3000 - 2 * 1460])
  for (const [netns, ifname] of [
    [uplink, 'u0'],
    [hosts[0], 'x0'],
  ]) {
    setLink(netns, ifname, 'mtu', '1200')
  }
  await until('that is known', async () => isDeepStrictEqual(await lengths(), [1214, 1214, 734]))
  await expectPassing()
  // Nothing is opened anew for it, so nothing is lost.
  expect(sw.port('p0').counters).toMatchObject({ tx_drop_link_down: 0, rx_drop_link_down: 0 })
  expect(told.filter((state) => state.startsWith('failed'))).toEqual([])
  expect(log).toEqual([])
  // With vnet_hdr its sender says it, and nothing happens.
  await sw.removePort('p0')
  log.length = 0
  await add(0)
  setLink(uplink, 'u0', 'mtu', '1400')
  setDown(uplink, 'u0')
  setLink(uplink, 'u0', 'up')
  await stateIs('open')
  await expectPassing()
  expect(log).toEqual([])
})

test('on a link it comes back on its link', async () => {
  await addAll()
  await sw.addLink('p0', 'p1')
  await until('they reach each other', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
  deleteInterface()
  await stateIs('failed')
  expect(sw.links()).toEqual([['p0', 'p1']])
  makeInterface()
  await stateIs('open')
  await until('they reach each other again', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
  expect(lab.ping(hosts[2], '10.0.0.2', 1)).toBe(0)
  await sw.removeLink('p0', 'p1')
  await expectPassing()
})

test('held, it stays held while its interface goes and comes', async () => {
  await addAll()
  await expectPassing()
  await sw.hold(['p0'])
  deleteInterface()
  await stateIs('failed')
  makeInterface()
  await until('it is open', () => sw.port('p0').error === undefined)
  expect(sw.port('p0')).toMatchObject({ held: true })
  const receiver = await lab.receive(hosts[1], 5)
  const frames = numbers(5).map((number) => frameHex(BROADCAST, SOURCE, number))
  const before = sw.port('p0').counters.rx_frames
  await lab.send(hosts[0], frames)
  await sw.currentCounters()
  expect(sw.port('p0').counters.rx_frames).toBe(before)
  await sw.release(['p0'])
  expect(await receiver.frames()).toEqual(frames)
  await expectPassing()
})

test('paused, it comes back as well, and its frames wait', async () => {
  await addAll()
  await expectPassing()
  await sw.pause()
  deleteInterface()
  await stateIs('failed')
  makeInterface()
  await until('it is open', () => sw.port('p0').error === undefined)
  const receiver = await lab.receive(hosts[1], 3)
  const frames = numbers(3).map((number) => frameHex(BROADCAST, SOURCE, number))
  await lab.send(hosts[0], frames)
  await sw.resume()
  expect(await receiver.frames()).toEqual(frames)
})

test('while its interface is gone a port can be changed, shut, captured, wired and removed', async () => {
  await addAll()
  await expectPassing()
  deleteInterface()
  await stateIs('failed')
  await sw.changePort({ type: 'raw-socket', id: 'p0', ifname: 'u0', netns: uplink, promisc: false })
  await sw.setLink('p0', false)
  await sw.addLink('p0', 'p1')
  await sw.removeLink('p0', 'p1')
  makeInterface()
  await stateIs('down')
  await until('it is open', () => log.some((line) => line.includes('open again')))
  // Its socket asks for nothing: what is changed is what counts.
  expect(sh('ip', '-n', uplink, '-d', 'link', 'show', 'u0')).toContain('promiscuity 0')
  expect(lab.ping(hosts[0], '10.0.0.2', 1)).toBe(0)
  await sw.setLink('p0', true)
  await expectPassing()
  deleteInterface()
  await stateIs('failed')
  await sw.removePort('p0')
  makeInterface()
  await add(0)
  await expectPassing()
  deleteInterface()
  await stateIs('failed')
})

test('its namespace is made anew: the port finds it by its name', async () => {
  await addAll()
  const name = lab.netns()
  const far = lab.netns()
  addPair(name, 'u3', far)
  lab.address(far, '10.0.0.4')
  await sw.addPort({ type: 'raw-socket', id: 'p3', ifname: 'u3', netns: name })
  await until('host 3 answers', () => lab.ping(far, '10.0.0.2', 1) === 1)
  sh('ip', '-n', name, 'link', 'del', 'u3')
  await stateIs('failed', 'p3')
  // Nobody tells of what is in another namespace of the same name.
  sh('ip', 'netns', 'del', name)
  sh('ip', 'netns', 'add', name)
  addPair(name, 'u3', far)
  lab.address(far, '10.0.0.4')
  await stateIs('open', 'p3')
  await until('host 3 answers again', () => lab.ping(far, '10.0.0.2', 1) === 1)
})

test('added and removed 100 times, nothing is left', async () => {
  await addAll()
  await expectPassing()
  await sw.removePort('p0')
  const maps = (): number =>
    readFileSync('/proc/self/maps', 'utf8').match(/socket:\[\d+\]/g)?.length ?? 0
  const before = [descriptors().join(), maps()]
  for (let round = 0; round < 100; round++) {
    const vnetHdr = round % 2 === 0
    await add(0, { 'ring-kb': 256, queues: 1 + (round % 3), vnet_hdr: vnetHdr })
    if (round % 10 === 0) await expectPassing()
    await sw.removePort('p0')
  }
  await until('nothing is left', () => {
    // What is closed is gone when the thread that waits for it has let go.
    const now = [descriptors().join(), maps()]
    return now.join() === before.join()
  })
  expect(sh('ip', '-n', uplink, '-d', 'link', 'show', 'u0')).toContain('promiscuity 0')
})

test('sockets of different namespaces are told apart, whatever numbers their interfaces have', async () => {
  const places = [lab.netns(), lab.netns()]
  const indexes = places.map((name, k) => {
    addPair(name, 'v', hosts[k], 'x9')
    return lab.exec(name, 'cat', '/sys/class/net/v/ifindex')
  })
  expect(indexes[0]).toBe(indexes[1])
  for (const [k, name] of places.entries()) {
    await sw.addPort(
      { type: 'raw-socket', id: `g${k}`, fd: 's' },
      new Map([['s', packetSocket(name, 'v')]]),
    )
  }
  const receiver = await lab.receiveAll(hosts[1], 'x9', 1)
  const sender = lab.start(hosts[0], lab.packetTool, 'send', 'x9')
  sender.child.stdin!.end(`${frameHex(BROADCAST, SOURCE, 7)}\n`)
  expect(await receiver.frames()).toEqual([frameHex(BROADCAST, SOURCE, 7)])
})

test('the end of the switch while ports are to follow is quiet', async () => {
  await addAll()
  await expectPassing()
  for (let round = 0; round < 5; round++) {
    const other = createSwitch({ io: IO as 'auto', log: (text) => log.push(text) })
    const id = `q${round}`
    addPair(uplink, 'w0', hosts[0], 'w0')
    await other.addPort({ type: 'raw-socket', id, ifname: 'w0', netns: uplink })
    sh('ip', '-n', uplink, 'link', 'del', 'w0')
    if (round > 0) void other.ports()
    if (round > 1) addPair(uplink, 'w0', hosts[0], 'w0')
    if (round > 2) void other.ports()
    await other.close()
    if (round > 1) sh('ip', '-n', uplink, 'link', 'del', 'w0')
  }
  expect(log.filter((line) => line.includes('closed'))).toEqual([])
  await expectPassing()
})

test('a daemon tells of it by events', async () => {
  await using other = new Lab()
  const { daemon, uplink: netns, hosts: far } = await rawStar(other, 2)
  const events: string[] = []
  daemon.client.events.on('event', (name: string, data: Record<string, unknown>) => {
    events.push(`${name} ${String(data['id'])} ${String(data['state'])}`)
  })
  const isTold = (event: string): Promise<void> =>
    until(`${event} is told`, () => events.includes(event))
  setLink(netns, 'u0', 'down')
  await isTold('PORT_LINK_CHANGED p0 down')
  setLink(netns, 'u0', 'up')
  await isTold('PORT_LINK_CHANGED p0 open')
  events.length = 0
  sh('ip', '-n', netns, 'link', 'del', 'u0')
  await isTold('PORT_LINK_CHANGED p0 failed')
  addPair(netns, 'u0', far[0])
  await isTold('PORT_LINK_CHANGED p0 open')
  for (const line of [
    'raw-socket p0: failed error=No such device: the interface u0',
    'raw-socket p0: open again ifname=u0',
  ]) {
    await until(`the log has ${line}`, () => daemon.process.stderr.includes(line))
  }
})
