/** TAPs, as the engine makes them; and a socket that keeps messages apart, which stands in for one. */
import { SysError } from '../../errors.ts'
import { Window } from '../../mem/window.ts'
import { shim } from '../../native/shim.ts'
import type { EngineKind, FarEnd, FarEndMaker, PortSurroundings } from '../contract.ts'
import { TapEnginePort } from './engine.ts'
import type { TapDescription } from './messages.ts'

const SOCK_SEQPACKET = 5
const O_NONBLOCK = 0o4000

export const tapKind: EngineKind<TapDescription> = {
  make: (description, place, { tier, counters }) =>
    new TapEnginePort({ ...description, ...place }, tier, counters),
  farEnds: ({ vnetHdrLength }) => [tapEnds(vnetHdrLength)],
}

/** With so many bytes of vnet_hdr. */
export function tapEnds(vnetHdrLength: number): FarEndMaker {
  return {
    key: `tap ${vnetHdrLength}`,
    make: (index, surroundings) => new TapEnd(index, vnetHdrLength, surroundings),
  }
}

class TapEnd implements FarEnd {
  readonly port: TapEnginePort
  readonly #near: number
  readonly #far: number
  readonly #window: Window = Window.map(4096)
  readonly #bytes: Uint8Array = new Uint8Array(this.#window.buffer)
  readonly #headerLength: number

  constructor(index: number, headerLength: number, surroundings: PortSurroundings) {
    const fds = new Int32Array(2)
    const made = shim.socketPair(SOCK_SEQPACKET, fds)
    if (made < 0) throw new SysError('OUT_OF_RESOURCES', 'socketpair', { errno: -made })
    for (const fd of fds) shim.setStatusFlags(fd, O_NONBLOCK)
    this.#near = fds[0]
    this.#far = fds[1]
    this.#headerLength = headerLength
    const queue = { fds: [fds[0]], vnetHdrLength: headerLength, txOffloads: 0 }
    // They are no TAP's: nothing is asked of them, which an instance that waits must not either.
    const options = { index, ...queue, areAttached: true }
    try {
      this.port = new TapEnginePort(options, surroundings.tier, surroundings.counters)
    } catch (error) {
      this.close()
      throw error
    }
  }

  send(frame: Uint8Array): void {
    this.#bytes.set(frame, this.#headerLength)
    shim.writeFrom(this.#far, this.#window.id, 0, this.#headerLength + frame.length, 0)
  }

  drain(): number {
    let count = 0
    while (shim.readInto(this.#far, this.#window.id, 2048, 2048) > 0) count++
    return count
  }

  close(): void {
    shim.close(this.#near)
    shim.close(this.#far)
    this.#window.unmap()
  }
}
