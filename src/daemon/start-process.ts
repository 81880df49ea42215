/** Starting a process that is to outlive this one: as a child, or as process 1's from its beginning. */
import { spawn, spawnSync } from 'node:child_process'
import { POLLIN } from '../abi/epoll.ts'
import { shim } from '../native/shim.ts'

/** The shell ends, and with that its child is nobody's. Its number comes by descriptor 3. */
const ORPHAN = '"$@" <&0 3>&- & echo $! >&3'
const LOOK_MS = 20

/** Where it is started. */
export interface ProcessPlace {
  readonly stdio: readonly ('inherit' | 'ignore' | number)[]
  readonly cwd?: string
  /** In a session of its own. */
  readonly detached?: boolean
}

export interface Start {
  readonly program: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly place: ProcessPlace
  /** Told of its end, with how it was. */
  readonly ended: (what: string) => void
}

export interface Started {
  readonly pid: number | undefined
  /** Nobody waits for it any more. */
  leave(): void
  end(): void
}

export function startChild({ program, args, env, place, ended }: Start): Started {
  const child = spawn(program, args, { ...place, stdio: [...place.stdio], env })
  child.once('error', (error) => ended(`cannot be started: ${error.message}`))
  child.once('exit', (code, signal) => ended(`has ended (${signal ?? `exit ${code}`})`))
  return { pid: child.pid, leave: () => child.unref(), end: () => void child.kill() }
}

/** Undefined: there is no shell. */
export function startOrphan({ program, args, env, place, ended }: Start): Started | undefined {
  const command = ['-c', ORPHAN, 'sh', program, ...args]
  const { output } = spawnSync('/bin/sh', command, {
    ...place,
    stdio: [...place.stdio, 'pipe'],
    env,
    encoding: 'utf8',
  })
  const pid = Number(output?.[3])
  if (!(pid > 1)) return undefined
  // Negative: it has ended.
  const pidfd = shim.pidfdOpen(pid)
  const hasEnded = (): boolean => pidfd < 0 || (shim.poll(pidfd, POLLIN, 0) & POLLIN) !== 0
  const watch = setInterval(() => {
    if (!hasEnded()) return
    leave()
    ended('has ended')
  }, LOOK_MS)
  let isLeft = false
  const leave = (): void => {
    if (isLeft) return
    isLeft = true
    clearInterval(watch)
    if (pidfd >= 0) shim.close(pidfd)
  }
  const end = (): void => {
    if (!isLeft && !hasEnded()) process.kill(pid)
  }
  return { pid, leave, end }
}
