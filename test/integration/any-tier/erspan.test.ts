/**
 * Mirrors to another host, dissected by tshark.
 *
 *     [x0 ns 0]--p0 \
 *                    > switch, mirror  in [host]--e0 ... e0--[analyser]
 *     [x0 ns 1]--p1 /
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import {
  ANALYSER,
  ANALYSER_IPV6,
  dissect,
  HOST_IPV6,
  seen,
  setMtu,
  setUp,
  startHosts,
} from '../../support/erspan.ts'
import type { Hosts } from '../../support/erspan.ts'
import { CLI, frameHex, Lab, ROOT } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { transferTcp } from '../../support/transfer.ts'

const TO = '02:00:00:00:00:02'
const FROM = '02:00:00:00:00:01'
/** Of IP and Ethernet. */
const BEFORE_GRE = 14 + 20

interface Told {
  readonly frames: number
  readonly counters: Readonly<Record<string, number>>
}

const addMirror = ({ daemon }: Hosts, erspan: object, more: object = {}): Promise<unknown> =>
  daemon.execute('mirror-add', { name: 'm', 'select-src-port': ['p0'], erspan, ...more })

const told = async ({ daemon }: Hosts): Promise<Told> =>
  (await daemon.execute<Told[]>('query-mirrors'))[0]

const lost = ({ counters }: Told): number =>
  Object.entries(counters)
    .filter(([name]) => name.startsWith('tx_drop_'))
    .reduce((sum, [, value]) => sum + value, 0)

/** Untagged, and with VID 10 and PCP 5. */
const FRAMES: readonly string[] = [
  frameHex(TO, FROM, 1, 60),
  frameHex(TO, FROM, 2, 64, '8100a00a'),
  frameHex(TO, FROM, 3, 300),
  frameHex(TO, FROM, 4, 1514),
]

test('M7: type II, with VLAN, COS, session, index and sequence numbers', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  setMtu(hosts.host, 2000)
  setMtu(hosts.analyser, 2000)
  await addMirror(hosts, { 'remote-ip': ANALYSER, 'session-id': 1023, index: 0xabcde })
  const frames = await seen(lab, hosts, () => lab.send(hosts.netns[0], FRAMES), FRAMES.length)
  // GRE and ERSPAN have 8 bytes each.
  expect(frames.map((hex) => hex.slice(2 * (BEFORE_GRE + 16)))).toEqual(FRAMES)
  const fields = ['ip.dst', 'gre.proto', 'gre.sequence_number', 'erspan.version', 'erspan.vlan']
  fields.push('erspan.cos', 'erspan.encap', 'erspan.truncated', 'erspan.spanid', 'erspan.index')
  const row = (sequence: number, vlan: number, cos: number, encap: number): string[] =>
    [ANALYSER, '0x88be', sequence, 1, vlan, cos, encap, 0, 1023, 0xabcde].map(String)
  const expected = [row(0, 0, 0, 0), row(1, 10, 5, 3), row(2, 0, 0, 0), row(3, 0, 0, 0)]
  expect(dissect(lab, frames, fields)).toEqual(expected)
  // A copy is counted when it has been sent.
  await until('all are counted', async () => (await told(hosts)).counters['tx_frames'] >= 4)
  const after = await told(hosts)
  // The host that was sent to knows no GRE and says so: nothing is lost by that.
  expect([after.frames, after.counters['tx_frames'], lost(after)]).toEqual([4, 4, 0])
  expect(after.counters['tx_bytes']).toBe(60 + 64 + 300 + 1514)
  hosts.daemon.client.close()
})

