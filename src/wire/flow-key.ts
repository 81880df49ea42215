/**
 * What tells one flow from another in the head of a frame: addresses and ports, copied out once, so
 * that a sender who changes them meanwhile changes nothing here.
 *
 *     words:  IPv4  src, dst, ports                 src port << 16 | dst port
 *             IPv6  src[4], dst[4], ports           all big-endian, as they stand in the frame
 *
 * That is the input of the RSS hash, in its order. Sources: RFC 791, RFC 8200 §4, RFC 6275 §6.3 and
 * §6.4 (home address option, routing header type 2), IEEE 802.1Q §9.
 */
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from './ethernet.ts'
import {
  AUTHENTICATION,
  DESTINATION_OPTIONS,
  FRAGMENT,
  ROUTING,
  isIpv6Extension,
} from './headers.ts'

const ETHERTYPE_IPV4 = 0x0800
const ETHERTYPE_IPV6 = 0x86dd
const ETHERTYPE_VLAN = 0x8100
const ETHERTYPE_QINQ = 0x88a8
/** What QinQ was before it was standardised. */
const ETHERTYPE_QINQ_OLD = 0x9100
const VLAN_TAGS_MAX = 2

const IPV4_HEADER_LENGTH_MIN = 20
/** Big-endian word of flags and fragment offset: "more fragments" and the offset. */
const IPV4_FRAGMENT_MASK = 0x3fff
const IPV6_HEADER_LENGTH = 40

export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17
export const IPPROTO_SCTP = 132

/** Offset and "more fragments" of a fragment header. A header with neither is a whole datagram
 *  (RFC 6946). */
const IPV6_FRAGMENT_MASK = 0xfff9
/** Extension headers that are looked behind; a frame with more has no ports for us. */
const EXTENSIONS_MAX = 8
const EXTENSION_LENGTH_MIN = 8

const ROUTING_TYPE_2 = 2
const ROUTING_TYPE_2_LENGTH = 24
const OPTION_PAD1 = 0
const OPTION_HOME_ADDRESS = 0xc9
/** Options of one header that are looked at for a home address. */
const OPTIONS_MAX = 16

/** Values of `addressWords`. */
export const IPV4_ADDRESS_WORDS = 2
export const IPV6_ADDRESS_WORDS = 8
/** Words of the longest key. */
export const FLOW_KEY_WORDS: number = IPV6_ADDRESS_WORDS + 1

export class FlowKey {
  /** Words of both addresses: 2, 8, or 0 when the frame is no readable IP. */
  addressWords = 0
  /** The protocol (TCP, UDP, SCTP) whose ports stand behind the addresses; 0: there are no ports,
   *  or the frame is a fragment, be it the first one, which has them. */
  transport = 0
  /** There are IPv6 extension headers. */
  hasExtensions = false
  readonly words: Int32Array = new Int32Array(FLOW_KEY_WORDS)
  /** Where the addresses of mobile IPv6 stand, -1: nowhere. */
  #homeAt = -1
  #routeAt = -1

  /**
   * Reads the `length` bytes at `offset`, where a frame's L2 header starts. What is cut off is as if
   * it were not in the frame.
   * @hot
   */
  parse(bytes: Uint8Array, offset: number, length: number): void {
    this.addressWords = 0
    this.transport = 0
    this.hasExtensions = false
    this.#homeAt = -1
    this.#routeAt = -1
    const end = offset + length < bytes.length ? offset + length : bytes.length
    if (end - offset < ETHER_HEADER_LENGTH) return
    let at = offset + ETHER_HEADER_LENGTH
    let type = readU16(bytes, at - 2)
    for (let tags = 0; tags < VLAN_TAGS_MAX && isVlanTag(type); tags++) {
      at += VLAN_TAG_LENGTH
      if (at > end) return
      type = readU16(bytes, at - 2)
    }
    if (type === ETHERTYPE_IPV4) this.#parseIpv4(bytes, at, end)
    else if (type === ETHERTYPE_IPV6) this.#parseIpv6(bytes, at, end)
  }

