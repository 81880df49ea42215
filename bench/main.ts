/**
 * The benchmarks: framepump's tiers beside a C program that moves the same frames by read and write,
 * in turn (A B C A B C ...), because these machines are shared: medians and ratios are the result.
 */
import { spawnSync } from 'node:child_process'
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { cpus, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import Table from 'cli-table3'
import { GUEST_ROWS, HOSTILE_ROW } from './guest-rows.ts'
import { HandOverBed } from './handover-bed.ts'
import { offloadSpeed } from './micro.ts'
import { ovsMixedTcp } from './ovs.ts'
import type { RawPeer } from './raw.ts'
import { RawBed } from './raw.ts'
import type { Figure } from './report.ts'
import { median, Report, sorted } from './report.ts'
import type { Row, Scale } from './rows.ts'
import { inTurn } from './rows.ts'
import type { AutoPeer, MixedPeer, TapPeer } from './topology.ts'
import { Bed, compile, end, ROOT, sleep, STARTING_LOOKS_MAX, TAP_PEERS } from './topology.ts'

const FULL: Scale = {
  rounds: 5,
  seconds: 3,
  memorySeconds: [2, 40],
  idleSeconds: 10,
  handOvers: 50,
}
const FIRST_PINGS = 50
const QUICK: Scale = { rounds: 1, seconds: 1, memorySeconds: [1, 2], idleSeconds: 3, handOvers: 10 }

/** Whether it works: no figure of it says anything. */
const CHECK: Scale = { ...QUICK, memorySeconds: [0.3, 0.5], idleSeconds: 1, handOvers: 3 }

const RAW_PEERS: readonly RawPeer[] = ['framepump', 'testpmd', 'ovs', 'c-reference']
const RAW_RTT_PEERS: readonly RawPeer[] = [
  'framepump',
  'framepump-warm',
  'testpmd',
  'ovs',
  'c-reference',
]
/** testpmd's driver has no offloads, and forgets what is longer than its slots. */
const RAW_TCP_PEERS: readonly RawPeer[] = ['framepump', 'ovs', 'c-reference']

const tapRow = (run: Row<TapPeer>['run']): Row<TapPeer> => ({ peers: TAP_PEERS, run })

const ROWS: Readonly<Record<string, Row>> = {
  'tap-60': frameRow('tap-60', 60),
  'tap-1514': frameRow('tap-1514', 1514),
  'tap-tcp': tapRow((scale, peers, report) =>
    inTurn(scale, peers, (peer) =>
      withBed(peer, true, (bed) => measureTcp('tap-tcp', peer, bed, scale, report)),
    ),
  ),
  'tcp-vlan': vlanTcpRow('tcp-vlan'),
  'auto-60': autoRow(false, (...on) => Promise.resolve(measureFrames('auto-60', 60, ...on))),
  'auto-tcp': autoRow(true, (...on) => measureTcp('auto-tcp', ...on)),
  'tcp-to-plain': mixedRow('tcp-to-plain', [true, false]),
  'tcp-from-plain': mixedRow('tcp-from-plain', [false, true]),
  offloads: offloadRow(),
  'capture-128': tapRow((...on) => captureRow('capture-128', 128, ...on)),
  'capture-full': tapRow((...on) => captureRow('capture-full', 262144, ...on)),
  'virtio-60': deviceRow('virtio-60', 60),
  'virtio-64k': deviceRow('virtio-64k', 65000),
  ...GUEST_ROWS,
  'raw-60': rawRow('raw-60', RAW_PEERS, false, (scale, bed, add) => {
    const { mpps, cpuNs } = bed.frames(60, scale.seconds)
    add('Mpps', mpps)
    add('ns CPU/frame', cpuNs)
  }),
  'raw-tcp': rawRow('raw-tcp', RAW_TCP_PEERS, true, async (scale, bed, add) => {
    const { gbitPerSecond, cpuUs } = await bed.tcp(scale.seconds)
    add('Gbit/s', gbitPerSecond)
    add('us CPU/64 KiB', cpuUs)
  }),
  'raw-rtt': rawRow('raw-rtt', RAW_RTT_PEERS, true, (scale, bed, add) => {
    const all = sorted(bed.roundTrips(scale.seconds * 200))
    add('us rtt median', median(all))
    add('us rtt p99', all[Math.floor((all.length - 1) * 0.99)])
  }),
  hostile: HOSTILE_ROW,
  handover: handOverRow('handover'),
  rtt: roundTripRow('rtt', 0),
  'rtt-100k': roundTripRow('rtt-100k', 100_000),
  idle: tapRow(async (scale, peers, report) => {
    for (const peer of peers.filter((name) => name !== 'c-reference')) {
      await withBed(peer, true, async (bed) => {
        await sleep(1000)
        const before = bed.cpuSeconds()
        await sleep(scale.idleSeconds * 1000)
        report.add(
          'idle',
          peer,
          '% of a core',
          ((bed.cpuSeconds() - before) / scale.idleSeconds) * 100,
        )
        report.add('idle', peer, 'MB resident', bed.residentMb())
      })
    }
  }),
  memory: tapRow(async (scale, peers, report) => {
    for (const peer of peers.filter((name) => name !== 'c-reference')) {
      await withBed(peer, false, async (bed) => {
        bed.frames(60, scale.memorySeconds[0])
        const [frames, resident] = [bed.received(), bed.residentMb()]
        bed.frames(60, scale.memorySeconds[1])
        report.add('memory', peer, 'million frames between', (bed.received() - frames) / 1e6)
        report.add('memory', peer, 'MB grown', bed.residentMb() - resident)
      })
    }
  }),
}

async function withBed(
  peer: TapPeer | 'auto',
  hasVnetHdr: boolean | readonly [boolean, boolean],
  use: (bed: Bed) => Promise<void>,
): Promise<void> {
  const bed = await Bed.make(peer, hasVnetHdr)
  try {
    await use(bed)
  } finally {
    await bed.close()
  }
}

function frameRow(row: string, length: number): Row<TapPeer> {
  return tapRow((scale, peers, report) =>
    inTurn(scale, peers, (peer) =>
      withBed(peer, false, (bed) =>
        Promise.resolve(measureFrames(row, length, peer, bed, scale, report)),
      ),
    ),
  )
}

function measureFrames(
  row: string,
  length: number,
  peer: string,
  bed: Bed,
  scale: Scale,
  report: Report,
): void {
  const { mpps, cpuNs } = bed.frames(length, scale.seconds)
  report.add(row, peer, 'Mpps', mpps)
  report.add(row, peer, 'ns CPU/frame', cpuNs)
}

async function measureTcp(
  row: string,
  peer: string,
  bed: Bed,
  scale: Scale,
  report: Report,
): Promise<void> {
  const [cpuBefore, bytesBefore] = [bed.cpuSeconds(), bed.receivedBytes()]
  report.add(row, peer, 'Gbit/s', await bed.tcp(scale.seconds))
  const pieces = (bed.receivedBytes() - bytesBefore) / 65536
  report.add(row, peer, 'us CPU/64 KiB', ((bed.cpuSeconds() - cpuBefore) * 1e6) / pieces)
}

/** The tier that `--io auto` takes beside the one that it does not take. */
function autoRow(
  hasVnetHdr: boolean,
  measure: (peer: AutoPeer, bed: Bed, scale: Scale, report: Report) => Promise<void>,
): Row<AutoPeer> {
  let other: TapPeer = 'read-write'
  return {
    peers: ['auto', 'other-tier'],
    run: (scale, peers, report) =>
      inTurn(scale, peers, (peer) =>
        withBed(peer === 'auto' ? 'auto' : other, hasVnetHdr, async (bed) => {
          if (peer === 'auto') {
            const isUring = bed.tier === 'io_uring-multishot'
            other = isUring ? 'read-write' : 'io_uring-multishot'
            process.stderr.write(`auto: ${bed.tier}\n`)
          }
          await measure(peer, bed, scale, report)
        }),
      ),
  }
}

/** Round trips from the first frame on; beside a load of so many frames a second. */
function roundTripRow(row: string, loadPerSecond: number): Row<TapPeer> {
  return tapRow((scale, peers, report) =>
    inTurn(scale, peers, (peer) =>
      withBed(peer, true, async (bed) => {
        const load = loadPerSecond > 0 ? bed.startLoad(loadPerSecond) : undefined
        try {
          const first = bed.roundTrips(FIRST_PINGS)
          const all = sorted(bed.roundTrips(scale.seconds * 400))
          const at = (part: number): number => all[Math.floor((all.length - 1) * part)]
          report.add(row, peer, 'us rtt first 50', median(first))
          report.add(row, peer, 'us rtt median', at(0.5))
          report.add(row, peer, 'us rtt p99', at(0.99))
          report.add(row, peer, 'us rtt p99.9', at(0.999))
        } finally {
          if (load !== undefined) await end(load, () => load.kill('SIGTERM'))
        }
      }),
    ),
  )
}

/**
 * TCP between a TAP with vnet_hdr and one without. The C program passes on what it reads, so there
 * both have none; Open vSwitch as it comes has no TCP between such ports.
 */
function mixedRow(row: string, vnetHdr: readonly [boolean, boolean]): Row<MixedPeer> {
  return {
    peers: ['io_uring-multishot', 'read-write', 'ovs', 'c-reference'],
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        if (peer === 'ovs') {
          report.add(row, peer, 'Gbit/s', await ovsMixedTcp(vnetHdr[0], scale.seconds))
          return
        }
        await withBed(peer, peer === 'c-reference' ? false : vnetHdr, async (bed) => {
          report.add(row, peer, 'Gbit/s', await bed.tcp(scale.seconds))
        })
      }),
  }
}

