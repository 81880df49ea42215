/**
 * Coalescing (GRO): TCP segments of a flow that follow one another in a burst become one TSO frame
 * for a port that takes it. Nothing is delayed: what is not in the burst is not waited for.
 *
 * Merged is only what the sender could have sent as one frame, so that segmentation gives back every
 * segment byte for byte: the next sequence number, the IPv4 id that follows, the same payload length
 * but for the last, and everything else in the headers equal; after FIN or PSH comes no more. What is
 * made anew is verified before, whoever sent it: a segment with a wrong checksum (of its IPv4 header,
 * of TCP, or of the pseudo-header in a partial one) stays alone, so that its receiver sees it.
 */
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN } from '../abi/if-tun.ts'
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
} from '../abi/virtio-net.ts'
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import type { FrameHeaders } from '../mem/frame-headers.ts'
import type { Headers } from '../wire/headers.ts'
import {
  fillIpv4Checksum,
  fold,
  HEADERS_MAX,
  IPPROTO_TCP,
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_HEADER_LENGTH,
  IPV4_ID,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderSum,
  IPV6_HEADER_LENGTH,
  IPV6_PAYLOAD_LENGTH,
  pseudoSum,
  read16,
  read32,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_ECE,
  TCP_FIN,
  TCP_FLAGS,
  TCP_PSH,
  TCP_SEQUENCE,
  write16,
} from '../wire/headers.ts'
import { isGso } from '../wire/vnet-hdr.ts'
import { CHECKSUM_ROWS_MAX, ChecksumProgram } from './checksum-program.ts'
import type { FrameBuilder } from './frame-builder.ts'
import { SLICES_MAX } from './frame-builder.ts'

/** Flows that are open at the same time; with more, the one that was opened first ends. */
const FLOWS_MAX = 16
const IP_LENGTH_MAX = 65535
/** Addresses, type, smallest IP and TCP headers: what has no payload keeps its place in its flow. */
const FRAME_LENGTH_MIN = 54
/** The first bytes of the type at 12, as a little-endian word has them. */
const TYPE_IPV4 = 0x0008
const TYPE_IPV6 = 0xdd86
const TYPE_VLAN = 0x0081
const TYPE_QINQ = 0xa888
const NONE = -1

/** What a frame may be. */
const PASSES = 0
/** TCP, but nothing that could be merged: it ends what is open of its flow. */
const ENDS_FLOW = 1
const MERGES = 2

export class Coalescer {
  readonly #builder: FrameBuilder
  readonly #checksums: ChecksumProgram = new ChecksumProgram()
  /** By frame. */
  readonly #kind: Uint8Array = new Uint8Array(BURST_SIZE_MAX)
  /** The next frame of the same merged one, or NONE. */
  readonly #next: Int16Array = new Int16Array(BURST_SIZE_MAX)
  readonly #isMember: Uint8Array = new Uint8Array(BURST_SIZE_MAX)
  /** By open flow: first and last frame, bytes of the IP packet so far, and slices. */
  readonly #first: Int16Array = new Int16Array(FLOWS_MAX).fill(NONE)
  readonly #last: Int16Array = new Int16Array(FLOWS_MAX)
  readonly #length: Int32Array = new Int32Array(FLOWS_MAX)
  readonly #slices: Int32Array = new Int32Array(FLOWS_MAX)
  #oldest = 0

  constructor(builder: FrameBuilder) {
    this.#builder = builder
  }

  /**
   * Looks at the frames list[first .. first + count) that are for a port which takes `txOffloads`:
   * afterwards `isMember` and `build` know what belongs together. Returns how many frames became
   * part of another one.
   * @hot
   */
  group(burst: Burst, list: Int32Array, first: number, count: number, txOffloads: number): number {
    const { headers } = burst
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      this.#next[k] = NONE
      this.#isMember[k] = 0
      this.#kind[k] = mayBeTcp(burst, k) ? MERGES : PASSES
      if (this.#kind[k] === MERGES) headers.want(k, HEADERS_MAX)
    }
    headers.read()
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (this.#kind[k] === MERGES) this.#examine(burst, k, txOffloads)
    }
    this.#verify(burst, list, first, count)
    this.#first.fill(NONE)
    let merged = 0
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (this.#kind[k] !== PASSES && this.#place(burst, k)) merged++
    }
    return merged
  }

  /** Frame k is part of one before it. @hot */
  isMember(k: number): boolean {
    return this.#isMember[k] !== 0
  }

  /** Others are part of frame k. @hot */
  isMerged(k: number): boolean {
    return this.#next[k] !== NONE
  }

