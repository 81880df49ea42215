/** What a service manager is told: the daemon beside a socket as systemd has it. */
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { numberOf } from '../../../src/sockets/socket-file.ts'
import { CLI, compiledTool, Lab, NODES, ROOT, tapSpec } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { until } from '../../support/processes.ts'
import { Line } from '../../support/upgrades.ts'

const SHIM = join(ROOT, 'native-shim/build/Release/framepump.node')

interface Manager {
  readonly address: string
  readonly process: Background
  /** What came, with the pid of each sender. */
  messages(): { readonly pid: number; readonly fields: Record<string, string> }[]
}

async function manager(lab: Lab, address: string): Promise<Manager> {
  const process = lab.background(compiledTool('notify-socket'), [address])
  await until('the manager listens', () => process.stdout.startsWith('ready\n'))
  return {
    address,
    process,
    messages: () =>
      process.stdout
        .split('\n')
        .slice(1, -1)
        .map((line) => {
          const [pid, ...rest] = line.split(' ')
          const pairs = rest.join(' ').split('|')
          const fields = pairs.map((pair) => [
            pair.slice(0, pair.indexOf('=')),
            pair.slice(pair.indexOf('=') + 1),
          ])
          return { pid: Number(pid), fields: Object.fromEntries(fields) as Record<string, string> }
        }),
  }
}

const has = (told: Manager, field: string): boolean =>
  told.messages().some(({ fields }) => fields[field] !== undefined)

test.each(NODES)('an abstract socket is told of the whole life, on %s', async (node) => {
  await using lab = new Lab()
  const netns = lab.netns()
  const told = await manager(lab, `@framepump-test-${process.pid}`)
  const file = join(lab.directory, 'switch.yaml')
  writeFileSync(file, 'ports: []\n')
  const daemon = await lab.daemonWith(
    { NOTIFY_SOCKET: told.address },
    ['--config', file, '--port', tapSpec(0, netns)],
    node,
  )
  const pid = daemon.process.child.pid!
  await until('it is ready', () => has(told, 'READY'))
  expect(await daemon.execute('query-status')).toMatchObject({ ready: true })
  writeFileSync(file, `ports:\n  - { id: r, type: pcap, record: ${join(lab.directory, 'r')} }\n`)
  const before = process.hrtime.bigint() / 1000n
  daemon.process.child.kill('SIGHUP')
  await until('it was reloaded', () => told.messages().length >= 6)
  writeFileSync(file, 'nonsense: 1\n')
  daemon.process.child.kill('SIGHUP')
  await until('it was not reloaded', () => told.messages().length >= 8)
  await daemon.execute('stop')
  const isTold = (status: string): boolean =>
    told.messages().some(({ fields }) => fields['STATUS']?.includes(status))
  await until('the status tells', () => isTold('paused'))
  const socket = `socket-${numberOf(statSync(daemon.control))}`
  expect(await daemon.process.stop()).toBe(0)
  // What the daemon said last the manager has yet to print.
  await until('all is told', () => {
    const [last] = told.messages().slice(-1)
    return last.fields['FDSTOREREMOVE'] !== undefined && last.fields['FDNAME'] === socket
  })

  // A second after what has changed, if nothing else has, the status follows once more.
  const messages = told
    .messages()
    .filter(({ fields }) => !/^2 ports, running, io \S+$/.test(fields['STATUS']) || fields['READY'])
  expect(messages.map(({ pid: sender }) => sender)).toEqual(messages.map(() => pid))
  expect(messages.map(({ fields }) => fields)).toEqual([
    { STATUS: 'opening ports' },
    { FDSTORE: '1', FDPOLL: '0', FDNAME: socket },
    { FDSTORE: '1', FDPOLL: '0', FDNAME: 'tap-p0' },
    { READY: '1', MAINPID: `${pid}`, STATUS: expect.stringMatching(/^1 port, running, io \S+$/) },
    {
      RELOADING: '1',
      MONOTONIC_USEC: expect.stringMatching(/^\d+$/),
      STATUS: 'reloading the config',
    },
    { READY: '1', STATUS: expect.stringMatching(/^2 ports, running, io \S+$/) },
    { RELOADING: '1', MONOTONIC_USEC: expect.anything(), STATUS: 'reloading the config' },
    { READY: '1', STATUS: expect.stringMatching(/^2 ports, .*, not reloaded: .*nonsense/) },
    { STATUS: expect.stringMatching(/^2 ports, paused, /) },
    { STOPPING: '1', STATUS: 'closing ports' },
    { FDSTOREREMOVE: '1', FDNAME: 'tap-p0' },
    { FDSTOREREMOVE: '1', FDNAME: socket },
  ])
  const [at, later] = [4, 6].map((n) => BigInt(messages[n].fields['MONOTONIC_USEC']))
  expect(at).toBeGreaterThanOrEqual(before)
  expect(later).toBeGreaterThan(at)
  expect(later).toBeLessThanOrEqual(process.hrtime.bigint() / 1000n)
})

