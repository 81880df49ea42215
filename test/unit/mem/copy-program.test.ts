/** Copy programs: what is added is copied, in order, within the windows, and once. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { Window } from '../../../src/mem/window.ts'

/** Rows that wait at most; as in the program. */
const ROWS_MAX = 1024
const LENGTH = 65536

let program: CopyProgram
let from: Window
let to: Window
let source: Uint8Array
let target: Uint8Array

beforeEach(() => {
  program = new CopyProgram()
  from = Window.map(LENGTH)
  to = Window.map(LENGTH)
  source = new Uint8Array(from.buffer)
  target = new Uint8Array(to.buffer)
  for (let k = 0; k < LENGTH; k++) source[k] = (k * 7 + (k >>> 8)) & 0xff
})

afterEach(() => {
  program.close()
  from.unmap()
  to.unmap()
})

test('rows are copied when the program is run, not before', () => {
  program.add(from.id, 100, to.id, 5, 1514)
  expect(target.every((byte) => byte === 0)).toBe(true)
  program.run()
  expect(target.slice(5, 5 + 1514)).toEqual(source.slice(100, 100 + 1514))
  expect(target.slice(0, 5).every((byte) => byte === 0)).toBe(true)
  expect(target.slice(5 + 1514).every((byte) => byte === 0)).toBe(true)
})

test('a row runs once: the next run copies only what was added since', () => {
  program.add(from.id, 0, to.id, 0, 64)
  program.run()
  target.fill(0)
  program.run()
  expect(target.every((byte) => byte === 0)).toBe(true)
  program.add(from.id, 0, to.id, 128, 64)
  program.run()
  expect(target.slice(0, 64).every((byte) => byte === 0)).toBe(true)
  expect(target.slice(128, 192)).toEqual(source.slice(0, 64))
})

test('rows run in the order in which they were added', () => {
  program.add(from.id, 0, to.id, 0, 64)
  program.add(to.id, 0, to.id, 1000, 64)
  program.add(from.id, 64, to.id, 0, 64)
  program.run()
  expect(target.slice(1000, 1064)).toEqual(source.slice(0, 64))
  expect(target.slice(0, 64)).toEqual(source.slice(64, 128))
})

test('a full program runs by itself; the order is kept across that', () => {
  for (let row = 0; row < ROWS_MAX + 1; row++) program.add(from.id, row, to.id, row % 3, 1)
  // All but the last row have run.
  expect(target[(ROWS_MAX - 1) % 3]).toBe(source[ROWS_MAX - 1])
  expect(target[ROWS_MAX % 3]).toBe(source[ROWS_MAX - 3])
  program.run()
  expect(target[ROWS_MAX % 3]).toBe(source[ROWS_MAX])
})

describe('a row that leaves its windows', () => {
  test.each([
    ['at the end of the source', LENGTH - 63, 0, 64],
    ['at the end of the destination', 0, LENGTH - 63, 64],
    ['by a negative offset', -1, 0, 64],
    ['by a negative length', 0, 0, -1],
  ])('%s is our own mistake, and touches nothing', (_, sourceOffset, targetOffset, length) => {
    program.add(from.id, 0, to.id, 32, 4)
    program.add(from.id, sourceOffset, to.id, targetOffset, length)
    program.add(from.id, 0, to.id, 4096, 4)
    expect(() => program.run()).toThrow(RangeError)
    expect(target.slice(32, 36)).toEqual(source.slice(0, 4))
    expect(target.slice(0, 32).every((byte) => byte === 0)).toBe(true)
    expect(target.slice(36).every((byte) => byte === 0)).toBe(true)
    // The program is empty again, and good.
    program.add(from.id, 0, to.id, 4096, 4)
    program.run()
    expect(target.slice(4096, 4100)).toEqual(source.slice(0, 4))
  })

  test('with a window that is not there', () => {
    const gone = Window.map(4096)
    gone.unmap()
    program.add(gone.id, 0, to.id, 0, 4)
    expect(() => program.run()).toThrow(RangeError)
  })
})
