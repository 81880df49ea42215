/**
 * What the front-ends of a port acknowledged, kept over restarts: QEMU refuses a back-end that comes
 * back with less than it had ("vhost lacks feature mask"). One small JSON file per port id in the
 * state directory. While it cannot be written, guests are served all the same.
 */
import { join } from 'node:path'
import { ConfigError } from '../errors.ts'
import { featureNames } from '../virtio/device/features.ts'
import { cleanStateFile, readStateFile, reasonOf, writeStateFile } from './state-directory.ts'
import type { Log } from '../text.ts'

export interface AckedState {
  /** Feature bits; 0 when no front-end has come yet. */
  readonly features: bigint
  readonly queuePairs: number
  readonly slots: number
}

const NOTHING: AckedState = { features: 0n, queuePairs: 0, slots: 0 }

/** A disk that is full is asked again, at first soon. */
const RETRY_MS_MIN = 1000
const RETRY_MS_MAX = 30_000

/** What is kept of one port. */
export class AckedStore {
  /** Undefined: nothing is kept. */
  readonly #directory: string | undefined
  readonly #name: string
  readonly #log: Log
  /** What is still to be written. */
  #waiting: AckedState | undefined
  #timer: NodeJS.Timeout | undefined
  #retryMs = RETRY_MS_MIN

  constructor(directory: string | undefined, id: string, log: Log) {
    this.#directory = directory
    this.#name = `vhost-user-${id}.json`
    this.#log = log
  }

  /** Of the file; empty: nothing is kept. */
  get path(): string {
    return this.#directory === undefined ? '' : join(this.#directory, this.#name)
  }

  /** What is stored; nothing without a directory. A file that cannot be used is a ConfigError. */
  load(): AckedState {
    if (this.#directory === undefined) return NOTHING
    const { path } = this
    cleanStateFile(this.#directory, this.#name)
    try {
      const text = readStateFile(path)
      return text === undefined ? NOTHING : parse(text)
    } catch (error) {
      throw unusable(path, reasonOf(error))
    }
  }

  /** Stores it now, or as soon as it can be. Never throws. */
  store(state: AckedState): void {
    if (this.#directory === undefined) return
    const isFirst = this.#waiting === undefined
    this.#waiting = state
    clearTimeout(this.#timer)
    if (this.#write(isFirst)) return
    this.#timer = setTimeout(() => this.#waiting && this.store(this.#waiting), this.#retryMs)
    this.#timer.unref()
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX)
  }

  #write(isFirst: boolean): boolean {
    const { features, queuePairs, slots } = this.#waiting!
    const text = JSON.stringify({ features: `0x${features.toString(16)}`, queuePairs, slots })
    try {
      writeStateFile(this.#directory!, this.#name, `${text}\n`)
    } catch (error) {
      if (isFirst) {
        this.#log(
          `what the guest acknowledged cannot be stored: ${reasonOf(error)}: tried again until it can`,
          'warning',
        )
      }
      return false
    }
    this.#waiting = undefined
    this.#retryMs = RETRY_MS_MIN
    if (!isFirst) this.#log('what the guest acknowledged is stored now')
    return true
  }

  /** It is not stored yet. */
  get isWaiting(): boolean {
    return this.#waiting !== undefined
  }

  /** Tries a last time, if something has not been stored. */
  close(): void {
    clearTimeout(this.#timer)
    if (this.#waiting !== undefined) this.#write(false)
  }
}

const unusable = (path: string, why: string): ConfigError =>
  new ConfigError('VHOST_USER_ACKED', `${path} cannot be used: ${why}`, {
    hint: 'remove it and add the port again; a guest that runs may then have to be restarted',
  })

function parse(text: string): AckedState {
  const { features, queuePairs, slots } = JSON.parse(text) as Record<string, unknown>
  if (typeof features !== 'string' || !/^0x[0-9a-f]{1,32}$/.test(features)) {
    throw new TypeError('features is not a hexadecimal number')
  }
  if (!isCount(queuePairs) || !isCount(slots)) {
    throw new TypeError('queuePairs and slots are not numbers')
  }
  return { features: BigInt(features), queuePairs, slots }
}

const isCount = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff

/**
 * What to offer: what is configured, and whatever was acknowledged before. Throws ConfigError when
 * something of that cannot be served any more.
 */
export function offeredFeatures(servable: bigint, configured: bigint, acked: bigint): bigint {
  const missing = acked & ~servable
  if (missing !== 0n) {
    throw new ConfigError(
      'VHOST_USER_ACKED',
      `the guest uses ${featureNames(missing).join(', ')}, which cannot be served`,
      { hint: 'serve it again (more queues=, say), or restart the guest without its stored state' },
    )
  }
  return configured | acked
}
