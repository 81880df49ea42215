/**
 * The frame pool: one window of equal slots into which the kernel reads TAP frames.
 *
 *     slot:  | 64 zero bytes | vnet_hdr + L2 bytes, up to SLOT_CAPACITY ...            |
 *            ^ slot * SLOT_STRIDE
 *                            ^ + SLOT_HEADROOM: where reads go
 *
 * The headroom is never written, so a frame read without vnet_hdr has an all-zero vnet_hdr standing
 * before it and can leave by a TAP that wants one without being copied. A slot takes a GSO frame of
 * 64 KiB; a stride that is no multiple of 4 KiB spreads the slots over the cache sets (measured:
 * with it one pool for all frame sizes is as fast as 2 KiB slots for small ones). Pages that no
 * frame touched are not resident.
 */
import { Window } from './window.ts'

export const SLOT_HEADROOM = 64
/** 64 KiB of GSO payload, headers and vnet_hdr. A read that fills it was cut off. */
export const SLOT_CAPACITY: number = 68 * 1024
export const SLOT_STRIDE: number = SLOT_HEADROOM + SLOT_CAPACITY

export class FramePool {
  readonly window: Window
  readonly slots: number
  /** All of the pool as 16- and 32-bit words, for headers. */
  readonly words: Int32Array
  readonly halfWords: Uint16Array

  /** `slots` is at most 4096. */
  constructor(slots: number) {
    this.slots = slots
    this.window = Window.map(slots * SLOT_STRIDE)
    this.words = new Int32Array(this.window.buffer)
    this.halfWords = new Uint16Array(this.window.buffer)
  }

  close(): void {
    this.window.unmap()
  }
}
