/** What the buffers of one driver may cost those who send to it (frame-sink.ts). */

/**
 * Descriptors that may be read: so many to begin with, so many more in each turn up to that again, so many
 * for each frame that is not a single buffer (Linux has 19 for 64 KiB), and one for so many of its bytes.
 */
export const DESCRIPTORS_AHEAD = 1024
const TURN_DESCRIPTORS = 32
export const FRAME_DESCRIPTORS = 24
export const DESCRIPTOR_BYTES_SHIFT = 7

/** What a port has left in the next turn of what it had left in this one. @hot */
export function descriptorsNext(left: number): number {
  const next = left + TURN_DESCRIPTORS
  return next < DESCRIPTORS_AHEAD ? next : DESCRIPTORS_AHEAD
}
