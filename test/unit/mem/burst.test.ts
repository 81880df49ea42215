/** The parallel arrays of a burst. */
import { expect, test } from 'vitest'
import { Burst, BURST_SIZE_MAX, FURTHER_MAX, HEAD_WORDS } from '../../../src/mem/burst.ts'

test('an empty burst has room for the most frames in every array', () => {
  const { count, heads, furtherTotal, hasOffloads, ...rest } = new Burst()
  const { furtherWindow, furtherOffset, furtherLength, ...arrays } = rest
  expect([count, furtherTotal, hasOffloads]).toEqual([0, 0, false])
  for (const array of [furtherWindow, furtherOffset, furtherLength]) {
    expect(array).toBeInstanceOf(Int32Array)
    expect(array).toHaveLength(FURTHER_MAX)
  }
  expect(HEAD_WORDS * 4).toBe(16)
  expect(heads).toHaveLength(BURST_SIZE_MAX * HEAD_WORDS)
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
