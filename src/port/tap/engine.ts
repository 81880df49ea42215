/**
 * A TAP as the engine sees it: its queues, read by the I/O tier, and frames written to them.
 * Opening, set-up and closing are the control plane's (port/tap/open.ts).
 */
import { VNET_HDR_LENGTH } from '../../abi/virtio-net.ts'
import type { IoTier } from '../../io/tier.ts'
import { TapQueue } from '../../io/tier.ts'
import type { Burst } from '../../mem/burst.ts'
import { shim } from '../../native/shim.ts'
import { FrameWriter } from '../frame-writer.ts'
import { countRxDrops } from '../rx-drops.ts'
import type { EnginePort, EngineServices } from '../contract.ts'
import type { PortCall } from '../messages.ts'
import type { TapShape } from '../shape.ts'
import { shapeTap } from './shape.ts'
import { isAttached, setAttached, setVnetHdrLength } from './queues.ts'

export interface TapEnginePortOptions {
  readonly index: number
  /** One per queue. Owned by the control plane, which closes them after the engine let go. */
  readonly fds: readonly number[]
  readonly vnetHdrLength: number
  readonly txOffloads: number
  /** All are attached; else the kernel is asked of each. */
  readonly areAttached?: boolean
  /** It is another process's until `keep`, in that shape. */
  readonly handed?: TapShape
}

export class TapEnginePort implements EnginePort {
  readonly index: number
  readonly txOffloads: number
  /** A write, and what the kernel does with it meanwhile. */
  readonly deliveryNs: number = 1500
  readonly queues: readonly TapQueue[]

  /** By queue, where its frames are written: itself, or one that is attached in its place. */
  readonly #fds: Int32Array
  readonly #presetLength: number
  readonly #counters: Float64Array
  readonly #writer: FrameWriter
  /** Another process has it, or is about to: nothing is set on the device. */
  #isLeft: boolean

  constructor(options: TapEnginePortOptions, tier: IoTier, counters: Float64Array) {
    this.index = options.index
    this.txOffloads = options.txOffloads
    this.#fds = Int32Array.from(options.fds)
    this.#presetLength = options.vnetHdrLength
    this.#counters = counters
    const { handed } = options
    const vnetHdrLength = handed?.vnetHdrLength ?? options.vnetHdrLength
    this.#isLeft = handed !== undefined
    this.#writer = new FrameWriter(options.index, vnetHdrLength, tier, counters)
    this.queues = options.fds.map(
      (fd, index) => new TapQueue(fd, options.index, index, vnetHdrLength),
    )
    if (options.areAttached === true) return
    if (handed !== undefined) {
      for (const queue of this.queues) queue.isAttached = handed.attached[queue.index]
      this.#listFds()
      return
    }
    // Whoever gave the descriptors may have detached some.
    for (const queue of this.queues) queue.isAttached = isAttached(shim, queue.fd)
    this.#attachAll()
  }

  get vnetHdrLength(): number {
    return this.#writer.vnetHdrLength
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    this.#writer.write(this.#fds[queue % this.#fds.length], burst, list, first, count)
  }

  writeFailed(length: number, errno: number): boolean {
    return this.#writer.failed(length, errno)
  }

  dropped(malformed: number, unknownGsoType: number, oversize: number): void {
    countRxDrops(this.#counters, this.index, malformed, unknownGsoType, oversize)
  }

  /** @hot */
  endTurn(): void {
    // The tier flushes by itself.
  }

  call(call: PortCall, engine: EngineServices): unknown {
    if (call.do === 'shape') return shapeTap(engine, this, call.shape)
    if (call.do === 'leave') this.#isLeft = true
    else if (call.do === 'keep') this.#isLeft = false
    return this.#shape
  }

  get #shape(): TapShape {
    const attached = this.queues.map((queue) => queue.isAttached)
    return { vnetHdrLength: this.vnetHdrLength, attached }
  }

  /** Leaves the device as it found it: it may go on without us. Or as it is, when another process has it. */
  close(): void {
    if (!this.#isLeft) {
      if (this.vnetHdrLength !== this.#presetLength) this.setVnetHdrLength(this.#presetLength)
      this.#attachAll()
    }
    this.#writer.close()
  }

  // --- control plane, between turns, while its queues are in no tier ------------------------------

  /** Returns 0, or the errno with which the kernel refused it. */
  setVnetHdrLength(length: number): number {
    const fds = this.queues.map(({ fd }) => fd)
    const errno = setVnetHdrLength(shim, fds, length)
    // A device that is gone does not matter any more.
    const inForce = errno === 0 ? length : shim.tunGetVnetHdrSize(fds[0])
    if (inForce >= VNET_HDR_LENGTH) this.#writer.vnetHdrLength = inForce
    for (const queue of this.queues) queue.vnetHdrLength = this.vnetHdrLength
    return errno
  }

  /** Attaches the queue or detaches it; returns 0, or the errno with which it stays as it was. */
  setAttached(queue: TapQueue, wanted: boolean): number {
    const errno = setAttached(shim, queue.fd, wanted)
    if (errno === 0) queue.isAttached = wanted
    this.#listFds()
    return errno
  }

  #attachAll(): void {
    for (const queue of this.queues) if (!queue.isAttached) this.setAttached(queue, true)
  }

  #listFds(): void {
    const attached = this.queues.filter((queue) => queue.isAttached)
    for (const { index, fd, isAttached: isOwn } of this.queues) {
      const instead = attached[index % attached.length]
      this.#fds[index] = isOwn || instead === undefined ? fd : instead.fd
    }
  }
}
