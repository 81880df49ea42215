/**
 * Nothing passes before everything is there that a command line, a config file or a reload lists: what
 * is sent meanwhile waits, is not lost, and reaches nobody else.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { createSwitch as CreateSwitch } from '../../../src/index.ts'
import { readPcapng } from '../../../src/wire/pcapng.ts'
import { shim } from '../../../src/native/shim.ts'
import { pcapFile } from '../../support/capture-files.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { Gate } from '../../support/gate.ts'
import type { Daemon } from '../../support/lab.ts'
import { frameHex, IO, Lab, tapSpec } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { frame } from '../../support/sim.ts'
import { numbers } from '../../support/tun.ts'

const { createSwitch } = (await import('../../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const FRAMES = 100

/** Frames with the numbers 0, 1 ... in a file to replay, all due at once or one a second. */
function replayFile(lab: Lab, name = 'replay.pcap'): string {
  const path = join(lab.directory, name)
  writeFileSync(path, pcapFile(numbers(FRAMES).map((number) => [frame(255, 1, number)])))
  return path
}

/** The numbers of the frames in a file of a record port. */
function recorded(path: string): number[] {
  const bytes = new Uint8Array(readFileSync(path))
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const found: number[] = []
  readPcapng(bytes, { frame: (offset) => void found.push(view.getUint32(offset + 14)) })
  return found
}

const fromTap = (count: number): string[] =>
  numbers(count).map((number) => frameHex('ff:ff:ff:ff:ff:ff', '02:00:00:00:00:01', number))

const sent = async (daemon: Daemon, id: string): Promise<number> =>
  (await daemon.stats(id))['tx_frames']

const hasSent = (daemon: Daemon, id: string, frames: number): Promise<void> =>
  until(`${id} has sent ${frames}`, async () => (await sent(daemon, id)) >= frames)

const isHeld = async (daemon: Daemon): Promise<string[]> => {
  const ports = await daemon.execute<{ id: string; held?: boolean }[]>('query-ports')
  return ports.filter(({ held }) => held === true).map(({ id }) => id)
}

test.each(['command line', 'config file'])(
  'a replay that the %s names first reaches the ports that come later',
  async (where) => {
    await using lab = new Lab()
    const replay = replayFile(lab)
    const out = join(lab.directory, 'out.pcapng')
    const config = join(lab.directory, 'config.yaml')
    const ports = `{ id: a, type: pcap, replay: ${replay}, pace: full }, { id: r, type: pcap, record: ${out} }`
    writeFileSync(config, `ports: [ ${ports} ]\n`)
    const daemon = await (where === 'config file'
      ? lab.daemon('--config', config)
      : lab.daemon(
          '--port',
          `pcap,id=a,replay=${replay},pace=full`,
          '--port',
          `pcap,id=r,record=${out}`,
        ))
    await hasSent(daemon, 'r', FRAMES)
    expect(await isHeld(daemon)).toEqual([])
    await daemon.process.stop()
    expect(recorded(out)).toEqual(numbers(FRAMES))
  },
)

test('generators of all kinds reach their links only, however long the rest takes', async () => {
  await using lab = new Lab()
  const gate = new Gate(lab.directory)
  const netns = lab.netns()
  const [out, third] = [join(lab.directory, 'out.pcapng'), join(lab.directory, 'third.pcapng')]
  const starting = lab.daemon(
    '--port',
    `pcap,id=a,replay=${replayFile(lab)},pace=full`,
    '--port',
    'virtio-net,id=v,driver=generate',
    '--port',
    `pcap,id=x,record=${third}`,
    '--port',
    `tap,id=slow,netns=${netns},script=${gate.script}`,
    '--port',
    `pcap,id=r,record=${out}`,
    '--port',
    'virtio-net,id=s,driver=sink',
    '--link',
    'a,r',
    '--link',
    'v,s',
  )
  await gate.reached()
  gate.open()
  const daemon = await starting
  await hasSent(daemon, 'r', FRAMES)
  await hasSent(daemon, 's', FRAMES)
  expect(await sent(daemon, 'x')).toBe(0)
  expect(await sent(daemon, 'slow')).toBe(0)
  await daemon.process.stop()
  expect(recorded(out)).toEqual(numbers(FRAMES))
})

