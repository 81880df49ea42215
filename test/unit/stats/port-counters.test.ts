/** The shared cells of the ports' counters. */
import { expect, test } from 'vitest'
import { COUNTER_MEANINGS } from '../../../config/counter-meanings.ts'
import { COUNTER_NAMES, COUNTERS, COUNTERS_STRIDE } from '../../../src/stats/counters.ts'
import { allocateCounters, clearCounters, readCounters } from '../../../src/stats/port-counters.ts'

test('each counter has a cell of its own, within the stride', () => {
  const cells = Object.values(COUNTERS)
  expect(new Set(cells).size).toBe(cells.length)
  for (const cell of cells) {
    expect(cell).toBeGreaterThanOrEqual(0)
    expect(cell).toBeLessThan(COUNTERS_STRIDE)
  }
  expect(COUNTER_NAMES).toEqual(Object.keys(COUNTERS))
})

test('names say the direction, and every drop its reason', () => {
  for (const name of COUNTER_NAMES)
    expect(name).toMatch(/^[rt]x_(frames|bytes|drop_[a-z_]+|checksummed|segmented|coalesced)$/)
})

test('every counter has a meaning of its own or shares it with its pair', () => {
  expect(Object.keys(COUNTER_MEANINGS).toSorted()).toEqual(COUNTER_NAMES.toSorted())
  const meanings = Object.values(COUNTER_MEANINGS)
  expect(meanings.filter((meaning) => meaning.length < 10)).toEqual([])
  // The bytes of both directions.
  expect(new Set(meanings).size).toBe(meanings.length - 1)
})

test('a port is read and cleared without its neighbours', () => {
  const cells = new Float64Array(allocateCounters(3))
  expect(cells).toHaveLength(3 * COUNTERS_STRIDE)
  COUNTER_NAMES.forEach((name, k) => {
    for (let port = 0; port < 3; port++) {
      cells[port * COUNTERS_STRIDE + COUNTERS[name]] = 100 * port + k
    }
  })
  const expected = (port: number): object =>
    Object.fromEntries(COUNTER_NAMES.map((name, k) => [name, 100 * port + k]))
  for (let port = 0; port < 3; port++) expect(readCounters(cells, port)).toEqual(expected(port))
  clearCounters(cells, 1)
  expect(Object.values(readCounters(cells, 1)).every((value) => value === 0)).toBe(true)
  expect(readCounters(cells, 0)).toEqual(expected(0))
  expect(readCounters(cells, 2)).toEqual(expected(2))
})

test('counts are exact far beyond 32 bits', () => {
  const cells = new Float64Array(allocateCounters(1))
  cells[COUNTERS.rx_bytes] = 2 ** 53 - 1
  expect(readCounters(cells, 0).rx_bytes).toBe(9_007_199_254_740_991)
})

test('the memory is shared: what one thread counts, another reads', () => {
  expect(allocateCounters(1)).toBeInstanceOf(SharedArrayBuffer)
})
