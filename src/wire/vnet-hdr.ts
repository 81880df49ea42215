/**
 * The vnet_hdr of a frame: what an egress must be able to do for it. VIRTIO 1.3 §5.1.6.
 *
 * Two words of it travel in the burst: `gso` = flags | gso_type << 8 | hdr_len << 16, `gsoSize` =
 * gso_size | csum_start << 16. Nothing in it is trusted: the sender may be a guest.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../abi/if-tun.ts'
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../abi/virtio-net.ts'
import { ETHER_HEADER_LENGTH } from './ethernet.ts'
import type { Headers } from './headers.ts'
import { IPPROTO_TCP, IPPROTO_UDP } from './headers.ts'

/** Everything that a vnet_hdr without tunnels can ask for; UFO is not, since the kernel gave it up. */
export const OFFLOADS_ALL: number =
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6

/** A bit of `needs` that no port has: the sender left the checksum of the IPv4 header zero. */
export const NEEDS_IPV4_CHECKSUM: number = 1 << 16

/** Results of {@link offloadNeeds} that are not a set of TUN_F_* bits. */
export const NEEDS_MALFORMED = -1
export const NEEDS_UNKNOWN_TYPE = -2

/**
 * The TUN_F_* bits that an egress needs for a frame of `length` L2 bytes with this header, or
 * NEEDS_MALFORMED, or NEEDS_UNKNOWN_TYPE.
 * @hot
 */
export function offloadNeeds(
  gso: number,
  gsoSize: number,
  csumOffset: number,
  length: number,
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
  const base = type & ~VIRTIO_NET_HDR_GSO_ECN
  if (base === VIRTIO_NET_HDR_GSO_NONE) {
    return type === VIRTIO_NET_HDR_GSO_NONE ? needs : NEEDS_MALFORMED
  }
  if ((gsoSize & 0xffff) === 0) return NEEDS_MALFORMED
  if (type !== base) needs |= TUN_F_TSO_ECN
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

/** Whether the gso_type says what the headers are. @hot */
export function gsoMatches(gso: number, headers: Headers): boolean {
  switch ((gso >>> 8) & 0xff & ~VIRTIO_NET_HDR_GSO_ECN) {
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
