/** What a port is allowed, from its options, as the engine has it. */
import type { PortPolicy, StaticMac, StormRates, VlanPolicy } from '../engine/messages.ts'
import { NO_POLICY } from '../engine/messages.ts'
import { ConfigError } from '../errors.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import {
  checkSwitching,
  groupMask,
  guardOf,
  lockedVlans,
  vlanModeOf,
  vlanRanges,
} from '../port/switching-options.ts'
import { formatMac, isGroup, parseMac } from '../wire/ethernet.ts'

const VLAN_MAX = 4095

/** Throws ConfigError. */
export function checkVlan(vlan: number | undefined): void {
  if (vlan === undefined || (Number.isInteger(vlan) && vlan >= 0 && vlan <= VLAN_MAX)) return
  throw new ConfigError('BAD_OPTION', `"vlan" must be a number from 0 to ${VLAN_MAX}`)
}

/** An address as the switch tells it, however it is written. Throws ConfigError. */
export function spellMac(text: string): string {
  return formatMac(...macOf(text))
}

function macOf(text: string): readonly [hi: number, lo: number] {
  const address = parseMac(text)
  if (address !== undefined) return address
  throw new ConfigError('BAD_OPTION', `"${text}" is not a MAC address`)
}

/** Throws ConfigError. */
export function staticMac(mac: string, vlan: number): StaticMac {
  const [hi, lo] = macOf(mac)
  checkVlan(vlan)
  if (isGroup(hi) || (hi | lo) === 0) {
    throw new ConfigError('BAD_OPTION', `${mac} is no sender's address`)
  }
  return [hi, lo | (vlan << 16)]
}

/** Throws ConfigError: whoever uses the library may give anything. */
export function policyOf(options: SwitchingOptions): PortPolicy {
  checkSwitching(options, (key) => key)
  const { 'group-addresses': groups } = options
  return {
    ...NO_POLICY,
    vlan: vlanPolicy(options),
    isIsolated: options.isolated ?? false,
    floodsUnknown: options.flood ?? true,
    floodsMulticast: options['mcast-flood'] ?? true,
    floodsBroadcast: options['bcast-flood'] ?? true,
    hairpins: options.hairpin ?? false,
    learns: options.learning ?? true,
    isLocked: options.locked ?? false,
    isSticky: options.sticky ?? false,
    macLimit: options['mac-limit'] ?? NO_POLICY.macLimit,
    dropsOverLimit: options['mac-limit-action'] === 'drop',
    storm: options.storm === undefined ? null : stormRates(options.storm),
    groups: groups === undefined ? null : groupMask(groups, 'group-addresses'),
    guard: guardOf(options),
    multicastRouter: options['multicast-router'] ?? NO_POLICY.multicastRouter,
  }
}

function stormRates(storm: NonNullable<SwitchingOptions['storm']>): StormRates {
  return [storm.broadcast ?? 0, storm.multicast ?? 0, storm['unknown-unicast'] ?? 0]
}

/** The static entries of a locked port. */
export function optionMacs(options: SwitchingOptions): StaticMac[] {
  const vlans = lockedVlans(options, (key) => key)
  return vlans.flatMap((vlan) => (options.macs ?? []).map((mac) => staticMac(mac, vlan)))
}

function vlanPolicy(options: SwitchingOptions): VlanPolicy | null {
  const mode = vlanModeOf(options)
  if (mode === undefined) return null
  return {
    mode,
    priorityTags: options['priority-tags'] ?? 'never',
    tag: options.tag ?? 0,
    isQinq8100: options['qinq-ethtype'] === '0x8100',
    trunks: vlanRanges(options.trunks, 'trunks'),
    cvlans: vlanRanges(options.cvlans, 'cvlans'),
  }
}