/** TCP from an access port to a trunk, and the other way round, beside ports without VLAN options. */
function vlanTcpRow(row: string): Row<'access-to-trunk' | 'trunk-to-access' | 'untagged'> {
  const trunks = { 'access-to-trunk': 1, 'trunk-to-access': 0, untagged: undefined } as const
  // What `auto` takes once is for all of them.
  let tier: TapPeer | 'auto' = 'auto'
  return {
    peers: ['access-to-trunk', 'trunk-to-access', 'untagged'],
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        const bed = await Bed.make(tier, true, undefined, 'tap', trunks[peer])
        try {
          tier = bed.tier
          await measureTcp(row, peer, bed, scale, report)
        } finally {
          await bed.close()
        }
      }),
  }
}

/** Steps of the data plane, without ports. */
function offloadRow(): Row<'in-process'> {
  return {
    peers: ['in-process'],
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        const { segment, coalesce } = await offloadSpeed(scale.seconds)
        report.add('segment', peer, 'Gbit/s', segment)
        report.add('coalesce', peer, 'Gbit/s', coalesce)
      }),
  }
}

/** From a TAP to an in-process device whose driver, in a thread of its own, forgets what it gets. */
function deviceRow(row: string, length: number): Row<TapPeer> {
  return {
    peers: TAP_PEERS.filter((peer) => peer !== 'c-reference'),
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        const bed = await Bed.make(peer, false, undefined, 'virtio-net')
        try {
          const { mpps, cpuNs } = bed.frames(length, scale.seconds)
          if (length < 1000) report.add(row, peer, 'Mpps', mpps)
          else report.add(row, peer, 'Gbit/s', mpps * length * 8e-3)
          report.add(row, peer, 'ns CPU/frame', cpuNs)
        } finally {
          await bed.close()
        }
      }),
  }
}

