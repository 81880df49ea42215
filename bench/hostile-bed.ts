/**
 * A framepump whose neighbours are hostile (hostile.ts): what is measured is the round trip of a pair
 * of guests that want nothing else.
 *
 *     [framepump, CPU 0]  h0 ... --vhost-user-- hostile guests  [hostile.js, CPU 1]
 *                         p0, p1 --vhost-user-- the pair
 */
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startFramepump } from './guests.ts'
import type { HostileOptions, HostileResult } from './hostile.ts'
import { end, ROOT } from './topology.ts'

const HOSTILE: string = fileURLToPath(new URL('./hostile.js', import.meta.url))
const SHIM: string = join(ROOT, 'native-shim/build/Release/framepump.node')

export interface HostileChoice extends Pick<HostileOptions, 'attack' | 'queues'> {
  /** Hostile guests. */
  readonly guests: number
}

/** Median and 99th percentile of the pair's round trip, in milliseconds. */
export interface RoundTrip {
  readonly median: number
  readonly p99: number
  /** Chains of the hostile guests that were used, per second. */
  readonly chains: number
}

export async function measureHostile(choice: HostileChoice, seconds: number): Promise<RoundTrip> {
  const { attack, guests, queues } = choice
  const directory = `/tmp/framepump-bench-${process.pid}-hostile`
  mkdirSync(directory, { recursive: true })
  const hostile = Array.from({ length: guests }, (_, k) => join(directory, `h${k}`))
  const pair = [join(directory, 'p0'), join(directory, 'p1')] as const
  const control = join(directory, 'control.sock')
  // The pair is a link: what floods would do to its rings is another question.
  const paths = [...pair, ...hostile]
  const framepump = await startFramepump(paths, control, `queues=${queues}`, ['--link', 'g0,g1'])
  try {
    const { roundTripsUs, chains } = await run({ attack, hostile, queues, pair, seconds })
    const at = (part: number): number =>
      roundTripsUs[Math.min(roundTripsUs.length - 1, Math.floor(roundTripsUs.length * part))] / 1000
    return { median: at(0.5), p99: at(0.99), chains: chains / seconds }
  } finally {
    await end(framepump, () => framepump.kill('SIGTERM'))
    rmSync(directory, { recursive: true, force: true })
  }
}

async function run(options: HostileOptions): Promise<HostileResult> {
  const command = ['-c', '1', process.execPath, HOSTILE, JSON.stringify(options)]
  const env = { ...process.env, FRAMEPUMP_SHIM: SHIM }
  const child = spawn('taskset', command, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let told = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (told += text))
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`hostile.js ended with ${String(code)}`)
  return JSON.parse(told) as HostileResult
}
