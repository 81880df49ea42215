/**
 * Raw socket ports of a daemon: what is refused and with which words, descriptors from outside, reload,
 * successors, privileges, and ends of every kind.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { shim } from '../../src/native/shim.ts'
import type { Daemon } from '../support/lab.ts'
import { CLI, frameHex, IO, Lab } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { packetSocket, packetSocketWithoutHeaders } from '../support/packet-socket.ts'
import {
  addAddresses,
  addHosts,
  addPair,
  rawSpec,
  rawStar,
  setLink,
  uplinkName,
} from '../support/raw-lab.ts'
import { numbers } from '../support/tun.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'

type Arguments = Readonly<Record<string, unknown>>

const addRaw = (daemon: Daemon, id: string, args: Arguments): Promise<unknown> =>
  daemon.execute('netdev_add', { type: 'raw-socket', id, ...args })

const ids = async (daemon: Daemon): Promise<string[]> =>
  (await daemon.execute<{ id: string }[]>('query-ports')).map(({ id }) => id)

/** What `ip -d` counts of the sockets that want all frames. */
const promiscuity = (netns: string, ifname: string): number =>
  Number(/promiscuity (\d+)/.exec(sh('ip', '-n', netns, '-d', 'link', 'show', ifname))![1])

const number = (start: number): string => frameHex(BROADCAST, SOURCE, start)

