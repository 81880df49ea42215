/**
 * Most of what guests send, looked at by words instead of bytes: TCP and UDP without options, extension headers and
 * fragments, with a tag or without. This is what each frame of a guarded port costs that is not like the first of its
 * burst; all others are looked at by guard-check.ts, which passes whatever passes here.
 *
 *     word       3               4             5              6..7      8..9               8..13   13..14
 *     IPv4       type, version   total length  fragment, UDP  source    ports
 *     IPv6       type, version   length        next, source ..          .. source                  ports
 *     in a tag   all of it, and the type, one word further
 */
import type { Burst } from '../mem/burst.ts'
import { MASK_WORDS } from '../mem/burst.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import {
  HEADERS_MAX,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPV4_HEADER_LENGTH,
  IPV6_HEADER_LENGTH,
} from '../wire/headers.ts'
import { DHCP_CLIENT, DHCP_SERVER, DHCPV6_CLIENT, DHCPV6_SERVER, L4_LENGTH } from './guard-check.ts'
import { GUARD_IPV6 } from './guard-rules.ts'
import type { GuardRules } from './guard-rules.ts'

const FRAME_WORDS: number = HEADERS_MAX / 4
const TYPE_MASK = 0xffff
/** TPIDs as they lie in words. */
const TAG_8100 = 0x0081
const TAG_88A8 = 0xa888
/** Of the word that begins with the type: that, and the version, in IPv4 with the length of the header. */
const IPV4_MASK = 0x00ff_ffff
const IPV4 = 0x0045_0008
const IPV6_MASK = 0x00f0_ffff
const IPV6 = 0x0060_dd86
/** What a fragment has. */
const FRAGMENT_MASK = 0xff3f
const IPV4_TOTAL_MIN: number = IPV4_HEADER_LENGTH + L4_LENGTH
/** Up to the ports. */
const IPV4_LENGTH: number = ETHER_HEADER_LENGTH + IPV4_TOTAL_MIN
const IPV6_LENGTH: number = ETHER_HEADER_LENGTH + IPV6_HEADER_LENGTH + L4_LENGTH

const UPPER = 0xffff_0000 | 0
const LOWER = 0xffff
/** Words of a packet from its type on that are looked at. */
const IPV4_LOOKED_AT = [IPV4_MASK, LOWER, FRAGMENT_MASK | (0xff << 24), UPPER, LOWER, UPPER, LOWER]
const IPV6_LOOKED_AT = [IPV6_MASK, UPPER, UPPER | 0xff, -1, -1, -1, LOWER, 0, 0, 0, UPPER, LOWER]

/** All that is looked at of a frame, behind so many tags, and whatever makes frames one run. */
function maskOf(tags: number, packet: readonly number[]): Int32Array {
  const mask = new Int32Array(MASK_WORDS)
  mask.fill(-1, 0, 3 + tags)
  mask.set(packet, 3 + tags)
  return mask
}
const IPV4_BITS: readonly Int32Array[] = [0, 1].map((tags) => maskOf(tags, IPV4_LOOKED_AT))
const IPV6_BITS: readonly Int32Array[] = [0, 1].map((tags) => maskOf(tags, IPV6_LOOKED_AT))

const inWord = (port: number): number => ((port & 0xff) << 8) | (port >> 8)
const DHCP_SERVER_WORD: number = inWord(DHCP_SERVER)
const DHCP_CLIENT_WORD: number = inWord(DHCP_CLIENT)
const DHCPV6_SERVER_WORD: number = inWord(DHCPV6_SERVER)
const DHCPV6_CLIENT_WORD: number = inWord(DHCPV6_CLIENT)

/**
 * The first of the frames `from` .. `count` - 1 that is not plain, or that may be refused; `count` if there is none.
 * Of each frame 64 bytes were read, if it has so many, every HEADERS_MAX bytes from word `first` on.
 * @hot
 */
