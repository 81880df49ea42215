/** What an engine that is paused hands to another one, and takes from it: beside ports, which are handed one by one. */
import type { Clock } from '../mem/clock.ts'
import type { MacTable } from './mac-table.ts'
import type { GroupRows, HandedEngine, MacRows } from './messages.ts'
import { MAC_ROW, STATIC_AGE } from './messages.ts'
import type { OwnFrames } from './own-frames.ts'
import type { Snooping } from './snooping.ts'

/** An engine, as far as that goes. */
export interface HandingEngine {
  readonly own: OwnFrames
  readonly forwarder: { readonly macTable: MacTable }
  readonly snooping: Snooping
}

/** Addresses are asked for part by part. */
export function handOver({ own, forwarder, snooping }: HandingEngine): HandedEngine {
  const { moves, full, changes } = forwarder.macTable
  const { havingAll } = snooping
  return { macMoves: moves, macFull: full, macChanges: changes, havingAll, own: own.all }
}

/** `macs` null: it has the addresses by a preview. */
export function takeOver(
  { own, forwarder, snooping }: HandingEngine,
  handed: HandedEngine,
  macs: MacRows['rows'] | null,
  groups: GroupRows['rows'],
  clock: Clock,
): void {
  const { macTable } = forwarder
  if (macs !== null) takeAddresses(macTable, macs, clock)
  for (const row of groups) snooping.restore(row)
  for (const [port, left] of handed.havingAll) snooping.restoreAll(port, left)
  macTable.moves = handed.macMoves
  macTable.full = handed.macFull
  for (const { port, frame } of handed.own) own.add(port, frame)
}

function takeAddresses(macTable: MacTable, macs: MacRows['rows'], clock: Clock): void {
  // Those of a preview may be wrong by now.
  macTable.clear()
  clock.read()
  const nowS = (clock.time[0] / 1e6) | 0
  for (let at = 0; at < macs.length; at += MAC_ROW) {
    const ageS = macs[at + 3]
    if (ageS === STATIC_AGE) macTable.addStatic(macs[at], macs[at + 1], macs[at + 2])
    else macTable.learn(macs[at], macs[at + 1], macs[at + 2], nowS - ageS)
  }
}
