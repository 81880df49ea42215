/** What is made of the sender of frames, by what its port is allowed. */
import { COUNTERS } from '../stats/counters.ts'
import { isGroup } from '../wire/ethernet.ts'
import type { MacTable } from './mac-table.ts'
import { LEARNT, OVER_LIMIT } from './mac-table.ts'
import { DROPS_OVER_LIMIT, IS_LOCKED, LEARNS_NOT } from './port-policy.ts'

/** In the place of a counter: the frames pass. */
export const PASSES = -1

/**
 * Takes the sender of frames in that came in by the port with these flags; the VLAN is in the upper half of
 * `lo`. Returns PASSES, or the counter of what is dropped because of it. @hot
 */
export function meetSender(
  table: MacTable,
  hi: number,
  lo: number,
  port: number,
  flags: number,
  nowS: number,
): number {
  if (isGroup(hi) || (hi | (lo & 0xffff)) === 0) return COUNTERS.rx_drop_source
  if ((flags & IS_LOCKED) !== 0) {
    return table.isStatic(hi, lo, port) ? PASSES : COUNTERS.rx_drop_locked
  }
  if ((flags & LEARNS_NOT) !== 0) {
    return table.mayCome(hi, lo, port) ? PASSES : COUNTERS.rx_drop_mac_moved
  }
  const learnt = table.learn(hi, lo, port, nowS)
  if (learnt === LEARNT) return PASSES
  if (learnt !== OVER_LIMIT) return COUNTERS.rx_drop_mac_moved
  return (flags & DROPS_OVER_LIMIT) === 0 ? PASSES : COUNTERS.rx_drop_mac_limit
}
