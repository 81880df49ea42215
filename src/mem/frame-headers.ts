/**
 * The headers of a burst's frames, for whoever has to know more of a frame than its first 16 bytes: copied
 * out of wherever the frames lie, those that are asked for by one call, and looked through once.
 *
 *     want(k, length), want(...) ... read()        bytes, from at(k) on        parse(k) -> of(k)        flowHash(k)
 *
 * Each byte is read once in the life of the burst, whoever asks (the check of a driver's vnet_hdrs, the
 * stages of every egress, steering): a guest that changes its frame meanwhile changes nothing here, and what
 * one has checked is what the next one uses. Frames that nobody asks for cost nothing.
 *
 * There is a record for each frame, made once: what is found in a frame is looked at together.
 */
import { flowHash } from '../wire/flow-hash.ts'
import { Headers, HEADERS_MAX } from '../wire/headers.ts'
import { isAsSaid, isTunnelled } from '../wire/vnet-hdr.ts'
import type { Burst } from './burst.ts'
import { CopyProgram } from './copy-program.ts'
import { ownAll } from './own-all.ts'
import { Window } from './window.ts'

/** Bytes that are enough to tell flows apart: two tags, IPv6 with a few extension headers, ports. */
export const FLOW_HEADERS_MAX = 128
/** What is known of a frame of which some bytes were read: bits, added to the number of the burst. */
const PARSED = 1
const FOUND = 2
const HASHED = 4
/** From the number of a burst to that of the next one. */
const BURST_STEP = 8
const BURSTS_MAX = 0x3fff_0000

/** Frames that are kept between two flushes, and those of one burst more. */
const KEPT_MAX = 1024

export class FrameHeaders {
  /** Of all frames: at most HEADERS_MAX bytes of each. */
  readonly bytes: Uint8Array
  /** The same; `at` is a multiple of 4. */
  readonly words: Int32Array
  readonly #burst: Burst
  readonly #window: Window
  readonly #copies: CopyProgram
  /** By frame; less than #now: nothing. */
  readonly #known: Int32Array
  /** By frame of which something is known: bytes that were read. */
  readonly #length: Int32Array
  readonly #found: Headers[]
  readonly #hash: Int32Array
  /** Number of the burst: what was known before is forgotten without being touched. */
  #now = BURST_STEP
  readonly #flushWrites: (() => void) | null
  /** So much was read of each frame; of those of which more is known it is said where that is. */
  #ofAll = 0
  /** Where frame 0 starts: behind what was kept of bursts before. */
  #base = 0
  /** Something was read of this burst; frames of it that are kept, and those before them. */
  #hasRead = false
  #kept = 0

  /** Of a burst of at most `frames` frames; `flushWrites` as for `Burst`. */
  constructor(burst: Burst, frames: number, flushWrites: (() => void) | null) {
    this.#burst = burst
    this.#flushWrites = flushWrites
    const most = flushWrites === null ? frames : KEPT_MAX + frames
    const made = ownAll((own) => ({
      window: own(Window.map(most * HEADERS_MAX)),
      copies: own(new CopyProgram()),
    }))
    this.#window = made.window
    this.#copies = made.copies
    this.bytes = new Uint8Array(made.window.buffer)
    this.words = new Int32Array(made.window.buffer)
    this.#known = new Int32Array(frames)
    this.#length = new Int32Array(frames)
    this.#found = Array.from({ length: frames }, () => new Headers())
    this.#hash = new Int32Array(frames)
  }

