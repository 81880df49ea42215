/**
 * Where the bytes of one frame go, when that is not one place: the writable segments of chains, filled one after
 * another. Each part becomes a row of the copy program, and is noted in the log of a guest that migrates.
 */
import type { CopyProgram } from '../../mem/copy-program.ts'
import type { Chain } from '../ring/chain.ts'
import type { DirtyLog } from '../ring/dirty-log.ts'

export class Targets {
  readonly #copies: CopyProgram
  readonly #window: Int32Array
  readonly #offset: Int32Array
  readonly #length: Int32Array
  readonly #address: Float64Array
  #count = 0
  /** Where the next byte goes: a target, and bytes of it that are filled. */
  #target = 0
  #filled = 0
  #log: DirtyLog | null = null

  /** Of at most so many segments. */
  constructor(copies: CopyProgram, most: number) {
    this.#copies = copies
    this.#window = new Int32Array(most)
    this.#offset = new Int32Array(most)
    this.#length = new Int32Array(most)
    this.#address = new Float64Array(most)
  }

  /** The next frame; null: its guest does not migrate. @hot */
  begin(log: DirtyLog | null): void {
    this.#log = log
    this.#count = 0
    this.#target = 0
    this.#filled = 0
  }

  /** The writable segments of the chain come behind those that are there; false: there are too many. @hot */
  add(chain: Chain): boolean {
    for (let at = chain.readable; at < chain.count; at++) {
      if (this.#count === this.#window.length) return false
      const target = this.#count++
      this.#window[target] = chain.window[at]
      this.#offset[target] = chain.offset[at]
      this.#length[target] = chain.length[at]
      this.#address[target] = chain.address[at]
    }
    return true
  }

  /** Copies to where the last copy ended; there is room. @hot */
  copy(window: number, offset: number, length: number): void {
    const log = this.#log
    let done = 0
    while (done < length) {
      const target = this.#target
      const room = this.#length[target] - this.#filled
      const part = length - done < room ? length - done : room
      const to = this.#offset[target] + this.#filled
      this.#copies.add(window, offset + done, this.#window[target], to, part)
      if (log !== null) {
        makeRoom(log, this.#copies)
        log.note(this.#address[target] + this.#filled, part)
      }
      done += part
      this.#filled += part
      if (this.#filled === this.#length[target]) {
        this.#target = target + 1
        this.#filled = 0
      }
    }
  }
}

/** In the log: what is noted there is marked when the copies have run. @hot */
export function makeRoom(log: DirtyLog, copies: CopyProgram): void {
  if (!log.isFull) return
  copies.run()
  log.mark()
}
