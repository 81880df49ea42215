/** pcapng blocks as literal bytes, and the reader on files of others: both byte orders, old blocks. */
import { describe, expect, test } from 'vitest'
import { CaptureFormatError } from '../../../src/wire/capture-visitor.ts'
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  readPcapng,
  sectionHeader,
} from '../../../src/wire/pcapng.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const unhex = (...parts: string[]): Uint8Array =>
  new Uint8Array(Buffer.from(parts.join('').replaceAll(' ', ''), 'hex'))
const golden = (...parts: string[]): string => parts.join('').replaceAll(' ', '')

interface Seen {
  readonly frame: string
  readonly originalLength: number
  readonly timestampNs: bigint | null
  readonly interfaceId: number
}

interface Read {
  readonly frames: Seen[]
  /** Where the file was cut off. */
  readonly truncatedAt: number | undefined
}

function read(bytes: Uint8Array): Read {
  const frames: Seen[] = []
  let truncatedAt: number | undefined
  readPcapng(bytes, {
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

function join(...blocks: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(blocks))
}

function failure(bytes: Uint8Array): CaptureFormatError {
  try {
    read(bytes)
  } catch (error) {
    if (error instanceof CaptureFormatError) return error
    throw error
  }
  throw new Error('it was read')
}

// Section header, nothing else; length not given.
const SHB_LITTLE = unhex('0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000')
const SHB_BIG = unhex('0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c')
// Ethernet, snap length 0 (none), no options: microseconds.
const IDB_LITTLE = unhex('01000000 14000000 0100 0000 00000000 14000000')
const IDB_BIG = unhex('00000001 00000014 0001 0000 00000000 00000014')
// One Enhanced Packet Block of 3 bytes at 1 unit, original length 60.
const EPB_LITTLE = unhex(
  '06000000 24000000',
  '00000000 00000000 01000000 03000000 3c000000',
  'aabbcc00',
  '24000000',
)

const FRAME = unhex('020000000002 020000000001 88b5 ff')

describe('emitted blocks', () => {
  test('the section header names the application', () => {
    expect(hex(sectionHeader('framepump'))).toBe(
      golden(
        '0a0d0d0a 30000000', // type, length 48
        '4d3c2b1a 0100 0000', // byte-order magic, version 1.0
        'ffffffffffffffff', // section length not given
        '0400 0900 6672616d6570756d70 000000', // shb_userappl
        '0000 0000', // end of options
        '30000000', // length again
      ),
    )
  })

  test('an interface description has name, description and nanoseconds', () => {
    expect(hex(interfaceDescription('p0', 'x0 (tap)', 262144))).toBe(
      golden(
        '01000000 34000000', // type, length 52
        '0100 0000 00000400', // Ethernet, reserved, snap length
        '0200 0200 7030 0000', // if_name
        '0300 0800 7830202874617029', // if_description
        '0900 0100 09 000000', // if_tsresol 10^-9
        '0000 0000',
        '34000000',
      ),
    )
  })

  test('a frame is padded to four bytes and carries its direction', () => {
    expect(FRAME).toHaveLength(15)
    expect(hex(enhancedPacket(3, 0x17f3_c2b1_a090_8070n, FRAME, 1514, 2))).toBe(
      golden(
        '06000000 3c000000', // type, length 60
        '03000000', // interface
        'b1c2f317 708090a0', // timestamp, high word first
        '0f000000 ea050000', // captured, original length
        '020000000002 020000000001 88b5 ff 00',
        '0200 0400 02000000', // epb_flags: outbound
        '0000 0000',
        '3c000000',
      ),
    )
  })

  test('interface statistics have both times, the frames and the drops', () => {
    expect(hex(interfaceStatistics(1, 0x1_0000_0002n, 0x3_0000_0004n, 5, 2 ** 40))).toBe(
      golden(
        '05000000 4c000000', // type, length 76
        '01000000 03000000 04000000', // interface, timestamp high, low
        '0200 0800 01000000 02000000', // isb_starttime, high word first
        '0300 0800 03000000 04000000', // isb_endtime
        '0400 0800 0500000000000000', // isb_ifrecv
        '0500 0800 0000000000010000', // isb_ifdrop
        '0000 0000',
        '4c000000',
      ),
    )
  })

  test('names are UTF-8', () => {
    // U+00E9 is two bytes: the option is 2 long and padded by 2.
    expect(hex(interfaceDescription('é', '', 1))).toContain(golden('0200 0200 c3a9 0000 0300 0000'))
  })
})

describe('reader', () => {
  test('reads back what the emitters make', () => {
    const file = join(
      sectionHeader('framepump'),
      interfaceDescription('p0', '', 262144),
      interfaceDescription('p1', '', 262144),
      enhancedPacket(0, 1_700_000_000_123_456_789n, FRAME, 15, 1),
      enhancedPacket(1, 1_700_000_000_123_456_790n, FRAME.subarray(0, 14), 1514, 2),
      interfaceStatistics(0, 1n, 2n, 1, 0),
    )
    expect(read(file)).toEqual({
      frames: [
        {
          frame: '02000000000202000000000188b5ff',
          originalLength: 15,
          timestampNs: 1_700_000_000_123_456_789n,
          interfaceId: 0,
        },
        {
          frame: '02000000000202000000000188b5',
          originalLength: 1514,
          timestampNs: 1_700_000_000_123_456_790n,
          interfaceId: 1,
        },
      ],
      truncatedAt: undefined,
    })
  })

  test('tells offsets of the bytes given, also when they are part of a larger buffer', () => {
    const file = join(SHB_LITTLE, IDB_LITTLE, EPB_LITTLE)
    const inside = join(unhex('ffffffffff'), file).subarray(5)
    expect(read(inside).frames[0].frame).toBe('aabbcc')
  })

  test('reads big-endian sections', () => {
    const block = unhex(
      '00000006 00000024',
      '00000000 00000000 00000001 00000003 0000003c',
      'aabbcc00',
      '00000024',
    )
    expect(read(join(SHB_BIG, IDB_BIG, block)).frames).toEqual([
      { frame: 'aabbcc', originalLength: 60, timestampNs: 1000n, interfaceId: 0 },
    ])
  })

  test('starts interfaces and byte order anew with every section', () => {
    const big = unhex(
      '00000006 00000024 00000000 00000000 00000002 00000003 0000003c aabbcc00 00000024',
    )
    const file = join(SHB_LITTLE, IDB_LITTLE, EPB_LITTLE, SHB_BIG, IDB_BIG, big)
    expect(read(file).frames.map((frame) => frame.timestampNs)).toEqual([1000n, 2000n])
    const undescribed = join(SHB_LITTLE, IDB_LITTLE, SHB_BIG, big)
    expect(failure(undescribed).message).toBe('interface 0 was not described, at byte 76')
  })

  // The EPB below is at 3 units; each option block says what a unit is.
  test.each([
    ['no resolution is microseconds', '', 3000n],
    ['10^-9', '0900 0100 09000000', 3n],
    ['10^-3', '0900 0100 03000000', 3_000_000n],
    ['10^0', '0900 0100 00000000', 3_000_000_000n],
    ['10^-12 rounds down', '0900 0100 0c000000', 0n],
    ['2^-1', '0900 0100 81000000', 1_500_000_000n],
    ['2^-30', '0900 0100 9e000000', 2n],
    ['an offset of 5 s', '0e00 0800 0500000000000000', 5_000_003_000n],
    ['an offset of -1 s', '0e00 0800 ffffffffffffffff', -999_997_000n],
    ['after an unknown option', '9900 0300 aabbcc00 0900 0100 09000000', 3n],
    ['not after the end of options', '0000 0000 0900 0100 09000000', 3000n],
    ['not with a wrong length', '0900 0200 09090000', 3000n],
  ])('timestamps: %s', (_name, options, timestampNs) => {
    const body = unhex('0100 0000 00000000', options)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(12 + body.length)
    const description = join(unhex('01000000'), length, body, length)
    const block = unhex(
      '06000000 24000000 00000000 00000000 03000000 03000000 3c000000 aabbcc00 24000000',
    )
    expect(read(join(SHB_LITTLE, description, block)).frames[0].timestampNs).toBe(timestampNs)
  })

  test('reads simple blocks, whose captured length is the smaller of original and snap length', () => {
    const snap4 = unhex('01000000 14000000 0100 0000 04000000 14000000')
    const simple = unhex('03000000 14000000 3c000000 aabbccdd 14000000')
    const short = unhex('03000000 14000000 03000000 aabbcc00 14000000')
    expect(read(join(SHB_LITTLE, snap4, simple, short)).frames).toEqual([
      { frame: 'aabbccdd', originalLength: 60, timestampNs: null, interfaceId: 0 },
      { frame: 'aabbcc', originalLength: 3, timestampNs: null, interfaceId: 0 },
    ])
  })

  test('reads the obsolete packet block, whose interface is 16 bits beside a drop count', () => {
    const old = unhex(
      '02000000 24000000',
      '0100 ffff', // interface 1, drops not known
      '00000000 01000000 03000000 3c000000 aabbcc00',
      '24000000',
    )
    expect(read(join(SHB_LITTLE, IDB_LITTLE, IDB_LITTLE, old)).frames).toEqual([
      { frame: 'aabbcc', originalLength: 60, timestampNs: 1000n, interfaceId: 1 },
    ])
  })

  test.each([
    [
      'an interface',
      join(SHB_LITTLE, unhex('01000000 18000000 0100 0000 00000000 0900 ff00 18000000')),
    ],
    [
      'a frame',
      join(
        SHB_LITTLE,
        IDB_LITTLE,
        unhex('06000000 24000000 00000000 00000000 03000000 00000000 3c000000 0200 0900 24000000'),
      ),
    ],
  ])('refuses an option of %s that leaves its block', (_, file) => {
    expect(failure(file).message).toMatch(/^option (9|2) leaves its block, at byte (28|48)$/)
  })

  test.each([
    ['1.1', '0100 0100'],
    ['2.0', '0200 0000'],
  ])('refuses version %s', (version, bytes) => {
    const file = unhex('0a0d0d0a 1c000000 4d3c2b1a', bytes, 'ffffffffffffffff 1c000000')
    expect(failure(file).message).toBe(`pcapng version ${version} is not 1.0, at byte 0`)
  })

  test('reads version 1.2, whatever length the section says it has', () => {
    for (const length of ['0700000000000000', 'feffffffffffffff', '0000000000000000']) {
      const section = unhex('0a0d0d0a 1c000000 4d3c2b1a 0100 0200', length, '1c000000')
      expect(read(join(section, IDB_LITTLE, EPB_LITTLE)).frames).toHaveLength(1)
    }
  })

  // Six captured bytes of a frame, with the option of the interface and the flags of the frame.
  test.each([
    ['no length of an FCS', '', '', 6, 'aabbccddeeff'],
    ['if_fcslen 4', '0d00 0100 04000000', '', 6, 'aabb'],
    ['if_fcslen 4 of a frame that was cut off', '0d00 0100 04000000', '', 9, 'aabbccddee'],
    ['if_fcslen 4 of a frame whose FCS was cut off', '0d00 0100 04000000', '', 10, 'aabbccddeeff'],
    ['if_fcslen 0', '0d00 0100 00000000', '', 6, 'aabbccddeeff'],
    ['if_fcslen of two bytes', '0d00 0200 04000000', '', 6, 'aabbccddeeff'],
    ['if_fcslen 9, more than there is', '0d00 0100 09000000', '', 6, ''],
    ['epb_flags with 2', '', '0200 0400 41000000', 6, 'aabbccdd'],
    [
      'epb_flags with 2 over if_fcslen 4',
      '0d00 0100 04000000',
      '0200 0400 41000000',
      6,
      'aabbccdd',
    ],
    ['epb_flags with none over if_fcslen 4', '0d00 0100 04000000', '0200 0400 01000000', 6, 'aabb'],
    ['an original that did not count it', '0d00 0100 04000000', '', 2, 'aabb'],
    ['an original that is shorter, without one', '', '', 5, 'aabbccddee'],
  ])('frame check sequence: %s', (_, ofInterface, ofFrame, original, frame) => {
    const block = (type: string, ...parts: string[]): Uint8Array => {
      const body = unhex(...parts)
      const length = Buffer.alloc(4)
      length.writeUInt32LE(12 + body.length)
      return join(unhex(type), length, body, length)
    }
    const length = original.toString(16).padStart(2, '0')
    const file = join(
      SHB_LITTLE,
      block('01000000', '0100 0000 00000000', ofInterface),
      block(
        '06000000',
        '00000000 00000000 01000000 06000000',
        `${length}000000`,
        'aabbccddeeff0000',
        ofFrame,
      ),
    )
    expect(read(file).frames.map((one) => one.frame)).toEqual([frame])
  })

  test('passes over blocks that it does not know', () => {
    const unknown = unhex('bc0b0000 10000000 deadbeef 10000000')
    const empty = unhex('0b000080 0c000000 0c000000')
    const file = join(SHB_LITTLE, unknown, IDB_LITTLE, empty, EPB_LITTLE)
    expect(read(file).frames).toHaveLength(1)
  })

  test('takes a full 32-bit timestamp for unsigned', () => {
    const block = unhex(
      '06000000 24000000 00000000 80000000 ffffffff 03000000 3c000000 aabbcc00 24000000',
    )
    expect(read(join(SHB_LITTLE, IDB_LITTLE, block)).frames[0].timestampNs).toBe(
      0x80_ffff_ffffn * 1000n,
    )
  })

  test('keeps the frames before a block that is cut off, wherever the cut is', () => {
    const whole = join(SHB_LITTLE, IDB_LITTLE, EPB_LITTLE)
    const file = join(whole, EPB_LITTLE)
    for (let length = whole.length + 1; length < file.length; length++) {
      const { frames, truncatedAt } = read(file.subarray(0, length))
      expect(frames).toHaveLength(1)
      expect(truncatedAt).toBe(whole.length)
    }
  })

  test.each([
    ['a file of another kind', unhex('7f454c46 02010100 00000000'), 0, 'section header'],
    ['a wrong byte-order magic', unhex('0a0d0d0a 1c000000 4d3c2b1b'), 0, 'byte-order magic'],
    [
      'a length that is no multiple of 4',
      join(SHB_LITTLE, unhex('06000000 0f000000 00000000')),
      28,
      'block length 15',
    ],
    [
      'a length below 12',
      join(SHB_LITTLE, unhex('06000000 08000000 00000000')),
      28,
      'block length 8',
    ],
    [
      'a length beyond any frame',
      join(SHB_LITTLE, unhex('06000000 00000002 00000000')),
      28,
      'block length 33554432',
    ],
    [
      'two lengths that differ',
      join(SHB_LITTLE, unhex('06000000 0c000000 10000000')),
      28,
      'two lengths',
    ],
    [
      'an interface block without room for a link type',
      join(SHB_LITTLE, unhex('01000000 0c000000 0c000000')),
      28,
      'interface block is too short',
    ],
    [
      'a frame block without room for its fields',
      join(SHB_LITTLE, IDB_LITTLE, unhex('06000000 0c000000 0c000000')),
      48,
      'frame block is too short',
    ],
    [
      'an interface that was not described',
      join(SHB_LITTLE, EPB_LITTLE),
      28,
      'interface 0 was not described',
    ],
    [
      'a captured length that leaves its block',
      join(
        SHB_LITTLE,
        IDB_LITTLE,
        unhex('06000000 24000000 00000000 00000000 01000000 05000000 3c000000 aabbcc00 24000000'),
      ),
      48,
      'captured length 5 leaves the block',
    ],
    [
      'a link type that is not Ethernet',
      join(SHB_LITTLE, unhex('01000000 14000000 7100 0000 00000000 14000000'), EPB_LITTLE),
      48,
      'link type 113 (Linux cooked) is not Ethernet (1)',
    ],
  ])('refuses %s and says where', (_name, file, offset, reason) => {
    const error = failure(file)
    expect(error.offset).toBe(offset)
    expect(error.message).toContain(reason)
    expect(error.message).toContain(`at byte ${offset}`)
  })

  test('does not mind an interface of another link type that no frame came from', () => {
    const other = unhex('01000000 14000000 7100 0000 00000000 14000000')
    expect(read(join(SHB_LITTLE, IDB_LITTLE, other, EPB_LITTLE)).frames).toHaveLength(1)
  })
})