/** Between two veths that a switch has by packet sockets. */
function rawRow(
  row: string,
  peers: readonly RawPeer[],
  hasVnetHdr: boolean,
  use: (
    scale: Scale,
    bed: RawBed,
    add: (unit: string, value: number) => void,
  ) => Promise<void> | void,
): Row<RawPeer> {
  return {
    peers,
    run: (scale, chosen, report) =>
      inTurn(scale, chosen, async (peer) => {
        const bed = await RawBed.make(peer, hasVnetHdr)
        try {
          await use(scale, bed, (unit, value) => report.add(row, peer, unit, value))
        } finally {
          await bed.close()
        }
      }),
  }
}

/** How long frames wait when one framepump takes over from another one. */
function handOverRow(row: string): Row<TapPeer> {
  return {
    peers: TAP_PEERS.filter((peer) => peer !== 'c-reference'),
    run: async (scale, peers, report) => {
      for (const peer of peers) {
        const { pausesUs, lost, dropped } = await HandOverBed.measure(peer, scale.handOvers)
        const all = sorted(pausesUs)
        report.add(row, peer, 'us pause median', median(all))
        report.add(row, peer, 'us pause p99', all[Math.floor((all.length - 1) * 0.99)])
        report.add(row, peer, 'frames lost', lost)
        report.add(row, peer, 'frames dropped by the kernel', dropped)
      }
    },
  }
}

