/**
 * What a frame says about multicast groups, by the RFCs once more: of whole slices, that are cut off the frame layer
 * by layer, and throw when they are too short. RFC 2236, 3376, 2710, 3810, 4286, 4541, 7761.
 */

/** As `MulticastHeader.read` has them. */
export type ModelKind = 'none' | 'for all' | 'for a group' | 'about groups'
/** As `MembershipMessage.read` has them. */
export type ModelWhat =
  'none' | 'bad' | 'report' | 'query' | 'router here' | 'router gone' | 'other'

export interface ModelRecord {
  /** It is wanted, not wanted, or nothing is said. */
  readonly wants: 'yes' | 'no' | 'nothing'
  readonly group: string
}

export interface ModelQuery {
  readonly group: string
  readonly source: string
  readonly responseDs: number
  readonly robustness: number
  readonly intervalS: number
  readonly isPartial: boolean
}

export interface ModelFrame {
  readonly kind: ModelKind
  readonly isIpv6: boolean
  readonly inner: number
  /** As hex of 16 bytes; of IPv4 the last four. */
  readonly destination: string
  /** What it is if there is no message in it. */
  readonly without: ModelKind
  readonly what: ModelWhat
  readonly records: readonly ModelRecord[]
  readonly query: ModelQuery | null
}

const NOTHING = { records: [], query: null } as const
const TPIDS = [0x8100, 0x88a8]
/** Last groups of ff02:: that all nodes are to have: all nodes, all routers, mDNS. */
const FOR_ALL_IPV6 = [1, 2, 0xfb]
const ALERT = 5
const PAD1 = 0

class Cut extends Error {}

/** Bytes that can be asked for only where they are. */
class Slice {
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  get length(): number {
    return this.bytes.length
  }

  u8(at: number): number {
    if (at >= this.length) throw new Cut()
    return this.bytes[at]
  }

  u16(at: number): number {
    return this.u8(at) * 256 + this.u8(at + 1)
  }

  from(at: number, length = this.length - at): Slice {
    if (at + length > this.length || length < 0) throw new Cut()
    return new Slice(this.bytes.subarray(at, at + length))
  }

  address(at: number, length: number): string {
    return Buffer.from(this.from(at, length).bytes).toString('hex').padStart(32, '0')
  }

  /** All that is summed makes zero in one's complement, and is not nothing. */
  isSummed(more = 0): boolean {
    const total = this.bytes.reduce(
      (sum, byte, at) => sum + (at % 2 === 0 ? byte * 256 : byte),
      more,
    )
    return total > 0 && total % 65535 === 0
  }
}

/** Undefined where it throws for the want of bytes. */
function whole<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof Cut) return undefined
    throw error
  }
}

/** `hasPushed`: one tag is in front of it that it does not have itself. */
export function modelMembership(frame: Uint8Array, hasPushed: boolean): ModelFrame {
  const none: ModelFrame = {
    kind: 'none',
    isIpv6: false,
    inner: 0,
    destination: '',
    without: 'none',
    what: 'none',
    ...NOTHING,
  }
  return whole(() => modelFrame(new Slice(frame), hasPushed)) ?? none
}

function modelFrame(frame: Slice, hasPushed: boolean): ModelFrame {
  const tags: number[] = hasPushed ? [0] : []
  let at = 12
  while (TPIDS.includes(frame.u16(at))) {
    tags.push(frame.u16(at + 2) % 4096)
    if (tags.length > 2) throw new Cut()
    at += 4
  }
  const type = frame.u16(at)
  const packet = frame.from(at + 2)
  const isIpv6 = type === 0x86dd
  if (!isIpv6 && type !== 0x0800) throw new Cut()
  if (packet.u8(0) >> 4 !== (isIpv6 ? 6 : 4)) throw new Cut()
  const destination = isIpv6 ? packet.address(24, 16) : packet.address(16, 4)
  const base = { isIpv6, inner: tags[1] ?? 0, destination, without: kindOf(destination, isIpv6) }
  const protocol = packet.u8(isIpv6 ? 6 : 9)
  const mayBe = isIpv6
    ? [0, 103].includes(protocol) && packet.u16(4) > 0
    : [2, 103].includes(protocol)
  if (!mayBe) return { ...base, kind: base.without, what: 'none', ...NOTHING }
  const isAddressed = isAddressedTo(frame, destination, isIpv6)
  const heard = isAddressed ? destination : ''
  const said = isIpv6 ? modelIpv6(packet, heard) : modelIpv4(packet, heard)
  return { ...base, kind: 'about groups', ...said }
}

