/**
 * What a vnet_hdr asks for and what becomes of a frame, from the standards: VIRTIO 1.3 §5.1.6, RFC 791,
 * 768, 1071, 3168, 8200, 9293. Everything is computed on whole frames, byte by byte.
 */

/** As it stands before a frame. */
export interface ModelVnetHeader {
  readonly flags: number
  readonly type: number
  readonly gsoSize: number
  readonly csumStart: number
  readonly csumOffset: number
  readonly outerTh: number
  readonly innerNh: number
}

const [NEEDS_CSUM, DATA_VALID, TUNNEL_CSUM] = [1, 2, 8]
const [TCPV4, TCPV6, UDP_L4, IN_IPV4, IN_IPV6, ECN] = [1, 4, 5, 0x20, 0x40, 0x80]
const [TCP, UDP] = [6, 17]
/** Headers longer than this are not looked at, and a frame is cut into so many at most. */
const HEADERS_MAX = 256
const SEGMENTS_MAX = 512

/** The TUN_F_* bits, linux/if_tun.h. */
const CSUM = 1
const TSO4 = 2
const TSO6 = 4
const TSO_ECN = 8
const USO = 0x20 | 0x40
const TUNNEL = 0x80
const TUNNEL_WITH_CSUM = 0x100

export const MALFORMED = -1
export const UNKNOWN_TYPE = -2

export function modelNeeds(header: ModelVnetHeader, length: number): number {
  const { flags, type, gsoSize, csumStart, csumOffset, outerTh, innerNh } = header
  const isPartial = (flags & NEEDS_CSUM) !== 0
  if (isPartial && (csumStart < 14 || csumStart + csumOffset > length - 2)) return MALFORMED
  const base = type & 0x1f
  const tunnel = type & (IN_IPV4 | IN_IPV6)
  if (base === 0) return type === 0 ? (isPartial ? CSUM : 0) : MALFORMED
  if (gsoSize === 0) return MALFORMED
  if (tunnel !== 0) {
    if (!isPartial || tunnel === (IN_IPV4 | IN_IPV6)) return MALFORMED
    // Outer Ethernet and IP, outer UDP, the inner IP header, and then what is summed up.
    const least = tunnel === IN_IPV4 ? 14 + 20 : 14 + 40
    if (outerTh < least || innerNh - outerTh < 8 || csumStart - innerNh < 20) return MALFORMED
  }
  const kind = base === TCPV4 ? TSO4 : base === TCPV6 ? TSO6 : base === UDP_L4 ? USO : 0
  if (kind === 0) return UNKNOWN_TYPE
  let needs = kind | CSUM
  if ((type & ECN) !== 0) needs |= TSO_ECN
  if (tunnel !== 0) needs |= TUNNEL
  if (tunnel !== 0 && (flags & TUNNEL_CSUM) !== 0) needs |= TUNNEL_WITH_CSUM
  return needs
}

export interface ModelHeaders {
  readonly l3: number
  readonly l4: number
  readonly end: number
  readonly protocol: number
  readonly isIpv6: boolean
}

const be16 = (bytes: Uint8Array, at: number): number => bytes[at] * 256 + bytes[at + 1]

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = (value >> 8) & 0xff
  bytes[at + 1] = value & 0xff
}

/** TCP or UDP in an IP packet at `l3`; null: something else, a fragment, or cut off. */
function modelPacket(bytes: Uint8Array, l3: number, isIpv6: boolean): ModelHeaders | null {
  const available = Math.min(bytes.length, HEADERS_MAX)
  let l4: number
  let protocol: number
  if (isIpv6) {
    if (l3 + 40 > available || bytes[l3] >> 4 !== 6) return null
    protocol = bytes[l3 + 6]
    l4 = l3 + 40
    while ([0, 43, 60].includes(protocol)) {
      if (l4 + 8 > available) return null
      protocol = bytes[l4]
      l4 += 8 + 8 * bytes[l4 + 1]
    }
  } else {
    if (l3 + 20 > available || bytes[l3] >> 4 !== 4 || (bytes[l3] & 15) < 5) return null
    if ((be16(bytes, l3 + 6) & 0x3fff) !== 0) return null
    protocol = bytes[l3 + 9]
    l4 = l3 + 4 * (bytes[l3] & 15)
  }
  if (protocol !== TCP && protocol !== UDP) return null
  if (l4 + (protocol === TCP ? 20 : 8) > available) return null
  const length = protocol === TCP ? 4 * (bytes[l4 + 12] >> 4) : 8
  if ((protocol === TCP && length < 20) || l4 + length > available) return null
  return { l3, l4, end: l4 + length, protocol, isIpv6 }
}