describe('what cannot be is refused', () => {
  test('interfaces that are no uplink, in words', async () => {
    await using lab = new Lab()
    const { daemon, uplink, hosts } = await rawStar(lab, 2)
    const refused = async (args: Arguments, text: string): Promise<void> => {
      await expect(addRaw(daemon, 'x', { netns: uplink, ...args })).rejects.toThrow(text)
      expect(await ids(daemon)).toEqual(['p0', 'p1'])
    }
    addPair(uplink, 'eth0', hosts[0], 'far')
    sh('ip', '-n', uplink, 'tuntap', 'add', 'tun0', 'mode', 'tun')
    await refused({ ifname: 'eth1' }, `no interface "eth1" in netns ${uplink}`)
    await refused({ ifname: 'lo' }, 'lo is the loopback device: all that is sent by it comes back')
    await refused({ ifname: 'tun0' }, 'tun0 carries no Ethernet frames (its ARPHRD type is 65534)')
    await expect(addRaw(daemon, 'x', { netns: uplink, ifname: 'u0' })).rejects.toMatchObject({
      message: expect.stringContaining('port "p0" has u0 already') as string,
      code: 'RAW_SOCKET_INTERFACE',
    })
    await refused({ ifname: 'u0', netns: 'nowhere' }, 'no network namespace "nowhere"')
    await refused({ ifname: 'u0', netns: '/etc/passwd' }, 'setns /etc/passwd: Invalid argument')
    // Its name may change.
    setLink(uplink, 'u0', 'down')
    setLink(uplink, 'u0', 'name', 'renamed')
    setLink(uplink, 'renamed', 'up')
    await until('the name is known', async () => (await daemon.port('p0'))['ifname'] === 'renamed')
    await refused({ ifname: 'renamed' }, 'port "p0" has renamed already')
    // The same name elsewhere is another interface.
    const elsewhere = lab.netns()
    addPair(elsewhere, 'u1', lab.netns())
    await addRaw(daemon, 'other', { ifname: 'u1', netns: elsewhere })
    expect(await ids(daemon)).toEqual(['p0', 'p1', 'other'])
  })

  test('the nearest name is told, and what there is', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 1)
    addPair(uplink, 'enp3s0', hosts[0], 'far')
    const start = async (ifname: string): Promise<string> => {
      const spec = `raw-socket,id=a,ifname=${ifname},netns=${uplink}`
      const args = [CLI, 'run', '--io', IO, '--control', lab.controlPath(), '--port', spec]
      const process = lab.background(globalThis.process.execPath, args)
      expect(await process.exited).toBe(1)
      return process.stderr
    }
    expect(await start('enp3s1')).toContain('did you mean "enp3s0"?')
    const listed = await start('wlan0')
    expect(listed).toContain(`no interface "wlan0" in netns ${uplink}`)
    expect(listed).toMatch(/there are (u0, enp3s0|enp3s0, u0)/)
  })

  test('without CAP_NET_RAW the text names it, and how to give it', async () => {
    await using lab = new Lab()
    const { uplink } = addHosts(lab, 1)
    const drop = ['--bounding-set', '-net_raw', '--inh-caps', '-net_raw', '--']
    const node = [globalThis.process.execPath, CLI, 'run', '--io', IO]
    const rest = ['--control', lab.controlPath(), '--port', rawSpec(0, uplink)]
    const process = lab.background('setpriv', [...drop, ...node, ...rest])
    expect(await process.exited).toBe(1)
    expect(process.stderr).toContain(
      `cannot open a packet socket in netns ${uplink}: Operation not permitted`,
    )
    expect(process.stderr).toContain('it needs CAP_NET_RAW')
    expect(process.stderr).toContain('setcap cap_net_raw+ep')
  })

  test('a TAP of its own, in both orders, and none of the same name elsewhere', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 1)
    const daemon = await lab.daemon('--port', `tap,id=t,ifname=x1,netns=${uplink}`)
    await expect(addRaw(daemon, 'r', { ifname: 'x1', netns: uplink })).rejects.toThrow(
      'x1 is the TAP of port "t": frames would go round',
    )
    await addRaw(daemon, 'r', { ifname: 'u0', netns: uplink })
    // A persistent one, which both could have.
    sh('ip', '-n', uplink, 'tuntap', 'add', 'x2', 'mode', 'tap', 'vnet_hdr')
    await addRaw(daemon, 's', { ifname: 'x2', netns: uplink })
    const tap = { type: 'tap', id: 'v', ifname: 'x2' }
    await expect(daemon.execute('netdev_add', { ...tap, netns: uplink })).rejects.toMatchObject({
      message: expect.stringContaining('x2 is what port "s" listens on: frames would go') as string,
      code: 'LOOP',
    })
    await daemon.execute('netdev_add', { ...tap, netns: hosts[0] })
    await daemon.execute('netdev_add', { type: 'tap', id: 'w', ifname: 'u0', netns: hosts[0] })
    addPair(lab.netns(), 'x1', hosts[0], 'x3')
    await addRaw(daemon, 'q', { ifname: 'x3', netns: hosts[0] })
    expect(await ids(daemon)).toEqual(['t', 'r', 's', 'v', 'w', 'q'])
  })

  test('an interface of a bridge is taken, and the log says what that means', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 2)
    sh('ip', '-n', uplink, 'link', 'add', 'br0', 'type', 'bridge')
    setLink(uplink, 'u0', 'master', 'br0')
    const daemon = await lab.daemon('--port', rawSpec(0, uplink), '--port', rawSpec(1, uplink))
    addAddresses(lab, hosts)
    expect(daemon.process.stderr).toContain('raw-socket p0: u0 is part of br0, which goes on')
    expect(daemon.process.stderr).not.toContain('raw-socket p1: u1 is part')
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  })
})

