/**
 * Starting a daemon's successor in its place, by somebody else than the daemon: with its directory, log and
 * cgroup as far as they can be had, and its user.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { IMPLIED_USER } from '../config/privileges.ts'
import { Successor } from '../daemon/successor.ts'
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
  /** An older daemon says nothing: descriptors pass. */
  readonly backendTransfer?: boolean
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

/** Of systemd, for a service. */
const UNIT = /\.service(\/|$)/

/** By their names in /proc: what they are, and the option of nsenter(1) that enters one. */
const NAMESPACES = {
  net: ['network namespace', '--net'],
  mnt: ['mounts', '--mount'],
  cgroup: ['view of cgroups', '--cgroup'],
} as const

/** Throws FramepumpError HAND_OVER when it could not be what the daemon is. */
export function startSuccessor(start: Start): Started {
  const { program, pid, environment } = start
  const lacks = ['session', 'environment', 'limits']
  const streams = streamsOf(pid, [1, 2])
  if (streams.length === 0) lacks.push('log')
  const others = Object.entries(NAMESPACES).filter(
    ([name]) => namespaceOf(pid, name) !== namespaceOf('self', name),
  )
  const entering = enter(
    pid,
    others.map(([, [, option]]) => option),
  )
  if (entering.length === 0) lacks.push(...others.map(([, [what]]) => what))
  const place = {
    stdio: ['ignore', streams[0] ?? 'ignore', streams[1] ?? 'ignore'],
    detached: true,
    cwd: directoryOf(pid),
  } as const
  const { arguments: args, environment: env } = identityOf(start)
  const [first, ...rest] = [...entering, program, ...args]
  const successor = new Successor({ program: first, arguments: rest, environment: env }, place)
  for (const stream of streams) shim.close(stream)
  const isService = environment['NOTIFY_SOCKET'] !== undefined
  if (!joinCgroup(pid, successor.pid)) {
    lacks.push('cgroup')
    if (isService && UNIT.test(cgroupOf(pid) ?? '')) {
      successor.end()
      throw outsideService()
    }
  }
  // Of a service the manager is; it is told nothing of the end of somebody else's child.
  if (isService && parentOf(pid) !== parentOf(successor.pid)) lacks.push('parent')
  const { ended } = successor
  return {
    ended,
    lacks,
    leave: () => successor.leave(),
    end: () => successor.end(),
  }
}

/** systemd would not believe that it is the service, which ended with the daemon: with its directory and sockets. */
function outsideService(): FramepumpError {
  return new FramepumpError(
    'HAND_OVER',
    "the successor cannot be brought into the service's cgroup, and systemd would end the service",
    {
      hint: "do it as root, or by the daemon's manager: systemd-run --user --pipe --wait framepump upgrade",
    },
  )
}

/**
 * The beginning of a command that is run in these namespaces of a process, and in its directory; empty: there
 * are none, or nsenter is missing or not allowed to. A service of systemd's sees its directories, and files at
 * all, as its unit says; with DynamicUser= nobody but root finds the way to its state otherwise.
 */
function enter(pid: number, options: readonly string[]): readonly string[] {
  if (options.length === 0) return []
  const command = ['--target', String(pid), ...options, '--wd', '--']
  return spawnSync('nsenter', [...command, 'true']).status === 0 ? ['nsenter', ...command] : []
}

/** As the daemon's user, when it is another one, and with the capabilities that it would have kept as that. */
function identityOf({ arguments: args, environment, uid, gid }: Start): {
  arguments: readonly string[]
  environment: Readonly<Record<string, string>>
} {
  const isNamed = args.some((arg) => arg === '--user' || arg.startsWith('--user='))
  if (uid === process.geteuid?.() || isNamed) return { arguments: args, environment }
  return {
    arguments: [...args, '--user', `${uid}:${gid}`],
    environment: { ...environment, [IMPLIED_USER]: '1' },
  }
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

function parentOf(pid: number | undefined): string | undefined {
  try {
    return /^PPid:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
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
