/**
 * What is told of loops outside the switch, of which the engine says once a second that they are there:
 * each of them once, and again when it has been quiet for a while or is another one. Ports are known to
 * be on one loop together until one of them is gone, down or wired; one that joins them is told as well.
 */
import type { EventEmitter } from 'node:events'
import { formatMac } from '../wire/ethernet.ts'
import type { LoopInfo, SwitchEvents } from './api.ts'
import type { MovingAddress } from '../engine/messages.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortTable } from './port-table.ts'
import type { Log } from '../text.ts'

/** Without moves for so long a loop is over. */
export const QUIET_MS = 60_000

interface Loop {
  readonly ports: Set<PortEntry>
  /** How many they were when it was told. */
  told: number
  seenMs: number
}

export class Loops {
  readonly #ports: PortTable
  readonly #events: EventEmitter<SwitchEvents>
  readonly #log: Log
  readonly #now: () => number
  /** No port is on two of them. */
  #loops: Loop[] = []

  constructor(
    ports: PortTable,
    events: EventEmitter<SwitchEvents>,
    log: Log,
    now: () => number = () => performance.now(),
  ) {
    this.#ports = ports
    this.#events = events
    this.#log = log
    this.#now = now
  }

  /** Addresses kept moving in the last second: the busiest pair of ports first. */
  seen(moving: readonly MovingAddress[]): void {
    const nowMs = this.#now()
    this.#loops = this.#loops.filter(
      ({ ports, seenMs }) =>
        nowMs - seenMs < QUIET_MS && [...ports].every((port) => this.#canLoop(port)),
    )
    const seen = moving.flatMap(({ hi, lo, ports, moves }) => {
      const [first, second] = ports.map((index) => this.#ports.at(index))
      const canLoop = this.#canLoop(first) && this.#canLoop(second)
      return canLoop ? [{ mac: formatMac(hi, lo), first, second, moves }] : []
    })
    for (const { first, second } of seen) this.#join(first, second, nowMs)
    for (const loop of this.#loops) {
      if (loop.ports.size === loop.told) continue
      loop.told = loop.ports.size
      const news = seen.filter(({ first }) => loop.ports.has(first))
      this.#tell({
        mac: news[0].mac,
        ports: this.#ports.all.flatMap((port) => (loop.ports.has(port) ? [port.options.id] : [])),
        moves: news.reduce((sum, { moves }) => sum + moves, 0),
      })
    }
  }

  /** Frames come in by it and are sent on. */
  #canLoop(entry: PortEntry | undefined): entry is PortEntry {
    return entry !== undefined && this.#ports.has(entry) && entry.isUp && entry.peer === undefined
  }

  /** Both are on one loop, with whatever is on one with either. */
  #join(first: PortEntry, second: PortEntry, seenMs: number): void {
    const joined = this.#loops.filter(({ ports }) => ports.has(first) || ports.has(second))
    const ports = new Set([...joined.flatMap((loop) => [...loop.ports]), first, second])
    const others = this.#loops.filter((loop) => !joined.includes(loop))
    this.#loops = [...others, { ports, told: joined[0]?.told ?? 0, seenMs }]
  }

  #tell(loop: LoopInfo): void {
    const names = loop.ports.map((id) => `"${id}"`)
    this.#log(
      `switch: ${loop.mac} keeps moving between ports ${names.slice(0, -1).join(', ')} and ` +
        `${names.at(-1)} (${loop.moves} times in a second): they are probably connected outside the ` +
        `switch as well (a loop), or two senders have this address; remove one of these ports, ` +
        `or set its link down`,
      'warning',
    )
    this.#events.emit('loop-detected', loop)
  }
}
