/** The shared counters of all ports, and one port's cells in them. */
import { COUNTER_NAMES, COUNTERS, COUNTERS_STRIDE } from './counters.ts'
import type { CounterName } from './counters.ts'

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
