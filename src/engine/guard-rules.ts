/**
 * What a guarded port may send as: its MAC and IP addresses, and which checks there are. Addresses are compared
 * as they lie in frames.
 */
import { read32 } from '../wire/headers.ts'
import type { GuardPolicy } from './messages.ts'

export const GUARD_MAC: number = 1 << 0
export const GUARD_ARP: number = 1 << 1
export const GUARD_IPV4: number = 1 << 2
export const GUARD_IPV6: number = 1 << 3
export const GUARD_DHCP: number = 1 << 4
export const GUARD_RA: number = 1 << 5

const CHECKS: Readonly<Record<GuardPolicy['checks'][number], number>> = {
  mac: GUARD_MAC,
  arp: GUARD_ARP,
  ipv4: GUARD_IPV4,
  ipv6: GUARD_IPV6,
  dhcp: GUARD_DHCP,
  ra: GUARD_RA,
}

const MAC_LENGTH = 6
const IPV6_WORDS = 4
/** First words of a link-local address, and the middle of an interface identifier that is made of a MAC. */
const LINK_LOCAL: number = 0xfe80_0000 | 0
const EUI_MIDDLE: number = 0xfffe

export class GuardRules {
  /** GUARD_* bits. */
  readonly checks: number
  readonly #macs: Uint8Array
  /**
   * As they lie in words: of each MAC address its first two and last four bytes, of IPv4 pairs of address and mask, of
   * IPv6 four words each, the link-local ones as well.
   */
  readonly #macWords: Int32Array
  readonly #ipv4Words: Int32Array
  readonly #ipv6Words: Int32Array
  /** Pairs of address and mask. */
  readonly #ipv4: Int32Array
  /** The same, four words each. */
  readonly #ipv6: Int32Array
  /** Link-local addresses that the MAC addresses make. */
  readonly #linkLocal: Int32Array

  /** The first MAC address as it lies in words; no frame's is like the one there is if there is none. */
  readonly macStart: number
  readonly macEnd: number
  /** 0: none is asked for. */
  readonly macMask: number
  /** The same of IPv4: what an address is under the mask. */
  readonly ipv4Mask: number
  readonly ipv4: number

  constructor({ checks, macs, ipv4, ipv6 }: GuardPolicy) {
    this.checks = checks.reduce((bits, check) => bits | CHECKS[check], 0)
    this.#macs = Uint8Array.from(macs.flat())
    this.#macWords = Int32Array.from(
      macs.flatMap(([a, b, c, d, e, f]) => [a | (b << 8), c | (d << 8) | (e << 16) | (f << 24)]),
    )
    this.#ipv4Words = Int32Array.from(ipv4.flat().map((word) => swapped(word)))
    this.#ipv4 = Int32Array.from(ipv4.flat())
    this.macStart = this.#macWords[0] ?? -1
    this.macEnd = this.#macWords[1] ?? 0
    this.macMask = (this.checks & GUARD_MAC) === 0 ? 0 : -1
    const isIpv4Asked = (this.checks & GUARD_IPV4) !== 0
    this.ipv4Mask = isIpv4Asked ? (this.#ipv4Words[1] ?? 0) : 0
    const none = isIpv4Asked ? 1 : 0
    this.ipv4 = ipv4.length > 0 ? this.#ipv4Words[0] & this.ipv4Mask : none
    this.#ipv6 = Int32Array.from(ipv6.flat())
    this.#linkLocal = Int32Array.from(macs.flatMap((mac) => linkLocalOf(mac)))
    const exactly = [-1, -1, -1, -1]
    const locals = macs.flatMap((mac) => [...linkLocalOf(mac), ...exactly])
    this.#ipv6Words = Int32Array.from([...ipv6.flat(), ...locals].map((word) => swapped(word)))
  }

  /** There are MAC addresses to compare with. */
  get hasMacs(): boolean {
    return this.#macs.length > 0
  }

  /** @hot */
  isMac(bytes: Uint8Array, at: number): boolean {
    const macs = this.#macs
    for (let mac = 0; mac < macs.length; mac += MAC_LENGTH) {
      let same = 0
      while (same < MAC_LENGTH && macs[mac + same] === bytes[at + same]) same++
      if (same === MAC_LENGTH) return true
    }
    return false
  }

  /** The same of an address as it lies in the words of a frame. @hot */
  isMacWord(start: number, end: number): boolean {
    const words = this.#macWords
    for (let mac = 0; mac < words.length; mac += 2) {
      if (words[mac] === start && words[mac + 1] === end) return true
    }
    return false
  }

  /** The same of an address as it lies in the words of a frame. @hot */
  isIpv4Word(address: number): boolean {
    const pairs = this.#ipv4Words
    for (let pair = 0; pair < pairs.length; pair += 2) {
      if (((address ^ pairs[pair]) & pairs[pair + 1]) === 0) return true
    }
    return false
  }

  /** The same of an address as it lies in the words of a frame; nobody has none. @hot */
  isIpv6Words(a: number, b: number, c: number, d: number): boolean {
    const words = this.#ipv6Words
    if ((a | b | c | d) === 0) return false
    for (let at = 0; at < words.length; at += 2 * IPV6_WORDS) {
      const difference =
        ((a ^ words[at]) & words[at + 4]) |
        ((b ^ words[at + 1]) & words[at + 5]) |
        ((c ^ words[at + 2]) & words[at + 6]) |
        ((d ^ words[at + 3]) & words[at + 7])
      if (difference === 0) return true
    }
    return false
  }

  /** @hot */
  isIpv4(bytes: Uint8Array, at: number): boolean {
    const pairs = this.#ipv4
    const address = read32(bytes, at)
    for (let pair = 0; pair < pairs.length; pair += 2) {
      if (((address ^ pairs[pair]) & pairs[pair + 1]) === 0) return true
    }
    return false
  }

  /** One of its own, or a link-local one of its MAC addresses. @hot */
  isIpv6(bytes: Uint8Array, at: number): boolean {
    const own = this.#ipv6
    for (let one = 0; one < own.length; one += 2 * IPV6_WORDS) {
      let word = 0
      while (word < IPV6_WORDS) {
        const difference = read32(bytes, at + 4 * word) ^ own[one + word]
        if ((difference & own[one + IPV6_WORDS + word]) !== 0) break
        word++
      }
      if (word === IPV6_WORDS) return true
    }
    const local = this.#linkLocal
    for (let one = 0; one < local.length; one += IPV6_WORDS) {
      let word = 0
      while (word < IPV6_WORDS && read32(bytes, at + 4 * word) === local[one + word]) word++
      if (word === IPV6_WORDS) return true
    }
    return false
  }
}

/** A word with its bytes in the other order. */
function swapped(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)
}

/** fe80::/64 and the modified EUI-64 of a MAC address: RFC 4291 appendix A. */
function linkLocalOf([a, b, c, d, e, f]: readonly number[]): number[] {
  const high = ((a ^ 0x02) << 24) | (b << 16) | (c << 8) | (EUI_MIDDLE >>> 8)
  const low = ((EUI_MIDDLE & 0xff) << 24) | (d << 16) | (e << 8) | f
  return [LINK_LOCAL, 0, high, low]
}
