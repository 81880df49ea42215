/**
 * What the daemon may do. In two steps:
 *
 *     begin   before anything is opened: becomes the user, and keeps its capabilities until
 *     hold    the config's ports are open: from then on
 *               the main thread     the capabilities that are kept, to open further ports with
 *               every other thread  none
 *               all                 no_new_privs, and a filter of system calls
 *
 * So files and sockets are the user's from the first one on, while directories and devices that only
 * root reaches can still be opened. Mode `locked` keeps nothing.
 */
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { EACCES, EPERM } from '../abi/errno.ts'
import type { PrivilegeMode, PrivilegeSettings } from '../config/privileges.ts'
import { StateError, SysError } from '../errors.ts'
import {
  capabilityNames,
  capabilitySet,
  permittedCapabilities,
  readThreads,
} from '../native/capabilities.ts'
import { needsOf } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import { becomeUser, holdCapabilities, installFilter } from './give-up.ts'
import { giveDirectory, isSocket, isState } from './give-directory.ts'
import { findIdentity, groupName, userName } from './users.ts'
import type { Log } from '../text.ts'

const S_ISUID = 0o4000

/** What `query-status` shows; read from the kernel. */
export interface PrivilegeStatus {
  readonly mode: PrivilegeMode
  /** Mode `locked`, and nothing is kept any more. */
  readonly locked: boolean
  readonly user: string
  readonly group: string
  /** Of the main thread. */
  readonly capabilities: readonly string[]
  /** True: of every thread. So is `seccomp`. */
  readonly 'no-new-privs': boolean
  readonly seccomp: boolean
  /** Scripts and helpers can be run. */
  readonly scripts: boolean
  /** What could not be had. */
  readonly reason?: string
  readonly threads: readonly {
    readonly id: number
    readonly name: string
    readonly capabilities: readonly string[]
    readonly 'no-new-privs': boolean
    readonly seccomp: boolean
  }[]
}

export interface HoldOptions {
  readonly ports: readonly PortOptions[]
  /** Mirrors send to other hosts. */
  readonly hasTunnels: boolean
  /** Postponed ports are still to be opened: `lock` comes then. */
  readonly isIncoming: boolean
}

export class Privileges {
  readonly #settings: PrivilegeSettings
  /** What was asked for and cannot be had is an error. */
  readonly #isAsked: boolean
  readonly #mode: PrivilegeMode
  readonly #log: Log
  /** Capabilities that the daemon had at its start. */
  readonly #atStart: bigint
  #isLocked = false
  #allowsPrograms = true
  #isHeld = false
  #reason: string | undefined

  private constructor(settings: PrivilegeSettings | undefined, atStart: bigint, log: Log) {
    this.#settings = settings ?? {}
    this.#isAsked = settings !== undefined && settings.isImplied !== true
    this.#mode = settings?.mode ?? 'on'
    this.#atStart = atStart
    this.#log = log
  }

  /**
   * Becomes the user, if one is named; directories that a daemon of root's has made become the
   * user's. Throws SysError PRIVILEGES.
   */
  static begin(
    privileges: PrivilegeSettings | undefined,
    directories: { readonly control: string; readonly state: string | undefined },
    log: Log,
  ): Privileges {
    const atStart = permittedCapabilities()
    if (privileges?.user !== undefined && privileges.mode !== 'off') {
      const identity = findIdentity(privileges.user, privileges.group)
      if (identity.uid !== process.geteuid!() || identity.gid !== process.getegid!()) {
        giveDirectory(directories.control, identity, isSocket, log)
        if (directories.state !== undefined)
          giveDirectory(directories.state, identity, isState, log)
        becomeUser(identity)
      }
    }
    return new Privileges(privileges, atStart, log)
  }

