/** Snooping with the hosts and the querier of Linux itself. Runs once per I/O tier. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { igmpQuery, igmpReport, toGroup } from '../../support/group-frames.ts'
import type { Daemon } from '../../support/lab.ts'
import { frameHex, IFNAME, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { cli, Line } from '../../support/upgrades.ts'
import { Watch } from '../../support/watch.ts'

const HOSTS = 3
const GROUP = '239.1.2.3'
const GROUP6 = 'ff15::1:2'

interface Shown {
  readonly vlan: number
  readonly family: string
  readonly group?: string
  readonly port: string
  readonly querier?: string
}

const groups = (daemon: Daemon, filter = {}): Promise<Shown[]> =>
  daemon.execute<Shown[]>('query-groups', filter)
const membersOf = async (daemon: Daemon, group: string): Promise<string[]> =>
  (await groups(daemon, { group })).map(({ port }) => port).toSorted()

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A config file with TAPs in these namespaces; `options`: more of some ports. */
function configOf(
  lab: Lab,
  netns: readonly string[],
  snooping: string,
  options: Readonly<Record<number, string>> = {},
): string {
  const path = join(lab.directory, 'switch.yaml')
  const ports = netns.map((name, k) => {
    const more = options[k] === undefined ? '' : `, ${options[k]}`
    return `  - { id: p${k}, type: tap, ifname: ${IFNAME}, netns: ${name}${more} }`
  })
  writeFileSync(path, `switch: { snooping: ${snooping} }\nports:\n${ports.join('\n')}\n`)
  return path
}

/** Hosts with IPv4 and IPv6, and behind the last port a bridge that asks. */
async function network(lab: Lab): Promise<{ daemon: Daemon; netns: string[]; config: string }> {
  const netns = Array.from({ length: HOSTS + 1 }, () => lab.netns())
  const config = configOf(lab, netns, '{ igmp: true, mld: true }')
  const daemon = await lab.daemon('--config', config)
  for (const [k, name] of netns.entries()) {
    const allowIpv6 = 'echo 0 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6 >/dev/null'
    lab.exec(name, 'sh', '-c', allowIpv6)
    if (k < HOSTS) lab.address(name, `10.0.0.${k + 1}`)
  }
  const querier = netns[HOSTS]
  const bridge = ['mcast_snooping', '1', 'mcast_querier', '1', 'mcast_query_use_ifaddr', '1']
  // Ten seconds, half a second and two tenths of one, in hundredths.
  const times = ['mcast_query_interval', '1000', 'mcast_query_response_interval', '50']
  const last = ['mcast_startup_query_interval', '50', 'mcast_last_member_interval', '20']
  sh('ip', '-n', querier, 'link', 'add', 'br0', 'type', 'bridge', ...bridge, ...times, ...last)
  lab.exec(querier, 'sh', '-c', 'echo 0 > /proc/sys/net/ipv6/conf/br0/disable_ipv6')
  sh('ip', '-n', querier, 'link', 'set', IFNAME, 'master', 'br0', 'up')
  lab.address(querier, '10.0.0.100', 'br0')
  await until('both families have a querier', async () => {
    const known = await groups(daemon)
    return known.filter((one) => one.querier !== undefined).length === 2
  })
  return { daemon, netns, config }
}

function join4(netns: string, version: number): void {
  sh(
    'ip',
    'netns',
    'exec',
    netns,
    'sysctl',
    '-qw',
    `net.ipv4.conf.${IFNAME}.force_igmp_version=${version}`,
  )
  sh('ip', '-n', netns, 'addr', 'add', `${GROUP}/32`, 'dev', IFNAME, 'autojoin')
}

/** For everybody, behind all that is counted. */
const LAST: string = frameHex('ff:ff:ff:ff:ff:ff', '02:00:00:00:00:01', 0)

/** Until all have had the time to answer the querier's first query it goes to all. */
async function reachesFirstOnly(lab: Lab, netns: readonly string[], group: string): Promise<void> {
  await until('others are left out', async () => {
    const [member, other] = await reached(lab, netns, group)
    expect(member).toBe(20)
    return other === 0
  })
}

