/** The headers of copies to other hosts, byte by byte. */
import { expect, test } from 'vitest'
import { ErspanHeaderWriter } from '../../../../src/port/erspan/header.ts'
import type { ErspanHeader } from '../../../../src/port/erspan/messages.ts'

const HEADER: ErspanHeader = {
  version: 1,
  sessionId: 0x155,
  index: 0xabcde,
  isEgress: true,
  hardwareId: 0x2a,
  key: -1,
}
/** 0x8100, PCP 5, DEI 1, VID 0xabc, as a word of `heads`. */
const TAG: number = 0xbcba_0081 | 0

function written(header: Partial<ErspanHeader>, tag: number, isTruncated = false, sequence = 7) {
  const bytes = new Uint8Array(64)
  const writer = new ErspanHeaderWriter({ ...HEADER, ...header }, sequence, bytes)
  writer.setTime(1_800_000_000, 123_456_789)
  writer.write(8, tag, isTruncated)
  const hex = Buffer.from(bytes.subarray(8, 8 + writer.length)).toString('hex')
  expect(Buffer.from(bytes.subarray(8 + writer.length)).every((byte) => byte === 0)).toBe(true)
  return { hex, sequence: writer.sequence }
}

test('M7: type II: S, 0x88be, sequence; version 1, VLAN, COS, En, T, session; index', () => {
  expect(written({}, 0).hex).toBe('100088be0000000710000155000abcde')
  // VID 0xabc; COS 5, En 3.
  expect(written({}, TAG).hex).toBe('100088be000000071abcb955000abcde')
  expect(written({}, 0, true).hex).toBe('100088be0000000710000555000abcde')
})

test('M7: a key stands before the sequence number, which wraps', () => {
  const { hex, sequence } = written({ key: 0xfedc_ba98 }, 0, false, 0xffff_ffff)
  expect(hex).toBe('300088befedcba98ffffffff10000155000abcde')
  expect(sequence).toBe(0)
})

test('M7: type III: 0x22eb; version 2, no En; time in 100 us; P, Hw, D, Gra 0', () => {
  const ticks = ((1_800_000_000 * 10_000 + 1234) % 2 ** 32).toString(16).padStart(8, '0')
  const { hex } = written({ version: 2 }, TAG, true)
  expect(hex).toBe(`100022eb000000072abca555${ticks}000082a8`)
  expect(written({ version: 2, isEgress: false }, 0).hex.slice(-4)).toBe('82a0')
})
