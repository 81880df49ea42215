/** The data plane allocates nothing: no garbage collection is caused by frames. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { F_VERSION_1 } from '../support/front-end.ts'
import { CLI, IFNAME, IO, Lab, tapSpec } from '../support/lab.ts'
import type { Background } from '../support/processes.ts'
import { until } from '../support/processes.ts'
import { addAddresses, addHosts, rawSpec } from '../support/raw-lab.ts'
import { frame } from '../support/sim.ts'
import { S_TAG, tagged } from '../support/vlan-frames.ts'
import { VhostGuest } from '../support/vhost-guest.ts'

const FRAMES = 1_000_000
/**
 * Until its code is compiled and the start-up's own garbage is gone, a daemon may collect:
 * with merged frames, of which a million are few bursts, that takes more than one round.
 * Garbage of as little as two bytes a frame would show in every round.
 */
const ROUNDS = 4
const F_RING_PACKED = 1n << 34n
const F_EVENT_IDX = 1n << 29n
const F_MRG_RXBUF = 1n << 15n
const TURNS = 256

/** A daemon that tells of each collection of any of its threads. */
async function tracedDaemon(lab: Lab, ports: readonly string[]): Promise<Background> {
  const control = ['--control', `${lab.directory}/control.sock`]
  const specs = ports.flatMap((port) => ['--port', port])
  const command = ['--trace-gc', CLI, 'run', '--io', IO, ...control, ...specs]
  const daemon = lab.background(process.execPath, command)
  await lab.ready(daemon)
  return daemon
}

/** `pump` passes so many frames through the switch, and more: one round of it without collection. */
async function expectNoCollection(
  daemon: Background,
  pump: (frames: number) => Promise<void>,
): Promise<void> {
  const collections = (): string[] =>
    daemon.stdout.split('\n').filter((line) => /Scavenge|Mark-Compact/.test(line))
  let last: string[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const before = collections().length
    await pump(FRAMES)
    last = collections().slice(before)
    if (last.length === 0) break
  }
  expect(last).toEqual([])
  // Otherwise the trace would not work, and the test could not fail.
  expect(collections()).not.toEqual([])
}

const arrivedIn = (lab: Lab, netns: string): number =>
  Number(lab.exec(netns, 'cat', `/sys/class/net/${IFNAME}/statistics/rx_packets`))

test.each([
  ['a million frames', ''],
  ['a million frames that are given a tag', ',tag=10'],
])('%s cause no scavenge', { timeout: 120_000 }, async (_, vlan) => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const daemon = await tracedDaemon(
    lab,
    netns.map((name, k) => tapSpec(k, name, `vnet_hdr=off${k === 0 ? vlan : ''}`)),
  )
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  /** Offers frames until so many have come out at the far end. */
  await expectNoCollection(daemon, async (count) => {
    const goal = arrivedIn(lab, netns[1]) + count
    while (arrivedIn(lab, netns[1]) < goal) {
      await lab.flood(netns[0], 200_000, 60, lab.mac(netns[1])).exited
    }
  })
})

test('nor do segmentation and merging', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const daemon = await tracedDaemon(lab, [
    tapSpec(0, netns[0], 'vnet_hdr=on'),
    tapSpec(1, netns[1], 'vnet_hdr=off'),
  ])
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  const transfer = async (...direction: string[]): Promise<void> => {
    const server = lab.start(netns[1], 'iperf3', '-s', '-1')
    await until('the server listens', () =>
      lab.exec(netns[1], 'ss', '-Hltn', 'sport = :5201').includes('5201'),
    )
    const client = lab.start(netns[0], 'iperf3', '-c', '10.0.0.2', ...direction)
    expect(await client.exited).toBe(0)
    await server.exited
  }
  await expectNoCollection(daemon, async (count) => {
    const bytes = String((count / 2) * 1448)
    await transfer('-n', bytes)
    await transfer('-R', '-n', bytes)
  })
})

test(
  'nor do copies for mirrors, cut and whole, filtered, into a VLAN and to another host',
  { timeout: 120_000 },
  async () => {
    await using lab = new Lab()
    const netns = [lab.netns(), lab.netns()]
    // Copies into a VLAN go to the last one, which takes its tag off again.
    const outputs = ['m0', 'm1', 'm2,tag=9'].map((id) => `virtio-net,id=${id},driver=sink`)
    const specs = netns.map((name, k) => tapSpec(k, name, 'vnet_hdr=off,tag=10'))
    const daemon = await tracedDaemon(lab, [...specs, ...outputs])
    const client = await ControlClient.connect(join(lab.directory, 'control.sock'))
    const selected = { 'select-src-port': ['p0'], 'select-dst-port': ['p1'] }
    const all = { 'filter-program': '1,6 0 0 1' }
    const none = { 'filter-program': '2,48 0 0 0,6 0 0 0' }
    const first = { name: 'a', ...selected, 'output-port': 'm0', snaplen: 40, ...all }
    await client.execute('mirror-add', first)
    await client.execute('mirror-add', { name: 'b', ...selected, 'output-port': 'm1' })
    // These are looked at as they leave.
    for (const [name, filter] of Object.entries({ e: all, f: none })) {
      const leaving = { name, 'select-dst-port': ['p1'], 'output-port': 'm1', ...filter }
      await client.execute('mirror-add', leaving)
    }
    await client.execute('mirror-add', { name: 'c', ...selected, 'output-vlan': 9, snaplen: 40 })
    const erspan = { 'remote-ip': '127.0.0.1', version: 2, 'session-id': 1 }
    await client.execute('mirror-add', { name: 'd', ...selected, erspan, snaplen: 40 })
    client.close()
    netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
    await expectNoCollection(daemon, async (count) => {
      const goal = arrivedIn(lab, netns[1]) + count
      while (arrivedIn(lab, netns[1]) < goal) {
        await lab.flood(netns[0], 200_000, 60, lab.mac(netns[1])).exited
      }
    })
  },
)

