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
import { BURST_SIZE_MAX } from '../../mem/burst.ts'
import { CopyProgram } from '../../mem/copy-program.ts'
import { ownAll } from '../../mem/own-all.ts'
import { Window } from '../../mem/window.ts'
import {
  Headers,
  HEADERS_MAX,
  IPPROTO_TCP,
  IPV4_CHECKSUM,
  read16,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from '../../wire/headers.ts'
import { isGso, NEEDS_IPV4_CHECKSUM, parseGso } from '../../wire/vnet-hdr.ts'

export class GsoCheck {
  readonly #headers: Headers = new Headers()
  readonly #window: Window
  readonly #bytes: Uint8Array
  readonly #copies: CopyProgram

  constructor() {
    const made = ownAll((own) => ({
      window: own(Window.map(BURST_SIZE_MAX * HEADERS_MAX)),
      copies: own(new CopyProgram()),
    }))
    this.#window = made.window
    this.#bytes = new Uint8Array(made.window.buffer)
    this.#copies = made.copies
  }

  /** Checks the burst's GSO frames; those that are wrong leave it. Returns how many did. @hot */
  check(burst: Burst): number {
    const count = burst.count
    for (let k = 0; k < count; k++) {
      if (!isGso(burst.gso[k])) continue
      this.#copies.addFrame(burst, k, this.#window.id, k * HEADERS_MAX, this.#available(burst, k))
    }
    this.#copies.run()
    let kept = 0
    for (let k = 0; k < count; k++) {
      if (isGso(burst.gso[k]) && !this.#mend(burst, k)) continue
      if (kept !== k) burst.take(burst, k, kept)
      kept++
    }
    burst.count = kept
    return count - kept
  }

  /** @hot */
  #available(burst: Burst, k: number): number {
    return burst.length[k] < HEADERS_MAX ? burst.length[k] : HEADERS_MAX
  }

  /** False: the frame is not what its header says. @hot */
  #mend(burst: Burst, k: number): boolean {
    const headers = this.#headers
    const at = k * HEADERS_MAX
    const { gso, tunnel } = burst
    if (!parseGso(headers, this.#bytes, at, this.#available(burst, k), gso[k], tunnel[k])) {
      return false
    }
    const { l3, l4, end, protocol, isIpv6, outerL3, outerL4, isOuterIpv6 } = headers
    const kept = gso[k] & (0xff00 | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM)
    gso[k] = kept | VIRTIO_NET_HDR_F_NEEDS_CSUM | (end << 16)
    burst.gsoSize[k] = (burst.gsoSize[k] & 0xffff) | (l4 << 16)
    burst.csumOffset[k] = protocol === IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM
    // Spelt anew: what stands before the frame may be different by now.
    burst.headLength[k] = 0
    const lacks =
      (!isIpv6 && this.#lacksChecksum(at + l3)) ||
      (outerL4 !== 0 && !isOuterIpv6 && this.#lacksChecksum(at + outerL3))
    if (lacks) burst.needs[k] |= NEEDS_IPV4_CHECKSUM
    return true
  }

  /** @hot */
  #lacksChecksum(ip: number): boolean {
    return read16(this.#bytes, ip + IPV4_CHECKSUM) === 0
  }

  close(): void {
    this.#copies.close()
    this.#window.unmap()
  }
}
