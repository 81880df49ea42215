/** Multicast, and messages about its groups: IGMP, MLD, multicast router discovery, PIM. */
import { ip4, ip6 } from './guard-frames.ts'
import { referenceSum } from './ip-frames.ts'
import type { TagLike } from './vlan-frames.ts'
import { tagged } from './vlan-frames.ts'

const u16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff]

export interface GroupFrameParts {
  /** Last byte of the sender's MAC address, and of its IP address. */
  readonly from?: number
  /** Of the sender, instead. */
  readonly source?: string
  /** Of the IP packet, instead of where such a message goes. */
  readonly to?: string
  /** Of the frame, as octets, instead of the one that belongs to the packet's. */
  readonly mac?: readonly number[]
  readonly tags?: readonly TagLike[]
  /** Added to the checksum of the message, and of the IPv4 header: makes it wrong. */
  readonly wrong?: number
  readonly wrongHeader?: number
  readonly ttl?: number
  /** Of IPv4: options, which IGMP mostly has; flags and offset of a fragment. */
  readonly options?: readonly number[]
  readonly fragment?: number
  /** Of IPv6: all headers between it and the message, with the type of the first. */
  readonly extensions?: readonly [type: number, bytes: readonly number[]]
}

/** Router alert; RFC 2113, and 2711 behind a next header of ICMPv6. */
export const ALERT_IPV4: readonly number[] = [0x94, 4, 0, 0]
export const ALERT_IPV6: readonly number[] = [58, 0, 5, 2, 0, 0, 1, 0]

function withSum(message: readonly number[], at: number, before: number, wrong: number): number[] {
  const sum = (~referenceSum(Uint8Array.from(message), before) + wrong) & 0xffff
  return [...message.slice(0, at), ...u16(sum), ...message.slice(at + 2)]
}

const macOf = (group: readonly number[]): readonly number[] =>
  group.length === 4
    ? [1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]]
    : [0x33, 0x33, ...group.slice(12)]

function framed(
  packet: number[],
  group: number[],
  type: number,
  parts: GroupFrameParts,
): Uint8Array {
  const { from = 1, mac = macOf(group), tags = [] } = parts
  const bytes = [...mac, 2, 0, 0, 0, 0, from, ...u16(type), ...packet]
  while (bytes.length < 60) bytes.push(0)
  return tagged(Uint8Array.from(bytes), ...tags)
}

/** An IPv4 packet; `sumAt`: where in the message its checksum is, -1: it has none. */
export function ipv4Frame(
  protocol: number,
  to: string,
  message: readonly number[],
  sumAt: number,
  parts: GroupFrameParts = {},
): Uint8Array {
  const { from = 1, ttl = 1, options = ALERT_IPV4, fragment = 0 } = parts
  const { wrong = 0, wrongHeader = 0 } = parts
  const { source = `10.0.0.${from}` } = parts
  const group = ip4(parts.to ?? to)
  const ihl = 5 + options.length / 4
  const total = ihl * 4 + message.length
  const head = [0x40 | ihl, 0xc0, ...u16(total), 0, 0, ...u16(fragment), ttl, protocol, 0, 0]
  const header = withSum([...head, ...ip4(source), ...group, ...options], 10, 0, wrongHeader)
  const summed = sumAt < 0 ? message : withSum(message, sumAt, 0, wrong)
  return framed([...header, ...summed], group, 0x0800, parts)
}

export function ipv6Frame(
  protocol: number,
  to: string,
  message: readonly number[],
  sumAt: number,
  parts: GroupFrameParts = {},
): Uint8Array {
  const { from = 1, ttl = 1, wrong = 0, extensions = [protocol, []] } = parts
  const { source = `fe80::${from.toString(16)}` } = parts
  const group = ip6(parts.to ?? to)
  const addresses = [...ip6(source), ...group]
  const [next, between] = extensions
  const length = between.length + message.length
  const header = [0x60, 0, 0, 0, ...u16(length), next, ttl, ...addresses]
  const pseudo = referenceSum(Uint8Array.from(addresses), message.length + protocol)
  const summed = sumAt < 0 ? message : withSum(message, sumAt, pseudo, wrong)
  return framed([...header, ...between, ...summed], group, 0x86dd, parts)
}

const igmp = (to: string, message: readonly number[], parts?: GroupFrameParts): Uint8Array =>
  ipv4Frame(2, to, message, 2, parts)

export const igmpV1Report = (group: string, parts?: GroupFrameParts): Uint8Array =>
  igmp(group, [0x12, 0, 0, 0, ...ip4(group)], parts)
export const igmpReport = (group: string, parts?: GroupFrameParts): Uint8Array =>
  igmp(group, [0x16, 0, 0, 0, ...ip4(group)], parts)
export const igmpLeave = (group: string, parts?: GroupFrameParts): Uint8Array =>
  igmp('224.0.0.2', [0x17, 0, 0, 0, ...ip4(group)], parts)

