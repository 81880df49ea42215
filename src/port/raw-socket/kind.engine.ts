/** Raw sockets, as the engine makes them; and what their interface and kernel would be, for the warm-up. */
import { TP_LEN, TP_MAC, TP_SNAPLEN, TP_STATUS_USER, TPACKET2_HDRLEN } from '../../abi/if-packet.ts'
import { SysError } from '../../errors.ts'
import { Window } from '../../mem/window.ts'
import { shim } from '../../native/shim.ts'
import type { EngineKind, FarEnd, PortSurroundings } from '../contract.ts'
import { RawSocketEnginePort } from './engine.ts'
import { ringGeometry, ringLength, slotOffsets } from './geometry.ts'
import type { RawSocketDescription } from './messages.ts'

const SOCK_SEQPACKET = 5
const O_NONBLOCK = 0o4000
/** KiB: of a few slots. */
const RING_KB = 1024
const FRAMES_MAX = 2048
const MTU = 1500
/** Where a vnet_hdr stands in its slot, as the kernel puts it. */
const HEADER_AT: number = TPACKET2_HDRLEN + 16

export const rawSocketKind: EngineKind<RawSocketDescription> = {
  make: (description, place, { tier, counters }) =>
    new RawSocketEnginePort({ ...description, ...place }, tier, counters),
  farEnds: ({ vnetHdrLength }) => [
    {
      key: `raw-socket ${vnetHdrLength}`,
      make: (index, surroundings) => new RawSocketEnd(index, vnetHdrLength, surroundings),
    },
  ],
}

class RawSocketEnd implements FarEnd {
  readonly port: RawSocketEnginePort
  readonly #near: number
  readonly #far: number
  readonly #ring: Window
  readonly #words: Int32Array
  readonly #halfWords: Uint16Array
  readonly #bytes: Uint8Array
  readonly #taken: Window = Window.map(FRAMES_MAX)
  readonly #offsets: Int32Array
  readonly #vnetHdrLength: number
  #at = 0

  constructor(index: number, vnetHdrLength: number, surroundings: PortSurroundings) {
    const geometry = ringGeometry(RING_KB)
    this.#offsets = slotOffsets(geometry)
    this.#vnetHdrLength = vnetHdrLength
    this.#ring = Window.map(ringLength(geometry))
    this.#words = new Int32Array(this.#ring.buffer)
    this.#halfWords = new Uint16Array(this.#ring.buffer)
    this.#bytes = new Uint8Array(this.#ring.buffer)
    const fds = new Int32Array(2)
    const made = shim.socketPair(SOCK_SEQPACKET, fds)
    if (made < 0) throw new SysError('OUT_OF_RESOURCES', 'socketpair', { errno: -made })
    for (const fd of fds) shim.setStatusFlags(fd, O_NONBLOCK)
    this.#near = fds[0]
    this.#far = fds[1]
    try {
      const queues = [{ fd: this.#near, window: this.#ring.id, first: 0 }]
      const options = { index, queues, geometry, vnetHdrLength, mtu: MTU, txOffloads: 0 }
      this.port = new RawSocketEnginePort(options, surroundings.tier, surroundings.counters)
    } catch (error) {
      this.close()
      throw error
    }
  }

  send(frame: Uint8Array): void {
    const slot = this.#offsets[this.#at]
    this.#at = (this.#at + 1) % this.#offsets.length
    const mac = HEADER_AT + this.#vnetHdrLength
    this.#bytes.set(frame, slot + mac)
    this.#words[(slot + TP_LEN) >> 2] = frame.length
    this.#words[(slot + TP_SNAPLEN) >> 2] = frame.length
    this.#halfWords[(slot + TP_MAC) >> 1] = mac
    Atomics.store(this.#words, slot >> 2, TP_STATUS_USER)
  }

  drain(): number {
    let count = 0
    while (shim.readInto(this.#far, this.#taken.id, 0, FRAMES_MAX) > 0) count++
    return count
  }

  close(): void {
    shim.close(this.#near)
    shim.close(this.#far)
    this.#ring.unmap()
    this.#taken.unmap()
  }
}
