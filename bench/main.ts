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
import type { Peer } from './topology.ts'
import { Bed, compile, PEERS, ROOT, sleep } from './topology.ts'

interface Figure {
  readonly row: string
  readonly peer: string
  readonly unit: string
  readonly values: number[]
}

interface Scale {
  readonly rounds: number
  readonly seconds: number
  /** Seconds of the memory row before and after its first reading. */
  readonly memorySeconds: readonly [number, number]
  readonly idleSeconds: number
}

const FULL: Scale = { rounds: 5, seconds: 3, memorySeconds: [2, 40], idleSeconds: 10 }
const QUICK: Scale = { rounds: 2, seconds: 1, memorySeconds: [1, 2], idleSeconds: 3 }

type Row = (scale: Scale, peers: readonly Peer[], report: Report) => Promise<void>

class Report {
  readonly figures: Figure[] = []

  add(row: string, peer: string, unit: string, value: number): void {
    const known = this.figures.find(
      (figure) => figure.row === row && figure.peer === peer && figure.unit === unit,
    )
    if (known === undefined) this.figures.push({ row, peer, unit, values: [value] })
    else known.values.push(value)
  }
}

const ROWS: Readonly<Record<string, Row>> = {
  'tap-60': (scale, peers, report) => frameRow('tap-60', 60, scale, peers, report),
  'tap-1514': (scale, peers, report) => frameRow('tap-1514', 1514, scale, peers, report),
  'tap-tcp': async (scale, peers, report) => {
    await inTurn(scale, peers, async (peer) => {
      await withBed(peer, true, async (bed) => {
        report.add('tap-tcp', peer, 'Gbit/s', await bed.tcp(scale.seconds))
      })
    })
  },
  'capture-128': (scale, peers, report) => captureRow('capture-128', 128, scale, peers, report),
  'capture-full': (scale, peers, report) =>
    captureRow('capture-full', 262144, scale, peers, report),
  idle: async (scale, peers, report) => {
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
  },
  memory: async (scale, peers, report) => {
    for (const peer of peers.filter((name) => name !== 'c-reference')) {
      await withBed(peer, false, async (bed) => {
        bed.frames(60, scale.memorySeconds[0])
        const [frames, resident] = [bed.received(), bed.residentMb()]
        bed.frames(60, scale.memorySeconds[1])
        report.add('memory', peer, 'million frames between', (bed.received() - frames) / 1e6)
        report.add('memory', peer, 'MB grown', bed.residentMb() - resident)
      })
    }
  },
}

async function inTurn(
  scale: Scale,
  peers: readonly Peer[],
  run: (peer: Peer) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < scale.rounds; round++) for (const peer of peers) await run(peer)
}

async function withBed(
  peer: Peer,
  hasVnetHdr: boolean,
  use: (bed: Bed) => Promise<void>,
): Promise<void> {
  const bed = await Bed.make(peer, hasVnetHdr)
  try {
    await use(bed)
  } finally {
    await bed.close()
  }
}

async function frameRow(
  row: string,
  length: number,
  scale: Scale,
  peers: readonly Peer[],
  report: Report,
): Promise<void> {
  await inTurn(scale, peers, (peer) =>
    withBed(peer, false, async (bed) => {
      const { mpps, cpuNs } = bed.frames(length, scale.seconds)
      report.add(row, peer, 'Mpps', mpps)
      report.add(row, peer, 'ns CPU/frame', cpuNs)
    }),
  )
}

/** TCP without and with a capture of everything, alternating; and what the capture lost. */
async function captureRow(
  row: string,
  snapLength: number,
  scale: Scale,
  peers: readonly Peer[],
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
        if (tries > 500) throw new Error(`capture: ${told}`)
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

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)
const median = (values: readonly number[]): number => {
  const all = sorted(values)
  const middle = all.length >> 1
  return all.length % 2 === 1 ? all[middle] : (all[middle - 1] + all[middle]) / 2
}

/** Median of the ratios round by round, to the reference of the same round. */
function ratioToReference(figure: Figure, figures: readonly Figure[]): number | undefined {
  const reference = figures.find(
    (other) =>
      other.row === figure.row && other.unit === figure.unit && other.peer === 'c-reference',
  )
  if (reference === undefined || reference === figure || !/bit|pps|ns/.test(figure.unit))
    return undefined
  return median(figure.values.map((value, round) => value / reference.values[round]))
}

function print(figures: readonly Figure[]): void {
  const table = new Table({
    head: ['row', 'peer', 'median', 'min', 'max', 'unit', 'x c-reference'],
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
  },
})

function choose<T extends string>(
  list: string | undefined,
  known: readonly T[],
  what: string,
): readonly T[] {
  if (list === undefined) return known
  const chosen = list.split(',') as T[]
  const unknown = chosen.find((name) => !known.includes(name))
  if (unknown === undefined) return chosen
  process.stderr.write(`framepump: no ${what} "${unknown}" (known are ${known.join(', ')})\n`)
  process.exit(2)
}

const rows = choose(options.rows, Object.keys(ROWS), 'row')
const peers = choose(options.peers, PEERS, 'peer')
const scale = options.quick ? QUICK : FULL
const report = new Report()
compile()
for (const row of rows) {
  process.stderr.write(`${row} ...\n`)
  await ROWS[row](scale, peers, report)
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
