/** Where ports are: on the switch or on a link, or the output of mirrors; up or down, held or not. */
import { PORTS_MAX } from '../port/contract.ts'

export const NO_PORT = -1

export class Places {
  /** Ports on the switch (not on a link), for floods: as many as `memberCount` says. */
  readonly members: Int32Array = new Int32Array(PORTS_MAX)
  memberCount = 0
  readonly #isMember: Uint8Array = new Uint8Array(PORTS_MAX)
  /** Peer of a port on a link, else NO_PORT. */
  readonly peer: Int32Array = new Int32Array(PORTS_MAX).fill(NO_PORT)
  /** The link is up, and the port neither held nor the output of mirrors. */
  readonly passes: Uint8Array = new Uint8Array(PORTS_MAX)
  readonly #isThere: Uint8Array = new Uint8Array(PORTS_MAX)
  readonly #linkUp: Uint8Array = new Uint8Array(PORTS_MAX)
  readonly #isHeld: Uint8Array = new Uint8Array(PORTS_MAX)
  readonly #isOutput: Uint8Array = new Uint8Array(PORTS_MAX)

  add(index: number): void {
    this.#isThere[index] = 1
    this.#linkUp[index] = 1
    this.peer[index] = NO_PORT
    this.#setPasses(index)
    this.listMembers()
  }

  /** Its peer is on the switch again. */
  remove(index: number): void {
    const peer = this.peer[index]
    if (peer !== NO_PORT) this.peer[peer] = NO_PORT
    this.peer[index] = NO_PORT
    this.#isThere[index] = 0
    this.#linkUp[index] = 0
    this.#isHeld[index] = 0
    this.passes[index] = 0
    this.listMembers()
  }

  isUp(index: number): boolean {
    return this.#linkUp[index] !== 0 && this.#isHeld[index] === 0
  }

  #setPasses(index: number): void {
    this.passes[index] = this.isUp(index) && this.#isOutput[index] === 0 ? 1 : 0
  }

  /** Also of a port that is to come; `listMembers` follows. */
  setOutput(index: number, isOutput: boolean): void {
    this.#isOutput[index] = isOutput ? 1 : 0
    this.#setPasses(index)
  }

  setLink(index: number, isUp: boolean): void {
    this.#linkUp[index] = isUp ? 1 : 0
    this.#setPasses(index)
  }

  setHeld(indexes: readonly number[], isHeld: boolean): void {
    for (const index of indexes) {
      this.#isHeld[index] = isHeld ? 1 : 0
      this.#setPasses(index)
    }
    this.listMembers()
  }

  wire(a: number, b: number): void {
    this.peer[a] = b
    this.peer[b] = a
    this.listMembers()
  }

  unwire(a: number, b: number): void {
    this.peer[a] = NO_PORT
    this.peer[b] = NO_PORT
    this.listMembers()
  }

  listMembers(): void {
    this.memberCount = 0
    for (let index = 0; index < PORTS_MAX; index++) {
      const isOnSwitch = this.#isThere[index] !== 0 && this.peer[index] === NO_PORT
      const takes = this.#isHeld[index] === 0 && this.#isOutput[index] === 0
      const isMember = isOnSwitch && takes
      this.#isMember[index] = isMember ? 1 : 0
      if (isMember) this.members[this.memberCount++] = index
    }
  }

  /** Leaves of the first `count` ports those that floods reach; returns how many. @hot */
  keepMembers(ports: Int32Array, count: number): number {
    let kept = 0
    for (let at = 0; at < count; at++)
      if (this.#isMember[ports[at]] !== 0) ports[kept++] = ports[at]
    return kept
  }
}
