/**
 * A TAP whose descriptors somebody has kept since a process before this one was killed: it never was
 * without an owner, and frames wait in its queues. It is used as if it had been opened by its name, but for
 * what names would have made: it is looked at whether it is the one that would be opened.
 */
import { fstatSync, statSync } from 'node:fs'
import {
  IFF_ATTACH_QUEUE,
  IFF_DETACH_QUEUE,
  IFF_MULTI_QUEUE,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAMSIZ,
} from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import type { Shim } from '../../native/shim.ts'
import { setNonblocking } from '../interface/given.ts'
import type { TapOptions } from '../options.ts'
import { cString } from './descriptors.ts'
import type { OpenContext } from './open-tap.ts'

type KeptShim = Pick<
  Shim,
  'tunGetIff' | 'tunGetDevNetns' | 'tunSetQueue' | 'getStatusFlags' | 'setStatusFlags' | 'close'
>

/** Fills `fds` with them; false: there are none, or they were closed, as they are not of this TAP. */
export function takeKept(
  options: TapOptions,
  { shim, keeper, log }: OpenContext,
  netnsFd: number,
  fds: number[],
): boolean {
  const kept = keeper?.take(options.id) ?? []
  if (kept.length === 0) return false
  const wrong = whyNotKept(options, shim, netnsFd, kept) ?? attachAll(shim, kept)
  if (wrong === undefined) {
    for (const fd of kept) setNonblocking(shim, fd, 'TAP_FD')
    fds.push(...kept)
    log(`tap ${options.id}: goes on with kept descriptors queues=${kept.length}`)
    return true
  }
  log(`tap ${options.id}: kept descriptors are not used because="${wrong}"`, 'warning')
  keeper?.forget(options.id)
  for (const fd of kept) shim.close(fd)
  return false
}

function whyNotKept(
  { ifname = '', queues = 1, vnet_hdr = true }: TapOptions,
  shim: KeptShim,
  netnsFd: number,
  fds: readonly number[],
): string | undefined {
  if (fds.length !== queues) return `${fds.length} descriptors for ${queues} queues`
  let first: string | undefined
  for (const fd of fds) {
    const name = new Uint8Array(IFNAMSIZ)
    const flags = shim.tunGetIff(fd, name)
    if (flags < 0) return `TUNGETIFF: ${strerror(-flags)}`
    const is = cString(name)
    first ??= is
    if (is !== first) return `they are of ${first} and of ${is}`
    if (!isNamed(is, ifname)) return `they are of ${is}, not of ${ifname}`
    if ((flags & IFF_TAP) === 0) return `${is} is no TAP`
    if (((flags & IFF_VNET_HDR) !== 0) !== vnet_hdr) {
      return `${is} has vnet_hdr=${vnet_hdr ? 'off' : 'on'}`
    }
    if (((flags & IFF_MULTI_QUEUE) !== 0) !== queues > 1) {
      return `${is} has ${queues > 1 ? 'one queue' : 'several queues'}`
    }
    if (!isIn(shim, fd, netnsFd)) return `${is} is in another network namespace`
  }
  return undefined
}

/** As the kernel makes names: `%d` is a number. */
function isNamed(name: string, wanted: string): boolean {
  const pattern = wanted === '' ? 'tap%d' : wanted
  const [before, after] = pattern.split('%d')
  if (after === undefined) return name === pattern
  const number = name.slice(before.length, name.length - after.length)
  return name === `${before}${number}${after}` && /^\d+$/.test(number)
}

/** True also where the kernel does not tell. */
function isIn(shim: KeptShim, fd: number, netnsFd: number): boolean {
  const there = shim.tunGetDevNetns(fd)
  if (there < 0) return true
  try {
    const wanted = netnsFd >= 0 ? fstatSync(netnsFd) : statSync('/proc/self/ns/net')
    const { dev, ino } = fstatSync(there)
    return dev === wanted.dev && ino === wanted.ino
  } finally {
    shim.close(there)
  }
}

/** A guest on its link may have used fewer; returns what went wrong. */
function attachAll(shim: KeptShim, fds: readonly number[]): string | undefined {
  for (const fd of fds) {
    if ((shim.tunGetIff(fd, new Uint8Array(IFNAMSIZ)) & IFF_DETACH_QUEUE) === 0) continue
    const result = shim.tunSetQueue(fd, IFF_ATTACH_QUEUE)
    if (result < 0) return `TUNSETQUEUE: ${strerror(-result)}`
  }
  return undefined
}
