/**
 * From a transmitq into a burst: frames stay where they are, in guest memory, and are described by
 * segments; only the vnet_hdr and the first 16 bytes of each are read, all of them together by
 * gathers that prefetch (read one by one they would be one cache miss after the other).
 *
 *     chain:  | vnet_hdr | frame ...                | in any number of buffers, cut anywhere
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM,
  VNET_HDR_OUTER_TH_OFFSET,
  VNET_HDR_TUNNEL_LENGTH,
} from '../../abi/virtio-net.ts'
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX, FURTHER_MAX, FURTHER_PER_FRAME_MAX, HEAD_WORDS } from '../../mem/burst.ts'
import { CopyProgram } from '../../mem/copy-program.ts'
import { ownAll } from '../../mem/own-all.ts'
import { Window } from '../../mem/window.ts'
import { shim } from '../../native/shim.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../../wire/ethernet.ts'
import { isGso, isTunnelled, NEEDS_MALFORMED, offloadNeeds } from '../../wire/vnet-hdr.ts'
import { Chain } from '../ring/chain.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import { checkGso } from './gso-check.ts'
import { PlainKind } from '../ring/plain-chains.ts'

/** 64 KiB of payload behind an Ethernet header and two VLAN tags. */
const FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH + 2 * VLAN_TAG_LENGTH
/** Bytes that are gathered of each header, and of each frame. */
const HEAD_LENGTH: number = HEAD_WORDS * 4
const COLUMN_LENGTH: number = BURST_SIZE_MAX * 4
/** outer_th_offset and inner_nh_offset, which stand behind what is gathered of a header. */
const TUNNEL_LENGTH: number = VNET_HDR_TUNNEL_LENGTH - VNET_HDR_OUTER_TH_OFFSET
/** Every header, every head and every tunnel byte by byte. */
const PIECES_MAX: number = BURST_SIZE_MAX * (2 * HEAD_LENGTH + TUNNEL_LENGTH)
/** Flags of a driver (§5.1.6.2.1) for a tunnel; the second is for nothing else. */
const TUNNEL_FLAGS: number = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM

export class FrameSource {
  /** Frames of the last `fill` that never became one of the burst. */
  malformed = 0
  unknownType = 0
  oversize = 0
  /** Bytes of vnet_hdr before each frame. */
  headerLength = 12
  /** TUN_F_* bits that the driver may use; 0: its headers mean nothing and are not read. */
  offloads = 0

  readonly #chain: Chain
  readonly #kind: PlainKind = new PlainKind(false)
  /** Where the vnet_hdrs are, as columns, and what was gathered of them. */
  readonly #places: Window
  readonly #window: Int32Array
  readonly #offset: Int32Array
  readonly #headers: Window
  readonly #headerWords: Int32Array
  readonly #tunnels: Window
  readonly #tunnelWords: Int32Array
  /** What is cut into several segments is put together by copies, after the rest was gathered. */
  readonly #pieces: CopyProgram

  constructor() {
    const made = ownAll((own) => ({
      chain: own(new Chain(true)),
      places: own(Window.map(2 * COLUMN_LENGTH)),
      headers: own(Window.map(BURST_SIZE_MAX * HEAD_LENGTH)),
      tunnels: own(Window.map(BURST_SIZE_MAX * TUNNEL_LENGTH)),
      pieces: own(new CopyProgram(PIECES_MAX)),
    }))
    this.#chain = made.chain
    this.#places = made.places
    this.#window = new Int32Array(made.places.buffer, 0, BURST_SIZE_MAX)
    this.#offset = new Int32Array(made.places.buffer, COLUMN_LENGTH, BURST_SIZE_MAX)
    this.#headers = made.headers
    this.#headerWords = new Int32Array(made.headers.buffer)
    this.#tunnels = made.tunnels
    this.#tunnelWords = new Int32Array(made.tunnels.buffer)
    this.#pieces = made.pieces
  }

