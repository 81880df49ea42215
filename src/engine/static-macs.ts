/** Static entries of the forwarding database, as the control plane gives them: all of them or none. */
import { FramepumpError } from '../errors.ts'
import type { MacTable } from './mac-table.ts'
import type { StaticMac } from './messages.ts'

/** Throws FDB_FULL, and has added none. */
export function addStaticMacs(table: MacTable, port: number, macs: readonly StaticMac[]): void {
  for (const [at, [hi, lo]] of macs.entries()) {
    if (table.addStatic(hi, lo, port)) continue
    for (const [addedHi, addedLo] of macs.slice(0, at)) table.removeStatic(addedHi, addedLo, port)
    throw new FramepumpError('FDB_FULL', 'the forwarding database is full of static entries', {
      hint: 'a larger mac-table-size, or fewer entries',
    })
  }
}
