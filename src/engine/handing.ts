/** What an engine that is paused hands to another one, and takes from it: beside ports, which are handed one by one. */
import type { Clock } from '../mem/clock.ts'
import type { MacTable } from './mac-table.ts'
import type { GroupRows, HandedEngine, MacRows } from './messages.ts'
import { STATIC_AGE } from './messages.ts'
import type { OwnFrames } from './own-frames.ts'
import type { Snooping } from './snooping.ts'

/** An engine, as far as that goes. */
export interface HandingEngine {
  readonly own: OwnFrames
  readonly forwarder: { readonly macTable: MacTable }
  readonly snooping: Snooping
}

/** Addresses are asked for part by part. */
export function handOver({ own, forwarder }: HandingEngine): HandedEngine {
  const { moves, full } = forwarder.macTable
  return { macMoves: moves, macFull: full, own: own.all }
}

export function takeOver(
  { own, forwarder, snooping }: HandingEngine,
  handed: HandedEngine,
  macs: MacRows['rows'],
  groups: GroupRows['rows'],
  clock: Clock,
): void {
  const { macTable } = forwarder
  clock.read()
  const nowS = (clock.time[0] / 1e6) | 0
  for (const [hi, lo, port, ageS] of macs) {
    if (ageS === STATIC_AGE) macTable.addStatic(hi, lo, port)
    else macTable.learn(hi, lo, port, nowS - ageS)
  }
  for (const row of groups) snooping.restore(row)
  macTable.moves = handed.macMoves
  macTable.full = handed.macFull
  for (const { port, frame } of handed.own) own.add(port, frame)
}