  /** Everything that the config names is open. Throws what was asked for and cannot be had. */
  async hold(options: HoldOptions): Promise<void> {
    if (this.#mode === 'off') {
      this.#log('privileges: mode=off')
      return
    }
    const { ports, isIncoming } = options
    const mustLock = this.#mode === 'locked' && !isIncoming
    const programs =
      ports.some((port) => needsOf(port).programs !== undefined) || this.#settings.scripts === true
    this.#allowsPrograms = this.#mode === 'on' && programs
    await this.#restrict(mustLock ? 0n : this.#wanted(options))
    this.#isLocked = mustLock
    this.#report()
  }

  /** The postponed ports are open. */
  async lock(): Promise<void> {
    if (this.#mode !== 'locked' || this.#isLocked) return
    await this.#restrict(0n)
    this.#isLocked = true
    this.#report()
  }

  /** Capabilities that ports to come may need. */
  #wanted({ ports, hasTunnels }: HoldOptions): bigint {
    const { keep } = this.#settings
    if (keep !== undefined) return capabilitySet(keep)
    const hasAny = !this.#isAsked
    const needs = ports.map(needsOf)
    const needsNetns = hasAny || needs.some(({ netns }) => netns === true)
    // Also to open one anew whose interface comes back.
    const needsPackets = hasAny || hasTunnels || needs.some(({ packets }) => packets === true)
    return capabilitySet([
      'net-admin',
      ...(needsNetns ? ['sys-admin'] : []),
      ...(needsPackets ? ['net-raw'] : []),
    ])
  }

  async #restrict(wanted: bigint): Promise<void> {
    const keep = wanted & permittedCapabilities()
    const failure = await holdCapabilities(keep, this.#allowsPrograms)
    this.#isHeld = true
    const reason = installFilter({
      pid: process.pid,
      allowsPrograms: this.#allowsPrograms,
      allowsNetns: (keep & capabilitySet(['sys-admin'])) !== 0n,
      allowsPackets: (keep & capabilitySet(['net-raw'])) !== 0n,
      allowsUring: hasRings(),
    })
    this.#reason = failure ?? reason ?? this.#lack(keep)
    if (this.#reason === undefined || !this.#isAsked) return
    throw new SysError('PRIVILEGES', `privileges cannot be limited: ${this.#reason}`, {
      hint: 'start with --privileges off to do without',
    })
  }

  /** What the kernel says that does not hold; undefined: all does. */
  #lack(keep: bigint): string | undefined {
    const threads = readThreads()
    if (threads.length === 0) return 'what holds is not known: /proc cannot be read'
    for (const { id, name, capabilities, noNewPrivs, seccomp } of threads) {
      const allowed = id === process.pid ? capabilityNames(keep) : []
      const more = capabilities.filter((capability) => !allowed.includes(capability))
      // A worker that was just made drops its own; the threads of io_uring are the kernel's.
      if (name.startsWith('iou-')) continue
      if (more.length > 0) return `thread ${id} (${name}) still has ${more.join(',')}`
      if (!noNewPrivs || !seccomp) return `thread ${id} (${name}) is not restricted`
    }
    return undefined
  }

