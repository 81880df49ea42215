/**
 * pcapng blocks, emitted little-endian, and a reader of whole files in either byte order.
 * draft-ietf-opsawg-pcapng-03: every block is type, length, body, length again; multiples of 4.
 */
import {
  BYTE_ORDER_MAGIC,
  ENHANCED_PACKET_BLOCK,
  EPB_FLAG_FCS_MASK,
  EPB_FLAG_FCS_SHIFT,
  EPB_FLAGS,
  IF_DESCRIPTION,
  IF_FCSLEN,
  IF_NAME,
  IF_TSOFFSET,
  IF_TSRESOL,
  INTERFACE_DESCRIPTION_BLOCK,
  INTERFACE_STATISTICS_BLOCK,
  ISB_ENDTIME,
  ISB_IFDROP,
  ISB_IFRECV,
  ISB_STARTTIME,
  LINKTYPE_ETHERNET,
  OPT_ENDOFOPT,
  PACKET_BLOCK,
  SECTION_HEADER_BLOCK,
  SHB_USERAPPL,
  SIMPLE_PACKET_BLOCK,
} from '../abi/pcapng.ts'
import type { CaptureVisitor } from './capture-visitor.ts'
import { CaptureFormatError, visitFrame } from './capture-visitor.ts'
import { refuseLinkType } from './link-types.ts'

/** 10^-9: timestamps are nanoseconds. */
const TSRESOL_NS = 9
/** A longer block is not a frame with its options, but a damaged length. */
const BLOCK_LENGTH_MAX = 16 * 1024 * 1024

const pad4 = (length: number): number => (length + 3) & ~3

type Option = readonly [code: number, value: Uint8Array]

const text = (value: string): Uint8Array => new TextEncoder().encode(value)

function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  return bytes
}

/** Timestamps of a statistics block are two u32, the high one first. */
function timestamp(ns: bigint): Uint8Array {
  return u64(((ns & 0xffff_ffffn) << 32n) | (ns >> 32n))
}

function block(type: number, body: Uint8Array, options: readonly Option[]): Uint8Array {
  const optionsLength =
    options.length === 0
      ? 0
      : options.reduce((sum, [, value]) => sum + 4 + pad4(value.length), 0) + 4
  const length = 12 + pad4(body.length) + optionsLength
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, type, true)
  view.setUint32(4, length, true)
  bytes.set(body, 8)
  let at = 8 + pad4(body.length)
  for (const [code, value] of options) {
    view.setUint16(at, code, true)
    view.setUint16(at + 2, value.length, true)
    bytes.set(value, at + 4)
    at += 4 + pad4(value.length)
  }
  view.setUint32(length - 4, length, true)
  return bytes
}

export function sectionHeader(application: string): Uint8Array {
  const body = new Uint8Array(16)
  const view = new DataView(body.buffer)
  view.setUint32(0, BYTE_ORDER_MAGIC, true)
  view.setUint16(4, 1, true)
  // Section length not given.
  view.setBigInt64(8, -1n, true)
  return block(SECTION_HEADER_BLOCK, body, [[SHB_USERAPPL, text(application)]])
}

export function interfaceDescription(
  name: string,
  description: string,
  snapLength: number,
): Uint8Array {
  const body = new Uint8Array(8)
  const view = new DataView(body.buffer)
  view.setUint16(0, LINKTYPE_ETHERNET, true)
  view.setUint32(4, snapLength, true)
  return block(INTERFACE_DESCRIPTION_BLOCK, body, [
    [IF_NAME, text(name)],
    [IF_DESCRIPTION, text(description)],
    [IF_TSRESOL, Uint8Array.of(TSRESOL_NS)],
  ])
}

