/**
 * Gives frames the VLAN tag with which they leave: pushes one, takes one off, or writes another one. A frame
 * that leaves otherwise than it came is a head of our own (mem/new-heads.ts) in front of the rest of the original,
 * which is neither copied nor changed: other egresses of the burst have it as it came. A port that copies
 * frames anyway is told of them and writes them itself (`transmitWithHeads`); for others frames are built.
 *
 * Frames of guests are given a head of ours also when it is what they came with: what decided about them is
 * what leaves, whatever the guest writes meanwhile.
 *
 * It is the first stage of an egress: once per GSO frame, not per segment of it, and what it hands on is the
 * frame as it leaves, whole, for captures. `csum_start`, `hdr_len` and the offsets of a tunnel move with
 * the bytes behind them.
 */
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS } from '../mem/burst.ts'
import { LOOKED_AT, NewHeads, ownLength, skippedLength } from '../mem/new-heads.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import { tagIn } from '../wire/vlan.ts'
import { canMove, moveChecksum, moveHeaderLength, moveTunnel } from '../wire/vnet-hdr.ts'
import { FrameBuilder } from './frame-builder.ts'
import type { FrameTaker } from './stage.ts'
import type { TagRules } from './vlan-ports.ts'
import { AS_IT_CAME } from './vlan-ports.ts'

/** Whoever looks at frames as they leave. */
export interface LeavingWatch {
  readonly isWatching: boolean
  /** The frames list[first .. first + count) of the burst leave by the port. @hot */
  leaves(burst: Burst, list: Int32Array, first: number, count: number, port: number): void
}

/** What the stages of all egresses share: its memory is in use only while one of them has frames. */
export class Tagger {
  readonly watch: LeavingWatch
  readonly #rules: TagRules
  readonly #counters: Float64Array
  readonly #builder: FrameBuilder
  /** The port by which the frames of the burst came; somebody may write to them meanwhile. */
  #from = 0
  #isForeign = false
  #isTunnel = false
  readonly #heads: NewHeads = new NewHeads()
  /** Of the last list: some leave otherwise than they came; all can have heads while they are copied. */
  #hasChanges = false
  #isPlain = false
  /** What stands behind a tag that stays was looked at as well, and is ours. */
  #keepsInners = false

  /** `flushWrites` completes everything that ports were given. */
  constructor(
    rules: TagRules,
    counters: Float64Array,
    watch: LeavingWatch,
    flushWrites: () => void,
  ) {
    this.#rules = rules
    this.#counters = counters
    this.watch = watch
    this.#builder = new FrameBuilder(flushWrites)
  }

  /** Frames of another burst come, which came in by that port; `isForeign`: they lie in a guest's memory. @hot */
  beginBurst(from: number, isForeign: boolean): void {
    this.#from = from
    this.#isForeign = isForeign
    this.#isTunnel = this.#rules.isTunnel(from)
  }

  /** How frames begin that came in by `from` and leave by `port`; until others are given. @hot */
  headsOf(
    from: number,
    port: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
  ): NewHeads {
    this.beginBurst(from, true)
    this.#decide(port, burst, list, first, count)
    return this.#heads
  }