export function endOfPlain(
  rules: GuardRules,
  words: Int32Array,
  first: number,
  length: Int32Array,
  from: number,
  count: number,
): number {
  const { macStart, macEnd, macMask } = rules
  let k = from
  for (let at = first + from * FRAME_WORDS; k < count; k++, at += FRAME_WORDS) {
    const start = words[at + 1] >>> 16
    const end = words[at + 2]
    if ((((start ^ macStart) | (end ^ macEnd)) & macMask) !== 0 && !rules.isMacWord(start, end)) {
      break
    }
    let packet = at
    let whole = length[k]
    let form = words[at + 3]
    const type = form & TYPE_MASK
    if (type === TAG_8100 || type === TAG_88A8) {
      packet++
      whole -= VLAN_TAG_LENGTH
      form = words[packet + 3]
    }
    if ((form & IPV4_MASK) === IPV4) {
      if (!isPlainIpv4(rules, words, packet, whole)) break
    } else if ((form & IPV6_MASK) !== IPV6 || !isPlainIpv6(rules, words, packet, whole)) break
  }
  return k
}

/**
 * Behind the first of the frames that are plain because frame 0 is and they have the same in all that is looked at:
 * most bursts are of one flow. All of these have the same addresses and tag. 0: it is not plain. Of each frame 64
 * bytes were read, if it has so many.
 * @hot
 */
export function endOfAlike(rules: GuardRules, burst: Burst): number {
  const { headers, length } = burst
  const { words } = headers
  const first = headers.at(0) >> 2
  if (endOfPlain(rules, words, first, length, 0, 1) === 0) return 0
  const type = words[first + 3] & TYPE_MASK
  const tags = type === TAG_8100 || type === TAG_88A8 ? 1 : 0
  const bits = (words[first + 3 + tags] & TYPE_MASK) === (IPV4 & TYPE_MASK) ? IPV4_BITS : IPV6_BITS
  return burst.endOfAlike(bits[tags])
}

/** @hot */
function isPlainIpv4(rules: GuardRules, words: Int32Array, at: number, whole: number): boolean {
  const word5 = words[at + 5]
  if ((word5 & FRAGMENT_MASK) !== 0) return false
  // Not shorter than its headers, and not longer than the frame.
  const beyond = swapped(words[at + 4]) - IPV4_TOTAL_MIN
  if (beyond >>> 0 > whole - IPV4_LENGTH) return false
  const source = (words[at + 6] >>> 16) | (words[at + 7] << 16)
  if ((source & rules.ipv4Mask) !== rules.ipv4 && !rules.isIpv4Word(source)) return false
  const protocol = word5 >>> 24
  if (protocol !== IPPROTO_UDP) return protocol === IPPROTO_TCP
  return words[at + 8] >>> 16 !== DHCP_SERVER_WORD && (words[at + 9] & 0xffff) !== DHCP_CLIENT_WORD
}

/** @hot */
function isPlainIpv6(rules: GuardRules, words: Int32Array, at: number, whole: number): boolean {
  const beyond = swapped(words[at + 4] >>> 16) - L4_LENGTH
  if (beyond >>> 0 > whole - IPV6_LENGTH) return false
  const word5 = words[at + 5]
  if ((rules.checks & GUARD_IPV6) !== 0) {
    const word6 = words[at + 6]
    const word7 = words[at + 7]
    const word8 = words[at + 8]
    const a = (word5 >>> 16) | (word6 << 16)
    const b = (word6 >>> 16) | (word7 << 16)
    const c = (word7 >>> 16) | (word8 << 16)
    const d = (word8 >>> 16) | (words[at + 9] << 16)
    if (!rules.isIpv6Words(a, b, c, d)) return false
  }
  const next = word5 & 0xff
  if (next !== IPPROTO_UDP) return next === IPPROTO_TCP
  return (
    words[at + 13] >>> 16 !== DHCPV6_SERVER_WORD && (words[at + 14] & 0xffff) !== DHCPV6_CLIENT_WORD
  )
}

/** The first two bytes of a word as a number in network order. @hot */
function swapped(word: number): number {
  return ((word & 0xff) << 8) | ((word >>> 8) & 0xff)
}
