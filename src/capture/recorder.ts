/**
 * The engine's end of a capture: writes finished records into the ring, so that the writer thread
 * only has to write bytes. pcapng: an Enhanced Packet Block with its direction flags; pcap: a
 * record header and the frame. Frame bytes travel by the engine's copy program.
 */
import {
  ENHANCED_PACKET_BLOCK,
  EPB_FLAGS,
  EPB_FLAG_INBOUND,
  EPB_FLAG_OUTBOUND,
  PCAP_RECORD_LENGTH,
} from '../abi/pcapng.ts'
import type { Burst } from '../mem/burst.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import { Window } from '../mem/window.ts'
import type { CaptureRingHandle } from './ring.ts'
import {
  COUNT_COMPLETE,
  COUNT_DESCRIBED,
  COUNT_DROPPED,
  COUNT_FRAMES,
  COUNT_PER_INTERFACE,
  RING_HEAD,
  RING_TAIL,
} from './ring.ts'

/** EPB: 28 bytes before the frame; flags option, end of options and trailing length after it. */
const EPB_HEADER = 28
const EPB_TRAILER = 16
const EPB_FLAGS_OPTION: number = EPB_FLAGS | (4 << 16)

const NOT_CAPTURED = -1

export class Recorder {
  readonly #window: Window
  readonly #view: DataView
  readonly #mask: number
  readonly #length: number
  readonly #control: Int32Array
  readonly #counts: Float64Array
  readonly #isPcapng: boolean
  readonly #inbound: boolean
  readonly #outbound: boolean
  readonly #snapLength: number
  readonly #countLimit: number
  /** Interface number by port number; NOT_CAPTURED. */
  readonly #interfaceOf: Int32Array
  /**
   * Interface Description Blocks that found no room yet, in the order of their numbers: a reader
   * numbers interfaces by the order of their blocks.
   */
  readonly #waiting: Uint8Array[] = []
  /** L2 bytes of the frames of the last `record` that found no room. */
  lostBytes = 0
  #head: number

  /** `window`: a view of the ring's that this thread has already. */
  constructor(
    handle: CaptureRingHandle,
    ports: number,
    window: Window = Window.view(handle.window),
  ) {
    this.#window = window
    this.#view = new DataView(this.#window.buffer)
    this.#mask = handle.length - 1
    this.#length = handle.length
    this.#control = new Int32Array(handle.control)
    this.#counts = new Float64Array(handle.counts)
    this.#isPcapng = handle.format === 'pcapng'
    this.#inbound = handle.direction !== 'out'
    this.#outbound = handle.direction !== 'in'
    this.#snapLength = handle.snapLength
    this.#countLimit = handle.countLimit
    this.#interfaceOf = new Int32Array(ports).fill(NOT_CAPTURED)
    this.#head = Atomics.load(this.#control, RING_HEAD)
  }

  /**
   * Records a port from now on, as `interfaceId`, whose description (pcap: empty) goes first; null: that one
   * is in the file already.
   */
  addInterface(port: number, interfaceId: number, description: Uint8Array | null): void {
    this.#interfaceOf[port] = interfaceId
    if (description === null) return
    this.#waiting.push(description)
    this.#describe()
  }

  removeInterface(port: number): void {
    this.#interfaceOf[port] = NOT_CAPTURED
  }

