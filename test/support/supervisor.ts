/**
 * What a service manager is to a daemon that is killed: it starts the next one at once. It has a store of
 * descriptors, as systemd has with FileDescriptorStoreMax=, and passes on what is in it.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { shim } from '../../src/native/shim.ts'
import { CLI, IO } from './lab.ts'
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'
import { until } from './processes.ts'
import { isAlive } from './upgrades.ts'

const SOCK_DGRAM = 2
const MESSAGE_LENGTH_MAX = 4096
const LOOK_MS = 5
/** `sh` becomes the daemon: only then is it known which process the descriptors are for. */
const START = 'LISTEN_PID=$$ exec "$@"'

const isSocket = (name: string): boolean => name.startsWith('socket-')

export interface Told {
  readonly pid: number
  readonly fields: Readonly<Record<string, string>>
  readonly fds: number
}

export class Supervisor implements AsyncDisposable {
  readonly control: string
  /** Messages that concern what the store has of ports' devices. */
  readonly told: Omit<Told, 'pid'>[] = []
  /** By name; ours. Listening sockets have names by their files. */
  readonly store: Map<string, number[]> = new Map()
  /** Of the daemon that is the service. */
  pid = 0
  /** Each daemon that it started. */
  readonly started: Background[] = []
  readonly #lab: Lab
  readonly #args: readonly string[]
  readonly #address: string
  readonly #fd: number
  readonly #timer: NodeJS.Timeout
  #isReady = false
  #isEnding = false
  #isHeldUp = false

  private constructor(lab: Lab, hasStore: boolean, args: readonly string[]) {
    this.#lab = lab
    this.control = lab.controlPath()
    this.#args = args
    this.#address = hasStore ? join(lab.directory, 'notify') : ''
    this.#fd = shim.socketUnix(SOCK_DGRAM)
    if (hasStore) shim.bindUnix(this.#fd, this.#address)
    this.#timer = setInterval(() => this.#look(), LOOK_MS)
  }

  static async start(lab: Lab, hasStore: boolean, ...args: string[]): Promise<Supervisor> {
    const supervisor = new Supervisor(lab, hasStore, args)
    supervisor.#startDaemon()
    await supervisor.ready()
    return supervisor
  }

  /** How many descriptors there are of each name, but for sockets. */
  get devices(): Record<string, number> {
    const entries = [...this.store].filter(([name]) => !isSocket(name))
    return Object.fromEntries(entries.map(([name, fds]) => [name, fds.length]))
  }

  /** Names of listening sockets. */
  get sockets(): string[] {
    return [...this.store.keys()].filter(isSocket).toSorted()
  }

  get log(): string {
    return this.started.map(({ stderr }) => stderr).join('')
  }

  /** What the next one is given on top; ours. */
  put(name: string, fd: number): void {
    this.store.set(name, [...(this.store.get(name) ?? []), fd])
  }

  #startDaemon(): void {
    const entries = [...this.store].flatMap(([name, fds]) => fds.map((fd) => [name, fd] as const))
    const env = {
      ...(this.#address === '' ? {} : { NOTIFY_SOCKET: this.#address }),
      ...(entries.length === 0
        ? {}
        : {
            LISTEN_FDS: String(entries.length),
            LISTEN_FDNAMES: entries.map(([name]) => name).join(':'),
          }),
    }
    const command = [process.execPath, CLI, 'run', '--io', IO, '--control', this.control]
    const args = ['-c', START, 'sh', ...command, ...this.#args]
    const fds = entries.map(([, fd]) => fd)
    const child = this.#lab.background('sh', args, env, fds)
    this.started.push(child)
    this.pid = child.child.pid!
    this.#isReady = false
  }

  #look(): void {
    this.#hear()
    const mayStart = this.started.length > 0 && !this.#isEnding && !this.#isHeldUp
    if (!mayStart || isAlive(this.pid)) return
    // What it said last is heard before.
    this.#hear()
    this.#startDaemon()
  }

  #hear(): void {
    const bytes = new Uint8Array(MESSAGE_LENGTH_MAX)
    const [fds, info] = [new Int32Array(253), new Int32Array(2)]
    for (;;) {
      const length = this.#address === '' ? -1 : shim.recvMsg(this.#fd, bytes, fds, info, 0)
      if (length <= 0) return
      const text = Buffer.from(bytes.subarray(0, length)).toString()
      const fields = Object.fromEntries(
        text
          .split('\n')
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      )
      this.#heard(fields, [...fds.subarray(0, info[0])])
    }
  }

  #heard(fields: Readonly<Record<string, string>>, fds: number[]): void {
    const { FDSTORE, FDSTOREREMOVE, FDNAME, MAINPID, READY } = fields
    if (FDSTORE !== undefined || FDSTOREREMOVE !== undefined) {
      if (!isSocket(FDNAME)) this.told.push({ fields, fds: fds.length })
    }
    if (FDSTOREREMOVE === '1') this.#drop(FDNAME)
    if (FDSTORE === '1') for (const fd of fds) this.put(FDNAME, fd)
    if (MAINPID !== undefined) this.pid = Number(MAINPID)
    if (READY === '1') this.#isReady = true
  }

  #drop(name: string): void {
    for (const fd of this.store.get(name) ?? []) shim.close(fd)
    this.store.delete(name)
  }

  /** The daemon that was started last is. */
  async ready(): Promise<void> {
    await this.#lab.ready(this.started.at(-1)!)
    if (this.#address !== '') await until('it has told so', () => this.#isReady)
  }

  /** Kills it; resolves with the milliseconds until the next one is ready. `meanwhile`: there is none. */
  async kill(meanwhile?: () => unknown): Promise<number> {
    const { length } = this.started
    const start = performance.now()
    this.#isHeldUp = meanwhile !== undefined
    process.kill(this.pid, 'SIGKILL')
    if (meanwhile !== undefined) {
      await until('it has ended', () => !isAlive(this.pid))
      await meanwhile()
      this.#isHeldUp = false
    }
    await until('the next one is started', () => this.started.length > length)
    await this.ready()
    return performance.now() - start
  }

  /** Ends it as a service is stopped; resolves with its exit code, if it is our child. */
  async stop(): Promise<number> {
    this.#isEnding = true
    const child = this.started.at(-1)!
    if (isAlive(this.pid)) process.kill(this.pid, 'SIGTERM')
    await until('it has ended', () => !isAlive(this.pid))
    const code = await child.exited
    this.#hear()
    return code
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    clearInterval(this.#timer)
    for (const name of this.store.keys()) this.#drop(name)
    shim.close(this.#fd)
    if (this.#address !== '') rmSync(this.#address, { force: true })
  }
}
