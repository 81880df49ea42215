/** A reload changes in place what can be: nothing of the port is lost, and of no other one. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { DOZES } from '../../../src/engine/doze.ts'
import { pcapFile } from '../../support/capture-files.ts'
import { FrontEnd } from '../../support/front-end.ts'
import type { Daemon } from '../../support/lab.ts'
import { frameHex, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { frame } from '../../support/sim.ts'
import { makeTap, numbers, tunDescriptors } from '../../support/tun.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SENDER = '02:00:00:00:00:01'
/** As many as a TAP's queue in the kernel holds for sure. */
const BURST = 500

type Options = Readonly<Record<string, unknown>>
type Settings = Readonly<Record<string, unknown>>

interface Reloaded {
  readonly actions: string[]
  readonly 'needs-restart': string[]
}

class Configured {
  readonly file: string
  daemon!: Daemon

  constructor(lab: Lab) {
    this.file = join(lab.directory, 'config.json')
  }

  /** JSON is YAML, too. */
  write(ports: readonly Options[], settings: Settings = {}): void {
    writeFileSync(this.file, JSON.stringify({ ...settings, ports }))
  }

  async start(lab: Lab, ports: readonly Options[], settings: Settings = {}): Promise<this> {
    this.write(ports, settings)
    this.daemon = await lab.daemon('--config', this.file)
    return this
  }

  reload(ports: readonly Options[], settings: Settings = {}): Promise<Reloaded> {
    this.write(ports, settings)
    return this.daemon.execute<Reloaded>('config-reload')
  }
}

const tap = (id: string, netns: string, more: Options = {}): Options => ({
  id,
  type: 'tap',
  ifname: 'x0',
  netns,
  up: true,
  ...more,
})

const link = (netns: string): string => sh('ip', '-n', netns, '-o', 'link', 'show', 'x0')
const ifindex = (netns: string): string => link(netns).split(':')[0]
const mtuOf = (netns: string): number => Number(/mtu (\d+)/.exec(link(netns))![1])

const burst = (lab: Lab, netns: string): Promise<void> =>
  lab.send(
    netns,
    numbers(BURST).map((number) => frameHex(BROADCAST, SENDER, number)),
  )

const macs = async (daemon: Daemon): Promise<string[]> => {
  const entries = await daemon.execute<{ mac: string; port: string }[]>('query-mac-table')
  return entries.map(({ mac, port }) => `${mac} ${port}`)
}

const hasSent = (daemon: Daemon, id: string, frames: number): Promise<void> =>
  until(`${id} has sent ${frames}`, async () => (await daemon.stats(id))['tx_frames'] >= frames)

test('options of a TAP change under traffic, and no frame, address or descriptor is lost', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  // Without vnet_hdr their segments are merged.
  const [a, b] = netns.map((name, k) => tap(`p${k}`, name, { vnet_hdr: false }))
  const config = await new Configured(lab).start(lab, [a, b])
  const { daemon } = config
  const events: string[] = []
  daemon.client.events.on('event', (name) => events.push(name))
  await burst(lab, netns[0])
  await hasSent(daemon, 'p1', BURST)
  const before = [netns.map(ifindex), tunDescriptors(daemon.process.child.pid!), await macs(daemon)]
  expect(before[2]).toEqual([`${SENDER} p0`])
  const changes: [Options, string][] = [
    [{ mtu: 1400 }, 'mtu'],
    [{ mtu: 9000, gro: false }, 'mtu,gro'],
    [{ gro: false, sndbuf: 1_000_000 }, 'mtu,sndbuf'],
    [
      { owner: '1', group: '1', persist: false, downscript: 'no' },
      'gro,sndbuf,owner,group,persist,downscript',
    ],
  ]
  for (const [round, [more, keys]] of changes.entries()) {
    const [reloaded] = await Promise.all([
      config.reload([
        { ...a, ...more },
        { ...b, ...more },
      ]),
      burst(lab, netns[0]),
    ])
    expect(reloaded['needs-restart']).toEqual([])
    const sorted = reloaded.actions.map((action) => action.split(',').toSorted().join(','))
    const wanted = ['p0', 'p1'].map((id) => `change ${id} ${keys}`.split(',').toSorted().join(','))
    expect(sorted).toEqual(wanted)
    expect(netns.map(mtuOf)).toEqual(Array.from(netns, () => more['mtu'] ?? 1500))
    expect(await daemon.port('p0')).toMatchObject({ state: 'open', gro: more['gro'] ?? true })
    expect((await daemon.port('p0'))['mtu']).toBe(more['mtu'])
    await hasSent(daemon, 'p1', (round + 2) * BURST)
  }
  const stats = await daemon.stats('p0')
  expect(stats).toMatchObject({ rx_frames: (changes.length + 1) * BURST, rx_kernel_dropped: 0 })
  const { fdinfo, after } = {
    fdinfo: tunDescriptors(daemon.process.child.pid!),
    after: await macs(daemon),
  }
  expect([netns.map(ifindex), fdinfo, after]).toEqual(before)
  expect(lab.exec(netns[0], 'cat', '/sys/class/net/x0/owner').trim()).toBe('1')
  expect(events.filter((name) => name !== 'PORT_LINK_CHANGED')).toEqual([])
  // Down, and up again.
  await config.reload([{ ...a, up: false }, b])
  expect(link(netns[0])).not.toContain('LOWER_UP')
  await config.reload([a, b])
  await burst(lab, netns[0])
  await hasSent(daemon, 'p1', (changes.length + 2) * BURST)
  expect(netns.map(ifindex)).toEqual(before[0])
})

