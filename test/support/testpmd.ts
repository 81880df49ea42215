/**
 * dpdk-testpmd as a vhost-user front-end: virtio-user devices on the given sockets, driven by its own
 * command line. It needs huge pages, which the test borrows.
 */
import { availableParallelism } from 'node:os'
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'
import { until, words } from './processes.ts'

const PROMPT = 'testpmd> '
/** Memory of one testpmd, in MiB; pages are of 2 MiB. */
const MEMORY_MB = 256
const START_MS = 60_000
const COMMAND_MS = 60_000

let count = 0

/** Huge pages of one testpmd, with some to spare: it rounds up. */
export const TESTPMD_PAGES = MEMORY_MB / 2 + 16

export interface TestpmdOptions {
  /** Arguments of each device after `mac`: `path=/run/p0.sock,queues=2,mrg_rxbuf=1`. */
  readonly devices: readonly string[]
  /** Queues that testpmd uses of each; 1. */
  readonly queues?: number
  /** More arguments of EAL: `--force-max-simd-bitwidth=512`. */
  readonly eal?: readonly string[]
  /** More arguments of testpmd itself: `--enable-lro`. */
  readonly args?: readonly string[]
  /** Of its scheduling: it polls, and is to leave the processor to whoever has work; 0. */
  readonly niceness?: number
}

/** Counters of one port. */
export interface PortStats {
  readonly rxPackets: number
  readonly rxMissed: number
  readonly rxErrors: number
  readonly txPackets: number
  readonly txErrors: number
}

export class Testpmd {
  readonly process: Background

  constructor(process: Background) {
    this.process = process
  }

  /** Gives testpmd a command line; resolves with what it printed when it prompts again. */
  async command(line: string, timeoutMs = COMMAND_MS): Promise<string> {
    const start = this.process.stdout.length
    this.process.child.stdin!.write(`${line}\n`)
    return this.#prompted(start, line, timeoutMs)
  }

  async started(): Promise<void> {
    await this.#prompted(0, 'start', START_MS)
  }

  async stats(port: number): Promise<PortStats> {
    const text = await this.command(`show port stats ${port}`)
    const field = (name: string): number => {
      const match = new RegExp(`${name}: *(\\d+)`).exec(text)
      if (match === null) throw new Error(`testpmd tells no ${name}: ${text}`)
      return Number(match[1])
    }
    return {
      rxPackets: field('RX-packets'),
      rxMissed: field('RX-missed'),
      rxErrors: field('RX-errors'),
      txPackets: field('TX-packets'),
      txErrors: field('TX-errors'),
    }
  }

  /** Ends it as a user would. */
  async quit(): Promise<void> {
    this.process.child.stdin!.write('quit\n')
    await this.process.exited
  }

  async kill(): Promise<void> {
    await this.process.stop('SIGKILL')
  }

  async #prompted(start: number, what: string, timeoutMs: number): Promise<string> {
    const { process } = this
    await until(
      `testpmd is done with: ${what}`,
      () => process.stdout.indexOf(PROMPT, start) >= 0 || !process.isRunning,
      timeoutMs,
    )
    const end = process.stdout.indexOf(PROMPT, start)
    if (end < 0) {
      const output = `${process.stdout.slice(start)}\n${process.stderr}`
      throw new Error(`testpmd ended at ${what}: ${output.slice(-4000)}`)
    }
    return process.stdout.slice(start, end)
  }
}

/** Starts testpmd; resolves at its first prompt, when its ports are up. */
export async function startTestpmd(lab: Lab, options: TestpmdOptions): Promise<Testpmd> {
  const queues = String(options.queues ?? 1)
  const devices = options.devices.map(
    (device, k) => `--vdev=net_virtio_user${k},mac=${testpmdMac(k)},${device}`,
  )
  // One thread for the command line and one for the ports, on whichever CPU is idle.
  const cores = `(0,1)@(0-${availableParallelism() - 1})`
  const testpmd = new Testpmd(
    // Also when this process is killed no testpmd stays. Unbuffered: its tables are printed, its prompt is written.
    lab.background('setpriv', [
      ...words(`--pdeathsig KILL nice -n ${options.niceness ?? 0} stdbuf -o0 dpdk-testpmd`),
      ...words(`--lcores ${cores} --no-pci --in-memory --single-file-segments -m ${MEMORY_MB}`),
      `--file-prefix=framepump-${process.pid}-${count++}`,
      ...devices,
      ...(options.eal ?? []),
      ...words('-- -i --nb-cores=1 --txd=1024 --rxd=1024 --total-num-mbufs=16384'),
      ...words(`--rxq=${queues} --txq=${queues}`),
      ...(options.args ?? []),
    ]),
  )
  await testpmd.started()
  return testpmd
}

/** The address of testpmd's k-th port. */
export function testpmdMac(k: number): string {
  return `00:01:02:03:04:${(5 + k).toString(16).padStart(2, '0')}`
}
