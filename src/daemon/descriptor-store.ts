/**
 * Descriptors of ports in the service manager's store: should the daemon be killed, the next one gets them
 * at its start, so that a TAP is never without an owner, and its frames wait.
 *
 *     FDSTORE=1 FDNAME=KIND-ID + descriptors   the port has come: tap-vm1, raw-socket-up; a socket: socket-1b-742
 *     FDSTOREREMOVE=1 FDNAME=KIND-ID           it has gone
 *     LISTEN_FDS=n LISTEN_FDNAMES=a:b:...      at the start: from 3 on, in any order
 *
 * sd_pid_notify_with_fds(3), sd_listen_fds_with_names(3). A hand-over leaves the store as it is: what the
 * successor has are other descriptors of the same files.
 */
import { readlinkSync } from 'node:fs'
import { isFdClaimed } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { DescriptorKeeper, KeptKind } from '../port/keeper.ts'
import { printable } from '../switch/printable.ts'
import type { Log } from '../text.ts'

const FIRST_FD = 3
/** With one message, as the kernel has it (SCM_MAX_FD). */
const FDS_PER_MESSAGE_MAX = 253
const RETRY_MS = 100
/** How often, and for how long, it is looked at whether the process that started this one has ended. */
const PARENT_LOOK_MS = 200
const PARENT_LOOKS_MAX = 300
/** More than any manager passes. */
const LISTEN_FDS_MAX = 65_536

/** A way to the manager. False: its queue is full, and what was to be said is to be said again. */
export type Tell = (message: string, fds: readonly number[]) => boolean

export interface ListenEnvironment {
  readonly LISTEN_PID?: string | undefined
  readonly LISTEN_FDS?: string | undefined
  readonly LISTEN_FDNAMES?: string | undefined
}

export class DescriptorStore implements DescriptorKeeper {
  readonly #tell: Tell | undefined
  readonly #log: Log
  /** By name, what came with the start and nobody has taken yet. */
  readonly #came: Map<string, number[]>
  /** By name, what it is to have; open descriptors. */
  readonly #held = new Map<string, readonly number[]>()
  /** Names under which it has what was taken, until that is held. */
  readonly #taken = new Set<string>()
  /** Names under which it may have something. */
  readonly #there = new Set<string>()
  /** Names of which it is to be told. */
  readonly #pending = new Set<string>()
  /** The manager listens to this process. */
  #isService: boolean
  #retry: NodeJS.Timeout | undefined

  /**
   * `tell` is undefined without a manager. `isService`: false for one that takes over, which is not listened
   * to before `serve`.
   */
  constructor(tell: Tell | undefined, came: Map<string, number[]>, isService: boolean, log: Log) {
    this.#tell = tell
    this.#came = came
    this.#isService = isService
    this.#log = log
  }

  take(id: string, kind: KeptKind = 'tap'): readonly number[] {
    const name = `${kind}-${id}`
    const fds = this.#came.get(name)
    if (fds === undefined) return []
    this.#came.delete(name)
    this.#there.add(name)
    this.#taken.add(name)
    return fds
  }

  keep(id: string, fds: readonly number[], kind: KeptKind = 'tap'): void {
    const name = `${kind}-${id}`
    this.#held.set(name, fds)
    if (!this.#taken.delete(name)) this.#change(name)
  }

  leave(id: string, kind: KeptKind = 'tap'): void {
    const name = `${kind}-${id}`
    this.#held.delete(name)
    this.#taken.delete(name)
    this.#pending.delete(name)
  }

  forget(id: string, kind: KeptKind = 'tap'): void {
    const name = `${kind}-${id}`
    this.#held.delete(name)
    this.#taken.delete(name)
    if (this.#there.has(name)) this.#change(name)
  }

  /**
   * The ports are this process's. The manager may listen to the one before still: so it is told again once
   * that has ended, which tells the manager before. That is when `over` resolves; absent: that one started this.
   */
  serve(over?: Promise<unknown>): void {
    if (this.#isService) return
    this.#isService = true
    this.#tellAll()
    if (over !== undefined) {
      void over.then(() => this.#tellAll())
      return
    }
    const parent = process.ppid
    let looks = 0
    const watch = setInterval(() => {
      if (process.ppid === parent && ++looks < PARENT_LOOKS_MAX) return
      clearInterval(watch)
      if (process.ppid !== parent) this.#tellAll()
    }, PARENT_LOOK_MS).unref()
  }

  #tellAll(): void {
    for (const name of this.#held.keys()) {
      this.#there.add(name)
      this.#change(name)
    }
  }

  /** All ports are there: what came and was not taken would have frames that nobody reads. It is closed. */
  closeRest(): void {
    for (const [name, fds] of this.#came) {
      const unclaimed = fds.filter((fd) => !isFdClaimed(fd) && !isNodes(fd))
      if (unclaimed.length === 0) continue
      const what = unclaimed.map(nameOf).join(', ')
      for (const fd of unclaimed) shim.close(fd)
      this.#log(
        `descriptors: closed what no port has taken name="${printable(name)}" of="${what}"`,
        'warning',
      )
      this.#there.add(name)
      this.#change(name)
    }
    this.#came.clear()
  }

  #change(name: string): void {
    this.#pending.add(name)
    this.#flush()
  }

  /** What the manager's queue has no room for is told later: as it is then. */
  #flush(): void {
    if (this.#tell === undefined || !this.#isService) return
    for (const name of this.#pending) {
      if (!this.#isTold(name, this.#tell)) {
        this.#retryLater()
        return
      }
      this.#pending.delete(name)
    }
  }

  #retryLater(): void {
    if (this.#retry !== undefined) return
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      this.#flush()
    }, RETRY_MS).unref()
  }

  #isTold(name: string, tell: Tell): boolean {
    if (this.#there.has(name)) {
      if (!tell(`FDSTOREREMOVE=1\nFDNAME=${name}`, [])) return false
      this.#there.delete(name)
    }
    const fds = this.#held.get(name) ?? []
    for (let at = 0; at < fds.length; at += FDS_PER_MESSAGE_MAX) {
      const part = fds.slice(at, at + FDS_PER_MESSAGE_MAX)
      this.#there.add(name)
      // A queue that a guest does not use is detached, which polling takes for the end of it.
      if (!tell(`FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`, part)) return false
    }
    return true
  }
}

/**
 * Those that the environment says were passed to the process with that number, by name. Its variables go:
 * programs that the daemon starts are not the service.
 */
export function takeListenFds(environment: NodeJS.ProcessEnv, pid: number): Map<string, number[]> {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = environment as ListenEnvironment
  for (const name of ['LISTEN_PID', 'LISTEN_PIDFDID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) {
    Reflect.deleteProperty(environment, name)
  }
  const came = new Map<string, number[]>()
  const count = Number(LISTEN_FDS)
  if (Number(LISTEN_PID) !== pid || !(count >= 1 && count <= LISTEN_FDS_MAX)) return came
  const names = LISTEN_FDNAMES.split(':')
  for (let k = 0; k < count; k++) {
    const name = names[k] || 'unknown'
    came.set(name, [...(came.get(name) ?? []), FIRST_FD + k])
  }
  return came
}

/** It may be one of Node's own, should there have come fewer than was said. */
const isNodes = (fd: number): boolean => /^(anon_inode|pipe):/.test(nameOf(fd))

function nameOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return `descriptor ${fd}`
  }
}
