/**
 * The headers of an Ethernet frame that carries TCP or UDP, found by walking them: what a vnet_hdr
 * says of their length is never trusted. VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with
 * extension headers, and the same once more in a UDP tunnel. RFC 791, 8200, 9293, 768.
 */
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from './ethernet.ts'

/** Headers longer than this are not looked at; they are 34 to 94 bytes as a rule, tunnelled up to 190. */
export const HEADERS_MAX = 256

export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17
/** Extension headers of IPv6. */
export const HOP_BY_HOP = 0
export const ROUTING = 43
export const FRAGMENT = 44
export const AUTHENTICATION = 51
export const DESTINATION_OPTIONS = 60
export const MOBILITY = 135
export const HOST_IDENTITY = 139
export const SHIM6 = 140

/** Of the number of a header behind that of IPv6: another one follows it. @hot */
export function isIpv6Extension(next: number): boolean {
  switch (next) {
    case HOP_BY_HOP:
    case ROUTING:
    case FRAGMENT:
    case AUTHENTICATION:
    case DESTINATION_OPTIONS:
    case MOBILITY:
    case HOST_IDENTITY:
    case SHIM6:
      return true
    default:
      return false
  }
}
export const IPV4_HEADER_LENGTH = 20
export const IPV4_TOTAL_LENGTH = 2
export const IPV4_ID = 4
export const IPV4_FRAGMENT = 6
export const IPV4_PROTOCOL = 9
export const IPV4_CHECKSUM = 10
export const IPV6_PAYLOAD_LENGTH = 4
export const IPV6_NEXT_HEADER = 6
export const IPV6_HEADER_LENGTH = 40
export const TCP_SEQUENCE = 4
/** The upper half of this byte, in words: length of the header. */
export const TCP_OFFSET = 12
export const TCP_FLAGS = 13
export const TCP_CHECKSUM = 16
export const UDP_LENGTH = 4
export const UDP_CHECKSUM = 6
export const UDP_HEADER_LENGTH = 8
export const TCP_FIN = 0x01
export const TCP_PSH = 0x08
export const TCP_ACK = 0x10
export const TCP_ECE = 0x40
export const TCP_CWR = 0x80

const ETHERTYPE_AT = 12
const ETHERTYPE_IPV4 = 0x0800
const ETHERTYPE_IPV6 = 0x86dd
const ETHERTYPE_VLAN = 0x8100
const ETHERTYPE_QINQ = 0x88a8
const TAGS_MAX = 2
const TCP_HEADER_LENGTH = 20
/** More flag and offset: a fragment has no whole TCP or UDP header, or not the whole payload. */
const FRAGMENT_MASK = 0x3fff

/** Big-endian 16 bits. @hot */
export function read16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1]
}

/** @hot */
export function write16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8
  bytes[at + 1] = value
}

/** Big-endian 32 bits, signed: as a number beyond 2^31 it may be an allocation. @hot */
export function read32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]
}

/** @hot */
export function write32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
}

/** Results of the last `parse`; offsets are bytes from the start of the frame. */
export class Headers {
  isIpv6 = false
  /** IPPROTO_TCP or IPPROTO_UDP. */
  protocol = 0
  /** Of the IP header. */
  l3 = 0
  /** Of the TCP or UDP header. */
  l4 = 0
  /** Of the payload: so long are all headers together. */
  end = 0
  /** Bytes of the frame that belong to the IP packet and its Ethernet header: the rest is padding. */
  length = 0
  /** Of the IP and UDP headers of a tunnel around those; outerL4 is 0 without a tunnel. */
  isOuterIpv6 = false
  outerLength = 0
  outerL3 = 0
  outerL4 = 0

  /**
   * Reads the first `available` bytes of a frame, which stand at `at`. False: not TCP or UDP over IP,
   * a fragment, or cut off.
   * @hot
   */
  parse(bytes: Uint8Array, at: number, available: number): boolean {
    this.outerL4 = 0
    let l3 = ETHER_HEADER_LENGTH
    if (available < l3) return false
    let ethertype = read16(bytes, at + ETHERTYPE_AT)
    for (let tags = 0; ethertype === ETHERTYPE_VLAN || ethertype === ETHERTYPE_QINQ; tags++) {
      l3 += VLAN_TAG_LENGTH
      if (tags === TAGS_MAX || available < l3) return false
      ethertype = read16(bytes, at + l3 - 2)
    }
    this.l3 = l3
    if (ethertype === ETHERTYPE_IPV4) return this.#parseIpv4(bytes, at, available)
    if (ethertype === ETHERTYPE_IPV6) return this.#parseIpv6(bytes, at, available)
    return false
  }

