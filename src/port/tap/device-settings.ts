/** What is set on the device of an open TAP, when it is opened and when its options change. */
import { readFileSync } from 'node:fs'
import { strerror } from '../../abi/strerror.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'
import type { TapOptions } from '../options.ts'
import { setLinkProperties } from './link.ts'
import { netnsName, openNetns } from './netns.ts'

const SNDBUF_MAX = 0x7fff_ffff
/** Of a new TAP, as the kernel makes it. */
const ETH_DATA_LEN = 1500

/** An open TAP as its settings see it. */
export interface TapDevice {
  readonly fds: readonly number[]
  readonly ifname: string
  /** It was made for this port, and not found. */
  readonly isOurs: boolean
}

/**
 * Sets what differs: on the interface first, which is refused most. An owner or a group cannot be
 * taken back; what is absent now stays, but the mtu of a device of ours, which has the kernel's again.
 */
export function changeDevice(
  shim: Shim,
  device: TapDevice,
  before: TapOptions,
  after: TapOptions,
): void {
  const { fds, ifname, isOurs } = device
  const isNew = (key: keyof TapOptions): boolean => after[key] !== before[key]
  const up = isNew('up') ? after.up : undefined
  let mtu = isNew('mtu') ? after.mtu : undefined
  if (isOurs && before.mtu !== undefined && after.mtu === undefined) mtu = ETH_DATA_LEN
  if (mtu !== undefined || up !== undefined) setLink(shim, device, after, { mtu, up })
  if (isNew('sndbuf')) for (const fd of fds) setSndbuf(after, shim, fd, ifname)
  const ownership = {
    owner: isNew('owner') ? after.owner : undefined,
    group: isNew('group') ? after.group : undefined,
    persist: isNew('persist') ? after.persist : undefined,
  }
  setOwnership(ownership, shim, fds[0], ifname)
}

function setLink(
  shim: Shim,
  { fds, ifname }: TapDevice,
  { netns }: TapOptions,
  properties: { readonly mtu: number | undefined; readonly up: boolean | undefined },
): void {
  // Where it is now; who is not told takes it for where it was opened.
  let netnsFd = shim.tunGetDevNetns(fds[0])
  if (netnsFd < 0 && netns !== undefined) netnsFd = openNetns(shim, netns)
  try {
    setLinkProperties(shim, Math.max(-1, netnsFd), ifname, properties)
  } finally {
    if (netnsFd >= 0) shim.close(netnsFd)
  }
}

/**
 * A descriptor of the namespace of the device, -1 when that is ours: a given descriptor's device may
 * live anywhere, and its name be that of another interface here.
 */
export function otherNetns(shim: Shim, fd: number): number {
  const netnsFd = shim.tunGetDevNetns(fd)
  if (netnsFd < 0) return -1
  if (netnsName(netnsFd, undefined) !== undefined) return netnsFd
  shim.close(netnsFd)
  return -1
}

/** Without a limit by default: a finite one lets a slow receiver lock up its sender. */
export function setSndbuf(options: TapOptions, shim: Shim, fd: number, ifname: string): void {
  const wanted = options.sndbuf ?? 0
  const result = shim.tunSetSndbuf(fd, wanted === 0 ? SNDBUF_MAX : Math.min(wanted, SNDBUF_MAX))
  if (result < 0 && options.sndbuf !== undefined) {
    throw new SysError('TAP_IOCTL', `TUNSETSNDBUF ioctl failed: ${strerror(-result)}`, {
      syscall: 'ioctl',
      errno: -result,
      ifname,
    })
  }
}

export function setOwnership(
  options: { readonly [K in 'owner' | 'group' | 'persist']?: TapOptions[K] | undefined },
  shim: Shim,
  fd: number,
  ifname: string,
): void {
  const check = (request: string, result: number): void => {
    if (result >= 0) return
    throw new SysError('TAP_IOCTL', `${request} ioctl failed: ${strerror(-result)}`, {
      syscall: 'ioctl',
      errno: -result,
      ifname,
    })
  }
  const { owner, group, persist } = options
  if (owner !== undefined) check('TUNSETOWNER', shim.tunSetOwner(fd, idOf(owner, '/etc/passwd')))
  if (group !== undefined) check('TUNSETGROUP', shim.tunSetGroup(fd, idOf(group, '/etc/group')))
  // Absent never clears a flag that somebody else set.
  if (persist !== undefined) check('TUNSETPERSIST', shim.tunSetPersist(fd, persist ? 1 : 0))
}

/** uid or gid of a name or a number; both files have the number in their third field. */
function idOf(name: string, file: string): number {
  if (/^\d+$/.test(name)) return Number(name)
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const fields = line.split(':')
    if (fields[0] === name) return Number(fields[2])
  }
  throw new ConfigError('BAD_OPTION', `"${name}" is not in ${file}`)
}
