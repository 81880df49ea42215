/** Numbers of ports. */
import { expect, test } from 'vitest'
import { freeIndex } from '../../../src/switch/port-entry.ts'

test('the lowest free number is taken, as long as there is one', () => {
  expect(freeIndex(() => false)).toBe(0)
  expect(freeIndex((index) => index !== 1)).toBe(1)
  expect(() => freeIndex(() => true)).toThrow(
    expect.objectContaining({ code: 'TOO_MANY_PORTS' }) as Error,
  )
})
