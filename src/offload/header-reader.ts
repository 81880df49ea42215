/**
 * Copies the headers of frames out of wherever they lie, a burst at a time: read once, so that a
 * guest that changes them meanwhile changes nothing here.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import { CopyProgram } from '../mem/copy-program.ts'
import { Window } from '../mem/window.ts'
import { HEADERS_MAX } from '../wire/headers.ts'

export class HeaderReader {
  /** Headers of frame k of the burst start at k * HEADERS_MAX. */
  readonly bytes: Uint8Array
  readonly #window: Window
  readonly #copies: CopyProgram = new CopyProgram()

  constructor() {
    this.#window = Window.map(BURST_SIZE_MAX * HEADERS_MAX)
    this.bytes = new Uint8Array(this.#window.buffer)
  }

  /** Asks for those of frame k; they are there after `run`. @hot */
  add(burst: Burst, k: number): void {
    this.#copies.addFrame(burst, k, this.#window.id, k * HEADERS_MAX, this.available(burst, k))
  }

  /** Bytes of frame k that are copied. @hot */
  available(burst: Burst, k: number): number {
    return burst.length[k] < HEADERS_MAX ? burst.length[k] : HEADERS_MAX
  }

  /** @hot */
  run(): void {
    this.#copies.run()
  }

  close(): void {
    this.#copies.close()
    this.#window.unmap()
  }
}
