/**
 * Segmentation in software: a TSO or USO frame becomes frames of at most gso_size payload bytes, as
 * the kernel's own segmentation makes them. Payload is not copied; each segment is a header of our
 * own in front of slices of the original.
 *
 * IPv4 ids count up from that of the frame; FIN and PSH are on the last segment only, CWR on the
 * first only (RFC 3168 §6.1.2). Checksums are complete. Of a frame in a UDP tunnel, what is inside is
 * cut, and every segment has the headers of the tunnel.
 *
 * Damage is not repaired: where the checksum of an IPv4 header is wrong (zero is a checksum that was
 * left to us), those of the segments are wrong by as much; a frame whose own lengths say otherwise than
 * its end, or that leaves neither its checksum to us nor says that it was verified, is not cut.
 */
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM,
} from '../abi/virtio-net.ts'
import type { Burst } from '../mem/burst.ts'
import {
  fillIpv4Checksum,
  fold,
  Headers,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPV4_CHECKSUM,
  IPV4_ID,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderSum,
  IPV6_HEADER_LENGTH,
  IPV6_PAYLOAD_LENGTH,
  pseudoSum,
  read16,
  read32,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_FIN,
  TCP_FLAGS,
  TCP_PSH,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_HEADER_LENGTH,
  UDP_LENGTH,
  write16,
  write32,
} from '../wire/headers.ts'
import type { FrameBuilder } from './frame-builder.ts'

/** Of a packet, its header included. A frame can be longer, by its VLAN tags. */
const IP_LENGTH_MAX = 0xffff

/** Segments of one frame: 64 KiB of 128 bytes. A peer that asks for more wants to keep us busy. */
export const SEGMENTS_MAX = 512

export class Segmenter {
  readonly #builder: FrameBuilder
  /** Of the frame that is being cut. */
  #headers: Headers = new Headers()
  #hasOuterChecksum = false
  /** What the sums of the original's IPv4 headers, inner and outer, are too much; 0: they are right. */
  #fault = 0
  #outerFault = 0

  constructor(builder: FrameBuilder) {
    this.#builder = builder
  }

  /**
   * Builds the segments of frame k, whose headers were read. False: it is not what its vnet_hdr says, or
   * cannot be cut; then nothing was built, or not all of it.
   * @hot
   */
  cut(burst: Burst, k: number): boolean {
    if (!burst.headers.parseGso(k)) return false
    const headers = burst.headers.of(k)
    const { bytes } = burst.headers
    const at = burst.headers.at(k)
    const length = burst.length[k]
    const gso = burst.gso[k]
    this.#headers = headers
    if ((gso & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) === 0) return false
    if (!this.#areLengthsRight(bytes, at, length)) return false
    this.#fault = headers.isIpv6 ? 0 : ipv4Fault(bytes, at + headers.l3)
    const hasOuterIpv4 = headers.outerL4 !== 0 && !headers.isOuterIpv6
    this.#outerFault = hasOuterIpv4 ? ipv4Fault(bytes, at + headers.outerL3) : 0
    this.#hasOuterChecksum = (gso & VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM) !== 0
    const gsoSize = burst.gsoSize[k] & 0xffff
    const payload = length - headers.end
    if (payload > gsoSize * SEGMENTS_MAX) return false
    const outermost = headers.outerL4 === 0 ? headers.l3 : headers.outerL3
    const longest = payload < gsoSize ? payload : gsoSize
    if (headers.end - outermost + longest > IP_LENGTH_MAX) return false
    const builder = this.#builder
    builder.readFrom(burst, k, headers.end)
    let done = 0
    let number = 0
    do {
      const part = payload - done < gsoSize ? payload - done : gsoSize
      const to = builder.start()
      this.#writeHeaders(bytes, at, to, done, part, number, done + part === payload)
      if (!builder.take(part)) return false
      builder.end(headers.end, 0, 0, 0, 0, 0)
      done += part
      number++
    } while (done < payload)
    return true
  }

  /** Every length in the headers is that of the frame, or zero: then it was left to us. @hot */
  #areLengthsRight(bytes: Uint8Array, at: number, length: number): boolean {
    const { l3, l4, isIpv6, protocol, outerL3, outerL4, isOuterIpv6 } = this.#headers
    if (!isIpLength(bytes, at + l3, isIpv6, length - l3)) return false
    if (protocol === IPPROTO_UDP && !isLength(bytes, at + l4 + UDP_LENGTH, length - l4))
      return false
    if (outerL4 === 0) return true
    return (
      isIpLength(bytes, at + outerL3, isOuterIpv6, length - outerL3) &&
      isLength(bytes, at + outerL4 + UDP_LENGTH, length - outerL4)
    )
  }

