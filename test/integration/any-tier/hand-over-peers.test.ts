/** Real daemons, and on the other end of a hand-over a peer that dies, stalls, lies or speaks nonsense. */
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, readdirSync } from 'node:fs'
import { createServer, connect as connectNet } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { POLLIN } from '../../../src/abi/epoll.ts'
import { ControlClient } from '../../../src/control/client.ts'
import { knownFeatures } from '../../../src/handover/features.ts'
import type { Section } from '../../../src/handover/records.ts'
import { shim } from '../../../src/native/shim.ts'
import { Peer, Stand } from '../../support/hand-over-peer.ts'
import type { Daemon } from '../../support/lab.ts'
import { CLI, Lab, tapSpec } from '../../support/lab.ts'
import { Background, until } from '../../support/processes.ts'
import { makeTap } from '../../support/tun.ts'
import { listenerOf, tapQueuesOf } from '../../support/upgrades.ts'

const HELLO = {
  protocol: 1,
  release: 'peer',
  backendTransfer: true,
  exclude: [],
  features: knownFeatures(),
}
const NOTHING = {
  runState: 'running',
  links: [],
  mirrors: [],
  counters: {
    mac_entries: 0,
    mac_moves: 0,
    loop_seconds: 0,
    mac_table_full: 0,
    bursts: 0,
    sleeps: 0,
  },
  ownFrames: [],
}
const WAIT_MS = 50
const STATIC = '02:00:00:00:00:01'
/** No peer here is to be late because the machine is busy. */
const DOWNTIME_LIMIT_MS = 60_000
/** Half a second, and what a busy machine takes: once in so many times. */
const LONGEST_WAIT_MS = 1500
const TRIES = 5

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

const statusOf = (daemon: Daemon): Promise<{ running: boolean; status: string }> =>
  daemon.execute('query-status')

