/** Adds ports to a switch, and wires them. */
import { ConfigError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { clearCounters } from '../stats/port-counters.ts'
import type { AddPortSettings } from './api.ts'
import { release } from './holding.ts'
import { openOrPostpone } from './opening.ts'
import type { SwitchParts } from './parts.ts'
import { checkMacs } from './static-macs.ts'
import { optionMacs, policyOf } from './policy.ts'
import { checkWirable, checkWirablePeer, PortEntry } from './port-entry.ts'
import type { PortOpener } from './port-opener.ts'
import type { Undo } from './undo.ts'

/** Opens the port and puts it on the switch, or on a link. */
export async function addPort(
  parts: SwitchParts,
  opener: PortOpener,
  options: PortOptions,
  given: ReadonlyMap<string, number>,
  { keepsUnusable = false, isHeld = false, peer }: AddPortSettings,
  undo: Undo,
): Promise<PortEntry> {
  const { engine, ports, agreement, captures, watcher, states, context, access, forget } = parts
  const index = ports.freeIndex(options.id)
  const policy = policyOf(options)
  const macs = optionMacs(options)
  checkMacs(macs, ports.all)
  const other = peer === undefined ? undefined : ports.entry(peer)
  if (other !== undefined) checkWirablePeer(other, options)
  const { open, notPostponed } = await openOrPostpone(
    options,
    context(options.id, given),
    keepsUnusable,
  )
  undo(() => open.abandon?.() ?? open.close())
  const entry = new PortEntry(index, options, open, notPostponed)
  // Its first frame is for its peer as well.
  entry.isHeld = isHeld || other !== undefined
  clearCounters(engine.counters, index)
  undo(() => forget(entry))
  ports.add(entry)
  await parts.mirrors.portsChanged()
  // Before the first frame, so that none needs what this port cannot take.
  void agreement.reach()
  undo(() => engine.request({ op: 'remove-port', port: index }))
  undo(() => open.stop?.())
  await engine.request({
    op: 'add-port',
    port: index,
    mtu: options.mtu ?? 0,
    txOffloads: open.txOffloads,
    description: open.description,
    isHeld: entry.isHeld,
    policy,
    macs,
  })
  await captures.add(entry)
  watcher.add(entry)
  if (!entry.isUp) await states.tell(entry)
  open.start?.(access(entry))
  if (other !== undefined) {
    await wire(parts, opener, entry, other, undo)
    if (!isHeld && !other.isHeld) await release(engine, [entry])
  }
  return entry
}

/** Wires two ports to each other; one that waits is opened for a peer that cannot take it so. */
export async function wire(
  { engine, mirrors }: SwitchParts,
  opener: PortOpener,
  first: PortEntry,
  second: PortEntry,
  undo: Undo,
): Promise<void> {
  checkWirable(first, second)
  for (const { options } of [first, second]) mirrors.checkWirable(options.id)
  for (const [one, other] of [
    [first, second],
    [second, first],
  ]) {
    const isWaiting = one.open.postponed !== undefined
    if (isWaiting && !other.open.acceptsPostponedPeer) await opener.openPostponed(one, undo)
  }
  const ends = { a: first.index, b: second.index }
  undo(() => engine.request({ op: 'unwire', ...ends }))
  await engine.request({ op: 'wire', ...ends })
  undo(() => opener.setPeers(first, second, false))
  await opener.setPeers(first, second, true)
}

/** Puts two ports back on the switch. */
export async function unwire(
  { engine }: SwitchParts,
  opener: PortOpener,
  first: PortEntry,
  second: PortEntry,
  undo: Undo,
): Promise<void> {
  if (first.peer !== second) {
    const names = `"${first.options.id}" and "${second.options.id}"`
    throw new ConfigError('BAD_LINK', `${names} are not wired to each other`)
  }
  undo(() => opener.setPeers(first, second, true))
  // Back on the switch they may meet ports that can take less.
  await opener.setPeers(first, second, false)
  const ends = { a: first.index, b: second.index }
  undo(() => engine.request({ op: 'wire', ...ends }))
  await engine.request({ op: 'unwire', ...ends })
}
