/**
 * Looks at a frame of a guarded port: whether it says that it is from somebody else. Whatever cannot be read to
 * the end of what is asked about is refused, however harmless it may be: a receiver might read it otherwise.
 *
 *     tags, LLC -> ARP, RARP
 *               -> IPv4: source, UDP ports, ICMP type
 *               -> IPv6: source, extension headers -> UDP ports, ICMPv6 type, neighbour discovery
 *
 * RFC 826, 5227 (ARP); 791, 2131 (DHCP); 8200, 4861 (ND), 6980 (no fragments of ND), 7113 (RA guard), 7610
 * (DHCPv6 shield).
 */
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import {
  AUTHENTICATION,
  FRAGMENT,
  IPPROTO_UDP,
  IPV4_FRAGMENT,
  IPV4_HEADER_LENGTH,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_LENGTH,
  IPV6_PAYLOAD_LENGTH,
  read16,
  read32,
  isIpv6Extension,
} from '../wire/headers.ts'
import type { Burst } from '../mem/burst.ts'
import { isGso } from '../wire/vnet-hdr.ts'
import type { GuardRules } from './guard-rules.ts'
import {
  GUARD_ARP,
  GUARD_DHCP,
  GUARD_IPV4,
  GUARD_IPV6,
  GUARD_MAC,
  GUARD_RA,
} from './guard-rules.ts'

/** Why a frame is refused; 0: it is not. */
export const PASSES = 0
export const BAD_MAC = 1
export const BAD_FORM = 2
export const BAD_ARP = 3
export const BAD_IPV4 = 4
export const BAD_IPV6 = 5
export const BAD_NEIGHBOUR = 6
export const BAD_DHCP = 7
export const BAD_ROUTER = 8
export const REASONS = 9

const SOURCE_AT = 6
const TAGS_MAX = 2
export const ETHERTYPE_MIN = 0x600
const LLC_LENGTH_MAX = 1500
export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const ETHERTYPE_RARP = 0x8035
export const ETHERTYPE_IPV6 = 0x86dd
/** SAPs; those of IP and ARP nobody should use (RFC 1042). */
const LLC_SNAP = 0xaa
const LLC_IP = 0x06
const LLC_ARP = 0x98
const LLC_SNAP_LENGTH = 8
/** Without the bit that means a group (DSAP): receivers look at the rest, and not at the sender's SAP. */
const LLC_SAP_MASK = 0xfe

const ARP_LENGTH = 28
/** Ethernet, and IPv4 addresses; lengths of both. */
const ARP_HARDWARE = 0x0001_0800
const ARP_LENGTHS = 0x0604
const ARP_REQUEST = 1
const ARP_REPLY = 2
const RARP_REQUEST = 3

export const IPPROTO_ICMP = 1
const ICMP_REDIRECT = 5
const ICMP_ROUTER_ADVERTISEMENT = 9
const FRAGMENT_OFFSET_MASK = 0x1fff
const FRAGMENT_MASK = 0x3fff
export const DHCP_SERVER = 67
export const DHCP_CLIENT = 68
export const DHCPV6_SERVER = 547
export const DHCPV6_CLIENT = 546
/** Of UDP, and what of ICMP is looked at. */
export const L4_LENGTH = 8

export const ICMPV6 = 58
const IPV6_FRAGMENT_OFFSET_MASK = 0xfff8

const MLD_REPORT = 131
const ROUTER_SOLICITATION = 133
const ROUTER_ADVERTISEMENT = 134
const NEIGHBOUR_SOLICITATION = 135
const NEIGHBOUR_ADVERTISEMENT = 136
const REDIRECT = 137
const MLDV2_REPORT = 143
const OPTION_SOURCE_LINK = 1
const OPTION_TARGET_LINK = 2

/** Returns why frame k of the burst is refused, or PASSES. @hot */
export function checkOf(rules: GuardRules, burst: Burst, k: number): number {
  const { headers } = burst
  const isCut = isGso(burst.gso[k])
  const at = headers.at(k)
  return checkFrame(rules, headers.bytes, at, headers.available(k), burst.length[k], isCut)
}

