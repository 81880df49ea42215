/**
 * The memory of an in-process device, which has no guest to lay it out: rings first, then buffers of
 * one size, all of them large enough for any frame. Memory that is not used is not resident.
 *
 *     queue 0 | queue 1 | ... | control queue     each:  ring | QUEUE_SIZE buffers
 */
import type { RingLayout } from '../ring/driver-queue.ts'
import { alignUp } from '../ring/driver-queue.ts'
import { packedLayout } from '../ring/packed-driver.ts'
import { splitLayout } from '../ring/split-driver.ts'

/** Entries of every queue, and buffers of it. */
export const QUEUE_SIZE = 256
/** Bytes from one buffer to the next. */
export const BUFFER_STRIDE = 69632
/** Guest-physical address of the first byte. */
export const MEMORY_ADDRESS = 0x1_0000_0000
/** Upper half of every address in it; the lower one is the offset. */
export const MEMORY_HIGH = 1

const PAGE_LENGTH = 4096
/** The larger of both kinds of ring, as neither uses indirect tables. */
const RING_LENGTH: number = alignUp(
  Math.max(splitLayout(QUEUE_SIZE, 0).length, packedLayout(QUEUE_SIZE, 0).length),
  PAGE_LENGTH,
)
const QUEUE_LENGTH: number = RING_LENGTH + QUEUE_SIZE * BUFFER_STRIDE

/** Bytes for `queues` queues. */
export function memoryLength(queues: number): number {
  return queues * QUEUE_LENGTH
}

/** Offset of a queue's ring. */
export function ringOffset(queue: number): number {
  return queue * QUEUE_LENGTH
}

/** Offset of a queue's buffer. @hot */
export function bufferOffset(queue: number, slot: number): number {
  return queue * QUEUE_LENGTH + RING_LENGTH + slot * BUFFER_STRIDE
}

export function ringLayout(isPacked: boolean): RingLayout {
  return isPacked ? packedLayout(QUEUE_SIZE, 0) : splitLayout(QUEUE_SIZE, 0)
}
