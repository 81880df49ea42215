/** Daemons that come one after another, each from the one before. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { ControlClient } from '../../src/control/client.ts'
import { shim } from '../../src/native/shim.ts'
import type { Daemon } from './lab.ts'
import { CLI } from './lab.ts'
import { Background, until } from './processes.ts'

/** On a busy machine: it shall not be a test of that. */
const DOWNTIME_LIMIT_MS = 60_000

/** Of the log, in an error. */
const LOG_LENGTH = 4000

export interface Upgraded {
  readonly pid: number
  readonly release: string
  readonly 'pause-us': number
  readonly 'frames-lost': number
  readonly ports: readonly string[]
  readonly 'not-inherited'?: readonly string[]
}

/** Runs the command line to its end. */
export async function cli(
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Background(process.execPath, [CLI, ...args])
  const code = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

/** One command of the daemon at that path. */
export async function execute<T>(control: string, command: string, args: object = {}): Promise<T> {
  const client = await ControlClient.connect(control)
  try {
    return (await client.execute(command, { ...args })) as T
  } finally {
    client.close()
  }
}

/** All but the first are nobody's children. */
export class Line implements AsyncDisposable {
  readonly control: string
  readonly pids: number[]
  /** What all of them have said. */
  readonly first: Background

  constructor({ control, process }: Daemon) {
    this.control = control
    this.first = process
    this.pids = [process.child.pid!]
  }

  get last(): number {
    return this.pids.at(-1)!
  }

  async upgrade(...options: string[]): Promise<Upgraded> {
    await this.execute('migrate-set-parameters', { 'downtime-limit': DOWNTIME_LIMIT_MS })
    const more = options.length === 0 ? [] : ['--', ...options]
    const args = ['upgrade', '--control', this.control, '--json', ...more]
    const { code, stdout, stderr } = await cli(...args)
    if (code !== 0) throw new Error(`${stderr}\n${this.first.stderr.slice(-LOG_LENGTH)}`)
    const upgraded = JSON.parse(stdout) as Upgraded
    this.pids.push(upgraded.pid)
    return upgraded
  }

  execute<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    return execute(this.control, command, args)
  }

  /** Only one of them is left. */
  async areOthersGone(): Promise<void> {
    await until('the others have ended', () => this.pids.filter(isAlive).length === 1)
    if (!isAlive(this.last)) throw new Error('the last one has ended')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.pids) if (isAlive(pid)) process.kill(pid, 'SIGTERM')
    await until('all have ended', () => !this.pids.some(isAlive))
  }
}

/** All that have this control path, whoever has started them. */
export class Daemons implements AsyncDisposable {
  readonly #control: string

  constructor(control: string) {
    this.#control = control
  }

  get pids(): number[] {
    return readdirSync('/proc')
      .filter((pid) => {
        const words = commandLineOf(pid).split('\0')
        return words.includes('run') && words.includes(this.#control)
      })
      .map(Number)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.pids) process.kill(pid, 'SIGTERM')
    await until('all have ended', () => this.pids.length === 0)
  }
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

/** Who listens on a socket; 0: nobody. */
export function listenerOf(path: string): number {
  const fd = shim.socketUnix(1)
  const credentials = new Int32Array(3)
  if (shim.connectUnix(fd, path) === 0) shim.peerCredentials(fd, credentials)
  shim.close(fd)
  return credentials[0]
}

export function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** Descriptors of TAP queues that a process has. */
export function tapQueuesOf(pid: number): number {
  if (!existsSync(`/proc/${pid}/fdinfo`)) return 0
  return readdirSync(`/proc/${pid}/fdinfo`).filter((fd) => {
    try {
      return readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8').includes('iff:')
    } catch {
      // Closed meanwhile.
      return false
    }
  }).length
}