/** Returns why frame `at` of so many bytes, of which `available` are there, is refused, or PASSES. @hot */
export function checkFrame(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  available: number,
  length: number,
  isGso: boolean,
): number {
  const { checks } = rules
  if ((checks & GUARD_MAC) !== 0 && !rules.isMac(bytes, at + SOURCE_AT)) return BAD_MAC
  if ((checks & ~GUARD_MAC) === 0) return PASSES
  let l3 = ETHER_HEADER_LENGTH
  let type = read16(bytes, at + l3 - 2)
  for (let tags = 0; isTag(type); tags++) {
    l3 += VLAN_TAG_LENGTH
    if (tags === TAGS_MAX || available < l3) return BAD_FORM
    type = read16(bytes, at + l3 - 2)
  }
  switch (type) {
    case ETHERTYPE_IPV4:
      return checkIpv4(rules, bytes, at, l3, available, length, isGso)
    case ETHERTYPE_IPV6:
      return checkIpv6(rules, bytes, at, l3, available, length, isGso)
    case ETHERTYPE_ARP:
    case ETHERTYPE_RARP:
      return (checks & GUARD_ARP) === 0 ? PASSES : checkArp(rules, bytes, at, l3, available, type)
    default:
      return type < ETHERTYPE_MIN ? checkLlc(bytes, at + l3, available - l3, type) : PASSES
  }
}

/** Of a tag, whoever might take it off. @hot */
export function isTag(type: number): boolean {
  return (
    type === 0x8100 || type === 0x88a8 || (type >= 0x9100 && type <= 0x9300 && (type & 0xff) === 0)
  )
}

/** A length in the place of the type: what is known here by its type may not come in that form. @hot */
function checkLlc(bytes: Uint8Array, at: number, available: number, type: number): number {
  if (type > LLC_LENGTH_MAX || available < 3) return BAD_FORM
  const sap = bytes[at] & LLC_SAP_MASK
  if (sap === LLC_IP || sap === LLC_ARP) return BAD_FORM
  if (sap !== LLC_SNAP) return PASSES
  if (available < LLC_SNAP_LENGTH) return BAD_FORM
  const inner = read16(bytes, at + LLC_SNAP_LENGTH - 2)
  const isKnown =
    inner === ETHERTYPE_IPV4 ||
    inner === ETHERTYPE_IPV6 ||
    inner === ETHERTYPE_ARP ||
    inner === ETHERTYPE_RARP ||
    isTag(inner)
  return isKnown ? BAD_FORM : PASSES
}

/** The sender of ARP, and of a RARP request, which announces a guest that has moved. @hot */
function checkArp(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  l3: number,
  available: number,
  type: number,
): number {
  const arp = at + l3
  if (available < l3 + ARP_LENGTH) return BAD_FORM
  if (read32(bytes, arp) !== ARP_HARDWARE || read16(bytes, arp + 4) !== ARP_LENGTHS) return BAD_FORM
  const sender = arp + 8
  for (let n = 0; n < 6; n++) if (bytes[sender + n] !== bytes[at + SOURCE_AT + n]) return BAD_ARP
  if (rules.hasMacs && !rules.isMac(bytes, sender)) return BAD_ARP
  const operation = read16(bytes, arp + 6)
  if (type === ETHERTYPE_RARP) return operation === RARP_REQUEST ? PASSES : BAD_ARP
  if (operation !== ARP_REQUEST && operation !== ARP_REPLY) return BAD_ARP
  if (rules.isIpv4(bytes, arp + 14)) return PASSES
  // A probe asks whether somebody has the address that it is about.
  const isProbe = operation === ARP_REQUEST && read32(bytes, arp + 14) === 0
  return isProbe && rules.isIpv4(bytes, arp + 24) ? PASSES : BAD_ARP
}