test('a device that was found keeps an mtu that is not said any more', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  makeTap(netns, 1)
  const config = await new Configured(lab).start(lab, [tap('p0', netns, { mtu: 1400 })])
  await config.reload([tap('p0', netns)])
  expect(mtuOf(netns)).toBe(1400)
})

test('what a port is made with makes it anew', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const config = await new Configured(lab).start(lab, [tap('p0', netns)])
  const before = ifindex(netns)
  expect((await config.reload([tap('p0', netns, { mtu: 1400, vnet_hdr: false })])).actions).toEqual(
    ['remove p0', 'add p0'],
  )
  expect(ifindex(netns)).not.toBe(before)
  expect(mtuOf(netns)).toBe(1400)
})

test('a guest stays connected when its port is changed', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'guest.sock')
  const [g, r, x] = [
    { id: 'g', type: 'vhost-user', path },
    { id: 'r', type: 'pcap', record: join(lab.directory, 'r') },
    { id: 'x', type: 'pcap', replay: join(lab.directory, 'replay'), pace: 'full' },
  ]
  writeFileSync(x.replay, pcapFile([[frame(255, 1, 0, 1500)]]))
  const config = await new Configured(lab).start(lab, [g, r])
  const { daemon } = config
  const guest = FrontEnd.connect(path)
  try {
    await guest.start()
    await until('it is connected', async () => (await daemon.port('g'))['state'] === 'connected')
    guest.transmit(frame(255, 2, 1))
    await hasSent(daemon, 'r', 1)
    const { actions } = await config.reload([{ ...g, mtu: 1000, gro: false }, r])
    expect(actions).toEqual(['change g mtu,gro'])
    expect(await daemon.port('g')).toMatchObject({ state: 'connected', mtu: 1000, gro: false })
    guest.transmit(frame(255, 2, 2))
    await hasSent(daemon, 'r', 2)
    // The limit holds, for what goes to the guest and for what it asks for.
    await config.reload([{ ...g, mtu: 1000, gro: false }, r, x])
    await until('it is dropped', async () => (await daemon.stats('g'))['tx_drop_mtu'] === 1)
    expect(await macs(daemon)).toContain('02:00:00:00:00:02 g')
    await config.reload([g, r, x])
    guest.transmit(frame(255, 2, 3))
    await hasSent(daemon, 'r', 4)
  } finally {
    guest.close()
  }
})

test('pace, ageing and group addresses change at once', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const ports = netns.map((name, k) => tap(`p${k}`, name))
  const config = await new Configured(lab).start(lab, ports)
  const { daemon } = config
  const sleeps = async (): Promise<number> =>
    (await daemon.execute<{ sleeps: number }>('query-switch-stats')).sleeps
  const indexes = netns.map(ifindex)
  await burst(lab, netns[0])
  await hasSent(daemon, 'p1', BURST)
  const [reloaded] = await Promise.all([
    config.reload(ports, { pace: 'busy', switch: { 'mac-aging-s': 200 } }),
    burst(lab, netns[0]),
  ])
  expect(reloaded).toEqual({ actions: ['set pace,mac-aging-s'], 'needs-restart': [] })
  await hasSent(daemon, 'p1', 2 * BURST)
  expect(await macs(daemon)).toEqual([`${SENDER} p0`])
  const awake = await sleeps()
  await daemon.execute('query-ports')
  expect(await sleeps()).toBe(awake)
  const switchOptions = { 'mac-aging-s': 1, 'group-addresses': '802.1D' }
  expect(
    (await config.reload(ports, { pace: 'interrupt', switch: switchOptions })).actions,
  ).toEqual(['set pace,mac-aging-s,group-addresses'])
  await until('it sleeps again', async () => (await sleeps()) > awake)
  await until('the address is forgotten', async () => (await macs(daemon)).length === 0)
  await lab.send(netns[0], [frameHex('01:80:c2:00:00:0e', SENDER, 0)])
  await until(
    'it is dropped',
    async () => (await daemon.stats('p0'))['rx_drop_group_address'] === 1,
  )
  // What is not said has its default again; a table of another size needs a restart.
  expect(await config.reload(ports, { switch: { 'mac-table-size': 100 } })).toEqual({
    actions: ['set pace,mac-aging-s,group-addresses'],
    'needs-restart': ['mac-table-size'],
  })
  await lab.send(netns[0], [frameHex('01:80:c2:00:00:0e', SENDER, 0)])
  await hasSent(daemon, 'p1', 2 * BURST + 1)
  expect(netns.map(ifindex)).toEqual(indexes)
})

