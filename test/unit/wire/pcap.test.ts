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
  readonly timestampNs: bigint | null
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

  test.each([
    ['4 bytes of FCS', '01000024', 'aabb', 6],
    ['2 bytes of FCS', '01000014', 'aabbccdd', 8],
    ['30 bytes of FCS, more than there are', '010000f4', '', 0],
    ['a length of FCS that it does not vouch for', '01000020', 'aabbccddeeff', 10],
    ['a reserved bit', '01000008', 'aabbccddeeff', 10],
  ])('%s in the field of the link type', (_, link, frame, originalLength) => {
    const record = '00f15365 40e20100 06000000 0a000000 aabbccddeeff'
    const file = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000', link, record)
    expect(read(file).frames).toMatchObject([
      // Of ten bytes six were captured: the FCS may be beyond them.
      { frame: frame === 'aabb' || frame === 'aabbccdd' ? 'aabbccddeeff' : frame, originalLength },
    ])
    const whole = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000', link)
    const all = '00f15365 40e20100 06000000 06000000 aabbccddeeff'
    expect(read(Buffer.concat([whole, unhex(all)])).frames[0].frame).toBe(frame)
  })

  test('reads the modified format: 8 bytes more in each record', () => {
    const record = '00f15365 40e20100 03000000 3c000000 01000000 b588 00 00 aabbcc'
    const file = unhex('34cdb2a1', REST_LITTLE, record, record)
    expect(read(file).frames.map(({ frame }) => frame)).toEqual(['aabbcc', 'aabbcc'])
    expect(read(file).frames[0].timestampNs).toBe(1_700_000_000_123_456_000n)
    expect(read(file.subarray(0, file.length - 4)).truncatedAt).toBe(51)
  })

  test('lengths stood the other way round in old versions', () => {
    const record = '00f15365 40e20100 3c000000 03000000 aabbcc'
    for (const minor of ['0200', '0300']) {
      const file = unhex('d4c3b2a1 0200', minor, '00000000 00000000 ffff0000 01000000', record)
      expect(read(file).frames).toMatchObject([{ frame: 'aabbcc', originalLength: 60 }])
    }
  })

  test.each([
    ['0300', '0400', 'pcap version 3.4 is not 2.4, at byte 4'],
    ['0100', '0000', 'pcap version 1.0 is not 2.4, at byte 4'],
  ])('refuses another version', (major, minor, message) => {
    const file = unhex('d4c3b2a1', major, minor, '00000000 00000000 ffff0000 01000000')
    expect(() => read(file)).toThrow(message)
  })

  test('what goes beyond the original length is left out', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, '00f15365 00000000 03000000 02000000 aabbcc')
    expect(read(file).frames).toMatchObject([{ frame: 'aabb', originalLength: 2 }])
  })

  test('keeps the frames before a record that is cut off, wherever the cut is', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, RECORD_LITTLE, RECORD_LITTLE)
    for (let length = 44; length < file.length; length++) {
      const { frames, truncatedAt } = read(file.subarray(0, length))
      expect(frames).toHaveLength(1)
      expect(truncatedAt).toBe(43)
    }
  })

  test('refuses other link types: raw NetBSD classes, and Ethernet with a preamble', () => {
    for (const [link, what] of [
      ['01002402', '35913729'],
      ['12010000', '274 (Ethernet with preamble)'],
      ['93000000', '147 (private use)'],
    ]) {
      const file = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000', link)
      expect(() => read(file)).toThrow(`link type ${what} is not Ethernet (1)`)
    }
  })

  test('is not pcap with another magic or less than a header', () => {
    expect(isPcap(unhex('0a0d0d0a', REST_LITTLE))).toBe(false)
    expect(() => read(pcapHeader(1).subarray(0, 23))).toThrow('cut off, at byte 23')
    expect(isPcap(pcapHeader(1).subarray(0, 3))).toBe(false)
    expect(() => read(unhex('0a0d0d0a', REST_LITTLE))).toThrow('no pcap header, at byte 0')
  })

  test('refuses another link type by its number', () => {
    const file = unhex('4d3cb2a1 0200 0400 00000000 00000000 ffff0000 71000000')
    expect(() => read(file)).toThrow(CaptureFormatError)
    expect(() => read(file)).toThrow('link type 113 (Linux cooked) is not Ethernet (1), at byte 20')
  })

  test('refuses a captured length that no frame has', () => {
    const file = unhex('4d3cb2a1', REST_LITTLE, '00000000 00000000 01000001 3c000000')
    expect(() => read(file)).toThrow('captured length 16777217 is not possible, at byte 24')
  })
})
