/**
 * Ports that are given every group whatever they ask for: those with routers by their option, and for a while those
 * for whose groups there was no room. And ports that are never taken for those of routers, whatever comes by them.
 */
import { PORTS_MAX } from '../port/contract.ts'

/** What the option of a port says of routers: they are those that are heard; there are none; there are some. */
export const ROUTERS_AUTO = 0
export const ROUTERS_NEVER = 1
export const ROUTERS_ALWAYS = 2

export class RouterPorts {
  /** By port. */
  readonly #modes: Uint8Array = new Uint8Array(PORTS_MAX)
  #neverCount = 0
  readonly #always: Int32Array = new Int32Array(PORTS_MAX)
  #alwaysCount = 0
  /** By port: until then it has everything, as there was no room; and those ports. */
  readonly #hasAllUntil: Int32Array = new Int32Array(PORTS_MAX)
  readonly #havingAll: Int32Array = new Int32Array(PORTS_MAX)
  #havingAllCount = 0

  /** From the next burst on. */
  setMode(port: number, mode: number): void {
    if (this.#modes[port] === mode) return
    this.#modes[port] = mode
    this.#neverCount = 0
    this.#alwaysCount = 0
    for (let at = 0; at < PORTS_MAX; at++) {
      if (this.#modes[at] === ROUTERS_NEVER) this.#neverCount++
      if (this.#modes[at] === ROUTERS_ALWAYS) this.#always[this.#alwaysCount++] = at
    }
  }

  /** @hot */
  isNever(port: number): boolean {
    return this.#modes[port] === ROUTERS_NEVER
  }

  /** There is no room for what the port wants. @hot */
  giveAll(port: number, until: number): void {
    if (this.#hasAllUntil[port] === 0) this.#havingAll[this.#havingAllCount++] = port
    this.#hasAllUntil[port] = until
  }

  /** `list` adds ports, of which some may be there. @hot */
  get hasMore(): boolean {
    return this.#alwaysCount + this.#havingAllCount > 0
  }

  /** Removes the ports that are none of routers from those of which that was heard; returns how many stay. @hot */
  keep(ports: Int32Array, count: number): number {
    if (this.#neverCount === 0) return count
    let kept = 0
    for (let at = 0; at < count; at++) {
      if (this.#modes[ports[at]] !== ROUTERS_NEVER) ports[kept++] = ports[at]
    }
    return kept
  }

  /** Writes those that are given everything to `ports` from `count` on; returns the new count. @hot */
  list(now: number, ports: Int32Array, count: number): number {
    let listed = count
    for (let at = 0; at < this.#alwaysCount; at++) ports[listed++] = this.#always[at]
    const having = this.#havingAll
    for (let at = 0; at < this.#havingAllCount; at++) {
      if (this.#hasAllUntil[having[at]] > now) ports[listed++] = having[at]
    }
    return listed
  }

  /** Ports that are given everything as there was no room, and for how long still. */
  havingAll(now: number): (readonly [port: number, left: number])[] {
    const ports = [...this.#havingAll.subarray(0, this.#havingAllCount)]
    const left = ports.map((port) => [port, this.#hasAllUntil[port] - now] as const)
    return left.filter((one) => one[1] > 0)
  }

  /** Ports that have had everything long enough; about once a second. */
  look(now: number): void {
    let kept = 0
    for (let at = 0; at < this.#havingAllCount; at++) {
      const port = this.#havingAll[at]
      if (this.#hasAllUntil[port] > now) this.#havingAll[kept++] = port
      else this.#hasAllUntil[port] = 0
    }
    this.#havingAllCount = kept
  }

  /** Of one port, -1: of any, nothing is known of what it wanted. */
  forget(port: number): void {
    if (port < 0) this.#hasAllUntil.fill(0)
    else this.#hasAllUntil[port] = 0
    this.look(0)
  }
}
