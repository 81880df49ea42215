/**
 * Holds the vnet_hdrs of a driver's GSO frames against the frames themselves: gso_type must be what
 * the headers are, and hdr_len, csum_start and csum_offset are replaced by what was found. A driver
 * may leave the checksum of an IPv4 header zero; then somebody has to fill it.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM,
} from '../../abi/virtio-net.ts'
import type { Burst } from '../../mem/burst.ts'
import {
  HEADERS_MAX,
  IPPROTO_TCP,
  IPV4_CHECKSUM,
  read16,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from '../../wire/headers.ts'
import { isGso, NEEDS_IPV4_CHECKSUM } from '../../wire/vnet-hdr.ts'

/** Checks the burst's GSO frames; those that are wrong leave it. Returns how many did. @hot */
export function checkGso(burst: Burst): number {
  const { count, headers } = burst
  for (let k = 0; k < count; k++) if (isGso(burst.gso[k])) headers.want(k, HEADERS_MAX)
  headers.read()
  let kept = 0
  for (let k = 0; k < count; k++) {
    if (isGso(burst.gso[k]) && !amend(burst, k)) continue
    if (kept !== k) burst.take(burst, k, kept)
    kept++
  }
  burst.count = kept
  return count - kept
}

/** False: the frame is not what its header says. @hot */
function amend(burst: Burst, k: number): boolean {
  const { gso, headers } = burst
  if (!headers.parseGso(k)) return false
  const { l3, l4, end, protocol, isIpv6, outerL3, outerL4, isOuterIpv6 } = headers.of(k)
  const kept = gso[k] & (0xff00 | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM)
  gso[k] = kept | VIRTIO_NET_HDR_F_NEEDS_CSUM | (end << 16)
  burst.gsoSize[k] = (burst.gsoSize[k] & 0xffff) | (l4 << 16)
  burst.csumOffset[k] = protocol === IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM
  // Spelt anew: what stands before the frame may be different by now.
  burst.headLength[k] = 0
  const { bytes } = headers
  const at = headers.at(k)
  const lacks =
    (!isIpv6 && lacksChecksum(bytes, at + l3)) ||
    (outerL4 !== 0 && !isOuterIpv6 && lacksChecksum(bytes, at + outerL3))
  if (lacks) burst.needs[k] |= NEEDS_IPV4_CHECKSUM
  return true
}

/** @hot */
function lacksChecksum(bytes: Uint8Array, ip: number): boolean {
  return read16(bytes, ip + IPV4_CHECKSUM) === 0
}
