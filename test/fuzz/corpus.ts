/** Inputs as files: those that are kept for good, those that found something, and the one that runs. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export const CORPUS: string = join(process.cwd(), 'test/fuzz/corpus')
/** Not part of the tree; an input moves to the corpus with the change that makes it run. */
export const FINDINGS: string = join(process.cwd(), 'test/fuzz/findings')

export const INPUT_LENGTH_MAX = 1024
/** Mutants are made in place: some of the changes write beyond the limit before they are cut. */
export const SCRATCH_LENGTH: number = 2 * INPUT_LENGTH_MAX + 1024

/**
 * The file that a worker maps, and in which main.ts finds what ran when it died:
 *
 *     int32 length of the input | int32 unused | float64 inputs so far | target's name | input
 */
export const STATE_COUNT_AT = 8
export const STATE_NAME_AT = 16
export const STATE_INPUT_AT = 64
export const STATE_LENGTH: number = STATE_INPUT_AT + SCRATCH_LENGTH

export interface State {
  readonly target: string
  readonly input: Uint8Array
  readonly count: number
}

export function readState(path: string): State {
  const bytes = readFileSync(path)
  const name = bytes.subarray(STATE_NAME_AT, STATE_INPUT_AT).toString().replaceAll('\0', '')
  const end = STATE_INPUT_AT + bytes.readInt32LE(0)
  const input = new Uint8Array(bytes.subarray(STATE_INPUT_AT, end))
  return { target: name, input, count: bytes.readDoubleLE(STATE_COUNT_AT) }
}

/** The inputs of a target, by the names of their files. */
export function loadCorpus(directory: string, target: string): Uint8Array[] {
  const folder = join(directory, target)
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .sort()
    .map((file) => new Uint8Array(readFileSync(join(folder, file))))
}

/** Returns the path of the file. */
export function keep(directory: string, target: string, input: Uint8Array): string {
  const folder = join(directory, target)
  mkdirSync(folder, { recursive: true })
  const path = join(folder, createHash('sha1').update(input).digest('hex').slice(0, 12))
  writeFileSync(path, input)
  return path
}

/** How somebody runs it once more. */
export function replayCommand(target: string, path: string): string {
  return `npm run fuzz -- --target ${target} --replay ${path}`
}
