/** Filters of the shim against a model: any program, sound or not, over frames however they are cut into pieces. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EFAULT, EINVAL } from '../../src/abi/errno.ts'
import { formatProgram, parseProgram } from '../../src/filter/program.ts'
import { FILTER_ROW_INTS, SEGMENT_INTS, shim } from '../../src/native/shim.ts'
import type { Instruction } from '../support/bpf.ts'
import { CODES, isSound, packed, runProgram } from '../support/bpf.ts'
import { mapWindow, PAGE } from '../unit/native/windows.ts'

const FRAMES_MAX = 4
const SEGMENTS_AT = 1024

const word = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 70 }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_f000, 31, 32),
  },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffff_ffff }) },
)
const codes = Object.values(CODES).flat()
const code = fc.oneof(
  { weight: 60, arbitrary: fc.constantFrom(...codes) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffff }) },
)
const jump = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 3 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }) },
)
const instruction = fc.tuple(code, jump, jump, word)
const end: fc.Arbitrary<Instruction> = fc.tuple(
  fc.constantFrom(...CODES.end),
  fc.constant(0),
  fc.constant(0),
  word,
)
const anyProgram = fc
  .tuple(fc.array(instruction, { maxLength: 24 }), fc.option(end, { freq: 20 }))
  .map(([body, last]): Instruction[] => (last === null ? body : [...body, last]))

/** Made sound: what is not is left out. */
const soundProgram = fc
  .tuple(fc.array(instruction, { minLength: 4, maxLength: 40 }), end)
  .map(([body, last]) => {
    const program: Instruction[] = [...body, last]
    for (let at = program.length - 2; at >= 0; at--) {
      if (!isSound(program, at)) program.splice(at, 1)
    }
    return program
  })
  .filter((program) => program.every((_, at) => isSound(program, at)))

/** Lengths of the pieces of each frame. */
const cuts = fc.array(fc.array(fc.integer({ min: 0, max: 24 }), { minLength: 1, maxLength: 6 }), {
  minLength: 1,
  maxLength: FRAMES_MAX,
})

test('a program is looked through to the first instruction that cannot be run, and not run then', () => {
  const table = mapWindow(PAGE)
  table.ints.set([0, 1, 7])
  table.ints.set([table.id, 2048, 60], SEGMENTS_AT / 4)
  fc.assert(
    fc.property(anyProgram, (program) => {
      const wrong = program.findIndex((_, at) => !isSound(program, at))
      const sound = wrong < 0 ? program.length : wrong
      expect(shim.filterCheck(packed(program))).toBe(sound)
      table.ints[2] = 7
      const done = shim.filterFrames(packed(program), table.id, 0, 1, SEGMENTS_AT)
      expect(done).toBe(wrong < 0 && program.length > 0 ? 1 : -EINVAL)
      if (done < 0) expect(table.ints[2]).toBe(7)
    }),
    { numRuns: 3000 },
  )
})

test('what it returns is what a model returns, for a frame in one piece and in several', () => {
  const [table, memory] = [mapWindow(PAGE), mapWindow(PAGE)]
  for (let at = 0; at < PAGE; at++) memory.bytes[at] = (at * 7 + (at >> 3)) & 0xff
  let passed = 0
  fc.assert(
    fc.property(soundProgram, cuts, fc.integer({ min: 0, max: 900 }), (program, pieces, start) => {
      let [segment, offset] = [0, start]
      const frames = pieces.map((lengths, row) => {
        table.ints.set([segment, lengths.length, 7], row * FILTER_ROW_INTS)
        const bytes: number[] = []
        for (const length of lengths) {
          const at = SEGMENTS_AT / 4 + segment++ * SEGMENT_INTS
          table.ints.set([memory.id, offset, length], at)
          bytes.push(...memory.bytes.slice(offset, offset + length))
          // Not one behind the other.
          offset += length + 5
        }
        return Uint8Array.from(bytes)
      })
      const done = shim.filterFrames(packed(program), table.id, 0, frames.length, SEGMENTS_AT)
      expect(done).toBe(frames.length)
      const results = frames.map((_, row) => table.ints[row * FILTER_ROW_INTS + 2])
      const expected = frames.map((frame) => (runProgram(program, frame) === 0 ? 0 : 1))
      expect(results).toEqual(expected)
      passed += expected.filter((one) => one === 1).length
    }),
    { numRuns: 5000 },
  )
  expect(passed).toBeGreaterThan(500)
})

test('a row that leaves its windows ends the call, and those behind it stay as they were', () => {
  const [table, memory] = [mapWindow(PAGE), mapWindow(PAGE)]
  const all = packed([[0x06, 0, 0, 1]])
  const rows = [0, 1, 7, 1, 1, 7, 0, 1, 7]
  for (const segment of [
    [memory.id, PAGE - 10, 11],
    [memory.id, -1, 4],
    [memory.id, 0, -1],
    [4000, 0, 4],
  ]) {
    table.ints.set(rows)
    table.ints.set([memory.id, 0, 60, ...segment], SEGMENTS_AT / 4)
    expect(shim.filterFrames(all, table.id, 0, 3, SEGMENTS_AT)).toBe(1)
    expect([...table.ints.subarray(0, 9)]).toEqual(rows.with(2, 1))
  }
  for (const [first, count] of [
    [-1, 1],
    [0, 0],
    [0, 73],
    [0x7fff_ffff, 1],
  ]) {
    table.ints.set([first, count, 7])
    expect(shim.filterFrames(all, table.id, 0, 1, SEGMENTS_AT)).toBe(0)
  }
  expect(shim.filterFrames(all, table.id, PAGE - 8, 1, SEGMENTS_AT)).toBe(-EFAULT)
  expect(shim.filterFrames(all, table.id, 0, 1, -4)).toBe(-EFAULT)
})

/** Programs as they are written down, and what comes near that: a character more, less or another. */
const written = fc
  .tuple(
    fc.oneof(soundProgram, anyProgram),
    fc.constantFrom(',', '\n'),
    fc.array(
      fc.tuple(fc.nat(), fc.nat(1), fc.constantFrom('', '0', '7', ' ', ',', '\n', '-', 'x')),
      { maxLength: 2 },
    ),
  )
  .map(([program, separator, changes]) => {
    let text = formatProgram(packed(program)).replaceAll(',', separator)
    for (const [place, length, other] of changes) {
      const at = place % (text.length + 1)
      text = text.slice(0, at) + other + text.slice(at + length)
    }
    return text
  })

function parsed(text: string): readonly number[] | string {
  try {
    return [...parseProgram(text, 'filter-program')]
  } catch (error) {
    return (error as Error).message
  }
}

test('a text that the plain loop reads is what it is with a blank more, which that does not read', () => {
  let read = 0
  fc.assert(
    fc.property(written, (text) => {
      const program = parsed(text)
      expect(program).toEqual(parsed(` ${text}`))
      if (typeof program !== 'string') read++
    }),
    { numRuns: 3000 },
  )
  expect(read).toBeGreaterThan(300)
})