  status(): PrivilegeStatus {
    const threads = readThreads()
    const main = threads.find(({ id }) => id === process.pid)
    return {
      mode: this.#mode,
      locked: this.#isLocked,
      user: userName(process.geteuid!()),
      group: groupName(process.getegid!()),
      capabilities: main?.capabilities ?? [],
      'no-new-privs': threads.length > 0 && threads.every(({ noNewPrivs }) => noNewPrivs),
      seccomp: threads.length > 0 && threads.every(({ seccomp }) => seccomp),
      scripts: !this.#isHeld || this.#allowsPrograms,
      ...(this.#reason === undefined ? {} : { reason: this.#reason }),
      threads: threads.map(({ id, name, capabilities, noNewPrivs, seccomp }) => ({
        id,
        name,
        capabilities,
        'no-new-privs': noNewPrivs,
        seccomp,
      })),
    }
  }

  #report(): void {
    const { mode, user, capabilities, seccomp, scripts, reason } = this.status()
    const because = reason === undefined ? '' : ` because="${reason}"`
    this.#log(
      `privileges: mode=${mode} user=${user} capabilities=${capabilities.join(',') || 'none'}` +
        ` seccomp=${seccomp ? 'on' : 'off'} scripts=${scripts ? 'on' : 'off'}${because}`,
      reason === undefined ? 'info' : 'warning',
    )
  }

  /** Refuses what certainly cannot work any more: programs that are not to be started. */
  check(options: PortOptions): void {
    const { programs, helper } = needsOf(options)
    if (!this.#isHeld || programs === undefined) return
    const { id } = options
    if (!this.#allowsPrograms) {
      const name = helper === undefined ? 'its script' : 'its helper'
      const hint =
        this.#mode === 'locked'
          ? 'it is locked: open the port elsewhere and give its descriptor (getfd)'
          : 'start it with privileges.scripts: true, or with a port that has a script'
      throw new StateError(
        'PRIVILEGE_DROPPED',
        `port "${id}": ${name} cannot run: the daemon gave up starting programs after its start`,
        { hint },
      )
    }
    if (helper !== undefined && isSetuid(helper) && !this.#has('net-admin')) {
      throw new StateError(
        'PRIVILEGE_DROPPED',
        `port "${id}": ${helper} is setuid, which no_new_privs makes void after the start`,
        { hint: 'name the port in the config, or start with keep: [net-admin] or mode: off' },
      )
    }
  }

  /** Nothing was given up that a program which is started now would lack. */
  get areWhole(): boolean {
    return !this.#isHeld
  }

  /** The error again; when it comes of what was given up, one that says so. */
  explain(error: unknown): unknown {
    if (!this.#isHeld || !(error instanceof SysError)) return error
    const { errno, message, code, hint } = error
    if (errno !== EPERM && errno !== EACCES) return error
    const capability = CAPABILITY_OF[code]?.(error)
    if (capability === undefined || !this.#gaveUp(capability)) return error
    const name = `CAP_${capability.toUpperCase().replace('-', '_')}`
    return new StateError(
      'PRIVILEGE_DROPPED',
      `${message}: the daemon gave up ${name} after its start`,
      { hint: this.#hint(capability, hint), cause: error },
    )
  }

  #hint(capability: string, hint: string | undefined): string {
    if (this.#mode === 'locked') {
      return 'it is locked: name the port in the config, or open it elsewhere (getfd)'
    }
    const first = capability === 'dac-override' && hint !== undefined ? `${hint}; or ` : ''
    return `${first}start it with privileges.keep: [${capability}]`
  }

  #gaveUp(capability: string): boolean {
    return (this.#atStart & capabilitySet([capability])) !== 0n && !this.#has(capability)
  }

  #has(capability: string): boolean {
    return (permittedCapabilities() & capabilitySet([capability])) !== 0n
  }
}

/** Which capability would have made the difference, by the code of an error. */
const CAPABILITY_OF: Readonly<Record<string, (error: SysError) => string>> = {
  NETNS: ({ syscall }) => (syscall === 'setns' ? 'sys-admin' : 'sys-ptrace'),
  LINK: () => 'net-admin',
  TAP_SETIFF: () => 'net-admin',
  RAW_SOCKET: () => 'net-raw',
  ERSPAN: () => 'net-raw',
  TAP_IOCTL: () => 'net-admin',
  TAP_NODE: () => 'dac-override',
  VHOST_USER_SOCKET: () => 'dac-override',
  CAPTURE_FILE: () => 'dac-override',
}

/** Somebody in the process has an io_uring. */
function hasRings(): boolean {
  let fds: string[]
  try {
    fds = readdirSync('/proc/self/fd')
  } catch {
    // Without /proc nobody knows.
    return true
  }
  return fds.some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[io_uring]'
    } catch {
      // Closed meanwhile: that of the directory.
      return false
    }
  })
}

function isSetuid(path: string): boolean {
  try {
    return (statSync(path).mode & S_ISUID) !== 0
  } catch {
    return false
  }
}