/** How often each of its threads has slept. */
function sleepsByThread(pid: number): Map<string, number> {
  const sleeps = (id: string): number => {
    const status = readFileSync(`/proc/${pid}/task/${id}/status`, 'utf8')
    return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)![1])
  }
  return new Map(readdirSync(`/proc/${pid}/task`).map((id) => [id, sleeps(id)]))
}

test('an engine without privileges dozes from a reload on, and no more after the next', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const ports = netns.map((name, k) => tap(`p${k}`, name))
  const config = await new Configured(lab).start(lab, ports)
  const { daemon } = config
  const pid = daemon.process.child.pid!
  /** How often the thread has slept that slept most since a frame has come. */
  const afterFrame = async (number: number): Promise<() => number> => {
    const before = sleepsByThread(pid)
    await lab.send(netns[0], [frameHex(BROADCAST, SENDER, number)])
    await hasSent(daemon, 'p1', number + 1)
    const since = ([id, sleeps]: [string, number]): number => sleeps - (before.get(id) ?? 0)
    return () => Math.max(...[...sleepsByThread(pid)].map((thread) => since(thread)))
  }
  expect((await config.reload(ports, { pace: 'warm' })).actions).toEqual(['set pace'])
  for (let number = 0; number < 3; number++) {
    const sleeps = await afterFrame(number)
    await until('it has dozed', () => sleeps() >= DOZES)
  }
  expect((await config.reload(ports, { pace: 'interrupt' })).actions).toEqual(['set pace'])
  // Once at least: a frame that is waited for by many questions wakes other threads as often.
  const slept: number[] = []
  for (let number = 3; number < 8; number++) {
    const sleeps = await afterFrame(number)
    // Twice as long as it would doze.
    await setTimeout(200)
    slept.push(sleeps())
    if (slept.at(-1)! < DOZES / 2) break
  }
  expect(Math.min(...slept)).toBeLessThan(DOZES / 2)
})

test('a replay goes on where it is, at another pace and for more rounds', async () => {
  await using lab = new Lab()
  const replay = join(lab.directory, 'replay')
  writeFileSync(replay, pcapFile(numbers(20).map((number) => [frame(255, 1, number)])))
  const a = { id: 'a', type: 'pcap', replay }
  const r = { id: 'r', type: 'pcap', record: join(lab.directory, 'r') }
  const config = await new Configured(lab).start(lab, [a, r])
  const { daemon } = config
  await hasSent(daemon, 'r', 1)
  expect((await config.reload([{ ...a, pace: 'full' }, r])).actions).toEqual(['change a pace'])
  await hasSent(daemon, 'r', 20)
  await config.reload([{ ...a, pace: 'full', loop: 3 }, r])
  await hasSent(daemon, 'r', 60)
  expect((await daemon.stats('a'))['rx_frames']).toBe(60)
  // One a second again: the first of the next round comes at once, the second does not.
  await config.reload([{ ...a, loop: 4 }, r])
  await hasSent(daemon, 'r', 61)
  expect((await daemon.stats('r'))['tx_frames']).toBeLessThan(80)
})