/** Of datagrams for a group those that came to each host but the first, which sends them. */
async function reached(lab: Lab, netns: readonly string[], group: string): Promise<number[]> {
  const frames = 20
  const others = netns.slice(1, HOSTS)
  const watches = await Promise.all(others.map((name) => Watch.start(lab, name)))
  const sent = hex(toGroup(group))
  await lab.send(netns[0], [...Array<string>(frames).fill(sent), LAST])
  const got = await Promise.all(watches.map((one) => one.before(LAST)))
  return got.map((all) => all.filter((one) => one.startsWith(sent)).length)
}

test.each([2, 3])(
  'P8: hosts that join by IGMPv%i get their group, and others do not',
  async (version) => {
    await using lab = new Lab()
    const { daemon, netns } = await network(lab)
    join4(netns[1], version)
    await until('it is a member', async () => (await membersOf(daemon, GROUP)).includes('p1'))
    await reachesFirstOnly(lab, netns, GROUP)
    join4(netns[2], version)
    await until('both are', async () => (await membersOf(daemon, GROUP)).length === 2)
    expect(await reached(lab, netns, GROUP)).toEqual([20, 20])
    // The one that stays answers the querier, who asks because the other one leaves.
    sh('ip', '-n', netns[1], 'addr', 'del', `${GROUP}/32`, 'dev', IFNAME)
    await until('it has left', async () => !(await membersOf(daemon, GROUP)).includes('p1'))
    expect(await reached(lab, netns, GROUP)).toEqual([0, 20])
  },
)

test('P8: the same by MLD, and neighbours find one another', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await network(lab)
  sh('ip', '-n', netns[1], 'addr', 'add', `${GROUP6}/128`, 'dev', IFNAME, 'autojoin')
  await until('it is a member', async () => (await membersOf(daemon, GROUP6)).includes('p1'))
  await reachesFirstOnly(lab, netns, GROUP6)
  for (const at of [0, 1])
    sh('ip', '-n', netns[at], 'addr', 'add', `fd00::${at + 1}/64`, 'dev', IFNAME)
  await until(
    "the address is known to be nobody else's",
    () =>
      ![0, 1].some((at) =>
        lab.exec(netns[at], 'ip', '-6', 'addr', 'show', 'dev', IFNAME).includes('tentative'),
      ),
  )
  expect(lab.ping(netns[0], 'fd00::2')).toBe(3)
  sh('ip', '-n', netns[1], 'addr', 'del', `${GROUP6}/128`, 'dev', IFNAME)
  await until('it has left', async () => (await membersOf(daemon, GROUP6)).length === 0)
  expect(await reached(lab, netns, GROUP6)).toEqual([0, 0])
})

test('F6, P8: of an interface that goes down members and queriers are forgotten', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await network(lab)
  join4(netns[1], 3)
  await until('it is a member', async () => (await membersOf(daemon, GROUP)).includes('p1'))
  sh('ip', '-n', netns[1], 'link', 'set', IFNAME, 'down')
  await until('it is none any more', async () => (await membersOf(daemon, GROUP)).length === 0)
  sh('ip', '-n', netns[1], 'link', 'set', IFNAME, 'up')
  await until('it says again what it wants', async () =>
    (await membersOf(daemon, GROUP)).includes('p1'),
  )
  sh('ip', '-n', netns[HOSTS], 'link', 'set', IFNAME, 'down')
  await until('there is no querier', async () =>
    (await groups(daemon)).every(({ port }) => port !== `p${HOSTS}`),
  )
})