  /**
   * The same for a frame whose UDP header at `outerL4` begins a tunnel, in which an IP packet begins at
   * `innerL3`; what is between them (VXLAN or Geneve, Ethernet) can be anything of an even length.
   * @hot
   */
  parseTunnelled(
    bytes: Uint8Array,
    at: number,
    available: number,
    outerL4: number,
    innerL3: number,
  ): boolean {
    if (!this.parse(bytes, at, available)) return false
    if (this.protocol !== IPPROTO_UDP || this.l4 !== outerL4) return false
    if (innerL3 < this.end || innerL3 >= available || ((innerL3 - outerL4) & 1) !== 0) return false
    this.isOuterIpv6 = this.isIpv6
    this.outerLength = this.length
    this.outerL3 = this.l3
    this.outerL4 = outerL4
    this.l3 = innerL3
    if (bytes[at + innerL3] >>> 4 === 6) return this.#parseIpv6(bytes, at, available)
    return this.#parseIpv4(bytes, at, available)
  }

  /** @hot */
  #parseIpv4(bytes: Uint8Array, at: number, available: number): boolean {
    const l3 = this.l3
    if (available < l3 + IPV4_HEADER_LENGTH) return false
    const first = bytes[at + l3]
    const headerLength = (first & 0x0f) << 2
    if (first >>> 4 !== 4 || headerLength < IPV4_HEADER_LENGTH) return false
    if ((read16(bytes, at + l3 + IPV4_FRAGMENT) & FRAGMENT_MASK) !== 0) return false
    this.isIpv6 = false
    this.length = l3 + read16(bytes, at + l3 + IPV4_TOTAL_LENGTH)
    return this.#parseL4(bytes, at, available, l3 + headerLength, bytes[at + l3 + IPV4_PROTOCOL])
  }

  /** @hot */
  #parseIpv6(bytes: Uint8Array, at: number, available: number): boolean {
    const l3 = this.l3
    if (available < l3 + IPV6_HEADER_LENGTH || bytes[at + l3] >>> 4 !== 6) return false
    this.isIpv6 = true
    this.length = l3 + IPV6_HEADER_LENGTH + read16(bytes, at + l3 + IPV6_PAYLOAD_LENGTH)
    let next = bytes[at + l3 + IPV6_NEXT_HEADER]
    let l4 = l3 + IPV6_HEADER_LENGTH
    while (next === HOP_BY_HOP || next === ROUTING || next === DESTINATION_OPTIONS) {
      if (available < l4 + 8) return false
      next = bytes[at + l4]
      l4 += (bytes[at + l4 + 1] + 1) << 3
    }
    return this.#parseL4(bytes, at, available, l4, next)
  }

  /** @hot */
  #parseL4(
    bytes: Uint8Array,
    at: number,
    available: number,
    l4: number,
    protocol: number,
  ): boolean {
    this.l4 = l4
    this.protocol = protocol
    if (protocol === IPPROTO_TCP) {
      if (available < l4 + TCP_HEADER_LENGTH) return false
      const headerLength = (bytes[at + l4 + TCP_OFFSET] >>> 4) << 2
      this.end = l4 + headerLength
      return headerLength >= TCP_HEADER_LENGTH && available >= this.end
    }
    if (protocol !== IPPROTO_UDP) return false
    this.end = l4 + UDP_HEADER_LENGTH
    return available >= this.end
  }
}

/**
 * One's complement sum of a pseudo-header without its length: addresses of the IP header at `ip`, and
 * the protocol. RFC 9293 §3.1, RFC 8200 §8.1.
 * @hot
 */
export function pseudoSum(
  bytes: Uint8Array,
  ip: number,
  isIpv6: boolean,
  protocol: number,
): number {
  const from = ip + (isIpv6 ? 8 : 12)
  const to = from + (isIpv6 ? 32 : 8)
  let sum = protocol
  for (let word = from; word < to; word += 2) sum += read16(bytes, word)
  return sum
}

/** Folds a one's complement sum of up to 2^31 to 16 bits. @hot */
export function fold(sum: number): number {
  let folded = (sum & 0xffff) + (sum >>> 16)
  folded = (folded & 0xffff) + (folded >>> 16)
  return folded
}

/**
 * One's complement sum of the IPv4 header at `at`, its checksum included: 0xffff when that is right.
 * @hot
 */
export function ipv4HeaderSum(bytes: Uint8Array, at: number): number {
  const length = (bytes[at] & 0x0f) << 2
  let sum = 0
  for (let word = at; word < at + length; word += 2) sum += read16(bytes, word)
  return fold(sum)
}

/** Computes the IPv4 header checksum of the header at `at` and writes it. @hot */
export function fillIpv4Checksum(bytes: Uint8Array, at: number): void {
  write16(bytes, at + IPV4_CHECKSUM, 0)
  write16(bytes, at + IPV4_CHECKSUM, ~ipv4HeaderSum(bytes, at))
}
