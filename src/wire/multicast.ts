/**
 * The IP header of a frame to a group address, as far as snooping asks for it: to which group the packet goes,
 * behind 0 to 2 VLAN tags, and whether it may be a message about groups (wire/membership.ts reads those on).
 *
 * A group is four words, those of an IPv6 address; of an IPv4 one the last. RFC 1112 §6.4, 2464 §7 (addresses
 * of frames), 4541 §2.1.2, 3 (what is for everybody).
 */
import {
  HOP_BY_HOP,
  IPV4_HEADER_LENGTH,
  IPV4_PROTOCOL,
  IPV6_HEADER_LENGTH,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  read16,
  read32,
} from './headers.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from './ethernet.ts'

/** Two tags and an IPv6 header: so much of a frame is asked for. */
export const MULTICAST_HEADERS: number =
  ETHER_HEADER_LENGTH + 2 * VLAN_TAG_LENGTH + IPV6_HEADER_LENGTH

/** What a frame is: nothing that goes to an IP group; for everybody on the link; for a group; maybe about groups. */
export const NO_GROUP = 0
export const FOR_ALL = 1
export const FOR_GROUP = 2
export const ABOUT_GROUPS = 3

export const IPPROTO_IGMP = 2
export const IPPROTO_PIM = 103

const ETHERTYPE_VLAN = 0x8100
const ETHERTYPE_QINQ = 0x88a8
const ETHERTYPE_IPV4 = 0x0800
const ETHERTYPE_IPV6 = 0x86dd
const TAGS_MAX = 2
const VID_MASK = 0xfff
/** 224.0.0.0/4, 224.0.0.0/24; ff00::/8, ff02::/112 by first word. */
const CLASS_D = 0xe
const LOCAL_MASK = 0xffff_ff00 | 0
const LOCAL_IPV4 = 0xe000_0000 | 0
const IPV6_GROUPS = 0xff
const LINK_LOCAL_GROUPS = 0xff02_0000 | 0
const ALL_NODES = 1
const ALL_ROUTERS = 2
const MDNS = 0xfb

/** Everybody on the link is to have it, whoever has joined: 224.0.0.0/24. @hot */
export function isForAllIpv4(address: number): boolean {
  return (address & LOCAL_MASK) === LOCAL_IPV4
}

/** ff02::1, ff02::2, ff02::fb. @hot */
export function isForAllIpv6(word0: number, word1: number, word2: number, word3: number): boolean {
  if (word0 !== LINK_LOCAL_GROUPS || (word1 | word2) !== 0) return false
  return word3 === ALL_NODES || word3 === ALL_ROUTERS || word3 === MDNS
}

/** @hot */
export function isGroupIpv4(address: number): boolean {
  return address >>> 28 === CLASS_D
}

/** @hot */
export function isGroupIpv6(word0: number): boolean {
  return word0 >>> 24 === IPV6_GROUPS
}

export class MulticastHeader {
  isIpv6 = false
  /** Of the IP header, from the start of the frame. */
  l3 = 0
  /** VID of the tag inside that of the frame's VLAN, 0: there is none. */
  inner = 0
  /** The destination. */
  word0 = 0
  word1 = 0
  word2 = 0
  word3 = 0

  /**
   * Reads the frame at `at`, of which `available` bytes are there, MULTICAST_HEADERS at least if it has them;
   * `hasPushed`: on the switch it has one more tag in front (it came in by a tunnel port). Returns what it is;
   * what cannot be read is NO_GROUP.
   * @hot
   */
  read(bytes: Uint8Array, at: number, available: number, hasPushed: boolean): number {
    let l3 = ETHER_HEADER_LENGTH
    if (available < l3) return NO_GROUP
    let tags = hasPushed ? 1 : 0
    let inner = 0
    let type = read16(bytes, at + l3 - 2)
    while (type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ) {
      if (tags === TAGS_MAX || available < l3 + VLAN_TAG_LENGTH) return NO_GROUP
      if (tags === 1) inner = read16(bytes, at + l3) & VID_MASK
      tags++
      l3 += VLAN_TAG_LENGTH
      type = read16(bytes, at + l3 - 2)
    }
    this.l3 = l3
    this.inner = inner
    if (type === ETHERTYPE_IPV4) return this.#readIpv4(bytes, at + l3, available - l3)
    if (type === ETHERTYPE_IPV6) return this.#readIpv6(bytes, at + l3, available - l3)
    return NO_GROUP
  }

  /** @hot */
  #readIpv4(bytes: Uint8Array, ip: number, available: number): number {
    if (available < IPV4_HEADER_LENGTH || bytes[ip] >>> 4 !== 4) return NO_GROUP
    const address = read32(bytes, ip + 16)
    this.isIpv6 = false
    this.word0 = 0
    this.word1 = 0
    this.word2 = 0
    this.word3 = address
    const protocol = bytes[ip + IPV4_PROTOCOL]
    if (protocol === IPPROTO_IGMP || protocol === IPPROTO_PIM) return ABOUT_GROUPS
    return this.#withoutMessage()
  }

  /** @hot */
  #readIpv6(bytes: Uint8Array, ip: number, available: number): number {
    if (available < IPV6_HEADER_LENGTH || bytes[ip] >>> 4 !== 6) return NO_GROUP
    this.isIpv6 = true
    this.word0 = read32(bytes, ip + 24)
    this.word1 = read32(bytes, ip + 28)
    this.word2 = read32(bytes, ip + 32)
    this.word3 = read32(bytes, ip + 36)
    const next = bytes[ip + IPV6_NEXT_HEADER]
    if (next === HOP_BY_HOP || next === IPPROTO_PIM) {
      if (read16(bytes, ip + IPV6_PAYLOAD_LENGTH) !== 0) return ABOUT_GROUPS
    }
    return this.#withoutMessage()
  }

  /** What it is when there is no message about groups in it. @hot */
  #withoutMessage(): number {
    const { word0, word3 } = this
    if (this.isIpv6) {
      if (!isGroupIpv6(word0)) return NO_GROUP
      return isForAllIpv6(word0, this.word1, this.word2, word3) ? FOR_ALL : FOR_GROUP
    }
    if (!isGroupIpv4(word3)) return NO_GROUP
    return isForAllIpv4(word3) ? FOR_ALL : FOR_GROUP
  }

  /** The same of one that was taken for ABOUT_GROUPS. @hot */
  get destination(): number {
    return this.#withoutMessage()
  }

  /** The frame's destination is the address that belongs to the group. @hot */
  isAddressed(bytes: Uint8Array, at: number): boolean {
    const { word3 } = this
    if (this.isIpv6) return read16(bytes, at) === 0x3333 && read32(bytes, at + 2) === word3
    const isPrefix = read16(bytes, at) === 0x0100 && bytes[at + 2] === 0x5e
    return isPrefix && (read32(bytes, at + 2) & 0x00ff_ffff) === (word3 & 0x007f_ffff)
  }
}
