/**
 * The driver of an in-process network device: queue pairs in memory laid out by net-layout.ts. Any
 * one thread may have it; the device is in another.
 *
 *     send     reserve -> (write the frame there) -> submit -> ... -> flush
 *     receive  receive -> (read the frame there) -> release -> ... -> flush
 */
import { VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX } from '../../abi/virtio-features.ts'
import type { RingPlace } from '../ring/device-queue.ts'
import type { DriverQueue } from '../ring/driver-queue.ts'
import { has, headerLength } from '../device/features.ts'
import {
  BUFFER_STRIDE,
  bufferOffset,
  MEMORY_ADDRESS,
  MEMORY_HIGH,
  QUEUE_SIZE,
  ringLayout,
  ringOffset,
} from './net-layout.ts'
import { PACKED_BASE_INITIAL, PackedDriver } from '../ring/packed-driver.ts'
import { SplitDriver } from '../ring/split-driver.ts'

/** Where the L2 bytes of a frame begin in a transmit buffer, behind the header. */
const HEADROOM = 32
/** Longest frame that a buffer takes. */
export const NET_FRAME_LENGTH_MAX: number = BUFFER_STRIDE - HEADROOM

export interface NetDriverSetup {
  /** This thread's view of the memory. */
  readonly buffer: ArrayBuffer
  /** Negotiated. */
  readonly features: bigint
  readonly pairs: number
  /** Kicks a queue. */
  readonly kick: (queue: number) => void
}

/** A queue with its buffers: slots that are free, and the slot of each chain in flight. */
class Lane {
  readonly driver: DriverQueue
  readonly slotOf: Uint16Array = new Uint16Array(QUEUE_SIZE)
  readonly free: Uint16Array = Uint16Array.from({ length: QUEUE_SIZE }, (_, slot) => slot)
  freeCount = QUEUE_SIZE

  constructor(driver: DriverQueue) {
    this.driver = driver
  }
}

/** The driver side of one queue of the device. */
export function makeDriverQueue(buffer: ArrayBuffer, queue: number, features: bigint): DriverQueue {
  const offset = ringOffset(queue)
  const setup = {
    size: QUEUE_SIZE,
    memory: { buffer, offset, guestAddress: MEMORY_ADDRESS + offset },
    hasEventIdx: has(features, VIRTIO_RING_F_EVENT_IDX),
    tableEntries: 0,
  }
  return has(features, VIRTIO_F_RING_PACKED) ? new PackedDriver(setup) : new SplitDriver(setup)
}

/** What the device has to know of it. */
export function ringSetup(queue: number, features: bigint): RingPlace {
  const isPacked = has(features, VIRTIO_F_RING_PACKED)
  const layout = ringLayout(isPacked)
  const at = MEMORY_ADDRESS + ringOffset(queue)
  return {
    size: QUEUE_SIZE,
    descriptorAddress: at + layout.descriptorOffset,
    availAddress: at + layout.availOffset,
    usedAddress: at + layout.usedOffset,
    base: isPacked ? PACKED_BASE_INITIAL : 0,
  }
}

export class NetDriver {
  readonly bytes: Uint8Array
  readonly headerLength: number
  readonly pairs: number
  /** The frame of the last `receive`: where its L2 bytes stand in `bytes`, and how many. */
  frameOffset = 0
  frameLength = 0
  /** Where its vnet_hdr stands. */
  headerOffset = 0

  readonly #receiveqs: readonly Lane[]
  readonly #transmitqs: readonly Lane[]
  readonly #kick: (queue: number) => void
  /** Slot of the frame that was received and is not released. */
  #held = 0

  constructor(setup: NetDriverSetup) {
    const { buffer, features, pairs } = setup
    this.bytes = new Uint8Array(buffer)
    this.headerLength = headerLength(features)
    this.pairs = pairs
    this.#kick = setup.kick
    const lane = (queue: number): Lane => new Lane(makeDriverQueue(buffer, queue, features))
    this.#receiveqs = Array.from({ length: pairs }, (_, pair) => lane(2 * pair))
    this.#transmitqs = Array.from({ length: pairs }, (_, pair) => lane(2 * pair + 1))
    for (let pair = 0; pair < pairs; pair++) {
      this.#post(pair)
      // The device attaches later, and looks then.
      this.#receiveqs[pair].driver.publish()
    }
  }

  /** Offers every free receive buffer; a frame of any length fits into one. @hot */
  #post(pair: number): void {
    const lane = this.#receiveqs[pair]
    while (lane.freeCount > 0 && lane.driver.begin(1, false)) {
      const slot = lane.free[--lane.freeCount]
      lane.driver.addHalves(bufferOffset(2 * pair, slot), MEMORY_HIGH, BUFFER_STRIDE, true)
      lane.slotOf[lane.driver.commit()] = slot
    }
  }

  /**
   * Where in `bytes` the L2 bytes of the next frame go, behind a header of zeros; -1: the device
   * has all buffers.
   * @hot
   */
  reserve(pair: number): number {
    const lane = this.#transmitqs[pair]
    if (lane.freeCount === 0) this.#reclaim(lane)
    if (lane.freeCount === 0) return -1
    const offset = bufferOffset(2 * pair + 1, lane.free[lane.freeCount - 1]) + HEADROOM
    this.bytes.fill(0, offset - this.headerLength, offset)
    return offset
  }

  /** @hot */
  #reclaim(lane: Lane): void {
    for (;;) {
      const id = lane.driver.takeUsed()
      if (id < 0) return
      lane.free[lane.freeCount++] = lane.slotOf[id]
    }
  }

  /** The frame of `length` L2 bytes that was written where `reserve` said. @hot */
  submit(pair: number, length: number): void {
    const lane = this.#transmitqs[pair]
    if (!lane.driver.begin(1, false)) return
    const slot = lane.free[--lane.freeCount]
    const offset = bufferOffset(2 * pair + 1, slot) + HEADROOM - this.headerLength
    lane.driver.addHalves(offset, MEMORY_HIGH, this.headerLength + length, false)
    lane.slotOf[lane.driver.commit()] = slot
  }

  /** Takes the next frame that the device has put into a receiveq. @hot */
  receive(pair: number): boolean {
    const lane = this.#receiveqs[pair]
    const id = lane.driver.takeUsed()
    if (id < 0) return false
    const slot = lane.slotOf[id]
    const offset = bufferOffset(2 * pair, slot)
    this.#held = slot
    this.headerOffset = offset
    this.frameOffset = offset + this.headerLength
    this.frameLength = lane.driver.usedLength - this.headerLength
    return true
  }

  /** The frame of the last `receive` has been used. @hot */
  release(pair: number): void {
    const lane = this.#receiveqs[pair]
    lane.free[lane.freeCount++] = this.#held
    this.#post(pair)
  }

  /** Shows the device what was submitted and released. @hot */
  flush(pair: number): void {
    if (this.#transmitqs[pair].driver.publish()) this.#kick(2 * pair + 1)
    if (this.#receiveqs[pair].driver.publish()) this.#kick(2 * pair)
  }

  /** Asks to be called for the next received frame. True: there is one already. @hot */
  enableCalls(): boolean {
    let isWaiting = false
    for (let pair = 0; pair < this.pairs; pair++) {
      if (this.#receiveqs[pair].driver.enableCall()) isWaiting = true
    }
    return isWaiting
  }

  /** Frames are polled for. @hot */
  disableCalls(): void {
    for (let pair = 0; pair < this.pairs; pair++) {
      this.#receiveqs[pair].driver.disableCall()
      this.#transmitqs[pair].driver.disableCall()
    }
  }
}
