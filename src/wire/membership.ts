/**
 * Messages about multicast groups, as a snooping switch reads them from a whole frame: who joins and leaves
 * which, and behind which port routers are. All of it comes from people whom nobody trusts: nothing is
 * believed of a message that is cut off, contradicts itself or has a wrong checksum.
 *
 *     IGMP     RFC 1112 (v1), 2236 (v2), 3376 (v3), in IPv4, protocol 2
 *     MLD      RFC 2710 (v1), 3810 (v2), ICMPv6 right behind hop-by-hop options with a router alert
 *     MRD      RFC 4286, advertisements and terminations of routers, in both
 *     PIM      RFC 7761 §4.3, hellos
 *
 *     read -> REPORT:  nextRecord -> wants, word0..word3 ... false
 *          -> QUERY:   word0..word3 (0: of all groups), times, who asks
 */
import {
  fold,
  HOP_BY_HOP,
  IPV4_FRAGMENT,
  IPV4_HEADER_LENGTH,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderSum,
  IPV6_HEADER_LENGTH,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  pseudoSum,
  read16,
  read32,
} from './headers.ts'
import type { MulticastHeader } from './multicast.ts'
import { IPPROTO_IGMP, IPPROTO_PIM } from './multicast.ts'

/** What a frame is. It is nothing of all this. */
export const NO_MESSAGE = 0
/** It is meant to be, and is wrong. */
export const BAD_MESSAGE = 1
/** Somebody joins or leaves. */
export const REPORT = 2
export const QUERY = 3
/** A router says that it is there, or that it goes. */
export const ROUTER_HERE = 4
export const ROUTER_GONE = 5
/** Of IGMP, and not known here: for everybody (RFC 4541 §2.1.1). */
export const OTHER_MESSAGE = 6

/** What a record of a report says of its group. */
export const WANTS_IT = 1
export const WANTS_IT_NOT = 2
/** It changes nothing: sources that are blocked, an unknown type. */
export const SAYS_NOTHING = 0

const IGMP_QUERY = 0x11
const IGMPV1_REPORT = 0x12
const IGMPV2_REPORT = 0x16
const IGMPV2_LEAVE = 0x17
const IGMPV3_REPORT = 0x22
const IGMP_ROUTER_ADVERTISEMENT = 0x30
const IGMP_ROUTER_SOLICITATION = 0x31
const IGMP_ROUTER_TERMINATION = 0x32
const IGMP_LENGTH = 8
const IGMPV3_QUERY_LENGTH = 12
const FRAGMENT_MASK = 0x3fff

const ICMPV6 = 58
const MLD_QUERY = 130
const MLD_REPORT = 131
const MLD_DONE = 132
const MLDV2_REPORT = 143
const ICMPV6_ROUTER_ADVERTISEMENT = 151
const ICMPV6_ROUTER_TERMINATION = 153
const ICMPV6_LENGTH = 8
const MLD_LENGTH = 24
const MLDV2_QUERY_LENGTH = 28
const PAD1 = 0
const ROUTER_ALERT = 5
const LINK_LOCAL_MASK = 0xffc0_0000 | 0
const LINK_LOCAL = 0xfe80_0000 | 0

const ALL_HOSTS = 0xe000_0001 | 0
const ALL_NODES = 1
const ALL_PIM_ROUTERS = 13
const ALL_SNOOPERS = 0x6a
const LOCAL_GROUPS = 0xe000_0000 | 0
/** First byte of PIM version 2, a hello. */
const PIM_HELLO = 0x20
const PIM_LENGTH = 4

/** Types of records. RFC 3376 §4.2.12, 3810 §5.2.12. */
const MODE_IS_INCLUDE = 1
const MODE_IS_EXCLUDE = 2
const CHANGE_TO_INCLUDE = 3
const CHANGE_TO_EXCLUDE = 4
const ALLOW_NEW_SOURCES = 5

