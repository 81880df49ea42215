/** virtio-net devices, as the engine makes them; and a driver in this thread, which stands in for a guest. */
import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF } from '../../abi/virtio-features.ts'
import { wholeWindow } from '../../mem/guest-memory.ts'
import { Window } from '../../mem/window.ts'
import { makeEventFd } from '../../native/event-fd.ts'
import { shim } from '../../native/shim.ts'
import { negotiatedOf } from '../../virtio/net/negotiated.ts'
import { NetDriver, ringSetup } from '../../virtio/driver/net-driver.ts'
import { MEMORY_ADDRESS, memoryLength } from '../../virtio/driver/net-layout.ts'
import type { EngineKind, FarEnd, FarEndMaker, PortSurroundings } from '../contract.ts'
import { VirtioEnginePort } from './engine.ts'
import type { VirtioDescription } from './messages.ts'
import { VirtioScratch } from './scratch.ts'

const FEATURES: bigint = (1n << BigInt(VIRTIO_F_VERSION_1)) | (1n << BigInt(VIRTIO_NET_F_MRG_RXBUF))

export const guestEnds: FarEndMaker = {
  key: 'guest',
  make: (index, surroundings) => new GuestEnd(index, surroundings),
}

export const virtioKind: EngineKind<VirtioDescription> = {
  make: (_description, { index }, surroundings) => makeVirtioPort(index, surroundings),
  farEnds: () => [guestEnds],
}

function makeVirtioPort(index: number, surroundings: PortSurroundings): VirtioEnginePort {
  const { tier, copies, signals, counters, events } = surroundings
  const scratch = surroundings.share('virtio', () => new VirtioScratch(copies))
  return new VirtioEnginePort(index, tier, scratch, signals, counters, events)
}

class GuestEnd implements FarEnd {
  readonly port: VirtioEnginePort
  readonly #memory: Window = Window.map(memoryLength(2))
  readonly #driver: NetDriver

  constructor(index: number, surroundings: PortSurroundings) {
    const kickFd = makeEventFd()
    this.#driver = new NetDriver({
      buffer: this.#memory.buffer,
      features: FEATURES,
      pairs: 1,
      kick: () => void shim.eventfdWrite(kickFd),
    })
    this.port = makeVirtioPort(index, surroundings)
    try {
      this.port.negotiate(negotiatedOf(FEATURES))
      this.port.setMemory([wholeWindow(this.#memory, MEMORY_ADDRESS)])
      this.#start(1, kickFd)
      this.#start(0, -1)
    } catch (error) {
      this.port.close()
      this.close()
      throw error
    }
  }

  #start(queue: number, kickFd: number): void {
    const fds = { kickFd, callFd: makeEventFd() }
    this.port.startQueue(queue, { ...ringSetup(queue, FEATURES), logAddress: -1, ...fds })
    this.port.enableQueue(queue, true)
  }

  send(frame: Uint8Array): void {
    const to = this.#driver.reserve(0)
    if (to < 0) return
    this.#driver.bytes.set(frame, to)
    this.#driver.submit(0, frame.length)
    this.#driver.flush(0)
  }

  drain(): number {
    let count = 0
    for (; this.#driver.receive(0); count++) this.#driver.release(0)
    this.#driver.flush(0)
    this.#driver.enableCalls()
    return count
  }

  close(): void {
    this.#memory.unmap()
  }
}
