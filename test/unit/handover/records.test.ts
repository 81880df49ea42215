/** The stream of a hand-over: what is written is read, and nothing else is. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { HandOverRecord, Section } from '../../../src/handover/records.ts'
import {
  encodeRecord,
  FD_BYTE,
  FDS_MAX,
  FDS_PER_MESSAGE_MAX,
  PAYLOAD_LENGTH_MAX,
  RecordReader,
  splitFds,
} from '../../../src/handover/records.ts'

interface Piece {
  readonly bytes: Uint8Array
  readonly fds: readonly number[]
}

/** As it is sent. */
function pieces(section: Section, data: unknown, fds: readonly number[] = []): Piece[] {
  const bytes = encodeRecord(section, data, fds.length)
  return [
    { bytes, fds: [] },
    ...splitFds(fds).map((part) => ({ bytes: Uint8Array.of(FD_BYTE), fds: part })),
  ]
}

/** Feeds what it wants, at most `step` bytes at a time. */
function feed(reader: RecordReader, sent: readonly Piece[], step = 1 << 30): HandOverRecord[] {
  const records: HandOverRecord[] = []
  for (const { bytes, fds } of sent) {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + Math.min(reader.wanted, step))
      const record = reader.push(part, at === 0 ? fds : [], false)
      if (record !== undefined) records.push(record)
      at += part.length
    }
  }
  return records
}

const makeReader = (): RecordReader => new RecordReader('1.1.0')
const numbers = (count: number): number[] => Array.from({ length: count }, (_, k) => 1000 + k)

/** The bytes of a record that says anything. */
function spelt(text: string, fdCount = 0, magic = 0x4f48_5046): Uint8Array {
  const payload = Buffer.from(text)
  const bytes = new Uint8Array(12 + payload.length)
  const view = new DataView(bytes.buffer)
  ;[magic, payload.length, fdCount].forEach((value, k) => view.setUint32(4 * k, value, true))
  bytes.set(payload, 12)
  return bytes
}

test('a record is read as it was written, in whatever pieces it comes', () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.integer({ min: 0, max: 600 }),
      fc.integer({ min: 1, max: 64 }),
      (data, count, step) => {
        const fds = numbers(count)
        const [record, ...more] = feed(makeReader(), pieces('port', data, fds), step)
        expect(more).toEqual([])
        expect(record).toEqual({
          section: 'port',
          data: JSON.parse(JSON.stringify(data)),
          fds,
        })
      },
    ),
    { numRuns: 100 },
  )
})

test('H10: descriptors go 253 to a message, in their order', () => {
  expect(splitFds(numbers(600)).map((part) => part.length)).toEqual([253, 253, 94])
  expect(splitFds(numbers(600)).flat()).toEqual(numbers(600))
  expect(FDS_PER_MESSAGE_MAX).toBe(253)
})

describe('what is no record is refused', () => {
  const rows: readonly [string, readonly Piece[], string][] = [
    ['other bytes', [{ bytes: spelt('{}', 0, 1), fds: [] }], 'no hand-over of framepump'],
    ['no JSON', [{ bytes: spelt('{'), fds: [] }], 'a record is not JSON'],
    ['no section', [{ bytes: spelt('{}'), fds: [] }], 'no section or no version'],
    ['null', [{ bytes: spelt('null'), fds: [] }], 'no section or no version'],
    [
      'a newer section',
      [{ bytes: spelt('{"section":"port","version":9}'), fds: [] }],
      'section "port" version 9 of framepump 2.0.0: framepump 1.1.0 reads version 1',
    ],
    [
      'an unknown one',
      [{ bytes: spelt('{"section":"toString","version":1}'), fds: [] }],
      'section "toString" version 1 of framepump 2.0.0: framepump 1.1.0 does not know it',
    ],
    ['nothing', [{ bytes: spelt(''), fds: [] }], 'a record of 0 bytes'],
    ['too many descriptors', [{ bytes: spelt('{}', FDS_MAX + 1), fds: [] }], '4097 descriptors'],
    [
      'descriptors with its header',
      [{ bytes: encodeRecord('ready', {}, 0), fds: [7] }],
      '1 descriptors came where none belong',
    ],
    [
      'H2: a channel that drops descriptors',
      [
        { bytes: encodeRecord('hello', {}, 1), fds: [] },
        { bytes: Uint8Array.of(FD_BYTE), fds: [] },
      ],
      '1 descriptors should have come, and 0 did',
    ],
    [
      'more than were announced',
      [
        { bytes: encodeRecord('port', {}, 1), fds: [] },
        { bytes: Uint8Array.of(FD_BYTE), fds: [7, 8] },
      ],
      '1 descriptors should have come, and 2 did',
    ],
  ]
  test.for(rows)('%s', ([, sent, why]) => {
    const reader = makeReader()
    reader.peerRelease = '2.0.0'
    expect(() => feed(reader, sent)).toThrow(
      expect.objectContaining({ code: 'HAND_OVER_CHANNEL', message: expect.stringContaining(why) }),
    )
    // None is lost sight of: whoever reads closes them.
    expect(reader.takeFds()).toEqual(sent.flatMap(({ fds }) => fds))
  })

  test('H10: descriptors that the kernel had no room for (MSG_CTRUNC)', () => {
    const reader = makeReader()
    expect(() => reader.push(Uint8Array.of(FD_BYTE), [3], true)).toThrow('MSG_CTRUNC')
    expect(reader.takeFds()).toEqual([3])
  })
})

test('nothing that comes makes it do anything but read on or throw, and every descriptor is accounted for', () => {
  const garbage = fc.array(
    fc.record({
      bytes: fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc.json().map((text) => spelt(text)),
        fc.nat(3).map((count) => encodeRecord('port', { id: 'a' }, count)),
        fc.constant(Uint8Array.of(FD_BYTE)),
      ),
      fds: fc.array(fc.nat(100), { maxLength: 3 }),
    }),
    { maxLength: 6 },
  )
  fc.assert(
    fc.property(garbage, (sent) => {
      const reader = makeReader()
      const given: number[] = []
      const taken: number[] = []
      try {
        for (const { bytes, fds } of sent) {
          for (let at = 0; at < bytes.length;) {
            const part = bytes.subarray(at, at + reader.wanted)
            if (at === 0) given.push(...fds)
            const record = reader.push(part, at === 0 ? fds : [], false)
            if (record !== undefined) taken.push(...record.fds)
            at += part.length
          }
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'HAND_OVER_CHANNEL' })
      }
      expect([...taken, ...reader.takeFds()]).toEqual(given)
    }),
    { numRuns: 500 },
  )
})

test('what is too long is not sent', () => {
  expect(() => encodeRecord('switch', 'x'.repeat(PAYLOAD_LENGTH_MAX), 0)).toThrow(
    'section "switch" is too long to be sent',
  )
  expect(() => encodeRecord('port', {}, FDS_MAX + 1)).toThrow('4097 descriptors')
})