test('M7: type III, with timestamps of 100 us, hardware id, direction, and a key', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  const session = { 'remote-ip': ANALYSER, version: 2, 'session-id': 5 }
  await addMirror(hosts, { ...session, direction: 'egress', hwid: 63, key: 4_000_000_000 })
  const before = Date.now()
  const frames = await seen(lab, hosts, () => lab.send(hosts.netns[0], FRAMES.slice(0, 3)), 3)
  const after = Date.now()
  // GRE has a key as well.
  expect(frames.map((hex) => hex.slice(2 * (BEFORE_GRE + 24)))).toEqual(FRAMES.slice(0, 3))
  const fields = ['gre.proto', 'gre.key', 'gre.sequence_number', 'erspan.version', 'erspan.vlan']
  fields.push('erspan.cos', 'erspan.truncated', 'erspan.spanid', 'erspan.hw', 'erspan.direction')
  fields.push('erspan.gra', 'erspan.p', 'erspan.ft', 'erspan.o', 'erspan.timestamp')
  const rows = dissect(lab, frames, fields)
  const row = (sequence: number, vlan: number, cos: number): string[] => [
    '0x22eb',
    '0xee6b2800',
    ...[sequence, 2, vlan, cos, 0, 5, 63, 1, 0, 1, 0, 0].map(String),
  ]
  expect(rows.map((one) => one.slice(0, -1))).toEqual([row(0, 0, 0), row(1, 10, 5), row(2, 0, 0)])
  for (const one of rows) {
    const since = (Number(one.at(-1)) - before * 10) >>> 0
    // A tenth of a second is the clock that Date has, and that of a turn.
    expect((since + 1000) >>> 0).toBeLessThan(1000 + (after - before) * 10 + 1000)
  }
  hosts.daemon.client.close()
})

test('M7: what the path does not take is cut and says so, also when it becomes narrower', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  await addMirror(hosts, { 'remote-ip': ANALYSER, 'session-id': 1 })
  const lengths = [1000, 1464, 1465, 1514]
  const sent = lengths.map((length, n) => frameHex(TO, FROM, n, length))
  const fields = ['ip.len', 'erspan.truncated']
  const cut = async (timeoutMs?: number): Promise<string[][]> => {
    const send = (): Promise<void> => lab.send(hosts.netns[0], sent)
    return dissect(lab, await seen(lab, hosts, send, sent.length, timeoutMs), fields)
  }
  // 1500 less 36 bytes of headers.
  const whole = [
    ['1036', '0'],
    ['1500', '0'],
  ]
  expect(await cut()).toEqual([...whole, ['1500', '1'], ['1500', '1']])
  setMtu(hosts.host, 1300)
  await until('the socket has learnt of it', async () => (await cut(1500))[1]?.[0] === '1300')
  expect(await cut()).toEqual([
    ['1036', '0'],
    ['1300', '1'],
    ['1300', '1'],
    ['1300', '1'],
  ])
  hosts.daemon.client.close()
})

test('M5, M7: snaplen cuts, and the copy says so; the frame itself is whole', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  await addMirror(hosts, { 'remote-ip': ANALYSER, 'session-id': 1 }, { snaplen: 100 })
  const sent = [60, 100, 101, 1514, 99].map((length, n) => frameHex(TO, FROM, n, length))
  const receiver = await lab.receive(hosts.netns[1], sent.length)
  const frames = await seen(lab, hosts, () => lab.send(hosts.netns[0], sent), sent.length)
  expect(await receiver.frames()).toEqual(sent)
  const copies = frames.map((hex) => hex.slice(2 * (BEFORE_GRE + 16)))
  expect(copies).toEqual(sent.map((hex) => hex.slice(0, 200)))
  const flags = dissect(lab, frames, ['erspan.truncated']).flat()
  expect(flags).toEqual(['0', '0', '1', '1', '0'])
  hosts.daemon.client.close()
})

/** The end of a connection, of a copy of what the client has sent: behind GRE, Ethernet and IP. */
function isLast(hex: string): boolean {
  const flagsAt = BEFORE_GRE + 16 + 14 + 20 + 13
  return (Number.parseInt(hex.slice(2 * flagsAt, 2 * flagsAt + 2), 16) & 1) !== 0
}