test('P8: what is known is shown, handed over, flushed, and forgotten where it is turned off', async () => {
  await using lab = new Lab()
  const netns = [0, 1, 2].map(() => lab.netns())
  const config = configOf(lab, netns, '{ igmp: true }')
  const daemon = await lab.daemon('--config', config)
  await using line = new Line(daemon)
  for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
  await lab.send(netns[2], [hex(igmpQuery({ code: 1 }))])
  await lab.send(netns[1], [hex(igmpReport(GROUP, { from: 2 }))])
  await until('the member is known', async () => (await membersOf(daemon, GROUP)).length === 1)
  const show = async (...args: string[]): Promise<string> =>
    (await cli('show', 'groups', '--control', daemon.control, ...args)).stdout
  const rows = async (...args: string[]): Promise<string[][]> => {
    const lines = (await show(...args)).trimEnd().split('\n').slice(1)
    return lines.map((text) =>
      text
        .trim()
        .split(/ {2,}/)
        .filter((cell) => !/^\d+ s$/.test(cell)),
    )
  }
  const member = ['-', GROUP, 'p1']
  const router = ['-', 'all ipv4', 'p2', 'router, querier 10.0.0.99']
  const both: unknown = expect.arrayContaining([member, router])
  expect(await rows()).toEqual(both)
  expect(await rows('--group', GROUP)).toEqual([member])
  expect(await rows('--port', 'p2')).toEqual([router])
  expect(await rows('--vlan', '7')).toEqual([])
  expect(JSON.parse(await show('--json', '--port', 'p1'))).toMatchObject([
    { vlan: 0, family: 'ipv4', group: GROUP, port: 'p1' },
  ])

  await line.upgrade()
  expect(await rows()).toEqual(both)
  const dropped = async (): Promise<number> => {
    const [counters] = await line.execute<Record<string, number>[]>('query-port-stats', {
      id: 'p0',
    })
    return counters['rx_drop_no_member']
  }
  await lab.send(netns[0], [hex(toGroup('239.9.9.9'))])
  const others = await lab.receiveAll(netns[1], IFNAME, 1)
  await lab.send(netns[0], [hex(toGroup('239.9.9.9')), hex(toGroup(GROUP))])
  expect(await others.frames()).toEqual([hex(toGroup(GROUP))])
  expect(await dropped()).toBe(0)

  await line.execute('groups-flush', { port: 'p1' })
  expect(await rows()).toEqual([router])
  await line.execute('groups-flush')
  expect(await rows()).toEqual([])
  configOf(lab, netns, '{ igmp: false }')
  expect(await line.execute('config-reload')).toEqual({
    actions: ['set snooping'],
    'needs-restart': [],
  })
  const flooded = await lab.receiveAll(netns[1], IFNAME, 1)
  await lab.send(netns[2], [hex(igmpQuery({ code: 1 }))])
  await flooded.frames()
  expect(await rows()).toEqual([])
})

test('P8, multicast-router: it changes in place, is shown, and holds after a hand-over', async () => {
  await using lab = new Lab()
  const netns = [0, 1, 2].map(() => lab.netns())
  const config = configOf(lab, netns, '{ igmp: true }')
  const daemon = await lab.daemon('--config', config)
  await using line = new Line(daemon)
  for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
  await lab.send(netns[2], [hex(igmpQuery({ code: 1 }))])
  await until('the querier is known', async () => (await groups(daemon)).length === 1)
  // What comes to each of the others of a frame for a group that nobody has joined, before one that is for all.
  const given = async (): Promise<boolean[]> => {
    const [data, last] = [toGroup('239.9.9.9'), toGroup('224.0.0.5')].map(hex)
    const watches = await Promise.all([1, 2].map((at) => Watch.start(lab, netns[at])))
    await lab.send(netns[0], [data, last])
    const frames = await Promise.all(watches.map((one) => one.before(last)))
    return frames.map((one) => one.includes(data))
  }
  await until('the querier has everything, and nobody else', async () => {
    const [other, router] = await given()
    expect(router).toBe(true)
    return !other
  })
  const options = { 1: 'multicast-router: always', 2: 'multicast-router: never' }
  configOf(lab, netns, '{ igmp: true }', options)
  expect(await daemon.execute('config-reload')).toEqual({
    actions: ['change p1 multicast-router', 'change p2 multicast-router'],
    'needs-restart': [],
  })
  const check = async (): Promise<void> => {
    expect(await given()).toEqual([true, false])
    const { stdout } = await cli('show', 'groups', '--control', daemon.control)
    expect(stdout).toMatch(/^- +all ipv4 +p1 +- +always router$/m)
    expect(stdout).toMatch(/^- +all ipv4 +p2 +\d+ s +no router, querier 10\.0\.0\.99$/m)
    const ports = await line.execute<Record<string, unknown>[]>('query-ports')
    expect(ports.map((one) => one['multicast-router'])).toEqual([undefined, 'always', 'never'])
  }
  await check()
  await line.upgrade()
  await check()
})
