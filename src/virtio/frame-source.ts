/**
 * From a transmitq into a burst: frames stay where they are, in guest memory, and are described by
 * segments; only the vnet_hdr and the first 16 bytes of each are read, all of them together by one
 * gather that prefetches (read one by one they would be one cache miss after the other).
 *
 *     chain:  | vnet_hdr | frame ...                | in any number of buffers, cut anywhere
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, FURTHER_MAX, FURTHER_PER_FRAME_MAX, HEAD_WORDS } from '../mem/burst.ts'
import { CopyProgram } from '../mem/copy-program.ts'
import { Window } from '../mem/window.ts'
import { GATHER_ROW_INTS, shim } from '../native/shim.ts'
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from '../abi/virtio-net.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import { NEEDS_MALFORMED, offloadNeeds } from '../wire/vnet-hdr.ts'
import { Chain } from './chain.ts'
import type { DeviceQueue } from './device-queue.ts'
import { GsoCheck } from './gso-check.ts'
import { PlainChains } from './plain-chains.ts'

/** 64 KiB of payload behind an Ethernet header and two VLAN tags. */
const FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH + 2 * VLAN_TAG_LENGTH
/** What one row gathers. */
const HEAD_LENGTH = 16

export class FrameSource {
  /** Frames of the last `fill` that never became one of the burst. */
  malformed = 0
  unknownType = 0
  oversize = 0
  /** Bytes of vnet_hdr before each frame. */
  headerLength = 12
  /** TUN_F_* bits that the driver may use; 0: its headers mean nothing and are not read. */
  offloads = 0

  readonly #chain: Chain = new Chain()
  readonly #plain: PlainChains = new PlainChains()
  readonly #ids: Int32Array = new Int32Array(BURST_SIZE_MAX)
  readonly #entries: Int32Array = new Int32Array(BURST_SIZE_MAX)
  #taken = 0
  readonly #table: Window
  readonly #rows: Int32Array
  readonly #heads: Window
  readonly #headWords: Int32Array
  #rowCount = 0
  /** What is cut into several segments is put together here first, and gathered from here. */
  readonly #whole: Window
  readonly #pieces: CopyProgram = new CopyProgram()
  readonly #gso: GsoCheck = new GsoCheck()

  constructor() {
    this.#table = Window.map(2 * BURST_SIZE_MAX * GATHER_ROW_INTS * 4)
    this.#rows = new Int32Array(this.#table.buffer)
    this.#heads = Window.map(2 * BURST_SIZE_MAX * HEAD_LENGTH)
    this.#headWords = new Int32Array(this.#heads.buffer)
    this.#whole = Window.map(2 * BURST_SIZE_MAX * HEAD_LENGTH)
  }

  /**
   * Fills the burst with the next frames of a queue; returns the chains taken, which are more than
   * frames when some were unusable. They are given back with `giveBack`.
   * @hot
   */
  fill(queue: DeviceQueue, burst: Burst): number {
    const chain = this.#chain
    this.malformed = 0
    this.unknownType = 0
    this.oversize = 0
    this.#rowCount = 0
    burst.count = 0
    let taken = this.#fillPlain(queue, burst, 0)
    let count = burst.count
    let further = 0
    while (
      taken < BURST_SIZE_MAX &&
      further + FURTHER_PER_FRAME_MAX <= FURTHER_MAX &&
      queue.take(chain)
    ) {
      this.#ids[taken] = chain.id
      this.#entries[taken] = chain.entries
      taken++
      const length = chain.readableLength - this.headerLength
      if (length < ETHER_HEADER_LENGTH) this.malformed++
      else if (length > FRAME_LENGTH_MAX) this.oversize++
      else {
        const segments = this.#describe(burst, count, length, further)
        if (segments < 0) this.malformed++
        else {
          further += segments
          count++
        }
      }
      burst.count = count
      taken += this.#fillPlain(queue, burst, taken)
      count = burst.count
    }
    this.#taken = taken
    burst.count = count
    burst.furtherTotal = further
    if (count > 0) this.#readHeads(burst)
    return taken
  }