  /**
   * Fills the burst with the next frames of a queue, as many as its limits allow; returns the chains
   * taken, which are more than frames when some were unusable. All of them are put: the driver has
   * them back with `publish`.
   * @hot
   */
  fill(queue: DeviceQueue, burst: Burst): number {
    const chain = this.#chain
    this.malformed = 0
    this.unknownType = 0
    this.oversize = 0
    burst.clear()
    const { framesMax, descriptorsMax } = burst
    const kind = this.#kind
    kind.bytesLeft = burst.bytesMax
    let taken = this.#fillPlain(queue, burst, 0)
    let walked = taken
    while (
      taken < framesMax &&
      walked < descriptorsMax &&
      kind.bytesLeft > 0 &&
      burst.furtherTotal + FURTHER_PER_FRAME_MAX <= FURTHER_MAX &&
      queue.take(chain)
    ) {
      queue.put(chain.id, chain.entries, 0)
      taken++
      walked += chain.descriptors
      const length = chain.readableLength - this.headerLength
      if (length < ETHER_HEADER_LENGTH) this.malformed++
      else if (length > FRAME_LENGTH_MAX) this.oversize++
      else {
        kind.bytesLeft -= length
        this.#describe(burst, length)
      }
      const plain = kind.bytesLeft > 0 ? this.#fillPlain(queue, burst, taken) : 0
      taken += plain
      walked += plain
    }
    burst.descriptors = walked
    if (burst.count > 0) this.#readHeads(burst)
    return taken
  }

