/** Descriptors of a TAP: what the kernel says of one, and those that were given to us. */
import { IFF_VNET_HDR, IFNAMSIZ } from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import { ConfigError, SysError } from '../../errors.ts'
import { checkFdFree } from '../../native/owned-fds.ts'
import type { Shim } from '../../native/shim.ts'
import { findDescriptor, setNonblocking } from '../interface/given.ts'
import type { TapOptions } from '../options.ts'
import type { OpenContext } from './open-tap.ts'

/** It uses descriptors from elsewhere, which become ours only with success: their giver knows them by name. */
export function isGiven(options: TapOptions): boolean {
  return options.fd !== undefined || options.fds !== undefined
}

export function identity(shim: Shim, fd: number): { ifname: string; flags: number } {
  const name = new Uint8Array(IFNAMSIZ)
  const flags = shim.tunGetIff(fd, name)
  if (flags < 0) {
    throw new SysError('TAP_FD', `Unable to query TUNGETIFF on FD ${fd}: ${strerror(-flags)}`, {
      syscall: 'ioctl',
      errno: -flags,
      hint: 'the descriptor is not a TAP',
    })
  }
  return { ifname: cString(name), flags }
}

export function takeGiven(options: TapOptions, context: OpenContext, fds: number[]): void {
  const { shim, given } = context
  const names = options.fd === undefined ? options.fds!.split(':') : [options.fd]
  let hasVnetHdr: boolean | undefined
  for (const name of names) {
    const fd = findDescriptor(name, given)
    checkFdFree(fd, given.has(name))
    if (fds.includes(fd)) {
      throw new ConfigError('BAD_OPTION', `file descriptor ${fd} is given more than once`)
    }
    const { flags } = identity(shim, fd)
    const own = (flags & IFF_VNET_HDR) !== 0
    if (hasVnetHdr !== undefined && own !== hasVnetHdr) {
      throw new ConfigError('BAD_OPTION', 'vnet_hdr not consistent across given tap fds')
    }
    hasVnetHdr = own
    setNonblocking(shim, fd, 'TAP_FD')
    fds.push(fd)
  }
}

export function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}
