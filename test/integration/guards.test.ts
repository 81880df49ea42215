/**
 * P4: guards against real stacks and a real client and server of DHCP.
 *
 *     [x0 ns 0: the tenant]--p0 (guard) > switch < p1--[x0 ns 1: everybody else]
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import type { Daemon } from '../support/lab.ts'
import { IFNAME, Lab, ROOT, tapSpec } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'

const [TENANT, OTHER] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
const ALL = 'mac:arp:ipv4:ipv6:dhcp:ra'

/** Its interface has that MAC, is up, and talks IPv6. */
function setUp(lab: Lab, netns: string, mac: string): void {
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'down')
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'address', mac)
  lab.exec(netns, 'sh', '-c', `echo 0 > /proc/sys/net/ipv6/conf/${IFNAME}/disable_ipv6`)
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'up')
}

async function start(lab: Lab, guard: string): Promise<{ daemon: Daemon; netns: string[] }> {
  const netns = [lab.netns(), lab.netns()]
  const specs = [tapSpec(0, netns[0], guard), tapSpec(1, netns[1])]
  const daemon = await lab.daemon(...specs.flatMap((spec) => ['--port', spec]))
  setUp(lab, netns[0], TENANT)
  setUp(lab, netns[1], OTHER)
  return { daemon, netns }
}

const addressOf = (netns: string): string =>
  sh('ip', '-n', netns, '-6', 'addr', 'show', 'dev', IFNAME)
const dropped = async (daemon: Daemon): Promise<number> =>
  (await daemon.stats('p0'))['rx_drop_guard']

/** What is dropped is told when the engine is awake, which any question makes it. */
async function told(daemon: Daemon, pattern: RegExp): Promise<void> {
  await until(`${pattern.source} is told`, async () => {
    await dropped(daemon)
    return pattern.test(daemon.process.stderr)
  })
}

function ping(lab: Lab, netns: string, address: string): boolean {
  try {
    lab.exec(netns, 'ping', '-c', '1', '-W', '1', address)
    return true
  } catch {
    return false
  }
}

/** The neighbour may have failed a moment ago, and is asked for once more then. */
async function reaches(lab: Lab, netns: string, address: string): Promise<void> {
  await until(`${netns} reaches ${address}`, () => ping(lab, netns, address))
}

test('P4: ARP, DAD and neighbour discovery of a stack that is itself pass', async () => {
  await using lab = new Lab()
  const options = `guard=${ALL},macs=${TENANT},ips=10.0.0.1:[fd00::1]`
  const { daemon, netns } = await start(lab, options)
  lab.address(netns[0], '10.0.0.1')
  lab.address(netns[1], '10.0.0.2')
  // With duplicate address detection, as for the link-local one.
  sh('ip', '-n', netns[0], 'addr', 'add', 'fd00::1/64', 'dev', IFNAME)
  sh('ip', '-n', netns[1], 'addr', 'add', 'fd00::2/64', 'dev', IFNAME)
  await until('addresses are not tentative', () =>
    netns.every((name) => !/tentative|dadfailed/.test(addressOf(name))),
  )
  expect(addressOf(netns[0])).toContain('fe80::ff:fe00:1')
  for (const [from, to] of [
    [0, '10.0.0.2'],
    [1, '10.0.0.1'],
    [0, 'fd00::2'],
    [1, 'fd00::1'],
    [1, `fe80::ff:fe00:1%${IFNAME}`],
  ] as const) {
    await reaches(lab, netns[from], to)
  }
  expect(await dropped(daemon)).toBe(0)
})

test('P4: the same stack with other addresses reaches nobody, and the log says why', async () => {
  await using lab = new Lab()
  const options = `guard=${ALL},macs=${TENANT},ips=10.0.0.1:[fd00::1]`
  const { daemon, netns } = await start(lab, options)
  lab.address(netns[0], '10.0.0.9')
  lab.address(netns[1], '10.0.0.2')
  expect(ping(lab, netns[0], '10.0.0.2')).toBe(false)
  expect(ping(lab, netns[1], '10.0.0.9')).toBe(false)
  await told(daemon, /tap p0: guard dropped reason="ARP sender"/)
  // Both ends know each other without asking: what is left are packets.
  for (const [k, address, mac] of [
    [0, '10.0.0.2', OTHER],
    [1, '10.0.0.9', TENANT],
  ] as const) {
    sh('ip', '-n', netns[k], 'neigh', 'replace', address, 'lladdr', mac, 'dev', IFNAME)
  }
  expect(ping(lab, netns[0], '10.0.0.2')).toBe(false)
  await told(daemon, /reason="IPv4 source"/)
  setUp(lab, netns[0], '02:00:00:00:00:77')
  expect(ping(lab, netns[0], '10.0.0.2')).toBe(false)
  await told(daemon, /reason="source MAC" frames=\d+ from=02:00:00:00:00:77/)
  const macs = await daemon.execute<{ mac: string; port: string }[]>('query-mac-table')
  expect(macs.filter(({ mac }) => mac === '02:00:00:00:00:77')).toEqual([])
})

/** Of a client, a second each: the server looks for two of them whether somebody has the address. */
const [MAY_GET, MUST_GET] = [4, 30]

