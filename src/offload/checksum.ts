/**
 * Checksums that a sender left to us: of TCP or UDP, which its vnet_hdr describes, and of an IPv4
 * header, which some senders of TSO frames leave zero (the kernel would drop such a frame).
 */
import type { Burst } from '../mem/burst.ts'
import { fillIpv4Checksum, HEADERS_MAX, IPV4_CHECKSUM, read16 } from '../wire/headers.ts'
import type { FrameBuilder } from './frame-builder.ts'

export class ChecksumFiller {
  readonly #builder: FrameBuilder

  constructor(builder: FrameBuilder) {
    this.#builder = builder
  }

  /**
   * Builds frame k with its checksum complete: over everything from csum_start on, where the field
   * holds the sum of the pseudo-header. Its headers were read. False: the field lies too far behind.
   * @hot
   */
  complete(burst: Burst, k: number): boolean {
    const start = burst.gsoSize[k] >>> 16
    const field = start + burst.csumOffset[k]
    const headerLength = field + 2
    if (headerLength > HEADERS_MAX || headerLength > burst.length[k]) return false
    const { bytes } = burst.headers
    const at = burst.headers.at(k)
    const builder = this.#builder
    const to = builder.start()
    for (let n = 0; n < headerLength; n++) builder.bytes[to + n] = bytes[at + n]
    builder.startSum(field, start, headerLength - start, 0)
    builder.readFrom(burst, k, headerLength)
    if (!builder.take(burst.length[k] - headerLength)) return false
    builder.end(headerLength, 0, 0, 0, 0, 0)
    return true
  }

  /** Builds GSO frame k with those checksums of its IPv4 headers that are zero; all else stays. @hot */
  fillIpv4(burst: Burst, k: number, needs: number): boolean {
    const { gso, gsoSize, csumOffset, tunnel } = burst
    if (!burst.headers.parseGso(k)) return false
    const { bytes } = burst.headers
    const at = burst.headers.at(k)
    const headers = burst.headers.of(k)
    const builder = this.#builder
    const to = builder.start()
    for (let n = 0; n < headers.l4; n++) builder.bytes[to + n] = bytes[at + n]
    if (!headers.isIpv6) fillIfZero(builder.bytes, to + headers.l3)
    if (headers.outerL4 !== 0 && !headers.isOuterIpv6) {
      fillIfZero(builder.bytes, to + headers.outerL3)
    }
    builder.readFrom(burst, k, headers.l4)
    if (!builder.take(burst.length[k] - headers.l4)) return false
    builder.end(headers.l4, gso[k], gsoSize[k], csumOffset[k], needs, tunnel[k])
    return true
  }
}

/** One that its sender computed stays, right or wrong. @hot */
function fillIfZero(bytes: Uint8Array, ip: number): void {
  if (read16(bytes, ip + IPV4_CHECKSUM) === 0) fillIpv4Checksum(bytes, ip)
}
