/**
 * How many entries of a table each port has, and which port has the most: all in a few steps, as
 * counts change by one. Ports with the same count are a list:
 *
 *     heads[count] -> port <-> port <-> ...          busiest: the head of the highest one
 */
import { PORTS_MAX } from '../port/contract.ts'

const NONE = -1

export class PortShares {
  readonly #count: Int32Array = new Int32Array(PORTS_MAX)
  readonly #heads: Int32Array
  readonly #next: Int32Array = new Int32Array(PORTS_MAX)
  readonly #previous: Int32Array = new Int32Array(PORTS_MAX)
  #most = 0

  /** `size` entries at most of all ports together. */
  constructor(size: number) {
    this.#heads = new Int32Array(size + 1).fill(NONE)
  }

  /** @hot */
  count(port: number): number {
    return this.#count[port]
  }

  /** Entries of the port that has the most. @hot */
  get most(): number {
    return this.#most
  }

  /** One of the ports that have the most entries. Somebody has one. @hot */
  get busiest(): number {
    return this.#heads[this.#most]
  }

  /** Nobody has any. Control plane. */
  clear(): void {
    this.#count.fill(0)
    this.#heads.fill(NONE)
    this.#most = 0
  }

  /** @hot */
  add(port: number): void {
    const count = this.#count[port]
    if (count > 0) this.#leave(port, count)
    this.#join(port, count + 1)
    if (count + 1 > this.#most) this.#most = count + 1
  }

  /** @hot */
  remove(port: number): void {
    const count = this.#count[port]
    this.#leave(port, count)
    this.#join(port, count - 1)
    // The port itself is one of those that now have the most.
    if (this.#heads[count] === NONE && count === this.#most) this.#most = count - 1
  }

  /** @hot */
  #leave(port: number, count: number): void {
    const next = this.#next[port]
    const previous = this.#previous[port]
    if (previous === NONE) this.#heads[count] = next
    else this.#next[previous] = next
    if (next !== NONE) this.#previous[next] = previous
  }

  /** Ports without entries are in no list. @hot */
  #join(port: number, count: number): void {
    this.#count[port] = count
    if (count === 0) return
    const head = this.#heads[count]
    this.#next[port] = head
    this.#previous[port] = NONE
    if (head !== NONE) this.#previous[head] = port
    this.#heads[count] = port
  }
}
