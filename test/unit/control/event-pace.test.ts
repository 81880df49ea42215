/** How often clients are told of the same thing. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { EventPace } from '../../../src/control/event-pace.ts'

let told: number[]
let pace: EventPace<number>

beforeEach(() => {
  vi.useFakeTimers()
  told = []
  pace = new EventPace((said) => told.push(said))
})
afterEach(() => {
  pace.close()
  vi.useRealTimers()
})

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

test('sixteen at once, then ten a second, and the last in the end', () => {
  for (let n = 0; n < 20; n++) pace.say('a', n)
  expect(told).toEqual(upTo(16))
  vi.advanceTimersByTime(99)
  expect(told).toHaveLength(16)
  vi.advanceTimersByTime(1)
  expect(told).toEqual([...upTo(16), 19])
  for (let ms = 0; ms < 1000; ms++) {
    pace.say('a', 100 + ms)
    vi.advanceTimersByTime(1)
  }
  expect(told.length).toBeGreaterThanOrEqual(17 + 9)
  expect(told.length).toBeLessThanOrEqual(17 + 10)
  vi.advanceTimersByTime(100)
  expect(told.at(-1)).toBe(1099)
  vi.advanceTimersByTime(60_000)
  told.length = 0
  for (let n = 0; n < 20; n++) pace.say('a', n)
  expect(told).toEqual(upTo(16))
})

test('each thing has its own, and none when it is gone', () => {
  for (let n = 0; n < 20; n++) pace.say('a', n)
  pace.say('b', 50)
  expect(told.at(-1)).toBe(50)
  pace.forget('a')
  vi.advanceTimersByTime(10_000)
  expect(told.at(-1)).toBe(50)
  pace.say('a', 60)
  expect(told.at(-1)).toBe(60)
})

test('nothing is told after the end, and no timer is left', () => {
  for (let n = 0; n < 20; n++) pace.say('a', n)
  pace.close()
  expect(vi.getTimerCount()).toBe(0)
  expect(told).toHaveLength(16)
})
