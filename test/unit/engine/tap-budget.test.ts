/** How many frames the TAPs may have in a turn: as many as there are, until they are dear. */
import { beforeEach, expect, test } from 'vitest'
import { TapBudget, TURN_NS } from '../../../src/engine/tap-budget.ts'
import type { IoTier } from '../../../src/io/tier.ts'

const RECOVERY_US = 100_000

let limits: number[]
let budget: TapBudget

beforeEach(() => {
  limits = []
  const tier: Pick<IoTier, 'limitFrames'> = { limitFrames: (most) => void limits.push(most) }
  budget = new TapBudget(tier as IoTier)
})

test('turns within the budget change nothing, however many they are', () => {
  for (let turn = 0; turn < 1000; turn++) {
    budget.spent(256, TURN_NS / 2)
    budget.spent(256, TURN_NS / 2)
    budget.endTurn()
    budget.recover(turn * RECOVERY_US)
  }
  expect(limits).toEqual([])
})

test('after a turn that was too dear there are as many frames as the budget is enough for', () => {
  budget.spent(256, 10 * TURN_NS)
  budget.spent(256, 10 * TURN_NS)
  budget.endTurn()
  expect(limits).toEqual([25])
  budget.spent(25, TURN_NS)
  budget.endTurn()
  expect(limits).toEqual([25])
})

test('one frame there is always, however dear', () => {
  budget.spent(1, 100 * TURN_NS)
  budget.endTurn()
  expect(limits).toEqual([1])
})

test('it recovers: twice as many now and then, until there is no limit any more', () => {
  budget.spent(64, 2 * TURN_NS)
  budget.endTurn()
  budget.recover(5_000_000)
  budget.recover(5_000_000 + RECOVERY_US - 1)
  expect(limits).toEqual([32, 64])
  for (let n = 1; n < 30; n++) budget.recover(5_000_000 + n * RECOVERY_US)
  expect(limits.slice(2, 5)).toEqual([128, 256, 512])
  expect(limits.at(-1)).toBe(0x10000)
  expect(limits).toHaveLength(12)
})
