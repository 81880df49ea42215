/** A burst of one frame of our own, as when a guest is announced. */
import type { Burst } from '../mem/burst.ts'
import { Window } from '../mem/window.ts'

/** Bytes for the frame. */
const FRAME_SPACE = 2048

/** Returns the memory of the frame, for the caller to unmap when it has been forwarded. */
export function fillWithFrame(burst: Burst, frame: Uint8Array): Window {
  const window = Window.map(FRAME_SPACE)
  new Uint8Array(window.buffer).set(frame)
  burst.clear()
  burst.count = 1
  burst.window[0] = window.id
  burst.offset[0] = 0
  burst.length[0] = frame.length
  burst.headLength[0] = 0
  burst.heads.set(new Int32Array(window.buffer, 0, 4))
  burst.clearOffloads()
  return window
}