/** @hot */
function checkIpv4(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  l3: number,
  available: number,
  length: number,
  isGso: boolean,
): number {
  const { checks } = rules
  if ((checks & (GUARD_IPV4 | GUARD_DHCP | GUARD_RA)) === 0) return PASSES
  const ip = at + l3
  if (available < l3 + IPV4_HEADER_LENGTH || bytes[ip] >>> 4 !== 4) return BAD_FORM
  const headerLength = (bytes[ip] & 0x0f) << 2
  // A GSO frame is as long as it is, whatever it says; what stands behind another packet is padding.
  const total = isGso ? length - l3 : read16(bytes, ip + IPV4_TOTAL_LENGTH)
  if (headerLength < IPV4_HEADER_LENGTH || total < headerLength || total > length - l3) {
    return BAD_FORM
  }
  const protocol = bytes[ip + 9]
  const fragment = read16(bytes, ip + IPV4_FRAGMENT)
  const isOwn = (checks & GUARD_IPV4) === 0 || rules.isIpv4(bytes, ip + 12)
  // Without a header of its own it belongs to one that was looked at, or never becomes whole.
  if ((fragment & FRAGMENT_OFFSET_MASK) !== 0) return isOwn ? PASSES : BAD_IPV4
  const l4 = l3 + headerLength
  const isLookedInto = protocol === IPPROTO_UDP || protocol === IPPROTO_ICMP
  if (isLookedInto && (total < headerLength + L4_LENGTH || available < l4 + L4_LENGTH)) {
    return BAD_FORM
  }
  if (!isOwn) {
    const isWhole = (fragment & FRAGMENT_MASK) === 0
    return isWhole && protocol === IPPROTO_UDP && isDhcpDiscovery(bytes, ip, at + l4)
      ? PASSES
      : BAD_IPV4
  }
  if ((checks & GUARD_DHCP) !== 0 && protocol === IPPROTO_UDP) {
    if (isFromServer(bytes, at + l4, DHCP_SERVER, DHCP_CLIENT)) return BAD_DHCP
  }
  if ((checks & GUARD_RA) !== 0 && protocol === IPPROTO_ICMP) {
    const icmp = bytes[at + l4]
    if (icmp === ICMP_REDIRECT || icmp === ICMP_ROUTER_ADVERTISEMENT) return BAD_ROUTER
  }
  return PASSES
}

/** From nobody to everybody, from the client's port to the server's. @hot */
function isDhcpDiscovery(bytes: Uint8Array, ip: number, udp: number): boolean {
  return (
    read32(bytes, ip + 12) === 0 &&
    read32(bytes, ip + 16) === -1 &&
    read16(bytes, udp) === DHCP_CLIENT &&
    read16(bytes, udp + 2) === DHCP_SERVER
  )
}

/** By its own port or by the one that it is for, which no client sends to. @hot */
function isFromServer(bytes: Uint8Array, udp: number, server: number, client: number): boolean {
  return read16(bytes, udp) === server || read16(bytes, udp + 2) === client
}

