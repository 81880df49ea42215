/**
 * Classic pcap: a 24-byte header, then records of 16 bytes and the frame. We write nanoseconds,
 * little-endian; we read both resolutions in both byte orders. draft-ietf-opsawg-pcap-06
 */
import {
  LINKTYPE_ETHERNET,
  PCAP_HEADER_LENGTH,
  PCAP_MAGIC_NS,
  PCAP_MAGIC_US,
  PCAP_RECORD_LENGTH,
} from '../abi/pcapng.ts'
import type { CaptureVisitor } from './capture-visitor.ts'
import { CaptureFormatError } from './capture-visitor.ts'

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

/** Whether a file starts with one of the four pcap magics. */
export function isPcap(bytes: Uint8Array): boolean {
  return readMagic(bytes) !== null
}

function readMagic(bytes: Uint8Array): { isLittle: boolean; nsPerUnit: bigint } | null {
  if (bytes.length < PCAP_HEADER_LENGTH) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (const isLittle of [true, false]) {
    const magic = view.getUint32(0, isLittle)
    if (magic === PCAP_MAGIC_NS) return { isLittle, nsPerUnit: 1n }
    if (magic === PCAP_MAGIC_US) return { isLittle, nsPerUnit: 1000n }
  }
  return null
}

/** Reads a whole pcap file; `visitor` gets every frame. Throws CaptureFormatError. */
export function readPcap(bytes: Uint8Array, visitor: CaptureVisitor): void {
  const magic = readMagic(bytes)
  if (magic === null) throw new CaptureFormatError(0, 'no pcap header')
  const { isLittle, nsPerUnit } = magic
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  // The upper bits of the field carry FCS information.
  const linkType = view.getUint32(20, isLittle) & 0xffff
  if (linkType !== LINKTYPE_ETHERNET) {
    throw new CaptureFormatError(20, `link type ${linkType} is not Ethernet (1)`)
  }
  let at = PCAP_HEADER_LENGTH
  while (at < bytes.length) {
    if (bytes.length - at < PCAP_RECORD_LENGTH) {
      visitor.truncated?.(at)
      return
    }
    const seconds = BigInt(view.getUint32(at, isLittle))
    const units = BigInt(view.getUint32(at + 4, isLittle))
    const length = view.getUint32(at + 8, isLittle)
    if (length > RECORD_LENGTH_MAX) {
      throw new CaptureFormatError(at, `captured length ${length} is not possible`)
    }
    if (length > bytes.length - at - PCAP_RECORD_LENGTH) {
      visitor.truncated?.(at)
      return
    }
    const ns = seconds * 1_000_000_000n + units * nsPerUnit
    visitor.frame(at + PCAP_RECORD_LENGTH, length, view.getUint32(at + 12, isLittle), ns, 0)
    at += PCAP_RECORD_LENGTH + length
  }
}
