/**
 * Starting a daemon's successor in its place, by somebody else than the daemon: with its directory, log and
 * cgroup as far as they can be had, and its user.
 */
import { spawn } from 'node:child_process'
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { FramepumpError } from '../errors.ts'
import { shim } from '../native/shim.ts'

/** What a daemon that may start nothing says of it. */
export interface Start {
  readonly program: string
  readonly arguments: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  /** Where the successor listens. */
  readonly path: string
  readonly exclude: readonly string[]
  /** Of the daemon. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

export interface Started {
  /** Aborted, with the reason, when it ends. */
  readonly ended: AbortSignal
  /** What of the daemon's it does not have. */
  readonly lacks: readonly string[]
  /** Nobody waits for it any more. */
  leave(): void
  end(): void
}

const NAMESPACES = { net: 'network namespace', mnt: 'mounts', cgroup: 'view of cgroups' } as const

export function startSuccessor(start: Start): Started {
  const { program, pid, environment } = start
  const lacks = ['session', 'environment', 'limits']
  const streams = streamsOf(pid, [1, 2])
  if (streams.length === 0) lacks.push('log')
  for (const [name, what] of Object.entries(NAMESPACES)) {
    if (namespaceOf(pid, name) !== namespaceOf('self', name)) lacks.push(what)
  }
  const child = spawn(program, argumentsOf(start), {
    stdio: ['ignore', streams[0] ?? 'ignore', streams[1] ?? 'ignore'],
    detached: true,
    cwd: directoryOf(pid),
    env: { ...process.env, ...environment },
  })
  for (const stream of streams) shim.close(stream)
  const over = new AbortController()
  const end = (what: string): void =>
    over.abort(
      new FramepumpError('HAND_OVER', `the successor ${what}`, { hint: 'its log says why' }),
    )
  child.once('error', ({ message }) => end(`cannot be started: ${message}`))
  child.once('exit', (code, signal) => end(`has ended (${signal ?? `exit ${code}`})`))
  if (!joinCgroup(pid, child.pid)) lacks.push('cgroup')
  return { ended: over.signal, lacks, leave: () => child.unref(), end: () => void child.kill() }
}

/** As the daemon's user, when it is another one: that one keeps the capabilities that ports need. */
function argumentsOf({ arguments: args, uid, gid }: Start): readonly string[] {
  const isNamed = args.some((arg) => arg === '--user' || arg.startsWith('--user='))
  return uid === process.geteuid?.() || isNamed ? args : [...args, '--user', `${uid}:${gid}`]
}

/** The streams of a process: copies, which the caller closes; empty: they cannot be had. */
function streamsOf(pid: number, fds: readonly number[]): number[] {
  const pidfd = shim.pidfdOpen(pid)
  if (pidfd < 0) return []
  const streams = fds.map((fd) => shim.pidfdGetfd(pidfd, fd))
  shim.close(pidfd)
  const had = streams.filter((fd) => fd >= 0)
  if (had.length === fds.length) return had
  for (const fd of had) shim.close(fd)
  return []
}

function directoryOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch {
    return process.cwd()
  }
}

function namespaceOf(pid: number | 'self', name: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/${name}`)
  } catch {
    return 'unknown'
  }
}

/** The unified hierarchy's, as systemd has it. */
function joinCgroup(of: number, pid: number | undefined): boolean {
  const path = cgroupOf(of)
  if (path === undefined || path === cgroupOf('self')) return true
  try {
    writeFileSync(`/sys/fs/cgroup${path}/cgroup.procs`, String(pid))
    return true
  } catch {
    return false
  }
}

function cgroupOf(pid: number | 'self'): string | undefined {
  try {
    return /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}