test('a manager whose socket is root’s alone hears a daemon that gave up everything', async () => {
  await using lab = new Lab()
  const told = await manager(lab, join(lab.directory, 'notify'))
  chmodSync(told.address, 0o600)
  const daemon = await lab.daemonWith({ NOTIFY_SOCKET: told.address, WATCHDOG_USEC: '200000' }, [
    '--user',
    'nobody',
    '--privileges',
    'locked',
  ])
  const status = readFileSync(`/proc/${daemon.process.child.pid}/status`, 'utf8')
  expect(status).toMatch(/^Uid:\t65534\t/m)
  expect(status).toMatch(/^CapPrm:\t0{16}$/m)
  expect(status).toMatch(/^Seccomp:\t2$/m)
  await until('signs of life', () => has(told, 'WATCHDOG'))
  expect(await daemon.process.stop()).toBe(0)
  await until('its end is told', () => has(told, 'STOPPING'))
})

test('a hand-over makes another process the service: MAINPID', async () => {
  await using lab = new Lab()
  const told = await manager(lab, `@framepump-test-${process.pid}`)
  const env = { NOTIFY_SOCKET: told.address }
  const daemon = await lab.daemonWith(env, [
    '--privileges',
    'off',
    '--port',
    tapSpec(0, lab.netns()),
  ])
  const pid = daemon.process.child.pid!
  await using line = new Line(daemon)
  const { pid: successor } = await line.upgrade()
  await line.areOthersGone()
  // The store of descriptors is another matter.
  const from = (sender: number): Record<string, string>[] =>
    told
      .messages()
      .flatMap(({ pid: by, fields }) =>
        by === sender && fields['FDNAME'] === undefined ? [fields] : [],
      )
  await until(
    'the successor is ready, and the one before gone',
    () => from(successor).length >= 3 && from(pid).length >= 4,
  )
  expect(from(pid).slice(2)).toEqual([
    { RELOADING: '1', MONOTONIC_USEC: expect.anything(), STATUS: 'handing over' },
    { READY: '1', MAINPID: `${successor}`, STATUS: `handed over to process ${successor}` },
  ])
  expect(from(successor)).toEqual([
    { STATUS: 'opening ports' },
    {
      READY: '1',
      MAINPID: `${successor}`,
      STATUS: expect.stringMatching(/^1 port, running, io \S+$/),
    },
    // systemd has not listened to it before.
    { READY: '1', STATUS: expect.stringMatching(/^1 port, running, io \S+$/) },
  ])
})

