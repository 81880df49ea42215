/**
 * Filters of mirrors: which frames have what a mirror's filter wants, as they came or as they leave. A burst is
 * gone through once for a filter however many ports and VLANs there are, and not at all when nothing is selected.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX } from '../mem/burst.ts'
import type { FrameFilter } from '../mem/frame-filter.ts'
import { MIRRORS_MAX } from './cells.ts'
import type { StageMachinery } from './egress.ts'
import type { MirrorDescription } from './messages.ts'

/** What an instruction costs, in nanoseconds: about, and as if all of a program ran. */
const INSTRUCTION_NS = 1
const WORDS_EACH = 2

export class MirrorFilters {
  /** Bits of the mirrors that have a filter. */
  mirrors = 0
  /** Reckoned nanoseconds of the current burst. */
  costNs = 0
  readonly #machinery: StageMachinery
  readonly #programs: (Int32Array | null)[] = Array.from({ length: MIRRORS_MAX }, () => null)
  /** Bits of the mirrors whose filters went through the current burst as it came. */
  #isLookedAt = 0
  /** By frame: bits of the mirrors whose filters pass it, as it came, and as it leaves by the last port. */
  readonly #came: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly #leaves: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly #passing: Int32Array = new Int32Array(BURST_SIZE_MAX)

  constructor(machinery: StageMachinery) {
    this.#machinery = machinery
  }

  set(mirrors: readonly MirrorDescription[]): void {
    this.mirrors = 0
    this.#programs.fill(null)
    for (const { number, filter } of mirrors) {
      this.#programs[number] = filter
      if (filter !== null) this.mirrors |= 1 << number
    }
  }

  /** Of those mirrors with a filter, by frame: bits of the ones that pass it as it came. @hot */
  came(burst: Burst, mirrors: number): Int32Array {
    const asked = mirrors & this.mirrors & ~this.#isLookedAt
    if (asked !== 0) {
      const filter = this.#machinery.frameFilter
      filter.begin()
      for (let k = 0; k < burst.count; k++) filter.add(burst, k)
      this.#run(filter, asked, burst.count)
      for (let k = 0; k < burst.count; k++) {
        this.#came[k] = (this.#came[k] & ~asked) | this.#passing[k]
      }
      this.#isLookedAt |= asked
    }
    return this.#came
  }

  /** The same of the frames list[first .. end), which came in by `from`, as they leave by the port. @hot */
  leaving(
    burst: Burst,
    mirrors: number,
    from: number,
    port: number,
    list: Int32Array,
    first: number,
    end: number,
  ): Int32Array {
    const asked = mirrors & this.mirrors
    if (asked === 0) return this.#leaves
    const { tagger, frameFilter: filter } = this.#machinery
    const { word, moved } = tagger.headsOf(from, port, burst, list, first, end - first)
    filter.begin()
    for (let at = first; at < end; at++) {
      const k = list[at]
      filter.addWithHead(burst, k, word[k], moved[k])
    }
    this.#run(filter, asked, end - first)
    for (let at = first; at < end; at++) this.#leaves[list[at]] = this.#passing[at - first]
    return this.#leaves
  }

  /** Bits of those mirrors that pass the n-th of so many frames, into `#passing`. @hot */
  #run(filter: FrameFilter, mirrors: number, count: number): void {
    this.#passing.fill(0, 0, count)
    let left = mirrors
    while (left !== 0) {
      const mirror = 31 - Math.clz32(left)
      const bit = 1 << mirror
      left &= ~bit
      const program = this.#programs[mirror]!
      filter.run(program)
      for (let n = 0; n < count; n++) if (filter.passes(n)) this.#passing[n] |= bit
      this.costNs += (count * INSTRUCTION_NS * program.length) / WORDS_EACH
    }
  }

  /** The burst is done with. @hot */
  endBurst(): void {
    this.#isLookedAt = 0
    this.costNs = 0
  }
}
