/**
 * Turns what the kernel delivered, each frame behind its vnet_hdr, into frames of a burst: strips and
 * reads the header, gathers the first 16 bytes, and leaves out what is no frame, with a reason. Both
 * tiers use it for what was read from TAPs, and packet sockets for what stands in their rings.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VNET_HDR_LENGTH,
  VNET_HDR_OUTER_TH_OFFSET,
  VNET_HDR_TUNNEL_LENGTH,
} from '../abi/virtio-net.ts'
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS, ZEROS_BEFORE } from '../mem/burst.ts'
import type { Window } from '../mem/window.ts'
import { SLOT_CAPACITY } from '../mem/frame-pool.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import { IPV6_HEADER_LENGTH, TCP_OFFSET, UDP_HEADER_LENGTH } from '../wire/headers.ts'
import {
  isGso,
  isTunnelled,
  NEEDS_MALFORMED,
  NEEDS_UNKNOWN_TYPE,
  offloadNeeds,
} from '../wire/vnet-hdr.ts'
import type { TierEvents } from './tier.ts'

/** Ethertypes as little-endian half-words of a frame. */
const TAG_8021Q = 0x0081
const TAG_8021AD = 0xa888
const TYPE_IPV4 = 0x0008
/** IEEE 802.1ad: one of the customer, one of the provider. */
const TAGS_MAX = 2

/** Where the frames lie. */
export interface FrameMemory {
  readonly window: Window
  /** All of it as 16- and 32-bit words. */
  readonly words: Int32Array
  readonly halfWords: Uint16Array
}

export class FrameReader {
  readonly #window: number
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #headWithout: number
  #burst: Burst | null = null
  #vnetHdrLength = 0
  #malformed = 0
  #unknownType = 0
  #oversize = 0

  /** `headWithout` is the `headLength` of frames that are read without a vnet_hdr. */
  constructor(memory: FrameMemory, headWithout: number = ZEROS_BEFORE) {
    this.#window = memory.window.id
    this.#words = memory.words
    this.#halfWords = memory.halfWords
    this.#headWithout = headWithout
  }

  /** Starts a burst of frames that were read with so many bytes of vnet_hdr. @hot */
  begin(burst: Burst, vnetHdrLength: number): void {
    burst.clear()
    if (vnetHdrLength !== 0) burst.hasOffloads = true
    this.#burst = burst
    this.#vnetHdrLength = vnetHdrLength
  }

  /**
   * Adds the `result` bytes that a read put at `offset` (a multiple of 4) of the memory; negative: the
   * kernel lost the frame.
   * @hot
   */
  add(offset: number, result: number): void {
    const burst = this.#burst!
    const headLength = this.#vnetHdrLength
    const length = result - headLength
    if (length < ETHER_HEADER_LENGTH) {
      this.#malformed++
      return
    }
    if (result >= SLOT_CAPACITY) {
      this.#oversize++
      return
    }
    const k = burst.count
    const frame = offset + headLength
    const words = this.#words
    let gso = 0
    let gsoSize = 0
    let csumOffset = 0
    let needs = 0
    let tunnel = 0
    let head = headLength === 0 ? this.#headWithout : headLength
    if (headLength >= VNET_HDR_LENGTH) {
      gso = words[offset >> 2]!
      // flags and gso_type both zero: a plain frame, the rest of the header means nothing.
      if ((gso & 0xffff) !== 0) {
        gsoSize = words[(offset >> 2) + 1]!
        csumOffset = this.#halfWords[(offset >> 1) + 4]!
        if (headLength === VNET_HDR_TUNNEL_LENGTH) {
          tunnel = words[(offset + VNET_HDR_OUTER_TH_OFFSET) >> 2]!
        }
        needs = offloadNeeds(gso, gsoSize, csumOffset, length, tunnel)
        if (needs < 0) {
          if (needs === NEEDS_MALFORMED) this.#malformed++
          else if (needs === NEEDS_UNKNOWN_TYPE) this.#unknownType++
          return
        }
        if (isGso(gso)) gso = this.#withHeaderLength(gso, gsoSize, frame, length)
        if (isTunnelled(gso)) {
          const untagged = tunnel
          tunnel = this.#withTags(tunnel, frame)
          // Then the header before the frame is wrong, and must not be passed on as it is.
          if (tunnel !== untagged) head = 0
        }
      }
    }
    burst.window[k] = this.#window
    burst.offset[k] = frame
    burst.length[k] = length
    burst.headLength[k] = head
    burst.gso[k] = gso
    burst.gsoSize[k] = gsoSize
    burst.csumOffset[k] = csumOffset
    burst.needs[k] = needs
    burst.tunnel[k] = tunnel
    this.#gather(burst.heads, k * HEAD_WORDS, frame)
    burst.count = k + 1
  }

