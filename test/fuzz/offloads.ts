/**
 * Byte strings as frames with vnet_hdrs for ports that lack offloads, and as TCP segments for ports
 * that take TSO: IP of both versions, tags, options, tunnels, cut anywhere, and damage. A port is given
 * what a model makes of the frames; what was merged is cut by the model into what came.
 */
import { offloadNeeds } from '../../src/wire/vnet-hdr.ts'
import { ipFrame, tunnelFrame } from '../support/ip-frames.ts'
import type { GivenFrame, OffloadFrame } from '../support/offload-bench.ts'
import { OffloadBench } from '../support/offload-bench.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'
import type { ModelVnetHeader } from './models/offload-model.ts'
import { modelCompleted, modelHeaders, modelNeeds, modelSegments } from './models/offload-model.ts'

const FRAMES_MAX = 3
const ALL = 0x1ef
const bench = new OffloadBench()
const PAYLOAD = Uint8Array.from({ length: 4096 }, (_, at) => at * 31 + (at >>> 8) * 7)
const TYPES = [1, 4, 5, 0, 0x21, 0x44, 0x25, 0x81, 3, 0x85]
const TCP_OPTIONS = [[], [1, 1, 1, 1], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]]

export interface Made {
  readonly bytes: Uint8Array
  readonly header: ModelVnetHeader
  readonly cuts: readonly number[]
}

const headerOf = ({ header }: Made): OffloadFrame['header'] => {
  const { flags, type, gsoSize, csumStart, csumOffset } = header
  return [flags, type, 0, gsoSize, csumStart, csumOffset]
}

const offloadFrame = (made: Made): OffloadFrame => ({
  bytes: made.bytes,
  header: headerOf(made)!,
  tunnel: [made.header.outerTh, made.header.innerNh],
  cuts: made.cuts,
})

function damage(operands: Operands, bytes: Uint8Array): void {
  for (let count = operands.byte() & 3; count > 0; count--) {
    const at = operands.byte() % bytes.length
    bytes[at] = (operands.byte() & 1) === 0 ? operands.byte() : bytes[at] ^ (1 << (at & 7))
  }
}

export function makeFrame(operands: Operands): Made {
  const kind = operands.byte()
  const more = operands.byte()
  const isTcp = (kind & 1) === 0
  const isTunnel = (kind & 0x60) === 0x20
  const inner = ipFrame({
    vlans: [[], [5], [7, 9], []][(kind >> 1) & 3],
    isIpv6: (kind & 8) !== 0,
    protocol: isTcp ? 'tcp' : 'udp',
    id: operands.half(),
    flags: operands.byte(),
    sequence: (kind & 16) === 0 ? 1000 : 0xffff_fff0,
    tcpOptions: TCP_OPTIONS[more % 3],
    ipOptions: (more & 4) === 0 ? 0 : 4 * (more >> 5),
    extensions: (more & 8) === 0 ? [] : [[(more & 16) === 0 ? 0 : 60, 8]],
    payload: PAYLOAD.subarray(0, (operands.byte() * (more & 3)) >> 1),
    checksum: 'partial',
  })
  const tunnel = isTunnel
    ? tunnelFrame(inner, {
        isIpv6: (more & 16) !== 0,
        checksum: (more & 32) === 0 ? 'none' : 'partial',
      })
    : undefined
  const { l4, checksumOffset } = tunnel ?? inner
  const bytes = (tunnel ?? inner).bytes
  const family = tunnel === undefined ? 0 : (more & 16) === 0 ? 0x20 : 0x40
  const right = (isTcp ? ((kind & 8) === 0 ? 1 : 4) : 5) | family
  const pick = operands.byte()
  const header = {
    flags: pick < 200 ? 1 | ((more & 32) !== 0 && isTunnel ? 8 : 0) : operands.byte(),
    type: pick < 128 ? right : pick < 180 ? 0 : operands.pick(TYPES),
    gsoSize: 1 + operands.byte() * (1 + (more & 1)),
    csumStart: pick % 9 < 8 ? l4 : operands.byte(),
    csumOffset: pick % 11 < 10 ? checksumOffset : operands.byte(),
    outerTh: tunnel === undefined ? 0 : tunnel.outerL4 + (pick % 13 === 0 ? operands.signed() : 0),
    innerNh: tunnel === undefined ? 0 : tunnel.l3 + (pick % 17 === 0 ? operands.signed() : 0),
  }
  damage(operands, bytes)
  const cuts = Array.from({ length: operands.byte() & 7 }, () => operands.byte())
  return { bytes, header: { ...header, outerTh: header.outerTh & 0xffff }, cuts }
}

function needsOf({ bytes, header }: Made): number {
  const { flags, type, gsoSize, csumStart, csumOffset, outerTh, innerNh } = header
  const words = [flags | (type << 8), gsoSize | (csumStart << 16)] as const
  return offloadNeeds(...words, csumOffset, bytes.length, outerTh | (innerNh << 16))
}

/** What a port without any offload is given for a frame. */
function expected({ bytes, header }: Made, needs: number): Uint8Array[] {
  if (needs === 0) return [bytes]
  if (header.type !== 0) return modelSegments(bytes, header) ?? []
  const completed = modelCompleted(bytes, header)
  return completed === null ? [] : [completed]
}

