/** The control socket: QMP as QEMU's clients expect it, and clients that mean no good. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { shim } from '../../../src/native/shim.ts'
import type { Daemon } from '../../support/lab.ts'
import { CLI, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { tunDescriptors } from '../../support/tun.ts'

/** A raw connection: what it gets is collected. */
async function raw(path: string): Promise<{ socket: Socket; text: () => string }> {
  const socket = connect(path)
  let text = ''
  socket.setEncoding('utf8').on('data', (data: string) => (text += data))
  socket.on('error', () => undefined)
  await until('the greeting is there', () => text.includes('QMP'))
  return { socket, text: () => text }
}

/** How many sockets the daemon has open; other descriptors come and go by Node's own needs. */
function openSockets(daemon: Daemon): number {
  const directory = `/proc/${daemon.process.child.pid}/fd`
  return readdirSync(directory).filter((fd) => {
    try {
      return readlinkSync(`${directory}/${fd}`).startsWith('socket:')
    } catch {
      // Closed meanwhile.
      return false
    }
  }).length
}

test('greets, negotiates, answers with ids, and lists its commands', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  expect(statSync(daemon.control).mode & 0o777).toBe(0o600)
  const { socket, text } = await raw(daemon.control)
  expect(JSON.parse(text())).toMatchObject({
    QMP: { version: { qemu: { major: 0 }, package: 'framepump' }, capabilities: [] },
  })
  socket.write('{"execute":"query-status"}{"execute":"qmp_capabilities","id":[1]}\n')
  socket.write('{"execute":"query-st')
  socket.write(
    'atus","id":"x"}{"execute":"nope"}{"execute":"set_link","arguments":{"name":1,"up":true}}',
  )
  socket.write(
    '{"execute":"set_link","arguments":{"name":"a"}}{"execute":"stop","arguments":{"x":1}}',
  )
  socket.write('{"execute":"set_link","arguments":{"name":"a","up":true}}')
  await until('all are answered', () => text().split('\n').length >= 10)
  const answers = text()
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => JSON.parse(line) as unknown)
  expect(answers).toMatchObject([
    {
      error: {
        class: 'CommandNotFound',
        desc: `Expecting capabilities negotiation with 'qmp_capabilities'`,
      },
    },
    { return: {}, id: [1] },
    { return: { status: 'running', running: true }, id: 'x' },
    { error: { class: 'CommandNotFound', desc: 'The command nope has not been found' } },
    {
      error: { class: 'GenericError', desc: `Invalid parameter type for 'name', expected: string` },
    },
    { error: { class: 'GenericError', desc: `Parameter 'up' is missing` } },
    { error: { class: 'GenericError', desc: `Parameter 'x' is unexpected` } },
    { error: { class: 'DeviceNotFound', desc: `Device 'a' not found` } },
  ])
  socket.destroy()
  const names = (await daemon.execute<{ name: string }[]>('query-commands')).map(({ name }) => name)
  expect(names).toEqual(
    expect.arrayContaining([
      'qmp_capabilities',
      'query-version',
      'query-commands',
      'query-status',
      'netdev_add',
      'netdev_del',
      'set_link',
      'stop',
      'cont',
      'quit',
      'getfd',
      'closefd',
      'query-ports',
      'query-links',
      'query-mac-table',
      'query-port-stats',
      'query-offloads',
      'link-add',
      'link-del',
      'config-reload',
      'capture-start',
      'capture-stop',
    ]),
  )
})

test('a client that says that it has said all gets every answer', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  for (const commands of [3, 300]) {
    const socket = connect({ path: daemon.control, allowHalfOpen: true })
    let text = ''
    let isEnded = false
    socket.setEncoding('utf8').on('data', (data: string) => (text += data))
    socket.on('end', () => (isEnded = true))
    const requests = ['qmp_capabilities', ...Array.from({ length: commands }, () => 'query-ports')]
    socket.end(requests.map((execute) => JSON.stringify({ execute })).join('\n'))
    await until('the daemon hangs up', () => isEnded)
    expect(text.split('"return"').length - 1).toBe(commands + 1)
    socket.destroy()
  }
})

