/**
 * The TAPs that ports of this process have open: whoever asks for one of them again is told which port
 * has it, and not that another process has.
 */
import { fstatSync, statSync } from 'node:fs'
import { EACCES, EBUSY, EINVAL, EPERM } from '../../abi/errno.ts'
import type { Shim } from '../../native/shim.ts'

export interface HeldTap {
  /** Of its port. */
  readonly id: string
  identify(): { readonly ifname: string }
  /** A descriptor of its network namespace, for the caller to close; -1: the kernel does not tell. */
  openNetns(): number
}

/** Of each kernel, as tests have several. */
const held = new WeakMap<object, Set<HeldTap>>()

export function noteHeld(shim: object, tap: HeldTap): void {
  const taps = held.get(shim)
  if (taps === undefined) held.set(shim, new Set([tap]))
  else taps.add(tap)
}

export function noteReleased(shim: object, tap: HeldTap): void {
  held.get(shim)?.delete(tap)
}

/** The id of the port that has the interface open, in the namespace of the descriptor (-1: ours). */
export function holderOf(
  shim: Pick<Shim, 'close'>,
  ifname: string,
  netnsFd: number,
): string | undefined {
  for (const tap of held.get(shim) ?? []) {
    if (tap.identify().ifname !== ifname) continue
    const own = tap.openNetns()
    const isThere = own < 0 || namespaceOf(own) === namespaceOf(netnsFd)
    if (own >= 0) shim.close(own)
    if (isThere) return tap.id
  }
  return undefined
}

/** Namespaces are files of one file system, by their inodes. */
function namespaceOf(fd: number): number | undefined {
  try {
    return fd < 0 ? statSync('/proc/self/ns/net').ino : fstatSync(fd).ino
  } catch {
    return undefined
  }
}

/** What to do when TUNSETIFF refuses the name; `holder`: the port of ours that has it. */
export function setIffHint(
  errno: number,
  name: string,
  holder: string | undefined,
): string | undefined {
  if (errno === EPERM || errno === EACCES) {
    return 'needs CAP_NET_ADMIN, or a persistent TAP owned by this user'
  }
  if (holder !== undefined && (errno === EBUSY || errno === EINVAL)) {
    return `port "${holder}" has ${name}: give another ifname=`
  }
  if (errno === EBUSY) return `another process holds ${name}`
  if (errno === EINVAL) return `${name} exists and is no TAP, or has another queues= mode`
  return undefined
}
