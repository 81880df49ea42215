/**
 * The service manager's store of descriptors: a daemon that is killed leaves its TAPs to the one that comes
 * next, without a moment in which they are nobody's.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { shim } from '../../../src/native/shim.ts'
import { passOn } from '../../support/hand-over.ts'
import { Lab, tapSpec } from '../../support/lab.ts'
import { introduce, NumberedFlow } from '../../support/numbered-flow.ts'
import { sh, until } from '../../support/processes.ts'
import { addHosts, addPair, promiscuity, rawSpec } from '../../support/raw-lab.ts'
import { Supervisor } from '../../support/supervisor.ts'
import type { End } from '../../support/transfer.ts'
import { cli, execute, isAlive, tapQueuesOf } from '../../support/upgrades.ts'

const RATE_FPS = 500
/** Frames that a queue of a TAP holds: no test of that shall be one of how fast this machine starts a daemon. */
const TXQUEUELEN = '50000'
/** The killed one had read them. */
const LOST_MAX = 100

const ifindex = ({ netns }: End): string => sh('ip', '-n', netns, '-o', 'link', 'show', 'x0')

/** Two ends at TAPs, and options for them. None is persistent. */
function ends(lab: Lab, options = ''): { ends: End[]; args: string[] } {
  const two = [1, 2].map((k) => ({ netns: lab.netns(), address: `10.0.0.${k}` }))
  const args = two.flatMap(({ netns }, k) => ['--port', tapSpec(k, netns, options)])
  return { ends: two, args }
}

function setUp(lab: Lab, all: readonly End[]): void {
  for (const { netns, address } of all) {
    sh('ip', '-n', netns, 'link', 'set', 'x0', 'txqueuelen', TXQUEUELEN)
    lab.address(netns, address)
  }
  introduce(lab, ...all)
}

test.for([[''], ['queues=3']] as const)(
  'H9: TAPs that nobody made persistent outlive the daemon, and frames wait in them (%s)',
  async ([options]) => {
    await using lab = new Lab()
    const { ends: both, args } = ends(lab, options)
    await using supervisor = await Supervisor.start(lab, true, ...args)
    const queues = options === '' ? 1 : 3
    expect(supervisor.devices).toEqual({ 'tap-p0': queues, 'tap-p1': queues })
    setUp(lab, both)
    const before = both.map(ifindex)
    const [a, b] = both
    const flows = [
      await NumberedFlow.start(lab, a, b, 5400, RATE_FPS),
      await NumberedFlow.start(lab, b, a, 5401, RATE_FPS),
    ]
    const restarts: number[] = []
    for (let round = 0; round < 3; round++) {
      await Promise.all(flows.map((flow) => flow.more(100)))
      restarts.push(Math.round(await supervisor.kill()))
      expect(tapQueuesOf(supervisor.pid)).toBe(2 * queues)
    }
    await Promise.all(flows.map((flow) => flow.more(100)))
    console.log(`killed three times, ready again after ${restarts.join(', ')} ms`)
    for (const flow of flows) {
      const { sent, frames, duplicates } = await flow.end()
      console.log(`lost with the descriptor store: ${frames} of ${sent} frames`)
      expect(duplicates).toBe(0)
      expect(frames).toBeLessThan(LOST_MAX)
    }
    expect(both.map(ifindex)).toEqual(before)
    expect(supervisor.log).not.toContain('kept descriptors are not used')
    // What has not changed is not stored again; what goes is removed.
    expect(supervisor.told).toHaveLength(2)
    await execute(supervisor.control, 'netdev_del', { id: 'p1' })
    await until('it is removed', () => !supervisor.store.has('tap-p1'))
    expect(() => ifindex(b)).toThrow('does not exist')
    expect(await supervisor.stop()).toBe(0)
    expect(supervisor.devices).toEqual({})
    expect(() => ifindex(a)).toThrow('does not exist')
  },
)