  /**
   * The kernel's hdr_len can be far more than the headers: so much of the frame was in one piece. It
   * is replaced by what csum_start says. @hot
   */
  #withHeaderLength(gso: number, gsoSize: number, frame: number, length: number): number {
    const l4 = gsoSize >>> 16
    if ((gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0 || l4 + TCP_OFFSET + 2 > length) return gso
    let headerLength = l4 + UDP_HEADER_LENGTH
    if (((gso >>> 8) & 0xf) !== VIRTIO_NET_HDR_GSO_UDP_L4) {
      const at = frame + l4 + TCP_OFFSET
      const half = this.#halfWords[at >> 1]
      const byte = (at & 1) === 0 ? half & 0xff : half >>> 8
      headerLength = l4 + ((byte >>> 4) << 2)
    }
    return (gso & 0xffff) | (headerLength << 16)
  }

  /**
   * The kernel puts the VLAN tag of an interface (802.1Q on top of the TAP) into the frame while it is
   * read; csum_start counts that tag, the offsets of a tunnel do not (Linux 6.18, tun_vnet.h). Returns
   * the offsets as they should be. Extension headers of an outer IPv6 header are not walked: such a frame
   * keeps its offsets. @hot
   */
  #withTags(tunnel: number, frame: number): number {
    const halfWords = this.#halfWords
    let network = ETHER_HEADER_LENGTH
    let at = (frame + network - 2) >> 1
    while (halfWords[at] === TAG_8021Q || halfWords[at] === TAG_8021AD) {
      if (network === ETHER_HEADER_LENGTH + TAGS_MAX * VLAN_TAG_LENGTH) return tunnel
      network += VLAN_TAG_LENGTH
      at += VLAN_TAG_LENGTH >> 1
    }
    if (network === ETHER_HEADER_LENGTH) return tunnel
    let transport = network + IPV6_HEADER_LENGTH
    if (halfWords[at] === TYPE_IPV4) transport = network + ((halfWords[at + 1] & 0xf) << 2)
    if ((tunnel & 0xffff) !== transport - VLAN_TAG_LENGTH) return tunnel
    const innerNh = (tunnel >>> 16) + VLAN_TAG_LENGTH
    return transport | (innerNh << 16)
  }

  /** First 16 bytes of the frame; vnet_hdr lengths are even, so it starts at an even offset. @hot */
  #gather(heads: Int32Array, at: number, frame: number): void {
    if ((frame & 3) === 0) {
      const words = this.#words
      const word = frame >> 2
      heads[at] = words[word]!
      heads[at + 1] = words[word + 1]!
      heads[at + 2] = words[word + 2]!
      heads[at + 3] = words[word + 3]!
      return
    }
    const halfWords = this.#halfWords
    const half = frame >> 1
    heads[at] = halfWords[half] | (halfWords[half + 1] << 16)
    heads[at + 1] = halfWords[half + 2] | (halfWords[half + 3] << 16)
    heads[at + 2] = halfWords[half + 4] | (halfWords[half + 5] << 16)
    heads[at + 3] = halfWords[half + 6] | (halfWords[half + 7] << 16)
  }

  /** Ends the burst and tells what was left out. @hot */
  end(events: Pick<TierEvents, 'dropped'>, port: number): void {
    if ((this.#malformed | this.#unknownType | this.#oversize) === 0) return
    events.dropped(port, this.#malformed, this.#unknownType, this.#oversize)
    this.#malformed = 0
    this.#unknownType = 0
    this.#oversize = 0
  }
}
