/**
 * Filters of mirrors: compiled by the real libpcap, they choose what tshark finds by words of its own; and a daemon
 * that may start no programs any more has those of its config, and others as programs.
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { createSwitch as CreateSwitch } from '../../../src/index.ts'
import type { MirrorOptions } from '../../../src/switch/api.ts'
import { pcapFile } from '../../support/capture-files.ts'
import { ipFrame } from '../../support/ip-frames.ts'
import type { Daemon } from '../../support/lab.ts'
import { CLI, frameHex, frameNumber, IO, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { frame } from '../../support/sim.ts'
import { Line } from '../../support/upgrades.ts'

const { createSwitch } = (await import('../../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const TO = '02:00:00:00:00:02'
const FROM = '02:00:00:00:00:01'
const OTHER = '02:00:00:00:00:07'

interface Told {
  readonly name: string
  readonly frames: number
  readonly filter?: string
  readonly 'filter-program'?: string
}

/** Our filter, and what tshark finds by. */
const FILTERS: readonly (readonly [string, string])[] = [
  ['ip', 'eth.type == 0x800'],
  ['ip6', 'eth.type == 0x86dd'],
  ['tcp port 80', 'tcp.port == 80 && !vlan'],
  ['udp and greater 200', 'udp && frame.len >= 200 && !vlan'],
  ['vlan 10', 'vlan.id == 10 || ieee8021ad.id == 10'],
  ['vlan and tcp dst port 443', 'vlan && !ieee8021ad && tcp.dstport == 443'],
  ['tcp[tcpflags] & (tcp-syn|tcp-fin) != 0', 'ip && tcp.flags & 3 && !vlan'],
  ['ether src 02:00:00:00:00:01', 'eth.src == 02:00:00:00:00:01'],
  ['ether multicast', 'eth.dst.ig == 1'],
  ['less 70 or greater 1000', 'frame.len <= 70 || frame.len >= 1000'],
  ['ip[2:2] > 100 and ip[8] < 65', 'ip.len > 100 && ip.ttl < 65 && !vlan'],
  ['not ip and not ip6', 'eth.type != 0x800 && eth.type != 0x86dd'],
  ['ether[len - 1] == 7', 'frame[-1:1] == 07'],
]

const FRAMES: readonly Uint8Array[] = [
  ...[80, 443, 5201].flatMap((destinationPort) =>
    [[], [10], [10, 20], [11]].flatMap((vlans) =>
      [false, true].flatMap((isIpv6) =>
        (['tcp', 'udp'] as const).map((protocol, n) => {
          const payload = new Uint8Array([1, 150, 900, 1400][(destinationPort + n) % 4]).fill(7)
          const flags = n === 0 && isIpv6 ? 0x10 : 0x12
          return ipFrame({ vlans, isIpv6, protocol, destinationPort, flags, payload }).bytes
        }),
      ),
    ),
  ),
  ...[1, 9, 255].map((to) => frame(to, 1, to)),
  ...[1, 9, 255].map((to) => frame(to, 9, to)),
]

/** As tshark counts. */
const numberOf = (bytes: Uint8Array): number =>
  FRAMES.findIndex((one) => Buffer.compare(one, bytes) === 0) + 1

test('M1: what a filter chooses is what tshark finds', async () => {
  await using lab = new Lab()
  const file = join(lab.directory, 'all.pcap')
  writeFileSync(file, pcapFile(FRAMES.map((bytes) => [bytes] as const)))
  await using sw = createSwitch({ io: IO as 'auto' })
  for (const id of ['a', 'b']) await sw.addPort({ type: 'memory', id })
  const [a, b] = ['a', 'b'].map((id) => sw.memoryPort(id))
  for (const [filter, words] of FILTERS) {
    const chosen: Uint8Array[] = []
    await sw.addMirror({ name: 'm', selectSrcPort: ['a'], outputPort: 'b', filter })
    const before = sw.port('a').counters.rx_frames
    for (const bytes of FRAMES) expect(a.send(bytes)).toBe(true)
    await until('all are in', () => sw.port('a').counters.rx_frames === before + FRAMES.length)
    await sw.removeMirror('m')
    for (let one = b.receive(); one !== null; one = b.receive()) chosen.push(one)
    const found = sh('tshark', '-r', file, '-Y', words, '-T', 'fields', '-e', 'frame.number')
    const numbers = found.split('\n').filter(Boolean).map(Number)
    expect([0, FRAMES.length]).not.toContain(numbers.length)
    expect({ filter, chosen: chosen.map(numberOf) }).toEqual({ filter, chosen: numbers })
  }
})

