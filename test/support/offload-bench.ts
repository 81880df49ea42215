/** Frames in, what a port is given out: the stages of an egress without a switch around them. */
import type { Burst } from '../../src/mem/burst.ts'
import { endOfRun } from '../../src/engine/runs.ts'
import { Burst as NewBurst, HEAD_WORDS, SEGMENTS_MAX } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { Window } from '../../src/mem/window.ts'
import { Finisher, FinishStage } from '../../src/offload/finish-stage.ts'
import { Merger, MergeStage } from '../../src/offload/merge-stage.ts'
import type { FrameTaker } from '../../src/offload/stage.ts'
import { Tagger, TagStage } from '../../src/offload/tag-stage.ts'
import type { VlanPorts } from '../../src/offload/vlan-ports.ts'
import type { CounterName } from '../../src/stats/counters.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../src/stats/counters.ts'
import { tagIn } from '../../src/wire/vlan.ts'
import { offloadNeeds } from '../../src/wire/vnet-hdr.ts'
import { NOBODY_WATCHES } from './policies.ts'

const MEMORY = 1 << 24
const OUTPUT = 1 << 17

export interface OffloadFrame {
  readonly bytes: Uint8Array
  /** flags, gso_type, hdr_len, gso_size, csum_start, csum_offset */
  readonly header?: readonly [number, number, number, number, number, number]
  /** outer_th_offset, inner_nh_offset */
  readonly tunnel?: readonly [number, number]
  /** Lengths of the first pieces that it lies in; absent: one piece. */
  readonly cuts?: readonly number[]
  /** Further bits of `needs`. */
  readonly needs?: number
}

export interface GivenFrame {
  readonly bytes: Uint8Array
  readonly gso: number
  readonly gsoSize: number
  readonly csumOffset: number
  readonly needs: number
  readonly tunnel: number
}

export class OffloadBench {
  readonly given: GivenFrame[] = []
  readonly #memory = Window.map(MEMORY)
  readonly #output = Window.map(OUTPUT)
  readonly #copies = new CopyProgram()
  readonly #burst = new NewBurst()
  readonly #counters = new Float64Array(2 * COUNTERS_STRIDE)
  readonly #finisher = new Finisher(this.#counters, () => undefined)
  readonly #merger = new Merger(this.#counters, () => undefined)
  readonly #list = Int32Array.from({ length: 256 }, (_, k) => k)
  readonly #taggers = new Map<VlanPorts, Tagger>()

  readonly #port = {
    transmit: (burst: Burst, list: Int32Array, first: number, count: number): void => {
      for (let at = first; at < first + count; at++) this.given.push(this.#read(burst, list[at]))
    },
  }

  #read(burst: Burst, k: number): GivenFrame {
    const length = burst.length[k]
    this.#copies.addFrame(burst, k, this.#output.id, 0, length)
    this.#copies.run()
    const bytes = new Uint8Array(this.#output.buffer).slice(0, length)
    const head = new Uint8Array(burst.heads.slice(k * HEAD_WORDS, (k + 1) * HEAD_WORDS).buffer)
    if (!head.slice(0, 14).every((byte, at) => byte === bytes[at])) throw new Error('wrong head')
    const gso = (burst.gso[k] & 0xffff) === 0 ? 0 : burst.gso[k]
    return {
      bytes,
      gso,
      gsoSize: burst.gsoSize[k],
      csumOffset: burst.csumOffset[k],
      needs: burst.needs[k],
      tunnel: burst.tunnel[k],
    }
  }