describe('M5, M7: a TCP transfer with offloads', () => {
  test.each([
    ['in segments with right checksums', 2000, {}],
    ['cut to the mtu', 1500, {}],
    ['cut by snaplen, a copy for a GSO frame', 1500, { snaplen: 128 }],
  ])('%s', async (_what, mtu, more) => {
    await using lab = new Lab()
    const hosts = await startHosts(lab, ['vnet_hdr=on', 'vnet_hdr=on'])
    for (const name of [hosts.host, hosts.analyser]) setMtu(name, mtu)
    await addMirror(hosts, { 'remote-ip': ANALYSER, 'session-id': 1 }, more)
    const ends = hosts.netns.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
    for (const { netns, address } of ends) lab.address(netns, address)
    const transfer = (): Promise<void> => transferTcp(lab, ends[0], ends[1], 4)
    const frames = await seen(lab, hosts, transfer, (come) => come.some(isLast))
    const after = await told(hosts)
    expect(lost(after)).toBe(0)
    // All from the first on; what the kernels said later than that is counted only.
    const numbers = dissect(lab, frames, ['gre.sequence_number']).map(([one]) => Number(one))
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, n) => n))
    await until(
      'all are counted',
      async () => (await told(hosts)).counters['tx_frames'] >= numbers.length,
    )
    const checks = ['-o', 'tcp.check_checksum:TRUE', '-Y', 'tcp']
    const fields = ['erspan.truncated', 'tcp.checksum.status', 'tcp.len']
    const rows = dissect(lab, frames, fields, ...checks)
    const truncated = rows.filter(([isTruncated]) => isTruncated === '1')
    if (mtu > 1600) {
      const bytes = rows.reduce((sum, [, , length]) => sum + Number(length), 0)
      expect(bytes).toBeGreaterThanOrEqual(4 * 65_536)
      expect(truncated).toEqual([])
      expect(rows.filter(([, status]) => status !== '1')).toEqual([])
    } else expect(truncated.length).toBeGreaterThan(0)
    if ('snaplen' in more) expect(after.counters['tx_segmented']).toBe(0)
    else expect(after.counters['tx_segmented']).toBeGreaterThan(0)
    hosts.daemon.client.close()
  })
})

test('M7: to a host with IPv6', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  await addMirror(hosts, { 'remote-ip': ANALYSER_IPV6, 'session-id': 9, version: 2 })
  const frames = await seen(lab, hosts, () => lab.send(hosts.netns[0], FRAMES), FRAMES.length)
  const fields = ['ipv6.src', 'ipv6.dst', 'ipv6.plen', 'gre.sequence_number', 'erspan.spanid']
  fields.push('erspan.truncated')
  const row = (length: number, sequence: number, truncated: number): string[] =>
    [HOST_IPV6, ANALYSER_IPV6, length, sequence, 9, truncated].map(String)
  // 1500 less the header of IPv6.
  const expected = [row(80, 0, 0), row(84, 1, 0), row(320, 2, 0), row(1460, 3, 1)]
  expect(dissect(lab, frames, fields)).toEqual(expected)
  expect(lost(await told(hosts))).toBe(0)
  hosts.daemon.client.close()
})

test('M7, M8: without a way to the host copies are lost and counted, and go on when there is one again', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  await addMirror(hosts, { 'remote-ip': ANALYSER, 'session-id': 1 })
  const first = (): Promise<void> => lab.send(hosts.netns[0], FRAMES.slice(0, 1))
  expect(await seen(lab, hosts, first, 1)).toHaveLength(1)
  setUp(hosts.host, false)
  const receiver = await lab.receive(hosts.netns[1], 3)
  await lab.send(hosts.netns[0], FRAMES.slice(0, 3))
  expect(await receiver.frames()).toHaveLength(3)
  // Copies come behind the frames themselves.
  await until('their copies are lost', async () => lost(await told(hosts)) >= 3)
  expect(lost(await told(hosts))).toBe(3)
  const shown = sh(process.execPath, CLI, 'show', 'mirrors', '--control', hosts.daemon.control)
  expect(shown).toMatch(/m +p0 +- +all +192\.0\.2\.2 session 1 .*tx_drop_/)
  setUp(hosts.host, true)
  await until(
    'they arrive again',
    async () => (await seen(lab, hosts, first, 1, 1000)).length === 1,
  )
  hosts.daemon.client.close()
})