export function modelHeaders(bytes: Uint8Array): ModelHeaders | null {
  let at = 12
  for (let tags = 0; at + 2 <= Math.min(bytes.length, HEADERS_MAX); tags++) {
    const type = be16(bytes, at)
    if (type === 0x0800) return modelPacket(bytes, at + 2, false)
    if (type === 0x86dd) return modelPacket(bytes, at + 2, true)
    if ((type !== 0x8100 && type !== 0x88a8) || tags === 2) return null
    at += 4
  }
  return null
}

interface Layers {
  readonly inner: ModelHeaders
  readonly outer: ModelHeaders | null
}

/** The headers of a GSO frame, if they are what its vnet_hdr says. */
function modelLayers(bytes: Uint8Array, header: ModelVnetHeader): Layers | null {
  const { type, outerTh, innerNh } = header
  const first = modelHeaders(bytes)
  if (first === null) return null
  let layers: Layers = { inner: first, outer: null }
  if ((type & (IN_IPV4 | IN_IPV6)) !== 0) {
    if (first.protocol !== UDP || first.l4 !== outerTh) return null
    // Sums of words: what is between must not shift them.
    if (innerNh < first.end || (innerNh - outerTh) % 2 !== 0) return null
    if (innerNh >= Math.min(bytes.length, HEADERS_MAX)) return null
    const inner = modelPacket(bytes, innerNh, bytes[innerNh] >> 4 === 6)
    if (inner === null || first.isIpv6 !== ((type & IN_IPV6) !== 0)) return null
    layers = { inner, outer: first }
  }
  const { protocol, isIpv6 } = layers.inner
  const base = type & 0x1f
  if (base === TCPV4 && protocol === TCP && !isIpv6) return layers
  if (base === TCPV6 && protocol === TCP && isIpv6) return layers
  return base === UDP_L4 && protocol === UDP ? layers : null
}

/** RFC 1071 over bytes[from..to), with a start. */
function sum(bytes: Uint8Array, from: number, to: number, initial: number): number {
  let total = initial
  for (let at = from; at < to; at++) total += (at - from) % 2 === 0 ? bytes[at] * 256 : bytes[at]
  return total === 0 ? 0 : total % 0xffff === 0 ? 0xffff : total % 0xffff
}

/** As it stands in a field: the complement, where 0 would mean none. */
const checksumOf = (total: number): number => (total >= 0xffff ? 0xffff : 0xffff - total)

/** Of TCP or UDP, whose field must be zero or is the pseudo-header's. */
function l4Checksum(bytes: Uint8Array, { l3, l4, isIpv6, protocol }: ModelHeaders): number {
  const [from, to] = isIpv6 ? [l3 + 8, l3 + 40] : [l3 + 12, l3 + 20]
  const pseudo = sum(bytes, from, to, protocol + bytes.length - l4)
  return checksumOf(sum(bytes, l4, bytes.length, pseudo))
}

/** By how much the sum of an IPv4 header is wrong; a checksum of zero was left to others. */
function faultOf(frame: Uint8Array, headers: ModelHeaders | null): number {
  if (headers === null || headers.isIpv6 || be16(frame, headers.l3 + 10) === 0) return 0
  const { l3 } = headers
  return sum(frame, l3, l3 + 4 * (frame[l3] & 15), 0) % 0xffff
}

/** What the headers say of lengths is so, or nothing. */
function areLengthsRight(frame: Uint8Array, { l3, l4, isIpv6, protocol }: ModelHeaders): boolean {
  const is = (at: number, length: number): boolean =>
    be16(frame, at) === 0 || be16(frame, at) === length % 0x1_0000
  const total = frame.length - l3
  if (isIpv6 ? !is(l3 + 4, total - 40) : !is(l3 + 2, total)) return false
  return protocol === TCP || is(l4 + 4, frame.length - l4)
}

