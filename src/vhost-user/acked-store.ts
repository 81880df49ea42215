/**
 * What the front-ends of a port acknowledged, kept over restarts: QEMU refuses a back-end that comes
 * back with less than it had ("vhost lacks feature mask"). One small JSON file per port id in the
 * state directory, replaced as a whole.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../errors.ts'
import { featureNames } from '../virtio/features.ts'

export interface AckedState {
  /** Feature bits; 0 when no front-end has come yet. */
  readonly features: bigint
  readonly queuePairs: number
  readonly slots: number
}

const NOTHING: AckedState = { features: 0n, queuePairs: 0, slots: 0 }

const fileOf = (directory: string, id: string): string => join(directory, `vhost-user-${id}.json`)

/** What is stored for a port; nothing without a directory. An unreadable file is an error. */
export function loadAcked(directory: string | undefined, id: string): AckedState {
  if (directory === undefined) return NOTHING
  const path = fileOf(directory, id)
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NOTHING
    throw unusable(path, (error as Error).message)
  }
  try {
    return parse(text)
  } catch (error) {
    throw unusable(path, (error as Error).message)
  }
}

const unusable = (path: string, why: string): ConfigError =>
  new ConfigError('VHOST_USER_ACKED', `${path} cannot be used: ${why}`, {
    hint: 'remove it; a guest that runs may then have to be restarted',
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

export function storeAcked(directory: string, id: string, state: AckedState): void {
  const { features, queuePairs, slots } = state
  const path = fileOf(directory, id)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const text = JSON.stringify({ features: `0x${features.toString(16)}`, queuePairs, slots })
  writeFileSync(`${path}.new`, `${text}\n`, { mode: 0o600 })
  renameSync(`${path}.new`, path)
}

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
