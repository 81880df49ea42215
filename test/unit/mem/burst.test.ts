/** The parallel arrays of a burst. */
import { expect, test } from 'vitest'
import { Burst, BURST_SIZE_MAX, HEAD_WORDS } from '../../../src/mem/burst.ts'

test('an empty burst has room for the most frames in every array', () => {
  const { count, heads, ...arrays } = new Burst()
  expect(count).toBe(0)
  expect(HEAD_WORDS * 4).toBe(16)
  expect(heads).toHaveLength(BURST_SIZE_MAX * HEAD_WORDS)
  expect(Object.keys(arrays).toSorted()).toEqual([
    'csumOffset',
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
