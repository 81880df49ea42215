/** The choice of a tier: what is forced is taken, `auto` takes the cheaper one of those there are. */
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { chooseWay } from '../../../src/io/choice.ts'
import { measureWays } from '../../../src/io/measure.ts'
import { chooseTier, probe } from '../../../src/io/probe.ts'

test('a forced tier is taken without a reason', () => {
  for (const name of ['read-write', 'io_uring-multishot'] as const) {
    const choice = chooseTier(name)
    expect([choice.name, choice.reason]).toEqual([name, undefined])
  }
  expect(chooseTier('io_uring-multishot').usesAio).toBe(false)
})

test('both tiers are found, each with what frames cost', () => {
  const { tiers } = probe()
  expect(tiers.map(({ name }) => name)).toEqual(['io_uring-multishot', 'read-write'])
  for (const { reason, costs } of tiers) {
    expect(reason).toBeUndefined()
    expect(costs!.shortNs).toBeGreaterThan(100)
    // They are copied twice.
    expect(costs!.longNs).toBeGreaterThan(costs!.shortNs)
    expect(costs!.longNs).toBeLessThan(10_000_000)
  }
})

test('auto says why it is not io_uring, with what both cost', () => {
  const { auto, why, tiers, isAioWorth } = probe()
  expect(why).toMatch(/^io_uring (saves|takes) .*\d % .* a frame$/)
  if (auto.name === 'io_uring-multishot') {
    expect([auto.reason, auto.usesAio]).toEqual([undefined, false])
  } else {
    expect(auto.usesAio).toBe(isAioWorth)
    const figures = tiers.map(({ costs }) => (costs!.shortNs / 1000).toFixed(2))
    expect(auto.reason).toMatch(new RegExp(`^${why}: ${figures[0]} and .*${figures[1]} and `))
  }
})

test('every way is measured, and nothing of it is left open', () => {
  const fds = readdirSync('/proc/self/fd').length
  const costs = measureWays(['io_uring', 'aio', 'calls'])
  expect(readdirSync('/proc/self/fd').length).toBe(fds)
  expect(Object.keys(costs)).toEqual(['io_uring', 'aio', 'calls'])
  for (const { shortNs, longNs } of Object.values(costs)) {
    expect(Number.isFinite(shortNs + longNs)).toBe(true)
  }
  expect(measureWays([])).toEqual({})
  expect(chooseWay(costs).way).toBeTypeOf('string')
})
