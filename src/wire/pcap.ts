/**
 * Classic pcap: a 24-byte header, then records of 16 bytes and the frame. We write nanoseconds,
 * little-endian; we read both resolutions in both byte orders, and the modified format of old Linux
 * captures. draft-ietf-opsawg-pcap-06
 */
import {
  LINKTYPE_ETHERNET,
  PCAP_FCS_LENGTH_SHIFT,
  PCAP_HAS_FCS_LENGTH,
  PCAP_HEADER_LENGTH,
  PCAP_LINKTYPE_MASK,
  PCAP_MAGIC_MODIFIED,
  PCAP_MAGIC_NS,
  PCAP_MAGIC_US,
  PCAP_MODIFIED_RECORD_LENGTH,
  PCAP_RECORD_LENGTH,
} from '../abi/pcapng.ts'
import type { CaptureVisitor } from './capture-visitor.ts'
import { CaptureFormatError, visitFrame } from './capture-visitor.ts'
import { refuseLinkType } from './link-types.ts'

/** A longer record is a damaged length, not a frame. */
const RECORD_LENGTH_MAX = 16 * 1024 * 1024

export function pcapHeader(snapLength: number): Uint8Array {
  const bytes = new Uint8Array(PCAP_HEADER_LENGTH)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, PCAP_MAGIC_NS, true)
  view.setUint16(4, 2, true)
  view.setUint16(6, 4, true)
  view.setUint32(16, snapLength, true)
  view.setUint32(20, LINKTYPE_ETHERNET, true)
  return bytes
}

/** Whether a file starts with a pcap magic that can be read; its header may be cut off. */
export function isPcap(bytes: Uint8Array): boolean {
  return readMagic(bytes) !== null
}

interface Variant {
  readonly isLittle: boolean
  readonly nsPerUnit: bigint
  readonly recordLength: number
}

function readMagic(bytes: Uint8Array): Variant | null {
  if (bytes.length < 4) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (const isLittle of [true, false]) {
    const magic = view.getUint32(0, isLittle)
    const recordLength = PCAP_RECORD_LENGTH
    if (magic === PCAP_MAGIC_NS) return { isLittle, nsPerUnit: 1n, recordLength }
    if (magic === PCAP_MAGIC_US) return { isLittle, nsPerUnit: 1000n, recordLength }
    if (magic === PCAP_MAGIC_MODIFIED) {
      return { isLittle, nsPerUnit: 1000n, recordLength: PCAP_MODIFIED_RECORD_LENGTH }
    }
  }
  return null
}

/**
 * Reads a whole pcap file; `visitor` gets every frame. Throws CaptureFormatError. Time zone, accuracy
 * and snap length of the header say nothing that the records do not.
 */
export function readPcap(bytes: Uint8Array, visitor: CaptureVisitor): void {
  const variant = readMagic(bytes)
  if (variant === null) throw new CaptureFormatError(0, 'no pcap header')
  if (bytes.length < PCAP_HEADER_LENGTH) {
    throw new CaptureFormatError(bytes.length, 'the pcap header is cut off')
  }
  const { isLittle, nsPerUnit, recordLength } = variant
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const major = view.getUint16(4, isLittle)
  const minor = view.getUint16(6, isLittle)
  if (major !== 2) throw new CaptureFormatError(4, `pcap version ${major}.${minor} is not 2.4`)
  const link = view.getUint32(20, isLittle)
  const linkType = link & PCAP_LINKTYPE_MASK
  if (linkType !== LINKTYPE_ETHERNET) throw new CaptureFormatError(20, refuseLinkType(linkType))
  const hasFcsLength = (link & PCAP_HAS_FCS_LENGTH) !== 0
  const fcsLength = hasFcsLength ? 2 * (link >>> PCAP_FCS_LENGTH_SHIFT) : 0
  let at = PCAP_HEADER_LENGTH
  while (at < bytes.length) {
    if (bytes.length - at < recordLength) {
      visitor.truncated?.(at)
      return
    }
    const seconds = BigInt(view.getUint32(at, isLittle))
    const units = BigInt(view.getUint32(at + 4, isLittle))
    let length = view.getUint32(at + 8, isLittle)
    let original = view.getUint32(at + 12, isLittle)
    // Before version 2.3 they stood the other way round, and for a while with it.
    if (minor < 3 || (minor === 3 && length > original)) [length, original] = [original, length]
    if (length > RECORD_LENGTH_MAX) {
      throw new CaptureFormatError(at, `captured length ${length} is not possible`)
    }
    if (length > bytes.length - at - recordLength) {
      visitor.truncated?.(at)
      return
    }
    const ns = seconds * 1_000_000_000n + units * nsPerUnit
    visitFrame(visitor, at + recordLength, length, original, fcsLength, ns, 0)
    at += recordLength + length
  }
}
