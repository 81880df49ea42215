/**
 * Event suppression of a packed virtqueue, for either side: the other side's structure says when it
 * wants to be notified.
 *
 *     word:  offset (15 bits) | wrap counter (bit 15) | flags (bits 16, 17)
 *
 * Source: VIRTIO 1.3 §2.8.10, §2.8.14.
 */
import { RING_EVENT_FLAGS_DESC, RING_EVENT_FLAGS_DISABLE } from '../../abi/virtio-ring.ts'

/** Bits of the first half of an event suppression structure, and of a queue's base. */
export const EVENT_OFFSET_MASK = 0x7fff
export const EVENT_WRAP_BIT = 15

/**
 * Whether the other side asks to be notified of the `count` ring entries that were written from
 * entry `first` of the lap with wrap counter `wrap` on. `word` is its structure as it was read.
 * @hot
 */
export function isNotified(
  word: number,
  hasEventIdx: boolean,
  size: number,
  first: number,
  wrap: number,
  count: number,
): boolean {
  const flags = (word >>> 16) & 3
  if (flags === RING_EVENT_FLAGS_DISABLE) return false
  // Without event_idx the structure cannot name a descriptor; reserved flags cost a call, no hang.
  if (flags !== RING_EVENT_FLAGS_DESC || !hasEventIdx) return true
  const lap = ((word >>> EVENT_WRAP_BIT) & 1) === wrap ? 0 : size
  const distance = (word & EVENT_OFFSET_MASK) + lap - first
  return distance >= 0 && distance < count
}
