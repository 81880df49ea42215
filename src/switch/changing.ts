/** Changes the options of a port that runs, as far as they change in place: see port/in-place.ts. */
import { isDeepStrictEqual } from 'node:util'
import { ConfigError } from '../errors.ts'
import { changedInPlace } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import type { EngineClient } from '../engine/client.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import { onlySwitching } from '../port/switching-options.ts'
import { optionMacs, policyOf } from './policy.ts'
import { checkMacs } from './static-macs.ts'
import type { PortEntry } from './port-entry.ts'
import { checkNotWired } from './port-entry.ts'
import type { Undo } from './undo.ts'

/** Options that make no difference to what is learnt at a port. */
const OF_OTHER_THINGS: ReadonlySet<string> = new Set<keyof SwitchingOptions>([
  'priority-tags',
  'qinq-ethtype',
  'storm',
  'group-addresses',
  'isolated',
  'flood',
  'mcast-flood',
  'bcast-flood',
  'multicast-router',
  'ips',
  'hairpin',
])

/** Nothing else of the port is touched. What other ports make of it is agreed on afterwards. */
export async function changeOptions(
  entry: PortEntry,
  options: PortOptions,
  ports: readonly PortEntry[],
  engine: EngineClient,
  undo: Undo,
): Promise<void> {
  const { options: before, open } = entry
  const keys = changedInPlace(before, options)
  if (keys === null) {
    throw new ConfigError('BAD_OPTION', `port "${options.id}" must be made anew for that`, {
      hint: 'remove and add it',
    })
  }
  if (keys.length === 0) return
  undo(() => open.change?.(options, before))
  await open.change?.(before, options)
  checkNotWired(entry, options)
  checkMacs(optionMacs(options), ports, entry)
  undo(() => tell(entry, options, before, engine))
  await tell(entry, before, options, engine)
  undo(() => void (entry.options = before))
  entry.options = options
}

/** New addresses of a locked port are there before it heeds them, and old ones as long as it does. */
async function tell(
  { index: port, statics }: PortEntry,
  before: PortOptions,
  after: PortOptions,
  engine: EngineClient,
): Promise<void> {
  const policy = policyOf(after)
  const had = statics.all
  const wanted = optionMacs(after)
  await engine.request({ op: 'set-mtu', port, mtu: after.mtu ?? 0 })
  if (isDeepStrictEqual(onlySwitching(before), onlySwitching(after))) return
  if (wanted.length > 0) await engine.request({ op: 'add-macs', port, macs: wanted })
  await engine.request({ op: 'set-policy', port, policy })
  statics.setOptions(after)
  const gone = had.filter((mac) => !statics.has(mac))
  if (gone.length > 0) await engine.request({ op: 'remove-macs', port, macs: gone })
  if (isDeepStrictEqual(learningOf(before), learningOf(after))) return
  // What was learnt there may be in VLANs that it carries no more, or not to be learnt at all.
  await engine.request({ op: 'flush-macs', port, vlan: -1 })
}

/** Which addresses are learnt at the port: with `flood: off` the others find nobody there that is not. */
function learningOf(options: PortOptions): Record<string, unknown> {
  const all = Object.entries(onlySwitching(options))
  return Object.fromEntries(all.filter(([key]) => !OF_OTHER_THINGS.has(key)))
}