  /** Puts the waiting descriptions into the ring, as far as there is room. */
  #describe(): void {
    while (this.#waiting.length > 0) {
      const block = this.#waiting[0]
      const used = (this.#head - Atomics.load(this.#control, RING_TAIL)) >>> 0
      if (this.#length - used < block.length) return
      new Uint8Array(this.#window.buffer).set(block, this.#head & this.#mask)
      this.#head = (this.#head + block.length) | 0
      Atomics.store(this.#control, RING_HEAD, this.#head)
      this.#counts[COUNT_DESCRIBED]++
      this.#waiting.shift()
    }
  }

  /**
   * Records the frames list[first .. first + count) of the burst, seen at `port`. `words` is the
   * engine clock's: [2], [3] nanoseconds, [4], [5] seconds and nanoseconds. Returns the frames that
   * found no room.
   * @hot
   */
  record(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    port: number,
    isOutbound: boolean,
    words: Int32Array,
    copies: CopyProgram,
  ): number {
    this.lostBytes = 0
    const interfaceId = this.#interfaceOf[port]
    if (interfaceId === NOT_CAPTURED) return 0
    if (isOutbound ? !this.#outbound : !this.#inbound) return 0
    const counts = this.#counts
    if (counts[COUNT_COMPLETE] !== 0) return 0
    const cell = COUNT_PER_INTERFACE + 2 * interfaceId
    if (this.#waiting.length > 0) this.#describe()
    if (interfaceId >= counts[COUNT_DESCRIBED]) {
      counts[COUNT_DROPPED] += count
      counts[cell + 1] += count
      for (let at = first; at < first + count; at++) this.lostBytes += burst.length[list[at]]
      return count
    }
    let room = this.#length - ((this.#head - Atomics.load(this.#control, RING_TAIL)) >>> 0)
    let head = this.#head
    let taken = 0
    let dropped = 0
    let left = this.#countLimit === 0 ? count : this.#countLimit - counts[COUNT_FRAMES]
    for (let at = first; at < first + count && left > 0; at++) {
      const k = list[at]
      const original = burst.length[k]
      const captured = original < this.#snapLength ? original : this.#snapLength
      const length = this.#isPcapng
        ? EPB_HEADER + ((captured + 3) & ~3) + EPB_TRAILER
        : PCAP_RECORD_LENGTH + captured
      if (length > room) {
        dropped++
        this.lostBytes += original
        continue
      }
      const offset = head & this.#mask
      let data = offset + PCAP_RECORD_LENGTH
      if (this.#isPcapng) {
        data = offset + EPB_HEADER
        this.#writeBlock(offset, length, interfaceId, captured, original, isOutbound, words)
      } else {
        this.#writeRecord(offset, captured, original, words)
      }
      copies.addFrame(burst, k, this.#window.id, data, captured)
      head = (head + length) | 0
      room -= length
      taken++
      left--
    }
    // The bytes have to be there before the writer may see them.
    copies.run()
    this.#head = head
    Atomics.store(this.#control, RING_HEAD, head)
    counts[COUNT_FRAMES] += taken
    counts[cell] += taken
    counts[COUNT_DROPPED] += dropped
    counts[cell + 1] += dropped
    if (this.#countLimit !== 0 && counts[COUNT_FRAMES] >= this.#countLimit) {
      counts[COUNT_COMPLETE] = 1
    }
    return dropped
  }

  /** @hot */
  #writeBlock(
    offset: number,
    length: number,
    interfaceId: number,
    captured: number,
    original: number,
    isOutbound: boolean,
    words: Int32Array,
  ): void {
    const view = this.#view
    view.setInt32(offset, ENHANCED_PACKET_BLOCK, true)
    view.setInt32(offset + 4, length, true)
    view.setInt32(offset + 8, interfaceId, true)
    view.setInt32(offset + 12, words[3], true)
    view.setInt32(offset + 16, words[2], true)
    view.setInt32(offset + 20, captured, true)
    view.setInt32(offset + 24, original, true)
    const trailer = offset + length - EPB_TRAILER
    // Padding is zero; the copy overwrites what belongs to the frame afterwards.
    if ((captured & 3) !== 0) view.setInt32(trailer - 4, 0, true)
    view.setInt32(trailer, EPB_FLAGS_OPTION, true)
    view.setInt32(trailer + 4, isOutbound ? EPB_FLAG_OUTBOUND : EPB_FLAG_INBOUND, true)
    view.setInt32(trailer + 8, 0, true)
    view.setInt32(trailer + 12, length, true)
  }

  /** @hot */
  #writeRecord(offset: number, captured: number, original: number, words: Int32Array): void {
    const view = this.#view
    view.setInt32(offset, words[4], true)
    view.setInt32(offset + 4, words[5], true)
    view.setInt32(offset + 8, captured, true)
    view.setInt32(offset + 12, original, true)
  }

  /** Forgets this thread's view of the ring. */
  close(): void {
    this.#window.detach()
  }
}
