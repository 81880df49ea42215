/** Which interface a raw socket port is to have, and whether it can. */
import {
  ARPHRD_ETHER,
  ARPHRD_LOOPBACK,
  ETH_P_ALL,
  SO_NETNS_COOKIE,
  SO_TYPE,
  SOCK_RAW,
  SOL_SOCKET,
} from '../../abi/if-packet.ts'
import { EAFNOSUPPORT } from '../../abi/errno.ts'
import { strerror } from '../../abi/strerror.ts'
import { ConfigError, SysError } from '../../errors.ts'
import { checkFdFree } from '../../native/owned-fds.ts'
import type { Shim } from '../../native/shim.ts'
import type { Log } from '../../text.ts'
import { nearest } from '../../text.ts'
import { findDescriptor, setNonblocking } from '../interface/given.ts'
import { checkNoLoop, holderOf } from '../interface/held.ts'
import type { LinkInfo } from '../interface/link.ts'
import { getLinkByIndex, listLinks } from '../interface/link.ts'

/** Names that an error lists, at most. */
const NAMES_MAX = 8
/** Of Ethernet. */
const MTU_USUAL = 1500

/** Throws when frames of the interface are no Ethernet, or all that is sent by it comes back. */
export function checkEthernet({ ifname, hardware }: LinkInfo): void {
  if (hardware === ARPHRD_LOOPBACK) {
    throw unusable(ifname, 'is the loopback device: all that is sent by it comes back')
  }
  if (hardware !== ARPHRD_ETHER) {
    throw unusable(ifname, `carries no Ethernet frames (its ARPHRD type is ${hardware})`)
  }
}

/** The same, and when another port is in its way; tells what is odd. */
export function checkUsable(
  shim: Shim,
  link: LinkInfo,
  netnsFd: number,
  id: string,
  log: Log,
): void {
  const { ifname, master } = link
  checkEthernet(link)
  checkNoLoop(shim, 'tap', ifname, netnsFd)
  const holder = holderOf(shim, ifname, netnsFd, 'raw-socket')
  if (holder !== undefined) {
    throw new ConfigError('RAW_SOCKET_INTERFACE', `port "${holder}" has ${ifname} already`, {
      path: 'ifname',
      hint: 'two ports on one interface would see every frame twice; queues= divides them',
    })
  }
  if (master === 0) return
  const bridge = nameOf(shim, netnsFd, master)
  log(
    `raw-socket ${id}: ${ifname} is part of ${bridge}, which goes on forwarding its frames beside ` +
      `this switch: do not connect the two anywhere else, or use ${bridge} itself as the interface`,
    'warning',
  )
}

function unusable(ifname: string, what: string): ConfigError {
  return new ConfigError('RAW_SOCKET_INTERFACE', `${ifname} ${what}`, {
    path: 'ifname',
    hint: 'give a network card, a veth, a macvlan, or another Ethernet interface',
  })
}

function nameOf(shim: Shim, netnsFd: number, ifindex: number): string {
  try {
    return getLinkByIndex(shim, netnsFd, ifindex)?.ifname ?? `interface ${ifindex}`
  } catch {
    return `interface ${ifindex}`
  }
}

export function noInterface(
  shim: Shim,
  netnsFd: number,
  ifname: string,
  netns: string | undefined,
): SysError {
  let names: string[] = []
  try {
    const links = listLinks(shim, netnsFd)
    names = links.filter(({ hardware }) => hardware === ARPHRD_ETHER).map((link) => link.ifname)
  } catch {
    // Then without them.
  }
  const near = nearest(ifname, names)
  const listed = names.slice(0, NAMES_MAX).join(', ')
  const more = names.length > NAMES_MAX ? ', ...' : ''
  const there =
    names.length === 0 ? 'there is none that could be used' : `there are ${listed}${more}`
  const where = netns === undefined ? 'this network namespace' : `netns ${netns}`
  return new SysError('RAW_SOCKET_INTERFACE', `no interface "${ifname}" in ${where}`, {
    ifname,
    hint: near === undefined ? there : `did you mean "${near}"?`,
  })
}

export interface GivenSocket {
  readonly fd: number
  readonly link: LinkInfo
  /** Of our namespace: its state can be asked for. */
  readonly isKnown: boolean
}

/**
 * A packet socket that somebody else has opened and bound, by name or number. Throws when it is not one.
 * `mtu` is that of the interface, where the kernel does not tell.
 */
export function takeGivenSocket(
  shim: Shim,
  name: string,
  given: ReadonlyMap<string, number>,
  mtu: number = MTU_USUAL,
): GivenSocket {
  const fd = findDescriptor(name, given)
  checkFdFree(fd, given.has(name))
  const bound = new Int32Array(3)
  const result = shim.packetName(fd, bound)
  if (result < 0) {
    const text = result === -EAFNOSUPPORT ? 'it is a socket of another kind' : strerror(-result)
    throw wrongSocket(fd, `is not a packet socket: ${text}`)
  }
  if (readOption(shim, fd, SO_TYPE) !== SOCK_RAW) {
    throw wrongSocket(fd, 'is a packet socket without Ethernet headers: open it with SOCK_RAW')
  }
  const [protocol, ifindex, hardware] = bound
  if (ifindex <= 0) throw wrongSocket(fd, 'is bound to no interface: bind it before it is given')
  if (protocol !== ETH_P_ALL) {
    const shown = `0x${protocol.toString(16).padStart(4, '0')}`
    throw wrongSocket(fd, `receives protocol ${shown} only: bind it to ETH_P_ALL (0x0003)`)
  }
  setNonblocking(shim, fd, 'RAW_SOCKET_FD')
  const isKnown = isOurs(shim, fd)
  const link = isKnown ? getLinkByIndex(shim, -1, ifindex) : null
  // Of another namespace only the socket itself tells something.
  return { fd, link: link ?? unknownLink(ifindex, hardware, mtu), isKnown: link !== null }
}

function wrongSocket(fd: number, what: string): SysError {
  return new SysError('RAW_SOCKET_FD', `file descriptor ${fd} ${what}`)
}

function unknownLink(ifindex: number, hardware: number, mtu: number): LinkInfo {
  return {
    ifindex,
    ifname: `#${ifindex}`,
    hardware,
    master: 0,
    isUp: true,
    hasCarrier: true,
    mtu,
    kind: '',
    tunQueues: 0,
    rxDropped: 0,
    txDropped: 0,
  }
}

function readOption(shim: Shim, fd: number, name: number): number {
  const value = new Uint8Array(4)
  const result = shim.getSocketOption(fd, SOL_SOCKET, name, value)
  return result < 0 ? result : new DataView(value.buffer).getInt32(0, true)
}

/** It was opened in our namespace, as far as the kernel tells (from Linux 5.14 on). */
function isOurs(shim: Shim, fd: number): boolean {
  const own = shim.netlinkRoute(-1)
  if (own < 0) return true
  const [one, other] = [new Uint8Array(8), new Uint8Array(8)]
  const results = [
    shim.getSocketOption(own, SOL_SOCKET, SO_NETNS_COOKIE, one),
    shim.getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, other),
  ]
  shim.close(own)
  return results.some((result) => result < 0) || one.every((byte, at) => byte === other[at])
}
