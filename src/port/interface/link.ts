/**
 * Links over rtnetlink: look one up by name, set its MTU, bring it up or down, in any network
 * namespace. One short-lived socket per use.
 */
import {
  IFF_LOWER_UP,
  IFF_UP,
  IFINFO_LENGTH,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_STATS64,
  IFLA_TUN_NUM_DISABLED_QUEUES,
  IFLA_TUN_NUM_QUEUES,
  LINK_STATS_RX_DROPPED,
  LINK_STATS_TX_DROPPED,
  NLMSGERR_ATTR_MSG,
  NLMSG_ERROR,
  NLMSG_HEADER_LENGTH,
  NLM_F_ACK,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
} from '../../abi/rtnetlink.ts'
import { ENODEV, EPERM } from '../../abi/errno.ts'
import { strerror } from '../../abi/strerror.ts'
import { SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'
import { routeSocket } from './netns.ts'

export interface LinkInfo {
  readonly ifindex: number
  readonly ifname: string
  /** ARPHRD_* */
  readonly hardware: number
  /** Index of the bridge or bond that it is a part of; 0: of none. */
  readonly master: number
  readonly isUp: boolean
  readonly hasCarrier: boolean
  readonly mtu: number
  /** `tun`, `macvtap`, ...; empty for hardware and loopback. */
  readonly kind: string
  /** Queues of a multi-queue TAP that processes hold, attached or not; 0 for everything else. */
  readonly tunQueues: number
  /** Frames that the kernel dropped: of those that came in by the interface, and that go out by it. */
  readonly rxDropped: number
  readonly txDropped: number
}

export type LinkShim = Pick<Shim, 'netlinkRoute' | 'sendMsg' | 'recvMsg' | 'close'>

/** The link of that name in the namespace behind netnsFd (-1: ours), null when there is none. */
export function getLink(shim: LinkShim, netnsFd: number, ifname: string): LinkInfo | null {
  const request = linkRequest(RTM_GETLINK, NLM_F_REQUEST, ifname, [])
  const answer = exchange(shim, netnsFd, request)
  if (answer.errno === ENODEV) return null
  if (answer.errno !== 0) throw failed('RTM_GETLINK', ifname, answer)
  return answer.link
}

/** The link with that index, whatever its name is by now. */
export function getLinkByIndex(shim: LinkShim, netnsFd: number, ifindex: number): LinkInfo | null {
  const answer = exchange(shim, netnsFd, indexRequest(ifindex, 1))
  if (answer.errno === ENODEV) return null
  if (answer.errno !== 0) throw failed('RTM_GETLINK', `index ${ifindex}`, answer)
  return answer.link
}

/** All links of the namespace. */
export function listLinks(shim: LinkShim, netnsFd: number): LinkInfo[] {
  const fd = openSocket(shim, netnsFd)
  const links: LinkInfo[] = []
  try {
    const request = linkRequest(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, undefined, [])
    const sent = shim.sendMsg(fd, request, 0, request.length, null, 0, 0)
    if (sent < 0) throw new SysError('LINK', `RTM_GETLINK: ${strerror(-sent)}`, { errno: -sent })
    const data = new Uint8Array(65536)
    for (;;) {
      const got = shim.recvMsg(fd, data, new Int32Array(1), new Int32Array(2), 0)
      if (got < 0) throw new SysError('LINK', `RTM_GETLINK: ${strerror(-got)}`, { errno: -got })
      let at = 0
      while (at + NLMSG_HEADER_LENGTH <= got) {
        const view = new DataView(data.buffer, at, got - at)
        const length = view.getUint32(0, true)
        const message = new DataView(data.buffer, at, Math.min(length, got - at))
        const type = message.getUint16(4, true)
        if (type !== RTM_NEWLINK) return links
        const { link } = parseAnswer(message)
        if (link !== null) links.push(link)
        at += align4(length)
      }
    }
  } finally {
    shim.close(fd)
  }
}

/** The indexes of links that a burst of messages is about. */
export function changedLinks(data: Uint8Array, length: number, indexes: Set<number>): void {
  const view = new DataView(data.buffer, data.byteOffset, length)
  let at = 0
  while (at + NLMSG_HEADER_LENGTH + IFINFO_LENGTH <= length) {
    const size = view.getUint32(at, true)
    const type = view.getUint16(at + 4, true)
    if (type === RTM_NEWLINK || type === RTM_DELLINK) {
      indexes.add(view.getInt32(at + NLMSG_HEADER_LENGTH + 4, true))
    }
    if (size < NLMSG_HEADER_LENGTH) return
    at += align4(size)
  }
}

function openSocket(shim: LinkShim, netnsFd: number): number {
  const fd = routeSocket(shim, netnsFd)
  if (fd >= 0) return fd
  throw new SysError('LINK', `netlink socket: ${strerror(-fd)}`, { syscall: 'socket', errno: -fd })
}

/** Sets what is given; throws SysError with the kernel's own explanation when it has one. */
export function setLinkProperties(
  shim: LinkShim,
  netnsFd: number,
  ifname: string,
  properties: { readonly mtu?: number | undefined; readonly up?: boolean | undefined },
): void {
  const { mtu, up } = properties
  const request = linkRequest(
    RTM_SETLINK,
    NLM_F_REQUEST | NLM_F_ACK,
    ifname,
    mtu === undefined ? [] : [[IFLA_MTU, u32(mtu)]],
  )
  if (up !== undefined) {
    const view = new DataView(request.buffer)
    view.setUint32(NLMSG_HEADER_LENGTH + 8, up ? IFF_UP : 0, true)
    view.setUint32(NLMSG_HEADER_LENGTH + 12, IFF_UP, true)
  }
  const answer = exchange(shim, netnsFd, request)
  if (answer.errno !== 0) throw failed('RTM_SETLINK', ifname, answer)
}

interface Answer {
  readonly errno: number
  readonly message: string
  readonly link: LinkInfo | null
}

function failed(operation: string, ifname: string, answer: Answer): SysError {
  const detail = answer.message === '' ? '' : ` (${answer.message})`
  return new SysError('LINK', `${operation} ${ifname}: ${strerror(answer.errno)}${detail}`, {
    syscall: 'sendmsg',
    errno: answer.errno,
    ifname,
    hint:
      answer.errno === EPERM
        ? 'changing an interface needs CAP_NET_ADMIN in its network namespace'
        : undefined,
  })
}

function exchange(shim: LinkShim, netnsFd: number, request: Uint8Array): Answer {
  const fd = openSocket(shim, netnsFd)
  try {
    const sent = shim.sendMsg(fd, request, 0, request.length, null, 0, 0)
    if (sent < 0) return { errno: -sent, message: '', link: null }
    const data = new Uint8Array(65536)
    const got = shim.recvMsg(fd, data, new Int32Array(1), new Int32Array(2), 0)
    if (got < 0) return { errno: -got, message: '', link: null }
    return parseAnswer(new DataView(data.buffer, 0, got))
  } finally {
    shim.close(fd)
  }
}

/** A message about the link of that name (undefined: all), with further attributes. */
export function linkRequest(
  type: number,
  flags: number,
  ifname: string | undefined,
  attributes: readonly (readonly [number, Uint8Array])[],
): Uint8Array {
  const name = new TextEncoder().encode(`${ifname}\0`)
  const all = ifname === undefined ? attributes : [[IFLA_IFNAME, name] as const, ...attributes]
  const length = all.reduce(
    (sum, [, value]) => sum + 4 + align4(value.length),
    NLMSG_HEADER_LENGTH + IFINFO_LENGTH,
  )
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, length, true)
  view.setUint16(4, type, true)
  view.setUint16(6, flags, true)
  view.setUint32(8, 1, true)
  let at = NLMSG_HEADER_LENGTH + IFINFO_LENGTH
  for (const [attribute, value] of all) {
    view.setUint16(at, 4 + value.length, true)
    view.setUint16(at + 2, attribute, true)
    bytes.set(value, at + 4)
    at += 4 + align4(value.length)
  }
  return bytes
}

