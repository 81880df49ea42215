/**
 * Descriptor chains as most of them are: one buffer in one piece of memory. They are taken many at a
 * time, in a loop that is short enough for the processor to wait for several cache lines at once;
 * every other chain is taken alone (chain.ts).
 */
import { BURST_SIZE_MAX } from '../mem/burst.ts'

export class PlainChains {
  readonly window: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly offset: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** Bytes, 1..2^31 - 1. */
  readonly length: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** Guest-physical address, for the dirty log. */
  readonly address: Float64Array = new Float64Array(BURST_SIZE_MAX)
  /** What `put` needs; each has one ring entry. */
  readonly id: Int32Array = new Int32Array(BURST_SIZE_MAX)
}
