/**
 * The index of a capture file: where its frames lie and when they are due, without copying them.
 * The file is a window, so it is below 2 GiB.
 */
import { ConfigError } from '../errors.ts'
import { CaptureFormatError } from '../wire/capture-visitor.ts'
import { ETHER_HEADER_LENGTH } from '../wire/ethernet.ts'
import { isPcap, readPcap } from '../wire/pcap.ts'
import { readPcapng } from '../wire/pcapng.ts'

/** 64 KiB of payload, Ethernet header, two VLAN tags. */
const FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH + 8

export interface CaptureIndex {
  readonly count: number
  readonly offset: Int32Array
  readonly length: Int32Array
  /** Microseconds after the first frame. */
  readonly dueUs: Float64Array
  /** Frames that are too short or too long to be sent. */
  readonly skipped: number
  /** The file ends in the middle of a frame. */
  readonly isTruncated: boolean
}

/** Throws ConfigError naming the file and the byte. */
export function indexCapture(bytes: Uint8Array, name: string): CaptureIndex {
  const offsets: number[] = []
  const lengths: number[] = []
  const due: number[] = []
  let first: bigint | undefined
  let skipped = 0
  let isTruncated = false
  const visitor = {
    frame(offset: number, length: number, _originalLength: number, timestampNs: bigint): void {
      if (length < ETHER_HEADER_LENGTH || length > FRAME_LENGTH_MAX) {
        skipped++
        return
      }
      first ??= timestampNs
      offsets.push(offset)
      lengths.push(length)
      due.push(Number(timestampNs - first) / 1000)
    },
    truncated(): void {
      isTruncated = true
    },
  }
  try {
    if (isPcap(bytes)) readPcap(bytes, visitor)
    else readPcapng(bytes, visitor)
  } catch (error) {
    if (!(error instanceof CaptureFormatError)) throw error
    throw new ConfigError('CAPTURE_FORMAT', `${name}: ${error.message}`, {
      hint: 'it must be a pcap or pcapng file of Ethernet frames',
      cause: error,
    })
  }
  return {
    count: offsets.length,
    offset: Int32Array.from(offsets),
    length: Int32Array.from(lengths),
    dueUs: Float64Array.from(due),
    skipped,
    isTruncated,
  }
}
