/**
 * A switch that has something of everything, with traffic by each of its ports, for many hand-overs in a row:
 *
 *     n0..n5  x0 -- p0..p5 +                + r0 -- u0 === x0  h0
 *                          |     switch     + g0 -- QEMU, 1 queue pair, split
 *       [replay] -- from --+                + d0, d1 -- testpmd: split and packed, whose frames leave by the other one
 *       [record] -- into --+
 *     n6  x0 -- p6 -- link -- g1 -- QEMU, 2 of 4 queue pairs, packed
 *     n7  x0 -- p7 -- link -- f0 -- SoakPeer, 1 of 4 queue pairs
 *
 * All TAPs have 4 queues. What a program or the kernel could lose by itself has room for many seconds.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { enhancedPacket, interfaceDescription, sectionHeader } from '../../src/wire/pcapng.ts'
import type { Daemon, Lab } from './lab.ts'
import { frameHex, IFNAME } from './lab.ts'
import type { UdpPlace } from './numbered-udp.ts'
import { inGuest, inNetns } from './numbered-udp.ts'
import { sh, until } from './processes.ts'
import type { Guest } from './qemu.ts'
import { startGuest } from './qemu.ts'
import { addPair } from './raw-lab.ts'
import { frame } from './sim.ts'
import { SoakPeer } from './soak-peer.ts'
import type { Testpmd } from './testpmd.ts'
import { startTestpmd, testpmdMac } from './testpmd.ts'
import { Line } from './upgrades.ts'

const TAPS = 8
export const QUEUES = 4
const ADDRESSES = 1000
/** Frames of the replay, which may take longer than the soak. */
const REPLAYED = 60_000
const REPLAY_STEP_NS = 10_000_000n
/** Where its frames go; that port never sends any. */
export const RECORDER = 0xee
const GUESTS = [
  { id: 'g0', address: '10.0.0.11', mac: '52:54:00:00:00:11', queues: 1, device: 'packed=off' },
  { id: 'g1', address: '10.0.0.12', mac: '52:54:00:00:00:12', queues: 2, device: 'packed=on' },
] as const
/** For 2000 frames. */
const RING_KB = 131_072
const ROOMY_RINGS = 'rx_queue_size=1024,tx_queue_size=1024'

export type NetnsPlace = ReturnType<typeof inNetns>

export class SoakBed implements AsyncDisposable {
  readonly lab: Lab
  readonly line: Line
  /** n0..n7, then h0. */
  readonly places: readonly NetnsPlace[]
  readonly guests: readonly Guest[]
  readonly guestPlaces: readonly UdpPlace[]
  readonly testpmd: Testpmd
  readonly peer: SoakPeer
  readonly namespaces: readonly string[]

  private constructor(parts: Omit<SoakBed, typeof Symbol.asyncDispose | 'file'>) {
    this.lab = parts.lab
    this.line = parts.line
    this.places = parts.places
    this.guests = parts.guests
    this.guestPlaces = parts.guestPlaces
    this.testpmd = parts.testpmd
    this.peer = parts.peer
    this.namespaces = parts.namespaces
  }

  /** Everything runs, knows each other, and is quiet but for the replay. */
  static async start(lab: Lab): Promise<SoakBed> {
    const taps = Array.from({ length: TAPS }, () => lab.netns())
    const [uplink, host] = [lab.netns(), lab.netns()]
    addPair(uplink, 'u0', host)
    const namespaces = [...taps, host, uplink]
    const daemon = await lab.daemon('--config', writeConfig(lab, taps, uplink))
    const hosts = [...taps, host]
    const places = hosts.map((netns, k) => {
      lab.address(netns, `10.0.0.${k + 1}`)
      return inNetns(lab, k < TAPS ? `n${k}` : 'h0', netns, `10.0.0.${k + 1}`)
    })
    for (const { netns } of places) {
      sh('ip', '-n', netns, 'link', 'set', IFNAME, 'txqueuelen', '20000')
    }
    // Guests boot while the rest is set up.
    const guests = GUESTS.map(({ id, address, mac, queues, device }) => {
      const socket = join(lab.directory, `${id}.sock`)
      const nic = { socket, mac, address: `${address}/24`, device: `${device},${ROOMY_RINGS}` }
      return startGuest(lab, { ...nic, queues })
    })
    const peer = await SoakPeer.start(join(lab.directory, 'f0.sock'), taps[7])
    const testpmd = await startForwarder(lab, daemon, places)
    await Promise.all(guests.map((guest) => guest.booted()))
    const guestPlaces = GUESTS.map(({ id, address, mac }, k) =>
      inGuest(guests[k], id, address, mac),
    )
    await teach(lab, places[0])
    await introduceAll(places, guestPlaces)
    await areOpen(daemon)
    const line = new Line(daemon)
    const parts = { lab, line, places, guests, guestPlaces, testpmd, peer, namespaces }
    return new SoakBed(parts)
  }

