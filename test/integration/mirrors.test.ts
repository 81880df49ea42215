/**
 * Mirrors of a daemon: real stacks talk, and what tcpdump would see at the output is looked at.
 *
 *     [x0 ns 0]--p0 \             / p2 --[x0 ns 2]: the analyser
 *                    > switch, mirror
 *     [x0 ns 1]--p1 /
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import type { Daemon } from '../support/lab.ts'
import { CLI, frameHex, frameNumber, IFNAME, Lab, ROOT, tapSpec } from '../support/lab.ts'
import { introduce } from '../support/numbered-flow.ts'
import { sh, until } from '../support/processes.ts'
import { transferTcp } from '../support/transfer.ts'
import { Line } from '../support/upgrades.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SENDER = '02:00:00:00:00:01'

interface Told {
  readonly name: string
  readonly frames: number
  readonly bytes: number
  readonly missing: readonly string[]
}

const mirrors = (daemon: Daemon): Promise<Told[]> => daemon.execute<Told[]>('query-mirrors')

/** Three TAPs, the last of which is the output; the options of each. */
async function star(lab: Lab, ...options: string[]): Promise<{ daemon: Daemon; netns: string[] }> {
  const netns = options.map(() => lab.netns())
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, options[k])])
  const daemon = await lab.daemon(...specs)
  for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
  return { daemon, netns }
}

test('M1, M2, M3: an analyser sees each frame of a conversation once, and the others not it', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await star(lab, '', '', '')
  for (const [k, name] of netns.slice(0, 2).entries()) lab.address(name, `10.0.0.${k + 1}`)
  await daemon.execute('mirror-add', { name: 'span', 'select-all': true, 'output-port': 'p2' })
  const receiver = await lab.receive(netns[2], 5)
  const frames = [1, 2, 3].map((n) => frameHex(BROADCAST, SENDER, n))
  await lab.send(netns[0], frames)
  const others = await lab.receive(netns[0], 1)
  await lab.send(netns[2], [frameHex(BROADCAST, '02:00:00:00:00:09', 9)])
  await lab.send(
    netns[1],
    [4, 5].map((n) => frameHex(SENDER, '02:00:00:00:00:02', n)),
  )
  expect((await others.frames()).map((hex) => frameNumber(hex))).toEqual([4])
  expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([1, 2, 3, 4, 5])
  const isDropped = async (): Promise<boolean> =>
    (await daemon.stats('p2'))['rx_drop_mirror_output'] > 0
  await until('what the analyser sends is dropped', isDropped)
  const [span] = await mirrors(daemon)
  expect(span).toMatchObject({ name: 'span', frames: 5, missing: [] })
  await daemon.execute('mirror-del', { name: 'span' })
  expect(await mirrors(daemon)).toEqual([])
  const again = await lab.receive(netns[0], 1)
  await lab.send(netns[2], [frameHex(BROADCAST, '02:00:00:00:00:09', 10)])
  expect((await again.frames()).map((hex) => frameNumber(hex))).toEqual([10])
})

describe('M5, M8: a TCP transfer with offloads arrives whole while it is copied', () => {
  test.each([
    ['whole, as the output takes TSO', 'vnet_hdr=on', {}, 0],
    ['in segments, as the output takes no offload', 'vnet_hdr=off', {}, 0],
    ['cut to 96 bytes', 'vnet_hdr=on', { snaplen: 96 }, 96],
  ])('%s', async (_kind, output, more, snaplen) => {
    await using lab = new Lab()
    const { daemon, netns } = await star(lab, 'vnet_hdr=on', 'vnet_hdr=on', output)
    const ends = netns.slice(0, 2).map((name, k) => ({ netns: name, address: `10.0.0.${k + 1}` }))
    for (const { netns: name, address } of ends) lab.address(name, address)
    // No host says more than the transfer makes it, so that at its end all counts stand still.
    introduce(lab, ...ends)
    const selected = { 'select-src-port': ['p0'], 'output-port': 'p2' }
    await daemon.execute('mirror-add', { name: 'm', ...selected, ...more })
    const file = join(lab.directory, 'seen.pcapng')
    const capture = { path: file, ports: ['p2'], direction: 'out', snaplen: 262_144 }
    const { id } = await daemon.execute<{ id: number }>('capture-start', capture)
    await transferTcp(lab, ends[0], ends[1], 20)
    // Behind the last acknowledgement.
    const last = await lab.receive(netns[2], 1)
    await lab.send(netns[0], [frameHex(BROADCAST, SENDER, 1)])
    await last.frames()
    await daemon.execute('capture-stop', { id })
    const counted = await daemon.stats('p2')
    const [{ frames }] = await mirrors(daemon)
    const sender = await daemon.stats('p0')
    expect(frames).toBe(sender['rx_frames'])
    const fields = ['frame.len', 'frame.cap_len'].flatMap((field) => ['-e', field])
    const lengths = sh('tshark', '-r', file, '-T', 'fields', ...fields)
      .trim()
      .split('\n')
      .map((line) => Number(line.split('\t')[0]))
    expect(lengths).toHaveLength(frames)
    expect(counted['tx_drop_mtu'] + counted['tx_drop_offload']).toBe(0)
    const longest = Math.max(...lengths)
    if (snaplen > 0) expect([longest, counted['tx_segmented']]).toEqual([snaplen, 0])
    // Otherwise there would have been nothing to cut.
    else expect(longest).toBeGreaterThan(1514)
    if (output === 'vnet_hdr=off') expect(counted['tx_segmented']).toBeGreaterThan(0)
    else expect(counted['tx_segmented']).toBe(0)
  })
})

