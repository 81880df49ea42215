/**
 * Byte strings as frames with messages about multicast groups, which guests send to a switch that snoops: what is
 * read of them is what a model reads, wherever the frame stands and whatever stands around it.
 *
 *     byte 0: raw, IPv6, came by a tunnel, left with wrong checksums    then the frame, or what it is made of
 */
import { referenceSum } from '../support/ip-frames.ts'
import {
  BAD_MESSAGE,
  MembershipMessage,
  NO_MESSAGE,
  OTHER_MESSAGE,
  QUERY,
  REPORT,
  ROUTER_GONE,
  ROUTER_HERE,
  SAYS_NOTHING,
  WANTS_IT,
  WANTS_IT_NOT,
} from '../../src/wire/membership.ts'
import {
  ABOUT_GROUPS,
  FOR_ALL,
  FOR_GROUP,
  MulticastHeader,
  NO_GROUP,
} from '../../src/wire/multicast.ts'
import type { Features } from './features.ts'
import { checkEqual, Operands } from './features.ts'
import type { ModelFrame, ModelKind, ModelRecord, ModelWhat } from './models/membership-model.ts'
import { modelMembership } from './models/membership-model.ts'

const RAW = 1
const IPV6 = 2
const TUNNEL = 4
const WRONG = 8

const KINDS: Readonly<Record<ModelKind, number>> = {
  none: NO_GROUP,
  'for all': FOR_ALL,
  'for a group': FOR_GROUP,
  'about groups': ABOUT_GROUPS,
}
const WHATS: Readonly<Record<ModelWhat, number>> = {
  none: NO_MESSAGE,
  bad: BAD_MESSAGE,
  report: REPORT,
  query: QUERY,
  'router here': ROUTER_HERE,
  'router gone': ROUTER_GONE,
  other: OTHER_MESSAGE,
}
const WANTS: Readonly<Record<ModelRecord['wants'], number>> = {
  yes: WANTS_IT,
  no: WANTS_IT_NOT,
  nothing: SAYS_NOTHING,
}

const TPIDS = [0x8100, 0x88a8, 0x9100]
const PROTOCOLS4 = [2, 2, 2, 2, 103, 17]
const TYPES4 = [0x11, 0x11, 0x12, 0x16, 0x17, 0x22, 0x22, 0x30, 0x31, 0x32, 0x13, 0x20]
const TYPES6 = [130, 130, 131, 132, 143, 143, 151, 152, 153, 135, 0x20]
const FRAGMENTS = [0, 0, 0, 0x4000, 0x2000, 1, 0x8000]
const LAST4 = [0, 1, 2, 13, 22, 106, 251]
const LAST6 = [0, 1, 2, 13, 0x16, 0x6a, 0xfb]
const SOURCES6 = [0xfe80, 0xfe80, 0xfebf, 0xfec0, 0, 0xfd00]
const NEXT6 = [0, 0, 0, 103, 58, 17]
const OPTIONS6 = [
  [58, 0, 5, 2, 0, 0, 1, 0],
  [58, 0, 0, 5, 2, 0, 0, 0],
  [58, 1, 1, 4, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 0],
  [58, 0, 1, 4, 0, 0, 0, 0],
  [58, 0, 5, 2, 0, 1, 1, 0],
]
const AROUND = [0x00, 0xff]

const u16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff]
const header = new MulticastHeader()
const message = new MembershipMessage()

export function fuzzMembership(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const how = operands.byte()
  const hasPushed = (how & TUNNEL) !== 0
  const frame =
    (how & RAW) !== 0 ? operands.take(input.length) : Uint8Array.from(makeFrame(operands, how))
  const model = modelMembership(frame, hasPushed)
  for (const [before, around] of AROUND.entries()) {
    const bytes = new Uint8Array(before + frame.length + 64).fill(around)
    bytes.set(frame, before)
    compare(bytes, before, frame.length, hasPushed, model, seen)
  }
}

