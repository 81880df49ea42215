/** What is fuzzed, by name; the kept inputs of each are the files of corpus/<name>. */
import type { Features } from './features.ts'
import { fuzzCaptures } from './captures.ts'
import { fuzzDirtyLog } from './dirty-log.ts'
import { fuzzForwarding } from './forwarding.ts'
import { fuzzFrameHeaders } from './frame-headers.ts'
import { fuzzGuestMapping } from './guest-mapping.ts'
import { fuzzGuestMemory } from './guest-memory.ts'
import { fuzzGuestSession } from './guest-session.ts'
import { fuzzJsonStream } from './json-stream.ts'
import { fuzzMacTable } from './mac-table.ts'
import { fuzzMembership } from './membership.ts'
import { fuzzCoalescing, fuzzSegmentation } from './offloads.ts'
import { fuzzConfig, fuzzOptions } from './options.ts'
import { fuzzPacketRing } from './packet-ring.ts'
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
  { name: 'dirty-log', run: fuzzDirtyLog, lengthMax: 48, weight: 8, featuresMin: 20 },
  { name: 'mac-table', run: fuzzMacTable, lengthMax: 96, weight: 2, featuresMin: 100 },
  { name: 'forwarding', run: fuzzForwarding, lengthMax: 128, featuresMin: 60 },
  { name: 'guest-session', run: fuzzGuestSession, lengthMax: 160, featuresMin: 100 },
  { name: 'guest-mapping', run: fuzzGuestMapping, lengthMax: 48, featuresMin: 20 },
  { name: 'guest-memory', run: fuzzGuestMemory, lengthMax: 64, featuresMin: 20 },
  { name: 'json', run: fuzzJsonStream, lengthMax: 64, featuresMin: 10 },
  { name: 'captures', run: fuzzCaptures, lengthMax: 128, featuresMin: 30 },
  { name: 'options', run: fuzzOptions, lengthMax: 32, featuresMin: 60 },
  { name: 'config', run: fuzzConfig, weight: 0.5, lengthMax: 48, featuresMin: 60 },
  { name: 'frame-headers', run: fuzzFrameHeaders, lengthMax: 96, featuresMin: 60 },
  { name: 'membership', run: fuzzMembership, weight: 2, lengthMax: 160, featuresMin: 60 },
  { name: 'packet-ring', run: fuzzPacketRing, lengthMax: 160, featuresMin: 60 },
  { name: 'segmentation', run: fuzzSegmentation, lengthMax: 96, featuresMin: 60 },
  { name: 'coalescing', run: fuzzCoalescing, lengthMax: 96, featuresMin: 15 },
]