test('what a TAP and a guest send before their links are wired waits for them', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const gate = new Gate(lab.directory)
  const path = join(lab.directory, 'guest.sock')
  const files = ['of-tap', 'of-guest', 'third'].map((name) => join(lab.directory, name))
  const starting = lab.daemon(
    '--port',
    tapSpec(0, netns, 'up=on'),
    '--port',
    `vhost-user,id=g,path=${path}`,
    '--port',
    `pcap,id=x,record=${files[2]}`,
    '--port',
    `tap,id=slow,netns=${netns},script=${gate.script}`,
    '--port',
    `pcap,id=r,record=${files[0]}`,
    '--port',
    `pcap,id=q,record=${files[1]}`,
    '--link',
    'p0,r',
    '--link',
    'q,g',
  )
  await gate.reached()
  await lab.send(netns, fromTap(FRAMES))
  const guest = FrontEnd.connect(path)
  try {
    await guest.start()
    guest.transmit(frame(255, 2, 7))
    gate.open()
    const daemon = await starting
    await hasSent(daemon, 'r', FRAMES)
    await hasSent(daemon, 'q', 1)
    expect([await sent(daemon, 'x'), await sent(daemon, 'slow')]).toEqual([0, 0])
    expect((await daemon.execute<unknown[]>('query-mac-table')).length).toBe(0)
    await daemon.process.stop()
  } finally {
    guest.close()
  }
  expect(recorded(files[0])).toEqual(numbers(FRAMES))
  expect(recorded(files[1])).toEqual([7])
})

test('an incoming instance replays nothing before cont, and then all of it', async () => {
  await using lab = new Lab()
  const out = join(lab.directory, 'out.pcapng')
  const daemon = await lab.incoming(
    lab.controlPath(),
    join(lab.directory, 'trace'),
    '--port',
    `pcap,id=a,replay=${replayFile(lab)},pace=full`,
    '--port',
    `pcap,id=r,record=${out}`,
  )
  await daemon.execute('migrate-incoming')
  expect(await sent(daemon, 'r')).toBe(0)
  await daemon.execute('cont')
  await hasSent(daemon, 'r', FRAMES)
})

/** A daemon with a config file, and how to write it anew. */
async function configured(
  lab: Lab,
  ports: readonly string[],
  links: readonly string[],
): Promise<{
  daemon: Daemon
  write: (ports: readonly string[], links: readonly string[]) => void
}> {
  const file = join(lab.directory, 'config.yaml')
  const list = (items: readonly string[]): string => `[ ${items.join(', ')} ]`
  const write = (newPorts: readonly string[], newLinks: readonly string[]): void =>
    writeFileSync(
      file,
      `privileges: { scripts: true, keep: [net-admin, sys-admin] }\nports: ${list(newPorts)}\nlinks: ${list(newLinks)}\n`,
    )
  write(ports, links)
  return { daemon: await lab.daemon('--config', file), write }
}

const record = (lab: Lab, id: string): string =>
  `{ id: ${id}, type: pcap, record: ${join(lab.directory, id)} }`

test('a reload begins what it adds together', async () => {
  await using lab = new Lab()
  const gate = new Gate(lab.directory)
  const { daemon, write } = await configured(lab, [record(lab, 'x')], [])
  const replays = ['a', 'b'].map(
    (id) => `{ id: ${id}, type: pcap, replay: ${replayFile(lab, id)}, pace: full }`,
  )
  const slow = `{ id: slow, type: tap, netns: ${lab.netns()}, script: ${gate.script} }`
  write([record(lab, 'x'), ...replays, slow, record(lab, 'r'), record(lab, 'q')], ['[a, r]'])
  const reloading = daemon.execute('config-reload')
  await gate.reached()
  gate.open()
  await reloading
  await hasSent(daemon, 'r', FRAMES)
  await hasSent(daemon, 'q', FRAMES)
  await hasSent(daemon, 'x', FRAMES)
  await daemon.process.stop()
  for (const id of ['r', 'q', 'x']) {
    expect(recorded(join(lab.directory, id))).toEqual(numbers(FRAMES))
  }
})