test('a change that is refused leaves the port as it was, and what came before it is known', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const [a, b] = netns.map((name, k) => tap(`p${k}`, name))
  const config = await new Configured(lab).start(lab, [a, b])
  const { daemon } = config
  const indexes = netns.map(ifindex)
  const changed = { ...a, mtu: 1400 }
  // Longer than a TAP's may be.
  await expect(config.reload([changed, { ...b, mtu: 65_535, sndbuf: 100_000 }])).rejects.toThrow(
    'RTM_SETLINK x0',
  )
  await until('it is logged', () =>
    daemon.process.stderr.includes('config: stopped at="change p1 mtu,sndbuf"'),
  )
  expect(netns.map(mtuOf)).toEqual([1400, 1500])
  expect(await daemon.port('p1')).toMatchObject({ state: 'open' })
  expect((await daemon.port('p1'))['mtu']).toBeUndefined()
  await expect(
    config.reload([changed, { ...b, mtu: 1200, owner: 'no-such-user' }]),
  ).rejects.toThrow('owner=no-such-user: not in /etc/passwd')
  expect(mtuOf(netns[1])).toBe(1500)
  // A port that cannot be added, behind a change, a removal and an addition.
  const r = { id: 'r', type: 'pcap', record: join(lab.directory, 'r') }
  const none = { id: 'c', type: 'pcap', replay: join(lab.directory, 'late') }
  await expect(config.reload([{ ...a, mtu: 1300 }, r, none])).rejects.toThrow('late')
  expect(mtuOf(netns[0])).toBe(1300)
  writeFileSync(none.replay, pcapFile([[frame(255, 1)]]))
  expect((await config.reload([{ ...a, mtu: 1300 }, b, r, none])).actions).toEqual([
    'add p1',
    'add c',
  ])
  expect(ifindex(netns[0])).toBe(indexes[0])
  expect((await config.reload([{ ...a, mtu: 1300 }, b, r, none])).actions).toEqual([])
})

test('a postponed port is opened with the options that a reload gave it', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  makeTap(netns, 1)
  const config = new Configured(lab)
  const postponed = tap('p0', netns, { script: 'no', downscript: 'no' })
  config.write([postponed])
  config.daemon = await lab.incoming(
    lab.controlPath(),
    join(lab.directory, 'trace'),
    '--config',
    config.file,
  )
  expect(await config.daemon.port('p0')).toMatchObject({ state: 'postponed' })
  expect((await config.reload([{ ...postponed, mtu: 1400 }])).actions).toEqual(['change p0 mtu'])
  expect(await config.daemon.port('p0')).toMatchObject({ state: 'postponed', mtu: 1400 })
  expect(mtuOf(netns)).toBe(1500)
  await config.daemon.execute('migrate-incoming')
  expect(mtuOf(netns)).toBe(1400)
})

test('an interface of the own namespace is changed with what was kept, and not when nothing was', async () => {
  await using lab = new Lab()
  const ports = (ifname: string, more: Options): Options[] => [
    { id: 'p', type: 'tap', ifname, ...more },
  ]
  const mtu = (ifname: string): string =>
    readFileSync(`/sys/class/net/${ifname}/mtu`, 'utf8').trim()
  const kept = { privileges: { keep: ['net-admin'] } }
  const [one, other] = [`fp${process.pid}a`, `fp${process.pid}b`]
  const able = await new Configured(lab).start(lab, ports(one, {}), kept)
  expect((await able.reload(ports(one, { mtu: 1400 }), kept)).actions).toEqual(['change p mtu'])
  expect(mtu(one)).toBe('1400')
  const locked = { privileges: { mode: 'locked' } }
  const unable = await new Configured(lab).start(lab, ports(other, {}), locked)
  await expect(unable.reload(ports(other, { mtu: 1400 }), locked)).rejects.toThrow(
    'the daemon gave up CAP_NET_ADMIN after its start',
  )
  expect(mtu(other)).toBe('1500')
  // What needs no capability goes on.
  expect((await unable.reload(ports(other, { gro: false }), locked)).actions).toEqual([
    'change p gro',
  ])
})

test('P3: addresses of locked ports change places in one reload, and a wrong file changes nothing', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const [one, two] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
  const locked = (id: string, at: number, mac: string, more: Options = {}): Options =>
    tap(id, netns[at], { locked: true, guard: ['mac'], macs: [mac], ...more })
  const before = [locked('p0', 0, one), locked('p1', 1, two)]
  const configured = await new Configured(lab).start(lab, before)
  const { daemon } = configured
  const known = async (): Promise<string[]> => (await macs(daemon)).toSorted()
  expect(await known()).toEqual([`${one} p0`, `${two} p1`])
  await configured.reload([locked('p0', 0, two), locked('p1', 1, one)])
  expect(await known()).toEqual([`${one} p1`, `${two} p0`])
  await lab.send(netns[1], [frameHex(BROADCAST, one, 1)])
  await hasSent(daemon, 'p0', 1)
  await expect(
    configured.reload([
      locked('p0', 0, one, { isolated: true }),
      locked('p1', 1, '01:00:00:00:00:01'),
    ]),
  ).rejects.toThrow(/no sender/)
  expect(await known()).toEqual([`${one} p1`, `${two} p0`])
  expect(JSON.stringify(await daemon.execute('query-ports'))).not.toContain('"isolated":true')
})
