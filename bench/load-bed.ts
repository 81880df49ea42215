/**
 * A framepump with any number of vhost-user ports, and the guests of load.ts on them.
 *
 *     [framepump, CPU 0]  s0 --vhost-user-- guest 0 [load.js, CPU 1]
 *                         s1 --vhost-user-- guest 1
 *                         ...
 */
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startFramepump } from './guests.ts'
import type { LoadOptions, LoadResult } from './load.ts'
import { ROOT, end } from './topology.ts'

const LOAD: string = fileURLToPath(new URL('./load.js', import.meta.url))
const SHIM: string = join(ROOT, 'native-shim/build/Release/framepump.node')
const SLICES_PER_SECOND = 10

export interface LoadChoice extends Pick<LoadOptions, 'addresses' | 'ringSize' | 'vlans'> {
  readonly ports: number
  /** By port: its options. */
  readonly options?: readonly string[]
}

/** Lets the guests send for some seconds. */
export async function measureLoad(choice: LoadChoice, seconds: number): Promise<LoadResult> {
  const { ports, options: portOptions, ...frames } = choice
  const directory = `/tmp/framepump-bench-${process.pid}-load`
  mkdirSync(directory, { recursive: true })
  const paths = Array.from({ length: ports }, (_, k) => join(directory, `s${k}`))
  const framepump = await startFramepump(paths, join(directory, 'control.sock'), portOptions)
  try {
    const pid = framepump.pid!
    const slices = Math.max(1, Math.round(seconds * SLICES_PER_SECOND))
    return await runLoad({ ...frames, paths, pid, slices })
  } finally {
    await end(framepump, () => framepump.kill('SIGTERM'))
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const command = ['-c', '1', process.execPath, LOAD, JSON.stringify(options)]
  const env = { ...process.env, FRAMEPUMP_SHIM: SHIM }
  const child = spawn('taskset', command, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let told = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (told += text))
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`load.js ended with ${String(code)}`)
  return JSON.parse(told) as LoadResult
}
