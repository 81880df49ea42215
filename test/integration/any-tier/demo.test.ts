/** The demo: the main job on real devices, as root, as an ordinary user, and where something lacks. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { installFor } from '../../support/installed.ts'
import { CLI, IO, Lab } from '../../support/lab.ts'
import { sh } from '../../support/processes.ts'

interface Summary {
  readonly frames: number
  readonly bytes: number
  readonly lostFrames: number
  readonly ping: { readonly sent: number; readonly received: number; readonly rttMs: number }
  readonly virtio: { readonly sent: number; readonly received: number }
  readonly uplink: { readonly sent: number; readonly received: number } | null
  readonly tcp: { readonly sentBytes: number; readonly receivedBytes: number }
  readonly capture: { readonly frames: number; readonly dropped: number }
}

function orders(file: string, ...more: string[]): string[] {
  return [CLI, 'demo', '--io', IO, '--seconds', '1', '--capture', file, ...more]
}

test('forwards pings and a TCP transfer without loss, and leaves a capture of all of it', async () => {
  await using lab = new Lab()
  // Those of the machine are everybody's.
  const netns = lab.netns()
  const interfaces = (): string => sh('ip', '-n', netns, '-br', 'link')
  const before = interfaces()
  const file = join(lab.directory, 'demo.pcapng')
  const run = lab.start(netns, process.execPath, ...orders(file, '--json'))
  expect({ exit: await run.exited, stderr: run.stderr }).toMatchObject({ exit: 0 })
  const summary = JSON.parse(run.stdout) as Summary
  expect(summary.lostFrames).toBe(0)
  expect(summary.ping.received).toBe(summary.ping.sent)
  expect(summary.ping.rttMs).toBeGreaterThan(0)
  expect(summary.virtio).toMatchObject({ sent: 10, received: 10 })
  expect(summary.uplink).toMatchObject({ sent: 5, received: 5 })
  expect(summary.tcp.receivedBytes).toBe(summary.tcp.sentBytes)
  expect(summary.tcp.receivedBytes).toBeGreaterThan(1e5)
  expect(summary.capture.dropped).toBe(0)

  const echoes = sh('tshark', '-r', file, '-Y', 'icmp.type == 8', '-T', 'fields', '-e', 'frame.len')
  // Each is in the capture once, where it came in.
  expect(echoes.trim().split('\n')).toHaveLength(summary.ping.sent + summary.virtio.sent + 5)
  expect(sh('capinfos', '-c', '-M', file)).toContain(` ${summary.capture.frames}`)
  expect(interfaces()).toBe(before)
})

test('says in plain lines what it does, where there is no terminal', async () => {
  await using lab = new Lab()
  const file = join(lab.directory, 'demo.pcapng')
  const run = lab.background(process.execPath, orders(file))
  expect({ exit: await run.exited, stderr: run.stderr }).toMatchObject({ exit: 0 })
  for (const line of [
    /^switch: started, io (io_uring-multishot|read-write)/m,
    /^port u: a raw socket on up0, /m,
    /^ping: 5 of 5 answered, /m,
    /^ping: 5 of 5 answered through the uplink$/m,
    /^ping: 5 of 5 answered through the switch$/m,
    /^ping: 5 of 5 answered on a link$/m,
    /^ {2}a: rx .* frames/m,
    /^ {2}u: rx .* frames/m,
    /^frames lost {7}0; pings lost 0$/m,
    /^capture .*demo\.pcapng \(\d+ frames, 0 dropped\)$/m,
  ]) {
    expect(run.stdout).toMatch(line)
  }
  expect(run.stdout).not.toContain('\u001b')
})

test('works as an ordinary user, in a user namespace of its own', async () => {
  await using lab = new Lab()
  const cli = installFor(lab)
  const file = join(lab.directory, 'user.pcapng')
  const as = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--bounding-set=-all']
  const command = [process.execPath, cli, 'demo', '--io', IO, '--seconds', '1', '--json']
  const run = lab.background('setpriv', [...as, ...command, '--capture', file])
  expect({ exit: await run.exited, stderr: run.stderr }).toMatchObject({ exit: 0 })
  const summary = JSON.parse(run.stdout) as Summary
  expect(summary.lostFrames).toBe(0)
  expect(summary.tcp.receivedBytes).toBe(summary.tcp.sentBytes)
  expect(summary.uplink).toMatchObject({ sent: 5, received: 5 })
  expect(sh('capinfos', '-t', file)).toContain('pcapng')
})

test('without an uplink, where there can be none, the rest works', async () => {
  await using lab = new Lab()
  const real = sh('sh', '-c', 'command -v ip').trim()
  const path = pathOf(lab, [], {
    ip: `case "$*" in *veth*) echo 'Unknown device type.' >&2; exit 2;; esac; exec ${real} "$@"`,
  })
  const file = join(lab.directory, 'demo.pcapng')
  const env = { PATH: `${path}:${process.env['PATH']}` }
  const args = [CLI, 'demo', '--io', IO, '--seconds', '1', '--capture', file]
  const run = lab.background(process.execPath, args, env)
  expect({ exit: await run.exited, stderr: run.stderr }).toMatchObject({ exit: 0 })
  expect(run.stdout).toMatch(/^port u: no uplink: ip link add up0 .*: Unknown device type\.$/m)
  expect(run.stdout).toMatch(/^frames lost {7}0; pings lost 0$/m)
  expect(run.stdout).not.toMatch(/^ {2}u: /m)
})

/** A directory with these programs only; what is in `scripts` is written there. */
function pathOf(lab: Lab, programs: string[], scripts: Record<string, string> = {}): string {
  const bin = join(lab.directory, 'bin')
  mkdirSync(bin)
  for (const program of programs) {
    scripts[program] ??= `exec ${sh('sh', '-c', `command -v ${program}`).trim()} "$@"`
  }
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }
  chmodSync(lab.directory, 0o777)
  return bin
}

test('a missing program is exit 77, named, with its package', async () => {
  await using lab = new Lab()
  const path = pathOf(lab, ['unshare', 'ip'])
  const run = lab.background(process.execPath, [CLI, 'demo'], { PATH: path })
  expect(await run.exited).toBe(77)
  expect(run.stderr).toBe(
    'framepump: "ping" is missing (apt-get install iputils-ping) [MACHINE_LACKS]\n',
  )
})

test('forbidden user namespaces are exit 77, with the system’s own words', async () => {
  await using lab = new Lab()
  const cli = installFor(lab)
  const path = pathOf(lab, ['ip', 'ping'], {
    unshare: 'echo "unshare: unshare failed: Operation not permitted" >&2; exit 1',
  })
  const as = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  const run = lab.background('setpriv', [...as, process.execPath, cli, 'demo'], {
    PATH: `${path}:${process.env['PATH']}`,
  })
  expect(await run.exited).toBe(77)
  expect(run.stderr).toMatch(
    /^framepump: user namespaces are forbidden: unshare: .*Operation not permitted \(run it as root/,
  )
})