function compare(
  bytes: Uint8Array,
  at: number,
  length: number,
  hasPushed: boolean,
  model: ModelFrame,
  seen: Features,
): void {
  const kind = header.read(bytes, at, length, hasPushed)
  checkEqual(kind, KINDS[model.kind], 'kind of frame')
  seen.add(kind)
  if (kind === NO_GROUP) return
  checkEqual(header.isIpv6, model.isIpv6, 'family')
  checkEqual(header.inner, model.inner, 'VID of the tag inside')
  checkEqual(hexOf(header), model.destination, 'destination')
  if (kind !== ABOUT_GROUPS) return
  checkEqual(header.destination, KINDS[model.without], 'kind of destination')
  const what = message.read(bytes, at, length, header)
  checkEqual(what, WHATS[model.what], 'kind of message')
  seen.add(what, model.isIpv6 ? 1 : 0, header.destination, header.l3)
  if (what === REPORT) {
    for (const { wants, group } of model.records) {
      checkEqual(message.nextRecord(), WANTS[wants], 'what a record says')
      checkEqual(hexOf(message), group, 'group of a record')
      seen.add(what, WANTS[wants], model.records.length)
    }
    checkEqual(message.nextRecord(), -1, 'records')
  }
  const { query } = model
  if (query === null) return
  checkEqual(hexOf(message), query.group, 'group of a query')
  const { source0, source1, source2, source3 } = message
  const source = { word0: source0, word1: source1, word2: source2, word3: source3 }
  checkEqual(hexOf(source), query.source, 'who asks')
  checkEqual(message.responseDs, query.responseDs, 'time to answer')
  checkEqual(message.robustness, query.robustness, 'robustness')
  checkEqual(message.intervalS, query.intervalS, 'interval')
  checkEqual(message.isPartial, query.isPartial, 'whether it is about all sources')
  seen.add(what, query.robustness, Math.clz32(query.responseDs), Math.clz32(query.intervalS))
}

interface Words {
  readonly word0: number
  readonly word1: number
  readonly word2: number
  readonly word3: number
}

const hexOf = ({ word0, word1, word2, word3 }: Words): string =>
  [word0, word1, word2, word3].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')

/** A frame that is mostly a message. */
function makeFrame(operands: Operands, how: number): number[] {
  const isIpv6 = (how & IPV6) !== 0
  const tags = Array.from({ length: operands.byte() % 4 }, () => [
    ...u16(operands.pick(TPIDS)),
    ...u16(operands.half()),
  ])
  const group = isIpv6 ? groupIpv6(operands) : groupIpv4(operands)
  const isAddressed = operands.byte() % 4 !== 0
  const ownMac = isIpv6
    ? [0x33, 0x33, ...group.slice(12)]
    : [1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]]
  const mac = isAddressed ? ownMac : [...ownMac.slice(0, 5), operands.byte()]
  const packet = isIpv6 ? packetIpv6(operands, how, group) : packetIpv4(operands, how, group)
  const type = u16(isIpv6 ? 0x86dd : 0x0800)
  const frame = [...mac, 2, 0, 0, 0, 0, 1, ...tags.flat(), ...type, ...packet]
  // Cut off, or with padding.
  const end = operands.signed()
  if (end > 0) return [...frame, ...Array<number>(end).fill(0xee)]
  return frame.slice(0, Math.max(1, frame.length + (end >> 1)))
}

const groupIpv4 = (operands: Operands): number[] =>
  operands.byte() % 4 === 0
    ? [operands.byte(), operands.byte(), 1, operands.byte()]
    : [224, 0, 0, operands.pick(LAST4)]

function groupIpv6(operands: Operands): number[] {
  const isOther = operands.byte() % 4 === 0
  const middle = Array<number>(12).fill(0)
  const start = isOther ? [operands.byte(), operands.byte()] : [0xff, 2]
  return [...start, ...middle, 0, isOther ? operands.byte() : operands.pick(LAST6)]
}

function withSum(bytes: number[], at: number, before: number, isWrong: boolean): number[] {
  if (at + 2 > bytes.length) return bytes
  const zeroed = bytes.with(at, 0).with(at + 1, 0)
  const sum = (~referenceSum(Uint8Array.from(zeroed), before) + (isWrong ? 1 : 0)) & 0xffff
  return [...zeroed.slice(0, at), ...u16(sum), ...zeroed.slice(at + 2)]
}

