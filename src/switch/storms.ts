/** Storm control, as it is told: a line when frames begin to be dropped at a port, and one when that is over. */
import type { StormChange } from '../engine/messages.ts'
import type { Log } from '../text.ts'
import type { PortTable } from './port-table.ts'

/** By STORM_ of engine/storm.ts. */
const KINDS: readonly string[] = ['broadcast', 'multicast', 'unknown-unicast']

export function tellStorms(changes: readonly StormChange[], ports: PortTable, log: Log): void {
  for (const { port, kind, isStorm, dropped } of changes) {
    const entry = ports.at(port)
    if (entry === undefined) continue
    const { type, id } = entry.options
    const what = `${KINDS[kind]} storm ${isStorm ? 'began' : 'is over'} dropped=${dropped}`
    log(`${type} ${id}: ${what}`, isStorm ? 'warning' : 'info')
  }
}
