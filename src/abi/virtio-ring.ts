/** Layout of virtqueues. VIRTIO 1.3 §2.7 (split) and §2.8 (packed); linux/virtio_ring.h. All fields
 *  are little-endian, as are the machines we run on. */
export const VIRTQ_DESC_F_NEXT = 1
export const VIRTQ_DESC_F_WRITE = 2
export const VIRTQ_DESC_F_INDIRECT = 4

/** Descriptor: u64 addr, u32 len, u16 flags, u16 next. */
export const DESC_LENGTH = 16
export const DESC_WORDS = 4
export const DESC_ADDR = 0
export const DESC_LEN = 2
/** flags in the low half, next in the high one. */
export const DESC_FLAGS_NEXT = 3

/** Avail ring in u16: flags, idx, ring[size], used_event. */
export const AVAIL_FLAGS = 0
export const AVAIL_IDX = 1
export const AVAIL_RING = 2
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1

/** Used ring in u16: flags, idx; then size elements of u32 id, u32 len; then u16 avail_event. */
export const USED_FLAGS = 0
export const USED_IDX = 1
export const USED_RING_LENGTH = 4
export const USED_ELEMENT_LENGTH = 8
export const VIRTQ_USED_F_NO_NOTIFY = 1

/** Largest queue that both layouts allow. */
export const VIRTQ_SIZE_MAX = 32768

/** Packed descriptor: u64 addr, u32 len, u16 id, u16 flags. */
export const PACKED_DESC_LENGTH = 16
export const PACKED_DESC_ID_FLAGS = 3
export const VIRTQ_DESC_F_AVAIL_BIT = 7
export const VIRTQ_DESC_F_USED_BIT = 15

/** Event suppression structure of a packed queue: u16 offset and wrap counter (bit 15), u16 flags. */
export const EVENT_SUPPRESSION_LENGTH = 4
export const RING_EVENT_FLAGS_ENABLE = 0
export const RING_EVENT_FLAGS_DISABLE = 1
export const RING_EVENT_FLAGS_DESC = 2