describe('a socket from outside', () => {
  test('is the port’s from netdev_add on, and ends with it', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 2)
    const daemon = await lab.daemon('--port', rawSpec(1, uplink))
    addAddresses(lab, hosts)
    for (let round = 0; round < 3; round++) {
      const fd = packetSocket(uplink, 'u0')
      await daemon.client.execute('getfd', { fdname: 's' }, fd)
      shim.close(fd)
      await addRaw(daemon, 'g', { fd: 's' })
      await until('they reach each other', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
      await expect(addRaw(daemon, 'h', { fd: 's' })).rejects.toThrow(
        `File descriptor named 's' has not been found`,
      )
      await daemon.execute('netdev_del', { id: 'g' })
      await until('nobody listens any more', () => promiscuity(uplink, 'u0') === 0)
    }
  })

  test('every wrong kind is refused with the reason, and stays its giver’s', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 1)
    const daemon = await lab.daemon()
    const give = async (fd: number, text: string, code = 'RAW_SOCKET_FD'): Promise<void> => {
      expect(fd).toBeGreaterThan(0)
      await daemon.client.execute('getfd', { fdname: 's' }, fd)
      shim.close(fd)
      await expect(addRaw(daemon, 'g', { fd: 's' })).rejects.toMatchObject({
        message: expect.stringContaining(text) as string,
        code,
      })
      await daemon.execute('closefd', { fdname: 's' })
    }
    const ends = new Int32Array(2)
    shim.socketPair(1, ends)
    shim.close(ends[1])
    await give(ends[0], 'is not a packet socket: it is a socket of another kind')
    await give(shim.open('/dev/null', 0), 'is not a packet socket: Socket operation on non-socket')
    await give(packetSocketWithoutHeaders(lab), 'open it with SOCK_RAW')
    await give(packetSocket(uplink, undefined), 'is bound to no interface')
    await give(packetSocket(uplink, 'u0', { protocol: 0x0800 }), 'receives protocol 0x0800 only')
    await give(
      packetSocket(uplink, 'u0', { hasRing: true }),
      'PACKET_VERSION: Device or',
      'RAW_SOCKET',
    )
    // One that is of no use any more.
    addPair(uplink, 'gone', hosts[0], 'far')
    const dead = packetSocket(uplink, 'gone')
    sh('ip', '-n', uplink, 'link', 'del', 'gone')
    await give(dead, 'is bound to no interface')
    await expect(addRaw(daemon, 'g', { fd: '1234567' })).rejects.toThrow(
      'is not a packet socket: Bad file descriptor',
    )
    await expect(addRaw(daemon, 'g', { fd: 's' })).rejects.toThrow('has not been found')
    expect(await ids(daemon)).toEqual([])
    // After all that a right one works.
    await daemon.client.execute('getfd', { fdname: 's' }, packetSocket(uplink, 'u0'))
    await addRaw(daemon, 'g', { fd: 's', vnet_hdr: false })
    expect(await daemon.port('g')).toMatchObject({ state: 'open', queues: 1 })
  })

  test('its interface is deleted: the port has failed, the others go on', async () => {
    await using lab = new Lab()
    const { daemon, uplink, hosts } = await rawStar(lab, 2)
    addAddresses(lab, hosts)
    addPair(uplink, 'given', lab.netns())
    const fd = packetSocket(uplink, 'given')
    await daemon.client.execute('getfd', { fdname: 's' }, fd)
    shim.close(fd)
    await addRaw(daemon, 'g', { fd: 's' })
    sh('ip', '-n', uplink, 'link', 'del', 'given')
    await until('it has failed', async () => {
      // Its namespace is another's: the kernel says so when a frame is to leave.
      await lab.send(hosts[0], [number(1)])
      return (await daemon.port('g'))['state'] === 'failed'
    })
    expect((await daemon.port('g'))['error']).toContain('give the port another socket')
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
    await daemon.execute('netdev_del', { id: 'g' })
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  })
})

test('a namespace by name, path and pid, and the one of the daemon itself', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 3)
  const holder = lab.start(uplink, 'sleep', '1000')
  const isThere = (): boolean =>
    sh('ip', 'netns', 'identify', String(holder.child.pid)).trim() === uplink
  await until('it is in the namespace', isThere)
  const specs = [uplink, `/run/netns/${uplink}`, holder.child.pid]
  const daemon = await lab.daemon(
    ...specs.flatMap((netns, k) => ['--port', rawSpec(k, String(netns))]),
  )
  addAddresses(lab, hosts)
  expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  expect(lab.ping(hosts[2], '10.0.0.2')).toBe(3)
  for (const k of [0, 1, 2]) expect((await daemon.port(`p${k}`))['state']).toBe('open')
  await daemon.process.stop()

  // Started in it: no namespace is entered.
  const control = lab.controlPath()
  const port = (k: number): string[] => ['--port', `raw-socket,id=p${k},ifname=${uplinkName(k)}`]
  const args = ['run', '--io', IO, '--control', control, ...port(0), ...port(1)]
  const own = lab.start(uplink, process.execPath, CLI, ...args)
  await until('it is ready', () => own.stderr.includes('framepump: ready') || !own.isRunning)
  expect(own.stderr).toContain('framepump: ready')
  expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  sh('ip', '-n', uplink, 'link', 'del', 'u0')
  await until('it has failed', () => own.stderr.includes('raw-socket p0: failed'))
  addPair(uplink, 'u0', hosts[0])
  addAddresses(lab, [hosts[0]])
  await until('they reach each other', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
})