test('there are signs of life while the engine answers, and none when it does not', async () => {
  await using lab = new Lab()
  const told = await manager(lab, `@framepump-test-${process.pid}`)
  const hang = join(lab.directory, 'hang')
  const daemon = await lab.daemonWith(
    {
      NOTIFY_SOCKET: told.address,
      WATCHDOG_USEC: '100000',
      FRAMEPUMP_HANG: hang,
      FRAMEPUMP_SHIM: SHIM,
      NODE_OPTIONS: `--import=${join(ROOT, 'test/support/hang-probe.mjs')}`,
    },
    [],
  )
  const beats = (): number => told.messages().filter(({ fields }) => fields['WATCHDOG']).length
  await until('some', () => beats() >= 10)
  writeFileSync(hang, '')
  await until('the engine hangs', () => existsSync(`${hang}.hangs`))
  // Those of before may be on their way; with an engine that answers there would be ten in that time.
  let held = -1
  await until('there are none', async () => {
    const before = held
    held = beats()
    if (held === before) return true
    await new Promise((resolve) => setTimeout(resolve, 500))
    return false
  })
  // The main thread does not: it answers what it can by itself.
  expect(await daemon.execute('query-links')).toEqual([])
  rmSync(hang)
  const again = beats()
  await until('it lives again', () => beats() >= again + 5)
})

test('a socket that vanishes hurts nobody, and is found again', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'notify')
  const first = await manager(lab, path)
  const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '100000' }
  const daemon = await lab.daemonWith(env, [])
  await until('signs of life', () => has(first, 'WATCHDOG'))
  await first.process.stop()
  rmSync(path)
  await until('it is told', () => daemon.process.stderr.includes(`notify: ${path} error=`))
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  const second = await manager(lab, path)
  await until('signs of life', () => has(second, 'WATCHDOG'))
  await second.process.stop()
  rmSync(path)
  expect(await daemon.process.stop()).toBe(0)
  // Once for each time that it went.
  expect(daemon.process.stderr.match(/notify: /g)!.length).toBeLessThanOrEqual(2)
})

test('a manager that reads nothing holds nothing up, and misses nothing that matters', async () => {
  await using lab = new Lab()
  const told = await manager(lab, `@framepump-test-${process.pid}`)
  const daemon = await lab.daemonWith({ NOTIFY_SOCKET: told.address, WATCHDOG_USEC: '2000' }, [])
  await until('signs of life', () => has(told, 'WATCHDOG'))
  told.process.child.kill('SIGSTOP')
  const slow = Number(readFileSync('/proc/sys/net/unix/max_dgram_qlen', 'utf8')) * 2 + 1000
  await new Promise((resolve) => setTimeout(resolve, slow))
  await daemon.execute('stop')
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'paused' })
  await new Promise((resolve) => setTimeout(resolve, 1200))
  told.process.child.kill('SIGCONT')
  await until('the last state', () =>
    told.messages().some(({ fields }) => fields['STATUS']?.includes('paused')),
  )
  expect(await daemon.process.stop()).toBe(0)
})

test('a start that fails is told with its reason, and scripts are not the service', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const told = await manager(lab, `@framepump-test-${process.pid}`)
  const script = join(lab.directory, 'up')
  const seen = join(lab.directory, 'environment')
  writeFileSync(script, `#!/bin/sh\nenv >${seen}\n`)
  chmodSync(script, 0o755)
  const control = lab.controlPath()
  const child = spawn(
    process.execPath,
    [CLI, 'run', '--control', control, '--port', `${tapSpec(0, netns)},script=${script}`].concat([
      '--port',
      `tap,id=b,ifname=x0,netns=${netns},vnet_hdr=off,queues=7`,
    ]),
    {
      stdio: 'ignore',
      env: { ...process.env, NOTIFY_SOCKET: told.address, WATCHDOG_USEC: '1000000', MARK: 'x' },
    },
  )
  expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(1)
  await until('it is told', () => has(told, 'STOPPING'))
  const last = told.messages().findLast(({ fields }) => fields['FDNAME'] === undefined)!
  expect(last.fields).toEqual({ STOPPING: '1', STATUS: expect.stringMatching(/^failed: .*"b"/) })
  const environment = readFileSync(seen, 'utf8')
  expect(environment).toContain('MARK=x')
  expect(environment).not.toMatch(/NOTIFY_SOCKET|WATCHDOG/)
})

test('an address of another kind is told and left alone', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemonWith({ NOTIFY_SOCKET: 'vsock:2:1234' }, [])
  expect(daemon.process.stderr).toContain('notify: NOTIFY_SOCKET is neither a path nor @NAME')
  expect(await daemon.process.stop()).toBe(0)
})