test('M5: the segments of a copy have right checksums', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await star(lab, 'vnet_hdr=on', 'vnet_hdr=on', 'vnet_hdr=off')
  const ends = netns.slice(0, 2).map((name, k) => ({ netns: name, address: `10.0.0.${k + 1}` }))
  for (const { netns: name, address } of ends) lab.address(name, address)
  const selected = { 'select-src-port': ['p0'], 'output-port': 'p2' }
  await daemon.execute('mirror-add', { name: 'm', ...selected })
  const file = join(lab.directory, 'x0.pcapng')
  const dump = lab.start(netns[2], 'dumpcap', '-B', '64', '-i', IFNAME, '-w', file)
  await until('it listens', () => dump.stderr.includes('File:'))
  await transferTcp(lab, ends[0], ends[1], 2)
  await until('the end was seen', () => {
    const read = ['-r', file, '-Y', 'tcp.flags.fin == 1']
    // While it is written it may end in the middle of a frame.
    const { status, stdout } = spawnSync('tshark', read, { encoding: 'utf8' })
    return status === 0 && stdout !== ''
  })
  await dump.stop('SIGINT')
  const checked = ['-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE']
  const count = (filter: string): number =>
    sh('tshark', '-r', file, ...checked, '-Y', `tcp && (${filter})`).split('\n').length - 1
  expect(count('tcp.checksum.status == 1 && ip.checksum.status == 1')).toBeGreaterThan(2 * 40)
  expect(count('!(tcp.checksum.status == 1 && ip.checksum.status == 1)')).toBe(0)
})

test('M1, M3: a reload adds, changes and ends mirrors; ports that come and go keep theirs', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns(), lab.netns()]
  const ports = netns.map((name, k) => ({ id: `p${k}`, type: 'tap', ifname: IFNAME, netns: name }))
  const file = join(lab.directory, 'config.yaml')
  const write = (config: object): void => writeFileSync(file, stringify({ ports, ...config }))
  const span = { name: 'span', 'select-src-port': ['p0'], 'output-port': 'p2' }
  write({ mirrors: [span] })
  const daemon = await lab.daemon('--config', file)
  for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
  const reload = (): Promise<{ actions: string[] }> =>
    daemon.execute<{ actions: string[] }>('config-reload')
  const seen = async (numbers: readonly number[]): Promise<string[]> => {
    const receiver = await lab.receive(netns[2], numbers.length)
    await lab.send(
      netns[0],
      numbers.map((n) => frameHex('02:00:00:00:00:05', SENDER, n, 200)),
    )
    return receiver.frames()
  }
  expect((await seen([1, 2])).map((hex) => frameNumber(hex))).toEqual([1, 2])
  expect((await reload()).actions).toEqual([])
  write({ mirrors: [{ ...span, snaplen: 100 }] })
  expect((await reload()).actions).toEqual(['unmirror span', 'mirror span'])
  expect((await seen([3])).map((hex) => hex.length)).toEqual([200])
  // By hand: it is missing, and has its place again when it is back.
  await daemon.execute('netdev_del', { id: 'p2' })
  expect(await mirrors(daemon)).toMatchObject([{ name: 'span', missing: ['p2'] }])
  await daemon.execute('netdev_add', ports[2])
  sh('ip', '-n', netns[2], 'link', 'set', IFNAME, 'up')
  expect((await seen([4])).map((hex) => hex.length)).toEqual([200])
  await expect(daemon.execute('link-add', { a: 'p1', b: 'p2' })).rejects.toThrow(
    'port "p2" is the output of mirror "span"',
  )
  write({})
  expect((await reload()).actions).toEqual(['unmirror span'])
  expect(await mirrors(daemon)).toEqual([])
})

