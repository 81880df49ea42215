/** What a port is allowed, from its options, as the engine has it. */
import type { PortPolicy, VlanPolicy } from '../engine/messages.ts'
import { NO_POLICY } from '../engine/messages.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import { checkSwitching, vlanModeOf, vlanRanges } from '../port/switching-options.ts'

/** Throws ConfigError: whoever uses the library may give anything. */
export function policyOf(options: SwitchingOptions): PortPolicy {
  checkSwitching(options, (key) => key)
  return {
    ...NO_POLICY,
    vlan: vlanPolicy(options),
    isIsolated: options.isolated ?? false,
    floodsUnknown: options.flood ?? true,
    floodsMulticast: options['mcast-flood'] ?? true,
    floodsBroadcast: options['bcast-flood'] ?? true,
    hairpins: options.hairpin ?? false,
  }
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