  /** What a port that takes these offloads is given for the frames, at most 256. */
  run(frames: readonly OffloadFrame[], txOffloads: number, isMerging = false): GivenFrame[] {
    this.given.length = 0
    this.#fill(frames)
    this.#finisher.beginBurst(SEGMENTS_MAX)
    const stage = isMerging
      ? new MergeStage(this.#merger, this.#port, 0, txOffloads)
      : new FinishStage(this.#finisher, this.#port, 0, txOffloads)
    stage.transmit(this.#burst, this.#list, 0, frames.length, 0)
    return [...this.given]
  }

  /** The same behind a tag stage, from port 0 to port 1 of these. */
  runTagged(frames: readonly OffloadFrame[], txOffloads: number, vlans: VlanPorts): GivenFrame[] {
    this.given.length = 0
    this.#finisher.beginBurst(SEGMENTS_MAX)
    this.giveTagged(frames, new FinishStage(this.#finisher, this.#port, 0, txOffloads), vlans)
    return [...this.given]
  }

  /**
   * Gives them to `next` with their tags, in lists of their numbers; a guest who `spoils` them writes to what was
   * looked at of them meanwhile.
   */
  giveTagged(
    frames: readonly OffloadFrame[],
    next: FrameTaker,
    vlans: VlanPorts,
    spoils: boolean = false,
    lists: readonly (readonly number[])[] = [frames.map((_, k) => k)],
  ): void {
    this.#fill(frames)
    const { heads, offset, firstLength } = this.#burst
    const hasTag = (k: number): boolean => tagIn(heads[k * HEAD_WORDS + 3]) !== 0
    const looksInside = vlans.asksInner(1) && !vlans.isTunnel(0)
    if (looksInside && frames.some((_, k) => hasTag(k))) this.#burst.readInners()
    // As the forwarder says it.
    const mask = tagIn(heads[HEAD_WORDS - 1]) === 0 ? 0xffff : -1
    this.#burst.isOneRun = endOfRun(heads, 0, frames.length, mask) === frames.length
    const memory = new Uint8Array(this.#memory.buffer)
    if (spoils) {
      frames.forEach((_, k) => {
        const looked = looksInside && hasTag(k) ? 20 : 16
        memory.fill(0x81, offset[k], offset[k] + Math.min(looked, firstLength[k]))
      })
    }
    // As on a switch: one for all bursts and egresses.
    const tagger =
      this.#taggers.get(vlans) ?? new Tagger(vlans, this.#counters, NOBODY_WATCHES, () => undefined)
    this.#taggers.set(vlans, tagger)
    tagger.beginBurst(0, spoils)
    for (const list of lists) {
      if (list.length === 0) continue
      const places = Int32Array.from([-1, ...list])
      new TagStage(tagger, next, 1).transmit(this.#burst, places, 1, list.length, 0)
    }
  }

  counter(name: CounterName, port = 0): number {
    return this.#counters[port * COUNTERS_STRIDE + COUNTERS[name]]
  }

  #fill(frames: readonly OffloadFrame[]): void {
    const burst = this.#burst
    burst.clear()
    const memory = new Uint8Array(this.#memory.buffer)
    let at = 64
    let further = 0
    frames.forEach(
      ({ bytes, header = [0, 0, 0, 0, 0, 0], tunnel = [0, 0], cuts = [], ...more }, k) => {
        const { needs = 0 } = more
        const [flags, type, hdrLength, gsoSize, csumStart, csumOffset] = header
        burst.gso[k] = flags | (type << 8) | (hdrLength << 16)
        burst.gsoSize[k] = gsoSize | (csumStart << 16)
        burst.csumOffset[k] = csumOffset
        burst.tunnel[k] = tunnel[0] | (tunnel[1] << 16)
        const words = [burst.gso[k], burst.gsoSize[k]] as const
        const found = offloadNeeds(...words, csumOffset, bytes.length, burst.tunnel[k])
        burst.needs[k] = Math.max(found, 0) | needs
        burst.window[k] = this.#memory.id
        burst.length[k] = bytes.length
        burst.headLength[k] = 0
        burst.furtherFirst[k] = further
        const head = new Uint8Array(HEAD_WORDS * 4)
        head.set(bytes.subarray(0, 16))
        burst.heads.set(new Int32Array(head.buffer), k * HEAD_WORDS)
        let done = 0
        const pieces = [...cuts.filter((cut) => cut > 0), bytes.length]
        pieces.forEach((piece, number) => {
          const length = Math.min(piece, bytes.length - done)
          if (length === 0 && number > 0) return
          memory.set(bytes.subarray(done, done + length), at)
          if (number === 0) {
            burst.offset[k] = at
            burst.firstLength[k] = length
          } else {
            burst.furtherWindow[further] = this.#memory.id
            burst.furtherOffset[further] = at
            burst.furtherLength[further] = length
            further++
          }
          done += length
          at += length + 3
        })
        burst.furtherCount[k] = further - burst.furtherFirst[k]
        // The next frame's slices are nobody else's.
        at += 5
      },
    )
    burst.count = frames.length
    burst.hasOffloads = true
    burst.furtherTotal = further
  }

  close(): void {
    for (const tagger of this.#taggers.values()) tagger.close()
    this.#finisher.close()
    this.#merger.close()
    this.#burst.close()
    this.#copies.close()
    this.#memory.unmap()
    this.#output.unmap()
  }
}