function kindOf(destination: string, isIpv6: boolean): ModelKind {
  if (!isIpv6) {
    if (!/^0{24}e/.test(destination)) return 'none'
    return destination.startsWith('e00000', 24) ? 'for all' : 'for a group'
  }
  if (!destination.startsWith('ff')) return 'none'
  const isForAll = FOR_ALL_IPV6.some((last) => destination === linkLocal(last))
  return isForAll ? 'for all' : 'for a group'
}

const linkLocal = (last: number): string => `ff02${last.toString(16).padStart(28, '0')}`
const ipv4 = (...octets: readonly number[]): string =>
  Buffer.from(octets).toString('hex').padStart(32, '0')

/** The frame's address is that of the group: the last 23 bits of IPv4, the last 32 of IPv6. */
function isAddressedTo(frame: Slice, destination: string, isIpv6: boolean): boolean {
  const mac = Buffer.from(frame.bytes.subarray(0, 6)).toString('hex')
  if (isIpv6) return mac === `3333${destination.slice(24)}`
  const low = (Number.parseInt(destination.slice(24), 16) % 0x80_0000).toString(16)
  return mac === `01005e${low.padStart(6, '0')}`
}

type Said = Pick<ModelFrame, 'what' | 'records' | 'query'>
const only = (what: ModelWhat): Said => ({ what, ...NOTHING })

/** `heard`: the destination, if the frame was addressed to it. */
function modelIpv4(packet: Slice, heard: string): Said {
  const isPim = packet.u8(9) === 103
  const wrong = only(isPim ? 'none' : 'bad')
  const message = whole(() => {
    const length = (packet.u8(0) % 16) * 4
    const all = packet.from(0, packet.u16(2))
    // Neither more fragments nor an offset.
    const isWhole = packet.u16(6) % 0x4000 === 0
    const isSummed = length >= 20 && all.from(0, length).isSummed()
    return isWhole && isSummed ? all.from(length) : undefined
  })
  if (message === undefined || !message.isSummed()) return wrong
  if (isPim) return isHello(message) && heard === ipv4(224, 0, 0, 13) ? only('router here') : wrong
  return whole(() => modelIgmp(message, heard, packet.address(12, 4))) ?? wrong
}

const isHello = (message: Slice): boolean => message.length >= 4 && message.u8(0) === 0x20

function modelIgmp(message: Slice, heard: string, source: string): Said {
  message.from(0, 8)
  const group = message.address(4, 4)
  switch (message.u8(0)) {
    case 0x11: {
      const query = igmpQuery(message, group, source)
      const isHeard = heard === ipv4(224, 0, 0, 1) || (query.group === heard && !isZero(heard))
      return isHeard ? { what: 'query', records: [], query } : only('other')
    }
    case 0x12:
    case 0x16:
      return { what: 'report', records: [{ wants: 'yes', group }], query: null }
    case 0x17:
      return { what: 'report', records: [{ wants: 'no', group }], query: null }
    case 0x22:
      return { what: 'report', records: modelRecords(message, 4), query: null }
    case 0x30:
      return only(heard === ipv4(224, 0, 0, 106) ? 'router here' : 'other')
    case 0x32:
      return only(heard === ipv4(224, 0, 0, 106) ? 'router gone' : 'other')
    default:
      return only('other')
  }
}

const isZero = (address: string): boolean => /^0*$/.test(address)

function igmpQuery(message: Slice, group: string, source: string): ModelQuery {
  const code = message.u8(1)
  if (message.length > 8) {
    return { group, source, responseDs: float(code, 4), ...modelTimes(message.from(8), 4) }
  }
  const isFirst = code === 0
  const its = isFirst ? ipv4(0, 0, 0, 0) : group
  return { group: its, source, responseDs: isFirst ? 100 : code, ...DEFAULTS }
}

const DEFAULTS = { robustness: 2, intervalS: 125, isPartial: false } as const

/** Mantissa of so many bits under three of the exponent; RFC 3376 §4.1.1, 3810 §5.1.3. */
function float(code: number, bits: number): number {
  const limit = 2 ** (bits + 3)
  if (code < limit) return code
  const exponent = Math.floor(code / 2 ** bits) % 8
  return (2 ** bits + (code % 2 ** bits)) * 2 ** (exponent + 3)
}

