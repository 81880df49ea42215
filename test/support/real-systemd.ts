/**
 * A systemd of the machine's own make as process 1, in namespaces and a cgroup of its own: whatever the
 * machine's process 1 is, it is not concerned. Root is needed, and the cgroup2 file system somewhere.
 *
 *     [ unshare ]--[ systemd ]--[ journald ]
 *                       |-------[ framepump.service, as shipped ]
 *
 * The network is that of a namespace of the lab's, and others can be named by `netns`. All ends with the first
 * process, and the cgroup is removed.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import type { Lab } from './lab.ts'
import { ROOT } from './lab.ts'
import { Background, until, words } from './processes.ts'

const BOOT_MS = 45_000
const SCRIPT = join(ROOT, 'test/support/systemd-root.sh')
/** Commands are not systemd's services, but below its cgroup, as in a session. */
const SHELL = 'shell'
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

let count = 0
/** Those that are not disposed of: a test that timed out never gets there. */
const machines = new Set<RealSystemd>()

afterAll(async () => {
  for (const machine of machines) await machine[Symbol.asyncDispose]()
})

export class RealSystemd implements AsyncDisposable {
  readonly #cgroup: string
  readonly #first: Background
  #pid = 0

  private constructor(lab: Lab, netns: string) {
    this.#cgroup = makeCgroup()
    machines.add(this)
    const root = join(lab.directory, `root-${count++}`)
    mkdirSync(root)
    const enter = `echo $$ >"$0/cgroup.procs" && exec "$@"`
    const outer = ['-c', enter, this.#cgroup, 'nsenter', `--net=/run/netns/${netns}`, 'unshare']
    const namespaces = words('--mount --pid --uts --ipc --cgroup --fork --kill-child')
    const script = ['sh', SCRIPT, root, ROOT, process.execPath]
    this.#first = lab.background('sh', [...outer, ...namespaces, ...script])
  }

  /** One that has booted. */
  static async boot(lab: Lab, netns: string): Promise<RealSystemd> {
    const machine = new RealSystemd(lab, netns)
    try {
      await until('systemd has booted', () => machine.#hasBooted(), BOOT_MS)
    } catch (error) {
      const why = machine.#first.stderr
      await machine[Symbol.asyncDispose]()
      throw new Error(`${(error as Error).message}: ${why}`, { cause: error })
    }
    mkdirSync(join(machine.#cgroup, SHELL))
    return machine
  }

  async #hasBooted(): Promise<boolean> {
    if (!this.#first.isRunning) throw new Error('it has ended')
    const pid = this.#first.child.pid!
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
    if (children === '' || readFileSync(`/proc/${children}/comm`, 'utf8') !== 'systemd\n')
      return false
    this.#pid = Number(children)
    const { stdout } = await this.#enter(['systemctl', 'is-active', 'multi-user.target'])
    return stdout === 'active\n'
  }

  /** Runs a program in it, as root, to its end. */
  async run(...command: string[]): Promise<Ran> {
    const procs = join(this.#cgroup, SHELL, 'cgroup.procs')
    return this.#enter(command, ['sh', '-c', `echo $$ >"$0" && exec "$@"`, procs])
  }

  async #enter(command: readonly string[], before: readonly string[] = []): Promise<Ran> {
    const enter = ['nsenter', '--target', String(this.#pid), '--all', '--wd=/', '--']
    const [program, ...args] = [...before, ...enter, 'env', '-i', PATH, ...command]
    const child = new Background(program, args)
    const code = await child.exited
    return { code, stdout: child.stdout, stderr: child.stderr }
  }

  /** The same; throws what it says, and what all have said before, when it fails. */
  async sh(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...command)
    if (code === 0) return stdout
    const journal = await this.run('journalctl', '--output=cat', '--no-pager', '--lines=60')
    throw new Error(`${command.join(' ')}: ${code} ${stderr}${stdout}\n${journal.stdout}`)
  }

  /** A path in its root, as the machine sees it. */
  path(path: string): string {
    return `/proc/${this.#pid}/root${path}`
  }

  write(path: string, text: string): void {
    writeFileSync(this.path(path), text)
  }

  /** Properties of a unit, as systemctl shows them. */
  async show(unit: string, ...names: string[]): Promise<Record<string, string>> {
    const lines = await this.sh('systemctl', 'show', unit, '--property', names.join(','))
    const pairs = lines.trimEnd().split('\n')
    return Object.fromEntries(
      pairs.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    )
  }

  /** What a unit, and systemd about it, has said. */
  log(unit: string): Promise<string> {
    return this.sh('journalctl', '--unit', unit, '--output=cat', '--no-pager', '--quiet')
  }

  /** The machine's number of a process that it knows by another. */
  outside(pid: number): number {
    const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    const mine = readNamespace(String(this.#pid))
    const found = all.find((name) => {
      try {
        if (readNamespace(name) !== mine) return false
        const numbers = /^NSpid:\t(.*)$/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))![1]
        return Number(numbers.split('\t').at(-1)) === pid
      } catch {
        return false
      }
    })
    if (found === undefined) throw new Error(`no process ${pid}`)
    return Number(found)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!machines.delete(this)) return
    await this.#first.stop('SIGKILL')
    await removeCgroup(this.#cgroup)
  }
}

const readNamespace = (pid: string): string => readlinkSync(`/proc/${pid}/ns/pid`)

/** Below that of this process, where a systemd that is process 1 already leaves us alone. */
function makeCgroup(): string {
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
  const found = mounts.map((line) => line.split(' ')).find(([, , type]) => type === 'cgroup2')
  if (found === undefined) throw new Error('no cgroup2 file system is mounted')
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))![1]
  const path = join(found[1], own, `framepump-test-${process.pid}-${count}`)
  mkdirSync(path)
  return path
}

/** With all that is in it. */
async function removeCgroup(path: string): Promise<void> {
  if (!existsSync(path)) return
  writeFileSync(join(path, 'cgroup.kill'), '1')
  const isEmpty = (): boolean =>
    readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 0')
  await until('nobody is left in the cgroup', isEmpty)
  removeTree(path)
}

function removeTree(path: string): void {
  const entries = readdirSync(path, { withFileTypes: true })
  for (const entry of entries) if (entry.isDirectory()) removeTree(join(path, entry.name))
  rmdirSync(path)
}