/** What a query means that does not say: RFC 3376 §8, 1112. */
const ROBUSTNESS = 2
const QUERY_INTERVAL_S = 125
const V1_RESPONSE_DS = 100

export class MembershipMessage {
  /** Of a record, or a query: the group. */
  word0 = 0
  word1 = 0
  word2 = 0
  word3 = 0
  /** Of a query: how long hosts may take to answer, in tenths of a second. */
  responseDs = 0
  /** Of a query: how many messages may get lost, and seconds to the next one. */
  robustness: number = ROBUSTNESS
  intervalS: number = QUERY_INTERVAL_S
  /** Of a query: it asks about some sources only, or routers are not to heed it: nobody leaves because of it. */
  isPartial = false
  /** Who sends it; zeros: nobody who has an address. */
  source0 = 0
  source1 = 0
  source2 = 0
  source3 = 0
  #bytes: Uint8Array = new Uint8Array(0)
  /** Of records that follow: where, how many, whether they are those of IGMPv3 or MLDv2, bytes of an address. */
  #next = 0
  #records = 0
  #hasRecords = false
  #addressLength = 4
  /** What the one record of a message without records says. */
  #wants = 0

  /** Which of the constants a frame of `length` bytes at `at` is, all of which are there. @hot */
  read(bytes: Uint8Array, at: number, length: number, header: MulticastHeader): number {
    this.#bytes = bytes
    this.#records = 0
    const ip = at + header.l3
    const left = length - header.l3
    return header.isIpv6
      ? this.#readIpv6(bytes, at, ip, left, header)
      : this.#readIpv4(bytes, at, ip, left, header)
  }