test('after a hand-over they are the successor’s; what it opens is stored once it is the service', async () => {
  await using lab = new Lab()
  const { ends: both, args } = ends(lab)
  await using supervisor = await Supervisor.start(lab, true, '--privileges', 'off', ...args)
  setUp(lab, both)
  const first = supervisor.pid
  const [a, b] = both
  const before = ifindex(a)
  const flow = await NumberedFlow.start(lab, a, b, 5400, RATE_FPS)
  await flow.more(100)
  await execute(supervisor.control, 'migrate-set-parameters', { 'downtime-limit': 60_000 })
  const answer = await cli('upgrade', '--control', supervisor.control)
  expect(answer.stderr).toBe('')
  await until('another one is the service', () => supervisor.pid !== first && !isAlive(first))
  await until('it has stored them', () => supervisor.told.length >= 6)
  await until('nothing is lost', () => Object.keys(supervisor.devices).length === 2)
  const more = { type: 'tap', id: 'more', ifname: 'x1', netns: a.netns }
  await execute(supervisor.control, 'netdev_add', more)
  await until('it is stored', () => supervisor.store.has('tap-more'))
  // What is added by hand is nobody's to add again.
  await execute(supervisor.control, 'netdev_del', { id: 'more' })
  await supervisor.kill()
  await flow.more(100)
  expect(ifindex(a)).toBe(before)
  expect((await flow.end()).frames).toBeLessThan(LOST_MAX)
})

test('H9: others than the config’s are closed and named, and opened by name', async () => {
  await using lab = new Lab()
  const { ends: both } = ends(lab)
  const [a, b] = both
  const config = join(lab.directory, 'switch.yaml')
  const port = (id: string, k: number, more = ''): string =>
    `  - { id: ${id}, type: tap, ifname: x0, netns: ${both[k].netns}${more} }\n`
  writeFileSync(config, `ports:\n${port('p0', 0)}${port('p1', 1)}`)
  await using supervisor = await Supervisor.start(lab, true, '--config', config)
  const before = [a, b].map(ifindex)
  // Another header, which an open TAP cannot have.
  writeFileSync(config, `ports:\n${port('p0', 0)}${port('p1', 1, ', vnet_hdr: off')}`)
  supervisor.put('tap-gone', passOn(supervisor.store.get('tap-p0')![0]))
  supervisor.put('other', shim.open('/dev/null', 0))
  await supervisor.kill()
  expect(supervisor.log).toMatch(
    /tap p1: kept descriptors are not used because="x0 has vnet_hdr=on"/,
  )
  expect(supervisor.log).toContain('no port has taken name="tap-gone" of="/dev/net/tun"')
  expect(supervisor.log).toContain('no port has taken name="other" of="/dev/null"')
  await until('they are removed', () => Object.keys(supervisor.devices).length === 2)
  expect(supervisor.devices).toEqual({ 'tap-p0': 1, 'tap-p1': 1 })
  expect(ifindex(a)).toBe(before[0])
  expect(ifindex(b)).not.toBe(before[1])
  expect(tapQueuesOf(supervisor.pid)).toBe(2)
})

/** Of a ring; more than come while this machine starts a daemon. */
const RING = 'ring-kb=65536'
const RAW_RATE_FPS = 200
/** Read by the killed one, which may have forwarded it or not. */
const BURST_MAX = 256

test.for([[''], ['queues=3'], ['vnet_hdr=off']] as const)(
  'H9: raw sockets outlive the daemon with their rings, and frames wait in them (%s)',
  async ([options]) => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 2)
    const more = options === '' ? RING : `${RING},${options}`
    const args = hosts.flatMap((_, k) => ['--port', rawSpec(k, uplink, more)])
    await using supervisor = await Supervisor.start(lab, true, ...args)
    const queues = options === 'queues=3' ? 3 : 1
    expect(supervisor.devices).toEqual({ 'raw-socket-p0': queues, 'raw-socket-p1': queues })
    const [a, b] = hosts.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
    for (const { netns, address } of [a, b]) lab.address(netns, address)
    introduce(lab, a, b)
    const flows = [
      await NumberedFlow.start(lab, a, b, 5400, RAW_RATE_FPS),
      await NumberedFlow.start(lab, b, a, 5401, RAW_RATE_FPS),
    ]
    for (let round = 0; round < 3; round++) {
      await Promise.all(flows.map((flow) => flow.more(50)))
      await supervisor.kill()
      expect(promiscuity(uplink)).toEqual(['1', '1'])
    }
    await Promise.all(flows.map((flow) => flow.more(50)))
    expect(supervisor.log.match(/goes on with kept descriptors/g)).toHaveLength(6)
    expect(supervisor.told).toHaveLength(2)
    for (const flow of flows) {
      const { sent, frames, duplicates } = await flow.end()
      console.log(`raw sockets: lost ${frames}, twice ${duplicates} of ${sent} frames`)
      expect(frames).toBeLessThan(LOST_MAX)
      expect(duplicates).toBeLessThan(3 * BURST_MAX)
    }
    await execute(supervisor.control, 'netdev_del', { id: 'p1' })
    await until('it is removed', () => !supervisor.store.has('raw-socket-p1'))
    expect(promiscuity(uplink)).toEqual(['1', '0'])
    expect(await supervisor.stop()).toBe(0)
    expect(supervisor.devices).toEqual({})
    expect(promiscuity(uplink)).toEqual(['0', '0'])
  },
)

