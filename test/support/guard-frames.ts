/** Frames by which a guest may say who it is, or who it is not. */

/** Octets of words in hex, with or without separators. */
export const octets = (...parts: string[]): number[] =>
  parts.flatMap((part) => [...Buffer.from(part.replaceAll(/[\s:]/g, ''), 'hex')])

export const ip4 = (address: string): number[] => address.split('.').map(Number)

/** With `::` in it at most once. */
export function ip6(address: string): number[] {
  const [head, tail] = address.split('::').map((part) => part.split(':').filter((w) => w !== ''))
  const middle = tail === undefined ? [] : Array<string>(8 - head.length - tail.length).fill('0')
  return [...head, ...middle, ...(tail ?? [])].flatMap((word) => {
    const value = Number.parseInt(word, 16)
    return [value >> 8, value & 0xff]
  })
}

const u16 = (value: number): number[] => [value >> 8, value & 0xff]

export const MAC = '02:00:00:00:00:01'
export const OTHER_MAC = '02:00:00:00:00:66'
export const BROADCAST = 'ff:ff:ff:ff:ff:ff'

export interface FrameParts {
  readonly source?: string
  readonly destination?: string
  /** Tags and the like before the type, as hex. */
  readonly before?: string
  readonly type?: number
  /** Bytes behind everything. */
  readonly padding?: readonly number[]
}

export function ether(payload: readonly number[], parts: FrameParts = {}): Uint8Array {
  const { source = MAC, destination = BROADCAST, before = '', type = 0x0800, padding } = parts
  const head = octets(destination, source, before)
  const bytes = [...head, ...u16(type), ...payload, ...(padding ?? [])]
  return Uint8Array.from(
    bytes.length < 60 ? [...bytes, ...Array<number>(60 - bytes.length).fill(0)] : bytes,
  )
}

export interface ArpParts extends FrameParts {
  readonly operation?: number
  readonly senderMac?: string
  readonly sender?: string
  readonly target?: string
  /** Of hardware, protocol and the lengths of both. */
  readonly form?: string
}

export function arp(parts: ArpParts = {}): Uint8Array {
  const {
    operation = 1,
    sender = '10.0.0.1',
    target = '10.0.0.2',
    form = '0001 0800 06 04',
  } = parts
  const senderMac = parts.senderMac ?? parts.source ?? MAC
  const body = [...octets(form), ...u16(operation), ...octets(senderMac), ...ip4(sender)]
  return ether([...body, ...octets('000000000000'), ...ip4(target)], { type: 0x0806, ...parts })
}

export interface IpParts extends FrameParts {
  readonly from?: string
  readonly to?: string
  readonly protocol?: number
  /** Flags and offset of a fragment of IPv4. */
  readonly fragment?: number
  /** Bytes of the packet that are said, if not as many as there are. */
  readonly said?: number
  /** Words of options of IPv4. */
  readonly options?: number
}

export function ipv4(payload: readonly number[], parts: IpParts = {}): Uint8Array {
  const { from = '10.0.0.1', to = '10.0.0.2', protocol = 17, fragment = 0, options = 0 } = parts
  const length = 20 + 4 * options
  const head = [0x45 + options, 0, ...u16(parts.said ?? length + payload.length), 0, 1]
  const rest = [...u16(fragment), 64, protocol, 0, 0, ...ip4(from), ...ip4(to)]
  const filling = Array<number>(4 * options).fill(1)
  return ether([...head, ...rest, ...filling, ...payload], { type: 0x0800, ...parts })
}

export function ipv6(payload: readonly number[], parts: IpParts = {}): Uint8Array {
  const { from = 'fd00::1', to = 'fd00::2', protocol = 58 } = parts
  const head = [0x60, 0, 0, 0, ...u16(parts.said ?? payload.length), protocol, 255]
  return ether([...head, ...ip6(from), ...ip6(to), ...payload], { type: 0x86dd, ...parts })
}

export const udp = (from: number, to: number, length = 20): number[] => [
  ...u16(from),
  ...u16(to),
  ...u16(8 + length),
  0,
  0,
  ...Array<number>(length).fill(0x5a),
]

export const tcp = (): number[] => octets('0400 0050 00000001 00000000 5002 2000 0000 0000')

/** Of ICMP or ICMPv6: its first eight bytes. */
export const icmp = (type: number, more: readonly number[] = []): number[] => [
  type,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  ...more,
]

/** The option of a link-layer address; `kind` 1: of the source, 2: of the target. */
export const linkOption = (kind: number, mac = MAC, units = 1): number[] => [
  kind,
  units,
  ...octets(mac),
]

/** An IPv6 extension header of eight bytes and so many more units of them. */
export const extension = (next: number, units = 0): number[] => [
  next,
  units,
  1,
  4 + 8 * units,
  ...Array<number>(4 + 8 * units).fill(0),
]

/** A fragment header; `offset` in units of eight bytes. */
export const fragmentHeader = (next: number, offset = 0, hasMore = true): number[] => [
  next,
  0,
  ...u16((offset << 3) | (hasMore ? 1 : 0)),
  0,
  0,
  0,
  1,
]