  /** @hot */
  #readIpv4(
    bytes: Uint8Array,
    at: number,
    ip: number,
    left: number,
    header: MulticastHeader,
  ): number {
    if (left < IPV4_HEADER_LENGTH) return BAD_MESSAGE
    const isPim = bytes[ip + IPV4_PROTOCOL] === IPPROTO_PIM
    if (!isPim && bytes[ip + IPV4_PROTOCOL] !== IPPROTO_IGMP) return NO_MESSAGE
    const headerLength = (bytes[ip] & 0x0f) << 2
    const total = read16(bytes, ip + IPV4_TOTAL_LENGTH)
    const isWhole =
      bytes[ip] >>> 4 === 4 &&
      headerLength >= IPV4_HEADER_LENGTH &&
      headerLength <= total &&
      total <= left &&
      (read16(bytes, ip + IPV4_FRAGMENT) & FRAGMENT_MASK) === 0 &&
      ipv4HeaderSum(bytes, ip) === 0xffff
    const message = ip + headerLength
    const size = total - headerLength
    const isGood = isWhole && sum(bytes, message, size, 0) === 0xffff
    if (isPim) {
      const isHello =
        header.word3 === (LOCAL_GROUPS | ALL_PIM_ROUTERS) && header.isAddressed(bytes, at)
      return isGood && isHello && isPimHello(bytes, message, size) ? ROUTER_HERE : NO_MESSAGE
    }
    if (!isGood || size < IGMP_LENGTH) return BAD_MESSAGE
    this.source0 = 0
    this.source1 = 0
    this.source2 = 0
    this.source3 = read32(bytes, ip + 12)
    this.#addressLength = 4
    const isAddressed = header.isAddressed(bytes, at)
    switch (bytes[message]) {
      case IGMP_QUERY:
        return this.#readIgmpQuery(bytes, message, size, isAddressed ? header.word3 : 0)
      case IGMPV1_REPORT:
      case IGMPV2_REPORT:
        return this.#oneRecord(message + 4, WANTS_IT)
      case IGMPV2_LEAVE:
        return this.#oneRecord(message + 4, WANTS_IT_NOT)
      case IGMPV3_REPORT:
        return this.#readRecords(bytes, message, size)
      case IGMP_ROUTER_ADVERTISEMENT:
      case IGMP_ROUTER_SOLICITATION:
      case IGMP_ROUTER_TERMINATION:
        if (!isAddressed || header.word3 !== (LOCAL_GROUPS | ALL_SNOOPERS)) return OTHER_MESSAGE
        return routerMessage(bytes[message], IGMP_ROUTER_ADVERTISEMENT, IGMP_ROUTER_TERMINATION)
      default:
        return OTHER_MESSAGE
    }
  }

  /** `to`: the destination, if the frame was addressed to it. RFC 3376 §7.1. @hot */
  #readIgmpQuery(bytes: Uint8Array, at: number, size: number, to: number): number {
    const code = bytes[at + 1]
    this.#setGroup(bytes, at + 4)
    if (size === IGMP_LENGTH) {
      // Of version 1 there is no time, and the group is to be ignored.
      if (code === 0) this.word3 = 0
      this.#setDefaults(code === 0 ? V1_RESPONSE_DS : code)
    } else {
      if (size < IGMPV3_QUERY_LENGTH) return BAD_MESSAGE
      const sources = read16(bytes, at + 10)
      if (IGMPV3_QUERY_LENGTH + 4 * sources > size) return BAD_MESSAGE
      this.#setTimes(bytes, at + 8, sources, timeOf8(code))
    }
    // Who does not hear the query cannot answer it.
    const isHeard = to === ALL_HOSTS || (this.word3 !== 0 && to === this.word3)
    return isHeard ? QUERY : OTHER_MESSAGE
  }

  /** @hot */
  #readIpv6(
    bytes: Uint8Array,
    at: number,
    ip: number,
    left: number,
    header: MulticastHeader,
  ): number {
    if (left < IPV6_HEADER_LENGTH) return NO_MESSAGE
    const payload = read16(bytes, ip + IPV6_PAYLOAD_LENGTH)
    const options = ip + IPV6_HEADER_LENGTH
    if (bytes[ip] >>> 4 !== 6 || IPV6_HEADER_LENGTH + payload > left) return NO_MESSAGE
    if (bytes[ip + IPV6_NEXT_HEADER] === IPPROTO_PIM) {
      return isPimHello(bytes, options, payload) &&
        isLinkLocalGroup(header, ALL_PIM_ROUTERS) &&
        header.isAddressed(bytes, at) &&
        sum(bytes, options, payload, pseudoSum(bytes, ip, true, IPPROTO_PIM) + payload) === 0xffff
        ? ROUTER_HERE
        : NO_MESSAGE
    }
    if (bytes[ip + IPV6_NEXT_HEADER] !== HOP_BY_HOP || payload < 8) return NO_MESSAGE
    const optionsLength = (bytes[options + 1] + 1) << 3
    if (bytes[options] !== ICMPV6 || optionsLength + ICMPV6_LENGTH > payload) return NO_MESSAGE
    const message = options + optionsLength
    const type = bytes[message]
    if (!isAboutGroups(type)) return NO_MESSAGE
    const size = payload - optionsLength
    const isGood =
      bytes[ip + 7] === 1 &&
      hasRouterAlert(bytes, options, optionsLength) &&
      sum(bytes, message, size, pseudoSum(bytes, ip, true, ICMPV6) + size) === 0xffff
    if (!isGood) return BAD_MESSAGE
    this.source0 = read32(bytes, ip + 8)
    this.source1 = read32(bytes, ip + 12)
    this.source2 = read32(bytes, ip + 16)
    this.source3 = read32(bytes, ip + 20)
    this.#addressLength = 16
    if (type === MLDV2_REPORT) return this.#readRecords(bytes, message, size)
    if (type >= ICMPV6_ROUTER_ADVERTISEMENT) {
      const isHeard = isLinkLocalGroup(header, ALL_SNOOPERS) && header.isAddressed(bytes, at)
      if (!isHeard) return NO_MESSAGE
      return type === ICMPV6_ROUTER_ADVERTISEMENT ? ROUTER_HERE : ROUTER_GONE
    }
    if (size < MLD_LENGTH) return BAD_MESSAGE
    if (type === MLD_REPORT) return this.#oneRecord(message + 8, WANTS_IT)
    if (type === MLD_DONE) return this.#oneRecord(message + 8, WANTS_IT_NOT)
    return this.#readMldQuery(bytes, at, message, size, header)
  }

  /** RFC 2710 §3, 3810 §5.1, 8.1. @hot */
  #readMldQuery(
    bytes: Uint8Array,
    at: number,
    message: number,
    size: number,
    header: MulticastHeader,
  ): number {
    if ((this.source0 & LINK_LOCAL_MASK) !== LINK_LOCAL) return BAD_MESSAGE
    this.#setGroup(bytes, message + 8)
    const code = read16(bytes, message + 4)
    if (size === MLD_LENGTH) this.#setDefaults(tenths(code))
    else {
      if (size < MLDV2_QUERY_LENGTH) return BAD_MESSAGE
      const sources = read16(bytes, message + 26)
      if (MLDV2_QUERY_LENGTH + 16 * sources > size) return BAD_MESSAGE
      this.#setTimes(bytes, message + 24, sources, tenths(timeOf16(code)))
    }
    const isHeard =
      header.isAddressed(bytes, at) &&
      (isLinkLocalGroup(header, ALL_NODES) || (!this.isAboutAll && this.#isTo(header)))
    return isHeard ? QUERY : OTHER_MESSAGE
  }

  /** It asks about all groups. @hot */
  get isAboutAll(): boolean {
    return (this.word0 | this.word1 | this.word2 | this.word3) === 0
  }

  /** Who sends it has no address. @hot */
  get isNameless(): boolean {
    return (this.source0 | this.source1 | this.source2 | this.source3) === 0
  }

  /** @hot */
  #isTo(header: MulticastHeader): boolean {
    return (
      this.word0 === header.word0 &&
      this.word1 === header.word1 &&
      this.word2 === header.word2 &&
      this.word3 === header.word3
    )
  }

  /** @hot */
  #setGroup(bytes: Uint8Array, at: number): void {
    const isLong = this.#addressLength === 16
    this.word0 = isLong ? read32(bytes, at) : 0
    this.word1 = isLong ? read32(bytes, at + 4) : 0
    this.word2 = isLong ? read32(bytes, at + 8) : 0
    this.word3 = read32(bytes, isLong ? at + 12 : at)
  }

  /** @hot */
  #setDefaults(responseDs: number): void {
    this.responseDs = responseDs
    this.robustness = ROBUSTNESS
    this.intervalS = QUERY_INTERVAL_S
    this.isPartial = false
  }

  /** `at`: of the byte with S and QRV, before that of QQIC. @hot */
  #setTimes(bytes: Uint8Array, at: number, sources: number, responseDs: number): void {
    this.#setDefaults(responseDs)
    const robustness = bytes[at] & 7
    const interval = timeOf8(bytes[at + 1])
    if (robustness !== 0) this.robustness = robustness
    if (interval !== 0) this.intervalS = interval
    this.isPartial = sources !== 0 || (bytes[at] & 8) !== 0
  }

  /** @hot */
  #oneRecord(at: number, wants: number): number {
    this.#next = at
    this.#records = 1
    this.#hasRecords = false
    this.#wants = wants
    return REPORT
  }

  /** All of them are looked through before one is believed. @hot */
  #readRecords(bytes: Uint8Array, at: number, size: number): number {
    const records = read16(bytes, at + 6)
    const addressLength = this.#addressLength
    let offset = 8
    for (let left = records; left > 0; left--) {
      if (offset + 4 + addressLength > size) return BAD_MESSAGE
      const record = at + offset
      offset += 4 + addressLength
      offset += read16(bytes, record + 2) * addressLength + (bytes[record + 1] << 2)
    }
    if (offset > size) return BAD_MESSAGE
    this.#next = at + 8
    this.#records = records
    this.#hasRecords = true
    return REPORT
  }

  /** Of a REPORT: goes to the next record and returns what it says (`WANTS_IT` and so on), -1: there is none. @hot */
  nextRecord(): number {
    if (this.#records === 0) return -1
    this.#records--
    const bytes = this.#bytes
    const at = this.#next
    if (!this.#hasRecords) {
      this.#setGroup(bytes, at)
      return this.#wants
    }
    const sources = read16(bytes, at + 2)
    const addressLength = this.#addressLength
    this.#setGroup(bytes, at + 4)
    this.#next = at + 4 + addressLength + sources * addressLength + (bytes[at + 1] << 2)
    switch (bytes[at]) {
      case MODE_IS_INCLUDE:
      case CHANGE_TO_INCLUDE:
        return sources === 0 ? WANTS_IT_NOT : WANTS_IT
      case MODE_IS_EXCLUDE:
      case CHANGE_TO_EXCLUDE:
        return WANTS_IT
      case ALLOW_NEW_SOURCES:
        return sources === 0 ? SAYS_NOTHING : WANTS_IT
      default:
        return SAYS_NOTHING
    }
  }
}

