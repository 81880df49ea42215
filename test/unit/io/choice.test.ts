/** Which way frames take, by figures of machines of several kinds. */
import { describe, expect, test } from 'vitest'
import { chooseWay, inMicroseconds, readWriteWay } from '../../../src/io/choice.ts'
import type { FrameCosts } from '../../../src/io/measure.ts'

const costs = (shortNs: number, longNs: number): FrameCosts => ({ shortNs, longNs })
const BROKEN = costs(Infinity, Infinity)

describe('of the ways of the tier read-write', () => {
  test.each([
    ['calls where a call takes 0.1 us', costs(1500, 9000), costs(1200, 9000), 'calls'],
    ['calls where AIO saves nothing', costs(2880, 12_500), costs(2900, 12_500), 'calls'],
    ['AIO where a call takes 0.7 us', costs(2640, 13_600), costs(3400, 14_000), 'aio'],
    ['AIO where a call takes 1.7 us', costs(2760, 16_000), costs(5500, 16_000), 'aio'],
    ['calls where AIO does not work', BROKEN, costs(5500, 16_000), 'calls'],
  ] as const)('%s', (_, aio, calls, way) => {
    expect(readWriteWay({ aio, calls })).toBe(way)
  })

  test('calls when there is no AIO', () => {
    expect(readWriteWay({ calls: costs(1, 1) })).toBe('calls')
  })
})

describe('of all ways', () => {
  test.each([
    ['read-write where a call takes 0.1 us', [1300, 10_000], [1500, 9000], [1150, 8500], 'calls'],
    ['io_uring where it saves time', [2400, 14_000], [2640, 12_500], [2900, 12_500], 'io_uring'],
    ['io_uring where it is as good', [2600, 14_000], [2640, 12_500], [2900, 12_500], 'io_uring'],
    ['AIO where it is clearly better', [4000, 20_000], [2640, 13_000], [5900, 16_000], 'aio'],
    ['io_uring where calls are dear', [2400, 15_600], [2700, 15_600], [5500, 16_000], 'io_uring'],
    ['read-write for long frames alone', [2000, 30_000], [9000, 15_000], [2000, 15_000], 'calls'],
  ] as const)('%s', (_, uring, aio, calls, way) => {
    const choice = chooseWay({
      io_uring: costs(uring[0], uring[1]),
      aio: costs(aio[0], aio[1]),
      calls: costs(calls[0], calls[1]),
    })
    expect(choice.way).toBe(way)
    expect(choice.name).toBe(way === 'io_uring' ? 'io_uring-multishot' : 'read-write')
  })

  test('it says how much they differ', () => {
    const why = (shortNs: number): string =>
      chooseWay({ io_uring: costs(shortNs, 10_000), calls: costs(2000, 10_000) }).why
    expect(why(1000)).toBe('io_uring saves 41 % of the time of a frame')
    expect(why(2100)).toBe('io_uring takes no more than 4 % more time a frame')
    expect(why(4000)).toBe('io_uring takes 68 % more time a frame')
  })

  test('what does not work, or could not be measured, is not taken', () => {
    const good = costs(2000, 10_000)
    expect(chooseWay({ calls: good }).way).toBe('calls')
    expect(chooseWay({ io_uring: good }).way).toBe('io_uring')
    expect(chooseWay({ io_uring: BROKEN, aio: good, calls: BROKEN }).way).toBe('aio')
    expect(chooseWay({ io_uring: good, aio: BROKEN, calls: BROKEN }).way).toBe('io_uring')
    expect(chooseWay({ io_uring: BROKEN, calls: good }).why).toBe('the other tier does not work')
    expect(chooseWay({}).way).toBe('calls')
  })
})

test('figures are told in microseconds', () => {
  expect(inMicroseconds(costs(954, 14_230))).toBe('0.95 and 14.2 us')
})