test.each([
  ['its source', 'p0', [1]],
  ['its output', 'p2', []],
])(
  'M1, M3: a mirror goes on in an upgrade while %s is gone, and has it again',
  async (_, id, before) => {
    await using lab = new Lab()
    const netns = [lab.netns(), lab.netns(), lab.netns()]
    const others = netns.flatMap((name, k) => (`p${k}` === id ? [] : ['--port', tapSpec(k, name)]))
    const daemon = await lab.daemon(...others)
    await using line = new Line(daemon)
    // By hand: a successor adds what its config names and is not there.
    const k = Number(id.slice(1))
    const tap = { type: 'tap', id, ifname: IFNAME, netns: netns[k], script: 'no', downscript: 'no' }
    await daemon.execute('netdev_add', tap)
    for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
    const span = { name: 'span', 'select-src-port': ['p0', 'p1'], 'output-port': 'p2' }
    await daemon.execute('mirror-add', span)
    await daemon.execute('netdev_del', { id })
    await line.upgrade()
    const execute = (command: string, args = {}): Promise<Told[]> => line.execute(command, args)
    expect(await execute('query-mirrors')).toMatchObject([{ ...span, missing: [id] }])
    const seen = async (number: number): Promise<number[]> => {
      const receiver = await lab.receive(netns[2], 1)
      await lab.send(netns[1], [frameHex(BROADCAST, SENDER, number)])
      return (await receiver.frames()).map((hex) => frameNumber(hex))
    }
    if (before.length > 0) expect(await seen(1)).toEqual(before)
    await execute('netdev_add', tap)
    sh('ip', '-n', netns[k], 'link', 'set', IFNAME, 'up')
    expect(await execute('query-mirrors')).toMatchObject([{ ...span, missing: [] }])
    expect(await seen(2)).toEqual([2])
  },
)

test('show mirrors, and mirror-add in words', async () => {
  await using lab = new Lab()
  const { daemon } = await star(lab, '', '', '')
  const framepump = (...args: string[]): string =>
    sh(process.execPath, CLI, ...args, '--control', daemon.control)
  framepump('ctl', 'mirror-add', 'name=a', 'select-all=on', 'output-port=p2', 'snaplen=64')
  framepump(
    'ctl',
    'mirror-add',
    'name=b',
    'select-dst-port=["p0","p1"]',
    'select-vlan=[10,"20-30"]',
    'output-port=p2',
  )
  const rows = framepump('show', 'mirrors')
    .trim()
    .split('\n')
    .map((line) => line.split(/ {2,}/).slice(0, 6))
  expect(rows).toEqual([
    ['NAME', 'SRC', 'DST', 'VLANS', 'OUTPUT', 'SNAPLEN'],
    ['a', 'all', 'all', 'all', 'p2', '64'],
    ['b', '-', 'p0 p1', '10 20-30', 'p2', '-'],
  ])
  expect(JSON.parse(framepump('show', 'mirrors', '--json'))).toMatchObject([
    { name: 'a', 'select-all': true, 'output-port': 'p2', snaplen: 64, frames: 0, bytes: 0 },
    { name: 'b', 'select-dst-port': ['p0', 'p1'] },
  ])
})

test('the example: an analyser sees the first 128 bytes of what vm1 sends and is sent', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns(), lab.netns()]
  const example = parse(readFileSync(join(ROOT, 'config/examples/span.yaml'), 'utf8')) as {
    ports: { id: string; type: string }[]
  }
  // TAPs stand in for guests.
  const file = join(lab.directory, 'config.yaml')
  const ports = example.ports.map(({ id }, k) => ({
    id,
    type: 'tap',
    ifname: IFNAME,
    netns: netns[k],
  }))
  writeFileSync(file, stringify({ ...example, ports }))
  const daemon = await lab.daemon('--config', file)
  for (const [k, name] of netns.entries()) {
    sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
    if (k < 2) lab.address(name, `10.0.0.${k + 1}`)
  }
  introduce(
    lab,
    ...netns.slice(0, 2).map((name, k) => ({ netns: name, address: `10.0.0.${k + 1}` })),
  )
  const receiver = await lab.receiveAll(netns[2], IFNAME, 4)
  // It fails when there are fewer.
  lab.exec(netns[0], 'ping', '-c', '2', '-w', '20', '-s', '400', '10.0.0.2')
  const frames = await receiver.frames()
  expect(frames).toHaveLength(4)
  expect(Math.max(...frames.map((hex) => hex.length / 2))).toBe(128)
  expect(await mirrors(daemon)).toMatchObject([{ name: 'vm1-span', missing: [] }])
})
