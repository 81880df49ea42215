/**
 * The way to an uplink in src/port/README.md, word for word, and the example's: a host and what is beyond its eth1.
 *
 *     [out: eth0]--veth--[host: eth1 (raw socket)--framepump--fp0 (TAP)]
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { findProgram } from '../../../src/cli/doctor.ts'
import { installFor } from '../../support/installed.ts'
import { CLI, IO, Lab, ROOT } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { sh, until } from '../../support/processes.ts'
import { blocksOf } from '../../support/readme.ts'

const ADDRESS = '192.0.2.10'
const GATEWAY = '192.0.2.1'
const DONE = 'everything is done'

const blocks = blocksOf('src/port/README.md')
  .filter(({ heading }) => heading === 'Give the switch an uplink')
  .map(({ text }) => text)

/** A command line, as `framepump` in the PATH; the directory, and where it is controlled. */
function framepump(lab: Lab, cli: string): { bin: string; control: string } {
  const bin = join(lab.directory, 'bin')
  const control = lab.controlPath()
  mkdirSync(bin)
  const script = `#!/bin/sh
command=$1; shift
[ "$command" = run ] && set -- --io ${IO} "$@"
exec '${process.execPath}' '${cli}' "$command" --control '${control}' "$@"
`
  writeFileSync(join(bin, 'framepump'), script, { mode: 0o755 })
  chmodSync(lab.directory, 0o777)
  return { bin, control }
}

/** What a user pastes. */
function typed(block: string): string {
  return [
    'set -e',
    // Whatever was left in the background ends with the shell.
    "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT",
    block,
    `echo '${DONE}'`,
    'read -r _ || true',
  ].join('\n')
}

async function type(shell: Background): Promise<void> {
  await until('everything is typed', () => shell.stdout.includes(DONE) || !shell.isRunning, 40_000)
  expect({ isRunning: shell.isRunning, said: shell.stderr }).toMatchObject({ isRunning: true })
}

async function end(shell: Background): Promise<void> {
  shell.child.stdin!.end()
  await shell.exited
}

/** The network namespace alone: what `ip netns exec` mounts would keep the shell's own namespaces inside. */
const inside = (netns: string): string[] => [`--net=/run/netns/${netns}`]

/** A host with a free eth1, and the network beyond it. */
function hostAndNetwork(lab: Lab): { host: string; out: string } {
  const [host, out] = [lab.netns(), lab.netns()]
  sh('ip', '-n', host, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', out)
  sh('ip', '-n', host, 'addr', 'add', `${ADDRESS}/24`, 'dev', 'eth1')
  lab.address(out, GATEWAY, 'eth0')
  return { host, out }
}

/** The host is reached, by the switch only; the port has its frames. */
async function reaches(lab: Lab, host: string, out: string, control: string): Promise<void> {
  await until('the host answers', () => lab.ping(out, ADDRESS, 1) === 1)
  const mac = lab.mac(host, 'fp0')
  for (let time = 0; time < 8; time++) {
    sh('ip', '-n', out, 'neigh', 'flush', 'all')
    // Of more than one ping all are waited for.
    expect(lab.ping(out, ADDRESS, 2)).toBe(2)
    expect(sh('ip', '-n', out, 'neigh', 'show', ADDRESS)).toContain(mac)
  }
  expect(lab.ping(host, GATEWAY)).toBe(3)
  const client = await ControlClient.connect(control)
  const [stats] = (await client.execute('query-port-stats', { id: 'up' })) as [
    Record<string, number>,
  ]
  client.close()
  expect(stats['rx_frames']).toBeGreaterThan(8)
  expect(stats['tx_frames']).toBeGreaterThan(8)
}

test('there is a way for root, one by a namespace, and one for others', () => {
  expect(blocks).toHaveLength(3)
})

test('root’s way: the host is on the switch by a TAP, and answers there only', async () => {
  await using lab = new Lab()
  const { host, out } = hostAndNetwork(lab)
  const { bin, control } = framepump(lab, CLI)
  const env = { PATH: `${bin}:${process.env['PATH']}` }
  const shell = lab.background('nsenter', [...inside(host), 'bash', '-c', typed(blocks[0])], env)
  await type(shell)
  await reaches(lab, host, out, control)
  expect(sh('ip', '-n', host, 'route')).toContain(`default via ${GATEWAY} dev fp0`)
  await end(shell)
})

test('the same with the interface in a namespace of its own', async () => {
  await using lab = new Lab()
  const { host, out } = hostAndNetwork(lab)
  const { bin, control } = framepump(lab, CLI)
  const env = { PATH: `${bin}:${process.env['PATH']}` }
  const uplink = `fp-uplink-${process.pid}`
  const block = blocks[1].replaceAll('uplink', uplink)
  const shell = lab.background('nsenter', [...inside(host), 'bash', '-c', typed(block)], env)
  try {
    await type(shell)
    await reaches(lab, host, out, control)
    // The card's own address, where nothing else would pass.
    const mac = lab.mac(uplink, 'eth1')
    sh('ip', '-n', host, 'link', 'set', 'fp0', 'address', mac)
    sh('ip', '-n', out, 'neigh', 'flush', 'all')
    await reaches(lab, host, out, control)
  } finally {
    await end(shell)
    sh('ip', 'netns', 'del', uplink)
  }
})

test('the example: the same as a config file', async () => {
  await using lab = new Lab()
  const { host, out } = hostAndNetwork(lab)
  sh('ip', '-n', host, 'addr', 'flush', 'dev', 'eth1')
  sh('ip', '-n', host, 'link', 'set', 'eth1', 'up')
  lab.exec(host, 'sysctl', '-qw', 'net.ipv4.conf.eth1.arp_ignore=1')
  const control = lab.controlPath()
  const config = join(ROOT, 'config/examples/uplink.yaml')
  const args = [CLI, 'run', '--io', IO, '--control', control, '--config', config]
  const daemon = lab.start(host, process.execPath, ...args)
  await until('it is ready', () => daemon.stderr.includes('ready') || !daemon.isRunning)
  expect({ isRunning: daemon.isRunning, said: daemon.stderr }).toMatchObject({ isRunning: true })
  lab.address(host, ADDRESS, 'fp0')
  await reaches(lab, host, out, control)
  expect(await daemon.stop()).toBe(0)
})

const lacks = findProgram('slirp4netns') === undefined ? ' (skipped: slirp4netns is missing)' : ''

describe.skipIf(lacks !== '')(`an ordinary user${lacks}`, () => {
  test('has a way out of a namespace of their own', async () => {
    await using lab = new Lab()
    const { bin } = framepump(lab, installFor(lab))
    const as = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--bounding-set=-all']
    const env = { PATH: `${bin}:${process.env['PATH']}` }
    const shell = lab.background('setpriv', [...as, 'bash', '-c', typed(blocks[2])], env)
    await type(shell)
    expect(shell.stdout).toMatch(/ [1-3] received/)
    expect(shell.stderr).toMatch(/raw-socket up: opened ifname=tap0/)
    await end(shell)
  })
})