/** `flags` as epb_flags; the capture path writes the same block in place (capture/recorder.ts). */
export function enhancedPacket(
  interfaceId: number,
  timestampNs: bigint,
  frame: Uint8Array,
  originalLength: number,
  flags: number,
): Uint8Array {
  const body = new Uint8Array(20 + frame.length)
  const view = new DataView(body.buffer)
  view.setUint32(0, interfaceId, true)
  view.setUint32(4, Number(timestampNs >> 32n), true)
  view.setUint32(8, Number(timestampNs & 0xffff_ffffn), true)
  view.setUint32(12, frame.length, true)
  view.setUint32(16, originalLength, true)
  body.set(frame, 20)
  const flagBytes = new Uint8Array(4)
  new DataView(flagBytes.buffer).setUint32(0, flags, true)
  return block(ENHANCED_PACKET_BLOCK, body, [[EPB_FLAGS, flagBytes]])
}

export function interfaceStatistics(
  interfaceId: number,
  startNs: bigint,
  endNs: bigint,
  received: number,
  dropped: number,
): Uint8Array {
  const body = new Uint8Array(12)
  const view = new DataView(body.buffer)
  view.setUint32(0, interfaceId, true)
  view.setUint32(4, Number(endNs >> 32n), true)
  view.setUint32(8, Number(endNs & 0xffff_ffffn), true)
  return block(INTERFACE_STATISTICS_BLOCK, body, [
    [ISB_STARTTIME, timestamp(startNs)],
    [ISB_ENDTIME, timestamp(endNs)],
    [ISB_IFRECV, u64(BigInt(received))],
    [ISB_IFDROP, u64(BigInt(dropped))],
  ])
}

interface Interface {
  readonly linkType: number
  readonly snapLength: number
  readonly fcsLength: number
  /** Nanoseconds of one timestamp unit, as a fraction. */
  readonly numerator: bigint
  readonly denominator: bigint
  readonly offsetNs: bigint
}

/**
 * Reads a whole pcapng file; `visitor` gets every frame. Throws CaptureFormatError. Blocks are walked
 * by their own lengths, so that a section's length says nothing more; blocks and options that tell
 * nothing of frames are skipped, whoever defined them. if_tzone is not needed: times are UTC.
 */
export function readPcapng(bytes: Uint8Array, visitor: CaptureVisitor): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let isLittle = true
  let interfaces: Interface[] = []
  let at = 0
  while (at < bytes.length) {
    if (bytes.length - at < 12) {
      if (at === 0) throw new CaptureFormatError(at, 'does not start with a section header')
      visitor.truncated?.(at)
      return
    }
    const isSection = view.getUint32(at, true) === SECTION_HEADER_BLOCK
    if (isSection) {
      const magic = view.getUint32(at + 8, true)
      if (magic !== BYTE_ORDER_MAGIC && magic !== 0x4d3c2b1a) {
        throw new CaptureFormatError(at, 'unknown byte-order magic')
      }
      isLittle = magic === BYTE_ORDER_MAGIC
      interfaces = []
    } else if (at === 0) {
      throw new CaptureFormatError(at, 'does not start with a section header')
    }
    const type = view.getUint32(at, isLittle)
    const length = view.getUint32(at + 4, isLittle)
    if (length % 4 !== 0 || length < 12 || length > BLOCK_LENGTH_MAX) {
      throw new CaptureFormatError(at, `block length ${length} is not possible`)
    }
    if (length > bytes.length - at) {
      visitor.truncated?.(at)
      return
    }
    if (view.getUint32(at + length - 4, isLittle) !== length) {
      throw new CaptureFormatError(at, 'the two lengths of a block differ')
    }
    const body = new DataView(bytes.buffer, bytes.byteOffset + at + 8, length - 12)
    if (isSection) checkSection(at, body, isLittle)
    else if (type === INTERFACE_DESCRIPTION_BLOCK) {
      interfaces.push(readInterface(at, body, isLittle))
    } else readFrameBlock(at, type, body, isLittle, interfaces, visitor)
    at += length
  }
}

function checkSection(at: number, body: DataView, isLittle: boolean): void {
  if (body.byteLength < 16) throw new CaptureFormatError(at, 'section header is too short')
  const major = body.getUint16(4, isLittle)
  const minor = body.getUint16(6, isLittle)
  // 1.2 was written by some, and is the same.
  if (major !== 1 || (minor !== 0 && minor !== 2)) {
    throw new CaptureFormatError(at, `pcapng version ${major}.${minor} is not 1.0`)
  }
}