describe('a target', () => {
  async function makeTarget(lab: Lab): Promise<{ target: Daemon; path: string }> {
    const path = join(lab.directory, 'hand-over.sock')
    return { target: await lab.daemon('--incoming', `unix:${path}`), path }
  }

  const runs = (target: Daemon): Promise<void> =>
    until('it runs', async () => (await statusOf(target)).running)

  /** As a source that has a TAP in that namespace, or nothing. */
  async function hello(
    peer: Peer,
    netns: string | undefined,
    pidfd: number,
    more: object = {},
  ): Promise<void> {
    const tap = { type: 'tap', id: 'a', ifname: 'x0', netns, persist: true }
    const ports = netns === undefined ? [] : [tap]
    const facts = { queues: 1, txOffloads: 0, rxOffloads: 0, vnetHdrLength: 12, isExcluded: false }
    const outlined = ports.map((options) => ({ id: 'a', options, ...facts }))
    const outline = { ports: outlined, links: [], endingCaptures: [] }
    const fdb = ports.map(({ id }) => ({ mac: STATIC, port: id }))
    const desired = { ports, links: [], fdb }
    peer.send('hello', { ...HELLO, ports, outline, desired, ...more }, [pidfd])
    await peer.receiveUpTo('hello')
  }

  type Point = Section | 'rehearsal' | 'rehearsed'

  async function goOnTo(peer: Peer, point: Point): Promise<void> {
    if (point === 'hello') return
    peer.send('prepare', {})
    if (point === 'prepare') return
    // A preview of nothing.
    peer.send('control', null)
    peer.send('switch', NOTHING)
    peer.send('end-of-state', { ports: 0, macs: 0 })
    await peer.receiveUpTo('prepared')
    if (point === 'prepared') return
    peer.send('switch', NOTHING)
    if (point === 'rehearsal') return
    peer.send('end-of-state', { ports: 0, macs: 0, isRehearsed: true })
    await peer.receiveUpTo('prepared')
    if (point === 'rehearsed') return
    const listening = shim.socketUnix(1)
    peer.send('control', { clients: [] }, [listening])
    shim.close(listening)
    peer.send('switch', NOTHING)
    if (point === 'switch') return
    peer.send('end-of-state', { ports: 0, macs: 0 })
    await peer.receiveUpTo('ready')
    if (point === 'commit') peer.send('commit', {})
  }

  const points = [
    'hello',
    'prepare',
    'prepared',
    'rehearsal',
    'rehearsed',
    'switch',
    'ready',
    'commit',
  ] as const

  test.for(points)('H11: its source is killed after %s: it runs', async (point) => {
    await using lab = new Lab()
    const netns = lab.netns()
    makeTap(netns, 1)
    const { target, path } = await makeTarget(lab)
    using stand = new Stand()
    using peer = Peer.connect(path)
    // What comes with `ready` here has no port; before that all are opened by their names.
    const isHeld = point === 'ready' || point === 'commit'
    await hello(peer, isHeld ? undefined : netns, stand.pidfd)
    await goOnTo(peer, point)
    peer.close()
    // In one go: a source that lives longer than a moment is taken for one that goes on.
    shim.poll(stand.pidfd, POLLIN, WAIT_MS)
    stand.kill()
    await runs(target)
    expect(tapQueuesOf(target.process.child.pid!)).toBe(isHeld ? 0 : 1)
    expect(await target.execute('query-migrate')).toMatchObject({ status: 'completed' })
    const table = await target.execute<{ mac: string }[]>('query-mac-table')
    expect(table.map(({ mac }) => mac)).toEqual(isHeld ? [] : [STATIC])
  })

  test('H11: its source is killed while it is paused, and a port of it down: so they stay', async () => {
    await using lab = new Lab()
    const netns = lab.netns()
    makeTap(netns, 1)
    const { target, path } = await makeTarget(lab)
    using stand = new Stand()
    using peer = Peer.connect(path)
    await hello(peer, netns, stand.pidfd, { isPaused: true, down: ['a'] })
    await goOnTo(peer, 'prepare')
    peer.close()
    stand.kill()
    await until('it goes on', async () => (await statusOf(target)).status === 'paused')
    const ports = await target.execute<object[]>('query-ports')
    expect(ports).toMatchObject([{ id: 'a', state: 'down', link: false }])
    expect(await target.execute('query-migrate')).toMatchObject({ status: 'completed' })
    await target.execute('set_link', { name: 'a', up: true })
    await target.execute('cont')
    await runs(target)
  })

  test.for(points.slice(0, -1))(
    'H11: its source lives, and is cut off after %s: it exits',
    async (point) => {
      await using lab = new Lab()
      const netns = lab.netns()
      makeTap(netns, 1)
      const { target, path } = await makeTarget(lab)
      using stand = new Stand()
      using peer = Peer.connect(path)
      await hello(peer, point === 'ready' ? undefined : netns, stand.pidfd)
      await goOnTo(peer, point)
      peer.close()
      expect(await target.process.exited).toBe(1)
      expect(target.process.stderr).toContain('the source lives, and its channel is broken')
    },
  )

  test('H4: the control path is its own before it says that it runs', async () => {
    await using lab = new Lab()
    const control = lab.controlPath()
    const listening = shim.socketUnix(1)
    expect([shim.bindUnix(listening, control), shim.listen(listening, 4)]).toEqual([0, 0])
    const { ino } = lstatSync(control)
    const path = join(lab.directory, 'hand-over.sock')
    const target = await lab.successor(control, '--incoming', `unix:${path}`)
    using stand = new Stand()
    using peer = Peer.connect(path)
    await hello(peer, undefined, stand.pidfd)
    await goOnTo(peer, 'commit')
    peer.wait()
    const found = lstatSync(control).ino
    await peer.receiveUpTo('running')
    expect(found).not.toBe(ino)
    expect(listenerOf(control)).toBe(target.process.child.pid)
    expect(existsSync(`${control}.incoming`)).toBe(false)
    shim.close(listening)
  })

  test('H11: its source says abort after ready: it exits', async () => {
    await using lab = new Lab()
    const { target, path } = await makeTarget(lab)
    using stand = new Stand()
    using peer = Peer.connect(path)
    await hello(peer, undefined, stand.pidfd)
    await goOnTo(peer, 'ready')
    peer.send('abort', { reason: 'I have thought better of it' })
    expect(await target.process.exited).toBe(1)
    expect(target.process.stderr).toContain('gave up: I have thought better of it')
  })

  test('gives nothing to garbage, foreign descriptors and other users, and waits for its source', async () => {
    await using lab = new Lab()
    const { target, path } = await makeTarget(lab)
    const pid = target.process.child.pid!
    const before = descriptors(pid)
    const said = (what: string): Promise<void> =>
      until(`it says ${what}`, () => target.process.stderr.includes(what))
    {
      using peer = Peer.connect(path)
      peer.sendBytes(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
      expect(await peer.receive()).toMatchObject({ section: 'abort' })
      await said('not begun error="what came is no hand-over of framepump')
    }
    {
      using peer = Peer.connect(path)
      peer.sendBytes(Buffer.from('FPHO'), [0, 1, 2])
      expect(await peer.receive()).toMatchObject({ section: 'abort' })
      await said('3 descriptors came where none belong')
    }
    {
      // A file is no process.
      using peer = Peer.connect(path)
      peer.send('hello', { ...HELLO, ports: [] }, [shim.open('/dev/null', 0)])
      expect(await peer.receive()).toMatchObject({ section: 'abort' })
      await said('the hello came with /dev/null')
    }
    // Whoever may reach the socket at all: its mode is 0600.
    chmodSync(path, 0o777)
    chmodSync(lab.directory, 0o755)
    const script = `const socket = require('net').connect(${JSON.stringify(path)});
      socket.on('data', (data) => console.log('got ' + data)).on('close', () => console.log('closed'))`
    const stranger = spawn(process.execPath, ['-e', script], { uid: 65534, gid: 65534 })
    let heard = ''
    stranger.stdout.on('data', (data) => (heard += String(data)))
    await new Promise((resolve) => stranger.once('close', resolve))
    expect(heard).toBe('closed\n')
    await said('the other side runs as user 65534')
    await until('nothing of them is left', () => descriptors(pid) === before)
    using stand = new Stand()
    using peer = Peer.connect(path)
    await hello(peer, undefined, stand.pidfd)
    await goOnTo(peer, 'commit')
    await runs(target)
  })
})

describe('a source', () => {
  interface Source {
    readonly daemon: Daemon
    readonly netns: string[]
    readonly path: string
    readonly listening: number
    /** Whether it forwards. */
    readonly forwards: () => boolean
    readonly ended: () => Promise<Record<string, unknown>>
    readonly limit: (downtimeMs: number) => Promise<unknown>
  }

  async function makeSource(lab: Lab): Promise<Source> {
    const { daemon, netns } = await lab.star(2)
    const path = join(lab.directory, 'hand-over.sock')
    const listening = shim.socketUnix(1)
    shim.bindUnix(listening, path)
    shim.listen(listening, 4)
    await daemon.execute('migrate-set-parameters', {
      'backend-transfer': true,
      'downtime-limit': DOWNTIME_LIMIT_MS,
    })
    return {
      daemon,
      limit: (ms) => daemon.execute('migrate-set-parameters', { 'downtime-limit': ms }),
      netns,
      path,
      listening,
      forwards: () => lab.ping(netns[0], '10.0.0.2', 2) > 0,
      ended: async () => {
        let info: Record<string, unknown> = {}
        await until('it is over', async () => {
          info = await daemon.execute('query-migrate')
          return info['status'] === 'failed' || info['status'] === 'completed'
        })
        return info
      },
    }
  }

  const own = { ...HELLO, pid: 1, ports: [] }
  const rows: readonly {
    readonly name: string
    readonly why: string
    /** Of the downtime, by default none that matters. */
    readonly limitMs?: number
    readonly act: (peer: Peer, pidfd: number) => Promise<void>
  }[] = [
    {
      name: 'is gone at once',
      why: 'the target is gone',
      act: (peer) => Promise.resolve(peer.close()),
    },
    {
      name: 'sends no descriptor',
      why: 'the hello came with no descriptor',
      act: async (peer) => {
        await peer.receiveUpTo('hello')
        peer.send('hello', own)
        await peer.receive()
      },
    },
    {
      name: 'is gone after the hello',
      why: 'the target is gone',
      act: async (peer, pidfd) => {
        await peer.receiveUpTo('hello')
        peer.send('hello', own, [pidfd])
        await peer.receiveUpTo('prepare')
        peer.close()
      },
    },
    {
      name: 'is gone with all descriptors',
      why: 'the target is gone',
      act: holding((peer) => Promise.resolve(peer.close())),
    },
    {
      name: 'is gone in the first rehearsal',
      why: 'the target is gone',
      act: rehearsing((peer) => Promise.resolve(peer.close())),
    },
    {
      name: 'speaks nonsense in the first rehearsal',
      why: 'what came is no hand-over of framepump',
      act: rehearsing((peer) => Promise.resolve(peer.sendBytes(Buffer.alloc(64, 'x')))),
    },
    {
      name: 'gives up in the first rehearsal',
      why: 'the other side gave up: no room',
      act: rehearsing((peer) => Promise.resolve(peer.send('abort', { reason: 'no room' }))),
    },
    {
      name: 'says ready in the last rehearsal',
      why: 'section "ready" came instead of "prepared"',
      act: rehearsingLast((peer) => Promise.resolve(peer.send('ready', {}))),
    },
    {
      name: 'is gone in the last rehearsal',
      why: 'the target is gone',
      act: rehearsingLast((peer) => Promise.resolve(peer.close())),
    },
    {
      name: 'speaks nonsense in the last rehearsal',
      why: 'what came is no hand-over of framepump',
      act: rehearsingLast((peer) => Promise.resolve(peer.sendBytes(Buffer.alloc(64, 'x')))),
    },
    {
      name: 'has everything, and says nothing in time',
      why: 'the target has not taken over within the downtime-limit (300 ms)',
      limitMs: 300,
      act: holding((peer) => expect(peer.receiveUpTo('commit')).rejects.toThrow('downtime-limit')),
    },
    {
      name: 'stops reading in the midst of the state',
      why: 'the target has not taken over within the downtime-limit (300 ms)',
      limitMs: 300,
      act: (peer, pidfd) => prepared(peer, pidfd),
    },
    {
      name: 'says ready too early, and garbage then',
      why: 'what came is no hand-over of framepump',
      act: async (peer, pidfd) => {
        await prepared(peer, pidfd)
        peer.sendBytes(Buffer.alloc(64, 'x'))
        await peer.receiveUpTo('end-of-state')
      },
    },
  ]

  /** Once it has the whole state. */
  function holding(act: (peer: Peer) => Promise<unknown>): (typeof rows)[number]['act'] {
    return async (peer, pidfd) => {
      await prepared(peer, pidfd)
      await peer.receiveUpTo('end-of-state')
      await act(peer)
    }
  }

  async function prepared(peer: Peer, pidfd: number, more: object = {}): Promise<void> {
    await peer.receiveUpTo('hello')
    peer.send('hello', own, [pidfd])
    await peer.receiveUpTo('prepare')
    await peer.receiveUpTo('end-of-state')
    peer.send('prepared', more)
  }

  const REHEARSES = { ports: ['p0', 'p1'], rehearses: true }

  /** It has what the first rehearsal is about. */
  function rehearsing(act: (peer: Peer) => Promise<unknown>): (typeof rows)[number]['act'] {
    return async (peer, pidfd) => {
      await prepared(peer, pidfd, REHEARSES)
      expect((await peer.receiveUpTo('end-of-state')).data).toMatchObject({ isRehearsed: true })
      await act(peer)
    }
  }

  /** Likewise of the first rehearsal of those for which clients are silent: those before it are gone through. */
  function rehearsingLast(act: (peer: Peer) => Promise<unknown>): (typeof rows)[number]['act'] {
    return async (peer, pidfd) => {
      await prepared(peer, pidfd, REHEARSES)
      for (let isSilent = false; ;) {
        const { section, data } = (await peer.receive())!
        isSilent ||= section === 'control'
        if (section !== 'end-of-state') continue
        expect(data).toMatchObject({ isRehearsed: true })
        if (isSilent) return void (await act(peer))
        peer.send('prepared', REHEARSES)
      }
    }
  }

  test('H11: goes on where it stopped, whatever its target does before commit', async () => {
    await using lab = new Lab()
    const { daemon, path, listening, forwards, ended, limit } = await makeSource(lab)
    using stand = new Stand()
    const pid = daemon.process.child.pid!
    expect(forwards()).toBe(true)
    const before = descriptors(pid)
    for (const { name, why, limitMs = DOWNTIME_LIMIT_MS, act } of rows) {
      await limit(limitMs)
      await daemon.execute('migrate', { uri: `unix:${path}` })
      using peer = await Peer.accept(listening)
      await act(peer, stand.pidfd)
      const { status, 'error-desc': error } = await ended()
      expect({ name, status, error }).toEqual({
        name,
        status: 'failed',
        error: expect.stringContaining(why),
      })
      expect({ name, forwards: forwards(), running: (await statusOf(daemon)).running }).toEqual({
        name,
        forwards: true,
        running: true,
      })
    }
    await until('it has closed what it had', () => descriptors(pid) === before)
    shim.close(listening)
  })

  const hanging = [
    { name: 'the first rehearsal', hang: rehearsing, isServed: true, limitMs: 5000 },
    { name: 'the last rehearsal', hang: rehearsingLast, isServed: false, limitMs: 300 },
  ]
  test.for(hanging)(
    'H11: clients are answered soon, whatever hangs: $name',
    async ({ name, hang, isServed, limitMs }) => {
      await using lab = new Lab()
      const { daemon, path, listening, forwards, ended, limit } = await makeSource(lab)
      using stand = new Stand()
      await limit(limitMs)
      /** Milliseconds until a client was answered, and how far it was then. */
      const ask = async (): Promise<{ waitedMs: number; status: string }> => {
        await daemon.execute('migrate', { uri: `unix:${path}` })
        using peer = await Peer.accept(listening)
        let answered: Promise<number> | undefined
        await hang(() => {
          const begun = performance.now()
          answered = statusOf(daemon).then(() => performance.now() - begun)
          return answered
        })(peer, stand.pidfd).catch(() => undefined)
        const waitedMs = (await answered) ?? Infinity
        const { status } = await daemon.execute<{ status: string }>('query-migrate')
        const { 'error-desc': error } = await ended()
        expect(error).toBe('the target has not rehearsed in time')
        expect(forwards()).toBe(true)
        return { waitedMs, status }
      }
      // Answered while it hangs, or when it was given up on.
      const isSoon = ({ waitedMs, status }: { waitedMs: number; status: string }): boolean =>
        waitedMs < LONGEST_WAIT_MS && (status === 'active') === isServed
      let last = await ask()
      for (let tries = 1; tries < TRIES && !isSoon(last); tries++) last = await ask()
      expect([last, isSoon(last)]).toEqual([last, true])
      console.log(`hand-over: a client waits ${last.waitedMs.toFixed(0)} ms while ${name} hangs`)
      shim.close(listening)
    },
  )

  /** A target that is given everything. */
  async function dieAfterCommit(listening: number, pidfd: number): Promise<void> {
    using peer = await Peer.accept(listening)
    await prepared(peer, pidfd)
    await peer.receiveUpTo('end-of-state')
    peer.send('ready', {})
    await peer.receiveUpTo('commit')
  }

  test('H11: fails when its target has died after commit and the command that has asked for it is gone', async () => {
    await using lab = new Lab()
    const { daemon, path, listening } = await makeSource(lab)
    using stand = new Stand()
    const client = await ControlClient.connect(daemon.control)
    expect(await client.execute('upgrade')).toMatchObject({ start: { path: expect.any(String) } })
    await client.execute('migrate', { uri: `unix:${path}` })
    await dieAfterCommit(listening, stand.pidfd)
    client.close()
    // For a supervisor, which starts another one.
    expect([await daemon.process.exited, daemon.process.stderr]).toEqual([
      1,
      expect.stringContaining('the target has everything'),
    ])
    shim.close(listening)
  })

  test('H11: never reads again once commit is written, though its target has died', async () => {
    await using lab = new Lab()
    const { daemon, netns, path, listening, forwards, ended } = await makeSource(lab)
    using stand = new Stand()
    await daemon.execute('migrate', { uri: `unix:${path}` })
    await dieAfterCommit(listening, stand.pidfd)
    expect((await ended())['error-desc']).toContain('the target has everything')
    expect(await statusOf(daemon)).toMatchObject({ status: 'postmigrate' })
    expect(forwards()).toBe(false)
    expect(tapQueuesOf(daemon.process.child.pid!)).toBe(0)
    // A supervisor starts another one. Its interfaces went with the last descriptor: they were not persistent.
    await daemon.process.stop()
    const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name)])
    const next = await lab.daemon(...specs)
    expect(await statusOf(next)).toMatchObject({ running: true })
    shim.close(listening)
  })

  test('H2: a channel that drops descriptors is refused before it is touched', async () => {
    await using lab = new Lab()
    const { daemon, forwards, ended } = await makeSource(lab)
    const uri = `unix:${join(lab.directory, 'target.sock')}`
    await lab.successor(daemon.control, '--incoming', uri)
    // Node's own sockets do.
    const relay = createServer((client) => {
      const far = connectNet(join(lab.directory, 'target.sock'))
      for (const socket of [client, far]) socket.on('error', () => undefined)
      client.pipe(far).pipe(client)
    })
    const between = join(lab.directory, 'relay.sock')
    await new Promise<void>((resolve) => relay.listen(between, resolve))
    await daemon.execute('migrate', { uri: `unix:${between}` })
    expect(await ended()).toMatchObject({
      status: 'failed',
      'error-desc':
        'the other side gave up: 1 descriptors should have come, and 0 did (connect both directly, by a UNIX socket)',
    })
    expect(forwards()).toBe(true)
    relay.close()
  })

  test('migrate_cancel ends it, and both sides say so', async () => {
    await using lab = new Lab()
    const { daemon, path, listening, forwards } = await makeSource(lab)
    await daemon.execute('migrate', { uri: `unix:${path}` })
    using peer = await Peer.accept(listening)
    await peer.receiveUpTo('hello')
    await expect(daemon.execute('migrate', { uri: `unix:${path}` })).rejects.toThrow(
      'a hand-over is under way already',
    )
    await daemon.execute('migrate_cancel')
    await expect(peer.receiveUpTo('prepare')).rejects.toThrow('it was cancelled')
    await until('it is over', async () => {
      const { status } = await daemon.execute<{ status: string }>('query-migrate')
      return status === 'cancelled'
    })
    expect(forwards()).toBe(true)
    shim.close(listening)
  })
})

test('run --incoming says what is wrong with it', async () => {
  const run = new Background(process.execPath, [CLI, 'run', '--incoming', 'unix:relative'])
  expect(await run.exited).toBe(2)
  expect(run.stderr).toContain('--incoming unix:relative: descriptors pass by a UNIX socket only')
})