  /** @hot */
  #examine(burst: Burst, k: number, txOffloads: number): void {
    const { headers } = burst
    const found = headers.of(k)
    if (!headers.parse(k) || found.protocol !== IPPROTO_TCP || found.outerL4 !== 0) {
      this.#kind[k] = PASSES
      return
    }
    const { l3, l4, end, isIpv6 } = found
    const flags = headers.bytes[headers.at(k) + l4 + TCP_FLAGS]
    const isOrdinary = (flags & ~(TCP_FIN | TCP_PSH | TCP_CWR | TCP_ECE)) === TCP_ACK
    const hasOptions = l4 - l3 !== (isIpv6 ? IPV6_HEADER_LENGTH : IPV4_HEADER_LENGTH)
    let needs = TUN_F_CSUM | (isIpv6 ? TUN_F_TSO6 : TUN_F_TSO4)
    if ((flags & TCP_CWR) !== 0) needs |= TUN_F_TSO_ECN
    const length = burst.length[k]
    const isWhole = found.length === length && length > end
    const isTaken = (needs & ~txOffloads) === 0
    const isPlain = !isGso(burst.gso[k]) && (burst.needs[k] & ~TUN_F_CSUM) === 0
    const isOne = isOrdinary && isPlain && isWhole && isTaken && !hasOptions
    if (!isOne) this.#kind[k] = ENDS_FLOW
  }

  /** Frames with a wrong checksum, or one that segmentation would spell otherwise, are not merged. @hot */
  #verify(burst: Burst, list: Int32Array, first: number, count: number): void {
    let from = first
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      if (this.#kind[k] !== MERGES) continue
      if (!this.#areHeadersRight(burst, k)) {
        this.#kind[k] = ENDS_FLOW
        continue
      }
      if (isPartial(burst, k)) continue
      if (this.#checksums.count + SLICES_MAX > CHECKSUM_ROWS_MAX) {
        this.#judge(burst, list, from, at)
        from = at
      }
      this.#checksums.start(k, this.#pseudoSum(burst, k))
      this.#addBytes(burst, k, burst.headers.of(k).l4)
    }
    this.#judge(burst, list, from, first + count)
  }

  /** What the headers of frame k show without its payload. @hot */
  #areHeadersRight(burst: Burst, k: number): boolean {
    const { bytes } = burst.headers
    const { l3, l4, isIpv6 } = burst.headers.of(k)
    const at = burst.headers.at(k)
    const ip = at + l3
    if (!isIpv6) {
      if (ipv4HeaderSum(bytes, ip) !== 0xffff) return false
      // A right one is never 0xffff when it is computed, only when somebody spells 0 so.
      if (read16(bytes, ip + IPV4_CHECKSUM) === 0xffff) return false
    }
    const checksum = read16(bytes, at + l4 + TCP_CHECKSUM)
    // 0 and 0xffff are one number: which of them it was would be lost, and senders do not agree.
    if (!isPartial(burst, k)) return checksum !== 0 && checksum !== 0xffff
    const isOfTcp = burst.gsoSize[k] >>> 16 === l4 && burst.csumOffset[k] === TCP_CHECKSUM
    return isOfTcp && checksum % 0xffff === fold(this.#pseudoSum(burst, k)) % 0xffff
  }

  /** With the length. @hot */
  #pseudoSum(burst: Burst, k: number): number {
    const { headers } = burst
    const { l3, l4, isIpv6 } = headers.of(k)
    const sum = pseudoSum(headers.bytes, headers.at(k) + l3, isIpv6, IPPROTO_TCP)
    return sum + burst.length[k] - l4
  }

  /** The bytes of frame k from `from` on, which lies in its first segment or behind it. @hot */
  #addBytes(burst: Burst, k: number, from: number): void {
    const isScattered = burst.isScattered(k)
    const firstLength = isScattered ? burst.firstLength[k] : burst.length[k]
    let skip = from
    if (skip < firstLength) {
      this.#checksums.add(burst.window[k], burst.offset[k] + skip, firstLength - skip)
      skip = 0
    } else skip -= firstLength
    if (!isScattered) return
    const end = burst.furtherFirst[k] + burst.furtherCount[k]
    for (let piece = burst.furtherFirst[k]; piece < end; piece++) {
      const length = burst.furtherLength[piece]
      if (skip < length) {
        const window = burst.furtherWindow[piece]
        this.#checksums.add(window, burst.furtherOffset[piece] + skip, length - skip)
        skip = 0
      } else skip -= length
    }
  }

  /** @hot */
  #judge(burst: Burst, list: Int32Array, from: number, to: number): void {
    this.#checksums.run()
    for (let at = from; at < to; at++) {
      const k = list[at]
      if (this.#kind[k] !== MERGES || isPartial(burst, k)) continue
      if (this.#checksums.sum(k) !== 0xffff) this.#kind[k] = ENDS_FLOW
    }
  }

  /** Puts frame k where it belongs; true: it has become part of another one. @hot */
  #place(burst: Burst, k: number): boolean {
    const flow = this.#find(burst.headers, k)
    if (this.#kind[k] === ENDS_FLOW) {
      if (flow !== NONE) this.#first[flow] = NONE
      return false
    }
    if (flow !== NONE && this.#follows(burst, flow, k)) {
      this.#next[this.#last[flow]] = k
      this.#isMember[k] = 1
      this.#last[flow] = k
      this.#length[flow] += burst.length[k] - burst.headers.of(k).end
      this.#slices[flow] += slicesOf(burst, k)
      this.#endAfterLast(burst, flow, k)
      return true
    }
    this.#open(burst, flow === NONE ? this.#freeFlow() : flow, k)
    return false
  }

  /** @hot */
  #open(burst: Burst, flow: number, k: number): void {
    this.#first[flow] = k
    this.#last[flow] = k
    this.#length[flow] = burst.length[k] - burst.headers.of(k).l3
    this.#slices[flow] = slicesOf(burst, k)
    this.#endAfterLast(burst, flow, k)
  }

  /** FIN, PSH and a shorter payload are only on the last one. @hot */
  #endAfterLast(burst: Burst, flow: number, k: number): void {
    const first = this.#first[flow]
    const { headers } = burst
    const { l4, end } = headers.of(k)
    const isShorter = burst.length[k] - end < burst.length[first] - headers.of(first).end
    const flags = headers.bytes[headers.at(k) + l4 + TCP_FLAGS]
    if (isShorter || (flags & (TCP_FIN | TCP_PSH)) !== 0) this.#first[flow] = NONE
  }

  /** @hot */
  #freeFlow(): number {
    for (let flow = 0; flow < FLOWS_MAX; flow++) if (this.#first[flow] === NONE) return flow
    const flow = this.#oldest
    this.#oldest = (flow + 1) % FLOWS_MAX
    return flow
  }

  /** The open flow that frame k is of, or NONE: same addresses, tags and ports. @hot */
  #find(headers: FrameHeaders, k: number): number {
    for (let flow = 0; flow < FLOWS_MAX; flow++) {
      const first = this.#first[flow]
      if (first !== NONE && isSameFlow(headers, first, k)) return flow
    }
    return NONE
  }

  /** Frame k continues what is open of its flow. @hot */
  #follows(burst: Burst, flow: number, k: number): boolean {
    const first = this.#first[flow]
    const last = this.#last[flow]
    const { headers } = burst
    const { bytes } = headers
    const { l4, end } = headers.of(k)
    const firstFound = headers.of(first)
    if (end !== firstFound.end || l4 !== firstFound.l4) return false
    const payload = burst.length[k] - end
    if (payload > burst.length[first] - end) return false
    if (this.#length[flow] + payload > IP_LENGTH_MAX) return false
    if (this.#slices[flow] + slicesOf(burst, k) > SLICES_MAX) return false
    if (isPartial(burst, k) !== isPartial(burst, first)) return false
    const from = headers.at(first)
    const to = headers.at(k)
    const tcp = to + l4
    const lastTcp = headers.at(last) + l4
    const expected = read32(bytes, lastTcp + TCP_SEQUENCE) + burst.length[last] - end
    if (read32(bytes, tcp + TCP_SEQUENCE) !== (expected | 0)) return false
    const flags = bytes[tcp + TCP_FLAGS]
    const changed = flags ^ bytes[from + l4 + TCP_FLAGS]
    if ((changed & ~(TCP_FIN | TCP_PSH | TCP_CWR)) !== 0 || (flags & TCP_CWR) !== 0) return false
    return (
      // Acknowledgement and data offset; window; urgent pointer and options.
      isEqual(bytes, from + l4 + 8, tcp + 8, 5) &&
      isEqual(bytes, from + l4 + 14, tcp + 14, 2) &&
      isEqual(bytes, from + l4 + 18, tcp + 18, end - l4 - 18) &&
      isNextPacket(headers, first, last, k)
    )
  }

  /** Builds the frame that starts with frame k. @hot */
  build(burst: Burst, k: number): void {
    const builder = this.#builder
    const { headers } = burst
    const { bytes } = headers
    const found = headers.of(k)
    const { l4, end } = found
    const from = headers.at(k)
    const to = builder.start()
    let flags = bytes[from + l4 + TCP_FLAGS]
    let length = end
    for (let part = k; part !== NONE; part = this.#next[part]) {
      builder.readFrom(burst, part, end)
      builder.take(burst.length[part] - end)
      length += burst.length[part] - end
      flags |= bytes[headers.at(part) + l4 + TCP_FLAGS] & (TCP_FIN | TCP_PSH)
    }
    for (let n = 0; n < end; n++) builder.bytes[to + n] = bytes[from + n]
    this.#endHeaders(to, found, length, flags, burst.length[k] - end)
  }

  /** @hot */
  #endHeaders(to: number, found: Headers, length: number, flags: number, gsoSize: number): void {
    const { bytes } = this.#builder
    const { l3, l4, end, isIpv6 } = found
    if (isIpv6) write16(bytes, to + l3 + IPV6_PAYLOAD_LENGTH, length - l3 - IPV6_HEADER_LENGTH)
    else {
      write16(bytes, to + l3 + IPV4_TOTAL_LENGTH, length - l3)
      fillIpv4Checksum(bytes, to + l3)
    }
    bytes[to + l4 + TCP_FLAGS] = flags
    const pseudo = pseudoSum(bytes, to + l3, isIpv6, IPPROTO_TCP) + length - l4
    write16(bytes, to + l4 + TCP_CHECKSUM, fold(pseudo))
    let type = isIpv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4
    let needs = TUN_F_CSUM | (isIpv6 ? TUN_F_TSO6 : TUN_F_TSO4)
    if ((flags & TCP_CWR) !== 0) {
      type |= VIRTIO_NET_HDR_GSO_ECN
      needs |= TUN_F_TSO_ECN
    }
    const gso = VIRTIO_NET_HDR_F_NEEDS_CSUM | (type << 8) | (end << 16)
    this.#builder.end(end, gso, gsoSize | (l4 << 16), TCP_CHECKSUM, needs, 0)
  }

  close(): void {
    this.#checksums.close()
  }
}