/** Types of records of IGMPv3 and MLDv2. */
export const RECORD = { isIn: 1, isEx: 2, toIn: 3, toEx: 4, allow: 5, block: 6 } as const
export interface GroupRecord {
  readonly type: number
  readonly group: string
  readonly sources?: readonly string[]
  /** Words of auxiliary data. */
  readonly auxiliary?: number
}

const records = (list: readonly GroupRecord[], address: (text: string) => number[]): number[] =>
  list.flatMap(({ type, group, sources = [], auxiliary = 0 }) => [
    type,
    auxiliary,
    ...u16(sources.length),
    ...address(group),
    ...sources.flatMap(address),
    ...Array<number>(4 * auxiliary).fill(0xee),
  ])

export const igmpV3Report = (list: readonly GroupRecord[], parts?: GroupFrameParts): Uint8Array =>
  igmp('224.0.0.22', [0x22, 0, 0, 0, 0, 0, ...u16(list.length), ...records(list, ip4)], parts)

export interface QueryParts extends GroupFrameParts {
  readonly group?: string
  /** As it stands in the message: tenths of a second, or milliseconds of MLD. */
  readonly code?: number
  /** Of IGMPv3 and MLDv2. */
  readonly robustness?: number
  readonly intervalCode?: number
  readonly isSuppressing?: boolean
  readonly sources?: readonly string[]
}

const queryTail = (parts: QueryParts, address: (text: string) => number[]): number[] => {
  const { robustness = 2, intervalCode = 125, isSuppressing = false, sources = [] } = parts
  const flags = (isSuppressing ? 8 : 0) | robustness
  return [flags, intervalCode, ...u16(sources.length), ...sources.flatMap(address)]
}

export const igmpQuery = (parts: QueryParts = {}): Uint8Array => {
  const { group = '0.0.0.0', code = 1 } = parts
  const to = group === '0.0.0.0' ? '224.0.0.1' : group
  return igmp(to, [0x11, code, 0, 0, ...ip4(group)], { from: 99, ...parts })
}
export const igmpV3Query = (parts: QueryParts = {}): Uint8Array => {
  const { group = '0.0.0.0', code = 1 } = parts
  const to = group === '0.0.0.0' ? '224.0.0.1' : group
  const message = [0x11, code, 0, 0, ...ip4(group), ...queryTail(parts, ip4)]
  return igmp(to, message, { from: 99, ...parts })
}

const mld = (to: string, message: readonly number[], parts: GroupFrameParts = {}): Uint8Array =>
  ipv6Frame(58, to, message, 2, { extensions: [0, ALERT_IPV6], ...parts })

export const mldReport = (group: string, parts?: GroupFrameParts): Uint8Array =>
  mld(group, [131, 0, 0, 0, 0, 0, 0, 0, ...ip6(group)], parts)
export const mldDone = (group: string, parts?: GroupFrameParts): Uint8Array =>
  mld('ff02::2', [132, 0, 0, 0, 0, 0, 0, 0, ...ip6(group)], parts)
export const mldV2Report = (list: readonly GroupRecord[], parts?: GroupFrameParts): Uint8Array =>
  mld('ff02::16', [143, 0, 0, 0, 0, 0, ...u16(list.length), ...records(list, ip6)], parts)
export const mldQuery = (parts: QueryParts = {}): Uint8Array => {
  const { group = '::', code = 100 } = parts
  const to = group === '::' ? 'ff02::1' : group
  return mld(to, [130, 0, 0, 0, ...u16(code), 0, 0, ...ip6(group)], { from: 99, ...parts })
}
export const mldV2Query = (parts: QueryParts = {}): Uint8Array => {
  const { group = '::', code = 100 } = parts
  const to = group === '::' ? 'ff02::1' : group
  const message = [130, 0, 0, 0, ...u16(code), 0, 0, ...ip6(group), ...queryTail(parts, ip6)]
  return mld(to, message, { from: 99, ...parts })
}

/** 0x30: a router is there; 0x32: it goes. */
export const igmpRouter = (type: number, parts?: GroupFrameParts): Uint8Array =>
  igmp('224.0.0.106', [type, 20, 0, 0, 0, 0, 0, 0], parts)
/** 151: a router is there; 153: it goes. */
export const icmpV6Router = (type: number, parts?: GroupFrameParts): Uint8Array =>
  mld('ff02::6a', [type, 20, 0, 0, 0, 0, 0, 0], parts)
export const pimHello = (parts?: GroupFrameParts): Uint8Array =>
  ipv4Frame(103, '224.0.0.13', [0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105], 2, { options: [], ...parts })
export const pimV6Hello = (parts?: GroupFrameParts): Uint8Array =>
  ipv6Frame(103, 'ff02::d', [0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105], 2, parts)

const UDP: readonly number[] = [0x13, 0x88, 0x13, 0x89, 0, 12, 0, 0, 1, 2, 3, 4]

/** A datagram for a group. */
export const toGroup = (group: string, parts: GroupFrameParts = {}): Uint8Array =>
  group.includes(':')
    ? ipv6Frame(17, group, UDP, -1, { ttl: 16, ...parts })
    : ipv4Frame(17, group, UDP, -1, { ttl: 16, options: [], ...parts })
