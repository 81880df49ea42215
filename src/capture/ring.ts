/**
 * The ring between the engine and the writer of one capture. It holds finished bytes of the file.
 *
 *     window (mapped twice, so nothing wraps):   |....tail#########head....|....#########....|
 *     control: Int32Array  [head, tail, stop]    counts: Float64Array [frames, dropped, ...]
 *
 * head and tail are bytes, free-running modulo 2^32. The engine stores head and never waits: what
 * does not fit is counted and lost. The writer stores tail.
 */
import { Window } from '../mem/window.ts'
import type { CaptureDirection, CaptureFormat } from './options.ts'

export const RING_HEAD = 0
export const RING_TAIL = 1
export const RING_STOP = 2
/** Values of the last: all is written, and the file completed; or another process goes on with it. */
export const STOP_COMPLETE = 1
export const STOP_LEAVE = 2
const CONTROL_WORDS = 16

export const COUNT_FRAMES = 0
export const COUNT_DROPPED = 1
/** Interfaces that have a number. */
export const COUNT_INTERFACES = 2
/** The frame limit was reached. */
export const COUNT_COMPLETE = 3
/** Interfaces whose description is in the ring; the engine counts them. */
export const COUNT_DESCRIBED = 4
/** Bytes written; the writer counts them. */
export const COUNT_BYTES = 5
/** From here on two cells per interface: frames recorded, frames dropped. */
export const COUNT_PER_INTERFACE = 8
/** Interfaces of one capture: ports that come and go get a new one each. */
export const INTERFACES_MAX = 4096

/** Bytes between a stalled writer and loss; at 10 Gbit/s some 50 ms. A power of two. */
export const RING_LENGTH: number = 64 * 1024 * 1024

/** What another thread needs to use the ring. */
export interface CaptureRingHandle {
  readonly window: number
  readonly length: number
  readonly control: SharedArrayBuffer
  readonly counts: SharedArrayBuffer
  readonly format: CaptureFormat
  readonly direction: CaptureDirection
  readonly snapLength: number
  /** Frames after which it is complete; 0: no limit. */
  readonly countLimit: number
}

/** The memory of a ring. So much of it makes V8 collect garbage, which takes milliseconds. */
export function mapRing(): Window {
  return Window.mapMemfd('framepump-capture', RING_LENGTH, { mirrored: true })
}

/** `window`: memory that is there already; the ring's with success. */
export function createCaptureRing(
  options: Pick<CaptureRingHandle, 'format' | 'direction' | 'snapLength' | 'countLimit'>,
  window: Window = mapRing(),
): { readonly window: Window; readonly handle: CaptureRingHandle } {
  const handle: CaptureRingHandle = {
    window: window.id,
    length: RING_LENGTH,
    control: new SharedArrayBuffer(CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT),
    counts: new SharedArrayBuffer(
      (COUNT_PER_INTERFACE + 2 * INTERFACES_MAX) * Float64Array.BYTES_PER_ELEMENT,
    ),
    ...options,
  }
  return { window, handle }
}
