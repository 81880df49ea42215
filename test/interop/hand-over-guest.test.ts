/**
 * QEMU's functional test of a TAP whose descriptors move (tests/functional, "tap migration"), with a guest behind a
 * link to the TAP and a switch that is replaced in the place of a QEMU:
 *
 *     flood ping -- x0 [netns] -- TAP, 4 queues -- link -- vhost-user port -- QEMU, Linux
 *
 * There a ping may be lost while nothing runs. Here none is, and without the feature those only for which the guest
 * was without its connection.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/lab.ts'
import { IFNAME, Lab } from '../support/lab.ts'
import {
  longestSilenceOf,
  repliesOf,
  SteadyPing,
  unansweredOf,
  wrongRepliesOf,
} from '../support/pings.ts'
import { sh, until } from '../support/processes.ts'
import type { Guest } from '../support/qemu.ts'
import { bootGuest } from '../support/qemu.ts'
import { makeTap, tunState } from '../support/tun.ts'

const TAP_MAC = 'e6:1d:44:b5:03:5d'
const GUEST_MAC = '52:54:00:00:00:11'
const [HOST, GUEST] = ['10.0.1.1', '10.0.1.2']
const QUEUES = 4
/** Between what is done and what a ping says of it. */
const EPS_MS = 50
/** After 3 s; what comes back may be read late. */
const FORGOTTEN_MS = 1000
/** What waits while the switch is stopped for seconds comes at once: it fits into the TAP's queue and the guest's ring. */
const FLOOD_MS = 10
const ROOMY_RING = 'rx_queue_size=1024'
const SECOND_TAP = 'x1'

interface Rig {
  readonly netns: string
  readonly ports: readonly string[]
  readonly source: Daemon
  readonly guest: Guest
  readonly ping: SteadyPing
}

/** The guest's NIC on a TAP of its own. */
const portsOn = (lab: Lab, netns: string, ifname: string): string[] => {
  const tap = `tap,id=p0,ifname=${ifname},netns=${netns},queues=${QUEUES},vnet_hdr=on,persist=on`
  const guest = `vhost-user,id=g0,path=${join(lab.directory, 'guest.sock')},queues=${QUEUES}`
  const scripts = 'script=no,downscript=no'
  return ['--port', `${tap},${scripts}`, '--port', guest, '--link', 'p0,g0']
}

/** The host has its address at that interface, and knows the guest. */
function setAddress(netns: string, ifname: string): void {
  sh('ip', '-n', netns, 'link', 'set', ifname, 'address', TAP_MAC)
  sh('ip', '-n', netns, 'addr', 'add', `${HOST}/24`, 'dev', ifname)
  const to = ['lladdr', GUEST_MAC, 'dev', ifname, 'nud', 'permanent']
  sh('ip', '-n', netns, 'neigh', 'replace', GUEST, ...to)
}

/** The guest runs on the source and answers a flood ping. */
async function begin(lab: Lab): Promise<Rig> {
  const netns = lab.netns()
  makeTap(netns, QUEUES)
  const ports = portsOn(lab, netns, IFNAME)
  const source = await lab.daemon(...ports)
  setAddress(netns, IFNAME)
  const guest = await bootGuest(lab, {
    socket: join(lab.directory, 'guest.sock'),
    mac: GUEST_MAC,
    address: `${GUEST}/24`,
    queues: 2,
    device: ROOMY_RING,
    reconnect: true,
  })
  await guest.output(`arp -s ${HOST} ${TAP_MAC}`)
  await areThere(lab, netns, guest)
  await areAttached(source, 2)
  const ping = new SteadyPing(lab, netns, GUEST, FLOOD_MS, '-O', '-D')
  await isAnswered(ping)
  return { netns, ports, source, guest, ping }
}

/** The two answer each other. */
async function areThere(lab: Lab, netns: string, guest: Guest): Promise<void> {
  await until('the host answers', async () => (await guest.ping(HOST, 1)) === 1)
  await until('the guest answers', () => lab.ping(netns, GUEST, 1) === 1)
}

/** So many queues of the TAP: what the guest does not use is taken away after a while. */
async function areAttached(daemon: Daemon, attached: number): Promise<void> {
  const isAttached = async (): Promise<boolean> =>
    (await daemon.port('p0'))['queues-attached'] === attached
  await until(`${attached} queues are attached`, isAttached)
  expect(await daemon.port('p0')).toMatchObject({ queues: QUEUES })
}

/** So many more, which takes half a second or longer. */
async function isAnswered(ping: SteadyPing, more = 50): Promise<void> {
  const { answered } = ping
  await until('the flood ping is answered', () => ping.answered > answered + more)
}

const statusOf = (daemon: Daemon): Promise<{ status: string }> => daemon.execute('query-status')

