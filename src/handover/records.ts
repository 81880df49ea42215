/**
 * The stream of a hand-over: records one after another.
 *
 *     magic "FPHO" | length of the payload | count of descriptors      3 x u32, little endian
 *     {"section": ..., "version": ..., "data": ...}                    JSON, UTF-8
 *     ' ' for every 253 descriptors, or what is left of them           with SCM_RIGHTS
 *
 * Descriptors come with bytes of their own behind the record that they belong to, so that none can be
 * taken for another's. A section is read when its version is known; what is newer, or unknown, is refused
 * with both versions named.
 */
import { StateError } from '../errors.ts'

/** Everything that is said, and the version of it that is written here. */
export const SECTIONS = {
  hello: 1,
  prepare: 1,
  prepared: 1,
  port: 1,
  ports: 1,
  capture: 1,
  macs: 1,
  groups: 1,
  switch: 1,
  control: 1,
  'end-of-state': 1,
  ready: 1,
  commit: 1,
  running: 1,
  abort: 1,
} as const

export type Section = keyof typeof SECTIONS

export interface HandOverRecord {
  readonly section: Section
  readonly data: unknown
  /** In the order in which they were sent; the receiver's. */
  readonly fds: readonly number[]
}

/** SCM_MAX_FD of the kernel: so many go with one message. */
export const FDS_PER_MESSAGE_MAX = 253
/** Of one record: a vhost-user port of 128 queue pairs has about 1300. */
export const FDS_MAX = 4096
/** Bytes of one record's JSON; what is longer is split over several. */
export const PAYLOAD_LENGTH_MAX: number = 4 * 1024 * 1024

const MAGIC = 0x4f48_5046
const HEADER_LENGTH = 12
const DECODER = new TextDecoder('utf-8', { fatal: true })
/** The byte that goes with descriptors. */
export const FD_BYTE = 0x20

export const channelError = (message: string, hint?: string): StateError =>
  new StateError('HAND_OVER_CHANNEL', message, { hint })

/** Header and payload; the descriptors follow, a byte for every 253. Throws when it is too much. */
export function encodeRecord(section: Section, data: unknown, fdCount: number): Uint8Array {
  const text = JSON.stringify({ section, version: SECTIONS[section], data })
  const payload = Buffer.from(text, 'utf8')
  if (payload.length > PAYLOAD_LENGTH_MAX || fdCount > FDS_MAX) {
    const what = `${payload.length} bytes and ${fdCount} descriptors`
    throw channelError(`section "${section}" is too long to be sent: ${what}`)
  }
  const bytes = new Uint8Array(HEADER_LENGTH + payload.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, MAGIC, true)
  view.setUint32(4, payload.length, true)
  view.setUint32(8, fdCount, true)
  bytes.set(payload, HEADER_LENGTH)
  return bytes
}

/** Descriptors for each message, in their order. */
export function splitFds(fds: readonly number[]): readonly number[][] {
  const count = Math.ceil(fds.length / FDS_PER_MESSAGE_MAX)
  return Array.from({ length: count }, (_, k) =>
    fds.slice(k * FDS_PER_MESSAGE_MAX, (k + 1) * FDS_PER_MESSAGE_MAX),
  )
}

/** Puts records together from what is read. After it has thrown nothing more is to be given to it. */
export class RecordReader {
  /** Of the sender, once it has said so; for errors. */
  peerRelease: string | undefined
  readonly #release: string
  #bytes: Uint8Array = new Uint8Array(HEADER_LENGTH)
  #length = 0
  /** Undefined: the header is read. */
  #payload: { readonly fdCount: number } | undefined
  /** The record whose descriptors are read. */
  #awaiting: { readonly section: Section; readonly data: unknown } | undefined
  #fdCount = 0
  #fds: number[] = []

  /** `release`: of this framepump. */
  constructor(release: string) {
    this.#release = release
  }