test('M7: what is wrong is told, and nothing is left of it', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''])
  const add = (erspan: object): Promise<unknown> => addMirror(hosts, erspan)
  const session = { 'remote-ip': ANALYSER, 'session-id': 1 }
  await expect(add({ ...session, 'remote-ip': '198.51.100.1' })).rejects.toThrow(
    'mirror "m": no way to 198.51.100.1: Network is unreachable',
  )
  await expect(add({ ...session, 'remote-ip': 'analyser' })).rejects.toThrow('no address of IPv4')
  await expect(add({ ...session, 'remote-ip': '224.0.0.1' })).rejects.toThrow('of one host')
  await expect(add({ ...session, 'session-id': 1024 })).rejects.toThrow('session-id')
  await expect(add({ ...session, hwid: 1 })).rejects.toThrow('of type III')
  await expect(add({ ...session, version: 2, index: 1 })).rejects.toThrow('of type II')
  await add(session)
  const second = { name: 'n', 'select-all': true, erspan: { ...session, version: 2 } }
  await expect(hosts.daemon.execute('mirror-add', second)).rejects.toThrow(
    'mirror "n": mirror "m" has that session-id to that host',
  )
  await hosts.daemon.execute('mirror-del', { name: 'm' })
  await add({ ...session, version: 2 })
  expect(await hosts.daemon.execute('query-mirrors')).toMatchObject([{ frames: 0 }])
  // It is none of the ports that are flooded.
  const [flooded, selected] = [1, 2].map((n) => frameHex('ff:ff:ff:ff:ff:ff', TO, n))
  const send = async (): Promise<void> => {
    const receiver = await lab.receive(hosts.netns[0], 1)
    await lab.send(hosts.netns[1], [flooded])
    expect(await receiver.frames()).toEqual([flooded])
    await lab.send(hosts.netns[0], [selected])
  }
  const frames = await seen(lab, hosts, send, 1)
  expect(frames.map((hex) => hex.endsWith(selected))).toEqual([true])
  hosts.daemon.client.close()
})

test('M7: a daemon that has given up its privileges says what it lacks', async () => {
  await using lab = new Lab()
  const hosts = await startHosts(lab, ['', ''], '--privileges', 'locked')
  const session = { 'remote-ip': ANALYSER, 'session-id': 1 }
  await expect(addMirror(hosts, session)).rejects.toThrow(
    /cannot open a raw socket for GRE: .*gave up CAP_NET_RAW/,
  )
  hosts.daemon.client.close()
})

test('M7, the example: as it is written, but for the address', async () => {
  await using lab = new Lab()
  const text = readFileSync(join(ROOT, 'config/examples/erspan.yaml'), 'utf8')
  const { ports, mirrors } = parse(text) as {
    ports: { id: string }[]
    mirrors: Record<string, unknown>[]
  }
  const hosts = await startHosts(
    lab,
    ports.map(() => ''),
  )
  const named = (ids: unknown): string[] =>
    (ids as string[]).map((id) => `p${ports.findIndex((port) => port.id === id)}`)
  for (const { erspan, ...mirror } of mirrors) {
    for (const key of ['select-src-port', 'select-dst-port']) mirror[key] = named(mirror[key])
    const session = { ...(erspan as object), 'remote-ip': ANALYSER }
    await hosts.daemon.execute('mirror-add', { ...mirror, erspan: session })
  }
  const frames = await seen(lab, hosts, () => lab.send(hosts.netns[0], FRAMES.slice(0, 3)), 3)
  const fields = ['erspan.version', 'erspan.spanid', 'erspan.truncated']
  const row = (isTruncated: number): string[] => ['2', '7', String(isTruncated)]
  expect(dissect(lab, frames, fields)).toEqual([row(0), row(0), row(1)])
  hosts.daemon.client.close()
})