test('ctl takes names as they are written', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  const netns = lab.netns()
  const names = ['010', '1e3', '0x1f', '1.0', '+7', 'true', 'null', '"x"']
  const ctl = (...args: string[]): string => sh(process.execPath, CLI, 'ctl', ...args)
  for (const [k, name] of names.entries()) {
    const words = ['type=tap', `id=q${k}`, `ifname=${name}`, `netns=${netns}`]
    ctl('netdev_add', '--control', daemon.control, ...words)
  }
  const ports = await daemon.execute<{ ifname: string }[]>('query-ports')
  expect(ports.map(({ ifname }) => ifname)).toEqual(names)
  ctl('set_link', '--control', daemon.control, 'name=q0', 'up=off')
  expect(await daemon.port('q0')).toMatchObject({ link: false })
  expect(() => ctl('netdev_del', '--control', daemon.control, 'id')).toThrow('not key=value')
  expect(() => ctl('nope', '--control', daemon.control, 'id=5')).toThrow('nope has not been found')
})

test('arguments that every object has are unexpected, as any other', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf']) {
    const args = JSON.parse(`{"${name}":{"x":1}}`) as Record<string, unknown>
    for (const command of ['query-status', 'capture-start']) {
      await expect(daemon.execute(command, args)).rejects.toThrow(
        `Parameter '${name}' is unexpected`,
      )
    }
    await expect(daemon.execute('netdev_add', { ...args, type: 'tap', id: 'a' })).rejects.toThrow(
      `unknown key "${name}"`,
    )
    await expect(daemon.execute('netdev_add', { type: name, id: 'a' })).rejects.toThrow(
      'unknown port type',
    )
    await expect(daemon.execute(name)).rejects.toThrow(`The command ${name} has not been found`)
    await expect(daemon.execute('closefd', { fdname: name })).rejects.toThrow('not found')
    await expect(daemon.execute('netdev_add', { type: 'tap', id: 'a', fd: name })).rejects.toThrow(
      'has not been found',
    )
    // By the command line as well.
    const ctl = spawnSync(process.execPath, [
      CLI,
      'ctl',
      '--control',
      daemon.control,
      'query-status',
      `${name}=x`,
    ])
    expect(String(ctl.stderr)).toContain(`Parameter '${name}' is unexpected`)
  }
})

test('events tell of ports, links, stop and cont', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  const seen: unknown[] = []
  daemon.client.events.on('event', (name, data) => seen.push([name, data]))
  const netns = lab.netns()
  await daemon.execute('netdev_add', { type: 'tap', id: 'a', ifname: 'x0', netns })
  await daemon.execute('set_link', { name: 'a', up: false })
  await daemon.execute('stop')
  await daemon.execute('cont')
  await daemon.execute('netdev_del', { id: 'a' })
  await until('all are told', () => seen.length >= 5)
  expect(seen).toEqual([
    ['PORT_ADDED', { id: 'a' }],
    ['PORT_LINK_CHANGED', { id: 'a', state: 'down', up: false }],
    ['STOP', {}],
    ['RESUME', {}],
    ['PORT_REMOVED', { id: 'a' }],
  ])
})