  /** @hot */
  #writeHeaders(
    from: Uint8Array,
    at: number,
    to: number,
    done: number,
    part: number,
    number: number,
    isLast: boolean,
  ): void {
    const bytes = this.#builder.bytes
    const headers = this.#headers
    for (let k = 0; k < headers.end; k++) bytes[to + k] = from[at + k]
    const l3 = to + headers.l3
    this.#writeIp(l3, headers.isIpv6, headers.end - headers.l3 + part, number, this.#fault)
    const l4 = to + headers.l4
    const l4Length = headers.end - headers.l4 + part
    let checksum = UDP_CHECKSUM
    if (headers.protocol === IPPROTO_TCP) {
      checksum = TCP_CHECKSUM
      write32(bytes, l4 + TCP_SEQUENCE, (read32(bytes, l4 + TCP_SEQUENCE) + done) | 0)
      let flags = bytes[l4 + TCP_FLAGS]
      if (!isLast) flags &= ~(TCP_FIN | TCP_PSH)
      if (number > 0) flags &= ~TCP_CWR
      bytes[l4 + TCP_FLAGS] = flags
    } else write16(bytes, l4 + UDP_LENGTH, UDP_HEADER_LENGTH + part)
    write16(bytes, l4 + checksum, 0)
    const initial = pseudoSum(bytes, l3, headers.isIpv6, headers.protocol) + l4Length
    if (headers.outerL4 !== 0) this.#writeTunnel(to, initial, part, number)
    this.#builder.startSum(headers.l4 + checksum, headers.l4, headers.end - headers.l4, initial)
  }

  /** `total` is the length of the packet, its header included. @hot */
  #writeIp(l3: number, isIpv6: boolean, total: number, number: number, fault: number): void {
    const bytes = this.#builder.bytes
    if (isIpv6) write16(bytes, l3 + IPV6_PAYLOAD_LENGTH, total - IPV6_HEADER_LENGTH)
    else {
      write16(bytes, l3 + IPV4_TOTAL_LENGTH, total)
      write16(bytes, l3 + IPV4_ID, read16(bytes, l3 + IPV4_ID) + number)
      fillIpv4Checksum(bytes, l3)
      if (fault === 0) return
      write16(bytes, l3 + IPV4_CHECKSUM, fold(read16(bytes, l3 + IPV4_CHECKSUM) + fault))
    }
  }

  /**
   * The headers around a segment, whose own are written but for its checksum. What that covers adds up
   * to the complement of its pseudo-header, `innerSum`, whatever it is: so the checksum of the tunnel
   * needs no look at the payload.
   * @hot
   */
  #writeTunnel(to: number, innerSum: number, part: number, number: number): void {
    const bytes = this.#builder.bytes
    const { outerL3, outerL4, isOuterIpv6, l4, end } = this.#headers
    this.#writeIp(to + outerL3, isOuterIpv6, end - outerL3 + part, number, this.#outerFault)
    const length = end - outerL4 + part
    write16(bytes, to + outerL4 + UDP_LENGTH, length)
    write16(bytes, to + outerL4 + UDP_CHECKSUM, 0)
    if (!this.#hasOuterChecksum) return
    let sum = pseudoSum(bytes, to + outerL3, isOuterIpv6, IPPROTO_UDP) + length
    for (let at = to + outerL4; at < to + l4; at += 2) sum += read16(bytes, at)
    const checksum = ~fold(sum + (~fold(innerSum) & 0xffff)) & 0xffff
    write16(bytes, to + outerL4 + UDP_CHECKSUM, checksum === 0 ? 0xffff : checksum)
  }
}

/** What the sum of the IPv4 header at `ip` is too much; 0 also where its checksum was left zero. @hot */
function ipv4Fault(bytes: Uint8Array, ip: number): number {
  return read16(bytes, ip + IPV4_CHECKSUM) === 0 ? 0 : ipv4HeaderSum(bytes, ip) % 0xffff
}

/** @hot */
function isIpLength(bytes: Uint8Array, ip: number, isIpv6: boolean, length: number): boolean {
  return isIpv6
    ? isLength(bytes, ip + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER_LENGTH)
    : isLength(bytes, ip + IPV4_TOTAL_LENGTH, length)
}

/** Of a length that the field cannot say, the lower half is as good. @hot */
function isLength(bytes: Uint8Array, at: number, length: number): boolean {
  const field = read16(bytes, at)
  return field === 0 || field === (length & 0xffff)
}