test('nor do those of raw sockets, with and without vnet_hdr', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  const options = ['vnet_hdr=on,queues=2', 'vnet_hdr=off']
  const daemon = await tracedDaemon(
    lab,
    options.map((option, k) => rawSpec(k, uplink, option)),
  )
  addAddresses(lab, hosts)
  await expectNoCollection(daemon, async (count) => {
    for (const [from, to] of [hosts, hosts.toReversed()]) {
      const goal = arrivedIn(lab, to) + count / 8
      while (arrivedIn(lab, to) < goal) {
        await lab.flood(from, 50_000, 60, lab.mac(to)).exited
      }
    }
  })
})

test('nor do those of in-process devices and their drivers', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const devices = ['sink', 'generate'].map((driver) => `virtio-net,id=${driver},driver=${driver}`)
  const daemon = await tracedDaemon(lab, [tapSpec(0, netns), ...devices])
  lab.address(netns, '10.0.0.1')
  // Nobody has the generator's destination: the sink and the TAP get every frame.
  await expectNoCollection(daemon, async (count) => {
    const goal = arrivedIn(lab, netns) + count
    await until('so many have come', () => arrivedIn(lab, netns) >= goal, 60_000)
  })
})

test.each([
  ['split', F_VERSION_1],
  ['split, event_idx and mergeable', F_VERSION_1 | F_EVENT_IDX | F_MRG_RXBUF],
  ['packed', F_VERSION_1 | F_RING_PACKED],
  ['packed, event_idx and mergeable', F_VERSION_1 | F_RING_PACKED | F_EVENT_IDX | F_MRG_RXBUF],
])('nor do those of vhost-user guests: %s', { timeout: 120_000 }, async (_kind, features) => {
  await expectNoneOfGuests(features, ['', ''], [frame(2, 1, 0), frame(1, 2, 0)])
})

const PRIORITY = { vid: 0, pcp: 5 }
const S_TAGGED = { tpid: S_TAG, vid: 10 }
const TAGGED = { vid: 10, pcp: 5 }

test.each([
  ['pushed and popped', ['tag=10', 'trunks=10'], [], [10]],
  [
    'rewritten',
    ['vlan-mode=native-untagged,tag=10,priority-tags=if-nonzero', 'trunks=10'],
    [PRIORITY],
    [TAGGED],
  ],
  [
    'pushed and popped by a tunnel',
    ['vlan-mode=dot1q-tunnel,tag=10', 'trunks=10'],
    [7],
    [S_TAGGED, 7],
  ],
])('nor do those whose tags are %s', { timeout: 120_000 }, async (_, options, near, far) => {
  const frames = [tagged(frame(2, 1, 0), ...near), tagged(frame(1, 2, 0), ...far)]
  await expectNoneOfGuests(F_VERSION_1, options, frames)
})

/** Two guests send to each other, by ports with these options. */
async function expectNoneOfGuests(
  features: bigint,
  options: readonly string[],
  frames: readonly Uint8Array[],
): Promise<void> {
  await using lab = new Lab()
  const paths = [0, 1].map((k) => `${lab.directory}/g${k}.sock`)
  const daemon = await tracedDaemon(
    lab,
    paths.map((path, k) => `vhost-user,id=g${k},path=${path},${options[k]}`.replace(/,$/, '')),
  )
  const guests = [
    await VhostGuest.start(paths[0], features, frames[0]),
    await VhostGuest.start(paths[1], features, frames[1]),
  ]
  const received = (): number => guests[0].received + guests[1].received
  try {
    await expectNoCollection(daemon, async (count) => {
      const goal = received() + count
      while (received() < goal) {
        for (let turn = 0; turn < TURNS; turn++) for (const guest of guests) guest.turn()
        // What the daemon tells is read here.
        await new Promise((resolve) => setImmediate(resolve))
      }
    })
    // Both ways.
    for (const guest of guests) expect(guest.received).toBeGreaterThan(FRAMES / 10)
  } finally {
    for (const guest of guests) guest.close()
  }
}