/** What stands behind the group in a query of the later versions. */
function modelTimes(
  tail: Slice,
  addressLength: number,
): Pick<ModelQuery, 'robustness' | 'intervalS' | 'isPartial'> {
  const sources = tail.u16(2)
  tail.from(4, sources * addressLength)
  const flags = tail.u8(0)
  return {
    robustness: flags % 8 || 2,
    intervalS: float(tail.u8(1), 4) || 125,
    isPartial: sources > 0 || flags % 16 >= 8,
  }
}

function modelRecords(message: Slice, addressLength: number): ModelRecord[] {
  const records: ModelRecord[] = []
  let rest = message.from(8)
  for (let count = message.u16(6); count > 0; count--) {
    const sources = rest.u16(2)
    const group = rest.address(4, addressLength)
    records.push({ wants: wantsOf(rest.u8(0), sources), group })
    rest = rest.from(4 + addressLength * (1 + sources) + 4 * rest.u8(1))
  }
  return records
}

/** A mode INCLUDE of no sources is that of who does not want the group. RFC 3376 §4.2.12. */
function wantsOf(type: number, sources: number): ModelRecord['wants'] {
  if (type === 1 || type === 3) return sources > 0 ? 'yes' : 'no'
  if (type === 2 || type === 4) return 'yes'
  return type === 5 && sources > 0 ? 'yes' : 'nothing'
}

function modelIpv6(packet: Slice, heard: string): Said {
  const payload = whole(() => packet.from(40, packet.u16(4)))
  if (payload === undefined) return only('none')
  const pseudo = (message: Slice, protocol: number): number =>
    packet
      .from(8, 32)
      .bytes.reduce((sum, byte, at) => sum + (at % 2 === 0 ? byte * 256 : byte), 0) +
    message.length +
    protocol
  if (packet.u8(6) === 103) {
    const isOne =
      isHello(payload) && heard === linkLocal(13) && payload.isSummed(pseudo(payload, 103))
    return only(isOne ? 'router here' : 'none')
  }
  const message = whole(() => {
    const behind = payload.from((payload.u8(1) + 1) * 8)
    behind.from(0, 8)
    return payload.u8(0) === 58 ? behind : undefined
  })
  if (message === undefined) return only('none')
  if (![130, 131, 132, 143, 151, 153].includes(message.u8(0))) return only('none')
  const options = payload.from(2, payload.length - message.length - 2)
  const isGood =
    packet.u8(7) === 1 &&
    whole(() => hasAlert(options)) === true &&
    message.isSummed(pseudo(message, 58))
  if (!isGood) return only('bad')
  return whole(() => modelMld(message, heard, packet.address(8, 16))) ?? only('bad')
}

/** One is there, and is about MLD, as all that are; and the options end where they are to end. */
function hasAlert(options: Slice): boolean {
  let isThere = false
  let rest = options
  while (rest.length > 0) {
    if (rest.u8(0) === PAD1) {
      rest = rest.from(1)
      continue
    }
    const data = rest.from(2, rest.u8(1))
    if (rest.u8(0) === ALERT) {
      if (data.length !== 2 || data.u16(0) !== 0) return false
      isThere = true
    }
    rest = rest.from(2 + data.length)
  }
  return isThere
}

function modelMld(message: Slice, heard: string, source: string): Said {
  switch (message.u8(0)) {
    case 130: {
      if (!/^fe[89ab]/.test(source)) return only('bad')
      const query = mldQuery(message, source)
      const isHeard = heard === linkLocal(1) || (heard === query.group && !isZero(query.group))
      return isHeard ? { what: 'query', records: [], query } : only('other')
    }
    case 131:
      return {
        what: 'report',
        records: [{ wants: 'yes', group: message.address(8, 16) }],
        query: null,
      }
    case 132:
      return {
        what: 'report',
        records: [{ wants: 'no', group: message.address(8, 16) }],
        query: null,
      }
    case 143:
      return { what: 'report', records: modelRecords(message, 16), query: null }
    case 151:
      return only(heard === linkLocal(0x6a) ? 'router here' : 'none')
    default:
      return only(heard === linkLocal(0x6a) ? 'router gone' : 'none')
  }
}

/** Its times are in milliseconds, of which a tenth of a second that has begun counts. */
function mldQuery(message: Slice, source: string): ModelQuery {
  const group = message.address(8, 16)
  const code = message.u16(4)
  const tenths = (ms: number): number => Math.ceil(ms / 100)
  if (message.length === 24) return { group, source, responseDs: tenths(code), ...DEFAULTS }
  const its = modelTimes(message.from(24), 16)
  return { group, source, responseDs: tenths(float(code, 12)), ...its }
}