/** Both say that it has completed. */
async function migrate(lab: Lab, { source, ports }: Rig, isLocal: boolean): Promise<Daemon> {
  const uri = `unix:${join(lab.directory, 'migration.sock')}`
  const transfer = isLocal ? 'on' : 'off'
  const own = isLocal ? [] : ports
  const incoming = ['--incoming', uri, '--backend-transfer', transfer, ...own]
  const target = await lab.successor(source.control, ...incoming)
  await source.execute('migrate-set-parameters', { local: isLocal, 'downtime-limit': 60_000 })
  await source.execute('migrate', { uri })
  for (const daemon of [source, target]) {
    await until('it has completed', async () => {
      const info = await daemon.execute<{ status?: string; 'error-desc'?: string }>('query-migrate')
      if (info.status === 'failed') throw new Error(info['error-desc'])
      return info.status === 'completed'
    })
  }
  expect(await statusOf(source)).toMatchObject({ status: 'postmigrate' })
  return target
}

/** Nobody needs the source any more: the network goes on both ways. */
async function quitSource(lab: Lab, { source, netns, guest, ping }: Rig): Promise<void> {
  if (source.process.isRunning) await source.execute('quit')
  expect(await source.process.exited).toBe(0)
  await areThere(lab, netns, guest)
  await isAnswered(ping)
  await ping.end()
}

/** Every ping was answered once, before and after this, or was asked in that time. */
function expectLossWithin(ping: SteadyPing, stopMs: number, resumeMs: number): void {
  const { output } = ping
  const times = repliesOf(output).map(({ atMs }) => atMs)
  expect(times[0]).toBeLessThan(stopMs)
  expect(times.at(-1)).toBeGreaterThan(resumeMs)
  const outside = unansweredOf(output).filter(
    ({ afterMs, beforeMs }) => beforeMs < stopMs - EPS_MS || afterMs > resumeMs + EPS_MS,
  )
  expect(outside).toEqual([])
}

test.each([
  { how: 'it is stopped first, and told to go on, as there', isStopped: true },
  { how: 'it runs', isStopped: false },
])('tap_fd_migration: $how: no ping is lost', async ({ isStopped }) => {
  await using lab = new Lab()
  const rig = await begin(lab)
  const { source, guest, ping, netns } = rig
  const carrier = await guest.output('cat /sys/class/net/eth0/carrier_changes')
  if (isStopped) await source.execute('stop')
  const target = await migrate(lab, rig, true)
  expect(await statusOf(target)).toMatchObject({ status: isStopped ? 'paused' : 'running' })
  if (isStopped) await target.execute('cont')
  await quitSource(lab, rig)
  const { missing, doubled, overtaken } = wrongRepliesOf(ping.output)
  expect({ missing, doubled }).toEqual({ missing: [], doubled: [] })
  // When nothing comes back a TAP forgets which queue a flow has, and the guest has two.
  if (longestSilenceOf(ping.output) < FORGOTTEN_MS) expect(overtaken).toEqual([])
  expect(ping.answered).toBeGreaterThan(100)
  expect(await guest.output('cat /sys/class/net/eth0/carrier_changes')).toBe(carrier)
  expect(tunState(netns)).toMatchObject({ held: QUEUES, isRunning: true })
  await areAttached(target, 2)
})

/** The guest has its connection again, and its kernel knows. */
const isBack = (guest: Guest): Promise<void> =>
  until('the guest is back', async () => (await guest.ping(HOST, 1)) === 1, 60_000)

test('the feature off: the target opens the TAP by its name; pings are lost only while the guest is cut off', async () => {
  await using lab = new Lab()
  const rig = await begin(lab)
  const { source, guest, ping, netns } = rig
  const stopMs = Date.now()
  await source.execute('stop')
  const target = await migrate(lab, rig, false)
  expect(await statusOf(target)).toMatchObject({ status: 'paused' })
  await target.execute('cont')
  await isBack(guest)
  const resumeMs = Date.now()
  await quitSource(lab, rig)
  expectLossWithin(ping, stopMs, resumeMs)
  expect(tunState(netns)).toMatchObject({ held: QUEUES, isRunning: true })
  expect(await target.port('g0')).toMatchObject({ state: 'connected' })
})

test('tap_new_tap_migration: the target has a TAP of its own, to which the host moves its address', async () => {
  await using lab = new Lab()
  const rig = await begin(lab)
  const { source, guest, ping, netns } = rig
  makeTap(netns, QUEUES, SECOND_TAP)
  const incoming = ['--incoming', 'defer', ...portsOn(lab, netns, SECOND_TAP)]
  const target = await lab.successor(source.control, ...incoming)
  expect(await target.port('p0')).toMatchObject({ state: 'postponed' })
  const stopMs = Date.now()
  await source.execute('stop')
  // The socket of the guest's port is the source's until that ends.
  await source.execute('quit')
  await source.process.exited
  await target.execute('migrate-incoming')
  sh('ip', '-n', netns, 'addr', 'flush', 'dev', IFNAME)
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'address', '02:00:00:00:00:01')
  setAddress(netns, SECOND_TAP)
  await target.execute('cont')
  await isBack(guest)
  const resumeMs = Date.now()
  await quitSource(lab, rig)
  expectLossWithin(ping, stopMs, resumeMs)
  expect(tunState(netns, SECOND_TAP)).toMatchObject({ held: QUEUES, isRunning: true })
  expect(tunState(netns)).toMatchObject({ held: 0 })
})
