/** Static entries of the forwarding database: what gives way to them, and what does not. */
import { expect, test } from 'vitest'
import { LEARNT, MacTable, OVER_LIMIT, STAYS_ELSEWHERE } from '../../../src/engine/mac-table.ts'
import { addStaticMacs } from '../../../src/engine/static-macs.ts'
import { STATIC_AGE } from '../../../src/engine/messages.ts'
import { macRows } from '../../support/sim.ts'

test('F2: they neither age nor move nor go with the link, and win over what is learnt', () => {
  const table = new MacTable(16, 1)
  table.learn(2, 7, 3, 0)
  addStaticMacs(table, 5, [[2, 7]])
  expect([table.lookup(2, 7), table.entries, table.isStatic(2, 7, 5)]).toEqual([5, 1, true])
  expect(table.learn(2, 7, 3, 9)).toBe(LEARNT)
  expect(table.moves).toBe(0)
  table.sweep(1000)
  table.forgetPort(5)
  table.flush(-1, -1)
  expect(macRows(table.page(0, 100, 1000, 1))).toEqual([[2, 7, 5, STATIC_AGE]])
  expect([table.removeStatic(2, 7, 3), table.removeStatic(2, 7, 5)]).toEqual([false, true])
  expect([table.entries, table.lookup(2, 7)]).toEqual([0, -1])
})

test('F2: a full table makes room for them, until they are all it has', () => {
  const table = new MacTable(16, 1)
  for (let k = 0; k < 16; k++) table.learn(4, k, k & 3, 0)
  addStaticMacs(
    table,
    1,
    Array.from({ length: 15 }, (_, k) => [2, k] as const),
  )
  expect(table.entries).toBe(16)
  expect(() =>
    addStaticMacs(table, 1, [
      [6, 0],
      [6, 1],
    ]),
  ).toThrow(expect.objectContaining({ code: 'FDB_FULL' }) as Error)
  // None of those is there, and nothing that is learnt pushes a static one out.
  expect(table.lookup(6, 0)).toBe(-1)
  for (let k = 0; k < 100; k++) table.learn(8, k, 2, 1)
  for (let k = 0; k < 15; k++) expect(table.isStatic(2, k, 1)).toBe(true)
  table.forgetStatic(1)
  expect(table.entries).toBe(1)
})

test('F4, F5: a limit counts what is learnt; from a sticky port nothing moves', () => {
  const table = new MacTable(64, 1)
  table.setPort(1, 2, false)
  addStaticMacs(table, 1, [[2, 99]])
  expect([0, 1, 2].map((k) => table.learn(2, k, 1, 0))).toEqual([LEARNT, LEARNT, OVER_LIMIT])
  expect(table.learn(2, 0, 1, 5)).toBe(LEARNT)
  table.learn(2, 50, 3, 0)
  expect([table.learn(2, 50, 1, 0), table.lookup(2, 50)]).toEqual([OVER_LIMIT, 3])
  table.setPort(3, 100, true)
  expect([table.learn(2, 50, 4, 0), table.lookup(2, 50)]).toEqual([STAYS_ELSEWHERE, 3])
  expect([table.mayCome(2, 50, 3), table.mayCome(2, 50, 4), table.mayCome(2, 51, 4)]).toEqual([
    true,
    false,
    true,
  ])
})

test('F2: a flush is of a port, of a VLAN, or of everything that was learnt', () => {
  const fill = (): MacTable => {
    const table = new MacTable(64, 1)
    for (const port of [1, 2])
      for (const vlan of [0, 10]) table.learn(2, port | (vlan << 16), port, 0)
    return table
  }
  const left = (port: number, vlan: number): number[][] => {
    const table = fill()
    table.flush(port, vlan)
    return macRows(table.page(0, 1000, 0, 1))
      .map(([, lo, at]) => [at, lo >>> 16])
      .toSorted((one, other) => one[0] - other[0] || one[1] - other[1])
  }
  expect(left(1, -1)).toEqual([
    [2, 0],
    [2, 10],
  ])
  expect(left(-1, 10)).toEqual([
    [1, 0],
    [2, 0],
  ])
  expect(left(2, 10)).toEqual([
    [1, 0],
    [1, 10],
    [2, 0],
  ])
  expect(left(-1, -1)).toEqual([])
})
