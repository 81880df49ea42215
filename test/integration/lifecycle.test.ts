/** Starting, stopping, reloading, being killed; and what users get wrong. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CLI, IO, Lab, tapSpec } from '../support/lab.ts'
import { Background, sh, until } from '../support/processes.ts'

const KILLS = { timeout: 180_000 }

/** Runs the CLI to its end. */
async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Background(process.execPath, [CLI, ...args])
  const code = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

test('SIGTERM closes everything: no socket, no interface, exit 0', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expect(await daemon.process.stop('SIGTERM')).toBe(0)
  expect(existsSync(daemon.control)).toBe(false)
  for (const name of netns) expect(sh('ip', '-n', name, '-o', 'link')).not.toContain('x0')
})

test('SIGTERM ends it also when nobody reads its log any more', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  daemon.process.child.stderr!.destroy()
  await daemon.execute('set_link', { name: 'p0', up: false })
  expect(await daemon.process.stop('SIGTERM')).toBe(0)
})

test('quit ends it as well, and tells the sessions', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  const seen: string[] = []
  daemon.client.events.on('event', (name) => seen.push(name))
  await daemon.execute('quit')
  expect(await daemon.process.exited).toBe(0)
  await until('it is told', () => seen.includes('SHUTDOWN'))
})

test('persistent devices stay, and are taken up again', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const first = await lab.daemon('--port', tapSpec(0, netns, 'persist=on'))
  await first.process.stop()
  expect(sh('ip', '-n', netns, '-o', 'link')).toContain('x0')
  const again = await lab.daemon('--port', tapSpec(0, netns))
  await again.process.stop()
  // Absent never clears the flag.
  expect(sh('ip', '-n', netns, '-o', 'link')).toContain('x0')
  const last = await lab.daemon('--port', tapSpec(0, netns, 'persist=off'))
  await last.process.stop()
  expect(sh('ip', '-n', netns, '-o', 'link')).not.toContain('x0')
})

test('killed and restarted at once 20 times, it always gets its TAPs back', KILLS, async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  for (const name of netns) {
    sh('ip', '-n', name, 'tuntap', 'add', 'x0', 'mode', 'tap', 'vnet_hdr')
    sh('ip', '-n', name, 'link', 'set', 'x0', 'up')
  }
  const control = join(lab.directory, 'same.sock')
  const args = [CLI, 'run', '--io', IO, '--control', control]
  const ports = netns.flatMap((name, k) => ['--port', tapSpec(k, name)])
  for (let round = 0; round < 20; round++) {
    const daemon = lab.background(process.execPath, [...args, ...ports])
    await until(
      'it is ready',
      () => daemon.stderr.includes('framepump: ready') || !daemon.isRunning,
    )
    expect(daemon.stderr, `round ${round}`).toContain('framepump: ready')
    daemon.child.kill('SIGKILL')
    await daemon.exited
  }
})

test('a second instance on the same control socket is refused, the first goes on', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  const second = await cli('run', '--control', daemon.control)
  expect(second.code).toBe(1)
  expect(second.stderr).toMatch(
    /^framepump: control socket .* is in use by another framepump \(pid \d+\)/m,
  )
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
})

test('a stale socket is replaced, a file that is no socket is not', async () => {
  await using lab = new Lab()
  // What a killed daemon leaves: a socket file that nobody listens on.
  const stale = join(lab.directory, 'stale.sock')
  const killed = lab.background(process.execPath, [CLI, 'run', '--control', stale])
  await until('it is ready', () => killed.stderr.includes('framepump: ready'))
  await killed.stop('SIGKILL')
  expect(existsSync(stale)).toBe(true)
  const next = lab.background(process.execPath, [CLI, 'run', '--control', stale])
  await until('it is ready', () => next.stderr.includes('framepump: ready') || !next.isRunning)
  expect(next.stderr).toContain('framepump: ready')
  const plain = join(lab.directory, 'plain')
  writeFileSync(plain, 'x')
  const refused = await cli('run', '--control', plain)
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('exists and is not a socket')
  expect(readFileSync(plain, 'utf8')).toBe('x')
})

test('SIGHUP applies the difference only', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns(), lab.netns()]
  const file = join(lab.directory, 'switch.yaml')
  const write = (which: number[]): void =>
    writeFileSync(
      file,
      `ports:\n${which.map((k) => `  - { id: p${k}, type: tap, ifname: x0, netns: ${netns[k]}, up: on }\n`).join('')}`,
    )
  write([0, 1])
  const daemon = await lab.daemon('--config', file)
  netns.slice(0, 1).forEach((name) => lab.address(name, '10.0.0.1'))
  /** What a kernel tells late is no part of it. */
  const device = (): string[] =>
    ['ifindex', 'carrier_changes'].map((name) =>
      lab.exec(netns[0], 'cat', `/sys/class/net/x0/${name}`),
    )
  const before = device()
  write([0, 2])
  daemon.process.child.kill('SIGHUP')
  await until('p2 is there', async () => (await daemon.port('p2')) !== undefined)
  expect(await daemon.port('p1')).toBeUndefined()
  // The same device: untouched.
  expect(device()).toEqual(before)
  writeFileSync(file, 'ports: [ {')
  daemon.process.child.kill('SIGHUP')
  await until('the error is logged', () => daemon.process.stderr.includes('not reloaded'))
  expect(await daemon.port('p2')).toBeDefined()
})

