/**
 * Ethernet frames as the data plane sees them: the first 16 bytes as four little-endian words
 * (`heads` of a burst). IEEE 802.3 §3.2; group addresses IEEE 802.1Q §8.6.3.
 *
 *     word 0: dst[0..3]   word 1: dst[4..5] src[0..1]   word 2: src[2..5]   word 3: type, 2 bytes
 *
 * A MAC address is two int32: hi = its first four bytes as they lie in memory, lo = the last two.
 */
export const ETHER_HEADER_LENGTH = 14
/** Two VLAN tags may stand before the L3 payload without counting against an MTU. */
export const VLAN_TAG_LENGTH = 4

/** First frame word of a group address has the I/G bit set. @hot */
export function isGroup(hi: number): boolean {
  return (hi & 1) !== 0
}

/** 01-80-C2-00-00-00..0F: addresses that an 802.1D bridge never forwards. @hot */
export function isReservedGroup(hi: number, lo: number): boolean {
  return hi === 0x00c2_8001 && (lo & 0xf0ff) === 0
}

/** The n of a reserved group address 01-80-C2-00-00-0n. @hot */
export function reservedGroupOf(lo: number): number {
  return (lo >>> 8) & 0x0f
}

/** 00-E0-2B-00-00-00, -04 and -06: EDP and EAPS of Extreme Networks. */
const EXTREME = 0x002b_e000
/** 01-00-0C-00-00-00: ISL. 01-00-0C-CC-CC-C0..C7, CC, CD: CFM, CDP and others, PVST+. 01-00-0C-CD-CD-CD: uplink fast. */
const CISCO_ISL = 0x000c_0001
const CISCO: number = 0xcc0c_0001 | 0
const CISCO_UPLINK_FAST: number = 0xcd0c_0001 | 0

/**
 * Addresses of protocols between neighbouring switches, which Open vSwitch does not mirror into VLANs: what is
 * a neighbour's would be taken for one's own there. Its lib/packets.c lists them.
 * @hot
 */
export function isOfSwitches(hi: number, lo: number): boolean {
  if (isReservedGroup(hi, lo)) return true
  if (hi === EXTREME) return lo === 0 || lo === 0x0400 || lo === 0x0600
  if (hi === CISCO) return (lo & 0xf8ff) === 0xc0cc || lo === 0xcccc || lo === 0xcdcc
  return (hi === CISCO_ISL && lo === 0) || (hi === CISCO_UPLINK_FAST && lo === 0xcdcd)
}

/** @hot */
export function isBroadcast(hi: number, lo: number): boolean {
  return hi === -1 && lo === 0xffff
}

/** `52:54:00:12:34:56`, or with `-`; undefined: it is none. */
export function parseMac(text: string): readonly [hi: number, lo: number] | undefined {
  if (!/^[0-9A-Fa-f]{2}((:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5})$/.test(text)) return undefined
  const [a, b, c, d, e, f] = text.split(/[:-]/).map((byte) => parseInt(byte, 16))
  return [a | (b << 8) | (c << 16) | (d << 24), e | (f << 8)]
}

/** `52:54:00:12:34:56` */
export function formatMac(hi: number, lo: number): string {
  const bytes = [hi, hi >>> 8, hi >>> 16, hi >>> 24, lo, lo >>> 8]
  return bytes.map((byte) => (byte & 0xff).toString(16).padStart(2, '0')).join(':')
}