  /** Chains of one buffer each, as many as follow one another; `taken` were taken before. @hot */
  #fillPlain(queue: DeviceQueue, burst: Burst, taken: number): number {
    const plain = this.#plain
    const chains = queue.takePlain(plain, false, BURST_SIZE_MAX - taken)
    const { headerLength } = this
    const hasHeaders = this.offloads !== 0
    const headLength = hasHeaders ? headerLength : 0
    let k = burst.count
    for (let n = 0; n < chains; n++) {
      this.#ids[taken + n] = plain.id[n]
      this.#entries[taken + n] = 1
      const length = plain.length[n] - headerLength
      if (length < ETHER_HEADER_LENGTH) this.malformed++
      else if (length > FRAME_LENGTH_MAX) this.oversize++
      else {
        const window = plain.window[n]
        const offset = plain.offset[n]
        burst.window[k] = window
        burst.offset[k] = offset + headerLength
        burst.length[k] = length
        burst.headLength[k] = headLength
        burst.furtherCount[k] = 0
        k++
        if (hasHeaders) this.#addRow(window, offset)
        this.#addRow(window, offset + headerLength)
      }
    }
    burst.count = k
    return chains
  }

  /** Frame k of the burst is the chain's; returns its further segments, -1: too many. @hot */
  #describe(burst: Burst, k: number, length: number, further: number): number {
    const chain = this.#chain
    let segment = 0
    let skip = this.headerLength
    while (skip >= chain.length[segment]) {
      skip -= chain.length[segment]
      segment++
    }
    const more = chain.readable - segment - 1
    if (more > FURTHER_PER_FRAME_MAX) return -1
    const first = chain.length[segment] - skip
    burst.window[k] = chain.window[segment]
    burst.offset[k] = chain.offset[segment] + skip
    burst.length[k] = length
    burst.firstLength[k] = first
    burst.furtherFirst[k] = further
    burst.furtherCount[k] = more
    for (let at = 0; at < more; at++) {
      burst.furtherWindow[further + at] = chain.window[segment + 1 + at]
      burst.furtherOffset[further + at] = chain.offset[segment + 1 + at]
      burst.furtherLength[further + at] = chain.length[segment + 1 + at]
    }
    // A header that was checked may stand for itself; what it says is read once more by the kernel.
    burst.headLength[k] = segment === 0 && this.offloads !== 0 ? this.headerLength : 0
    if (this.offloads !== 0) {
      if (chain.length[0] < this.headerLength) this.#addPieces(0, 0)
      else this.#addRow(chain.window[0], chain.offset[0])
    }
    if (first < HEAD_LENGTH && more > 0) this.#addPieces(segment, skip)
    else this.#addRow(burst.window[k], burst.offset[k])
    return more
  }

  /** @hot */
  #addRow(window: number, offset: number): void {
    const row = this.#rowCount * GATHER_ROW_INTS
    this.#rows[row] = window
    this.#rows[row + 1] = offset
    this.#rowCount++
  }

  /** A row for what lies in several segments, from `skip` bytes into `segment` on. @hot */
  #addPieces(segment: number, skip: number): void {
    const chain = this.#chain
    const to = this.#rowCount * HEAD_LENGTH
    let done = 0
    let from = skip
    for (let at = segment; at < chain.readable && done < HEAD_LENGTH; at++) {
      const rest = chain.length[at] - from
      const part = rest < HEAD_LENGTH - done ? rest : HEAD_LENGTH - done
      this.#pieces.add(chain.window[at], chain.offset[at] + from, this.#whole.id, to + done, part)
      done += part
      from = 0
    }
    this.#addRow(this.#whole.id, to)
  }

  /** @hot */
  #readHeads(burst: Burst): void {
    this.#pieces.run()
    shim.gatherRows(this.#table.id, 0, this.#rowCount, this.#heads.id, 0)
    const words = this.#headWords
    const heads = burst.heads
    const count = burst.count
    if (this.offloads !== 0) {
      this.#readHeaders(burst)
      return
    }
    for (let word = 0; word < count * HEAD_WORDS; word++) heads[word] = words[word]
    burst.gso.fill(0, 0, count)
    burst.gsoSize.fill(0, 0, count)
    burst.csumOffset.fill(0, 0, count)
    burst.needs.fill(0, 0, count)
  }

  /** Reads the vnet_hdrs as well; frames whose header is wrong leave the burst. @hot */
  #readHeaders(burst: Burst): void {
    const words = this.#headWords
    const heads = burst.heads
    let kept = 0
    let hasGso = false
    for (let k = 0; k < burst.count; k++) {
      const at = 2 * k * HEAD_WORDS
      let gso = words[at]
      let gsoSize = 0
      let csumOffset = 0
      let needs = 0
      if ((gso & 0xffff) !== 0) {
        // Of the flags a driver has but one (§5.1.6.2.1): whether data is valid others decide.
        const flags = gso & 0xff
        if (flags > VIRTIO_NET_HDR_F_NEEDS_CSUM) {
          gso &= ~0xff | VIRTIO_NET_HDR_F_NEEDS_CSUM
          burst.headLength[k] = 0
        }
        gsoSize = words[at + 1]
        csumOffset = words[at + 2] & 0xffff
        needs = offloadNeeds(gso, gsoSize, csumOffset, burst.length[k])
        if (needs < 0 || (needs & ~this.offloads) !== 0) {
          // A driver that uses what it did not negotiate is as wrong as a header that makes no sense.
          if (needs < 0 && needs !== NEEDS_MALFORMED) this.unknownType++
          else this.malformed++
          continue
        }
        if ((gso & 0xff00) !== 0) hasGso = true
      }
      if (kept !== k) burst.move(k, kept)
      burst.gso[kept] = gso
      burst.gsoSize[kept] = gsoSize
      burst.csumOffset[kept] = csumOffset
      burst.needs[kept] = needs
      const head = kept * HEAD_WORDS
      heads[head] = words[at + 4]
      heads[head + 1] = words[at + 5]
      heads[head + 2] = words[at + 6]
      heads[head + 3] = words[at + 7]
      kept++
    }
    burst.count = kept
    if (hasGso) this.malformed += this.#gso.check(burst)
  }

  /** Gives the chains of the last `fill` back; true: the driver asks to be called. @hot */
  giveBack(queue: DeviceQueue): boolean {
    const taken = this.#taken
    for (let k = 0; k < taken; k++) queue.put(this.#ids[k], this.#entries[k], 0)
    this.#taken = 0
    return queue.publish()
  }

  close(): void {
    this.#table.unmap()
    this.#heads.unmap()
    this.#whole.unmap()
    this.#pieces.close()
    this.#gso.close()
  }
}