/** From its length and its first bytes: a whole TCP header may be in it. @hot */
function mayBeTcp(burst: Burst, k: number): boolean {
  if (burst.length[k] < FRAME_LENGTH_MIN) return false
  const type = burst.heads[4 * k + 3] & 0xffff
  return type === TYPE_IPV4 || type === TYPE_IPV6 || type === TYPE_VLAN || type === TYPE_QINQ
}

/** @hot */
function isPartial(burst: Burst, k: number): boolean {
  return (burst.gso[k] & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0
}

/** At most so many slices is its payload. @hot */
function slicesOf(burst: Burst, k: number): number {
  return burst.isScattered(k) ? 1 + burst.furtherCount[k] : 1
}

/** Same addresses, tags and ports. @hot */
function isSameFlow(headers: FrameHeaders, one: number, other: number): boolean {
  const found = headers.of(one)
  const { l3, l4, isIpv6 } = headers.of(other)
  if (l3 !== found.l3) return false
  const { bytes } = headers
  const from = headers.at(one)
  const to = headers.at(other)
  const addresses = l3 + (isIpv6 ? 8 : 12)
  return (
    isEqual(bytes, from, to, l3) &&
    isEqual(bytes, from + addresses, to + addresses, isIpv6 ? 32 : 8) &&
    isEqual(bytes, from + found.l4, to + l4, 4)
  )
}

/**
 * The IP headers but addresses: equal, and IPv4 ids count up. Constant ones, which mean nothing where
 * nothing may be fragmented (RFC 6864), would count up after segmentation.
 * @hot
 */
function isNextPacket(headers: FrameHeaders, first: number, last: number, k: number): boolean {
  const { bytes } = headers
  const { l3, isIpv6 } = headers.of(k)
  const from = headers.at(first) + l3
  const to = headers.at(k) + l3
  if (isIpv6) return isEqual(bytes, from, to, 4) && isEqual(bytes, from + 6, to + 6, 2)
  const isSame =
    isEqual(bytes, from, to, 2) && isEqual(bytes, from + IPV4_FRAGMENT, to + IPV4_FRAGMENT, 4)
  if (!isSame) return false
  const step = read16(bytes, to + IPV4_ID) - read16(bytes, headers.at(last) + l3 + IPV4_ID)
  return (step & 0xffff) === 1
}

/** The `length` bytes at both places. @hot */
function isEqual(bytes: Uint8Array, one: number, other: number, length: number): boolean {
  for (let n = 0; n < length; n++) if (bytes[one + n] !== bytes[other + n]) return false
  return true
}
