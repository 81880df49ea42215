/** What ports are allowed, for engines and forwarders that tests make themselves. */
import type { PortPolicy } from '../../src/engine/messages.ts'
import { NO_POLICY } from '../../src/engine/messages.ts'
import { PortPolicies } from '../../src/engine/port-policy.ts'
import type { LeavingWatch } from '../../src/offload/tag-stage.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { policyOf } from '../../src/switch/policy.ts'

/** All group addresses pass, and none. */
export const ALL_GROUPS = 0xffff
export const NO_GROUPS = 0

export const NOBODY_WATCHES: LeavingWatch = { isWatching: false, leaves: () => undefined }

export function policies(groups: number = ALL_GROUPS): PortPolicies {
  const made = new PortPolicies(new Float64Array(4), new Float64Array(1024 * 64))
  made.setGroups(groups)
  return made
}

/** As the options of a port say. */
export function policy(options: SwitchingOptions): PortPolicy {
  return policyOf(options)
}

export { NO_POLICY }
