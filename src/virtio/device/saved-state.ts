/**
 * The form in which a device is saved, and the check of a saved one: nothing in it is trusted, since
 * a file can be damaged or forged. Everything is checked before anything is used.
 *
 * A new field or meaning is a new version: whoever knows only older ones refuses it, rather than
 * lose a part of the device without a word.
 */
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_RSS,
} from '../../abi/virtio-features.ts'
import { VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP } from '../../abi/virtio-net.ts'
import { ConfigError } from '../../errors.ts'
import type { DeviceLimits } from './device-state.ts'
import { featureNames, guestOffloads, has } from './features.ts'
import type { RssConfig } from '../net/rss.ts'
import { RSS_MAX_INDIRECTION_TABLE_LENGTH, RSS_MAX_KEY_SIZE, rssConfigFault } from '../net/rss.ts'
import type { RxFlags } from '../net/rx-filter.ts'
import { MAC_TABLE_ENTRIES, RX_FLAGS, VLAN_BYTES } from '../net/rx-filter.ts'

export const SAVED_STATE_VERSION = 1

/** Most rounds of announcements that may be left; as QEMU's announce-rounds. */
export const ANNOUNCE_ROUNDS_MAX = 1000

/** Sets of bits are `0x...`, addresses `52:54:00:12:34:56`, bytes plain hexadecimal. */
export interface SavedState {
  readonly version: typeof SAVED_STATE_VERSION
  readonly maxPairs: number
  readonly features: string
  readonly deviceStatus: number
  readonly status: number
  readonly mac: string
  readonly pairs: number
  /** Null: they follow from the features. */
  readonly offloads: string | null
  readonly announceRounds: number
  readonly filter: RxFlags & {
    readonly unicast: readonly string[]
    readonly unicastOverflow: boolean
    readonly multicast: readonly string[]
    readonly multicastOverflow: boolean
    /** 512 bytes: bit (id & 7) of byte (id >> 3). */
    readonly vlans: string
  }
  readonly rss: {
    readonly isSteering: boolean
    readonly hashTypes: number
    readonly unclassifiedQueue: number
    readonly indirectionTable: readonly number[]
    readonly hashKey: string
  } | null
}

/** The same, checked. */
export interface ParsedState {
  readonly features: bigint
  readonly deviceStatus: number
  readonly status: number
  readonly mac: Uint8Array
  readonly pairs: number
  readonly offloads: bigint
  readonly announceRounds: number
  readonly filter: ParsedFilter
  readonly rss: RssConfig | null
}

interface ParsedFilter {
  readonly flags: RxFlags
  readonly unicast: readonly Uint8Array[]
  readonly unicastOverflow: boolean
  readonly multicast: readonly Uint8Array[]
  readonly multicastOverflow: boolean
  readonly vlans: Uint8Array
}

const KEYS: readonly string[] = [
  'version',
  'maxPairs',
  'features',
  'deviceStatus',
  'status',
  'mac',
  'pairs',
  'offloads',
  'announceRounds',
  'filter',
  'rss',
]
const FILTER_KEYS: readonly string[] = [
  ...RX_FLAGS,
  'unicast',
  'unicastOverflow',
  'multicast',
  'multicastOverflow',
  'vlans',
]
const RSS_KEYS: readonly string[] = [
  'isSteering',
  'hashTypes',
  'unclassifiedQueue',
  'indirectionTable',
  'hashKey',
]

const MAC_PATTERN = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/
/** Four feature words. */
const SET_PATTERN = /^0x[0-9a-f]{1,32}$/
const HEX_PATTERN = /^([0-9a-f]{2})*$/

export function formatHex(set: bigint): string {
  return `0x${set.toString(16)}`
}

export function formatMacBytes(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':')
}

