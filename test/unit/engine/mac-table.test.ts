/** The learning table one step at a time; test/property/mac-table.test.ts has the model. */
import { whileTrue } from '../../support/bounded.ts'
import { describe, expect, test } from 'vitest'
import { MacTable } from '../../../src/engine/mac-table.ts'

const UNKNOWN = -1
/** Cells that a lookup looks at; as in the table. */
const PROBE_MAX = 32
/** Cells that one call of sweep looks at; as in the table. */
const SWEEP_CELLS = 16384
/** The multiplier of `lo` in the table's hash: what a sender that knows it can exploit. */
const HASH_LO = 0x9e37_79b1

/** Addresses of one cell, whatever the seed: hi ^ lo * HASH_LO is the same for all. */
function colliding(count: number): [hi: number, lo: number][] {
  return Array.from({ length: count }, (_, k) => [Math.imul(k + 1, HASH_LO), k + 1])
}

function entries(table: MacTable): number[][] {
  const rows: number[][] = []
  table.forEach((...row) => rows.push(row))
  return rows.toSorted((a, b) => a[1] - b[1])
}

describe('learning', () => {
  test('an address is unknown until a frame came from it', () => {
    const table = new MacTable(16, 1)
    expect(table.lookup(0x0002, 7)).toBe(UNKNOWN)
    table.learn(0x0002, 7, 3, 100)
    expect(table.lookup(0x0002, 7)).toBe(3)
    expect(table.lookup(0x0002, 8)).toBe(UNKNOWN)
    expect(table.lookup(0x0004, 7)).toBe(UNKNOWN)
    expect(table.entries).toBe(1)
  })

  test('port 0 and address words with the sign bit are as good as any', () => {
    const table = new MacTable(16, -5)
    table.learn(-2, 0xffff, 0, 0)
    table.learn(0x7fff_fffe, 0, 1023, 0)
    expect(table.lookup(-2, 0xffff)).toBe(0)
    expect(table.lookup(0x7fff_fffe, 0)).toBe(1023)
  })

  test('an address that is seen elsewhere moves, once per change', () => {
    const table = new MacTable(16, 1)
    table.learn(2, 1, 3, 100)
    table.learn(2, 1, 3, 101)
    expect(table.moves).toBe(0)
    table.learn(2, 1, 4, 102)
    table.learn(2, 1, 4, 103)
    table.learn(2, 1, 3, 104)
    expect(table.moves).toBe(2)
    expect(entries(table)).toEqual([[2, 1, 3, 104]])
  })

  test.each([16, 17, 1000, 8192])('a table for %i addresses takes as many and no more', (size) => {
    const table = new MacTable(size, 0x1234_5678)
    for (let k = 0; k < size; k++) table.learn(2, k, k & 7, 0)
    // Any neighbourhood may be full before the table is, but hardly with even addresses.
    expect([table.entries, table.full]).toEqual([size, 0])
    for (let k = 0; k < size; k++) expect(table.lookup(2, k)).toBe(k & 7)
    for (let k = size; k < size + 5; k++) {
      table.learn(2, k, k & 7, 1)
      expect(table.lookup(2, k)).toBe(k & 7)
    }
    expect([table.entries, table.full]).toEqual([size, 5])
  })

  test('a flood of addresses pushes out its own, however long, and never those of others', () => {
    const size = 1024
    const table = new MacTable(size, 99)
    const others = Array.from({ length: 300 }, (_, k) => k)
    for (const k of others) table.learn(4, k, 1 + (k % 3), 10)
    for (let k = 0; k < 20_000; k++) {
      table.learn(0x1_0000 + 2 * k, k & 0xffff, 9, 20 + ((k / 1000) | 0))
    }
    for (const k of others) expect(table.lookup(4, k)).toBe(1 + (k % 3))
    expect(table.entries).toBe(size)
    expect(table.full).toBe(20_000 + 300 - size)
    // What others learn now takes its place from the flood.
    for (let k = 300; k < 400; k++) table.learn(4, k, 2, 50)
    for (let k = 0; k < 400; k++) expect(table.lookup(4, k)).toBeGreaterThan(0)
    expect(entries(table).filter((row) => row[2] === 9)).toHaveLength(size - 400)
  })

  test('of the busiest port the old ones go', () => {
    const size = 1024
    const table = new MacTable(size, 5)
    for (let k = 0; k < size; k++) table.learn(2, k, 1, k < size / 2 ? 0 : 9)
    for (let k = 0; k < 200; k++) table.learn(4, k, 2, 10)
    const left = entries(table).filter((row) => row[2] === 1)
    expect(left).toHaveLength(size - 200)
    // The oldest of the next eight each time: hardly ever a young one.
    expect(left.filter((row) => row[3] === 9).length).toBeGreaterThan(size / 2 - 5)
  })

  test('a full table still moves and refreshes what it knows', () => {
    const table = new MacTable(16, 1)
    for (let k = 0; k < 16; k++) table.learn(2, k, 1, 0)
    table.learn(2, 3, 9, 50)
    expect(table.full).toBe(0)
    expect(table.lookup(2, 3)).toBe(9)
    table.sweep(50)
    expect(entries(table)).toEqual([[2, 3, 9, 50]])
    table.learn(2, 99, 1, 50)
    expect(table.lookup(2, 99)).toBe(1)
  })
})

