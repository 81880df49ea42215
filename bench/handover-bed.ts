/**
 * A framepump that is replaced by another one, again and again, while frames pass:
 *
 *     ns A  x0..x3 --TAPs-- [framepump -> framepump -> ...] --TAPs-- x0..x3  ns B [generator, CPU 1]
 *                                      | vhost-user
 *                            guests of load.ts, which are quiet
 */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LoadOptions } from './load.ts'
import type { TapPeer } from './topology.ts'
import { addNetns, BIN, CLI, end, reach, ROOT, sh, sleep } from './topology.ts'

const LOAD: string = fileURLToPath(new URL('./load.js', import.meta.url))
const SHIM: string = join(ROOT, 'native-shim/build/Release/framepump.node')
const TAPS_PER_SIDE = 4
const QUEUES = 4
const GUESTS = 4
/** Behind each guest. */
const ADDRESSES = 250
const FRAMES_PER_SECOND = 100_000
const PATIENCE_MS = 60_000

export interface HandOvers {
  /** From the last frame that one reads to the first of the next, in microseconds. */
  readonly pausesUs: readonly number[]
  /** Frames that the kernel gave to one TAP and that never came out of the other. */
  readonly lost: number
  /** Frames for which the kernel had no room while they waited. */
  readonly dropped: number
}

export class HandOverBed {
  readonly #netns: readonly [string, string] = [`fpb${process.pid}a`, `fpb${process.pid}b`]
  readonly #directory = `/tmp/framepump-bench-${process.pid}-handover`
  readonly #control: string = join(this.#directory, 'control.sock')
  #pid = 0
  #guests: ChildProcess | undefined

  /** Replaces a framepump that many times. */
  static async measure(io: TapPeer, times: number): Promise<HandOvers> {
    const bed = new HandOverBed()
    try {
      await bed.#start(io)
      return await bed.#run(times)
    } finally {
      await bed.#close()
    }
  }

  async #start(io: TapPeer): Promise<void> {
    mkdirSync(this.#directory, { recursive: true })
    const taps = this.#netns.flatMap((netns, side) => {
      addNetns(netns)
      return Array.from(
        { length: TAPS_PER_SIDE },
        (_, k) => `tap,id=p${side}${k},ifname=x${k},netns=${netns},queues=${QUEUES},up=on`,
      )
    })
    const paths = Array.from({ length: GUESTS }, (_, k) => join(this.#directory, `g${k}`))
    const ports = [...taps, ...paths.map((path, k) => `vhost-user,id=g${k},path=${path}`)]
    const command = [CLI, 'run', '--io', io, '--control', this.#control, '--privileges', 'off']
    const specs = ports.flatMap((spec) => ['--port', spec])
    this.#pid = spawn(process.execPath, [...command, ...specs], { stdio: 'ignore' }).pid!
    sh(process.execPath, CLI, 'wait', '--timeout', '60', '--control', this.#control)
    // A long pause is a result, and no failure.
    const limit = ['migrate-set-parameters', 'downtime-limit=10000']
    sh(process.execPath, CLI, 'ctl', ...limit, '--control', this.#control)
    for (const [side, netns] of this.#netns.entries()) {
      sh('ip', '-n', netns, 'addr', 'add', `10.0.0.${side + 1}/24`, 'dev', 'x0')
    }
    const options: LoadOptions = {
      paths,
      addresses: ADDRESSES,
      ringSize: 256,
      pid: this.#pid,
      slices: 0,
      isQuiet: true,
    }
    const env = { ...process.env, FRAMEPUMP_SHIM: SHIM }
    const stdio = ['pipe', 'ignore', 'inherit'] as const
    this.#guests = spawn(process.execPath, [LOAD, JSON.stringify(options)], {
      env,
      stdio: [...stdio],
    })
    await this.#until(() => this.#ctl('query-mac-table').length >= GUESTS * ADDRESSES)
    reach(this.#netns[0], '10.0.0.2')
  }

  async #run(times: number): Promise<HandOvers> {
    const mac = this.#exec(0, 'cat', '/sys/class/net/x0/address').trim()
    const load = [join(BIN, 'generator'), 'x0', '60', '1000000', mac, String(FRAMES_PER_SECOND)]
    const netns = ['netns', 'exec', this.#netns[1], 'taskset', '-c', '1']
    const before = this.#passed()
    const generator = spawn('ip', [...netns, ...load], { stdio: 'ignore' })
    const pausesUs: number[] = []
    try {
      await sleep(500)
      for (let time = 0; time < times; time++) pausesUs.push(this.#upgrade())
    } finally {
      await end(generator, () => generator.kill('SIGTERM'))
    }
    // What waits in queues comes.
    let now = this.#passed()
    await this.#until(() => {
      const last = now
      now = this.#passed()
      return now.received === last.received
    })
    const lost = now.sent - before.sent - (now.received - before.received)
    return { pausesUs, lost, dropped: now.dropped - before.dropped }
  }

  #upgrade(): number {
    const told = sh(process.execPath, CLI, 'upgrade', '--json', '--control', this.#control)
    const { pid, 'pause-us': pauseUs } = JSON.parse(told) as { pid: number; 'pause-us': number }
    this.#pid = pid
    return pauseUs
  }

  #passed(): { sent: number; dropped: number; received: number } {
    const read = (side: 0 | 1, name: string): number =>
      Number(this.#exec(side, 'cat', `/sys/class/net/x0/statistics/${name}`))
    const sent = read(1, 'tx_packets')
    return { sent, dropped: read(1, 'tx_dropped'), received: read(0, 'rx_packets') }
  }

  #exec(side: 0 | 1, ...command: string[]): string {
    return sh('ip', 'netns', 'exec', this.#netns[side], ...command)
  }

  #ctl(command: string): unknown[] {
    return JSON.parse(
      sh(process.execPath, CLI, 'ctl', command, '--control', this.#control),
    ) as unknown[]
  }

  async #until(condition: () => boolean): Promise<void> {
    const late = performance.now() + PATIENCE_MS
    while (!condition()) {
      if (performance.now() > late) throw new Error('the bed of the hand-over is not ready')
      await sleep(200)
    }
  }

  async #close(): Promise<void> {
    const guests = this.#guests
    if (guests !== undefined) await end(guests, () => guests.kill('SIGTERM'))
    if (this.#pid > 0) {
      process.kill(this.#pid, 'SIGTERM')
      await this.#until(() => spawnSync('kill', ['-0', String(this.#pid)]).status !== 0)
    }
    for (const name of this.#netns) spawnSync('ip', ['netns', 'del', name])
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