  file(name: string): string {
    return join(this.lab.directory, name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.peer.close()
    await this.line[Symbol.asyncDispose]()
  }
}

/** Ports of the switch as its config has them; files are in the lab's directory. */
function writeConfig(lab: Lab, taps: readonly string[], uplink: string): string {
  const file = (name: string): string => join(lab.directory, name)
  writeReplay(file('replay.pcapng'))
  const guestPort = (id: string, queues: number): object => ({
    id,
    type: 'vhost-user',
    path: file(`${id}.sock`),
    queues,
  })
  mkdirSync(file('state'), { mode: 0o700 })
  const config = {
    'state-dir': file('state'),
    switch: { 'mac-aging-s': 3600 },
    ports: [
      ...taps.map((netns, k) => ({
        id: `p${k}`,
        type: 'tap',
        ifname: IFNAME,
        netns,
        queues: QUEUES,
        up: true,
      })),
      { id: 'r0', type: 'raw-socket', ifname: 'u0', netns: uplink, 'ring-kb': RING_KB },
      guestPort('g0', 1),
      guestPort('g1', QUEUES),
      guestPort('f0', QUEUES),
      guestPort('d0', 1),
      guestPort('d1', 1),
      { id: 'into', type: 'pcap', record: file('record.pcapng') },
      { id: 'from', type: 'pcap', replay: file('replay.pcapng') },
    ],
    links: [
      ['p6', 'g1'],
      ['p7', 'f0'],
    ],
    fdb: [{ mac: `02:00:00:00:00:${RECORDER.toString(16)}`, port: 'into' }],
  }
  writeFileSync(file('switch.yaml'), stringify(config))
  return file('switch.yaml')
}

function writeReplay(path: string): void {
  const blocks = [sectionHeader('test'), interfaceDescription('x', 'x', 0)]
  for (let n = 0; n < REPLAYED; n++) {
    blocks.push(enhancedPacket(0, BigInt(n) * REPLAY_STEP_NS, frame(RECORDER, 3, n), 60, 0))
  }
  writeFileSync(path, Buffer.concat(blocks))
}

/** What n2 sends to n3, and back, goes through testpmd, in by one of its ports and out by the other. */
async function startForwarder(
  lab: Lab,
  daemon: Daemon,
  places: readonly NetnsPlace[],
): Promise<Testpmd> {
  const common = 'queues=1,queue_size=1024,mrg_rxbuf=1'
  const testpmd = await startTestpmd(lab, {
    devices: [
      `path=${join(lab.directory, 'd0.sock')},${common}`,
      `path=${join(lab.directory, 'd1.sock')},${common},packed_vq=1,in_order=1`,
    ],
    niceness: 5,
  })
  await testpmd.command(`set eth-peer 0 ${places[2].mac}`)
  await testpmd.command(`set eth-peer 1 ${places[3].mac}`)
  await testpmd.command('set fwd mac')
  // Frames for an address that is not known would go round: out by one port, and in by all.
  for (const { netns, mac } of [places[2], places[3]]) {
    await lab.send(netns, [frameHex('ff:ff:ff:ff:ff:ff', mac, 0)])
  }
  await until('the switch knows them', async () => {
    const table = await daemon.execute<{ mac: string }[]>('query-mac-table')
    return [places[2], places[3]].every(({ mac }) => table.some((entry) => entry.mac === mac))
  })
  await testpmd.command('start')
  return testpmd
}

/** The switch learns as many addresses. */
async function teach(lab: Lab, { netns }: NetnsPlace): Promise<void> {
  const frames = Array.from({ length: ADDRESSES }, (_, n) =>
    frameHex('ff:ff:ff:ff:ff:ff', learntAddress(n), n),
  )
  await lab.send(netns, frames)
}

const learntAddress = (n: number): string => {
  const hex = n.toString(16).padStart(4, '0')
  return `02:aa:00:00:${hex.slice(0, 2)}:${hex.slice(2)}`
}

/** Those of the table that were taught. */
export function learntAt(table: readonly { mac: string; port: string }[], port: string): number {
  return table.filter((entry) => entry.mac.startsWith('02:aa:') && entry.port === port).length
}

/** Nobody asks for an address any more; n2 and n3 know each other behind testpmd. */
async function introduceAll(
  places: readonly NetnsPlace[],
  guests: readonly UdpPlace[],
): Promise<void> {
  for (const [a, b] of pairsOf(places, guests)) {
    const isForwarded = a === places[2]
    await a.neighbour(b.address, isForwarded ? testpmdMac(0) : b.mac)
    await b.neighbour(a.address, isForwarded ? testpmdMac(1) : a.mac)
    const isThere = async (): Promise<boolean> => (await a.ping(b.address, 1)) === 1
    await until(`${b.name} answers ${a.name}`, isThere)
    await until(`${a.name} answers ${b.name}`, async () => (await b.ping(a.address, 1)) === 1)
  }
}

/** Between which places frames pass, by which kinds of ports. */
export function pairsOf(
  places: readonly NetnsPlace[],
  guests: readonly UdpPlace[],
): readonly (readonly [NetnsPlace, UdpPlace])[] {
  return [
    [places[0], places[1]],
    [places[2], places[3]],
    [places[4], places[8]],
    [places[5], guests[0]],
    [places[6], guests[1]],
  ]
}

async function areOpen(daemon: Daemon): Promise<void> {
  await until('all ports are open', async () => {
    const ports = await daemon.execute<{ state: string }[]>('query-ports')
    return ports.every(({ state }) => ['open', 'connected'].includes(state))
  })
}