describe('addresses that share a cell', () => {
  test('are all found, up to the longest probe; the next takes the place of one of them', () => {
    const table = new MacTable(1024, 77)
    const addresses = colliding(PROBE_MAX + 3)
    addresses.forEach(([hi, lo], k) => table.learn(hi, lo, k, k))
    expect(table.entries).toBe(PROBE_MAX)
    expect(table.full).toBe(3)
    const found = addresses.filter(([hi, lo]) => table.lookup(hi, lo) !== UNKNOWN)
    expect(found).toHaveLength(PROBE_MAX)
    addresses.slice(PROBE_MAX).forEach(([hi, lo], k) => {
      // The last one is still there, those before it may have given way to it.
      if (k === 2) expect(table.lookup(hi, lo)).toBe(PROBE_MAX + k)
    })
  })

  test('and are all of one sender cannot keep another one out, nor push it out', () => {
    const table = new MacTable(1024, 77)
    const [other, late, ...many] = colliding(400)
    table.learn(...other, 1, 0)
    for (const [hi, lo] of many) table.learn(hi, lo, 9, 5)
    expect(table.lookup(...other)).toBe(1)
    table.learn(...late, 2, 5)
    for (const [hi, lo] of many) table.learn(hi, lo, 9, 6)
    expect([table.lookup(...other), table.lookup(...late)]).toEqual([1, 2])
    expect(table.entries).toBe(PROBE_MAX)
  })

  test('stay found when any one of them goes, and its place is used again', () => {
    const addresses = colliding(PROBE_MAX)
    for (let gone = 0; gone < PROBE_MAX; gone++) {
      const table = new MacTable(1024, gone)
      addresses.forEach(([hi, lo], k) => table.learn(hi, lo, k, k === gone ? 0 : 1))
      table.sweep(1)
      addresses.forEach(([hi, lo], k) =>
        expect(table.lookup(hi, lo)).toBe(k === gone ? UNKNOWN : k),
      )
      const [hi, lo] = colliding(PROBE_MAX + 1).at(-1)!
      table.learn(hi, lo, 500, 1)
      expect(table.lookup(hi, lo)).toBe(500)
      expect(table.full).toBe(0)
    }
  })

  test('wrap round the end of the table', () => {
    // With so few cells and so many seeds some of the runs start in the last cell.
    for (let seed = 0; seed < 64; seed++) {
      const table = new MacTable(16, seed * 0x0404_0405)
      const addresses = colliding(16)
      addresses.forEach(([hi, lo], k) => table.learn(hi, lo, k & 1, 0))
      table.forgetPort(0)
      addresses.forEach(([hi, lo], k) =>
        expect(table.lookup(hi, lo)).toBe((k & 1) === 0 ? UNKNOWN : 1),
      )
      expect(table.entries).toBe(8)
    }
  })
})

describe('forgetting', () => {
  test('an entry goes when it was last seen before the given second, not in it', () => {
    const table = new MacTable(16, 1)
    table.learn(2, 1, 0, 99)
    table.learn(2, 2, 0, 100)
    table.learn(2, 3, 0, 99)
    table.learn(2, 3, 0, 100)
    expect(table.sweep(100)).toBe(true)
    expect(entries(table)).toEqual([
      [2, 2, 0, 100],
      [2, 3, 0, 100],
    ])
  })

  test('a huge table is swept in bounded steps, all of it before true is returned', () => {
    const size = 50_000
    const cells = 131_072
    const table = new MacTable(size, 3)
    for (let k = 0; k < size; k++) table.learn(2 + (k >>> 16), k & 0xffff, 0, k & 1)
    const before = table.entries
    let calls = 1
    whileTrue('sweeps', () => !table.sweep(1) && calls++ > 0)
    expect(calls).toBe(cells / SWEEP_CELLS)
    let old = 0
    table.forEach((_hi, _lo, _port, seenS) => (old += seenS === 0 ? 1 : 0))
    expect(old).toBe(0)
    expect(before - table.entries).toBe(size / 2)
    // And it starts from the beginning.
    expect(table.sweep(2)).toBe(false)
  })

  test('a port that goes takes its addresses with it and no others', () => {
    const table = new MacTable(1024, 1)
    for (let k = 0; k < 1000; k++) table.learn(2, k, k % 3, 0)
    table.forgetPort(1)
    for (let k = 0; k < 1000; k++) expect(table.lookup(2, k)).toBe(k % 3 === 1 ? UNKNOWN : k % 3)
    expect(table.entries).toBe(667)
    table.forgetPort(1)
    expect(table.entries).toBe(667)
  })
})
