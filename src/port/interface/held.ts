/**
 * The interfaces that ports of this process have: whoever asks for one of them again is told which port
 * has it, and not that another process has; and the TAP of one port is not the wire of another.
 */
import { fstatSync, statSync } from 'node:fs'
import { EACCES, EBUSY, EINVAL, EPERM } from '../../abi/errno.ts'
import { ConfigError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'

/** A TAP is the device itself, a raw socket looks at one. */
export type HeldKind = 'tap' | 'raw-socket'

export interface HeldInterface {
  /** Of its port. */
  readonly id: string
  readonly kind: HeldKind
  identify(): { readonly ifname: string }
  /** A descriptor of its network namespace, for the caller to close; -1: ours, or the kernel does not tell. */
  openNetns(): number
}

/** Of each kernel, as tests have several. */
const held = new WeakMap<object, Set<HeldInterface>>()

export function noteHeld(shim: object, port: HeldInterface): void {
  const all = held.get(shim)
  if (all === undefined) held.set(shim, new Set([port]))
  else all.add(port)
}

export function noteReleased(shim: object, port: HeldInterface): void {
  held.get(shim)?.delete(port)
}

/** The id of the port that has the interface so, in the namespace of the descriptor (-1: ours). */
export function holderOf(
  shim: Pick<Shim, 'close'>,
  ifname: string,
  netnsFd: number,
  kind: HeldKind = 'tap',
): string | undefined {
  for (const one of held.get(shim) ?? []) {
    if (one.kind !== kind || one.identify().ifname !== ifname) continue
    const own = one.openNetns()
    const isThere = own < 0 || namespaceOf(own) === namespaceOf(netnsFd)
    if (own >= 0) shim.close(own)
    if (isThere) return one.id
  }
  return undefined
}

/** Throws when a port of that kind has the interface: what one of the two sends the other would send back. */
export function checkNoLoop(
  shim: Pick<Shim, 'close'>,
  kind: HeldKind,
  ifname: string,
  netnsFd: number,
): void {
  const id = holderOf(shim, ifname, netnsFd, kind)
  if (id === undefined) return
  const what = kind === 'tap' ? 'is the TAP of' : 'is what'
  const rest = kind === 'tap' ? '' : ' listens on'
  throw new ConfigError('LOOP', `${ifname} ${what} port "${id}"${rest}: frames would go round`, {
    path: 'ifname',
    hint: 'give another ifname=, of an interface that leads out of the switch',
  })
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
  if (errno === EINVAL) return `${name} exists and is not a TAP, or has another queues= mode`
  return undefined
}