  /** As they leave by the port of that number; what cannot be given its tag counts there, or at another. @hot */
  tag(
    next: FrameTaker,
    port: number,
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
    countedAt: number = port,
  ): void {
    this.#decide(port, burst, list, first, count)
    if (!this.#hasChanges && !this.#isForeign) {
      next.transmit(burst, list, first, count, queue)
      return
    }
    if (this.#isPlain && next.writesHeads === true) {
      next.transmitWithHeads!(burst, list, first, count, queue, this.#heads)
      return
    }
    const builder = this.#builder
    builder.begin(next, queue)
    let dropped = 0
    for (let at = 0; at < count; at++) if (!this.#build(burst, list[first + at])) dropped++
    builder.flush()
    if (dropped > 0)
      this.#counters[countedAt * COUNTERS_STRIDE + COUNTERS.tx_drop_offload] += dropped
  }

  /** How each of them begins. @hot */
  #decide(port: number, burst: Burst, list: Int32Array, first: number, count: number): void {
    const { length, furtherCount, firstLength } = burst
    const hasFurther = burst.furtherTotal !== 0
    const end = first + count
    const hasChanges = burst.isOneRun
      ? this.#decideAll(port, burst, list[first])
      : this.#decideEach(port, burst, list, first, end)
    let shortest = LOOKED_AT
    if (!hasFurther && count === burst.count) {
      for (let k = 0; k < count; k++) if (length[k] < shortest) shortest = length[k]
    } else {
      for (let at = first; at < end; at++) {
        const k = list[at]
        const piece = hasFurther && furtherCount[k] !== 0 ? firstLength[k] : length[k]
        if (piece < shortest) shortest = piece
      }
    }
    const canAll = !burst.hasOffloads || this.#canMoveAll(burst, list, first, end)
    this.#hasChanges = hasChanges || !canAll
    const asksInner = this.#isForeign && !this.#isTunnel && this.#rules.asksInner(port)
    this.#keepsInners = asksInner && this.#anyTagStays(list, first, end)
    if (this.#keepsInners) burst.readInners()
    this.#isPlain = shortest >= LOOKED_AT && canAll && !this.#keepsInners
  }

  /** @hot */
  #anyTagStays(list: Int32Array, first: number, end: number): boolean {
    const { isOne } = this.#heads
    for (let at = first; at < end; at++) {
      if (this.#hasTagThatStays(list[at])) return true
      if (isOne) break
    }
    return false
  }

  /** It has one where it came with one. @hot */
  #hasTagThatStays(k: number): boolean {
    const { word, moved } = this.#heads
    return moved[k] === 0 && tagIn(word[k]) !== 0
  }

  /** Returns whether any leaves otherwise than it came. @hot */
  #decideEach(port: number, burst: Burst, list: Int32Array, first: number, end: number): boolean {
    const rules = this.#rules
    const from = this.#from
    const { heads } = burst
    const { word, moved } = this.#heads
    this.#heads.isOne = false
    let changed = 0
    let least = 0
    // Mostly those that follow one another came with the same: as long as that is so, they leave so as well.
    let last = ~heads[list[first] * HEAD_WORDS + 3]
    let left = 0
    let by = 0
    for (let at = first; at < end; at++) {
      const k = list[at]
      const came = heads[k * HEAD_WORDS + 3]
      if (came !== last) {
        last = came
        const outer = tagIn(came)
        const out = rules.tagOut(from, port, outer)
        left = out === AS_IT_CAME ? came : out
        by = this.#movedBy(outer, out)
        changed |= (left ^ came) | by
        if (by < least) least = by
      }
      word[k] = left
      moved[k] = by
    }
    if (least < 0) {
      burst.readInners()
      for (let at = first; at < end; at++) {
        const k = list[at]
        if (moved[k] < 0) this.#showInner(burst, k, this.#tagInPlace(port, burst, k))
      }
    }
    return changed !== 0
  }