/** Length fields of an IP packet that ends with the frame, and its id; a wrong header stays as wrong. */
function setPacket(
  bytes: Uint8Array,
  { l3, isIpv6 }: ModelHeaders,
  number: number,
  fault: number,
): void {
  if (isIpv6) {
    put16(bytes, l3 + 4, bytes.length - l3 - 40)
    return
  }
  put16(bytes, l3 + 2, bytes.length - l3)
  put16(bytes, l3 + 4, be16(bytes, l3 + 4) + number)
  put16(bytes, l3 + 10, 0)
  const right = 0xffff - sum(bytes, l3, l3 + 4 * (bytes[l3] & 15), 0)
  put16(bytes, l3 + 10, right + fault > 0xffff ? right + fault - 0xffff : right + fault)
}

/** The frames that it stands for; null: it cannot be cut. */
export function modelSegments(frame: Uint8Array, header: ModelVnetHeader): Uint8Array[] | null {
  const layers = modelLayers(frame, header)
  if (layers === null) return null
  const { inner, outer } = layers
  if ((header.flags & (NEEDS_CSUM | DATA_VALID)) === 0) return null
  if (!areLengthsRight(frame, inner) || (outer !== null && !areLengthsRight(frame, outer)))
    return null
  const { end, l4, protocol } = inner
  const payload = frame.subarray(end)
  const { gsoSize } = header
  if (payload.length > gsoSize * SEGMENTS_MAX) return null
  const outermost = (outer ?? inner).l3
  if (end - outermost + Math.min(payload.length, gsoSize) > 0xffff) return null
  const segments: Uint8Array[] = []
  for (let at = 0; at < payload.length || at === 0; at += gsoSize) {
    const part = payload.subarray(at, at + gsoSize)
    const bytes = new Uint8Array(end + part.length)
    bytes.set(frame.subarray(0, end))
    bytes.set(part, end)
    const number = segments.length
    if (protocol === TCP) {
      const sequence = new DataView(bytes.buffer, l4 + 4, 4)
      sequence.setUint32(0, (sequence.getUint32(0) + at) >>> 0)
      const isLast = at + gsoSize >= payload.length
      // FIN and PSH are the last one's, CWR the first one's.
      if (!isLast) bytes[l4 + 13] &= 0xff - 0x09
      if (number > 0) bytes[l4 + 13] &= 0x7f
    } else put16(bytes, l4 + 4, 8 + part.length)
    setPacket(bytes, inner, number, faultOf(frame, inner))
    const field = l4 + (protocol === TCP ? 16 : 6)
    put16(bytes, field, 0)
    put16(bytes, field, l4Checksum(bytes, inner))
    if (outer !== null) {
      setPacket(bytes, outer, number, faultOf(frame, outer))
      put16(bytes, outer.l4 + 4, bytes.length - outer.l4)
      put16(bytes, outer.l4 + 6, 0)
      const hasSum = (header.flags & TUNNEL_CSUM) !== 0
      if (hasSum) put16(bytes, outer.l4 + 6, l4Checksum(bytes, outer))
    }
    segments.push(bytes)
  }
  return segments
}

/** The frame with the checksum that its sender left; null: the field is too far behind. */
export function modelCompleted(frame: Uint8Array, header: ModelVnetHeader): Uint8Array | null {
  const field = header.csumStart + header.csumOffset
  if (field + 2 > Math.min(frame.length, HEADERS_MAX)) return null
  const bytes = frame.slice()
  put16(bytes, field, checksumOf(sum(frame, header.csumStart, frame.length, 0)))
  return bytes
}

/** A bit that says that an IPv4 header has no checksum yet. */
const IPV4_CHECKSUM = 1 << 16

/** What a GSO frame's vnet_hdr should have said of it; null: it is something else. */
export function modelDescribed(
  frame: Uint8Array,
  header: ModelVnetHeader,
  needs: number,
): { gso: number; gsoSize: number; csumOffset: number; needs: number } | null {
  const layers = modelLayers(frame, header)
  if (layers === null) return null
  const { inner, outer } = layers
  const lacks = (one: ModelHeaders | null): boolean =>
    one !== null && !one.isIpv6 && be16(frame, one.l3 + 10) === 0
  return {
    gso: (header.flags & TUNNEL_CSUM) | NEEDS_CSUM | (header.type << 8) | (inner.end << 16),
    gsoSize: header.gsoSize | (inner.l4 << 16),
    csumOffset: inner.protocol === TCP ? 16 : 6,
    needs: needs | (lacks(inner) || lacks(outer) ? IPV4_CHECKSUM : 0),
  }
}
