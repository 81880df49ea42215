/** Numbers of ports. */
import { expect, test } from 'vitest'
import { PORTS_MAX } from '../../../src/port/contract.ts'
import type { PortEntry } from '../../../src/switch/port-entry.ts'
import { freeIndex } from '../../../src/switch/port-entry.ts'

test('the lowest free number is taken, as long as there is one', () => {
  const entry = {} as PortEntry
  expect(freeIndex([])).toBe(0)
  expect(freeIndex([entry, undefined, entry])).toBe(1)
  const all = Array.from({ length: PORTS_MAX }, () => entry)
  expect(() => freeIndex(all)).toThrow(expect.objectContaining({ code: 'TOO_MANY_PORTS' }) as Error)
})