/** Where the value of each option is, by its code. A list may end with the block, or with its end mark. */
function readOptions(
  at: number,
  body: DataView,
  from: number,
  isLittle: boolean,
): Map<number, DataView> {
  const options = new Map<number, DataView>()
  let option = from
  while (option + 4 <= body.byteLength) {
    const code = body.getUint16(option, isLittle)
    const length = body.getUint16(option + 2, isLittle)
    if (code === OPT_ENDOFOPT) break
    if (option + 4 + length > body.byteLength) {
      throw new CaptureFormatError(at, `option ${code} leaves its block`)
    }
    options.set(code, new DataView(body.buffer, body.byteOffset + option + 4, length))
    option += 4 + pad4(length)
  }
  return options
}

function readInterface(at: number, body: DataView, isLittle: boolean): Interface {
  if (body.byteLength < 8) throw new CaptureFormatError(at, 'interface block is too short')
  const options = readOptions(at, body, 8, isLittle)
  // One of another length means nothing, to Wireshark as well.
  const valueOf = (code: number, length: number): DataView | undefined => {
    const value = options.get(code)
    return value?.byteLength === length ? value : undefined
  }
  const resolution = valueOf(IF_TSRESOL, 1)?.getUint8(0) ?? 6
  const offsetS = valueOf(IF_TSOFFSET, 8)?.getBigInt64(0, isLittle) ?? 0n
  const exponent = BigInt(resolution & 0x7f)
  const base = (resolution & 0x80) !== 0 ? 2n : 10n
  return {
    linkType: body.getUint16(0, isLittle),
    snapLength: body.getUint32(4, isLittle),
    fcsLength: valueOf(IF_FCSLEN, 1)?.getUint8(0) ?? 0,
    numerator: 1_000_000_000n,
    denominator: base ** exponent,
    offsetNs: offsetS * 1_000_000_000n,
  }
}

function readFrameBlock(
  at: number,
  type: number,
  body: DataView,
  isLittle: boolean,
  interfaces: readonly Interface[],
  visitor: CaptureVisitor,
): void {
  const isSimple = type === SIMPLE_PACKET_BLOCK
  if (type !== ENHANCED_PACKET_BLOCK && type !== PACKET_BLOCK && !isSimple) return
  const header = isSimple ? 4 : 20
  if (body.byteLength < header) throw new CaptureFormatError(at, 'frame block is too short')
  const id = isSimple
    ? 0
    : type === PACKET_BLOCK
      ? body.getUint16(0, isLittle)
      : body.getUint32(0, isLittle)
  const from = interfaces[id]
  if (from === undefined) throw new CaptureFormatError(at, `interface ${id} was not described`)
  if (from.linkType !== LINKTYPE_ETHERNET) {
    throw new CaptureFormatError(at, refuseLinkType(from.linkType))
  }
  const original = body.getUint32(isSimple ? 0 : 16, isLittle)
  const snapped = from.snapLength === 0 ? original : Math.min(original, from.snapLength)
  const length = isSimple ? snapped : body.getUint32(12, isLittle)
  if (length > body.byteLength - header) {
    throw new CaptureFormatError(at, `captured length ${length} leaves the block`)
  }
  const offset = at + 8 + header
  if (isSimple) {
    visitFrame(visitor, offset, length, original, from.fcsLength, null, id)
    return
  }
  const units = (BigInt(body.getUint32(4, isLittle)) << 32n) | BigInt(body.getUint32(8, isLittle))
  const ns = (units * from.numerator) / from.denominator + from.offsetNs
  const flags = readOptions(at, body, header + pad4(length), isLittle).get(EPB_FLAGS)
  const told = flags === undefined || flags.byteLength !== 4 ? 0 : flags.getUint32(0, isLittle)
  const fcsLength = (told >>> EPB_FLAG_FCS_SHIFT) & EPB_FLAG_FCS_MASK || from.fcsLength
  visitFrame(visitor, offset, length, original, fcsLength, ns, id)
}
