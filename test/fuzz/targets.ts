/** What is fuzzed, by name; the kept inputs of each are the files of corpus/<name>. */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Features } from './features.ts'
import { fuzzRing } from './rings.ts'
import { fuzzSession } from './session.ts'

export interface Target {
  readonly name: string
  /** Runs one input and tells what it made happen; throws when it found a bug. */
  readonly run: (input: Uint8Array, seen: Features) => Promise<void> | void
}

export const TARGETS: readonly Target[] = [
  { name: 'split', run: (input, seen) => fuzzRing(false, input, seen) },
  { name: 'packed', run: (input, seen) => fuzzRing(true, input, seen) },
  { name: 'session', run: fuzzSession },
]

export function loadCorpus(directory: string, name: string): Uint8Array[] {
  const folder = join(directory, name)
  return readdirSync(folder)
    .sort()
    .map((file) => new Uint8Array(readFileSync(join(folder, file))))
}

/** Returns the path of the file. */
export function keep(directory: string, name: string, input: Uint8Array): string {
  const folder = join(directory, name)
  mkdirSync(folder, { recursive: true })
  const path = join(folder, createHash('sha1').update(input).digest('hex').slice(0, 12))
  writeFileSync(path, input)
  return path
}
