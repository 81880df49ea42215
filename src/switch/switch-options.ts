/** Checks of the options of a switch, and names for offload bits. */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../abi/if-tun.ts'
import { ConfigError } from '../errors.ts'
import type { TierChoice } from '../io/probe.ts'
import { groupMask } from '../port/switching-options.ts'
import type { OffloadName, SwitchOptions, SwitchSettings } from './api.ts'
import type { EngineSettings } from '../engine/client.ts'
import type { EngineSettingsInPlace, SnoopingSettings } from '../engine/messages.ts'
import { NO_SNOOPING } from '../engine/messages.ts'

const OFFLOAD_NAMES: readonly (readonly [number, OffloadName])[] = [
  [TUN_F_CSUM, 'csum'],
  [TUN_F_TSO4, 'tso4'],
  [TUN_F_TSO6, 'tso6'],
  [TUN_F_TSO_ECN, 'ecn'],
  [TUN_F_UFO, 'ufo'],
  [TUN_F_USO4, 'uso4'],
  [TUN_F_USO6, 'uso6'],
  [TUN_F_UDP_TUNNEL_GSO, 'udp-tunnel'],
  [TUN_F_UDP_TUNNEL_GSO_CSUM, 'udp-tunnel-csum'],
]

export function offloadNames(bits: number): OffloadName[] {
  return OFFLOAD_NAMES.filter(([bit]) => (bits & bit) !== 0).map(([, name]) => name)
}

export function checkSwitchOptions(options: SwitchOptions): void {
  oneOf('io', options.io, ['auto', 'io_uring-multishot', 'read-write'])
  oneOf('pace', options.pace, ['adaptive', 'busy', 'interrupt', 'warm'])
  groupsOf(options)
  inRange('macAgingS', options.macAgingS, 1, 1_000_000)
  inRange('macTableSize', options.macTableSize, 16, 1_048_576)
  inRange('snooping.maxGroups', options.snooping?.maxGroups, 16, 65_536)
  inRange('snooping.maxGroupsPerPort', options.snooping?.maxGroupsPerPort, 1, 65_536)
}

/** What the engine is made with, where it is not given. */
export function engineSettings(options: SwitchOptions, tier: TierChoice): EngineSettings {
  return {
    io: tier.name,
    usesAio: tier.usesAio,
    macTableSize: options.macTableSize ?? 8192,
    ...settingsInPlace(options),
  }
}

export function settingsInPlace(options: SwitchSettings): EngineSettingsInPlace {
  return {
    pace: options.pace ?? 'adaptive',
    macAgingS: options.macAgingS ?? 300,
    groups: groupsOf(options),
    snooping: snoopingOf(options),
  }
}

const snoopingOf = ({ snooping = {} }: SwitchSettings): SnoopingSettings => ({
  igmp: snooping.igmp ?? NO_SNOOPING.igmp,
  mld: snooping.mld ?? NO_SNOOPING.mld,
  maxGroups: snooping.maxGroups ?? NO_SNOOPING.maxGroups,
  maxGroupsPerPort: snooping.maxGroupsPerPort ?? NO_SNOOPING.maxGroupsPerPort,
})

const groupsOf = ({ groupAddresses = 'transparent' }: SwitchSettings): number =>
  groupMask(groupAddresses, 'groupAddresses')

function oneOf(key: string, value: string | undefined, allowed: readonly string[]): void {
  if (value !== undefined && !allowed.includes(value)) {
    throw new ConfigError('BAD_OPTION', `${key} must be one of ${allowed.join(', ')}`, {
      path: key,
    })
  }
}

function inRange(key: string, value: number | undefined, least: number, most: number): void {
  if (value !== undefined && !(Number.isInteger(value) && value >= least && value <= most)) {
    throw new ConfigError('BAD_OPTION', `${key} must be ${least} to ${most}`, { path: key })
  }
}