export function fuzzSegmentation(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const frames: OffloadFrame[] = []
  const should: { bytes: Uint8Array; isPassed: boolean }[] = []
  for (let n = 0; n < FRAMES_MAX && !operands.isAtEnd; n++) {
    const made = makeFrame(operands)
    const needs = needsOf(made)
    checkEqual(needs, modelNeeds(made.header, made.bytes.length), 'what the vnet_hdr needs')
    seen.add(1, needs, made.header.type, frames.length)
    if (needs < 0) continue
    const given = expected(made, needs)
    seen.add(2, Math.min(given.length, 8), needs, made.cuts.length)
    frames.push(offloadFrame(made))
    for (const bytes of given) should.push({ bytes, isPassed: needs === 0 })
  }
  const is = bench.run(frames, 0)
  checkEqual(is.length, should.length, 'frames for a port without offloads')
  for (const [k, given] of is.entries()) {
    const { bytes, isPassed } = should[k]
    checkBytes(given.bytes, bytes, `frame ${k}`)
    check(given.needs === 0 && (isPassed || given.gso === 0), `frame ${k} is a plain one`)
  }
}

// --- coalescing --------------------------------------------------------------------------------------

interface Flow {
  sequence: number
  id: number
}

/** Segments of three flows, most of which follow one another. */
function makeSegment(operands: Operands, flows: Flow[]): Made {
  const kind = operands.byte()
  const flow = flows[kind % 3]
  const change = operands.byte()
  const length = change < 200 ? 100 : operands.byte()
  const isPartial = (kind & 64) !== 0
  const made = ipFrame({
    vlans: (kind & 4) === 0 ? [] : [5],
    isIpv6: (kind & 8) !== 0,
    source: 1 + (kind % 3),
    id: flow.id,
    sequence: flow.sequence,
    dontFragment: (kind & 16) !== 0,
    tcpOptions: TCP_OPTIONS[(kind & 32) === 0 ? 0 : 2],
    flags: change % 16 < 12 ? 0x10 : change % 16 < 14 ? 0x18 : operands.byte(),
    window: change % 31 === 0 ? 7 : 512,
    acknowledgement: change % 29 === 0 ? 9 : 2000,
    payload: PAYLOAD.subarray(0, length),
    checksum: isPartial ? 'partial' : 'full',
  })
  flow.sequence = (flow.sequence + length + (change === 255 ? 1 : 0)) >>> 0
  flow.id = (flow.id + (change % 23 === 0 ? 2 : (kind & 128) === 0 ? 1 : 0)) & 0xffff
  if (change > 240) damage(operands, made.bytes)
  const { l4, checksumOffset } = made
  const header = {
    flags: isPartial ? 1 : 0,
    type: 0,
    gsoSize: 0,
    csumStart: isPartial ? l4 : 0,
    csumOffset: isPartial ? checksumOffset : 0,
    outerTh: 0,
    innerNh: 0,
  }
  const cuts = change % 7 === 0 ? [operands.byte(), 20] : []
  return { bytes: made.bytes, header, cuts }
}

/** The frames that one stands for, without what is left to the receiver. */
function unmerged({ bytes, gso, gsoSize, csumOffset }: GivenFrame): Uint8Array[] {
  const header = {
    flags: gso & 0xff,
    type: (gso >>> 8) & 0xff,
    gsoSize: gsoSize & 0xffff,
    csumStart: gsoSize >>> 16,
    csumOffset,
    outerTh: 0,
    innerNh: 0,
  }
  if (header.type !== 0) {
    const segments = modelSegments(bytes, header)
    check(segments !== null, 'what was merged can be cut')
    return segments
  }
  return [(header.flags & 1) === 0 ? bytes : (modelCompleted(bytes, header) ?? bytes)]
}

/** Which frames must stay in order: those with the same addresses, tags and ports. */
function flowOf(bytes: Uint8Array): string {
  const headers = modelHeaders(bytes)
  if (headers === null) return 'other'
  const { l3, l4, isIpv6 } = headers
  const [from, to] = isIpv6 ? [l3 + 8, l3 + 40] : [l3 + 12, l3 + 20]
  const text = Buffer.from(bytes.buffer, bytes.byteOffset)
  const part = (start: number, end: number): string => text.toString('latin1', start, end)
  return part(0, l3) + part(from, to) + part(l4, l4 + 4)
}

export function fuzzCoalescing(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const start = operands.byte()
  const flows = [0, 1, 2].map((n) => ({
    sequence: start < 128 ? 1000 : 0xffff_ff00,
    id: n * start,
  }))
  const mades: Made[] = []
  while (mades.length < 8 && !operands.isAtEnd) {
    const made = makeSegment(operands, flows)
    if (needsOf(made) >= 0) mades.push(made)
  }
  const given = bench.run(
    mades.map((made) => offloadFrame(made)),
    ALL,
    true,
  )
  const byFlow = new Map<string, Uint8Array[]>()
  for (const { bytes, header } of mades) {
    const isPartial = (header.flags & 1) !== 0
    const whole = isPartial ? (modelCompleted(bytes, header) ?? bytes) : bytes
    const flow = flowOf(bytes)
    const list = byFlow.get(flow)
    if (list === undefined) byFlow.set(flow, [whole])
    else list.push(whole)
  }
  for (const frame of given) {
    const { gso, gsoSize, needs, bytes } = frame
    checkEqual(needs & ~ALL, 0, 'what is given can be taken')
    if (gso !== 0) check(bytes.length <= 65535 + 18, 'a merged frame is no longer than a packet')
    const segments = unmerged(frame)
    seen.add(3, Math.min(segments.length, 12), (gso >>> 8) & 0xff, Math.min(gsoSize & 0xffff, 120))
    for (const segment of segments) {
      const should = byFlow.get(flowOf(segment))?.shift()
      check(should !== undefined, 'what is given came in')
      checkBytes(segment, should, 'a segment of a flow')
    }
  }
  for (const rest of byFlow.values()) checkEqual(rest.length, 0, 'segments that are lost')
}