  /** The same of all frames of a burst that have the same tag, as frame `one` has it. @hot */
  #decideAll(port: number, burst: Burst, one: number): boolean {
    const { heads, inners, count } = burst
    const { word, moved } = this.#heads
    const outer = tagIn(heads[one * HEAD_WORDS + 3])
    const out = this.#rules.tagOut(this.#from, port, outer)
    const by = this.#movedBy(outer, out)
    moved.fill(by, 0, count)
    if (by < 0) {
      burst.readInners()
      this.#heads.isOne = burst.hasOneInner
      if (burst.hasOneInner) word.fill(inners[0], 0, count)
      else takeColumn(inners, 0, word, count)
      const inPlace = this.#tagInPlace(port, burst, one)
      if (inPlace !== 0) {
        this.#heads.isOne = false
        for (let k = 0; k < count; k++) this.#showInner(burst, k, inPlace)
      }
    } else {
      // What a pushed tag stands before is of ours as well.
      this.#heads.isOne =
        takeColumn(heads, HEAD_WORDS - 1, word, count) || (by === 0 && out !== AS_IT_CAME)
      if (out !== AS_IT_CAME) word.fill(out, 0, count)
    }
    return out !== AS_IT_CAME
  }

  /** So many bytes more than it came with a frame has that leaves with `out`. @hot */
  #movedBy(outer: number, out: number): number {
    if (out === AS_IT_CAME) return 0
    if (out === 0) return -VLAN_TAG_LENGTH
    return outer === 0 || this.#isTunnel ? VLAN_TAG_LENGTH : 0
  }

  /** @hot */
  #tagInPlace(port: number, burst: Burst, k: number): number {
    return this.#rules.tagInPlace(port, tagIn(burst.heads[k * HEAD_WORDS + 3]))
  }

  /** What a frame whose tag goes has in its place: what is inside, or `inPlace`, if that is no tag. @hot */
  #showInner(burst: Burst, k: number, inPlace: number): void {
    const { word, moved } = this.#heads
    const inner = burst.inners[k * HEAD_WORDS]
    const isKept = inPlace !== 0 && tagIn(inner) === 0
    word[k] = isKept ? inPlace : inner
    if (isKept) moved[k] = 0
  }

  /** @hot */
  #canMoveAll(burst: Burst, list: Int32Array, first: number, end: number): boolean {
    const { gso, gsoSize, tunnel } = burst
    const { moved } = this.#heads
    for (let at = first; at < end; at++) {
      const k = list[at]
      if (!canMove(gso[k], gsoSize[k], tunnel[k], moved[k], this.#l3(burst, k))) return false
    }
    return true
  }

  /** Bytes before the packet in frame k as it leaves: no sender's checksum is written to the tags among them. @hot */
  #l3(burst: Burst, k: number): number {
    const { word, moved } = this.#heads
    let tags = tagIn(word[k]) === 0 ? 0 : 1
    if (moved[k] > 0 && tagIn(burst.heads[k * HEAD_WORDS + 3]) !== 0) tags++
    return ETHER_HEADER_LENGTH + tags * VLAN_TAG_LENGTH
  }

  /** False: what its vnet_hdr says cannot be said any more. @hot */
  #build(burst: Burst, k: number): boolean {
    const builder = this.#builder
    const { word, moved } = this.#heads
    const by = moved[k]
    const gso = burst.gso[k]
    const gsoSize = burst.gsoSize[k]
    const tunnel = burst.tunnel[k]
    if (!canMove(gso, gsoSize, tunnel, by, this.#l3(burst, k))) return false
    if (by === 0 && word[k] === burst.heads[k * HEAD_WORDS + 3] && !this.#isForeign) {
      builder.pass(burst, k)
      return true
    }
    const { words } = builder
    const head = k * HEAD_WORDS
    const at = builder.start() >> 2
    words[at] = burst.heads[head]
    words[at + 1] = burst.heads[head + 1]
    words[at + 2] = burst.heads[head + 2]
    words[at + 3] = word[k]
    const keepsInner = this.#keepsInners && this.#hasTagThatStays(k)
    if (by > 0) words[at + 4] = burst.heads[head + 3]
    else if (keepsInner) words[at + 4] = burst.inners[head]
    const length = burst.length[k]
    const skipped = keepsInner ? LOOKED_AT : skippedLength(by)
    const rest = length > skipped ? length - skipped : 0
    // Of a frame that ends before that less is ours.
    const whole = keepsInner ? LOOKED_AT : ownLength(by)
    const own = rest > 0 ? whole : length + by
    builder.readFrom(burst, k, length - rest)
    if (!builder.take(rest)) return false
    builder.end(
      own,
      moveHeaderLength(gso, by),
      moveChecksum(gso, gsoSize, by),
      burst.csumOffset[k],
      burst.needs[k],
      moveTunnel(gso, tunnel, by),
    )
    return true
  }

  close(): void {
    this.#builder.close()
  }
}

/** Word `from` of every frame becomes its new one; returns whether that is the same of all. @hot */
function takeColumn(words: Int32Array, from: number, to: Int32Array, count: number): boolean {
  const first = words[from]
  let others = 0
  for (let k = 0, at = from; k < count; k++, at += HEAD_WORDS) {
    const word = words[at]
    to[k] = word
    others |= word ^ first
  }
  return others === 0
}

/** A tag stage of one egress, in front of what takes its frames next. */
export class TagStage implements FrameTaker {
  readonly #tagger: Tagger
  readonly #next: FrameTaker
  readonly #watched: WatchedTaker
  readonly #port: number

  constructor(tagger: Tagger, next: FrameTaker, port: number) {
    this.#tagger = tagger
    this.#next = next
    this.#watched = new WatchedTaker(tagger.watch, next, port)
    this.#port = port
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const next = this.#tagger.watch.isWatching ? this.#watched : this.#next
    this.#tagger.tag(next, this.#port, burst, list, first, count, queue)
  }
}

class WatchedTaker implements FrameTaker {
  readonly #watch: LeavingWatch
  readonly #next: FrameTaker
  readonly #port: number

  constructor(watch: LeavingWatch, next: FrameTaker, port: number) {
    this.#watch = watch
    this.#next = next
    this.#port = port
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    this.#watch.leaves(burst, list, first, count, this.#port)
    this.#next.transmit(burst, list, first, count, queue)
  }
}
