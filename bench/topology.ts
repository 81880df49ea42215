/**
 * Two namespaces with a TAP each, a switch between them, and what is measured on them. Traffic
 * stays in the namespaces, which go away at the end.
 *
 *     [generator, CPU 1] ns A --x0-- [switch, CPU 0] --x0-- ns B [kernel counts]
 */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout; this file runs from bench/results/js/bench. */
export const ROOT: string = fileURLToPath(new URL('../../../..', import.meta.url))
export const BIN: string = join(ROOT, 'bench/results/bin')
export const CLI: string = join(ROOT, 'dist/cli/main.js')

export type TapPeer = 'io_uring-multishot' | 'read-write' | 'c-reference'
export type MixedPeer = TapPeer | 'ovs'
/** What `--io auto` takes, and the tier that it did not take. */
export type AutoPeer = 'auto' | 'other-tier'
export const TAP_PEERS: readonly TapPeer[] = ['io_uring-multishot', 'read-write', 'c-reference']

export function sh(program: string, ...args: string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8' })
  if (result.status !== 0) {
    throw new Error(`${program} ${args.join(' ')}: ${result.error?.message ?? result.stderr}`)
  }
  return result.stdout
}

/** Looks at a program that starts, 20 ms after each other: on a busy machine it takes its time. */
export const STARTING_LOOKS_MAX = 3000
const REACH_TRIES_MAX = 10

/** Somebody answers, who may have to be asked for his address more than once. */
export function reach(netns: string, address: string): void {
  const ping = ['netns', 'exec', netns, 'ping', '-c', '2', '-i', '0.1', '-w', '4', address]
  for (let tries = 1; spawnSync('ip', ping).status !== 0; tries++) {
    if (tries === REACH_TRIES_MAX) throw new Error(`${address} does not answer in ${netns}`)
  }
}

/** What is compiled for it, by place in the checkout. */
const C_PROGRAMS = [
  'bench/c/tap-reference',
  'bench/c/raw-reference',
  'bench/c/generator',
  'test/support/c/vlan-push',
]

export function compile(): void {
  mkdirSync(BIN, { recursive: true })
  for (const program of C_PROGRAMS) {
    const source = join(ROOT, `${program}.c`)
    sh(
      'cc',
      '-std=gnu11',
      '-O2',
      '-Wall',
      '-Wextra',
      '-Werror',
      '-pthread',
      '-o',
      join(BIN, basename(program)),
      source,
    )
  }
}

/** Between access ports and trunks. */
export const VLAN = 10

/** Largest that the kernel allows a TAP. */
const TAP_MTU_MAX = 65521
/** Nobody's: its frames go to every other port, of which there is one. */
const UNKNOWN_MAC = '02:00:00:00:00:09'

export interface CaptureChoice {
  readonly file: string
  readonly snapLength: number
}

/**
 * Two namespaces with an interface `x0` each, 10.0.0.1 and 10.0.0.2, and what is measured between them.
 * What a switch between them is, and where it is, is up to the subclass.
 */
export abstract class Ends {
  readonly netns: readonly [string, string]

  protected constructor(netns: readonly [string, string]) {
    this.netns = netns
  }

  /** Of the switch. */
  abstract get pid(): number

  exec(side: 0 | 1, ...command: string[]): string {
    return sh('ip', 'netns', 'exec', this.netns[side], ...command)
  }

  /** Gives both interfaces their addresses and waits until the first frames have passed; `trunk` has VLAN 10. */
  protected up(trunk?: 0 | 1): void {
    this.netns.forEach((name, k) => {
      const device = k === trunk ? this.#vlanInterface(name) : 'x0'
      sh('ip', '-n', name, 'addr', 'add', `10.0.0.${k + 1}/24`, 'dev', device)
      sh('ip', '-n', name, 'link', 'set', 'x0', 'up')
      if (device !== 'x0') sh('ip', '-n', name, 'link', 'set', device, 'up')
    })
    reach(this.netns[0], '10.0.0.2')
  }

