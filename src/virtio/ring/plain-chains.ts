/**
 * Descriptor chains as most of them are: one buffer in one piece of memory. They are taken many at a
 * time, in a loop that is short enough for the processor to wait for several cache lines at once;
 * every other chain is taken alone (chain.ts).
 */
import { BURST_SIZE_MAX } from '../../mem/burst.ts'

/** Which buffers are taken so. */
export class PlainKind {
  /** For the device to write, else to read. */
  readonly isWritable: boolean
  /** Bytes at the start of a buffer that belong to the vnet_hdr and not to its place: 0..24. */
  skipped = 0
  /** Bytes of a buffer, the skipped ones included, 1..2^31 - 1. */
  lengthMin = 1
  lengthMax = 0x7fff_ffff
  /** Of readable ones: bytes of all together that may still be taken; less by what was. */
  bytesLeft = 0x7fff_ffff
  /** Of writable ones: what `put` needs, each has one ring entry. */
  readonly id: Int32Array = new Int32Array(BURST_SIZE_MAX)

  constructor(isWritable: boolean) {
    this.isWritable = isWritable
  }
}

/** Where buffers are: a burst, or a PlainPlaces. */
export interface Places {
  readonly window: Int32Array
  readonly offset: Int32Array
  /** Bytes. */
  readonly length: Int32Array
}

export class PlainPlaces implements Places {
  readonly window: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly offset: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly length: Int32Array = new Int32Array(BURST_SIZE_MAX)
}