/** Checks a saved state against the device that is to take it. Throws ConfigError DEVICE_STATE. */
export function parseSavedState(saved: unknown, limits: DeviceLimits): ParsedState {
  const state = recordOf(saved, '', [])
  // The version first: a newer one may have any other keys.
  const version = state['version']
  if (version !== SAVED_STATE_VERSION) {
    throw fault('version', `${told(version)}, known is ${SAVED_STATE_VERSION}`)
  }
  checkKeys(state, '', KEYS)
  const { maxPairs } = limits
  if (state['maxPairs'] !== maxPairs) {
    throw fault('maxPairs', `${told(state['maxPairs'])}, this device has ${maxPairs}`)
  }
  const features = setOf(state['features'], 'features')
  const unknown = features & ~limits.offered
  if (unknown !== 0n) {
    throw fault('features', `this device does not offer ${featureNames(unknown).join(', ')}`)
  }
  return {
    features,
    deviceStatus: integerOf(state['deviceStatus'], 'deviceStatus', 0, 0xff),
    status: parseStatus(state['status'], features),
    mac: macOf(state['mac'], 'mac'),
    pairs: parsePairs(state['pairs'], features, maxPairs),
    offloads: parseOffloads(state['offloads'], features),
    announceRounds: integerOf(state['announceRounds'], 'announceRounds', 0, ANNOUNCE_ROUNDS_MAX),
    filter: parseFilter(state['filter'], features),
    rss: parseRss(state['rss'], features, maxPairs),
  }
}

function parseStatus(value: unknown, features: bigint): number {
  const status = integerOf(value, 'status', 0, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE)
  if ((status & VIRTIO_NET_S_ANNOUNCE) !== 0 && !has(features, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
    throw fault('status', 'an announcement is pending without VIRTIO_NET_F_GUEST_ANNOUNCE')
  }
  return status
}

function parsePairs(value: unknown, features: bigint, maxPairs: number): number {
  const hasMany = has(features, VIRTIO_NET_F_MQ) || has(features, VIRTIO_NET_F_RSS)
  return integerOf(value, 'pairs', 1, hasMany ? maxPairs : 1)
}

function parseOffloads(value: unknown, features: bigint): bigint {
  const possible = guestOffloads(features)
  if (!has(features, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)) {
    if (value !== null) throw fault('offloads', 'set without VIRTIO_NET_F_CTRL_GUEST_OFFLOADS')
    return possible
  }
  const offloads = setOf(value, 'offloads')
  if ((offloads & ~possible) !== 0n) throw fault('offloads', 'more than was negotiated')
  return offloads
}

function parseFilter(value: unknown, features: bigint): ParsedFilter {
  const filter = recordOf(value, 'filter', FILTER_KEYS)
  const flag = (key: string): boolean => booleanOf(filter[key], `filter.${key}`)
  const vlans = bytesOf(filter['vlans'], 'filter.vlans', VLAN_BYTES)
  if (vlans.length !== VLAN_BYTES) throw fault('filter.vlans', `${vlans.length} bytes`)
  if (!has(features, VIRTIO_NET_F_CTRL_VLAN) && vlans.some((byte) => byte !== 0xff)) {
    throw fault('filter.vlans', 'not all allowed without VIRTIO_NET_F_CTRL_VLAN')
  }
  const unicast = parseMacs(filter['unicast'], 'filter.unicast', flag('unicastOverflow'))
  const multicast = parseMacs(filter['multicast'], 'filter.multicast', flag('multicastOverflow'))
  if (unicast.length + multicast.length > MAC_TABLE_ENTRIES) {
    throw fault('filter', `more than ${MAC_TABLE_ENTRIES} addresses`)
  }
  return {
    flags: {
      promisc: flag('promisc'),
      allmulti: flag('allmulti'),
      alluni: flag('alluni'),
      nomulti: flag('nomulti'),
      nouni: flag('nouni'),
      nobcast: flag('nobcast'),
    },
    unicast,
    unicastOverflow: flag('unicastOverflow'),
    multicast,
    multicastOverflow: flag('multicastOverflow'),
    vlans,
  }
}

function parseMacs(value: unknown, path: string, hasOverflow: boolean): Uint8Array[] {
  const macs = listOf(value, path, MAC_TABLE_ENTRIES)
  if (hasOverflow && macs.length > 0) throw fault(path, 'addresses beside an overflow')
  return macs.map((mac, at) => macOf(mac, `${path}[${at}]`))
}

function parseRss(value: unknown, features: bigint, maxPairs: number): RssConfig | null {
  if (value === null) return null
  const rss = recordOf(value, 'rss', RSS_KEYS)
  const table = listOf(
    rss['indirectionTable'],
    'rss.indirectionTable',
    RSS_MAX_INDIRECTION_TABLE_LENGTH,
  )
  const config: RssConfig = {
    isSteering: booleanOf(rss['isSteering'], 'rss.isSteering'),
    hashTypes: integerOf(rss['hashTypes'], 'rss.hashTypes', 0, 0xffff),
    unclassifiedQueue: integerOf(rss['unclassifiedQueue'], 'rss.unclassifiedQueue', 0, 0xffff),
    indirectionTable: table.map((entry, at) =>
      integerOf(entry, `rss.indirectionTable[${at}]`, 0, 0xffff),
    ),
    hashKey: bytesOf(rss['hashKey'], 'rss.hashKey', RSS_MAX_KEY_SIZE),
  }
  const bit = config.isSteering ? VIRTIO_NET_F_RSS : VIRTIO_NET_F_HASH_REPORT
  if (!has(features, bit)) throw fault('rss', 'set without its feature')
  const wrong = rssConfigFault(config, maxPairs)
  if (wrong !== '') throw fault('rss', wrong)
  if (
    !config.isSteering &&
    (table.length !== 1 || table[0] !== 0 || config.unclassifiedQueue !== 0)
  ) {
    throw fault('rss', 'queues without steering')
  }
  return config
}

function fault(path: string, what: string): ConfigError {
  const where = path === '' ? '' : `${path}: `
  return new ConfigError('DEVICE_STATE', `saved device state: ${where}${what}`, { path })
}

/** A value for a message, bounded. */
function told(value: unknown): string {
  return typeof value === 'number' ? String(value) : `a ${value === null ? 'null' : typeof value}`
}

/** A plain object with exactly these keys; any keys when the list is empty. */
function recordOf(
  value: unknown,
  path: string,
  keys: readonly string[],
): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fault(path, `${told(value)} is not an object`)
  }
  const record = value as Readonly<Record<string, unknown>>
  if (keys.length > 0) checkKeys(record, path, keys)
  return record
}

