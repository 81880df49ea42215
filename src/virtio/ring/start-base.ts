/**
 * Where a queue begins that a front-end starts. A packed one where the front-end says. Of a split one
 * the used ring in the guest's memory knows better: what is used is published in order, so its index
 * is how far any device side has come, whatever became of that one.
 *
 * Front-ends that meet a new device side say the same (QEMU asks the old one, and reads the used index
 * where that has gone), or 0 (crosvm, and DPDK's virtio-user), or the avail index (cloud-hypervisor),
 * behind all buffers that wait. DPDK's device side goes by the used index as well.
 */
import { AVAIL_IDX, USED_IDX } from '../../abi/virtio-ring.ts'
import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { RingPlace } from './device-queue.ts'
import { ringPart } from './device-queue.ts'

/** Flags and index of an avail or used ring, in bytes. */
const INDEX_LENGTH = 4

/** The base for a ring of the memory, whose addresses are the driver's own. Control plane. */
export function startBase(memory: GuestMemory, ring: RingPlace, isPacked: boolean): number {
  if (isPacked) return ring.base
  const avail = indexAt(memory, ring.availAddress, AVAIL_IDX)
  const used = indexAt(memory, ring.usedAddress, USED_IDX)
  if (avail < 0 || used < 0) return ring.base
  // A used ring that no device has written to may hold anything, in memory that the driver did not clear.
  return ((avail - used) & 0xffff) <= ring.size ? used : ring.base
}

/** An index of a ring; -1: the ring does not lie in the memory. */
function indexAt(memory: GuestMemory, userAddress: number, half: number): number {
  const address = memory.guestAddress(userAddress)
  if (address < 0) return -1
  const part = ringPart(memory, address, INDEX_LENGTH, 2)
  if (part === null) return -1
  const index = Atomics.load(part.halfWords, part.halfWordAt + half)
  // One look is all: a view for each start would stay until the memory goes.
  memory.release(part.buffer)
  return index
}
