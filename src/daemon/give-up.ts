/**
 * Giving up what the process may do, in all of its threads: the calls of daemon/privileges.ts, in the
 * order that the kernel needs. user_namespaces(7), capabilities(7), seccomp(2)
 */
import { stat } from 'node:fs/promises'
import {
  CAPABILITY_NAMES,
  PR_CAP_AMBIENT,
  PR_CAP_AMBIENT_CLEAR_ALL,
  PR_CAP_AMBIENT_RAISE,
  PR_CAPBSET_DROP,
  PR_SET_KEEPCAPS,
  PR_SET_NO_NEW_PRIVS,
} from '../abi/capability.ts'
import { EINVAL, EPERM } from '../abi/errno.ts'
import {
  SECCOMP_FILTER_FLAG_SPEC_ALLOW,
  SECCOMP_FILTER_FLAG_TSYNC,
  SECCOMP_SET_MODE_FILTER,
} from '../abi/seccomp.ts'
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { systemReason } from '../text.ts'
import { capabilityWords, permittedCapabilities } from '../native/capabilities.ts'
import { shim } from '../native/shim.ts'
import type { FilterPolicy } from './seccomp-filter.ts'
import { makeFilter } from './seccomp-filter.ts'
import type { Identity } from './users.ts'

const ROW_PRCTL = 0
const ROW_CAPSET = 1

/** Missing in the types. */
const { initgroups } = process as unknown as {
  initgroups(this: void, user: string, group: number): void
}

/**
 * The whole process becomes the user (the C library sees to every thread). This thread keeps its
 * capabilities, the others lose theirs.
 */
export function becomeUser(identity: Identity): void {
  const { uid, gid, name } = identity
  const held = permittedCapabilities()
  // Afterwards they could not any more.
  check('capabilities of threads', inOtherThreads(boundingRows(0n)))
  shim.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
  try {
    if (name === undefined) process.setgroups!([gid])
    else initgroups(name, gid)
    process.setgid!(gid)
    process.setuid!(uid)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const who = `${name ?? uid}`
    throw new SysError('PRIVILEGES', `cannot become user ${who}: ${systemReason(cause)}`, {
      syscall: 'setuid',
      hint: code === 'EPERM' ? 'only root can: start the daemon as root' : undefined,
      cause,
    })
  } finally {
    shim.prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0)
  }
  // A change of user clears the effective ones, kept or not.
  check('capset', shim.capset(capabilityWords(held, 0n)))
}

/**
 * This thread keeps `keep`, every other one nothing; new threads get what this one has. Programs that
 * are started get `keep` too when `forPrograms`, else nothing. no_new_privs for all. Returns why something of it failed; the
 * rest is done all the same.
 */
export async function holdCapabilities(
  keep: bigint,
  forPrograms: boolean,
): Promise<string | undefined> {
  // The threads of libuv's pool are made at its first use, and would be made with `keep`.
  await stat('/')
  const forOthers: number[] = [
    ...boundingRows(0n),
    ...prctlRow(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL),
    ROW_CAPSET,
    ...capabilityWords(0n, 0n),
    ...prctlRow(PR_SET_NO_NEW_PRIVS, 1),
  ]
  const others = inOtherThreads(forOthers)
  for (let bit = 0; bit < CAPABILITY_NAMES.length; bit++) {
    const isKept = forPrograms && (keep & (1n << BigInt(bit))) !== 0n
    // Without CAP_SETPCAP they stay, and mean nothing under no_new_privs.
    if (!isKept) shim.prctl(PR_CAPBSET_DROP, bit, 0, 0, 0)
  }
  shim.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
  const own = shim.capset(capabilityWords(keep, forPrograms ? keep : 0n))
  if (forPrograms) {
    for (let bit = 0; bit < CAPABILITY_NAMES.length; bit++) {
      if ((keep & (1n << BigInt(bit))) === 0n) continue
      shim.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0)
    }
  }
  const noNewPrivs = shim.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
  if (others < 0) return `capabilities of threads: ${strerror(-others)}`
  if (own < 0) return `capset: ${strerror(-own)}`
  return noNewPrivs < 0 ? `no_new_privs: ${strerror(-noNewPrivs)}` : undefined
}

/** Filters the system calls of all threads from now on; undefined, or why it cannot be had. */
export function installFilter(policy: FilterPolicy): string | undefined {
  const filter = makeFilter(policy, process.arch)
  if (filter === undefined) return `no system call filter for ${process.arch}`
  const result = shim.seccomp(
    SECCOMP_SET_MODE_FILTER,
    // No code of others runs here, which is what the mitigation is against.
    SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    filter,
  )
  if (result === 0) return undefined
  if (result > 0) return `seccomp: thread ${result} has a filter of its own`
  const why = result === -EINVAL ? 'this kernel has no filters' : strerror(-result)
  return `seccomp: ${result === -EPERM ? 'forbidden here' : why}`
}

function prctlRow(option: number, a: number): number[] {
  return [ROW_PRCTL, option, a, 0, 0, 0, 0]
}

function boundingRows(keep: bigint): number[] {
  return CAPABILITY_NAMES.flatMap((_, bit) =>
    (keep & (1n << BigInt(bit))) === 0n ? prctlRow(PR_CAPBSET_DROP, bit) : [],
  )
}

/** Calls that fail are not told: what holds is read back from the kernel. */
function inOtherThreads(rows: readonly number[]): number {
  return shim.everyThread(Int32Array.from(rows), new Int32Array(3))
}

function check(what: string, result: number): void {
  if (result >= 0) return
  throw new SysError('PRIVILEGES', `the user cannot be changed: ${what}: ${strerror(-result)}`)
}