function packetIpv4(operands: Operands, how: number, group: readonly number[]): number[] {
  const options = Array.from({ length: 4 * (operands.byte() % 3) }, () => operands.byte())
  const protocol = operands.pick(PROTOCOLS4)
  const fragment = operands.pick(FRAGMENTS)
  const source = [10, 0, 0, operands.byte()]
  const isWrong = (how & WRONG) !== 0
  // It may say that it is longer or shorter than it is.
  const [lie, headerLie] = [operands.signed(), operands.byte()]
  const said = Math.abs(lie) > 100 ? lie - Math.sign(lie) * 100 : 0
  const length = 5 + options.length / 4 + (headerLie > 250 ? headerLie - 253 : 0)
  const content = withSum(makeMessage(operands, TYPES4, false), 2, 0, isWrong && lie % 2 === 0)
  const total = 20 + options.length + content.length + said
  const head = [0x40 | (length & 0xf), 0xc0, ...u16(total), 0, 0, ...u16(fragment), 1, protocol]
  const all = [...head, 0, 0, ...source, ...group, ...options]
  return [...withSum(all, 10, 0, isWrong && lie % 2 !== 0), ...content]
}

function packetIpv6(operands: Operands, how: number, group: readonly number[]): number[] {
  const source = [...u16(operands.pick(SOURCES6)), ...Array<number>(13).fill(0), operands.byte()]
  const next = operands.pick(NEXT6)
  const between = next === 0 ? optionsIpv6(operands) : []
  const limit = operands.byte() % 8 === 7 ? 2 : 1
  const lie = operands.signed()
  const said = Math.abs(lie) > 100 ? lie - Math.sign(lie) * 100 : 0
  const content = makeMessage(operands, TYPES6, true)
  const protocol = next === 0 ? 58 : next
  const addresses = [...source, ...group]
  const pseudo = referenceSum(Uint8Array.from(addresses), content.length + protocol)
  const summed = withSum(content, 2, pseudo, (how & WRONG) !== 0)
  const length = between.length + content.length + said
  const head = [0x60, 0, 0, 0, ...u16(length), next, limit]
  return [...head, ...addresses, ...between, ...summed]
}

/** Hop-by-hop options: some that are known, or anything. */
function optionsIpv6(operands: Operands): number[] {
  const which = operands.byte() % 8
  if (which < OPTIONS6.length) return OPTIONS6[which]
  const words = 1 + (operands.byte() % 2)
  const rest = Array.from({ length: 8 * words - 2 }, () => operands.byte() % 8)
  return [58, words - 1, ...rest]
}

/** Its type, then mostly what such a message has, and sometimes not all of it. */
function makeMessage(operands: Operands, types: readonly number[], isIpv6: boolean): number[] {
  const message = wholeMessage(operands, types, isIpv6)
  const cut = operands.byte() - 200
  return cut > 0 ? message.slice(0, Math.max(1, message.length - cut)) : message
}

function wholeMessage(operands: Operands, types: readonly number[], isIpv6: boolean): number[] {
  const type = operands.pick(types)
  const size = isIpv6 ? 16 : 4
  const address = (): number[] => {
    const last = operands.byte()
    if (last === 0) return Array<number>(size).fill(0)
    return isIpv6 ? [0xff, 0x15, ...Array<number>(13).fill(0), last] : [239, 1, 1, last]
  }
  const code = operands.byte()
  const shape = operands.byte()
  if (type === 0x22 || type === 143) {
    const records = Array.from({ length: shape % 4 }, () => {
      const [sources, auxiliary] = [operands.byte() % 3, operands.byte() % 2]
      const its = [operands.byte() % 8, auxiliary, ...u16(sources), ...address()]
      return [...its, ...Array<number>(size * sources + 4 * auxiliary).fill(7)]
    })
    // It may say that there are more, or fewer.
    const said = Math.max(0, records.length + (shape > 250 ? shape - 253 : 0))
    return [type, code, 0, 0, 0, 0, ...u16(said), ...records.flat()]
  }
  const long = isIpv6 ? [operands.byte(), code, 0, 0] : []
  const start = [type, code, 0, 0, ...long, ...address()]
  if (shape < 128) return start
  if (shape > 240) return [...start.slice(0, shape - 240), ...operands.take(shape & 7)]
  const sources = operands.byte() % 3
  const tail = [operands.byte(), operands.byte(), ...u16(sources)]
  return [
    ...start,
    ...tail,
    ...Array<number>(size * Math.max(0, sources - (shape % 8 === 0 ? 1 : 0))).fill(9),
  ]
}
