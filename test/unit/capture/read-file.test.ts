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
    expect([...indexCapture(bytes, 'x').dueUs]).toEqual([0, -4])
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
    for (const text of ['hello, this is no capture at all', 'hello']) {
      const error = failure(new TextEncoder().encode(text))
      expect(error.message).toBe('x.pcapng: does not start with a section header, at byte 0')
    }
  })
})
