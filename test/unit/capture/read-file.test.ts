/** The index of a capture file: places, lengths and due times of its frames. */
import { describe, expect, test } from 'vitest'
import { indexCapture } from '../../../src/capture/read-file.ts'
import { ConfigError } from '../../../src/errors.ts'
import { pcapHeader } from '../../../src/wire/pcap.ts'
import { enhancedPacket, interfaceDescription, sectionHeader } from '../../../src/wire/pcapng.ts'

const START_NS = 1_700_000_000_000_000_000n

function frame(length: number, fill: number): Uint8Array {
  return new Uint8Array(length).fill(fill)
}

function pcapng(...frames: [afterNs: bigint, bytes: Uint8Array][]): Uint8Array {
  return new Uint8Array(
    Buffer.concat([
      sectionHeader('test'),
      interfaceDescription('p0', '', 262144),
      ...frames.map(([after, bytes]) =>
        enhancedPacket(0, START_NS + after, bytes, bytes.length, 1),
      ),
    ]),
  )
}

function pcap(...frames: [afterNs: number, bytes: Uint8Array][]): Uint8Array {
  const parts: Uint8Array[] = [pcapHeader(262144)]
  for (const [after, bytes] of frames) {
    const record = Buffer.alloc(16)
    record.writeUInt32LE(1_700_000_000, 0)
    record.writeUInt32LE(after, 4)
    record.writeUInt32LE(bytes.length, 8)
    record.writeUInt32LE(bytes.length, 12)
    parts.push(record, bytes)
  }
  return new Uint8Array(Buffer.concat(parts))
}

function failure(bytes: Uint8Array): ConfigError {
  try {
    indexCapture(bytes, 'x.pcapng')
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('it was read')
}

describe('indexCapture', () => {
  test.each([
    ['pcapng', pcapng([0n, frame(60, 1)], [1500n, frame(1514, 2)], [2_000_000n, frame(14, 3)])],
    ['pcap', pcap([0, frame(60, 1)], [1500, frame(1514, 2)], [2_000_000, frame(14, 3)])],
  ])('tells where the frames of a %s file lie and when they are due', (_format, bytes) => {
    const index = indexCapture(bytes, 'x')
    expect(index).toMatchObject({ count: 3, skipped: 0, isTruncated: false })
    expect([...index.length]).toEqual([60, 1514, 14])
    expect([...index.dueUs]).toEqual([0, 1.5, 2000])
    for (let k = 0; k < 3; k++) {
      const at = index.offset[k]
      expect(bytes.subarray(at, at + index.length[k])).toEqual(frame(index.length[k], k + 1))
    }
  })

  test('skips and counts frames that cannot be sent; the pace starts at the first that can', () => {
    const bytes = pcapng(
      [0n, frame(13, 1)],
      [1000n, frame(14, 2)],
      [2000n, frame(65557, 3)],
      [3000n, frame(65558, 4)],
    )
    const index = indexCapture(bytes, 'x')
    expect(index).toMatchObject({ count: 2, skipped: 2 })
    expect([...index.length]).toEqual([14, 65557])
    expect([...index.dueUs]).toEqual([0, 1])
  })

  test('keeps the order of the file when its times go back', () => {
    const bytes = pcapng([5000n, frame(60, 1)], [1000n, frame(60, 2)])
    expect([...indexCapture(bytes, 'x').dueUs]).toEqual([0, 0])
  })

  test.each([
    ['pcapng', pcapng([0n, frame(60, 1)], [1n, frame(60, 2)])],
    ['pcap', pcap([0, frame(60, 1)], [1, frame(60, 2)])],
  ])('keeps what came before the end of a %s file that is cut off', (_format, bytes) => {
    const index = indexCapture(bytes.subarray(0, bytes.length - 1), 'x')
    expect(index).toMatchObject({ count: 1, isTruncated: true })
  })

  test('reads a file without frames', () => {
    expect(indexCapture(pcapng(), 'x')).toMatchObject({ count: 0, isTruncated: false })
  })

  test('an error names the file, the place and what was expected', () => {
    const bytes = pcapng([0n, frame(60, 1)])
    // The length of the frame's block.
    const at = sectionHeader('test').length + interfaceDescription('p0', '', 1).length
    bytes[at + 4] = 7
    const error = failure(bytes)
    expect(error.code).toBe('CAPTURE_FORMAT')
    expect(error.message).toBe(`x.pcapng: block length 7 is not possible, at byte ${at}`)
    expect(error.hint).toContain('pcap or pcapng')
  })

  test('a file of another kind is an error', () => {
    const error = failure(Uint8Array.of(1, 2, 3, 4, 5))
    expect(error.message).toBe('x.pcapng: does not start with a section header, at byte 0')
  })

  test.each([
    ['hello, this is not a capture at all', 'text', 'text2pcap'],
    ['snoop\0\0\0\0\0\0\u0002', 'a snoop capture', 'editcap'],
    ['BZh91AY', 'compressed with bzip2', 'bzip2 -d'],
    ['\u001c\0\u0001\u00ac0000', 'a pcap file in the format of Ixia', 'editcap'],
    ['\u00ac\u0001\0\u001c0000', 'a pcap file in the format of Ixia', 'editcap'],
    ['(\u00b5/\u00fd0000', 'compressed with zstd', 'zstd -d'],
  ])('%j is named', (text, name, hint) => {
    const error = failure(new Uint8Array(Buffer.from(text, 'latin1')))
    expect(error.code).toBe('CAPTURE_FORMAT')
    expect(error.message).toBe(`x.pcapng: is ${name}, not a pcap or pcapng file`)
    expect(error.hint).toContain(hint)
  })

  test('what is not replayed as it was is noted', () => {
    const cut = enhancedPacket(0, START_NS, frame(60, 1), 90, 1)
    const overlong = enhancedPacket(0, START_NS, frame(60, 2), 50, 1)
    const back = enhancedPacket(0, 1n, frame(60, 3), 60, 1)
    const bytes = new Uint8Array(Buffer.concat([pcapng(), cut, overlong, back]))
    const index = indexCapture(bytes.subarray(0, bytes.length), 'x')
    expect([...index.length]).toEqual([60, 50, 60])
    expect(index.notes).toEqual([
      '1 frames were cut off when they were captured: replayed so',
      '1 frames have bytes beyond their length: left out',
      'its clock was set 1 times: the pace goes on from there',
    ])
    expect(indexCapture(pcapng([0n, frame(60, 1)]), 'x').notes).toEqual([])
  })
})
