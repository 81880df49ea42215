/** Changes the options of a port that runs, as far as they change in place: see port/in-place.ts. */
import { ConfigError } from '../errors.ts'
import { changedInPlace } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import type { EngineClient } from '../engine/client.ts'
import { policyOf } from './policy.ts'
import type { PortEntry } from './port-entry.ts'
import { checkNotWired } from './port-entry.ts'
import type { Undo } from './undo.ts'

/** Nothing else of the port is touched. What other ports make of it is agreed on afterwards. */
export async function changeOptions(
  entry: PortEntry,
  options: PortOptions,
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
  undo(() => tell(entry, before, engine))
  await tell(entry, options, engine)
  undo(() => void (entry.options = before))
  entry.options = options
}

async function tell(entry: PortEntry, options: PortOptions, engine: EngineClient): Promise<void> {
  const { index: port } = entry
  const policy = policyOf(options)
  await engine.request({ op: 'set-mtu', port, mtu: options.mtu ?? 0 })
  await engine.request({ op: 'set-policy', port, policy })
  // What was learnt there may be in VLANs that it carries no more.
  await engine.request({ op: 'flush-macs', port, vlan: -1 })
}
