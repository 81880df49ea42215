/**
 * Which ports pass frames: what has failed, who is connected, and what of it the engine and those who
 * listen to events are told.
 */
import type { EventEmitter } from 'node:events'
import type { PortFailure } from '../port/messages.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import type { SwitchEvents } from './api.ts'
import type { EngineClient } from '../engine/client.ts'
import type { PortEntry } from './port-entry.ts'
import { whyFailed } from './port-entry.ts'
import type { PortTable } from './port-table.ts'

export class PortStates {
  readonly #ports: PortTable
  readonly #engine: EngineClient
  readonly #events: EventEmitter<SwitchEvents>
  readonly #log: Log

  constructor(
    ports: PortTable,
    engine: EngineClient,
    events: EventEmitter<SwitchEvents>,
    log: Log,
  ) {
    this.#ports = ports
    this.#engine = engine
    this.#events = events
    this.#log = log
  }

  /** Tells the engine whether frames pass. */
  tell(entry: PortEntry): Promise<unknown> {
    return this.#engine.request({ op: 'set-link', port: entry.index, isUp: entry.isUp })
  }

  /** Tells those who listen. */
  show(entry: PortEntry): void {
    this.#events.emit('port-changed', entry.info(this.#engine.counters))
  }

  /** The engine cannot go on with a port. */
  portFailed(index: number, failure: PortFailure): void {
    const entry = this.#ports.at(index)
    if (entry === undefined) return
    // What takes memory away is the guest whose it is.
    const isGuests = failure.what === 'memory-lost'
    this.#fail(entry, whyFailed(failure, entry.open.facts()), isGuests)
    entry.open.failed?.()
    this.#tellLater(entry)
  }

  /** A guest broke one of its queues. */
  queueBroken(index: number, queue: number, reason: string): void {
    const entry = this.#ports.at(index)
    if (entry === undefined) return
    this.#fail(entry, `queue ${queue} is broken: ${reason}`, true)
    entry.open.queueBroken?.(queue)
    this.#tellLater(entry)
  }

  /** The control plane's end of a port found that it cannot go on. */
  async stopped(id: string, reason: string): Promise<void> {
    const entry = this.#ports.find(id)
    if (entry === undefined) return
    this.#fail(entry, reason, false)
    await this.tell(entry)
  }

  #fail(entry: PortEntry, reason: string, isGuests: boolean): void {
    if (!entry.fail(reason, isGuests)) return
    this.#log(`${entry.options.type} ${entry.options.id}: failed error=${reason}`, 'error')
    this.show(entry)
  }

  /** The engine has set the link down itself, but what was said before may have set it up again. */
  #tellLater(entry: PortEntry): void {
    this.tell(entry).catch((error) => this.#log(explain(error), 'error'))
  }

  /**
   * Another guest takes over: what the one before it did wrong is not its fault. Before any of its
   * queues runs, as what those have already is not to be dropped.
   */
  async newGuest(entry: PortEntry): Promise<void> {
    if (!this.#ports.has(entry) || !entry.forgive()) return
    entry.wasConnected = false
    this.show(entry)
    await this.tell(entry)
  }

  /**
   * A guest came or went, or negotiated anew; `agreed`: what depends on that is settled. A guest that
   * comes back is given another chance.
   */
  async connectionChanged(entry: PortEntry, agree: () => Promise<void>): Promise<void> {
    if (!this.#ports.has(entry)) return
    if (entry.open.isConnected === false && entry.forgive()) this.#showConnection(entry)
    await Promise.all([agree(), this.tell(entry)])
    this.#showConnection(entry)
  }

  /** After the engine has heard of it: frames pass now, or do not any more. */
  #showConnection(entry: PortEntry): void {
    const { isConnected } = entry.open
    if (!this.#ports.has(entry) || isConnected === entry.wasConnected) return
    entry.wasConnected = isConnected
    this.show(entry)
  }
}
