/** A frame of a burst in one piece, for who has to read all of it. */
import type { Burst } from '../mem/burst.ts'
import { CopyProgram } from '../mem/copy-program.ts'
import { ownAll } from '../mem/own-all.ts'
import { Window } from '../mem/window.ts'

export class WholeFrame {
  readonly #window: Window
  readonly #copies: CopyProgram
  readonly #bytes: Uint8Array

  /** For at most so many bytes. */
  constructor(length: number) {
    const made = ownAll((own) => ({
      window: own(Window.map(length)),
      copies: own(new CopyProgram()),
    }))
    this.#window = made.window
    this.#copies = made.copies
    this.#bytes = new Uint8Array(made.window.buffer)
  }

  /** The first `length` bytes of frame k, until the next call. @hot */
  read(burst: Burst, k: number, length: number): Uint8Array {
    this.#copies.addFrame(burst, k, this.#window.id, 0, length)
    this.#copies.run()
    return this.#bytes
  }

  close(): void {
    this.#copies.close()
    this.#window.unmap()
  }
}