/** A server that has one address to give, and a client's script that notes what it got. */
async function dhcp(
  lab: Lab,
  server: string,
  client: string,
  address: string,
  tries = MUST_GET,
): Promise<string> {
  const at = (name: string): string => join(lab.directory, `${name}-${server}`)
  const got = at('got')
  writeFileSync(got, '')
  writeFileSync(at('leases'), '')
  const lines = [
    `interface ${IFNAME}`,
    `start ${address}`,
    `end ${address}`,
    `lease_file ${at('leases')}`,
    `pidfile ${at('pid')}`,
    'option subnet 255.255.255.0',
  ]
  writeFileSync(at('udhcpd.conf'), `${lines.join('\n')}\n`)
  writeFileSync(at('script'), `#!/bin/sh\necho "$1 $ip" >> ${got}\n`, { mode: 0o755 })
  lab.address(server, '10.0.0.254')
  const daemon = lab.start(server, 'busybox', 'udhcpd', '-f', at('udhcpd.conf'))
  await until('the server serves', () => /started/.test(daemon.stderr + daemon.stdout))
  const asked = ['-f', '-n', '-q', '-t', String(tries), '-T', '1', '-s', at('script')]
  await lab.start(client, 'busybox', 'udhcpc', '-i', IFNAME, ...asked).exited
  await daemon.stop()
  return readFileSync(got, 'utf8')
}

test('P4: a tenant gets its address by DHCP', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await start(lab, `guard=${ALL},macs=${TENANT},ips=10.0.0.1`)
  expect(await dhcp(lab, netns[1], netns[0], '10.0.0.1')).toContain('bound 10.0.0.1')
  const { rx_drop_guard: drops } = await daemon.stats('p0')
  // Its kernel joins groups and asks for routers meanwhile, which is its right.
  expect(drops).toBe(0)
})

test('P4: and gives none to others', async () => {
  await using lab = new Lab()
  // With an address of its own: it is not that which is refused.
  const { daemon, netns } = await start(lab, `guard=${ALL},macs=${TENANT},ips=10.0.0.0/24`)
  expect(await dhcp(lab, netns[0], netns[1], '10.0.0.7', MAY_GET)).not.toContain('bound')
  await told(daemon, /reason="DHCP server"/)
  const without = await start(lab, '')
  expect(await dhcp(lab, without.netns[0], without.netns[1], '10.0.0.7')).toContain(
    'bound 10.0.0.7',
  )
})

test('P4: a reload changes it in place, and a wrong one changes nothing', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const file = join(lab.directory, 'config.yaml')
  const write = (more: object): void => {
    const ports = netns.map((name, k) => ({
      id: `p${k}`,
      type: 'tap',
      ifname: IFNAME,
      netns: name,
    }))
    writeFileSync(file, stringify({ ports: [{ ...ports[0], ...more }, ports[1]] }))
  }
  const guard = { guard: ['mac', 'arp', 'ipv4'], macs: [TENANT] }
  write({ ...guard, ips: ['10.0.0.1'] })
  const daemon = await lab.daemon('--config', file)
  setUp(lab, netns[0], TENANT)
  setUp(lab, netns[1], OTHER)
  lab.address(netns[0], '10.0.0.9')
  lab.address(netns[1], '10.0.0.2')
  const ifindex = (): string => lab.exec(netns[0], 'cat', `/sys/class/net/${IFNAME}/ifindex`)
  const before = ifindex()
  expect(ping(lab, netns[0], '10.0.0.2')).toBe(false)
  write({ ...guard, ips: ['10.0.0.9'] })
  const { actions } = await daemon.execute<{ actions: string[] }>('config-reload')
  expect(actions).toEqual(['change p0 ips'])
  await reaches(lab, netns[0], '10.0.0.2')
  expect(ifindex()).toBe(before)
  write({ guard: ['ipv4'] })
  await expect(daemon.execute('config-reload')).rejects.toThrow('guard=ipv4 needs ips=')
  await reaches(lab, netns[0], '10.0.0.2')
})

test('P4: the example: two tenants that are themselves, and reach the uplink only', async () => {
  await using lab = new Lab()
  const example = parse(readFileSync(join(ROOT, 'config/examples/tenant.yaml'), 'utf8')) as {
    ports: Record<string, unknown>[]
  }
  // TAPs stand in for guests and the uplink.
  const netns = [lab.netns(), lab.netns(), lab.netns()]
  const ports = example.ports.map((port, k) => {
    const others = Object.entries(port).filter(([key]) => key !== 'path')
    const standIn = { type: 'tap', ifname: IFNAME, netns: netns[k] }
    return { ...Object.fromEntries(others), ...standIn }
  })
  const file = join(lab.directory, 'config.yaml')
  writeFileSync(file, stringify({ ports }))
  const daemon = await lab.daemon('--config', file)
  for (const [k, name] of netns.entries()) {
    setUp(lab, name, `02:00:00:00:00:0${k + 1}`)
    lab.address(name, `10.0.0.${k + 1}`)
  }
  await reaches(lab, netns[0], '10.0.0.3')
  await reaches(lab, netns[1], '10.0.0.3')
  expect(ping(lab, netns[0], '10.0.0.2')).toBe(false)
  expect((await daemon.stats('tenant1'))['rx_drop_guard']).toBe(0)
  sh('ip', '-n', netns[0], 'addr', 'add', '10.0.0.2/24', 'dev', IFNAME)
  lab.exec(netns[0], 'sh', '-c', `ping -c 1 -W 1 -I 10.0.0.2 10.0.0.3 || true`)
  await until('it is dropped', async () => (await daemon.stats('tenant1'))['rx_drop_guard'] > 0)
})
