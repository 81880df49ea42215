/**
 * Segmentation in software: a TSO or USO frame becomes frames of at most gso_size payload bytes, as
 * the kernel's own segmentation makes them. Payload is not copied; each segment is a header of our
 * own in front of slices of the original.
 *
 * IPv4 ids count up from that of the frame; FIN and PSH are on the last segment only, CWR on the
 * first only (RFC 3168 §6.1.2). Checksums are complete.
 */
import type { Burst } from '../mem/burst.ts'
import {
  fillIpv4Checksum,
  Headers,
  HEADERS_MAX,
  IPPROTO_TCP,
  IPV4_ID,
  IPV4_TOTAL_LENGTH,
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
import { gsoMatches } from '../wire/vnet-hdr.ts'
import type { FrameBuilder } from './frame-builder.ts'

/** Segments of one frame: 64 KiB of 128 bytes. A peer that asks for more wants to keep us busy. */
export const SEGMENTS_MAX = 512

export class Segmenter {
  readonly #builder: FrameBuilder
  readonly #headers: Headers = new Headers()

  constructor(builder: FrameBuilder) {
    this.#builder = builder
  }

  /**
   * Builds the segments of frame k, whose headers have been copied to `at` of `bytes`. False: it is
   * not what its vnet_hdr says, or cannot be cut; then nothing was built, or not all of it.
   * @hot
   */
  cut(burst: Burst, k: number, bytes: Uint8Array, at: number): boolean {
    const headers = this.#headers
    const length = burst.length[k]
    if (!headers.parse(bytes, at, length < HEADERS_MAX ? length : HEADERS_MAX)) return false
    if (!gsoMatches(burst.gso[k], headers)) return false
    const gsoSize = burst.gsoSize[k] & 0xffff
    const payload = length - headers.end
    if (payload > gsoSize * SEGMENTS_MAX) return false
    const builder = this.#builder
    builder.readFrom(burst, k, headers.end)
    let done = 0
    let number = 0
    do {
      const part = payload - done < gsoSize ? payload - done : gsoSize
      const to = builder.start()
      this.#writeHeaders(bytes, at, to, done, part, number, done + part === payload)
      if (!builder.take(part)) return false
      builder.end(headers.end, 0, 0, 0, 0)
      done += part
      number++
    } while (done < payload)
    return true
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
    const total = headers.end - headers.l3 + part
    if (headers.isIpv6) write16(bytes, l3 + IPV6_PAYLOAD_LENGTH, total - IPV6_HEADER_LENGTH)
    else {
      write16(bytes, l3 + IPV4_TOTAL_LENGTH, total)
      write16(bytes, l3 + IPV4_ID, read16(bytes, l3 + IPV4_ID) + number)
      fillIpv4Checksum(bytes, l3)
    }
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
    this.#builder.startSum(headers.l4 + checksum, headers.l4, headers.end - headers.l4, initial)
  }
}
