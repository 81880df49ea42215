/** The parallel arrays of a burst. */
import { expect, test } from 'vitest'
import {
  Burst,
  BURST_SIZE_MAX,
  FURTHER_MAX,
  HEAD_WORDS,
  SEGMENTS_MAX,
} from '../../../src/mem/burst.ts'
import { Window } from '../../../src/mem/window.ts'
import { HEADERS_MAX } from '../../../src/wire/headers.ts'

const NO_LIMIT = 0x7fff_ffff

test('an empty burst has room for the most frames in every array', () => {
  const { count, heads, inners, headers, furtherTotal, hasOffloads, ...rest } = new Burst()
  const { furtherWindow, furtherOffset, furtherLength, ...others } = rest
  const { framesMax, bytesMax, descriptorsMax, segmentsMax, ...more } = others
  const { descriptors, ownLength, isOneRun, hasOneInner, ...arrays } = more
  expect([framesMax, bytesMax, descriptorsMax]).toEqual([BURST_SIZE_MAX, NO_LIMIT, NO_LIMIT])
  expect([descriptors, segmentsMax]).toEqual([0, SEGMENTS_MAX])
  expect([count, furtherTotal, hasOffloads, ownLength, isOneRun, hasOneInner]).toEqual([
    0,
    0,
    false,
    0,
    false,
    false,
  ])
  expect(headers.bytes).toHaveLength(BURST_SIZE_MAX * HEADERS_MAX)
  for (const array of [furtherWindow, furtherOffset, furtherLength]) {
    expect(array).toBeInstanceOf(Int32Array)
    // With those of frames that are kept.
    expect(array).toHaveLength(2 * FURTHER_MAX + BURST_SIZE_MAX)
  }
  expect(HEAD_WORDS * 4).toBe(16)
  expect(heads).toHaveLength(BURST_SIZE_MAX * HEAD_WORDS)
  expect(inners).toHaveLength(BURST_SIZE_MAX * HEAD_WORDS)
  expect(Object.keys(arrays).toSorted()).toEqual([
    'csumOffset',
    'firstLength',
    'furtherCount',
    'furtherFirst',
    'gso',
    'gsoSize',
    'headLength',
    'length',
    'needs',
    'offset',
    'tunnel',
    'window',
  ])
  for (const array of Object.values(arrays)) {
    expect(array).toBeInstanceOf(Int32Array)
    expect(array).toHaveLength(BURST_SIZE_MAX)
  }
})

test('bursts share nothing', () => {
  const [first, second] = [new Burst(), new Burst()]
  first.length[0] = 60
  first.heads[0] = -1
  expect([second.length[0], second.heads[0]]).toEqual([0, 0])
})

test('heads are read from where the frames lie', () => {
  const burst = new Burst()
  const window = Window.map(4096)
  new Uint8Array(window.buffer).forEach((_, at, bytes) => (bytes[at] = at & 0xff))
  for (const [k, offset] of [3, 100, 4096 - 14].entries()) {
    burst.window[k] = window.id
    burst.offset[k] = offset
  }
  burst.count = 3
  burst.gatherHeads()
  const heads = [...new Uint8Array(burst.heads.buffer, burst.heads.byteOffset, 48)]
  const bytes = (from: number, count: number): number[] =>
    Array.from({ length: count }, (_, at) => (from + at) & 0xff)
  expect(heads).toEqual([...bytes(3, 16), ...bytes(100, 16), ...bytes(4082, 14), 0, 0])
  const innersOf = (): number[] => [0, 1, 2].map((k) => burst.inners[k * HEAD_WORDS])
  const word = (from: number): number => Buffer.from(bytes(from, 4)).readInt32LE()
  burst.readInners()
  expect(innersOf()).toEqual([word(19), word(116), 0])
  // Once: what is written there afterwards is not seen before the next burst.
  new Uint8Array(window.buffer).fill(7)
  burst.readInners()
  expect(innersOf()).toEqual([word(19), word(116), 0])
  burst.take(burst, 1, 0)
  expect(innersOf()[0]).toBe(word(116))
  burst.offset[1] = 4097
  expect(() => burst.gatherHeads()).toThrow(RangeError)
  burst.close()
  window.unmap()
})

test('what vnet_hdrs said is forgotten when the next burst has none', () => {
  const burst = new Burst()
  burst.hasOffloads = true
  const columns = [burst.gso, burst.gsoSize, burst.csumOffset, burst.needs]
  for (const column of columns) column.fill(1)
  burst.clearOffloads()
  expect(burst.hasOffloads).toBe(false)
  expect(columns.every((column) => column.every((value) => value === 0))).toBe(true)
  burst.close()
})
