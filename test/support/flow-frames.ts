/** Frames of flows, part by part: each function returns bytes that the next outer one takes. */

export const TCP = 6
export const UDP = 17
export const SCTP = 132
export const IPV6_FRAGMENT = 44

export function bytesOf(...parts: readonly (number | Iterable<number>)[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => (typeof part === 'number' ? [part] : [...part])))
}

export function u16(value: number): number[] {
  return [value >>> 8, value & 0xff]
}

/** `192.0.2.1` */
export function ipv4Address(text: string): Uint8Array {
  return bytesOf(text.split('.').map(Number))
}

/** `2001:db8::1` */
export function ipv6Address(text: string): Uint8Array {
  const [left, right = ''] = text.split('::')
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => parseInt(group, 16))
  const [before, after] = [groups(left), groups(right)]
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => 0)
  return bytesOf([...before, ...zeros, ...after].flatMap(u16))
}

const MAC_A = bytesOf(0x52, 0x54, 0, 0, 0, 0x0a)
const MAC_B = bytesOf(0x52, 0x54, 0, 0, 0, 0x0b)

export function ethernet(
  type: number,
  payload: Uint8Array,
  options: { dst?: Uint8Array; src?: Uint8Array; tags?: readonly (readonly number[])[] } = {},
): Uint8Array {
  const { dst = MAC_B, src = MAC_A, tags = [] } = options
  const tagBytes = tags.flatMap(([tpid, tci]) => [...u16(tpid), ...u16(tci)])
  return bytesOf(dst, src, tagBytes, u16(type), payload)
}

/** A whole frame. `fragment` is the word of flags and fragment offset, `options` whole words. */
export function ipv4Frame(
  src: Uint8Array,
  dst: Uint8Array,
  protocol: number,
  payload: Uint8Array,
  more: { fragment?: number; options?: Uint8Array; tags?: readonly (readonly number[])[] } = {},
): Uint8Array {
  const { fragment = 0x4000, options = bytesOf(), tags = [] } = more
  const header = bytesOf(
    [0x45 + options.length / 4, 0],
    u16(20 + options.length + payload.length),
    [0x12, 0x34],
    u16(fragment),
    [64, protocol, 0, 0],
    src,
    dst,
  )
  return ethernet(0x0800, bytesOf(header, options, payload), { tags })
}

/** `extensions`: [protocol number, whole header whose first byte is filled in here]. */
export function ipv6Frame(
  src: Uint8Array,
  dst: Uint8Array,
  protocol: number,
  payload: Uint8Array,
  more: {
    extensions?: readonly (readonly [number, Uint8Array])[]
    tags?: readonly (readonly number[])[]
  } = {},
): Uint8Array {
  const { extensions = [], tags = [] } = more
  const chain = [...extensions.map(([number]) => number), protocol]
  const headers = extensions.map(([, header], at) => bytesOf(chain[at + 1], header.subarray(1)))
  const body = bytesOf(...headers, payload)
  const header = bytesOf([0x60, 0, 0, 0], u16(body.length), [chain[0], 64], src, dst)
  return ethernet(0x86dd, bytesOf(header, body), { tags })
}

/** The head of a TCP, UDP or SCTP payload: ports and 16 further bytes. */
export function ports(src: number, dst: number): Uint8Array {
  return bytesOf(u16(src), u16(dst), new Uint8Array(16))
}

/** A fragment header; `offset` in units of 8 bytes. */
export function ipv6Fragment(offset: number, hasMore: boolean): readonly [number, Uint8Array] {
  return [IPV6_FRAGMENT, bytesOf(0, 0, u16((offset << 3) | (hasMore ? 1 : 0)), 0, 0, 0, 7)]
}