test('a port that a reload wires elsewhere is never on the switch, and loses no frame', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const gate = new Gate(lab.directory)
  const tap = `{ id: p0, type: tap, ifname: x0, netns: ${netns}, up: true }`
  const before = [tap, record(lab, 'r'), record(lab, 'x')]
  const { daemon, write } = await configured(lab, before, ['[p0, r]'])
  await lab.send(netns, fromTap(1))
  await hasSent(daemon, 'r', 1)
  write(
    [
      ...before,
      `{ id: slow, type: tap, netns: ${netns}, script: ${gate.script} }`,
      record(lab, 'q'),
    ],
    ['[q, p0]'],
  )
  const reloading = daemon.execute('config-reload')
  await gate.reached()
  // The first client waits for its answer.
  const first = daemon.client
  await daemon.connect()
  expect(await isHeld(daemon)).toEqual(['p0', 'r'])
  await lab.send(netns, fromTap(FRAMES))
  gate.open()
  expect(await reloading).toMatchObject({
    actions: ['unlink p0,r', 'add slow', 'add q', 'link q,p0'],
  })
  first.close()
  await hasSent(daemon, 'q', FRAMES)
  expect([await sent(daemon, 'r'), await sent(daemon, 'x')]).toEqual([1, 0])
  expect(await isHeld(daemon)).toEqual([])
  await daemon.process.stop()
  expect(recorded(join(lab.directory, 'q'))).toEqual(numbers(FRAMES))
})

test('the peer of a port that a reload makes anew is not on the switch meanwhile', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const gate = new Gate(lab.directory)
  const tap = `{ id: p0, type: tap, ifname: x0, netns: ${netns}, up: true }`
  const others = [tap, record(lab, 'x')]
  const s = `{ id: s, type: tap, netns: ${netns}`
  const { daemon, write } = await configured(lab, [...others, `${s} }`], ['[p0, s]'])
  write([...others, `${s}, script: ${gate.script} }`], ['[p0, s]'])
  const reloading = daemon.execute('config-reload')
  await gate.reached()
  await lab.send(netns, fromTap(FRAMES))
  gate.open()
  await reloading
  await until('they arrive', async () => (await daemon.stats('p0'))['rx_frames'] === FRAMES)
  expect(await sent(daemon, 'x')).toBe(0)
})

test('a reload that fails leaves a port without its link, and new ones, waiting', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const taps = netns.map(
    (name, k) => `{ id: p${k}, type: tap, ifname: x0, netns: ${name}, up: true }`,
  )
  const before = [...taps, record(lab, 'r'), record(lab, 'x')]
  const { daemon, write } = await configured(lab, before, ['[p0, r]'])
  const late = join(lab.directory, 'late.pcap')
  const replays = [replayFile(lab), late].map(
    (path, k) => `{ id: a${k}, type: pcap, replay: ${path}, pace: full }`,
  )
  const after = [...before, ...replays, record(lab, 'q')]
  write(after, ['[p0, q]'])
  await expect(daemon.execute('config-reload')).rejects.toThrow('late.pcap')
  expect(await isHeld(daemon)).toEqual(['p0', 'a0'])
  await until('it is logged', () =>
    daemon.process.stderr.includes('stopped at="add a1" held=p0,a0'),
  )
  // What ran goes on: p1 and x are still on one switch.
  await lab.send(netns[1], fromTap(1))
  await hasSent(daemon, 'x', 1)
  await lab.send(netns[0], fromTap(FRAMES))
  replayFile(lab, 'late.pcap')
  expect(await daemon.execute('config-reload')).toMatchObject({
    actions: ['add a1', 'add q', 'link p0,q'],
  })
  await hasSent(daemon, 'q', FRAMES)
  await hasSent(daemon, 'x', 1 + 2 * FRAMES)
  expect(await isHeld(daemon)).toEqual([])
  await daemon.process.stop()
  // Beside the first, only what was replayed: nothing of p0.
  expect(recorded(join(lab.directory, 'x')).length).toBe(1 + 2 * FRAMES)
  expect(recorded(join(lab.directory, 'q'))).toEqual(numbers(FRAMES))
})

test('a port that waits for its link goes on with one that is made by hand', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const tap = `{ id: p0, type: tap, ifname: x0, netns: ${netns}, up: true }`
  const before = [tap, record(lab, 'r'), record(lab, 'x')]
  const { daemon, write } = await configured(lab, before, ['[p0, r]'])
  write([...before, '{ id: c, type: pcap, replay: /none }'], ['[p0, c]'])
  await expect(daemon.execute('config-reload')).rejects.toThrow('/none')
  expect(await isHeld(daemon)).toEqual(['p0'])
  await lab.send(netns, fromTap(FRAMES))
  await daemon.execute('link-add', { a: 'p0', b: 'r' })
  await hasSent(daemon, 'r', FRAMES)
  expect(await sent(daemon, 'x')).toBe(0)
})