test('scripts run with the interface name, the down-script at close; a failing one is told', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const log = join(lab.directory, 'log')
  const script = (name: string, body: string): string => {
    const path = join(lab.directory, name)
    writeFileSync(path, `#!/bin/sh\n${body}\n`)
    chmodSync(path, 0o755)
    return path
  }
  const up = script('up', `echo "up $1" >>${log}`)
  const down = script('down', `echo "down $1" >>${log}`)
  const daemon = await lab.daemon(
    '--port',
    tapSpec(0, netns, `queues=2,script=${up},downscript=${down}`),
  )
  expect(readFileSync(log, 'utf8')).toBe('up x0\n')
  await daemon.process.stop()
  expect(readFileSync(log, 'utf8')).toBe('up x0\ndown x0\n')
  const failing = await cli(
    'run',
    '--control',
    join(lab.directory, 'c'),
    '--port',
    tapSpec(0, netns, `script=${script('bad', 'exit 3')}`),
  )
  expect(failing.code).toBe(1)
  expect(failing.stderr).toContain('failed with status 3')
  const missing = await cli(
    'run',
    '--control',
    join(lab.directory, 'c'),
    '--port',
    tapSpec(0, netns, 'script=/none'),
  )
  expect(missing.stderr).toContain(
    'could not launch network script /none: No such file or directory',
  )
})

test('%d names, and names that the kernel would cut', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const daemon = await lab.daemon(
    '--port',
    `tap,id=a,ifname=fp%d,netns=${netns},queues=2`,
    '--port',
    `tap,id=b,netns=${netns}`,
  )
  expect(await daemon.port('a')).toMatchObject({ ifname: 'fp0', netns })
  expect(await daemon.port('b')).toMatchObject({ ifname: 'tap0' })
  const refused = await cli('run', '--check', '--port', 'tap,id=a,ifname=sixteen-letters-')
  expect(refused.code).toBe(2)
  expect(refused.stderr).toContain('16 bytes long, the kernel takes 15')
})

test('a name that somebody holds is EBUSY after a second of trying', async () => {
  await using lab = new Lab()
  const { netns } = await lab.star(1)
  const refused = await cli(
    'run',
    '--control',
    join(lab.directory, 'c'),
    '--port',
    tapSpec(0, netns[0]),
  )
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain(
    'framepump: port "p0": could not configure /dev/net/tun (x0): Device or resource busy (another process holds x0)',
  )
})

test('an interface that is deleted fails its port alone, and adding it again works', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(3)
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  sh('ip', '-n', netns[1], 'link', 'del', 'x0')
  await until('the port has failed', async () => (await daemon.port('p1'))['state'] === 'failed')
  expect((await daemon.port('p1'))['error']).toContain('deleted')
  expect(lab.ping(netns[0], '10.0.0.3', 2)).toBe(2)
  await daemon.execute('netdev_del', { id: 'p1' })
  await daemon.execute('netdev_add', { type: 'tap', id: 'p1', ifname: 'x0', netns: netns[1] })
  lab.address(netns[1], '10.0.0.2')
  sh('ip', '-n', netns[0], 'neigh', 'flush', 'all')
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
})

test('an interface that is down drops and counts; renamed and moved, it goes on', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  sh('ip', '-n', netns[1], 'link', 'set', 'x0', 'down')
  await until('it counts', async () => {
    lab.ping(netns[0], '10.0.0.2', 1)
    return (await daemon.stats('p1'))['tx_drop_link_down'] > 0
  })
  expect(await daemon.port('p1')).toMatchObject({ state: 'down', device: 'down' })
  sh('ip', '-n', netns[1], 'link', 'set', 'x0', 'name', 'y0')
  const other = lab.netns()
  sh('ip', '-n', netns[1], 'link', 'set', 'y0', 'netns', other)
  expect(await daemon.port('p1')).toMatchObject({ ifname: 'y0', netns: other })
  lab.address(other, '10.0.0.2', 'y0')
  sh('ip', '-n', netns[0], 'neigh', 'flush', 'all')
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
})