test('a config file, and its reload: what changes in place loses no frame', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  const file = join(lab.directory, 'config.json')
  const write = (more: Arguments): void => {
    const ports = numbers(2).map((k) => ({
      id: `p${k}`,
      type: 'raw-socket',
      ifname: uplinkName(k),
      netns: uplink,
      ...(k === 0 ? more : {}),
    }))
    writeFileSync(file, JSON.stringify({ ports }))
  }
  write({})
  const daemon = await lab.daemon('--config', file)
  expect(promiscuity(uplink, 'u0')).toBe(1)
  const receiver = await lab.receive(hosts[1], 6)
  const rounds: [Arguments, string, number][] = [
    [{ promisc: false }, 'change p0 promisc', 0],
    [{ promisc: false, bypass: true }, 'change p0 bypass', 0],
    [{ bypass: true, mtu: 9000, gro: false }, 'change p0 promisc,mtu,gro', 1],
    [{}, 'change p0 bypass,mtu,gro', 1],
  ]
  await lab.send(hosts[0], [number(0)])
  for (const [round, [more, action, count]] of rounds.entries()) {
    write(more)
    const { actions } = await daemon.execute<{ actions: string[] }>('config-reload')
    const sorted = (text: string): string => text.split(/[ ,]/).toSorted().join()
    expect(actions.map(sorted)).toEqual([sorted(action)])
    expect(promiscuity(uplink, 'u0')).toBe(count)
    await lab.send(hosts[0], [number(round + 1)])
  }
  // What it is made with makes it anew, and what waits in the old one's ring is gone.
  await daemon.came('p0', 5)
  write({ queues: 2, 'ring-kb': 512 })
  const { actions } = await daemon.execute<{ actions: string[] }>('config-reload')
  expect(actions).toEqual(['remove p0', 'add p0'])
  await lab.send(hosts[0], [number(5)])
  expect(await receiver.frames()).toEqual(numbers(6).map(number))
  expect(await daemon.port('p0')).toMatchObject({ queues: 2, state: 'open' })
})

const KILLS = { timeout: 180_000 }

test(
  '20 times killed and started again at once: the last one has the interfaces alone',
  KILLS,
  async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 2)
    addAddresses(lab, hosts)
    const specs = numbers(2).flatMap((k) => ['--port', rawSpec(k, uplink, 'queues=2')])
    const args = ['run', '--io', IO, '--control', lab.controlPath(), ...specs]
    for (let round = 0; round < 20; round++) {
      const daemon = lab.background(process.execPath, [CLI, ...args])
      const hasBegun = (): boolean => promiscuity(uplink, 'u0') > 0 || !daemon.isRunning
      // Some while they start, some while frames pass.
      await until('it has begun', hasBegun)
      expect(daemon.stderr).not.toContain('failed')
      await daemon.stop('SIGKILL')
      await until('the sockets are gone', () => promiscuity(uplink, 'u0') === 0)
    }
    const last = lab.background(process.execPath, [CLI, ...args])
    await lab.ready(last)
    expect(promiscuity(uplink, 'u0')).toBe(1)
    // One that came twice would be there in the place of the last one.
    const receiver = await lab.receive(hosts[1], 10)
    await lab.send(hosts[0], numbers(10).map(number))
    expect(await receiver.frames()).toEqual(numbers(10).map(number))
  },
)

test('a successor leaves the interface alone until its time, and no frame is there twice', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  const specs = numbers(2).flatMap((k) => ['--port', rawSpec(k, uplink)])
  const owner = await lab.daemon(...specs)
  const trace = join(lab.directory, 'trace')
  const successor = await lab.incoming(owner.control, trace, ...specs)
  expect(await successor.port('p0')).toMatchObject({
    state: 'postponed',
    info: 'ifname=u0',
    ifname: 'u0',
  })
  expect(promiscuity(uplink, 'u0')).toBe(1)
  const receiver = await lab.receive(hosts[1], 30)
  const send = (first: number): Promise<void> =>
    lab.send(
      hosts[0],
      numbers(10).map((k) => number(first + k)),
    )
  await send(0)
  await until('they are sent', async () => (await owner.stats('p1'))['tx_frames'] >= 10)
  // One that is not there at its time: all are postponed again.
  setLink(uplink, 'u1', 'down')
  setLink(uplink, 'u1', 'name', 'away')
  await expect(successor.execute('migrate-incoming')).rejects.toThrow(
    `raw-socket p1: no interface "u1" in netns ${uplink}`,
  )
  expect((await successor.port('p0'))['state']).toBe('postponed')
  setLink(uplink, 'away', 'name', 'u1')
  setLink(uplink, 'u1', 'up')
  await owner.process.stop()
  await successor.execute('migrate-incoming')
  // It waits until the successor goes on.
  await send(10)
  expect((await successor.stats('p1'))['tx_frames']).toBe(0)
  await successor.execute('cont')
  await send(20)
  expect(await receiver.frames()).toEqual(numbers(30).map(number))
  expect(await successor.port('p0')).toMatchObject({ state: 'open' })
})

