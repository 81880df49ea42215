/**
 * A TAP as the engine sees it: its queues, read by the I/O tier, and frames written to them.
 * Opening, set-up and closing are the control plane's (port/tap/open.ts).
 */
import {
  VNET_HDR_LENGTH,
  VNET_HDR_OUTER_TH_OFFSET,
  VNET_HDR_TUNNEL_LENGTH,
} from '../abi/virtio-net.ts'
import type { IoTier } from '../io/tier.ts'
import { TapQueue } from '../io/tier.ts'
import type { Burst } from '../mem/burst.ts'
import { ZEROS_BEFORE } from '../mem/burst.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import type { EnginePort } from './port.ts'
import { isAttached, setAttached, setVnetHdrLength } from './tap/queues.ts'

/** vnet_hdrs that can wait for a flush; each has HEADER_STRIDE bytes. */
const HEADERS_MAX = 1024
const HEADER_STRIDE = 32
/** A constant of this module is part of the machine code, an imported one is loaded at each use. */
const ZEROS: number = ZEROS_BEFORE
const TUNNEL_WORD: number = VNET_HDR_OUTER_TH_OFFSET >> 2

export interface TapPortOptions {
  readonly index: number
  /** One per queue. Owned by the control plane, which closes them after the engine let go. */
  readonly fds: readonly number[]
  readonly vnetHdrLength: number
  readonly txOffloads: number
  /** All are attached; else the kernel is asked of each. */
  readonly areAttached?: boolean
}

export class TapPort implements EnginePort {
  readonly index: number
  readonly txOffloads: number
  /** A write, and what the kernel does with it meanwhile. */
  readonly deliveryNs: number = 1500
  readonly queues: readonly TapQueue[]
  vnetHdrLength: number

  readonly #tier: IoTier
  /** By queue, where its frames are written: itself, or one that is attached in its place. */
  readonly #fds: Int32Array
  readonly #presetLength: number

  readonly #counters: Float64Array
  readonly #counterBase: number
  /** Headers for frames that bring none of the wanted length. */
  readonly #headers: Window
  readonly #headerWords: Int32Array
  #headerCount = 0

  constructor(options: TapPortOptions, tier: IoTier, counters: Float64Array) {
    this.index = options.index
    this.txOffloads = options.txOffloads
    this.#tier = tier
    this.#fds = Int32Array.from(options.fds)
    this.#presetLength = options.vnetHdrLength
    this.vnetHdrLength = options.vnetHdrLength
    this.#counters = counters
    this.#counterBase = options.index * COUNTERS_STRIDE
    this.#headers = Window.map(HEADERS_MAX * HEADER_STRIDE)
    this.#headerWords = new Int32Array(this.#headers.buffer)
    this.queues = options.fds.map(
      (fd, index) => new TapQueue(fd, options.index, index, options.vnetHdrLength),
    )
    if (options.areAttached === true) return
    // Whoever gave the descriptors may have detached some.
    for (const queue of this.queues) queue.isAttached = isAttached(shim, queue.fd)
    this.#attachAll()
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const tier = this.#tier
    const fd = this.#fds[queue % this.#fds.length]
    const port = this.index
    const headLength = this.vnetHdrLength
    const windows = burst.window
    const offsets = burst.offset
    const lengths = burst.length
    const headLengths = burst.headLength
    let bytes = 0
    for (let at = first; at < first + count; at++) {
      const k = list[at]
      const length = lengths[k]
      bytes += length
      if (burst.isScattered(k)) {
        this.#writeScattered(fd, burst, k)
      } else if (headLength === 0) {
        tier.write(fd, port, windows[k], offsets[k], length)
      } else if (headLengths[k] === headLength || headLengths[k] === ZEROS) {
        // The header stands before the frame as this TAP wants it: it passes unchanged.
        tier.write(fd, port, windows[k], offsets[k] - headLength, length + headLength)
      } else {
        this.#writeWithHeader(fd, burst, k)
      }
    }
    const base = this.#counterBase
    this.#counters[base + COUNTERS.tx_frames] += count
    this.#counters[base + COUNTERS.tx_bytes] += bytes
  }

  /** Spells the header anew, for a frame that has none or one of another length. @hot */
  #writeWithHeader(fd: number, burst: Burst, k: number): void {
    const offset = this.#spellHeader(burst, k)
    this.#tier.writeWithHeader(
      fd,
      this.index,
      this.#headers.id,
      offset,
      this.vnetHdrLength,
      burst.window[k],
      burst.offset[k],
      burst.length[k],
    )
  }

  /** @hot */
  #writeScattered(fd: number, burst: Burst, k: number): void {
    const headLength = this.vnetHdrLength
    const offset = headLength === 0 ? 0 : this.#spellHeader(burst, k)
    this.#tier.writeScattered(fd, this.index, this.#headers.id, offset, headLength, burst, k)
  }

  /** Writes frame k's vnet_hdr; returns its offset in the window of headers. @hot */
  #spellHeader(burst: Burst, k: number): number {
    if (this.#headerCount === HEADERS_MAX) {
      // None of the headers written so far is still needed after this.
      this.#tier.flush()
      this.#headerCount = 0
    }
    const offset = this.#headerCount * HEADER_STRIDE
    this.#headerCount++
    const words = this.#headerWords
    const word = offset >> 2
    // Words 3 and 4 stay zero (num_buffers is written by nobody on a TAP).
    words[word] = burst.gso[k]!
    words[word + 1] = burst.gsoSize[k]!
    words[word + 2] = burst.csumOffset[k]!
    words[word + TUNNEL_WORD] = burst.tunnel[k]!
    return offset
  }

  /** @hot */
  endTurn(): void {
    // The tier flushes by itself.
  }

  /** Leaves the device as it found it: it may go on without us. */
  close(): void {
    if (this.vnetHdrLength !== this.#presetLength) this.setVnetHdrLength(this.#presetLength)
    this.#attachAll()
    this.#headers.unmap()
  }

  // --- control plane, between turns, while its queues are in no tier ------------------------------

  /** Returns 0, or the errno with which the kernel refused it. */
  setVnetHdrLength(length: number): number {
    const fds = this.queues.map(({ fd }) => fd)
    const errno = setVnetHdrLength(shim, fds, length)
    // A device that is gone does not matter any more.
    const inForce = errno === 0 ? length : shim.tunGetVnetHdrSize(fds[0])
    if (inForce >= VNET_HDR_LENGTH) this.vnetHdrLength = inForce
    for (const queue of this.queues) queue.vnetHdrLength = this.vnetHdrLength
    return errno
  }

  /** Attaches the queue or detaches it; returns 0, or the errno with which it stays as it was. */
  setAttached(queue: TapQueue, wanted: boolean): number {
    const errno = setAttached(shim, queue.fd, wanted)
    if (errno === 0) queue.isAttached = wanted
    this.#listFds()
    return errno
  }

  #attachAll(): void {
    for (const queue of this.queues) if (!queue.isAttached) this.setAttached(queue, true)
  }

  #listFds(): void {
    const attached = this.queues.filter((queue) => queue.isAttached)
    for (const { index, fd, isAttached: isOwn } of this.queues) {
      const instead = attached[index % attached.length]
      this.#fds[index] = isOwn || instead === undefined ? fd : instead.fd
    }
  }
}

/** The vnet_hdr lengths that the data plane can read and write: even, and room for the header. */
export function isUsableVnetHdrLength(length: number): boolean {
  return (
    length === 0 ||
    (length >= VNET_HDR_LENGTH && length % 2 === 0 && length <= VNET_HDR_TUNNEL_LENGTH)
  )
}