/** A question for the link with that index. */
export function indexRequest(ifindex: number, sequence: number): Uint8Array {
  const request = linkRequest(RTM_GETLINK, NLM_F_REQUEST, undefined, [])
  const view = new DataView(request.buffer)
  view.setUint32(8, sequence, true)
  view.setInt32(NLMSG_HEADER_LENGTH + 4, ifindex, true)
  return request
}

export function parseAnswer(view: DataView): Answer {
  const type = view.byteLength >= NLMSG_HEADER_LENGTH ? view.getUint16(4, true) : 0
  if (type === NLMSG_ERROR) {
    const errno = Math.abs(view.getInt32(NLMSG_HEADER_LENGTH, true))
    // Extended ack: attributes behind the request, of which only the header is echoed when CAPPED.
    const isCapped = (view.getUint16(6, true) & NLM_F_CAPPED) !== 0
    const echoed = NLMSG_HEADER_LENGTH + 4
    const echoedLength = isCapped ? NLMSG_HEADER_LENGTH : view.getUint32(echoed, true)
    const attributes = readAttributes(view, echoed + align4(echoedLength))
    const message = attributes.get(NLMSGERR_ATTR_MSG)
    return { errno, message: message === undefined ? '' : readString(message), link: null }
  }
  if (type !== RTM_NEWLINK) return { errno: 71, message: 'unexpected netlink answer', link: null }
  const attributes = readAttributes(view, NLMSG_HEADER_LENGTH + IFINFO_LENGTH)
  const mtu = attributes.get(IFLA_MTU)
  const info = attributes.get(IFLA_LINKINFO)
  const infos = info === undefined ? undefined : readAttributes(info, 0)
  const kind = infos?.get(IFLA_INFO_KIND)
  const kindName = kind === undefined ? '' : readString(kind)
  const ifname = attributes.get(IFLA_IFNAME)
  const link: LinkInfo = {
    ifindex: view.getInt32(NLMSG_HEADER_LENGTH + 4, true),
    ifname: ifname === undefined ? '' : readString(ifname),
    hardware: view.getUint16(NLMSG_HEADER_LENGTH + 2, true),
    master: attributes.get(IFLA_MASTER)?.getUint32(0, true) ?? 0,
    isUp: (view.getUint32(NLMSG_HEADER_LENGTH + 8, true) & IFF_UP) !== 0,
    hasCarrier: (view.getUint32(NLMSG_HEADER_LENGTH + 8, true) & IFF_LOWER_UP) !== 0,
    mtu: mtu === undefined ? 0 : mtu.getUint32(0, true),
    kind: kindName,
    tunQueues: kindName === 'tun' ? countTunQueues(infos!.get(IFLA_INFO_DATA)) : 0,
    rxDropped: readStatistic(attributes.get(IFLA_STATS64), LINK_STATS_RX_DROPPED),
    txDropped: readStatistic(attributes.get(IFLA_STATS64), LINK_STATS_TX_DROPPED),
  }
  return { errno: 0, message: '', link }
}

/** Exact to 2^53. */
function readStatistic(statistics: DataView | undefined, at: number): number {
  if (statistics === undefined || statistics.byteLength < 8 * at + 8) return 0
  return Number(statistics.getBigUint64(8 * at, true))
}

function countTunQueues(data: DataView | undefined): number {
  if (data === undefined) return 0
  const attributes = readAttributes(data, 0)
  const count = (type: number): number => attributes.get(type)?.getUint32(0, true) ?? 0
  return count(IFLA_TUN_NUM_QUEUES) + count(IFLA_TUN_NUM_DISABLED_QUEUES)
}

function readAttributes(view: DataView, from: number): Map<number, DataView> {
  const attributes = new Map<number, DataView>()
  let at = from
  while (at + 4 <= view.byteLength) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > view.byteLength) break
    // The upper bits say "nested" and "network byte order".
    const type = view.getUint16(at + 2, true) & 0x3fff
    attributes.set(type, new DataView(view.buffer, view.byteOffset + at + 4, length - 4))
    at += align4(length)
  }
  return attributes
}

function readString(view: DataView): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

const align4 = (length: number): number => (length + 3) & ~3

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}
