/**
 * A guest on a vhost-user port whose driver is that of src/virtio, split or packed: for frames in
 * numbers. What it says is FrontEnd's, its memory its own. It polls, and asks to be called all the same.
 */
import { Window } from '../../src/mem/window.ts'
import { shim } from '../../src/native/shim.ts'
import { memoryLength, MEMORY_ADDRESS } from '../../src/virtio/driver/net-layout.ts'
import { NetDriver, ringSetup } from '../../src/virtio/driver/net-driver.ts'
import { F_PROTOCOL, FrontEnd, u32s, u64, u64s } from './front-end.ts'

const NONBLOCK_CLOEXEC = 0o2004000
const BURST = 64

export class VhostGuest {
  readonly #frontEnd: FrontEnd
  readonly #memory: Window
  readonly #driver: NetDriver
  readonly #kicks: number[] = []
  readonly #calls: number[] = []
  readonly #sent: Uint8Array
  received = 0

  private constructor(frontEnd: FrontEnd, memory: Window, features: bigint, sent: Uint8Array) {
    this.#frontEnd = frontEnd
    this.#memory = memory
    this.#sent = sent
    const kick = (queue: number): void => void shim.eventfdWrite(this.#kicks[queue])
    this.#driver = new NetDriver({ buffer: memory.buffer, features, pairs: 1, kick })
  }

  /** Connects and runs both queues. `frame` is what it sends. */
  static async start(path: string, features: bigint, frame: Uint8Array): Promise<VhostGuest> {
    const frontEnd = FrontEnd.connect(path)
    const memfd = shim.memfdCreate('framepump-test-guest', 1)
    const length = memoryLength(2)
    shim.ftruncate(memfd, length)
    const memory = Window.map(length, { fd: memfd })
    const guest = new VhostGuest(frontEnd, memory, features, frame)
    await frontEnd.negotiate(features | F_PROTOCOL)
    const region = u64s(MEMORY_ADDRESS, length, MEMORY_ADDRESS, 0)
    frontEnd.send(5, Buffer.concat([u32s(1, 0), region]), [memfd])
    for (const queue of [0, 1]) guest.#startQueue(queue, features)
    await frontEnd.barrier()
    shim.close(memfd)
    return guest
  }

  #startQueue(queue: number, features: bigint): void {
    const { size, base, descriptorAddress, availAddress, usedAddress } = ringSetup(queue, features)
    const addresses = u64s(descriptorAddress, usedAddress, availAddress, 0)
    this.#kicks[queue] = shim.eventfd(0, NONBLOCK_CLOEXEC)
    this.#calls[queue] = shim.eventfd(0, NONBLOCK_CLOEXEC)
    const frontEnd = this.#frontEnd
    frontEnd.send(8, u32s(queue, size))
    frontEnd.send(10, u32s(queue, base))
    frontEnd.send(9, Buffer.concat([u32s(queue, 0), addresses]))
    frontEnd.send(12, u64(BigInt(queue)), [this.#kicks[queue]])
    frontEnd.send(13, u64(BigInt(queue)), [this.#calls[queue]])
    frontEnd.send(18, u32s(queue, 1))
  }

  /** Sends a burst, as far as there is room, and takes what has come. */
  turn(): void {
    const driver = this.#driver
    for (let count = 0; count < BURST; count++) {
      const at = driver.reserve(0)
      if (at < 0) break
      driver.bytes.set(this.#sent, at)
      driver.submit(0, this.#sent.length)
    }
    while (driver.receive(0)) {
      driver.release(0)
      this.received++
    }
    driver.flush(0)
    driver.enableCalls()
  }

  /** Sends one frame, behind a header of zeros; false: there is no room. */
  send(frame: Uint8Array): boolean {
    const at = this.#driver.reserve(0)
    if (at < 0) return false
    this.#driver.bytes.set(frame, at)
    this.#driver.submit(0, frame.length)
    return true
  }

  /** The next frame that has come; null: there is none. */
  take(): Uint8Array | null {
    const driver = this.#driver
    if (!driver.receive(0)) return null
    const frame = driver.bytes.slice(driver.frameOffset, driver.frameOffset + driver.frameLength)
    driver.release(0)
    return frame
  }

  /** Shows the device what was sent and released. */
  flush(): void {
    this.#driver.flush(0)
    this.#driver.enableCalls()
  }

  close(): void {
    this.#frontEnd.close()
    for (const fd of [...this.#kicks, ...this.#calls]) shim.close(fd)
    this.#memory.unmap()
  }
}