test('reloads that come at once are made one after the other', async () => {
  await using lab = new Lab()
  const { daemon, write } = await configured(lab, [record(lab, 'x')], [])
  write([record(lab, 'x'), record(lab, 'r'), record(lab, 'q')], ['[r, q]'])
  const first = daemon.client
  const second = await daemon.connect()
  const answers = await Promise.all([
    first.execute('config-reload'),
    second.execute('config-reload'),
  ])
  second.close()
  const counts = answers.map((answer) => (answer as { actions: string[] }).actions.length)
  expect(counts.toSorted((one, other) => one - other)).toEqual([0, 3])
})

test('netdev_add with a peer wires the port before its first frame', async () => {
  await using lab = new Lab()
  const out = join(lab.directory, 'out.pcapng')
  const daemon = await lab.daemon(
    '--port',
    `pcap,id=r,record=${out}`,
    '--port',
    `pcap,id=x,record=${out}2`,
  )
  const replay = { type: 'pcap', id: 'a', replay: replayFile(lab), pace: 'full' }
  await expect(daemon.execute('netdev_add', { ...replay, peer: 'none' })).rejects.toThrow(
    `Device 'none' not found`,
  )
  expect(await daemon.port('a')).toBeUndefined()
  await daemon.execute('netdev_add', { ...replay, peer: 'r' })
  await hasSent(daemon, 'r', FRAMES)
  expect(await sent(daemon, 'x')).toBe(0)
  await expect(
    daemon.execute('netdev_add', { type: 'pcap', id: 'b', record: `${out}3`, peer: 'r' }),
  ).rejects.toThrow('port "r" is already wired to "a"')
  expect(await daemon.port('b')).toBeUndefined()
  expect(existsSync(`${out}3`)).toBe(false)
})

test('a program holds ports while it changes several things', async () => {
  await using sw = createSwitch({ io: IO as 'auto' })
  for (const id of ['a', 'b', 'c'])
    await sw.addPort({ type: 'memory', id }, undefined, { isHeld: true })
  sw.memoryPort('a').send(frame(255, 1, 1))
  await sw.addLink('a', 'b')
  expect(sw.ports().map(({ held }) => held)).toEqual([true, true, true])
  await sw.release()
  expect(await sw.memoryPort('b').next()).toEqual(frame(255, 1, 1))
  await sw.hold(['b'])
  expect(sw.ports().flatMap(({ id, held }) => (held === true ? [id] : []))).toEqual(['a', 'b'])
  sw.memoryPort('a').send(frame(255, 1, 2))
  await sw.removeLink('a', 'b')
  await sw.addLink('a', 'c')
  await sw.release()
  expect(await sw.memoryPort('c').next()).toEqual(frame(255, 1, 2))
  expect(sw.memoryPort('b').receive()).toBeNull()
  await sw.hold(['a'])
  await sw.removePort('c')
  await sw.removePort('a')
  await sw.addPort({ type: 'memory', id: 'a' })
  // The number's next port is not held.
  sw.memoryPort('a').send(frame(255, 1, 3))
  expect(await sw.memoryPort('b').next()).toEqual(frame(255, 1, 3))
})

test('a guest that takes its memory away while its port is held loses its port', async () => {
  await using lab = new Lab()
  const log: string[] = []
  await using sw = createSwitch({ io: IO as 'auto', log: (line) => log.push(line) })
  const path = join(lab.directory, 'guest.sock')
  await sw.addPort({ type: 'memory', id: 'm' })
  await sw.addPort({ type: 'vhost-user', id: 'g', path }, undefined, { isHeld: true })
  const guest = FrontEnd.connect(path)
  try {
    await guest.start()
    await until('it is connected', () => sw.port('g').state === 'connected')
    await guest.stopQueue(1)
    shim.ftruncate(guest.memfd, 0)
    // The ring's indexes are read; the port's frames are not.
    guest.startQueue(1)
    await until('the port has lost its guest', () => sw.port('g').state !== 'connected')
    expect(log).toEqual(['vhost-user g: failed error=Bad address: its memory was taken away'])
    await sw.release()
    sw.memoryPort('m').send(frame(255, 1))
    await until('it was taken', () => sw.port('m').counters.rx_frames === 1)
  } finally {
    guest.close()
  }
})
