/** What is fuzzed, by name; the kept inputs of each are the files of corpus/<name>. */
import type { Features } from './features.ts'
import { fuzzRing } from './rings.ts'
import { fuzzSession } from './session.ts'
import { fuzzShimRows } from './shim-rows.ts'

export interface Target {
  readonly name: string
  /** Runs one input and tells what it made happen; throws when it found a bug. */
  readonly run: (input: Uint8Array, seen: Features) => Promise<void> | undefined | void
  /** Bytes of an input; absent: INPUT_LENGTH_MAX. Short ones suffice where each byte does much. */
  readonly lengthMax?: number
  /** Its share of the time, where 1 is usual. */
  readonly weight?: number
  /** What the corpus and some mutants of it show at least. */
  readonly featuresMin: number
}

export const TARGETS: readonly Target[] = [
  {
    name: 'split',
    run: (input, seen) => fuzzRing(false, input, seen),
    lengthMax: 200,
    featuresMin: 200,
  },
  {
    name: 'packed',
    run: (input, seen) => fuzzRing(true, input, seen),
    lengthMax: 200,
    featuresMin: 200,
  },
  { name: 'session', run: fuzzSession, lengthMax: 200, featuresMin: 200 },
  { name: 'shim-rows', run: fuzzShimRows, lengthMax: 256, featuresMin: 40 },
]
