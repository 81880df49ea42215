/** What is set on the device of an open TAP, when it is opened and when its options change. */
import { existsSync, readFileSync } from 'node:fs'
import { strerror } from '../../abi/strerror.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'
import type { TapOptions } from '../options.ts'
import { setLinkProperties } from '../interface/link.ts'
import { netnsName, openNetns } from '../interface/netns.ts'

const PASSWD = '/etc/passwd'
const GROUP = '/etc/group'
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
  const ownership = {
    owner: isNew('owner') ? after.owner : undefined,
    group: isNew('group') ? after.group : undefined,
    persist: isNew('persist') ? after.persist : undefined,
  }
  // Names that nobody has are told before anything is set.
  if (ownership.owner !== undefined) idOf('owner', ownership.owner, PASSWD)
  if (ownership.group !== undefined) idOf('group', ownership.group, GROUP)
  const up = isNew('up') ? after.up : undefined
  let mtu = isNew('mtu') ? after.mtu : undefined
  if (isOurs && before.mtu !== undefined && after.mtu === undefined) mtu = ETH_DATA_LEN
  if (mtu !== undefined || up !== undefined) setLink(shim, device, after, { mtu, up })
  if (isNew('sndbuf')) for (const fd of fds) setSndbuf(after, shim, fd, ifname)
  setOwnership(ownership, shim, fds[0], ifname)
}

function setLink(
  shim: Shim,
  { fds, ifname }: TapDevice,
  { netns }: TapOptions,
  properties: { readonly mtu: number | undefined; readonly up: boolean | undefined },
): void {
  const netnsFd = currentNetns(shim, fds[0], netns)
  try {
    setLinkProperties(shim, netnsFd, ifname, properties)
  } finally {
    if (netnsFd >= 0) shim.close(netnsFd)
  }
}

/** A descriptor of where the device is now, or was opened when that is not told; -1: in ours. */
function currentNetns(shim: Shim, fd: number, netns: string | undefined): number {
  const told = shim.tunGetDevNetns(fd)
  if (told < 0) return netns === undefined ? -1 : openNetns(shim, netns)
  shim.close(told)
  return otherNetns(shim, fd)
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
  if (owner !== undefined) check('TUNSETOWNER', shim.tunSetOwner(fd, idOf('owner', owner, PASSWD)))
  if (group !== undefined) check('TUNSETGROUP', shim.tunSetGroup(fd, idOf('group', group, GROUP)))
  // Absent never clears a flag that somebody else set.
  if (persist !== undefined) check('TUNSETPERSIST', shim.tunSetPersist(fd, persist ? 1 : 0))
}

/** uid or gid of a name or a number; both files have the number in their third field. */
function idOf(key: string, name: string, file: string): number {
  if (/^\d+$/.test(name)) return Number(name)
  // A container may have no such file.
  const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
  for (const line of text.split('\n')) {
    const fields = line.split(':')
    if (fields[0] === name) return Number(fields[2])
  }
  throw new ConfigError('BAD_OPTION', `${key}=${name}: not in ${file}`, { path: key })
}
