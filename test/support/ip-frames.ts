/** Ethernet frames with TCP or UDP over IP, and a plain reference for their checksums. */

export interface IpFrameOptions {
  readonly vlans?: readonly number[]
  readonly isIpv6?: boolean
  readonly protocol?: 'tcp' | 'udp'
  readonly id?: number
  readonly tos?: number
  readonly ttl?: number
  readonly dontFragment?: boolean
  /** Whole IPv6 extension headers: [type, bytes]; the first two bytes of each are filled in. */
  readonly extensions?: readonly (readonly [number, number])[]
  /** Bytes of IPv4 options, a multiple of 4. */
  readonly ipOptions?: number
  readonly source?: number
  readonly sourcePort?: number
  readonly destinationPort?: number
  readonly sequence?: number
  readonly acknowledgement?: number
  readonly flags?: number
  readonly window?: number
  readonly tcpOptions?: readonly number[]
  readonly payload: Uint8Array
  /** `partial`: the field holds the sum of the pseudo-header. */
  readonly checksum?: 'full' | 'partial' | 'none'
}

export interface IpFrame {
  readonly bytes: Uint8Array
  readonly l3: number
  readonly l4: number
  readonly end: number
  /** Offset of the checksum behind l4. */
  readonly checksumOffset: number
}

/** RFC 1071, as it is written there. */
export function referenceSum(bytes: Uint8Array, initial = 0): number {
  let sum = initial
  for (let at = 0; at < bytes.length; at += 2) {
    sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0)
    if (sum > 0xffff) sum -= 0xffff
  }
  return sum
}

const be16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff]
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value)]

export function ipFrame(options: IpFrameOptions): IpFrame {
  const {
    vlans = [],
    isIpv6 = false,
    protocol = 'tcp',
    id = 0x1234,
    tos = 0,
    ttl = 64,
    dontFragment = true,
    extensions = [],
    ipOptions = 0,
    source = 1,
    sourcePort = 40000,
    destinationPort = 5201,
    sequence = 1000,
    acknowledgement = 2000,
    flags = 0x10,
    window = 512,
    tcpOptions = [],
    payload,
    checksum = 'full',
  } = options
  const isTcp = protocol === 'tcp'
  const number = isTcp ? 6 : 17
  const ethertype = isIpv6 ? [0x86, 0xdd] : [0x08, 0x00]
  const tags = vlans.flatMap((vlan, k) => [
    ...(vlans.length === 2 && k === 0 ? [0x88, 0xa8] : [0x81, 0x00]),
    ...be16(vlan),
  ])
  const ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, source, ...tags, ...ethertype]
  const tcpLength = 20 + tcpOptions.length
  const l4 = isTcp
    ? [
        ...be16(sourcePort),
        ...be16(destinationPort),
        ...be32(sequence),
        ...be32(acknowledgement),
        (tcpLength / 4) << 4,
        flags,
        ...be16(window),
        0,
        0,
        0,
        0,
        ...tcpOptions,
      ]
    : [...be16(sourcePort), ...be16(destinationPort), ...be16(8 + payload.length), 0, 0]
  const l4Length = l4.length + payload.length
  const addresses = isIpv6 ? [...v6(source), ...v6(99)] : [10, 0, 0, source, 10, 0, 0, 99]
  const extension = extensions.flatMap(([, length], k) => {
    const bytes = Array.from({ length }, () => 0)
    bytes[0] = extensions[k + 1]?.[0] ?? number
    bytes[1] = length / 8 - 1
    return bytes
  })
  const ip = isIpv6
    ? [
        0x60 | (tos >>> 4),
        (tos << 4) & 0xf0,
        0,
        7,
        ...be16(extension.length + l4Length),
        extensions[0]?.[0] ?? number,
        ttl,
        ...addresses,
        ...extension,
      ]
    : [
        0x40 | (5 + ipOptions / 4),
        tos,
        ...be16(20 + ipOptions + l4Length),
        ...be16(id),
        dontFragment ? 0x40 : 0,
        0,
        ttl,
        number,
        0,
        0,
        ...addresses,
        ...Array.from({ length: ipOptions }, () => 1),
      ]
  const l3At = ethernet.length
  const l4At = l3At + ip.length
  const bytes = Uint8Array.from([...ethernet, ...ip, ...l4, ...payload])
  if (!isIpv6) setChecksum(bytes, l3At + 10, ~referenceSum(bytes.subarray(l3At, l4At)))
  const pseudo = referenceSum(Uint8Array.from(addresses), number + l4Length)
  const field = isTcp ? 16 : 6
  if (checksum === 'partial') setChecksum(bytes, l4At + field, pseudo)
  else if (checksum === 'full') {
    const sum = ~referenceSum(bytes.subarray(l4At), pseudo) & 0xffff
    setChecksum(bytes, l4At + field, sum === 0 ? 0xffff : sum)
  }
  return { bytes, l3: l3At, l4: l4At, end: l4At + l4.length, checksumOffset: field }
}