  /** Other frames come. @hot */
  forget(): void {
    this.#hasRead = false
    this.#ofAll = 0
    this.#base += this.#kept * HEADERS_MAX
    this.#kept = 0
    this.#now += BURST_STEP
    if (this.#now < BURSTS_MAX) return
    this.#known.fill(0)
    this.#now = BURST_STEP
  }

  /** Nothing points any more to frames that were kept, this burst's among them. @hot */
  release(): void {
    this.#base = 0
    this.#kept = 0
  }

  /** Something is read of this burst. What was kept stays until everything is written that has it. @hot */
  #begin(): void {
    this.#hasRead = true
    if (this.#base < KEPT_MAX * HEADERS_MAX) return
    this.#flushWrites!()
    this.#base = 0
  }

  /** Number of the window that has `bytes`. */
  get windowId(): number {
    return this.#window.id
  }

  /** Nothing was asked for since the burst came. @hot */
  get isUnread(): boolean {
    return !this.#hasRead
  }

  /** The first `length` bytes of all frames will be read at once, from the returned place on. @hot */
  readAll(length: number): number {
    this.#begin()
    this.#ofAll = length
    return this.#base
  }

  /** What was read of frame k is its beginning: it stays when other frames come. Returns where it is. @hot */
  keep(k: number): number {
    if (k >= this.#kept) this.#kept = k + 1
    return this.at(k)
  }

  /** Frame k becomes frame `to`, which is one no more. @hot */
  move(k: number, to: number): void {
    const known = this.#known[k]
    this.#known[to] = known
    const read = this.available(k)
    if (read === 0) return
    const from = this.at(k)
    this.bytes.copyWithin(this.at(to), from, from + read)
    if (known < this.#now) return
    this.#length[to] = read
    this.#hash[to] = this.#hash[k]
    const found = this.#found[k]
    this.#found[k] = this.#found[to]
    this.#found[to] = found
  }

  /** Asks for the first `length` bytes of frame k, HEADERS_MAX at most; they are there after `read`. @hot */
  want(k: number, length: number): void {
    const burst = this.#burst
    const whole = burst.length[k]
    const wanted = whole < length ? whole : length
    if (!this.#hasRead) this.#begin()
    const at = this.at(k)
    const read = this.available(k)
    if (wanted <= read) return
    if (this.#known[k] < this.#now) this.#known[k] = this.#now
    this.#length[k] = wanted
    if (read === 0) {
      this.#copies.addFrame(burst, k, this.#window.id, at, wanted)
      return
    }
    this.#copies.addPart(burst, k, read, this.#window.id, at + read, wanted - read)
  }

  /** Copies what was asked for. @hot */
  read(): void {
    this.#copies.run()
  }

  /** Where in `bytes` frame k starts. @hot */
  at(k: number): number {
    return this.#base + k * HEADERS_MAX
  }

  /** How much of it is there. @hot */
  available(k: number): number {
    if (this.#known[k] >= this.#now) return this.#length[k]
    const whole = this.#burst.length[k]
    return whole < this.#ofAll ? whole : this.#ofAll
  }

  /**
   * Looks for TCP or UDP in frame k, of which HEADERS_MAX bytes were asked for: inside the tunnel, if its
   * vnet_hdr says that there is one. True: `of` says where all of its headers are. False: there is none, or
   * it is a fragment, or cut off.
   * @hot
   */
  parse(k: number): boolean {
    const known = this.#know(k)
    if ((known & PARSED) !== 0) return (known & FOUND) !== 0
    const { gso, tunnel } = this.#burst
    const headers = this.#found[k]
    const at = this.at(k)
    const available = this.#length[k]
    const isFound = isTunnelled(gso[k])
      ? headers.parseTunnelled(this.bytes, at, available, tunnel[k] & 0xffff, tunnel[k] >>> 16)
      : headers.parse(this.bytes, at, available)
    this.#known[k] = known | (isFound ? PARSED | FOUND : PARSED)
    return isFound
  }

  /** What is known of frame k, of which something was read. @hot */
  #know(k: number): number {
    if (this.#known[k] < this.#now) {
      this.#length[k] = this.available(k)
      this.#known[k] = this.#now
    }
    return this.#known[k]
  }

  /** The same for a GSO frame; also false: it is not what its vnet_hdr says. @hot */
  parseGso(k: number): boolean {
    return this.parse(k) && isAsSaid(this.#burst.gso[k], this.#found[k])
  }

  /** What `parse` found in frame k. @hot */
  of(k: number): Headers {
    return this.#found[k]
  }

  /**
   * The hash of its flow; see wire/flow-hash.ts. FLOW_HEADERS_MAX bytes were asked for; more that are there
   * make no difference.
   * @hot
   */
  flowHash(k: number): number {
    const known = this.#know(k)
    if ((known & HASHED) !== 0) return this.#hash[k]
    const hash = flowHash(this.bytes, this.at(k), this.flowLength(k))
    this.#known[k] = known | HASHED
    this.#hash[k] = hash
    return hash
  }

  /** Bytes of it that tell its flow. @hot */
  flowLength(k: number): number {
    const length = this.#length[k]
    return length < FLOW_HEADERS_MAX ? length : FLOW_HEADERS_MAX
  }

  close(): void {
    this.#copies.close()
    this.#window.unmap()
  }
}