/** The mirror that becomes of it, or how that fails. */
async function tried(options: Partial<MirrorOptions>): Promise<string> {
  await using sw = createSwitch({ io: IO as 'auto' })
  for (const id of ['a', 'b']) await sw.addPort({ type: 'memory', id })
  return await sw.addMirror({ name: 'm', selectSrcPort: ['a'], outputPort: 'b', ...options }).then(
    () => sw.mirrors()[0].options.filterProgram ?? '',
    (error: Error) => `${(error as Error & { code: string }).code}: ${error.message}`,
  )
}

test('a filter that is wrong, or of too many instructions, says so', async () => {
  const refused = (filter: string): Promise<string> => tried({ filter })
  expect(await refused('arp')).toBe('4,40 0 0 12,21 0 1 2054,6 0 0 262144,6 0 0 0')
  expect(await refused('tcp prot 80')).toMatch(
    /^BAD_FILTER: mirror "m": filter "tcp prot 80": .*syntax/,
  )
  expect(await refused('tcp port 99999')).toMatch(/^BAD_FILTER: .*illegal port number/)
  expect(await refused(' ')).toMatch(/BAD_FILTER: mirror "m": a filter has 1 to/)
  expect(await refused('x'.repeat(10_000))).toMatch(/BAD_FILTER: mirror "m": a filter has 1 to/)
  // Each has to be told from all others.
  const lengths = Array.from({ length: 900 }, (_, n) => `len = ${n * 3 + 60}`).join(' or ')
  expect(await refused(`(${lengths.slice(0, 8000)}`)).toMatch(/BAD_FILTER/)
  expect(await tried({ filterProgram: '1,6 0 0' })).toMatch(/BAD_FILTER: not a filter program/)
  expect(await tried({ filter: 'as it is called', filterProgram: '1,6 0 0 1' })).toBe('1,6 0 0 1')
})

const MIRROR = { name: 'm', 'select-src-port': ['p0'], 'output-port': 'p2' }

/** Three TAPs and a mirror from the first to the last. */
class Filtering {
  readonly lab: Lab
  readonly file: string
  readonly netns: string[]
  daemon!: Daemon

  constructor(lab: Lab) {
    this.lab = lab
    this.file = join(lab.directory, 'config.json')
    this.netns = [0, 1, 2].map(() => lab.netns())
  }

  write(...mirrors: readonly object[]): void {
    const ports = this.netns.map((netns, k) => ({
      id: `p${k}`,
      type: 'tap',
      ifname: 'x0',
      netns,
      up: true,
    }))
    writeFileSync(this.file, JSON.stringify({ ports, mirrors }))
  }

  async start(...mirrors: readonly object[]): Promise<this> {
    this.write(...mirrors)
    this.daemon = await this.lab.daemon('--config', this.file)
    for (const name of this.netns) sh('ip', '-n', name, 'link', 'set', 'x0', 'up')
    return this
  }

  told(): Promise<Told[]> {
    return this.daemon.execute<Told[]>('query-mirrors')
  }

  /** Numbers of those of six frames, half of another sender, that the output has. */
  async seen(expected: number): Promise<number[]> {
    const receiver = await this.lab.receive(this.netns[2], expected)
    const frames = [1, 2, 3, 4, 5, 6].map((n) => frameHex(TO, n % 2 === 1 ? FROM : OTHER, n))
    await this.lab.send(this.netns[0], frames)
    return (await receiver.frames()).map((hex) => frameNumber(hex))
  }
}

const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => '',
    (error: Error) => `${(error as Error & { code: string }).code}: ${error.message}`,
  )