/** TCP without and with a capture of everything, alternating; and what the capture lost. */
async function captureRow(
  row: string,
  snapLength: number,
  scale: Scale,
  peers: readonly TapPeer[],
  report: Report,
): Promise<void> {
  const file = join(tmpdir(), `framepump-bench-${process.pid}.pcapng`)
  const choice = { file, snapLength }
  await inTurn(scale, peers, async (peer) => {
    await withBed(peer, true, async (bed) =>
      report.add(`${row}-off`, peer, 'Gbit/s', await bed.tcp(scale.seconds)),
    )
    const isReference = peer === 'c-reference'
    const bed = await Bed.make(peer, true, isReference ? choice : undefined)
    let told = ''
    try {
      const capture = isReference ? undefined : bed.startCapture(choice)
      capture?.stderr!.setEncoding('utf8').on('data', (text: string) => (told += text))
      for (let tries = 0; capture !== undefined && !told.includes('capturing'); tries++) {
        if (tries > STARTING_LOOKS_MAX) throw new Error(`capture: ${told}`)
        await sleep(20)
      }
      report.add(row, peer, 'Gbit/s', await bed.tcp(scale.seconds))
      if (capture !== undefined) {
        const exited = new Promise((resolve) => capture.once('close', resolve))
        capture.kill('SIGINT')
        await exited
      }
    } finally {
      told += await bed.close()
    }
    const [, captured, dropped] = /(\d+) frames captured, (\d+) dropped/.exec(told)!.map(Number)
    report.add(row, peer, 'dropped %', (100 * dropped) / Math.max(1, captured + dropped))
    report.add(row, peer, 'MB written', statSync(file).size / 1e6)
    rmSync(file, { force: true })
  })
}

/** Median of the ratios round by round, to the reference of the same round. */
function ratioToReference(figure: Figure, figures: readonly Figure[]): number | undefined {
  // capture-128-off is measured by the row capture-128, segment and coalesce by offloads.
  const name = ROWS[figure.row.replace(/-off$/, '')]?.peers.at(-1)
  const reference = figures.find(
    (other) => other.row === figure.row && other.unit === figure.unit && other.peer === name,
  )
  if (reference === undefined || reference === figure || !/bit|pps|CPU|rtt/.test(figure.unit))
    return undefined
  return median(figure.values.map((value, round) => value / reference.values[round]))
}

function print(figures: readonly Figure[]): void {
  const table = new Table({
    head: ['row', 'peer', 'median', 'min', 'max', 'unit', 'x reference'],
    style: { head: [] },
  })
  for (const figure of figures) {
    const all = sorted(figure.values)
    const ratio = ratioToReference(figure, figures)
    table.push([
      figure.row,
      figure.peer,
      median(all).toFixed(3),
      all[0].toFixed(3),
      all.at(-1)!.toFixed(3),
      figure.unit,
      ratio === undefined ? '' : ratio.toFixed(2),
    ])
  }
  process.stdout.write(`${table.toString()}\n`)
}

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string' },
    peers: { type: 'string' },
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
  },
})

function choose(list: string | undefined, known: readonly string[], what: string): string[] {
  if (list === undefined) return [...known]
  const chosen = list.split(',')
  const unknown = chosen.find((name) => !known.includes(name))
  if (unknown === undefined) return chosen
  process.stderr.write(`framepump: no ${what} "${unknown}" (known are ${known.join(', ')})\n`)
  process.exit(2)
}

const rows = choose(options.rows, Object.keys(ROWS), 'row')
const peersOfRows = [...new Set(rows.flatMap((row) => ROWS[row].peers))]
const which = options.rows === undefined ? 'peer' : `peer of ${rows.join(', ')} is called`
const chosenPeers = choose(options.peers, peersOfRows, which)
const scale = options.check ? CHECK : options.quick ? QUICK : FULL
const report = new Report()

function runRow(row: Row): Promise<void> {
  const chosen = row.peers.filter((peer) => chosenPeers.includes(peer))
  // What is ours comes first, what it is compared with last.
  const isMain = (peer: string): boolean => peer === chosen[0] || peer === chosen.at(-1)
  return row.run(scale, options.check ? chosen.filter(isMain) : chosen, report)
}

// Whoever reads may go.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)
compile()
for (const row of rows) {
  process.stderr.write(`${row} ...\n`)
  await runRow(ROWS[row])
}
print(report.figures)
if (options.json !== undefined) {
  const commit = spawnSync('git', ['-C', ROOT, 'rev-parse', 'HEAD'], {
    encoding: 'utf8',
  }).stdout.trim()
  const machine = {
    commit,
    node: process.version,
    cpu: cpus()[0]?.model,
    kernel: release(),
    date: new Date().toISOString(),
  }
  const figures = report.figures.map((figure) => ({
    ...figure,
    median: median(figure.values),
    ratio: ratioToReference(figure, report.figures),
  }))
  writeFileSync(options.json, `${JSON.stringify({ machine, figures }, null, 2)}\n`)
}
