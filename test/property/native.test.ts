/** The tables of the shim against a model: no row, however wrong, touches a byte outside its windows. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EFAULT } from '../../src/abi/errno.ts'
import {
  CHECKSUM_ROW_INTS,
  COPY_BEHIND_HEADER,
  COPY_ROW_INTS,
  shim,
} from '../../src/native/shim.ts'
import { GUARD, mapWindow } from '../unit/native/windows.ts'
import type { Mapped } from '../unit/native/windows.ts'

const PAGE = 4096
const ROWS_MAX = 40
const HEAD_LENGTH = 16

/** Offsets and lengths around the borders of a window, small and huge. */
const place = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: PAGE }) },
  { weight: 2, arbitrary: fc.integer({ min: PAGE - 20, max: PAGE + 20 }) },
  { weight: 1, arbitrary: fc.integer({ min: -20, max: -1 }) },
  { weight: 1, arbitrary: fc.constantFrom(0x7fffffff, -0x80000000, 0x7fffff00) },
)
const extent = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 200 }) },
  { weight: 1, arbitrary: place },
)
/** Mostly one of the two windows of a test, else none. */
const choice = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(0, 1) },
  { weight: 1, arbitrary: fc.constant(2) },
)

/** Two windows with known bytes; windows are whole mappings, so a byte outside would be a fault. */
function pair(): [Mapped, Mapped] {
  const windows: [Mapped, Mapped] = [mapWindow(PAGE), mapWindow(PAGE)]
  for (const [k, { bytes }] of windows.entries()) {
    for (let at = 0; at < PAGE; at++) bytes[at] = (at * 7 + k * 101 + (at >> 8)) & 0xff
  }
  return windows
}

const isInside = (offset: number, length: number): boolean =>
  offset >= 0 && length >= 0 && offset + length <= PAGE

test('copy tables do what a model does, row by row, up to the first row that leaves its window', () => {
  const windows = pair()
  const table = mapWindow(PAGE)
  const numbers = [windows[0].id, windows[1].id, 4000]
  const row = fc.tuple(choice, place, choice, place, extent, fc.boolean())
  // A header without offloads, num_buffers 1.
  const header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
  fc.assert(
    fc.property(fc.array(row, { maxLength: ROWS_MAX }), (rows) => {
      const model = windows.map(({ bytes }) => bytes.slice())
      let expected = 0
      for (const [from, source, to, destination, length, isBehindHeader] of rows) {
        const isWrong = from === 2 || to === 2
        const head = isBehindHeader && length >= 0 ? header : []
        const end = head.length + length
        if (isWrong || !isInside(source, length) || !isInside(destination, end)) break
        model[to].set(head, destination)
        model[to].set(model[from].slice(source, source + length), destination + head.length)
        expected++
      }
      rows.forEach(([from, source, to, destination, length, isBehindHeader], k) => {
        const flagged = isBehindHeader && length >= 0 ? length + COPY_BEHIND_HEADER : length
        table.ints.set(
          [numbers[from], source, numbers[to], destination, flagged],
          k * COPY_ROW_INTS,
        )
      })
      expect(shim.copyRows(table.id, 0, rows.length)).toBe(expected)
      windows.forEach(({ bytes }, k) => expect(Buffer.compare(bytes, model[k])).toBe(0))
    }),
    { numRuns: 2000 },
  )
})

test('heads are gathered as a model does, and nothing beside them is written', () => {
  const windows = pair()
  const [table, heads] = [mapWindow(PAGE), mapWindow(PAGE)]
  const numbers = [windows[0].id, windows[1].id, 4000]
  fc.assert(
    fc.property(
      fc.array(fc.tuple(choice, place), { maxLength: ROWS_MAX }),
      fc.integer({ min: 0, max: 64 }),
      (rows, at) => {
        heads.bytes.fill(GUARD)
        const model = heads.bytes.slice()
        let expected = 0
        for (const [from, offset] of rows) {
          if (from === 2 || !isInside(offset, 0)) break
          const head = windows[from].bytes.slice(offset, offset + HEAD_LENGTH)
          const start = at * HEAD_LENGTH + expected * HEAD_LENGTH
          model.fill(0, start, start + HEAD_LENGTH)
          model.set(head, start)
          expected++
        }
        rows.forEach(([from, offset], k) => {
          table.ints[k] = numbers[from]
          table.ints[ROWS_MAX + k] = offset
        })
        const columns = [table.id, 0, ROWS_MAX * 4, rows.length] as const
        const done = shim.gatherHeads(...columns, heads.id, at * HEAD_LENGTH, 0)
        expect(done).toBe(expected)
        expect(Buffer.compare(heads.bytes, model)).toBe(0)
      },
    ),
    { numRuns: 1000 },
  )
})

test('checksums are those of a model, and only the result column is written', () => {
  const windows = pair()
  const table = mapWindow(PAGE)
  const numbers = [windows[0].id, windows[1].id, 4000]
  const row = fc.tuple(choice, place, extent, fc.integer({ min: 0, max: 0xffff }))
  fc.assert(
    fc.property(fc.array(row, { maxLength: ROWS_MAX }), (rows) => {
      rows.forEach(([from, offset, length, initial], k) =>
        table.ints.set([numbers[from], offset, length, initial, -1], k * CHECKSUM_ROW_INTS),
      )
      const model = table.ints.slice()
      let expected = 0
      for (const [from, offset, length, initial] of rows) {
        if (from === 2 || !isInside(offset, length)) break
        let sum = initial
        for (let at = 0; at < length; at++) {
          sum +=
            at % 2 === 0 ? windows[from].bytes[offset + at] << 8 : windows[from].bytes[offset + at]
        }
        while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
        model[expected * CHECKSUM_ROW_INTS + 4] = sum
        expected++
      }
      expect(shim.checksumRows(table.id, 0, rows.length)).toBe(expected)
      expect([...table.ints]).toEqual([...model])
    }),
    { numRuns: 500 },
  )
})

test('a table that leaves its own window is refused as a whole', () => {
  const table = mapWindow(PAGE)
  fc.assert(
    fc.property(place, fc.integer({ min: 1, max: 2000 }), (offset, rows) => {
      const fits = offset >= 0 && offset % 4 === 0 && offset + rows * COPY_ROW_INTS * 4 <= PAGE
      // Rows of zeros name window 0, which may be any: only the refusal is looked at.
      if (!fits) expect(shim.copyRows(table.id, offset, rows)).toBe(-EFAULT)
    }),
  )
})
