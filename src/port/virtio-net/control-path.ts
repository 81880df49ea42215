/**
 * The control virtqueue of an in-process device, both ends: the driver's command goes into the
 * memory, the device takes it out of there, carries it out and writes its answer back.
 */
import { VIRTIO_NET_ERR } from '../../abi/virtio-net.ts'
import { StateError } from '../../errors.ts'
import { GuestMemory, wholeWindow } from '../../mem/guest-memory.ts'
import type { Window } from '../../mem/window.ts'
import { Chain } from '../../virtio/ring/chain.ts'
import { CONTROL_DEVICE_ERROR, ControlQueue } from '../../virtio/device/control-queue.ts'
import type { DeviceQueue } from '../../virtio/ring/device-queue.ts'
import type { DeviceState } from '../../virtio/device/device-state.ts'
import type { DriverQueue } from '../../virtio/ring/driver-queue.ts'
import { controlQueueIndex } from '../../virtio/device/features.ts'
import { negotiatedOf } from '../../virtio/net/negotiated.ts'
import { makeDriverQueue, ringSetup } from '../../virtio/driver/net-driver.ts'
import { BUFFER_STRIDE, bufferOffset, MEMORY_ADDRESS } from '../../virtio/driver/net-layout.ts'
import { attachQueue } from '../../virtio/ring/queue-layout.ts'

/** The command's buffer, and the answer's. */
const COMMAND_SLOT = 0
const ACK_SLOT = 1

export class ControlPath {
  readonly #bytes: Uint8Array
  readonly #driver: DriverQueue
  readonly #device: DeviceQueue
  readonly #queue: number
  readonly #chain: Chain
  readonly #memory: GuestMemory
  readonly #commands: ControlQueue

  constructor(window: Window, state: DeviceState) {
    const { features } = state
    this.#bytes = new Uint8Array(window.buffer)
    this.#queue = controlQueueIndex(features, state.limits.maxPairs)
    this.#driver = makeDriverQueue(window.buffer, this.#queue, features)
    this.#chain = new Chain()
    this.#memory = new GuestMemory([wholeWindow(window, MEMORY_ADDRESS)])
    const device = attachQueue(
      this.#memory,
      ringSetup(this.#queue, features),
      negotiatedOf(features),
    )
    if (device === null) {
      this.close()
      throw new StateError('VIRTIO_NET', 'the control queue cannot be started')
    }
    this.#device = device
    // The owner applies the state after each command as a whole.
    const nothing = (): void => undefined
    this.#commands = new ControlQueue(state, {
      pairsChanged: nothing,
      offloadsChanged: nothing,
      rssChanged: nothing,
      macChanged: nothing,
      announceAcknowledged: (rounds) => {
        if (rounds > 0) state.requestAnnounce(rounds - 1)
      },
    })
  }

  /** The memory is about to be unmapped, or the queue to be another. */
  close(): void {
    this.#chain.close()
    this.#memory.detach()
  }

  /** One command; returns the ack. Throws when the device needs a reset. */
  execute(command: Uint8Array): number {
    if (command.length === 0 || command.length > BUFFER_STRIDE) {
      throw new StateError('VIRTIO_NET', `a command of ${command.length} bytes`)
    }
    const ackOffset = bufferOffset(this.#queue, ACK_SLOT)
    this.#submit(command, ackOffset)
    this.#serve()
    if (this.#driver.takeUsed() < 0) {
      throw new StateError('VIRTIO_NET', 'the device needs a reset', { hint: 'negotiate again' })
    }
    return this.#bytes[ackOffset]
  }

  #submit(command: Uint8Array, ackOffset: number): void {
    const commandOffset = bufferOffset(this.#queue, COMMAND_SLOT)
    this.#bytes.set(command, commandOffset)
    this.#bytes[ackOffset] = VIRTIO_NET_ERR
    this.#driver.begin(2, false)
    this.#driver.add(MEMORY_ADDRESS + commandOffset, command.length, false)
    this.#driver.add(MEMORY_ADDRESS + ackOffset, 1, true)
    this.#driver.commit()
    this.#driver.publish()
  }

  /** The device's end. */
  #serve(): void {
    const chain = this.#chain
    while (this.#device.take(chain)) {
      const command = new Uint8Array(chain.readableLength)
      let length = 0
      for (let at = 0; at < chain.readable; at++) {
        const from = chain.offset[at]
        command.set(this.#bytes.subarray(from, from + chain.length[at]), length)
        length += chain.length[at]
      }
      const ack = this.#commands.execute(command, chain.writableLength)
      if (ack === CONTROL_DEVICE_ERROR) return
      this.#bytes[chain.offset[chain.readable]] = ack
      this.#device.put(chain.id, chain.entries, 1)
      this.#device.publish()
    }
  }
}