/** One's complement sum of so many bytes and of what was summed before; 0xffff: the checksum among them is right. @hot */
function sum(bytes: Uint8Array, at: number, size: number, before: number): number {
  let total = before
  const even = at + (size & ~1)
  for (let word = at; word < even; word += 2) total += read16(bytes, word)
  if ((size & 1) !== 0) total += bytes[even] << 8
  return fold(total)
}

/** @hot */
function isPimHello(bytes: Uint8Array, at: number, size: number): boolean {
  return size >= PIM_LENGTH && bytes[at] === PIM_HELLO
}

/** @hot */
function isLinkLocalGroup({ word0, word1, word2, word3 }: MulticastHeader, last: number): boolean {
  return word0 === (0xff02_0000 | 0) && (word1 | word2) === 0 && word3 === last
}

/** @hot */
function isAboutGroups(type: number): boolean {
  return (
    (type >= MLD_QUERY && type <= MLD_DONE) ||
    type === MLDV2_REPORT ||
    type === ICMPV6_ROUTER_ADVERTISEMENT ||
    type === ICMPV6_ROUTER_TERMINATION
  )
}

/** @hot */
function routerMessage(type: number, here: number, gone: number): number {
  if (type === here) return ROUTER_HERE
  return type === gone ? ROUTER_GONE : OTHER_MESSAGE
}