describe('privileges', () => {
  const status = async (daemon: Daemon): Promise<Record<string, unknown>> =>
    (await daemon.execute<{ privileges: Record<string, unknown> }>('query-status')).privileges

  test('another user: CAP_NET_RAW is kept, and the port is opened anew with it', async () => {
    await using lab = new Lab()
    sh('chmod', '755', lab.directory)
    const { uplink, hosts } = addHosts(lab, 2)
    const specs = numbers(2).flatMap((k) => ['--port', rawSpec(k, uplink)])
    const daemon = await lab.daemon('--user', 'daemon:nogroup', ...specs)
    addAddresses(lab, hosts)
    expect(await status(daemon)).toMatchObject({
      user: 'daemon',
      capabilities: ['net-admin', 'net-raw', 'sys-admin'],
    })
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
    sh('ip', '-n', uplink, 'link', 'del', 'u0')
    await until('it has failed', async () => (await daemon.port('p0'))['state'] === 'failed')
    addPair(uplink, 'u0', hosts[0])
    addAddresses(lab, [hosts[0]])
    await until('it is open', async () => (await daemon.port('p0'))['state'] === 'open')
    await until('they reach each other', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
  })

  test('without a raw-socket port at its start the daemon has no CAP_NET_RAW, and says so', async () => {
    await using lab = new Lab()
    const { uplink } = addHosts(lab, 1)
    const control = lab.controlPath()
    const args = ['run', '--io', IO, '--control', control, '--privileges', 'on']
    const daemon = lab.start(uplink, process.execPath, CLI, ...args)
    await lab.ready(daemon)
    const client = await ControlClient.connect(control)
    const add = { type: 'raw-socket', id: 'x', ifname: 'u0' }
    await expect(client.execute('netdev_add', add)).rejects.toThrow(
      'the daemon gave up CAP_NET_RAW after its start',
    )
    client.close()
  })

  test('locked: it runs, is not opened anew, and says why; a given socket is taken', async () => {
    await using lab = new Lab()
    const { uplink, hosts } = addHosts(lab, 2)
    const specs = numbers(2).flatMap((k) => ['--port', rawSpec(k, uplink)])
    const daemon = await lab.daemon('--privileges', 'locked', ...specs)
    addAddresses(lab, hosts)
    expect(await status(daemon)).toMatchObject({ locked: true, capabilities: [] })
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
    setLink(uplink, 'u0', 'down')
    await until('it is down', async () => (await daemon.port('p0'))['state'] === 'down')
    setLink(uplink, 'u0', 'up')
    await until('it is open', async () => (await daemon.port('p0'))['state'] === 'open')
    await expect(addRaw(daemon, 'x', { ifname: 'u0', netns: uplink })).rejects.toThrow(
      'the daemon gave up CAP_SYS_ADMIN after its start',
    )
    sh('ip', '-n', uplink, 'link', 'del', 'u0')
    await until('it has failed', async () => (await daemon.port('p0'))['state'] === 'failed')
    addPair(uplink, 'u0', hosts[0])
    addAddresses(lab, [hosts[0]])
    const fd = packetSocket(uplink, 'u0')
    await daemon.client.execute('getfd', { fdname: 's' }, fd)
    shim.close(fd)
    await addRaw(daemon, 'g', { fd: 's' })
    await until('they reach each other', () => lab.ping(hosts[0], '10.0.0.2', 1) === 1)
    expect((await daemon.port('p0'))['state']).toBe('failed')
  })
})