  /** Bytes that may be read next: no more than belong to one part of a record. */
  get wanted(): number {
    return this.#awaiting === undefined ? this.#bytes.length - this.#length : 1
  }

  /** A record has begun. */
  get isMidway(): boolean {
    return this.#length > 0 || this.#payload !== undefined || this.#awaiting !== undefined
  }

  /** Descriptors that no record has taken along; they are the caller's. */
  takeFds(): number[] {
    return this.#fds.splice(0)
  }

  /**
   * At most `wanted` bytes, and the descriptors that came with them, which are the reader's from the call
   * on. Returns the record that they complete. `isTruncated`: the kernel had no room for some (MSG_CTRUNC).
   */
  push(
    bytes: Uint8Array,
    fds: readonly number[],
    isTruncated: boolean,
  ): HandOverRecord | undefined {
    this.#fds.push(...fds)
    if (isTruncated) {
      throw channelError('descriptors were lost on the way (MSG_CTRUNC)', 'raise ulimit -n')
    }
    if (this.#awaiting !== undefined) return this.#pushFds(bytes, fds.length)
    if (fds.length > 0) throw channelError(`${fds.length} descriptors came where none belong`)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
    if (this.#length < this.#bytes.length) return undefined
    if (this.#payload === undefined) {
      this.#readHeader()
      return undefined
    }
    return this.#readPayload(this.#payload.fdCount)
  }

  #readHeader(): void {
    const view = new DataView(this.#bytes.buffer)
    const [magic, length, fdCount] = [0, 4, 8].map((at) => view.getUint32(at, true))
    if (magic !== MAGIC) throw channelError('what came is no hand-over of framepump')
    if (length === 0 || length > PAYLOAD_LENGTH_MAX || fdCount > FDS_MAX) {
      throw channelError(`a record of ${length} bytes and ${fdCount} descriptors`)
    }
    this.#payload = { fdCount }
    this.#bytes = new Uint8Array(length)
    this.#length = 0
  }

  #readPayload(fdCount: number): HandOverRecord | undefined {
    const { section, data } = this.#parse(this.#bytes)
    this.#bytes = new Uint8Array(HEADER_LENGTH)
    this.#length = 0
    this.#payload = undefined
    if (fdCount === 0) return { section, data, fds: [] }
    this.#awaiting = { section, data }
    this.#fdCount = fdCount
    return undefined
  }

  #pushFds(bytes: Uint8Array, count: number): HandOverRecord | undefined {
    const left = this.#fdCount - (this.#fds.length - count)
    const expected = Math.min(left, FDS_PER_MESSAGE_MAX)
    if (bytes[0] !== FD_BYTE || count !== expected) {
      const hint = count === 0 ? 'connect both directly, by a UNIX socket' : undefined
      throw channelError(`${expected} descriptors should have come, and ${count} did`, hint)
    }
    if (this.#fds.length < this.#fdCount) return undefined
    const record = { ...this.#awaiting!, fds: this.takeFds() }
    this.#awaiting = undefined
    return record
  }

  #parse(bytes: Uint8Array): { section: Section; data: unknown } {
    let value: unknown
    try {
      value = JSON.parse(DECODER.decode(bytes))
    } catch {
      throw channelError('a record is not JSON')
    }
    const { section, version, data } = (value ?? {}) as Record<string, unknown>
    if (typeof section !== 'string' || !Number.isSafeInteger(version)) {
      throw channelError('a record has no section or no version')
    }
    const known = Object.hasOwn(SECTIONS, section) ? SECTIONS[section as Section] : undefined
    if (known === version) return { section: section as Section, data }
    const here = known === undefined ? 'does not know it' : `reads version ${known}`
    const there =
      this.peerRelease === undefined ? 'the other side' : `framepump ${this.peerRelease}`
    throw channelError(
      `section "${section.slice(0, 64)}" version ${Number(version)} of ${there}: framepump ${this.#release} ${here}`,
    )
  }
}