/** Options, `length` bytes of them with the two before them, of which one is an alert about MLD. RFC 2711. @hot */
function hasRouterAlert(bytes: Uint8Array, options: number, length: number): boolean {
  const end = options + length
  let at = options + 2
  let isFound = false
  while (at < end) {
    if (bytes[at] === PAD1) {
      at++
      continue
    }
    if (at + 2 > end) return false
    const behind = at + 2 + bytes[at + 1]
    if (behind > end) return false
    if (bytes[at] === ROUTER_ALERT) {
      if (bytes[at + 1] !== 2 || read16(bytes, at + 2) !== 0) return false
      isFound = true
    }
    at = behind
  }
  return isFound
}

/** RFC 3376 §4.1.1, 4.1.7: above 127 a mantissa of four bits and an exponent of three. @hot */
function timeOf8(code: number): number {
  return code < 128 ? code : ((code & 0xf) | 0x10) << (((code >>> 4) & 7) + 3)
}

/** RFC 3810 §5.1.3: above 32767 a mantissa of twelve bits. @hot */
function timeOf16(code: number): number {
  return code < 0x8000 ? code : ((code & 0xfff) | 0x1000) << (((code >>> 12) & 7) + 3)
}

/** Of milliseconds. @hot */
function tenths(milliseconds: number): number {
  return ((milliseconds + 99) / 100) | 0
}