  /** @hot */
  #parseIpv4(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV4_HEADER_LENGTH_MIN) return
    const first = bytes[at]
    const headerLength = (first & 0x0f) << 2
    if (first >>> 4 !== 4 || headerLength < IPV4_HEADER_LENGTH_MIN) return
    this.words[0] = readU32(bytes, at + 12)
    this.words[1] = readU32(bytes, at + 16)
    this.addressWords = IPV4_ADDRESS_WORDS
    if ((readU16(bytes, at + 6) & IPV4_FRAGMENT_MASK) !== 0) return
    this.#readPorts(bytes, at + headerLength, end, bytes[at + 9])
  }

  /** @hot */
  #parseIpv6(bytes: Uint8Array, start: number, end: number): void {
    if (end - start < IPV6_HEADER_LENGTH || bytes[start] >>> 4 !== 6) return
    const words = this.words
    for (let word = 0; word < IPV6_ADDRESS_WORDS; word++) {
      words[word] = readU32(bytes, start + 8 + 4 * word)
    }
    this.addressWords = IPV6_ADDRESS_WORDS
    let next = bytes[start + 6]
    let at = start + IPV6_HEADER_LENGTH
    for (let headers = 0; headers < EXTENSIONS_MAX && isIpv6Extension(next); headers++) {
      this.hasExtensions = true
      if (end - at < EXTENSION_LENGTH_MIN) return
      const type = next
      next = bytes[at]
      const units = bytes[at + 1]
      let length = (units + 1) << 3
      if (type === FRAGMENT) {
        if ((readU16(bytes, at + 2) & IPV6_FRAGMENT_MASK) !== 0) return
        length = EXTENSION_LENGTH_MIN
      } else if (type === AUTHENTICATION) {
        length = (units + 2) << 2
      }
      if (length > end - at) return
      if (type === ROUTING && length === ROUTING_TYPE_2_LENGTH) {
        if (bytes[at + 2] === ROUTING_TYPE_2) this.#routeAt = at + 8
      } else if (type === DESTINATION_OPTIONS && this.#homeAt < 0) {
        this.#homeAt = findHomeAddress(bytes, at + 2, at + length)
      }
      at += length
    }
    this.#readPorts(bytes, at, end, next)
  }

  /** @hot */
  #readPorts(bytes: Uint8Array, at: number, end: number, protocol: number): void {
    if (protocol !== IPPROTO_TCP && protocol !== IPPROTO_UDP && protocol !== IPPROTO_SCTP) return
    if (end - at < 4) return
    this.words[this.addressWords] = readU32(bytes, at)
    this.transport = protocol
  }

  /**
   * Puts the addresses that mobile IPv6 writes into extension headers in the place of those of the
   * IPv6 header, where there are any. `bytes` is what was parsed.
   * @hot
   */
  useMobileAddresses(bytes: Uint8Array): void {
    for (let word = 0; word < 4; word++) {
      if (this.#homeAt >= 0) this.words[word] = readU32(bytes, this.#homeAt + 4 * word)
      if (this.#routeAt >= 0) this.words[4 + word] = readU32(bytes, this.#routeAt + 4 * word)
    }
  }
}

/** Offset of the address of a home address option between `start` and `end`, -1: none. @hot */
function findHomeAddress(bytes: Uint8Array, start: number, end: number): number {
  let at = start
  for (let options = 0; options < OPTIONS_MAX && end - at >= 2; options++) {
    const type = bytes[at]
    if (type === OPTION_PAD1) {
      at++
      continue
    }
    const length = bytes[at + 1]
    if (type === OPTION_HOME_ADDRESS && length === 16) return end - at >= 18 ? at + 2 : -1
    at += 2 + length
  }
  return -1
}

/** @hot */
function isVlanTag(type: number): boolean {
  return type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ || type === ETHERTYPE_QINQ_OLD
}

/** Big-endian. @hot */
function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1]
}

/** Big-endian, as an int32. @hot */
function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]
}