test('an unprivileged daemon works on a persistent TAP that its user owns', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const NOBODY = '65534'
  sh('ip', '-n', netns, 'tuntap', 'add', 'u0', 'mode', 'tap', 'vnet_hdr', 'user', NOBODY)
  sh('ip', '-n', netns, 'link', 'set', 'u0', 'up')
  chmodSync(lab.directory, 0o777)
  const control = join(lab.directory, 'user', 'c.sock')
  const run = ['run', '--io', IO, '--control', control, '--port', 'tap,id=u,ifname=u0']
  // It may read the checkout wherever that lies; it has no capability for networks.
  const read = ['--inh-caps', '+dac_read_search', '--ambient-caps', '+dac_read_search']
  const as = ['setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups', ...read]
  const daemon = lab.start(netns, as[0], ...as.slice(1), process.execPath, CLI, ...run)
  await until('it is ready', () => daemon.stderr.includes('framepump: ready') || !daemon.isRunning)
  expect(daemon.stderr).toContain('framepump: ready')
  const other = lab.start(
    netns,
    as[0],
    ...as.slice(1),
    process.execPath,
    CLI,
    ...run.slice(0, 4),
    `${control}2`,
    '--port',
    'tap,id=v,ifname=v0',
  )
  expect(await other.exited).toBe(1)
  expect(other.stderr).toContain('Operation not permitted (needs CAP_NET_ADMIN')
})

test('bad arguments are exit 2, an unreachable daemon 3, each in one line that says what to do', async () => {
  await using lab = new Lab()
  const cases: [string[], number, RegExp][] = [
    [
      ['run', '--port', 'tap,id=a,ifnam=x'],
      2,
      /^framepump: --port a: unknown key "ifnam" for a tap port \(did you mean "ifname"\?\) \[BAD_OPTION\]$/m,
    ],
    [['run', '--port', 'tap,id=a,queues=257'], 2, /"queues" must be a number from 1 to 256/],
    [['run', '--port', 'tap,id=a', '--port', 'tap,id=a'], 2, /Duplicate ID 'a'/],
    [['run', '--link', 'a,b'], 2, /there is no port "a"/],
    [
      ['run', '--config', '/nonexistent'],
      2,
      /\/nonexistent: cannot be read: No such file or directory/,
    ],
    [
      ['run', '--port', 'tap,id=a,netns=no-such-ns', '--control', `${lab.directory}/c`],
      1,
      /no network namespace "no-such-ns"/,
    ],
    [['run', '--nonsense'], 2, /unknown option/],
    [['nonsense'], 2, /unknown command/],
    [['show', 'nonsense'], 2, /Allowed choices are ports/],
    [['ctl', 'query-status', '--control', '/nonexistent/c'], 3, /cannot reach a daemon/],
    [['capture', '-w', '/tmp/x', '--control', '/nonexistent/c'], 3, /cannot reach a daemon/],
  ]
  for (const [args, code, text] of cases) {
    const result = await cli(...args)
    expect([args, result.code]).toEqual([args, code])
    expect(result.stderr).toMatch(text)
  }
})

test('a missing TUN device is said so', async () => {
  await using lab = new Lab()
  // In a mount namespace of its own, with nothing behind the name.
  const script = `mount -t tmpfs none /dev/net && exec "${process.execPath}" "${CLI}" run --control ${lab.directory}/c --port tap,id=a`
  const daemon = new Background('unshare', ['--mount', '--net', 'sh', '-c', script])
  expect(await daemon.exited).toBe(1)
  expect(daemon.stderr).toContain(
    `Could not open '/dev/net/tun': No such file or directory (load the tun module`,
  )
})

test('every command has help, and doctor tells what it found', async () => {
  for (const command of ['run', 'demo', 'ctl', 'show', 'capture', 'doctor', 'bench']) {
    const { code, stdout } = await cli(command, '--help')
    expect(code).toBe(0)
    expect(stdout).toContain(`Usage: framepump ${command}`)
  }
  const { stdout } = await cli('doctor', '--json')
  const findings = JSON.parse(stdout) as { subject: string; isGood: boolean }[]
  expect(findings.find(({ subject }) => subject === 'tun')).toMatchObject({ isGood: true })
})

interface TierFinding {
  readonly subject: string
  readonly isGood: boolean
  readonly detail: string
  readonly facts: { shortNs: number; longNs: number; isAuto: boolean; why?: string }
}

test('doctor tells what frames cost on each tier, and why auto takes the one', async () => {
  const { stdout } = await cli('doctor', '--json')
  const tiers = (JSON.parse(stdout) as TierFinding[]).filter(({ subject }) =>
    subject.startsWith('io '),
  )
  expect(tiers.map(({ subject }) => subject)).toEqual(['io io_uring-multishot', 'io read-write'])
  for (const { detail, facts } of tiers.filter(({ isGood }) => isGood)) {
    const { shortNs, longNs } = facts
    const figures = `${(shortNs / 1000).toFixed(2)} and ${(longNs / 1000).toFixed(1)} us a frame`
    expect(detail).toContain(`available, ${figures} of 60 and of 65000 bytes`)
  }
  const [auto, ...others] = tiers.filter(({ facts }) => facts.isAuto)
  expect(others).toEqual([])
  expect(auto.detail).toContain(`, used by --io auto: ${auto.facts.why}`)
})