  /** The interface of VLAN 10, which is x0 itself when this kernel has no others. */
  #vlanInterface(netns: string): string {
    const device = `x0.${VLAN}`
    const add = `-n ${netns} link add link x0 name ${device} type vlan id ${VLAN}`.split(' ')
    if (spawnSync('ip', add).status === 0) return device
    sh('ip', 'netns', 'exec', netns, join(BIN, 'vlan-push'), 'x0', String(VLAN))
    return 'x0'
  }

  /** Frames that reached the far interface. */
  received(): number {
    return Number(this.exec(1, 'cat', '/sys/class/net/x0/statistics/rx_packets'))
  }

  /** Bytes that reached the far interface. */
  receivedBytes(): number {
    return Number(this.exec(1, 'cat', '/sys/class/net/x0/statistics/rx_bytes'))
  }

  protected destination(): string {
    return this.exec(1, 'cat', '/sys/class/net/x0/address').trim()
  }

  /** Seconds of CPU that the switch process has used, all threads. */
  cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1].split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
  }

  /** Round trips of that many pings, one after another, in microseconds; as they came. */
  roundTrips(count: number): number[] {
    const told = this.exec(0, 'ping', '-i', '0.005', '-c', String(count), '-W', '2', '10.0.0.2')
    return [...told.matchAll(/time=([\d.]+) ms/g)].map(([, ms]) => Number(ms) * 1000)
  }

  /** Offers frames of a length for some seconds; what arrived per second, and its price. */
  frames(length: number, seconds: number): { mpps: number; cpuNs: number } {
    const generator = ['taskset', '-c', '1', join(BIN, 'generator'), 'x0', String(length)]
    const mac = this.destination()
    const run = (duration: number): void => {
      this.exec(0, ...generator, String(duration), mac)
    }
    run(0.3)
    const [before, cpuBefore, start] = [this.received(), this.cpuSeconds(), performance.now()]
    run(seconds)
    const elapsed = (performance.now() - start) / 1000
    const count = this.received() - before
    return {
      mpps: count / Math.min(elapsed, seconds + 0.1) / 1e6,
      cpuNs: ((this.cpuSeconds() - cpuBefore) * 1e9) / Math.max(count, 1),
    }
  }
}

/** A running switch of one peer between two namespaces. */
export class Bed extends Ends {
  readonly control: string
  readonly #switch: ChildProcess
  #output = ''
  /** Set when the far port is no TAP. */
  #farMac: string | undefined

  private constructor(netns: readonly [string, string], control: string, child: ChildProcess) {
    super(netns)
    this.control = control
    this.#switch = child
    const collect = (text: string): void => {
      this.#output += text
    }
    child.stdout!.setEncoding('utf8').on('data', collect)
    child.stderr!.setEncoding('utf8').on('data', collect)
  }

