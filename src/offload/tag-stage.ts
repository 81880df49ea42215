/**
 * Gives frames the VLAN tag with which they leave: pushes one, takes one off, or writes another one. A frame
 * that leaves otherwise than it came is addresses and tag in memory of our own in front of the rest of the
 * original, which is neither copied nor changed: other egresses of the burst have it as it came.
 *
 *     push     dst src | tag            + original from byte 12 on
 *     rewrite  dst src | tag            + original from byte 16 on
 *     pop      dst src | bytes 16..19   + original from byte 20 on
 *
 * It is the first stage of an egress: once per GSO frame, not per segment of it, and what it hands on is the
 * frame as it leaves, whole, for captures. `csum_start`, `hdr_len` and the offsets of a tunnel move with
 * the bytes behind them.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from '../abi/virtio-net.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import { tagIn } from '../wire/vlan.ts'
import { isTunnelled } from '../wire/vnet-hdr.ts'
import { FrameBuilder } from './frame-builder.ts'
import type { FrameTaker } from './stage.ts'
import type { TagRules } from './vlan-ports.ts'
import { AS_IT_CAME } from './vlan-ports.ts'

/** Both addresses. */
const ADDRESSES = 12
/** Our bytes of a frame with a tag of ours, and of one without: its type and two bytes more. */
const OWN = 16
/** Of a frame whose tag goes so many bytes are looked at. */
const POPPED: number = OWN + VLAN_TAG_LENGTH
const OFFSET_MAX = 0xffff

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
  /** The port by which the frames of the burst came. */
  #from = 0
  /** By place in the list: the tag with which the frame leaves, 0, or AS_IT_CAME. */
  readonly #out: Int32Array = new Int32Array(BURST_SIZE_MAX)
  #isTunnel = false

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

  /** Frames of another burst come, which came in by that port. @hot */
  beginBurst(from: number): void {
    this.#from = from
    this.#isTunnel = this.#rules.isTunnel(from)
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
    if (!this.#decide(port, burst, list, first, count)) {
      next.transmit(burst, list, first, count, queue)
      return
    }
    const builder = this.#builder
    builder.begin(next, queue)
    let dropped = 0
    for (let at = 0; at < count; at++) {
      const k = list[first + at]
      const out = this.#out[at]
      if (out === AS_IT_CAME) builder.pass(burst, k)
      else if (!this.#build(burst, k, out)) dropped++
    }
    builder.flush()
    if (dropped > 0)
      this.#counters[countedAt * COUNTERS_STRIDE + COUNTERS.tx_drop_offload] += dropped
  }

  /** False: all of them leave as they came. @hot */
  #decide(port: number, burst: Burst, list: Int32Array, first: number, count: number): boolean {
    const { heads, headers } = burst
    let hasChanges = false
    let hasPops = false
    let last = 0
    let out = this.#rules.tagOut(this.#from, port, 0)
    for (let at = 0; at < count; at++) {
      const k = list[first + at]
      const outer = tagIn(heads[k * HEAD_WORDS + 3])
      if (outer !== last) {
        last = outer
        out = this.#rules.tagOut(this.#from, port, outer)
      }
      this.#out[at] = out
      if (out !== AS_IT_CAME) hasChanges = true
      if (out === 0) {
        headers.want(k, POPPED)
        hasPops = true
      }
    }
    if (hasPops) headers.read()
    return hasChanges
  }

  /** False: what its vnet_hdr says cannot be said any more. @hot */
  #build(burst: Burst, k: number, out: number): boolean {
    const builder = this.#builder
    const head = k * HEAD_WORDS
    const { heads } = burst
    const isReplaced = !this.#isTunnel && tagIn(heads[head + 3]) !== 0
    const moved = (out === 0 ? 0 : VLAN_TAG_LENGTH) - (isReplaced ? VLAN_TAG_LENGTH : 0)
    const gso = burst.gso[k]
    const gsoSize = burst.gsoSize[k]
    const tunnel = burst.tunnel[k]
    if (burst.hasOffloads && moved !== 0 && !canMove(gso, gsoSize, tunnel, moved)) return false
    const to = builder.start()
    const word = to >> 2
    const { words } = builder
    words[word] = heads[head]
    words[word + 1] = heads[head + 1]
    words[word + 2] = heads[head + 2]
    let own = OWN
    let from = isReplaced ? ADDRESSES + VLAN_TAG_LENGTH : ADDRESSES
    if (out !== 0) words[word + 3] = out
    else {
      const { headers } = burst
      const available = headers.available(k)
      const behind = available < POPPED ? available : POPPED
      own = behind - VLAN_TAG_LENGTH
      from = behind
      const at = headers.at(k)
      for (let byte = ADDRESSES; byte < own; byte++) {
        builder.bytes[to + byte] = headers.bytes[at + VLAN_TAG_LENGTH + byte]
      }
    }
    builder.readFrom(burst, k, from)
    if (!builder.take(burst.length[k] - from)) return false
    if (!burst.hasOffloads || moved === 0) {
      builder.end(own, gso, gsoSize, burst.csumOffset[k], burst.needs[k], tunnel)
      return true
    }
    builder.end(
      own,
      moveHeaderLength(gso, moved),
      moveChecksum(gso, gsoSize, moved),
      burst.csumOffset[k],
      burst.needs[k],
      isTunnelled(gso) ? tunnel + moved + (moved << 16) : tunnel,
    )
    return true
  }

  close(): void {
    this.#builder.close()
  }
}

/** The offsets of its vnet_hdr are behind the tag, and have room. @hot */
function canMove(gso: number, gsoSize: number, tunnel: number, moved: number): boolean {
  if ((gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    const start = (gsoSize >>> 16) + moved
    if (start < ETHER_HEADER_LENGTH || start > OFFSET_MAX) return false
  }
  if (!isTunnelled(gso)) return true
  const outer = (tunnel & OFFSET_MAX) + moved
  const inner = (tunnel >>> 16) + moved
  return outer >= ETHER_HEADER_LENGTH && outer <= OFFSET_MAX && inner <= OFFSET_MAX
}

/** Of `gso`: a hint, which is left alone where it is none. @hot */
function moveHeaderLength(gso: number, moved: number): number {
  const length = (gso >>> 16) + moved
  if (gso >>> 16 === 0 || length < ETHER_HEADER_LENGTH || length > OFFSET_MAX) return gso
  return (gso & 0xffff) | (length << 16)
}

/** Of `gsoSize`. @hot */
function moveChecksum(gso: number, gsoSize: number, moved: number): number {
  return (gso & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0 ? gsoSize : (gsoSize + (moved << 16)) | 0
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
