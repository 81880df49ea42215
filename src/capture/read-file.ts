/**
 * The index of a capture file: where its frames lie and when they are due, without copying them.
 * The file is a window, so it is below 2 GiB.
 */
import { ConfigError } from '../errors.ts'
import type { CaptureVisitor } from '../wire/capture-visitor.ts'
import { CaptureFormatError } from '../wire/capture-visitor.ts'
import { ETHER_HEADER_LENGTH } from '../wire/ethernet.ts'
import { isPcap, readPcap } from '../wire/pcap.ts'
import { readPcapng } from '../wire/pcapng.ts'
import { nameFormat } from './formats.ts'
import { Pace } from './pace.ts'

const SECTION = '0a0d0d0a'
/** 64 KiB of payload, Ethernet header, two VLAN tags. */
const FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH + 8

export interface CaptureIndex {
  readonly count: number
  readonly offset: Int32Array
  readonly length: Int32Array
  /** Microseconds after the first frame; never less than those of the frame before. */
  readonly dueUs: Float64Array
  /** Frames that are too short or too long to be sent. */
  readonly skipped: number
  /** The file ends in the middle of a frame. */
  readonly isTruncated: boolean
  /** What of it is not replayed as it was, in words. */
  readonly notes: readonly string[]
}

/** Throws ConfigError naming the file and the byte. */
export function indexCapture(bytes: Uint8Array, name: string): CaptureIndex {
  const offsets: number[] = []
  const lengths: number[] = []
  const due: number[] = []
  const pace = new Pace()
  let skipped = 0
  let cut = 0
  let overlong = 0
  let isTruncated = false
  const visitor = {
    frame(
      offset: number,
      length: number,
      originalLength: number,
      timestampNs: bigint | null,
    ): void {
      if (length < ETHER_HEADER_LENGTH || length > FRAME_LENGTH_MAX) {
        skipped++
        return
      }
      if (length < originalLength) cut++
      offsets.push(offset)
      lengths.push(length)
      due.push(pace.dueUs(timestampNs))
    },
    truncated(): void {
      isTruncated = true
    },
    overlong(): void {
      overlong++
    },
  }
  try {
    if (isPcap(bytes)) readPcap(bytes, visitor)
    else readAsPcapng(bytes, visitor, name)
  } catch (error) {
    if (!(error instanceof CaptureFormatError)) throw error
    throw new ConfigError('CAPTURE_FORMAT', `${name}: ${error.message}`, {
      hint: 'it must be a pcap or pcapng file of Ethernet frames',
      cause: error,
    })
  }
  const notes: string[] = []
  if (skipped > 0) notes.push(`${skipped} frames are no Ethernet frames: skipped`)
  if (cut > 0) notes.push(`${cut} frames were cut off when they were captured: replayed so`)
  if (overlong > 0) notes.push(`${overlong} frames have bytes beyond their length: left out`)
  if (pace.steps > 0)
    notes.push(`its clock was set ${pace.steps} times: the pace goes on from there`)
  if (isTruncated) notes.push('ends in the middle of a frame: the rest is replayed')
  return {
    count: offsets.length,
    offset: Int32Array.from(offsets),
    length: Int32Array.from(lengths),
    dueUs: Float64Array.from(due),
    skipped,
    isTruncated,
    notes,
  }
}

/** Every other file is pcapng, or named. */
function readAsPcapng(bytes: Uint8Array, visitor: CaptureVisitor, name: string): void {
  const isPcapng =
    bytes.length >= 4 && Buffer.from(bytes.subarray(0, 4)).toString('hex') === SECTION
  const format = isPcapng ? null : nameFormat(bytes)
  if (format !== null) {
    throw new ConfigError(
      'CAPTURE_FORMAT',
      `${name}: is ${format.name}, not a pcap or pcapng file`,
      {
        hint: format.hint,
      },
    )
  }
  readPcapng(bytes, visitor)
}
