/** Shares of the process's descriptors. */
import { describe, expect, test } from 'vitest'
import type { DescriptorShare } from '../../../src/port/descriptor-budget.ts'
import { DescriptorBudget, frontEndFds, RESERVE_MAX } from '../../../src/port/descriptor-budget.ts'
import { descriptorsOf } from '../../../src/port/kinds.control.ts'
import type { PortOptions } from '../../../src/port/options.ts'

const guest = (id: string, queues = 1): PortOptions => ({
  type: 'vhost-user',
  id,
  path: '/x',
  queues,
})

const take = (budget: DescriptorBudget, options: PortOptions): DescriptorShare =>
  budget.take(options.id, descriptorsOf(options))

test('what a port may need is what all of its queues have', () => {
  expect(descriptorsOf({ type: 'tap', id: 'a' })).toBe(2)
  expect(descriptorsOf({ type: 'tap', id: 'a', queues: 256 })).toBe(257)
  expect(descriptorsOf({ type: 'tap', id: 'a', fds: '3:4:5' })).toBe(4)
  expect(descriptorsOf({ type: 'memory', id: 'a' })).toBe(0)
  expect(descriptorsOf(guest('a'))).toBe(16)
  expect(descriptorsOf(guest('a', 128))).toBe(10 + 6 * 128)
})

describe('a budget', () => {
  test('holds as many ports as src/daemon/README.md says', () => {
    const budget = new DescriptorBudget(() => 16_384 + RESERVE_MAX)
    for (let n = 0; n < 1024; n++) take(budget, guest(`g${n}`))
    expect(() => take(budget, { type: 'tap', id: 'a' })).toThrow(
      expect.objectContaining({
        code: 'DESCRIPTOR_SHARE',
        message: 'port "a" may need 2 descriptors, 0 are left',
      }),
    )
  })

  test('has what was given back, once', () => {
    const budget = new DescriptorBudget(() => 64)
    const share = take(budget, guest('a'))
    share.giveBack()
    share.giveBack()
    for (let n = 0; n < 3; n++) take(budget, guest(`b${n}`))
    expect(() => take(budget, guest('c'))).toThrow('may need 16 descriptors, 0 are left')
  })

  test('goes by the limit that is in force', () => {
    let limit = 20
    const budget = new DescriptorBudget(() => limit)
    expect(() => take(budget, guest('a'))).toThrow('15 are left')
    limit = 30
    take(budget, guest('a'))
    limit = 10
    expect(() => take(budget, { type: 'tap', id: 'b' })).toThrow('0 are left')
  })

  test('leaves room for others, whatever ports want beyond their share', () => {
    const budget = new DescriptorBudget(() => RESERVE_MAX + 10_000)
    const shares = Array.from({ length: 8 }, (_, n) => take(budget, guest(`g${n}`)))
    const more = frontEndFds(1)
    // All want all there is.
    for (let round = 0; round < 1000; round++) {
      for (const share of shares) {
        try {
          share.takeExtra(more)
        } catch (error) {
          expect(error).toMatchObject({ code: 'DESCRIPTOR_SHARE' })
        }
      }
    }
    const left = 10_000 - 8 * 16
    const tap = (queues: number): PortOptions => ({ type: 'tap', id: 'a', queues })
    expect(() => take(budget, tap(left))).toThrow('are left')
    take(budget, tap(Math.floor(left / 9) - 8 * more))
    shares[0].giveBackExtra(more)
  })
})
