/**
 * The vnet_hdr of a frame: what an egress must be able to do for it. VIRTIO 1.3 §5.1.6.
 *
 * Three words of it travel in the burst: `gso` = flags | gso_type << 8 | hdr_len << 16, `gsoSize` =
 * gso_size | csum_start << 16, and `tunnel` = outer_th_offset | inner_nh_offset << 16, which means
 * something only if gso_type says that the frame is tunnelled in UDP (VXLAN, Geneve): then gso_type,
 * csum_start and csum_offset are about the inner frame. Nothing in it is trusted: the sender may be
 * a guest.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../abi/if-tun.ts'
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4,
  VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6,
} from '../abi/virtio-net.ts'
import { ETHER_HEADER_LENGTH } from './ethernet.ts'
import type { Headers } from './headers.ts'
import {
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPV4_HEADER_LENGTH,
  IPV6_HEADER_LENGTH,
  UDP_HEADER_LENGTH,
} from './headers.ts'

/** What only a vnet_hdr of 24 bytes can ask for. */
export const OFFLOADS_TUNNEL: number = TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM
/** What every vnet_hdr can ask for; UFO is not among it, since the kernel gave it up. */
export const OFFLOADS_PLAIN: number =
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6
export const OFFLOADS_ALL: number = OFFLOADS_PLAIN | OFFLOADS_TUNNEL

/** A bit of `needs` that no port has: the sender left the checksum of the IPv4 header zero. */
export const NEEDS_IPV4_CHECKSUM: number = 1 << 16

/** Results of {@link offloadNeeds} that are not a set of TUN_F_* bits. */
export const NEEDS_MALFORMED = -1
export const NEEDS_UNKNOWN_TYPE = -2

const TUNNEL_IPV4 = VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4
const TUNNEL_IPV6 = VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6
/** The bits of gso_type that leave the type of what is segmented. */
const TYPE_MODIFIERS: number = VIRTIO_NET_HDR_GSO_ECN | TUNNEL_IPV4 | TUNNEL_IPV6

const OFFSET_MAX = 0xffff

/** The frame is to be segmented by whoever sends it on: it has a gso_type. @hot */
export function isGso(gso: number): boolean {
  return (gso & 0xff00) !== 0
}

/** The frame's header has a meaning for `tunnel`. @hot */
export function isTunnelled(gso: number): boolean {
  return (gso & ((TUNNEL_IPV4 | TUNNEL_IPV6) << 8)) !== 0
}

/**
 * The TUN_F_* bits that an egress needs for a frame of `length` L2 bytes with this header, or
 * NEEDS_MALFORMED, or NEEDS_UNKNOWN_TYPE. `tunnel` is 0 where the header has no such word.
 * @hot
 */
export function offloadNeeds(
  gso: number,
  gsoSize: number,
  csumOffset: number,
  length: number,
  tunnel: number,
): number {
  let needs = 0
  if ((gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    // The checksum field (two bytes) must lie within the frame, behind the Ethernet header.
    const csumStart = gsoSize >>> 16
    if (csumStart < ETHER_HEADER_LENGTH || csumStart + csumOffset + 2 > length) {
      return NEEDS_MALFORMED
    }
    needs = TUN_F_CSUM
  }
  const type = (gso >>> 8) & 0xff
  const base = type & ~TYPE_MODIFIERS
  if (base === VIRTIO_NET_HDR_GSO_NONE) {
    return type === VIRTIO_NET_HDR_GSO_NONE ? needs : NEEDS_MALFORMED
  }
  if ((gsoSize & 0xffff) === 0) return NEEDS_MALFORMED
  if ((type & VIRTIO_NET_HDR_GSO_ECN) !== 0) needs |= TUN_F_TSO_ECN
  if (isTunnelled(gso)) {
    if (isTunnelWrong(gso, gsoSize >>> 16, tunnel)) return NEEDS_MALFORMED
    needs |= TUN_F_UDP_TUNNEL_GSO
    if ((gso & VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM) !== 0) needs |= TUN_F_UDP_TUNNEL_GSO_CSUM
  }
  switch (base) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return needs | TUN_F_CSUM | TUN_F_TSO4
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return needs | TUN_F_CSUM | TUN_F_TSO6
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      // The header does not tell IPv4 from IPv6; the kernel grants both bits or none.
      return needs | TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6
    default:
      return NEEDS_UNKNOWN_TYPE
  }
}

/** Its offsets are not in an order that headers can be in: the rules of Linux. @hot */
function isTunnelWrong(gso: number, csumStart: number, tunnel: number): boolean {
  if ((gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) return true
  const type = gso >>> 8
  const isIpv4 = (type & TUNNEL_IPV4) !== 0
  if (isIpv4 && (type & TUNNEL_IPV6) !== 0) return true
  const outerTh = tunnel & 0xffff
  const innerNh = tunnel >>> 16
  const ipLength = isIpv4 ? IPV4_HEADER_LENGTH : IPV6_HEADER_LENGTH
  return (
    outerTh < ETHER_HEADER_LENGTH + ipLength ||
    innerNh < outerTh + UDP_HEADER_LENGTH ||
    csumStart < innerNh + IPV4_HEADER_LENGTH
  )
}

/**
 * The offsets of a vnet_hdr whose frame has so many bytes more behind its addresses have room, and what they have
 * written there is no tag: packets begin at `l3` of the frame as it leaves. @hot
 */
export function canMove(
  gso: number,
  gsoSize: number,
  tunnel: number,
  moved: number,
  l3: number,
): boolean {
  if ((gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    const start = (gsoSize >>> 16) + moved
    if (start < l3 || start > OFFSET_MAX) return false
  }
  if (!isTunnelled(gso)) return true
  const outer = (tunnel & OFFSET_MAX) + moved
  const inner = (tunnel >>> 16) + moved
  return outer >= ETHER_HEADER_LENGTH && outer <= OFFSET_MAX && inner <= OFFSET_MAX
}

/** `gso` of such a frame: hdr_len is a hint, which is left alone where it is none. @hot */
export function moveHeaderLength(gso: number, moved: number): number {
  const length = (gso >>> 16) + moved
  if (gso >>> 16 === 0 || length < ETHER_HEADER_LENGTH || length > OFFSET_MAX) return gso
  return (gso & 0xffff) | (length << 16)
}

/** `gsoSize` of such a frame. @hot */
export function moveChecksum(gso: number, gsoSize: number, moved: number): number {
  return (gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0 ? gsoSize : (gsoSize + (moved << 16)) | 0
}

/** `tunnel` of such a frame. @hot */
export function moveTunnel(gso: number, tunnel: number, moved: number): number {
  return isTunnelled(gso) ? tunnel + moved + (moved << 16) : tunnel
}

/** The headers that were found in a GSO frame are those that its vnet_hdr tells of. @hot */
export function isAsSaid(gso: number, headers: Headers): boolean {
  const isOuterIpv6 = (gso & (TUNNEL_IPV6 << 8)) !== 0
  if (isTunnelled(gso) && headers.isOuterIpv6 !== isOuterIpv6) return false
  switch ((gso >>> 8) & 0xff & ~TYPE_MODIFIERS) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return headers.protocol === IPPROTO_TCP && !headers.isIpv6
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return headers.protocol === IPPROTO_TCP && headers.isIpv6
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return headers.protocol === IPPROTO_UDP
    default:
      return false
  }
}