function checkKeys(
  record: Readonly<Record<string, unknown>>,
  path: string,
  keys: readonly string[],
): void {
  const prefix = path === '' ? '' : `${path}.`
  const missing = keys.find((key) => !Object.hasOwn(record, key))
  if (missing !== undefined) throw fault(`${prefix}${missing}`, 'is missing')
  const own = Object.keys(record)
  if (own.length !== keys.length) throw fault(path, 'has a key that is not known')
}

function listOf(value: unknown, path: string, lengthMax: number): readonly unknown[] {
  if (!Array.isArray(value)) throw fault(path, `${told(value)} is not a list`)
  if (value.length > lengthMax) throw fault(path, `more than ${lengthMax} entries`)
  // A list with holes becomes one without: `map` would skip them unchecked.
  return Array.from(value as readonly unknown[])
}

function integerOf(value: unknown, path: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw fault(path, `${told(value)} is not an integer from ${min} to ${max}`)
  }
  // -0 is an integer that is not the same as 0.
  return value + 0
}

function booleanOf(value: unknown, path: string): boolean {
  if (typeof value !== 'boolean') throw fault(path, `${told(value)} is not a boolean`)
  return value
}

function textOf(value: unknown, path: string, pattern: RegExp, lengthMax: number): string {
  if (typeof value !== 'string' || value.length > lengthMax || !pattern.test(value)) {
    throw fault(
      path,
      `${typeof value === 'string' ? 'the text' : told(value)} has not the right form`,
    )
  }
  return value
}

function setOf(value: unknown, path: string): bigint {
  return BigInt(textOf(value, path, SET_PATTERN, 34))
}

function bytesOf(value: unknown, path: string, lengthMax: number): Uint8Array {
  return Uint8Array.from(Buffer.from(textOf(value, path, HEX_PATTERN, 2 * lengthMax), 'hex'))
}

function macOf(value: unknown, path: string): Uint8Array {
  return Uint8Array.from(textOf(value, path, MAC_PATTERN, 17).split(':'), (byte) =>
    parseInt(byte, 16),
  )
}
