/** The ports of a switch as the control plane keeps them: by id, and by their number in the engine. */
import type { MacRows } from '../engine/messages.ts'
import { ConfigError, StateError } from '../errors.ts'
import type { MacEntry, MemoryPort, VirtioNetPort } from './api.ts'
import type { PortEntry } from './port-entry.ts'
import { freeIndex, listMacs } from './port-entry.ts'

export class PortTable {
  readonly #byId = new Map<string, PortEntry>()
  readonly #byIndex: (PortEntry | undefined)[] = []
  /** Numbers in the engine that are no port's of the user. */
  readonly #reserved = new Set<number>()

  /** In the order in which they were added. */
  get all(): PortEntry[] {
    return [...this.#byId.values()]
  }

  /** Throws StateError when there is none. */
  entry(id: string): PortEntry {
    const entry = this.#byId.get(id)
    if (entry === undefined) throw new StateError('PORT_NOT_FOUND', `Device '${id}' not found`)
    return entry
  }

  find(id: string): PortEntry | undefined {
    return this.#byId.get(id)
  }

  memoryPort(id: string): MemoryPort {
    const { memoryPort } = this.entry(id).open
    if (memoryPort !== undefined) return memoryPort
    throw new StateError('NOT_A_MEMORY_PORT', `port "${id}" is not a memory port`)
  }

  virtioNetPort(id: string): VirtioNetPort {
    const { virtioNetPort } = this.entry(id).open
    if (virtioNetPort !== undefined) return virtioNetPort
    throw new StateError('VIRTIO_NET', `port "${id}" is not a virtio-net port`)
  }

  at(index: number): PortEntry | undefined {
    return this.#byIndex[index]
  }

  /** It has not been removed since. */
  has(entry: PortEntry): boolean {
    return this.#byIndex[entry.index] === entry
  }

  /** The number for a new port with this id; throws when there is none. */
  freeIndex(id: string): number {
    if (this.#byId.has(id)) throw new ConfigError('DUPLICATE_ID', `Duplicate ID '${id}'`)
    return this.#freeIndex()
  }

  #freeIndex(): number {
    return freeIndex((index) => this.#byIndex[index] !== undefined || this.#reserved.has(index))
  }

  /** A number in the engine for something else, until `unreserve`; throws when there is none. */
  reserve(): number {
    const index = this.#freeIndex()
    this.#reserved.add(index)
    return index
  }

  unreserve(index: number): void {
    this.#reserved.delete(index)
  }

  /** Rows [hi, lo, port, age in seconds] of the engine's table; ports that are gone have none. */
  macEntries(rows: MacRows['rows']): MacEntry[] {
    return listMacs(rows, this.#byIndex)
  }

  add(entry: PortEntry): void {
    this.#byId.set(entry.options.id, entry)
    this.#byIndex[entry.index] = entry
  }

  /** A port that it was wired to is on the switch again. */
  remove(entry: PortEntry): void {
    if (entry.peer !== undefined) entry.peer.peer = undefined
    entry.peer = undefined
    this.#byId.delete(entry.options.id)
    this.#byIndex[entry.index] = undefined
  }
}
