/** Classic pcap: our header as literal bytes, and the reader on all four magics. */
import { describe, expect, test } from 'vitest'
import { CaptureFormatError } from '../../../src/wire/capture-visitor.ts'
import { isPcap, pcapHeader, readPcap } from '../../../src/wire/pcap.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const unhex = (...parts: string[]): Uint8Array =>
  new Uint8Array(Buffer.from(parts.join('').replaceAll(' ', ''), 'hex'))

interface Seen {
  readonly frame: string
  readonly originalLength: number
  readonly timestampNs: bigint
  readonly interfaceId: number
}

function read(bytes: Uint8Array): { frames: Seen[]; truncatedAt: number | undefined } {
  const frames: Seen[] = []
  let truncatedAt: number | undefined
  readPcap(bytes, {
    frame(offset, length, originalLength, timestampNs, interfaceId) {
      const frame = hex(bytes.subarray(offset, offset + length))
      frames.push({ frame, originalLength, timestampNs, interfaceId })
    },
    truncated(offset) {
      truncatedAt = offset
    },
  })
  return { frames, truncatedAt }
}

// Version 2.4, zone and accuracy 0, snap length 65535, Ethernet.
const REST_LITTLE = '0200 0400 00000000 00000000 ffff0000 01000000'
const REST_BIG = '0002 0004 00000000 00000000 0000ffff 00000001'
// 1700000000 s and 123456 units; 3 bytes of 60.
const RECORD_LITTLE = '00f15365 40e20100 03000000 3c000000 aabbcc'
const RECORD_BIG = '6553f100 0001e240 00000003 0000003c aabbcc'

describe('pcap', () => {
  test('the header has the nanosecond magic, the snap length and Ethernet', () => {
    expect(hex(pcapHeader(0x1234))).toBe(
      '4d3cb2a1' + // magic, nanoseconds
        '02000400' + // version 2.4
        '0000000000000000' + // zone, accuracy
        '34120000' + // snap length
        '01000000', // Ethernet
    )
  })

  test.each([
    ['nanoseconds, little-endian', '4d3cb2a1', REST_LITTLE, RECORD_LITTLE, 123_456n],
    ['nanoseconds, big-endian', 'a1b23c4d', REST_BIG, RECORD_BIG, 123_456n],
    ['microseconds, little-endian', 'd4c3b2a1', REST_LITTLE, RECORD_LITTLE, 123_456_000n],
    ['microseconds, big-endian', 'a1b2c3d4', REST_BIG, RECORD_BIG, 123_456_000n],
  ])('reads %s', (_name, magic, rest, record, ns) => {
    const file = unhex(magic, rest, record, record)
    const frame = {
      frame: 'aabbcc',
      originalLength: 60,
      timestampNs: 1_700_000_000_000_000_000n + ns,
      interfaceId: 0,
    }
    expect(isPcap(file)).toBe(true)
    expect(read(file)).toEqual({ frames: [frame, frame], truncatedAt: undefined })
  })

  test('takes seconds after 2038 for unsigned', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, 'ffffffff ffc99a3b 00000000 00000000')
    expect(read(file).frames[0].timestampNs).toBe(4_294_967_295_999_999_999n)
  })

  test('reads a file without frames', () => {
    expect(read(pcapHeader(65535))).toEqual({ frames: [], truncatedAt: undefined })
  })

  test('ignores what the upper half of the link type says about the FCS', () => {
    const file = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000 01000024', RECORD_LITTLE)
    expect(read(file).frames).toHaveLength(1)
  })

  test('keeps the frames before a record that is cut off, wherever the cut is', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, RECORD_LITTLE, RECORD_LITTLE)
    for (let length = 44; length < file.length; length++) {
      const { frames, truncatedAt } = read(file.subarray(0, length))
      expect(frames).toHaveLength(1)
      expect(truncatedAt).toBe(43)
    }
  })

  test('is not pcap with another magic or less than a header', () => {
    expect(isPcap(unhex('0a0d0d0a', REST_LITTLE))).toBe(false)
    expect(isPcap(pcapHeader(1).subarray(0, 23))).toBe(false)
    expect(() => read(unhex('0a0d0d0a', REST_LITTLE))).toThrow('no pcap header, at byte 0')
  })

  test('refuses another link type by its number', () => {
    const file = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000 71000000')
    expect(() => read(file)).toThrow(CaptureFormatError)
    expect(() => read(file)).toThrow('link type 113 is not Ethernet (1), at byte 20')
  })

  test('refuses a captured length that no frame has', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, '00000000 00000000 01000001 3c000000')
    expect(() => read(file)).toThrow('captured length 16777217 is not possible, at byte 24')
  })
})