  /** Chains of one buffer each, as many as follow one another; `taken` were taken before. @hot */
  #fillPlain(queue: DeviceQueue, burst: Burst, taken: number): number {
    const kind = this.#kind
    const { headerLength } = this
    const hasHeaders = this.offloads !== 0
    const first = burst.count
    kind.skipped = headerLength
    kind.lengthMin = headerLength + ETHER_HEADER_LENGTH
    kind.lengthMax = headerLength + FRAME_LENGTH_MAX
    const chains = queue.takePlain(kind, burst, first, burst.framesMax - taken)
    const end = first + chains
    // A header that was checked may stand for itself, where its frame stays behind it.
    burst.headLength.fill(hasHeaders && burst.ownLength === 0 ? headerLength : 0, first, end)
    for (let k = first; hasHeaders && k < end; k++) {
      this.#window[k] = burst.window[k]
      this.#offset[k] = burst.offset[k] - headerLength
    }
    burst.count = end
    if (hasHeaders && headerLength === VNET_HDR_TUNNEL_LENGTH) this.#addTunnels(burst, first, end)
    return chains
  }

  /** The headers of those frames stand right before them. @hot */
  #addTunnels(burst: Burst, first: number, end: number): void {
    const { id } = this.#tunnels
    for (let k = first; k < end; k++) {
      const offset = burst.offset[k] - TUNNEL_LENGTH
      this.#pieces.add(burst.window[k], offset, id, k * TUNNEL_LENGTH, TUNNEL_LENGTH)
    }
  }

  /** The chain becomes the next frame of the burst, unless it has too many segments. @hot */
  #describe(burst: Burst, length: number): void {
    const chain = this.#chain
    const { headerLength } = this
    const k = burst.count
    let segment = 0
    let skip = headerLength
    while (skip >= chain.length[segment]) {
      skip -= chain.length[segment]
      segment++
    }
    const more = chain.readable - segment - 1
    if (more > FURTHER_PER_FRAME_MAX) {
      this.malformed++
      return
    }
    const further = burst.furtherTotal
    // The others are single segments, which is not said of each as long as all are.
    if (further === 0 && more > 0) burst.furtherCount.fill(0)
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
    burst.furtherTotal = further + more
    burst.count = k + 1
    // A header that was checked may stand for itself; what it says is read once more by the kernel.
    const isBefore = segment === 0 && this.offloads !== 0 && burst.ownLength === 0
    burst.headLength[k] = isBefore ? headerLength : 0
    if (this.offloads !== 0) {
      this.#window[k] = chain.window[0]
      this.#offset[k] = chain.offset[0]
      if (chain.length[0] < headerLength) this.#addPieces(0, 0, this.#headers.id, k, HEAD_LENGTH)
      if (headerLength === VNET_HDR_TUNNEL_LENGTH) this.#describeTunnel(k)
    }
    if (first < HEAD_LENGTH && more > 0) {
      this.#addPieces(segment, skip, burst.headsWindow, k, HEAD_LENGTH)
    }
  }

  /** @hot */
  #describeTunnel(k: number): void {
    const chain = this.#chain
    let segment = 0
    let skip: number = VNET_HDR_OUTER_TH_OFFSET
    while (skip >= chain.length[segment]) skip -= chain.length[segment++]
    this.#addPieces(segment, skip, this.#tunnels.id, k, TUNNEL_LENGTH)
  }

  /**
   * `length` bytes that lie in several segments, from `skip` bytes into `segment` on, into place k of
   * a window that has so many for each frame.
   * @hot
   */
  #addPieces(segment: number, skip: number, window: number, k: number, length: number): void {
    const chain = this.#chain
    const to = k * length
    let done = 0
    let from = skip
    for (let at = segment; at < chain.readable && done < length; at++) {
      const rest = chain.length[at] - from
      const part = rest < length - done ? rest : length - done
      this.#pieces.add(chain.window[at], chain.offset[at] + from, window, to + done, part)
      done += part
      from = 0
    }
  }

  /** @hot */
  #readHeads(burst: Burst): void {
    burst.gatherHeads()
    if (this.offloads !== 0) {
      const { count } = burst
      shim.gatherHeads(this.#places.id, 0, COLUMN_LENGTH, count, this.#headers.id, 0, 0)
      this.#pieces.run()
      this.#readHeaders(burst)
      return
    }
    this.#pieces.run()
    burst.clearOffloads()
  }

  /** Reads the vnet_hdrs as well; frames whose header is wrong leave the burst. @hot */
  #readHeaders(burst: Burst): void {
    const words = this.#headerWords
    burst.hasOffloads = true
    let kept = 0
    let hasGso = false
    const hasTunnels = this.headerLength === VNET_HDR_TUNNEL_LENGTH
    for (let k = 0; k < burst.count; k++) {
      const at = k * HEAD_WORDS
      let gso = words[at]
      let gsoSize = 0
      let csumOffset = 0
      let needs = 0
      let tunnel = 0
      if ((gso & 0xffff) !== 0) {
        const allowed = isTunnelled(gso) ? TUNNEL_FLAGS : VIRTIO_NET_HDR_F_NEEDS_CSUM
        const others = gso & 0xff & ~allowed
        if (others !== 0) {
          gso &= ~others
          burst.headLength[k] = 0
        }
        gsoSize = words[at + 1]
        csumOffset = words[at + 2] & 0xffff
        if (hasTunnels && isTunnelled(gso)) tunnel = this.#tunnelWords[k]
        needs = offloadNeeds(gso, gsoSize, csumOffset, burst.length[k], tunnel)
        if (needs < 0 || (needs & ~this.offloads) !== 0) {
          // A driver that uses what it did not negotiate is as wrong as a header that makes no sense.
          if (needs < 0 && needs !== NEEDS_MALFORMED) this.unknownType++
          else this.malformed++
          continue
        }
        if (isGso(gso)) hasGso = true
      }
      if (kept !== k) burst.take(burst, k, kept)
      burst.gso[kept] = gso
      burst.gsoSize[kept] = gsoSize
      burst.csumOffset[kept] = csumOffset
      burst.needs[kept] = needs
      burst.tunnel[kept] = tunnel
      kept++
    }
    burst.count = kept
    if (hasGso) this.malformed += checkGso(burst)
  }

  close(): void {
    this.#chain.close()
    this.#places.unmap()
    this.#headers.unmap()
    this.#tunnels.unmap()
    this.#pieces.close()
  }
}