  /**
   * `far` is what the second port is: a device in the switch's process counts its frames itself. `trunk` is a
   * trunk then, and the other one an access port.
   */
  static async make(
    peer: TapPeer | 'auto',
    hasVnetHdr: boolean | readonly [boolean, boolean],
    capture?: CaptureChoice,
    far: 'tap' | 'virtio-net' = 'tap',
    trunk?: 0 | 1,
  ): Promise<Bed> {
    const netns = [`fpb${process.pid}a`, `fpb${process.pid}b`] as const
    for (const name of netns) addNetns(name)
    const control = `/tmp/framepump-bench-${process.pid}/control.sock`
    const has = typeof hasVnetHdr === 'boolean' ? [hasVnetHdr, hasVnetHdr] : hasVnetHdr
    const vlan = (k: number): string =>
      trunk === undefined ? '' : `,${k === trunk ? 'trunks' : 'tag'}=${VLAN}`
    const tap = (k: number): string =>
      `tap,id=p${k},ifname=x0,netns=${netns[k]},vnet_hdr=${has[k] ? 'on' : 'off'}${vlan(k)}`
    const farPort = far === 'tap' ? tap(1) : 'virtio-net,id=p1,driver=sink'
    const specs = ['--port', tap(0), '--port', farPort]
    const command =
      peer === 'c-reference'
        ? [
            join(BIN, 'tap-reference'),
            has[0] ? '1' : '0',
            ...netns,
            ...(capture === undefined ? [] : [capture.file, String(capture.snapLength)]),
          ]
        : [process.execPath, CLI, 'run', '--io', peer, '--control', control, ...specs]
    const child = spawn('taskset', ['-c', '0', ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
    const bed = new Bed(netns, control, child)
    await bed.#until(() => bed.#output.includes('ready'))
    if (far === 'virtio-net') {
      sh('ip', '-n', netns[0], 'link', 'set', 'x0', 'mtu', String(TAP_MTU_MAX), 'up')
      bed.#farMac = UNKNOWN_MAC
      return bed
    }
    bed.up(trunk)
    return bed
  }

  async #until(condition: () => boolean): Promise<void> {
    for (let tries = 0; !condition(); tries++) {
      if (tries > STARTING_LOOKS_MAX || this.#switch.exitCode !== null)
        throw new Error(`switch: ${this.#output}`)
      await sleep(20)
    }
  }

  override get pid(): number {
    return this.#switch.pid!
  }

  protected override destination(): string {
    return this.#farMac ?? super.destination()
  }

  /** One CLI command against the daemon, parsed. */
  ctl(...args: string[]): unknown {
    return JSON.parse(
      sh(process.execPath, CLI, 'ctl', ...args, '--control', this.control),
    ) as unknown
  }

  startCapture(choice: CaptureChoice): ChildProcess {
    return spawn(
      process.execPath,
      [
        CLI,
        'capture',
        '--control',
        this.control,
        '-w',
        choice.file,
        '-s',
        String(choice.snapLength),
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
  }

  /** The tier that framepump uses. */
  get tier(): TapPeer {
    const tier = /switch: started io=(\S+)/.exec(this.#output)?.[1] as TapPeer | undefined
    if (tier === undefined) throw new Error(`no tier: ${this.#output}`)
    return tier
  }

  override received(): number {
    if (this.#farMac === undefined) return super.received()
    const [far] = this.ctl('query-port-stats', 'id=p1') as { tx_frames: number }[]
    return far.tx_frames
  }

  residentMb(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024
  }

  /** Sends so many short frames a second to nobody in particular, from the far side, until it is ended. */
  startLoad(perSecond: number): ChildProcess {
    const mac = this.exec(0, 'cat', '/sys/class/net/x0/address').trim()
    const load = [join(BIN, 'generator'), 'x0', '60', '1000000', mac, String(perSecond)]
    const command = ['netns', 'exec', this.netns[1], 'taskset', '-c', '1', ...load]
    return spawn('ip', command, { stdio: 'ignore' })
  }

  /** One TCP stream by iperf3, its first second left out; Gbit/s at the receiver. */
  async tcp(seconds: number): Promise<number> {
    const speed = await tcp(this.netns, seconds)
    if (speed === undefined) throw new Error(`no TCP connection: ${this.#output}`)
    return speed
  }

  /** Ends the switch; returns what it printed. */
  async close(): Promise<string> {
    const exited = new Promise((resolve) => this.#switch.once('close', resolve))
    if (this.#switch.exitCode === null) {
      this.#switch.kill('SIGTERM')
      await exited
    }
    for (const name of this.netns) sh('ip', 'netns', 'del', name)
    rmSync(dirname(this.control), { recursive: true, force: true })
    return this.#output
  }
}

/** A namespace in which nothing talks by itself. */
export function addNetns(name: string): void {
  sh('ip', 'netns', 'add', name)
  const setting = 'net.ipv6.conf.default.disable_ipv6=1'
  sh('ip', 'netns', 'exec', name, 'sysctl', '-qw', setting)
}

/**
 * One TCP stream by iperf3 to 10.0.0.2, its first second left out; Gbit/s at the receiver. Undefined:
 * there is no connection.
 */
export async function tcp(
  [from, to]: readonly [string, string],
  seconds: number,
): Promise<number | undefined> {
  const server = spawn('ip', ['netns', 'exec', to, 'iperf3', '-s', '-1'], { stdio: 'ignore' })
  for (let tries = 0; tries < 200; tries++) {
    if (sh('ip', 'netns', 'exec', to, 'ss', '-Hltn', 'sport = :5201').includes('5201')) break
    await sleep(20)
  }
  const client = ['iperf3', '-c', '10.0.0.2', '-J', '--connect-timeout', '10000']
  const duration = ['-t', String(seconds), '-O', '1']
  const { stdout } = spawnSync('ip', ['netns', 'exec', from, ...client, ...duration], {
    encoding: 'utf8',
  })
  await end(server, () => server.kill('SIGTERM'))
  const result = JSON.parse(stdout) as {
    error?: string
    end: { sum_received?: { bits_per_second: number } }
  }
  if (result.end.sum_received === undefined) return undefined
  return result.end.sum_received.bits_per_second / 1e9
}

/** Waits for the end of a process that is asked to end. */
export async function end(child: ChildProcess, ask: () => unknown): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise((resolve) => child.once('close', resolve))
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000)
  ask()
  await exited
  clearTimeout(late)
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
