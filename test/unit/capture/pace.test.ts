/** When frames are due, whatever their times are. */
import { expect, test } from 'vitest'
import { Pace } from '../../../src/capture/pace.ts'

const S = 1_000_000_000n
const NOW = 1_700_000_000n * S

function due(...times: (bigint | null)[]): number[] {
  const pace = new Pace()
  return times.map((time) => pace.dueUs(time))
}

test('is the time since the first frame, to a nanosecond', () => {
  expect(due(NOW, NOW + 1n, NOW + 1500n, NOW + 3n * S)).toEqual([0, 0.001, 1.5, 3e6])
})

test.each([
  ['first', [null, NOW, NOW + S], [0, 0, 1e6]],
  ['in the middle', [NOW, NOW + S, null, NOW + 2n * S], [0, 1e6, 1e6, 2e6]],
  ['everywhere', [null, null], [0, 0]],
])('frames without a time %s wait for nothing', (_, times, expected) => {
  expect(due(...times)).toEqual(expected)
})

test('a little disorder shifts nothing behind it', () => {
  const [a, b, c, d] = [NOW, NOW + 50_000_000n, NOW + 20_000_000n, NOW + S]
  expect(due(a, b, c, d)).toEqual([0, 50_000, 50_000, 1e6])
})

test.each([
  ['back', -3600n],
  ['back to 1970', -1_699_999_999n],
  ['on by years', 100_000_000n],
])('the pace goes on when the clock is set %s', (_, step) => {
  const pace = new Pace()
  const times = [0n, 1n, 2n + step, 3n + step, 4n + step]
  expect(times.map((time) => pace.dueUs(NOW + time * S))).toEqual([0, 1e6, 1e6, 2e6, 3e6])
  expect(pace.steps).toBe(1)
})