test('H9: a raw socket whose ring nothing has come into since is read on where the kernel fills it', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  const args = hosts.flatMap((_, k) => ['--port', rawSpec(k, uplink, 'ring-kb=256')])
  await using supervisor = await Supervisor.start(lab, true, ...args)
  const [a, b] = hosts.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
  for (const { netns, address } of [a, b]) lab.address(netns, address)
  introduce(lab, a, b)
  // A ring of three slots: each time it stands somewhere else. More than three pings at once it may not hold.
  const passesTwo = (): void => expect(lab.ping(a.netns, b.address, 2)).toBe(2)
  for (let round = 0; round < 4; round++) {
    passesTwo()
    await supervisor.kill()
  }
  for (let round = 0; round < 10; round++) passesTwo()
  expect(supervisor.log).not.toContain('kept descriptors are not used')
})

test('H9: raw sockets of another interface, header or ring are closed and opened by name', async () => {
  await using lab = new Lab()
  const { uplink } = addHosts(lab, 4)
  const config = join(lab.directory, 'switch.yaml')
  const ports = (...options: string[]): void =>
    writeFileSync(
      config,
      `ports:\n${options
        .map((more, k) => `  - { id: r${k}, type: raw-socket, netns: ${uplink}${more} }\n`)
        .join('')}`,
    )
  const names = [0, 1, 2, 3].map((k) => `, ifname: u${k}`)
  ports(...names)
  await using supervisor = await Supervisor.start(lab, true, '--config', config)
  const changed = [', vnet_hdr: off', ', ring-kb: 512', ', queues: 2', '']
  ports(...changed.map((more, k) => names[k] + more))
  sh('ip', '-n', uplink, 'link', 'set', 'u3', 'down')
  sh('ip', '-n', uplink, 'link', 'set', 'u3', 'name', 'other')
  addPair(uplink, 'u3', lab.netns())
  await supervisor.kill()
  const said = (id: string, why: string): void =>
    expect(supervisor.log).toMatch(
      new RegExp(`raw-socket ${id}: kept descriptors are not used because=".*${why}`),
    )
  said('r0', 'they have vnet_hdr=on')
  said('r1', 'has no ring of')
  said('r2', '1 descriptors for 2 queues')
  said('r3', 'is bound to interface')
  const want = { 'raw-socket-r0': 1, 'raw-socket-r1': 1, 'raw-socket-r2': 2, 'raw-socket-r3': 1 }
  await until('the store has the new ones', () => supervisor.told.length >= 12)
  expect(supervisor.devices).toEqual(want)
})

test('a device that was deleted meanwhile is made again', async () => {
  await using lab = new Lab()
  const { ends: both, args } = ends(lab)
  await using supervisor = await Supervisor.start(lab, true, ...args)
  setUp(lab, both)
  const [a, b] = both
  process.kill(supervisor.pid, 'SIGSTOP')
  sh('ip', '-n', b.netns, 'link', 'del', 'x0')
  await supervisor.kill()
  expect(supervisor.log).toContain('tap p1: kept descriptors are not used because="TUNGETIFF:')
  lab.address(b.netns, b.address)
  sh('ip', '-n', a.netns, 'neigh', 'flush', 'nud', 'permanent')
  expect(lab.ping(a.netns, b.address)).toBe(3)
  await until('both are stored', () => Object.keys(supervisor.devices).length === 2)
  expect(supervisor.devices).toEqual({ 'tap-p0': 1, 'tap-p1': 1 })
})
