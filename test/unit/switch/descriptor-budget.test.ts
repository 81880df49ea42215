/** Shares of the process's descriptors. */
import { describe, expect, test } from 'vitest'
import {
  DescriptorBudget,
  frontEndFds,
  portFds,
  RESERVE_MAX,
} from '../../../src/switch/descriptor-budget.ts'
import type { PortOptions } from '../../../src/port/options.ts'

const guest = (id: string, queues = 1): PortOptions => ({
  type: 'vhost-user',
  id,
  path: '/x',
  queues,
})

test('what a port may need is what all of its queues have', () => {
  expect(portFds({ type: 'tap', id: 'a' })).toBe(2)
  expect(portFds({ type: 'tap', id: 'a', queues: 256 })).toBe(257)
  expect(portFds({ type: 'tap', id: 'a', fds: '3:4:5' })).toBe(4)
  expect(portFds({ type: 'memory', id: 'a' })).toBe(0)
  expect(portFds(guest('a'))).toBe(16)
  expect(portFds(guest('a', 128))).toBe(10 + 6 * 128)
})

describe('a budget', () => {
  test('holds as many ports as the README says', () => {
    const budget = new DescriptorBudget(() => 16_384 + RESERVE_MAX)
    for (let n = 0; n < 1024; n++) budget.take(guest(`g${n}`))
    expect(() => budget.take({ type: 'tap', id: 'a' })).toThrow(
      expect.objectContaining({
        code: 'DESCRIPTOR_SHARE',
        message: 'port "a" may need 2 descriptors, 0 are left',
      }),
    )
  })

  test('has what was given back, once', () => {
    const budget = new DescriptorBudget(() => 64)
    const share = budget.take(guest('a'))
    share.giveBack()
    share.giveBack()
    for (let n = 0; n < 3; n++) budget.take(guest(`b${n}`))
    expect(() => budget.take(guest('c'))).toThrow('may need 16 descriptors, 0 are left')
  })

  test('goes by the limit that is in force', () => {
    let limit = 20
    const budget = new DescriptorBudget(() => limit)
    expect(() => budget.take(guest('a'))).toThrow('15 are left')
    limit = 30
    budget.take(guest('a'))
    limit = 10
    expect(() => budget.take({ type: 'tap', id: 'b' })).toThrow('0 are left')
  })

  test('leaves room for others, whatever ports want beyond their share', () => {
    const budget = new DescriptorBudget(() => RESERVE_MAX + 10_000)
    const shares = Array.from({ length: 8 }, (_, n) => budget.take(guest(`g${n}`)))
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
    expect(() => budget.take(tap(left))).toThrow('are left')
    budget.take(tap(Math.floor(left / 9) - 8 * more))
    shares[0].giveBackExtra(more)
  })
})