function v6(last: number): number[] {
  return [0xfd, 0, ...Array.from({ length: 13 }, () => 0), last]
}

function setChecksum(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = (value >>> 8) & 0xff
  bytes[at + 1] = value & 0xff
}

/** What a receiver finds wrong with the frame, whose headers start there; undefined: nothing. */
export function checksumFault(bytes: Uint8Array, l3: number, l4: number): string | undefined {
  const isIpv6 = bytes[l3] >>> 4 === 6
  if (!isIpv6 && referenceSum(bytes.subarray(l3, l4)) !== 0xffff) return 'IPv4 header checksum'
  const addresses = isIpv6 ? bytes.subarray(l3 + 8, l3 + 40) : bytes.subarray(l3 + 12, l3 + 20)
  const protocol = isIpv6 ? bytes[l3 + 6] : bytes[l3 + 9]
  const length = bytes.length - l4
  const pseudo = referenceSum(Uint8Array.from(addresses), protocol + length)
  return referenceSum(bytes.subarray(l4), pseudo) === 0xffff ? undefined : 'L4 checksum'
}

/** Bytes that are the same every time, and differ from place to place. */
export function payloadOf(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 31 + (at >>> 8) * 7 + seed * 101 + 3) & 0xff)
}

export interface TunnelOptions {
  readonly isIpv6?: boolean
  readonly vlans?: readonly number[]
  readonly id?: number
  /** Of the outer UDP header; `partial` as in a GSO frame. */
  readonly checksum?: 'full' | 'partial' | 'none'
  /** What stands between the outer UDP header and the inner Ethernet header; default: VXLAN's 8 bytes. */
  readonly header?: readonly number[]
}

export const VXLAN_PORT = 4789
const VXLAN_HEADER = [0x08, 0, 0, 0, 0, 0, 42, 0]

/** The inner frame in VXLAN (or what the options say). l3, l4 and end are those of the inner frame. */
export function tunnelFrame(
  inner: IpFrame,
  options: TunnelOptions = {},
): IpFrame & { readonly outerL3: number; readonly outerL4: number } {
  const { header = VXLAN_HEADER, checksum = 'none', ...rest } = options
  const payload = Uint8Array.from([...header, ...inner.bytes])
  const ports = { sourcePort: 50_000, destinationPort: VXLAN_PORT }
  const outer = ipFrame({
    ...rest,
    ...ports,
    protocol: 'udp',
    dontFragment: false,
    payload,
    checksum,
  })
  const at = outer.end + header.length
  return {
    bytes: outer.bytes,
    l3: at + inner.l3,
    l4: at + inner.l4,
    end: at + inner.end,
    checksumOffset: inner.checksumOffset,
    outerL3: outer.l3,
    outerL4: outer.l4,
  }
}
