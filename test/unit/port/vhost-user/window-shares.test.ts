/** Who may have how many windows: whatever guests take, every other port finds its own. */
import { describe, expect, test } from 'vitest'
import { whileTrue } from '../../../support/bounded.ts'
import { WINDOWS_MAX } from '../../../../src/mem/window.ts'
import { PORTS_MAX } from '../../../../src/port/contract.ts'
import {
  HOST_WINDOWS,
  PORT_WINDOWS_MAX,
  PORT_WINDOWS_MIN,
  WindowBudget,
  WindowPool,
  windowShares,
} from '../../../../src/port/vhost-user/window-shares.ts'

const greedy = (pool: WindowPool): number => {
  const budget = new WindowBudget(pool)
  let count = 0
  whileTrue('windows', () => budget.take() && ++count > 0)
  return count
}

describe('shares', () => {
  test('with the kernel’s own limit', () => {
    expect(windowShares(65530)).toMatchObject({ least: PORT_WINDOWS_MIN, most: PORT_WINDOWS_MAX })
  })

  test.each([0, 1, 1000, 4096, 8192, 20_000, 65530, 262_144, 2 ** 31])(
    'with %i mappings they are never more than there are, and ports are left half of them',
    (mappings) => {
      const { least, most, shared } = windowShares(mappings)
      const windows = Math.min(WINDOWS_MAX, mappings / 2)
      expect(least * PORTS_MAX + shared).toBeLessThanOrEqual(Math.max(0, windows - HOST_WINDOWS))
      expect(least).toBeGreaterThanOrEqual(0)
      expect(most).toBeGreaterThanOrEqual(least)
      expect(shared).toBeGreaterThanOrEqual(0)
    },
  )

  test.each([8192, 65530])('with %i mappings 8 greedy ports leave some that are shared', (most) => {
    const pool = new WindowPool(windowShares(most))
    for (let port = 0; port < 8; port++) expect(greedy(pool)).toBe(pool.shares.most)
    expect(greedy(pool)).toBe(pool.shares.most)
  })

  test('when all that is shared is taken every port still has its least', () => {
    const pool = new WindowPool({ least: 3, most: 10, shared: 20 })
    expect(greedy(pool)).toBe(10)
    expect(greedy(pool)).toBe(10)
    expect(greedy(pool)).toBe(9)
    expect(greedy(pool)).toBe(3)
    expect(greedy(pool)).toBe(3)
  })

  test('what is given back can be taken by others', () => {
    const pool = new WindowPool({ least: 2, most: 8, shared: 6 })
    const budget = new WindowBudget(pool)
    for (let n = 0; n < 8; n++) expect(budget.take()).toBe(true)
    expect(budget.take()).toBe(false)
    expect(greedy(pool)).toBe(2)
    budget.giveBack(5)
    expect(greedy(pool)).toBe(7)
    budget.giveBack(3)
    expect(greedy(pool)).toBe(3)
  })
})
