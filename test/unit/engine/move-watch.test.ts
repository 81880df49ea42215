/** What is a loop and what is not: addresses that keep moving, pair by pair of ports. */
import { describe, expect, test } from 'vitest'
import { MacTable } from '../../../src/engine/mac-table.ts'
import { FEW_MOVES, LOOP_MOVES, MoveWatch } from '../../../src/engine/move-watch.ts'

/** Moves of an address to and fro between ports 1 and 2. */
function swing(table: MacTable, lo: number, moves: number, nowS: number): void {
  table.learn(2, lo, 1, nowS)
  for (let k = 0; k < moves; k++) table.learn(2, lo, 2 - (k & 1), nowS)
}

/** Addresses with one hash, whatever the seed: they lie in one run of cells. */
function colliding(count: number): [hi: number, lo: number][] {
  return Array.from({ length: count }, (_, k) => [Math.imul(k + 1, 0x9e37_79b1), k + 1])
}

/** Cells that a lookup looks at; as in the table. */
const PROBE_MAX = 32
const ENOUGH = FEW_MOVES + LOOP_MOVES

describe('an address of the table', () => {
  test('that moves often enough in a second is told once, with its ports, and then anew', () => {
    const table = new MacTable(16, 1)
    swing(table, 7, ENOUGH - 1, 100)
    expect(table.watch.take()).toEqual([])
    swing(table, 7, ENOUGH + 30, 200)
    expect(table.watch.take()).toEqual([{ hi: 2, lo: 7, ports: [1, 2], moves: LOOP_MOVES + 30 }])
    expect(table.watch.take()).toEqual([])
    expect(table.moves).toBeGreaterThanOrEqual(2 * ENOUGH + 29)
  })

  test('that moves as often in the course of many seconds is no loop', () => {
    const table = new MacTable(16, 1)
    for (let nowS = 100; nowS < 200; nowS++) {
      for (let k = 0; k < FEW_MOVES; k++) table.learn(2, 7, (nowS * FEW_MOVES + k) & 1, nowS)
    }
    expect(table.moves).toBeGreaterThan(10 * ENOUGH)
    expect(table.watch.take()).toEqual([])
  })

  test('is one of thousands that move at once, a few times each: no loop', () => {
    const table = new MacTable(8192, 1)
    for (let lo = 0; lo < 8000; lo++) swing(table, lo, FEW_MOVES - 1, 100)
    expect(table.moves).toBe(8000 * (FEW_MOVES - 1))
    expect(table.watch.take()).toEqual([])
  })

  test('is one of many in a loop, none of which moves often', () => {
    const table = new MacTable(1024, 1)
    for (let lo = 0; lo < LOOP_MOVES; lo++) swing(table, lo, FEW_MOVES + 1, 100)
    expect(table.watch.take()).toMatchObject([{ ports: [1, 2], moves: LOOP_MOVES }])
  })

  test('keeps its moves when another one goes and it is shifted into its cell', () => {
    const addresses = colliding(8)
    const table = new MacTable(1024, 3)
    addresses.forEach(([hi, lo], k) => table.learn(hi, lo, 1, k === 0 ? 0 : 100))
    const [hi, lo] = addresses[7]
    for (let k = 0; k < FEW_MOVES; k++) table.learn(hi, lo, 2 - (k & 1), 100)
    expect(table.sweep(1)).toBe(true)
    expect(table.entries).toBe(7)
    for (let k = FEW_MOVES; k < ENOUGH; k++) table.learn(hi, lo, 2 - (k & 1), 100)
    expect(table.watch.take()).toEqual([{ hi, lo, ports: [1, 2], moves: LOOP_MOVES }])
  })

  test('begins anew when it was forgotten, and in the cell of one that had to give way', () => {
    const table = new MacTable(1024, 3)
    const [first, ...others] = colliding(PROBE_MAX + 1)
    const swingAt = ([hi, lo]: readonly number[], moves: number): void => {
      for (let k = 0; k <= moves; k++) table.learn(hi, lo, 1 + ((k + moves) & 1), 100)
    }
    swingAt(first, FEW_MOVES)
    table.forgetPort(1)
    expect(table.entries).toBe(0)
    swingAt(first, FEW_MOVES)
    for (const [hi, lo] of others.slice(0, -1)) table.learn(hi, lo, 1, 100)
    expect(table.full).toBe(0)
    swingAt(others.at(-1)!, ENOUGH - 1)
    expect(table.full).toBe(1)
    expect(table.lookup(first[0], first[1])).toBe(-1)
    expect(table.watch.take()).toEqual([])
  })
})

describe('pairs of ports', () => {
  function noted(...pairs: readonly (readonly [number, number, number])[]): MoveWatch {
    const watch = new MoveWatch()
    for (const [from, to, times] of pairs) {
      for (let k = 0; k < times; k++) {
        if (k & 1) watch.note(2, k, to, from)
        else watch.note(2, k, from, to)
      }
    }
    return watch
  }

  test('are told apart, the busiest first; those that have little part in it are left out', () => {
    const watch = noted([3, 1, LOOP_MOVES], [1, 4, 2 * LOOP_MOVES], [5, 4, LOOP_MOVES - 1])
    expect(watch.take()).toEqual([
      { hi: 2, lo: 0, ports: [1, 4], moves: 2 * LOOP_MOVES },
      { hi: 2, lo: 0, ports: [1, 3], moves: LOOP_MOVES },
    ])
  })

  test('are a loop together, when none of them is by itself', () => {
    expect(noted([1, 2, LOOP_MOVES / 2], [2, 3, LOOP_MOVES / 2 - 1]).take()).toEqual([])
    const loops = noted([1, 2, LOOP_MOVES / 2], [2, 3, LOOP_MOVES / 2]).take()
    expect(loops.map(({ ports }) => ports)).toEqual([
      [1, 2],
      [2, 3],
    ])
  })

  test('are so many at most, and the moves of others count all the same', () => {
    const watch = noted(...Array.from({ length: 100 }, (_, k) => [k, k + 1, 1] as const))
    expect(watch.take().length).toBeLessThan(20)
    expect(noted([1, 2, 1]).take()).toEqual([])
  })

  test('of a port that goes are forgotten, with their moves', () => {
    const watch = noted([1, 2, LOOP_MOVES - 1], [3, 4, 10 * LOOP_MOVES], [2, 3, LOOP_MOVES])
    watch.forgetPort(3)
    expect(watch.take()).toEqual([])
    const other = noted([1, 2, LOOP_MOVES], [3, 4, 10 * LOOP_MOVES], [2, 5, 2 * LOOP_MOVES])
    other.forgetPort(4)
    expect(other.take().map(({ ports }) => ports)).toEqual([
      [2, 5],
      [1, 2],
    ])
  })
})
