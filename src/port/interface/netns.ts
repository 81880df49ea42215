/** Network namespaces by name, path or pid, and names for those that a device turned up in. */
import { constants, fstatSync, readdirSync, statSync } from 'node:fs'
import { strerror } from '../../abi/strerror.ts'
import { EINVAL, ENOENT } from '../../abi/errno.ts'
import { SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'

const NETNS_DIRECTORIES = ['/run/netns', '/var/run/netns']
const O_CLOEXEC = 0o2000000

/** A descriptor of the namespace; the caller closes it. */
export function openNetns(shim: Pick<Shim, 'open'>, netns: string): number {
  let failure = ENOENT
  for (const path of candidates(netns)) {
    const fd = shim.open(path, constants.O_RDONLY | O_CLOEXEC)
    if (fd >= 0) return fd
    failure = -fd
    if (failure !== ENOENT) break
  }
  throw new SysError('NETNS', `no network namespace "${netns}": ${strerror(failure)}`, {
    syscall: 'open',
    errno: failure,
    hint: 'give a name that "ip netns" lists, a path such as /proc/PID/ns/net, or a pid',
  })
}

/** Why that cannot be entered. */
export function cannotEnter(netns: string | undefined, errno: number): SysError {
  return new SysError('NETNS', `setns ${netns}: ${strerror(errno)}`, {
    syscall: 'setns',
    errno,
    hint:
      errno === EINVAL
        ? 'it is no network namespace'
        : 'entering a network namespace needs CAP_SYS_ADMIN',
  })
}

/** The namespace behind a descriptor is our own; false also where nobody knows, without /proc. */
export function isOwnNetns(fd: number): boolean {
  try {
    const [there, here] = [fstatSync(fd), statSync('/proc/self/ns/net')]
    return there.ino === here.ino && there.dev === here.dev
  } catch {
    return false
  }
}

/**
 * An rtnetlink socket in the namespace behind the descriptor, -1: ours. Ours needs no permission, also when
 * the descriptor of a device's namespace turns out to be that: entering one takes CAP_SYS_ADMIN.
 */
export function routeSocket(shim: Pick<Shim, 'netlinkRoute'>, netnsFd: number): number {
  return shim.netlinkRoute(netnsFd >= 0 && isOwnNetns(netnsFd) ? -1 : netnsFd)
}

function candidates(netns: string): string[] {
  if (netns.includes('/')) return [netns]
  if (/^\d+$/.test(netns)) return [`/proc/${netns}/ns/net`]
  return NETNS_DIRECTORIES.map((directory) => `${directory}/${netns}`)
}

/**
 * A name for the namespace behind a descriptor: undefined for our own, the wanted name when it is
 * that one, a name of /run/netns, else `net:[inode]`.
 */
export function netnsName(fd: number, wanted: string | undefined): string | undefined {
  const { ino, dev } = fstatSync(fd)
  const isSame = (path: string): boolean => {
    try {
      const stat = statSync(path)
      return stat.ino === ino && stat.dev === dev
    } catch {
      return false
    }
  }
  if (wanted !== undefined && candidates(wanted).some(isSame)) return wanted
  if (isSame('/proc/self/ns/net')) return undefined
  for (const directory of NETNS_DIRECTORIES) {
    let names: string[]
    try {
      names = readdirSync(directory)
    } catch {
      continue
    }
    const name = names.find((entry) => isSame(`${directory}/${entry}`))
    if (name !== undefined) return name
  }
  return `net:[${ino}]`
}
