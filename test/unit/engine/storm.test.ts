/** Storm control: what of a burst is flooded. */
import { expect, test } from 'vitest'
import { STORM_BROADCAST, StormControl } from '../../../src/engine/storm.ts'
import { Burst } from '../../../src/mem/burst.ts'

const GSO_TCPV4 = 1
const HEADERS = 54
const MSS = 1000

/** Frames of so many segments each; 1: a plain one. */
function burstOf(...segments: readonly number[]): Burst {
  const burst = new Burst()
  burst.clear()
  segments.forEach((count, k) => {
    burst.length[k] = HEADERS + count * MSS
    if (count === 1) return
    burst.hasOffloads = true
    burst.gso[k] = (GSO_TCPV4 << 8) | (HEADERS << 16)
    burst.gsoSize[k] = MSS
  })
  burst.count = segments.length
  return burst
}

function stormOf(rate: number): {
  admit: (...segments: number[]) => number
  wait: (s: number) => void
} {
  const time = new Float64Array(2)
  const storm = new StormControl(time)
  time[0] = 1e6
  storm.set(3, [rate, 0, 0])
  return {
    admit: (...segments) =>
      storm.admit(3, STORM_BROADCAST, burstOf(...segments), 0, segments.length),
    wait: (s) => void (time[0] += s * 1e6),
  }
}

test('P5: a frame in segments counts as these, and may take what is to come', () => {
  const { admit, wait } = stormOf(100)
  expect(admit(...Array.from({ length: 10 }, () => 4))).toBe(8)
  expect(admit(1)).toBe(0)
  wait(1)
  // The bucket holds 32; of the second the rest is owed, and paid back however long that takes.
  expect(admit(31, 60, 1)).toBe(2)
  wait(0.5)
  expect(admit(1, 1)).toBe(0)
  wait(0.1)
  expect(admit(1, 2)).toBe(1)
  wait(100)
  expect(admit(1000, 1)).toBe(1)
  wait(9)
  expect(admit(1)).toBe(0)
  wait(1)
  expect(admit(...Array.from({ length: 40 }, () => 1))).toBe(32)
})

test('P5: over a long time no more segments pass than the rate says, and plain frames as before', () => {
  const { admit, wait } = stormOf(1000)
  let segments = 0
  for (let tick = 0; tick < 1000; tick++) {
    segments += 45 * admit(...Array.from({ length: 20 }, () => 45))
    wait(0.01)
  }
  expect(segments).toBeGreaterThan(10_000 - 100)
  expect(segments).toBeLessThan(10_000 + 100 + 45)
  const plain = stormOf(1000)
  expect(plain.admit(...Array.from({ length: 200 }, () => 1))).toBe(100)
})

test('P5: a storm is over when its limit is another one, or none; of a port that is gone nothing is told', () => {
  const storm = new StormControl(Float64Array.of(1e6, 0))
  const broadcast = { port: 3, kind: STORM_BROADCAST }
  const begin = (rate: number): void => {
    storm.set(3, [rate, 0, 0])
    storm.admit(3, STORM_BROADCAST, burstOf(...Array<number>(60).fill(1)), 0, 60)
    expect(storm.look()).toEqual([{ ...broadcast, isStorm: true, dropped: 28 }])
  }
  begin(100)
  storm.admit(3, STORM_BROADCAST, burstOf(1, 1), 0, 2)
  storm.set(3, [200, 0, 0])
  expect(storm.look()).toEqual([{ ...broadcast, isStorm: false, dropped: 30 }])
  begin(100)
  storm.set(3, null)
  expect([storm.look(), storm.look()]).toEqual([
    [{ ...broadcast, isStorm: false, dropped: 28 }],
    [],
  ])
  begin(100)
  storm.set(3, null)
  storm.clear(3)
  expect(storm.look()).toEqual([])
})