/** @hot */
function checkIpv6(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  l3: number,
  available: number,
  length: number,
  isGso: boolean,
): number {
  const { checks } = rules
  if ((checks & (GUARD_IPV6 | GUARD_DHCP | GUARD_RA)) === 0) return PASSES
  const ip = at + l3
  if (available < l3 + IPV6_HEADER_LENGTH || bytes[ip] >>> 4 !== 6) return BAD_FORM
  const said = l3 + IPV6_HEADER_LENGTH + read16(bytes, ip + IPV6_PAYLOAD_LENGTH)
  if (!isGso && said > length) return BAD_FORM
  // What stands behind the packet is padding, and no header is looked for in it.
  const end = isGso ? length : said
  const readable = end < available ? end : available
  let next = bytes[ip + 6]
  let l4 = l3 + IPV6_HEADER_LENGTH
  let isFragment = false
  let isFirst = true
  while (isIpv6Extension(next)) {
    if (l4 + L4_LENGTH > readable) return BAD_FORM
    const header = at + l4
    if (next === FRAGMENT) {
      isFragment = true
      isFirst = (read16(bytes, header + 2) & IPV6_FRAGMENT_OFFSET_MASK) === 0
      l4 += L4_LENGTH
    } else if (next === AUTHENTICATION) l4 += (bytes[header + 1] + 2) << 2
    else l4 += (bytes[header + 1] + 1) << 3
    next = bytes[header]
    if (!isFirst) break
  }
  const isIcmp = next === ICMPV6
  // Of the first part of a packet everything up to here is there, or it is refused.
  const isLookedInto = isFirst && (isIcmp || next === IPPROTO_UDP)
  if (l4 > readable || (isLookedInto && l4 + L4_LENGTH > readable)) return BAD_FORM
  const type = isFirst && isIcmp ? bytes[at + l4] : 0
  if ((checks & GUARD_RA) !== 0 && (type === ROUTER_ADVERTISEMENT || type === REDIRECT)) {
    return BAD_ROUTER
  }
  if ((checks & GUARD_DHCP) !== 0 && isFirst && next === IPPROTO_UDP) {
    if (isFromServer(bytes, at + l4, DHCPV6_SERVER, DHCPV6_CLIENT)) return BAD_DHCP
  }
  if ((checks & GUARD_IPV6) === 0) return PASSES
  const isNameless = isUnspecified(bytes, ip + 8)
  if (isNameless ? !isForNameless(type) || isFragment : !rules.isIpv6(bytes, ip + 8)) {
    return BAD_IPV6
  }
  const isNeighbour =
    type === NEIGHBOUR_SOLICITATION ||
    type === NEIGHBOUR_ADVERTISEMENT ||
    type === ROUTER_SOLICITATION
  if (!isNeighbour) return PASSES
  if (isFragment || end > available) return BAD_NEIGHBOUR
  return checkNeighbour(rules, bytes, at, l4, end, type, isNameless)
}

/** What comes from :: while there is no address yet: RFC 4861, 4862, 3590, 3810. @hot */
function isForNameless(type: number): boolean {
  return (
    type === NEIGHBOUR_SOLICITATION ||
    type === ROUTER_SOLICITATION ||
    type === MLDV2_REPORT ||
    type === MLD_REPORT
  )
}

/** @hot */
function isUnspecified(bytes: Uint8Array, at: number): boolean {
  return (
    (read32(bytes, at) | read32(bytes, at + 4) | read32(bytes, at + 8) | read32(bytes, at + 12)) ===
    0
  )
}

/** Target, and the link-layer address of the sender, of neighbour discovery that ends at `end`. @hot */
function checkNeighbour(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  l4: number,
  end: number,
  type: number,
  isNameless: boolean,
): number {
  let option = l4 + L4_LENGTH
  if (type === NEIGHBOUR_SOLICITATION || type === NEIGHBOUR_ADVERTISEMENT) {
    option += 16
    if (option > end) return BAD_FORM
    // Who has no address yet asks for its own.
    const isAbout = type === NEIGHBOUR_ADVERTISEMENT || isNameless
    if (isAbout && !rules.isIpv6(bytes, at + l4 + L4_LENGTH)) return BAD_NEIGHBOUR
  }
  while (option < end) {
    if (option + 2 > end) return BAD_FORM
    const kind = bytes[at + option]
    const optionLength = bytes[at + option + 1] << 3
    if (optionLength === 0 || option + optionLength > end) return BAD_FORM
    if (kind === OPTION_SOURCE_LINK || kind === OPTION_TARGET_LINK) {
      const address = at + option + 2
      for (let n = 0; n < 6; n++) {
        if (bytes[address + n] !== bytes[at + SOURCE_AT + n]) return BAD_NEIGHBOUR
      }
      if (rules.hasMacs && !rules.isMac(bytes, address)) return BAD_NEIGHBOUR
    }
    option += optionLength
  }
  return PASSES
}
