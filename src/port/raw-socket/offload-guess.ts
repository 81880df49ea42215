/**
 * What the sender of a frame has left to the network card, found out without a vnet_hdr: the kernel says
 * only that a checksum is missing. A TCP frame that is longer than the interface's mtu allows was to be
 * segmented, and is, to that mtu. Where the datagrams of a longer UDP frame end nobody knows.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
} from '../../abi/virtio-net.ts'
import type { Burst } from '../../mem/burst.ts'
import { VLAN_TAG_LENGTH } from '../../wire/ethernet.ts'
import {
  Headers,
  HEADERS_MAX,
  IPPROTO_TCP,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from '../../wire/headers.ts'
import { offloadNeeds } from '../../wire/vnet-hdr.ts'

export class OffloadGuess {
  readonly #headers: Headers = new Headers()
  /** Of the interface. */
  mtu: number

  constructor(mtu: number) {
    this.mtu = mtu
  }

  /**
   * Frame k of the burst, which stands at `at` of the bytes: notes what is left to be done for it. False:
   * that cannot be told, and it must not go on.
   * @hot
   */
  add(burst: Burst, k: number, bytes: Uint8Array, at: number, isPartial: boolean): boolean {
    const length = burst.length[k]
    // Two tags may stand before the payload.
    const isShort = length <= this.mtu + 14 + 2 * VLAN_TAG_LENGTH
    if (isShort && !isPartial) return true
    const headers = this.#headers
    const available = length < HEADERS_MAX ? length : HEADERS_MAX
    const isParsed = headers.parse(bytes, at, available)
    // SCTP and the like: its checksum is not one of those that a vnet_hdr can ask for.
    if (!isParsed) return isShort && !isPartial
    const { l3, l4, end, protocol, isIpv6 } = headers
    const isTcp = protocol === IPPROTO_TCP
    const isLong = length > l3 + this.mtu
    if (isLong && !isTcp) return false
    let type = VIRTIO_NET_HDR_GSO_NONE
    if (isLong) type = isIpv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4
    if (!isLong && !isPartial) return true
    const segment = isLong ? this.mtu - (end - l3) : 0
    if (isLong && segment <= 0) return false
    const gso = VIRTIO_NET_HDR_F_NEEDS_CSUM | (type << 8) | (isLong ? end << 16 : 0)
    const gsoSize = segment | (l4 << 16)
    const csumOffset = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM
    const needs = offloadNeeds(gso, gsoSize, csumOffset, length, 0)
    if (needs < 0) return false
    burst.hasOffloads = true
    burst.gso[k] = gso
    burst.gsoSize[k] = gsoSize
    burst.csumOffset[k] = csumOffset
    burst.needs[k] = needs
    return true
  }
}
