/** What crosses between the threads about a memory port. */
import type { MemoryRingHandle } from './ring.ts'

export interface MemoryDescription {
  readonly kind: 'memory'
  readonly inward: MemoryRingHandle
  readonly outward: MemoryRingHandle
}
