/** Frames that came in by a port and never became one of a burst, in its counters. */
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'

/** The last three arguments are counts. */
export function countRxDrops(
  counters: Float64Array,
  port: number,
  malformed: number,
  unknownGsoType: number,
  oversize: number,
): void {
  const base = port * COUNTERS_STRIDE
  counters[base + COUNTERS.rx_drop_malformed] += malformed
  counters[base + COUNTERS.rx_drop_gso_type] += unknownGsoType
  counters[base + COUNTERS.rx_drop_oversize] += oversize
}