test('M1: of the config, by ctl, and changed in a reload, where no programs may be started', async () => {
  await using lab = new Lab()
  const bed = await new Filtering(lab).start({ ...MIRROR, filter: `ether src ${FROM}` })
  const { daemon } = bed
  // Its own address: to an unknown one a frame is flooded, also to the output if it is no output.
  expect(await bed.seen(3)).toEqual([1, 3, 5])
  const [before] = await bed.told()
  expect(before).toMatchObject({ frames: 3, filter: `ether src ${FROM}` })
  // Nothing has changed: it goes on counting.
  expect(await daemon.execute('config-reload')).toMatchObject({ actions: [] })
  expect(await bed.told()).toEqual([before])

  // What is new cannot be compiled, and is told before anything changes.
  bed.write({ ...MIRROR, filter: `ether src ${OTHER}` }, { ...MIRROR, name: 'n' })
  const refused = await failure(daemon.execute('config-reload'))
  expect(refused).toMatch(
    /^FILTER_COMPILER: mirror "m": filter "ether src .*" cannot be compiled: no process can be/,
  )
  expect(await bed.told()).toEqual([before])
  const direct = { ...MIRROR, name: 'n', filter: `ether src ${OTHER}` }
  expect(await failure(daemon.execute('mirror-add', direct))).toMatch(
    /^FILTER_COMPILER: mirror "n": .* no process/,
  )
  const program = await tried({ filter: `ether src ${OTHER}` })
  bed.write({ ...MIRROR, filter: 'the other one', 'filter-program': program.replaceAll(',', '\n') })
  await daemon.execute('config-reload')
  expect(await bed.seen(3)).toEqual([2, 4, 6])
  expect(await bed.told()).toMatchObject([{ filter: 'the other one', frames: 3 }])

  // ctl compiles by itself.
  await daemon.execute('mirror-del', { name: 'm' })
  const words = ['name=m', 'select-src-port=p0', 'output-port=p2']
  const ctl = (...more: string[]): ReturnType<typeof spawnSync> =>
    spawnSync(CLI, ['ctl', '--control', daemon.control, 'mirror-add', ...words, ...more], {
      encoding: 'utf8',
    })
  expect(ctl('filter=tcp prot 80')).toMatchObject({ status: 2 })
  expect(ctl(`filter=ether src ${FROM}`)).toMatchObject({ status: 0 })
  expect(await bed.seen(3)).toEqual([1, 3, 5])
  const shown = spawnSync(CLI, ['show', 'mirrors', '--control', daemon.control], {
    encoding: 'utf8',
  })
  expect(shown.stdout).toMatch(/FILTER[^]*ether src 02:00:00:00:00:01/)
})

test('M1, H13: another process goes on with it, and a reload there finds nothing to do', async () => {
  await using lab = new Lab()
  const bed = await new Filtering(lab).start({ ...MIRROR, filter: `ether src ${FROM}` })
  expect(await bed.seen(3)).toEqual([1, 3, 5])
  await using line = new Line(bed.daemon)
  await line.upgrade()
  expect(await bed.seen(3)).toEqual([1, 3, 5])
  expect(await line.execute('config-reload')).toMatchObject({ actions: [] })
  expect(await line.execute('query-mirrors')).toMatchObject([
    { filter: `ether src ${FROM}`, frames: 6 },
  ])
})

test('run --check compiles filters', async () => {
  await using lab = new Lab()
  const bed = new Filtering(lab)
  const check = (): ReturnType<typeof spawnSync> =>
    spawnSync(CLI, ['run', '--check', '--config', bed.file], { encoding: 'utf8' })
  bed.write({ ...MIRROR, filter: 'tcp port 80' })
  expect(check()).toMatchObject({ status: 0 })
  bed.write({ ...MIRROR, filter: 'tcp prot 80' })
  const wrong = check()
  expect(wrong).toMatchObject({ status: 2, stdout: '' })
  expect(wrong.stderr).toMatch(/mirror "m": filter "tcp prot 80": .*syntax/)
  bed.write({ ...MIRROR, 'filter-program': '1,6 0 0' })
  expect(check().stderr).toMatch(
    /config.json:\d+:\d+: mirrors\[0\].filter-program: not a filter program/,
  )
})
