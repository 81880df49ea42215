/** Which kind of queue, and where its parts are: from what the driver said to a DeviceQueue. */
import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { DeviceQueue, RingPlace } from './device-queue.ts'
import { PackedQueue } from './packed-queue.ts'
import { SplitQueue } from './split-queue.ts'

export interface QueueKind {
  readonly isPacked: boolean
  readonly hasEventIdx: boolean
  readonly hasIndirect: boolean
}

/**
 * Null: a part of the ring is not in the memory, or not aligned, or a packed ring has no entry that
 * the base names. Addresses in `setup` are the
 * driver's own.
 */
export function attachQueue(
  memory: GuestMemory,
  setup: RingPlace,
  kind: QueueKind,
): DeviceQueue | null {
  const descriptorAddress = memory.guestAddress(setup.descriptorAddress)
  const availAddress = memory.guestAddress(setup.availAddress)
  const usedAddress = memory.guestAddress(setup.usedAddress)
  if (descriptorAddress < 0 || availAddress < 0 || usedAddress < 0) return null
  const { size, base } = setup
  const { hasEventIdx, hasIndirect } = kind
  const ring = {
    size,
    base,
    descriptorAddress,
    availAddress,
    usedAddress,
    hasEventIdx,
    hasIndirect,
  }
  return kind.isPacked ? PackedQueue.attach(ring, memory) : SplitQueue.attach(ring, memory)
}
