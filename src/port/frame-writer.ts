/**
 * Writes frames to descriptors that take one per write, behind a vnet_hdr or none: TAP queues and packet
 * sockets. Each is an entry of the I/O tier's; a header that does not stand before its frame as it is
 * wanted is spelt anew here. What was queued counts as sent until the tier says that it was not.
 */
import {
  EAGAIN,
  EBADF,
  EBADFD,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  ENXIO,
} from '../abi/errno.ts'
import { VNET_HDR_OUTER_TH_OFFSET } from '../abi/virtio-net.ts'
import type { IoTier } from '../io/tier.ts'
import type { Burst } from '../mem/burst.ts'
import { ZEROS_BEFORE } from '../mem/burst.ts'
import { Window } from '../mem/window.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'

/** vnet_hdrs that can wait for a flush; each has HEADER_STRIDE bytes. */
const HEADERS_MAX = 1024
const HEADER_STRIDE = 32
/** A constant of this module is part of the machine code, an imported one is loaded at each use. */
const ZEROS: number = ZEROS_BEFORE
const TUNNEL_WORD: number = VNET_HDR_OUTER_TH_OFFSET >> 2

export class FrameWriter {
  /** Bytes of vnet_hdr that the descriptors want before each frame; 0: none. */
  vnetHdrLength: number

  readonly #port: number
  readonly #tier: IoTier
  readonly #counters: Float64Array
  readonly #counterBase: number
  /** Headers for frames that bring none of the wanted length. */
  readonly #headers: Window
  readonly #headerWords: Int32Array
  #headerCount = 0

  /** What is written counts as sent by the port of that number. */
  constructor(port: number, vnetHdrLength: number, tier: IoTier, counters: Float64Array) {
    this.#port = port
    this.vnetHdrLength = vnetHdrLength
    this.#tier = tier
    this.#counters = counters
    this.#counterBase = port * COUNTERS_STRIDE
    this.#headers = Window.map(HEADERS_MAX * HEADER_STRIDE)
    this.#headerWords = new Int32Array(this.#headers.buffer)
  }

  /** The frames list[first .. first + count) of the burst. @hot */
  write(fd: number, burst: Burst, list: Int32Array, first: number, count: number): void {
    const tier = this.#tier
    const port = this.#port
    const headLength = this.vnetHdrLength
    const windows = burst.window
    const offsets = burst.offset
    const lengths = burst.length
    const headLengths = burst.headLength
    let bytes = 0
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      const length = lengths[k]
      bytes += length
      if (burst.isScattered(k)) {
        this.#writeScattered(fd, burst, k)
      } else if (headLength === 0) {
        tier.write(fd, port, windows[k], offsets[k], length)
      } else if (headLengths[k] === headLength || headLengths[k] === ZEROS) {
        // The header stands before the frame as it is wanted: it passes unchanged.
        tier.write(fd, port, windows[k], offsets[k] - headLength, length + headLength)
      } else {
        this.#writeWithHeader(fd, burst, k)
      }
    }
    const base = this.#counterBase
    this.#counters[base + COUNTERS.tx_frames] += count
    this.#counters[base + COUNTERS.tx_bytes] += bytes
  }

  /** Spells the header anew, for a frame that has none or one of another length. @hot */
  #writeWithHeader(fd: number, burst: Burst, k: number): void {
    const offset = this.#spellHeader(burst, k)
    this.#tier.writeWithHeader(
      fd,
      this.#port,
      this.#headers.id,
      offset,
      this.vnetHdrLength,
      burst.window[k],
      burst.offset[k],
      burst.length[k],
    )
  }

  /** @hot */
  #writeScattered(fd: number, burst: Burst, k: number): void {
    const headLength = this.vnetHdrLength
    const offset = headLength === 0 ? 0 : this.#spellHeader(burst, k)
    this.#tier.writeScattered(fd, this.#port, this.#headers.id, offset, headLength, burst, k)
  }

  /** Writes frame k's vnet_hdr; returns its offset in the window of headers. @hot */
  #spellHeader(burst: Burst, k: number): number {
    if (this.#headerCount === HEADERS_MAX) {
      // None of the headers written so far is still needed after this.
      this.#tier.flush()
      this.#headerCount = 0
    }
    const offset = this.#headerCount * HEADER_STRIDE
    this.#headerCount++
    const words = this.#headerWords
    const word = offset >> 2
    // Words 3 and 4 stay zero (num_buffers is written by nobody on a TAP).
    words[word] = burst.gso[k]!
    words[word + 1] = burst.gsoSize[k]!
    words[word + 2] = burst.csumOffset[k]!
    words[word + TUNNEL_WORD] = burst.tunnel[k]!
    return offset
  }

  /**
   * One of these writes, of `length` bytes with its vnet_hdr, failed with a positive errno. True: what is
   * behind the descriptors is gone.
   */
  failed(length: number, errno: number): boolean {
    const base = this.#counterBase
    const counters = this.#counters
    // It was counted as sent when it was queued.
    counters[base + COUNTERS.tx_frames]--
    counters[base + COUNTERS.tx_bytes] -= length - this.vnetHdrLength
    counters[base + reasonOf(errno)]++
    // A packet socket says ENXIO when its interface is gone.
    return errno === EBADFD || errno === EBADF || errno === ENXIO
  }

  close(): void {
    this.#headers.unmap()
  }
}

/** The counter of frames that were not written for that errno. */
export function reasonOf(errno: number): number {
  switch (errno) {
    case EAGAIN:
    case ENOBUFS:
      return COUNTERS.tx_drop_full
    case EIO:
    case ENETDOWN:
      return COUNTERS.tx_drop_link_down
    case EMSGSIZE:
      return COUNTERS.tx_drop_mtu
    case EINVAL:
      return COUNTERS.tx_drop_malformed
    default:
      return COUNTERS.tx_drop_error
  }
}