test('getfd hands over a TAP that netdev_add uses; what nobody asked for is closed', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const daemon = await lab.daemon('--port', `tap,id=b,ifname=x0,netns=${netns[1]}`)
  const taps = (): number[] => tunDescriptors(daemon.process.child.pid!)
  expect(taps()).toHaveLength(1)
  sh('ip', '-n', netns[0], 'tuntap', 'add', 'x0', 'mode', 'tap', 'vnet_hdr')
  const netnsFd = shim.open(`/run/netns/${netns[0]}`, 0)
  const fd = shim.tunOpen(
    netnsFd,
    '/dev/net/tun',
    'x0',
    0x5002,
    new Uint8Array(16),
    new Int32Array(1),
  )
  shim.close(netnsFd)
  expect(fd).toBeGreaterThan(0)
  await expect(daemon.execute('getfd', { fdname: 'f' })).rejects.toThrow(
    'No file descriptor supplied',
  )
  await daemon.client.execute('getfd', { fdname: 'unused' }, fd)
  await daemon.execute('closefd', { fdname: 'unused' })
  await daemon.client.execute('query-status', {}, fd)
  await until('they are closed', () => taps().length === 1)
  await daemon.client.execute('getfd', { fdname: 'f' }, fd)
  shim.close(fd)
  // By its number a descriptor is only taken from nobody.
  expect(taps()).toHaveLength(2)
  for (const number of taps()) {
    await expect(
      daemon.execute('netdev_add', { type: 'tap', id: 'c', fd: number }),
    ).rejects.toThrow(/^file descriptor \d+ is in use: (port "b"|a client has it as "f")$/)
  }
  await expect(daemon.execute('netdev_add', { type: 'tap', id: 'c', fds: 'f:f' })).rejects.toThrow(
    'is given more than once',
  )
  await daemon.execute('netdev_add', { type: 'tap', id: 'a', fd: 'f' })
  await expect(daemon.execute('netdev_add', { type: 'tap', id: 'c', fd: 'f' })).rejects.toThrow(
    `File descriptor named 'f' has not been found`,
  )
  lab.address(netns[0], '10.0.0.1')
  lab.address(netns[1], '10.0.0.2')
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  expect(await daemon.port('a')).toMatchObject({ ifname: 'x0', netns: netns[0] })
})

test('garbage, half lines, 10 MB without an end and a client that never reads harm nobody', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const before = openSockets(daemon)
  const garbage = await raw(daemon.control)
  garbage.socket.write('hello\n{"execute": nonsense}\n')
  await until('it is told', () => garbage.text().split('JSON parse error').length >= 3)
  expect(garbage.text()).toContain('"code": "QMP_SYNTAX"')
  const half = await raw(daemon.control)
  half.socket.write('{"execute":"qmp_cap')
  const endless = await raw(daemon.control)
  endless.socket.write('{"execute":"'.padEnd(10 * 1024 * 1024, 'x'))
  await until('it is told', () => endless.text().includes('longer than'))
  const deaf = connect(daemon.control)
  deaf.on('error', () => undefined)
  deaf.pause()
  deaf.write('{"execute":"qmp_capabilities"}')
  for (let n = 0; n < 20_000; n++) deaf.write('{"execute":"query-commands"}')
  await until(
    'it is cut off',
    () => deaf.destroyed || deaf.closed || openSockets(daemon) <= before + 3,
  )
  expect(lab.ping(netns[0], '10.0.0.2', 3)).toBe(3)
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  for (const { socket } of [garbage, half, endless]) socket.destroy()
  deaf.destroy()
  await until('all are closed', () => openSockets(daemon) <= before)
  const rss = Number(
    /VmRSS:\s+(\d+)/.exec(sh('cat', `/proc/${daemon.process.child.pid}/status`))![1],
  )
  expect(rss).toBeLessThan(300_000)
})

test('a hundred connections at once: as many as there is room for are served', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  const before = openSockets(daemon)
  const sockets = Array.from({ length: 100 }, () =>
    connect(daemon.control)
      .on('error', () => undefined)
      .resume(),
  )
  await until(
    'those without room are closed',
    () => sockets.filter((socket) => socket.closed).length >= 36,
  )
  for (const socket of sockets) socket.destroy()
  await until('all are closed', () => openSockets(daemon) <= before)
  const client = await ControlClient.connect(daemon.control)
  expect(await client.execute('query-status')).toMatchObject({ running: true })
  client.close()
})
