/** The shared counters of all ports, and one port's cells in them. */
import { COUNTER_NAMES, COUNTERS, COUNTERS_STRIDE } from './counters.ts'
import type { CounterName } from './counters.ts'

/** Where those of COUNTER_NAMES are. */
const CELLS: readonly number[] = COUNTER_NAMES.map((name) => COUNTERS[name])

/** Shared memory for the counters of `ports` ports. */
export function allocateCounters(ports: number): SharedArrayBuffer {
  return new SharedArrayBuffer(ports * COUNTERS_STRIDE * Float64Array.BYTES_PER_ELEMENT)
}

/** All counters of a port by name, as they are now. */
export function readCounters(cells: Float64Array, port: number): Record<CounterName, number> {
  const base = port * COUNTERS_STRIDE
  const values = {} as Record<CounterName, number>
  for (const name of COUNTER_NAMES) values[name] = cells[base + COUNTERS[name]]!
  return values
}

/** Those that are not zero. */
export function countedSoFar(
  cells: Float64Array,
  port: number,
): Partial<Record<CounterName, number>> {
  const base = port * COUNTERS_STRIDE
  const values: Partial<Record<CounterName, number>> = {}
  for (const name of COUNTER_NAMES) {
    const value = cells[base + COUNTERS[name]]
    if (value !== 0) values[name] = value
  }
  return values
}

/** The cells of a port as they are now, for `countedSince`. */
export function copyCounters(cells: Float64Array, port: number): Float64Array {
  return cells.slice(port * COUNTERS_STRIDE, (port + 1) * COUNTERS_STRIDE)
}

/** Those that are not as they were. */
export function countedSince(
  cells: Float64Array,
  port: number,
  before: Float64Array,
): Partial<Record<CounterName, number>> {
  const base = port * COUNTERS_STRIDE
  const values: Partial<Record<CounterName, number>> = {}
  for (let at = 0; at < COUNTER_NAMES.length; at++) {
    const value = cells[base + CELLS[at]]
    if (value !== before[CELLS[at]]) values[COUNTER_NAMES[at]] = value
  }
  return values
}

/** These go on from there, the others stay as they are. */
export function changeCounters(
  cells: Float64Array,
  port: number,
  values: Readonly<Partial<Record<CounterName, number>>>,
): void {
  const base = port * COUNTERS_STRIDE
  for (const name in values) {
    if (Object.hasOwn(COUNTERS, name)) {
      cells[base + COUNTERS[name as CounterName]] = values[name as CounterName]!
    }
  }
}

/** Goes on from these; those without a value from zero. */
export function writeCounters(
  cells: Float64Array,
  port: number,
  values: Readonly<Partial<Record<CounterName, number>>>,
): void {
  const base = port * COUNTERS_STRIDE
  for (const name of COUNTER_NAMES) cells[base + COUNTERS[name]] = values[name] ?? 0
}

/** Sets all counters of a port to zero: its number is about to be used by another port. */
export function clearCounters(cells: Float64Array, port: number): void {
  cells.fill(0, port * COUNTERS_STRIDE, (port + 1) * COUNTERS_STRIDE)
}
