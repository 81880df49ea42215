/**
 * Checksums that the senders of a guarded port leave to others: they are written when a frame leaves, long after a
 * guard has looked at it. So they may be where such a checksum is, and nowhere that a guard looks at: else a sender
 * could make of a frame that passes one that does not. That of ICMP nobody leaves to others.
 */
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from '../abi/virtio-net.ts'
import type { Burst } from '../mem/burst.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import {
  AUTHENTICATION,
  FRAGMENT,
  HEADERS_MAX,
  IPV4_HEADER_LENGTH,
  IPV4_PROTOCOL,
  IPV6_HEADER_LENGTH,
  IPV6_NEXT_HEADER,
  isIpv6Extension,
  read16,
} from '../wire/headers.ts'
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_MIN,
  ETHERTYPE_RARP,
  ICMPV6,
  IPPROTO_ICMP,
  isTag,
} from './guard-check.ts'
import { GUARD_LENGTH } from './guards.ts'

/** Of UDP and TCP: their ports. */
const PORTS_LENGTH = 4
const EXTENSION_LENGTH_MIN = 8
/** Behind every frame. */
const NOWHERE = 0x7fff_ffff

/** Frames with a checksum elsewhere leave the burst, of which no guard has kept anything yet. Returns how many. @hot */
export function dropMisplacedChecksums(burst: Burst): number {
  const { count, gso, gsoSize, csumOffset, headers } = burst
  let leaving = 0
  for (let k = 0; k < count; k++) leaving |= gso[k]
  if ((leaving & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) return 0
  // As a guard does, for which they are there then; of IPv4 that tells it.
  burst.readHeaders(GUARD_LENGTH)
  const { bytes } = headers
  for (let k = 0; k < count; k++) {
    const isLeft = (gso[k] & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0
    const isIpv4 = read16(bytes, headers.at(k) + ETHER_HEADER_LENGTH - 2) === ETHERTYPE_IPV4
    if (isLeft && !isIpv4) headers.want(k, HEADERS_MAX)
  }
  headers.read()
  let kept = 0
  for (let k = 0; k < count; k++) {
    if ((gso[k] & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      const field = (gsoSize[k] >>> 16) + csumOffset[k]
      if (field < firstPlace(bytes, headers.at(k), headers.available(k))) continue
    }
    if (kept !== k) burst.take(burst, k, kept)
    kept++
  }
  burst.count = kept
  return count - kept
}

/** Of the frame at `at`, of which so many bytes are there: a checksum may be so far from its start, or farther. @hot */
export function firstPlace(bytes: Uint8Array, at: number, available: number): number {
  let l3 = ETHER_HEADER_LENGTH
  if (available < l3) return NOWHERE
  let type = read16(bytes, at + l3 - 2)
  while (isTag(type)) {
    l3 += VLAN_TAG_LENGTH
    if (available < l3) return NOWHERE
    type = read16(bytes, at + l3 - 2)
  }
  if (type === ETHERTYPE_IPV4) return placeInIpv4(bytes, at, l3, available)
  if (type === ETHERTYPE_IPV6) return placeInIpv6(bytes, at, l3, available)
  return type < ETHERTYPE_MIN || type === ETHERTYPE_ARP || type === ETHERTYPE_RARP ? NOWHERE : l3
}

/** @hot */
function placeInIpv4(bytes: Uint8Array, at: number, l3: number, available: number): number {
  if (available < l3 + IPV4_HEADER_LENGTH) return NOWHERE
  if (bytes[at + l3 + IPV4_PROTOCOL] === IPPROTO_ICMP) return NOWHERE
  return l3 + ((bytes[at + l3] & 0x0f) << 2) + PORTS_LENGTH
}

/** @hot */
function placeInIpv6(bytes: Uint8Array, at: number, l3: number, available: number): number {
  if (available < l3 + IPV6_HEADER_LENGTH) return NOWHERE
  let next = bytes[at + l3 + IPV6_NEXT_HEADER]
  let l4 = l3 + IPV6_HEADER_LENGTH
  while (isIpv6Extension(next)) {
    if (l4 + EXTENSION_LENGTH_MIN > available) return NOWHERE
    const header = at + l4
    if (next === FRAGMENT) l4 += EXTENSION_LENGTH_MIN
    else if (next === AUTHENTICATION) l4 += (bytes[header + 1] + 2) << 2
    else l4 += (bytes[header + 1] + 1) << 3
    next = bytes[header]
  }
  return next === ICMPV6 ? NOWHERE : l4 + PORTS_LENGTH
}
