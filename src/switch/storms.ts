/**
 * Storm control, as it is told: a line when frames begin to be dropped at a port, and one when that is over. Guards
 * likewise, with the reason and a sender, again after a quiet minute.
 */
import type { EngineEvents } from '../engine/client.ts'
import type { GuardDrops, StormChange } from '../engine/messages.ts'
import type { Log } from '../text.ts'
import { formatMac } from '../wire/ethernet.ts'
import type { PortTable } from './port-table.ts'

/** By STORM_ of engine/storm.ts. */
const KINDS: readonly string[] = ['broadcast', 'multicast', 'unknown-unicast']

function tellStorms(changes: readonly StormChange[], ports: PortTable, log: Log): void {
  for (const { port, kind, isStorm, dropped } of changes) {
    const entry = ports.at(port)
    if (entry === undefined) continue
    const { type, id } = entry.options
    const what = `${KINDS[kind]} storm ${isStorm ? 'began' : 'is over'} dropped=${dropped}`
    log(`${type} ${id}: ${what}`, isStorm ? 'warning' : 'info')
  }
}

/** By the reasons of engine/guard-check.ts. */
const REASONS: readonly string[] = [
  '',
  'source MAC',
  'cannot be read to its end',
  'ARP sender',
  'IPv4 source',
  'IPv6 source',
  'neighbour discovery',
  'DHCP server',
  'router',
]

function tellGuardDrops(drops: readonly GuardDrops[], ports: PortTable, log: Log): void {
  for (const { port, reason, dropped, hi, lo } of drops) {
    const entry = ports.at(port)
    if (entry === undefined) continue
    const { type, id } = entry.options
    const what = `reason="${REASONS[reason]}" frames=${dropped} from=${formatMac(hi, lo)}`
    log(`${type} ${id}: guard dropped ${what}`, 'warning')
  }
}

/** What is made of the engine's events about what ports are allowed. */
export function policyEvents(
  ports: PortTable,
  log: Log,
): Pick<EngineEvents, 'storms' | 'guardDrops'> {
  return {
    storms: (changes) => tellStorms(changes, ports, log),
    guardDrops: (drops) => tellGuardDrops(drops, ports, log),
  }
}
