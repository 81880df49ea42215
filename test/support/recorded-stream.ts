/**
 * What a source of a release has said, up to the end of its state, as it was on the wire: RELEASE.stream in
 * test/fixtures/hand-over; and the same to be read by people, RELEASE.json. The stream is taken apart here
 * independently of src/handover, after src/handover/README.md.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { HandOverRecord, Section } from '../../src/handover/records.ts'
import { RecordReader } from '../../src/handover/records.ts'
import { COUNTERS } from '../../src/stats/counters.ts'

export const RECORDED: string = fileURLToPath(new URL('../fixtures/hand-over/', import.meta.url))
const HEADER_LENGTH = 12
const FDS_PER_BYTE = 253
/** Of no open file. */
const FIRST_FD = 1_000_000

export interface RecordedRecord {
  readonly section: Section
  readonly version: number
  readonly data: unknown
  /** How many descriptors came with it. */
  readonly fds: number
}

interface Piece {
  readonly bytes: Uint8Array
  readonly fds: number
}

export const recordedReleases = (): string[] =>
  readdirSync(RECORDED).flatMap((name) => /^(.*)\.stream$/.exec(name)?.[1] ?? [])

export const streamOf = (release: string): Uint8Array =>
  readFileSync(join(RECORDED, `${release}.stream`))

/** Each record, and behind it a byte for every 253 of its descriptors. */
function* pieces(stream: Uint8Array): Generator<{ record: RecordedRecord; pieces: Piece[] }> {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength)
  for (let at = 0; at < stream.length;) {
    const length = view.getUint32(at + 4, true)
    const fds = view.getUint32(at + 8, true)
    const end = at + HEADER_LENGTH + length
    const text = Buffer.from(stream.subarray(at + HEADER_LENGTH, end)).toString()
    const counts = Array.from({ length: Math.ceil(fds / FDS_PER_BYTE) }, (_, k) =>
      Math.min(FDS_PER_BYTE, fds - k * FDS_PER_BYTE),
    )
    const behind = counts.map((count, k) => ({
      bytes: stream.subarray(end + k, end + k + 1),
      fds: count,
    }))
    const record = { ...(JSON.parse(text) as Omit<RecordedRecord, 'fds'>), fds }
    yield { record, pieces: [{ bytes: stream.subarray(at, end), fds: 0 }, ...behind] }
    at = end + counts.length
  }
}

export const recordsOf = (stream: Uint8Array): RecordedRecord[] =>
  [...pieces(stream)].map(({ record }) => record)

/** As this release reads it, with descriptors of no file. Throws what RecordReader does. */
export function read(stream: Uint8Array, reader: RecordReader): HandOverRecord[] {
  const records: HandOverRecord[] = []
  let fd = FIRST_FD
  for (const { bytes, fds } of [...pieces(stream)].flatMap((one) => one.pieces)) {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + reader.wanted)
      const came = Array.from({ length: at === 0 ? fds : 0 }, () => fd++)
      const record = reader.push(part, came, false)
      if (record !== undefined) records.push(record)
      at += part.length
    }
  }
  return records
}

/** Those that are zero are not said: which are depends on what the hosts send by themselves. */
const isCounter = (key: string): boolean => Object.hasOwn(COUNTERS, key)

/** Where two values are not of the same make: other keys, other types. What is null says nothing. */
export function differences(recorded: unknown, now: unknown, path = ''): string[] {
  if (recorded === null || now === null) return []
  if (typeof recorded !== typeof now || Array.isArray(recorded) !== Array.isArray(now)) {
    return [`${path}: ${typeof recorded} was recorded, and ${typeof now} is said`]
  }
  if (Array.isArray(recorded)) {
    return recorded.flatMap((one, k) =>
      k < (now as unknown[]).length ? differences(one, (now as unknown[])[k], `${path}[${k}]`) : [],
    )
  }
  if (typeof recorded !== 'object') return []
  const [before, after] = [recorded, now as object] as Record<string, unknown>[]
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((key) => {
    const isInBoth = Object.hasOwn(before, key) && Object.hasOwn(after, key)
    if (!isInBoth && isCounter(key)) return []
    if (!Object.hasOwn(before, key)) return [`${path}.${key} is new`]
    if (!Object.hasOwn(after, key)) return [`${path}.${key} is not said any more`]
    return differences(before[key], after[key], `${path}.${key}`)
  })
}
