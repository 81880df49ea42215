/**
 * A receive ring as the engine reads it: frames stay in their slots, are forwarded from there, and the
 * slots go back to the kernel when that is done.
 *
 *     at - taken          at
 *     | of the last fill  | filled by the kernel ... | the kernel's ...
 */
import {
  PACKET_OUTGOING,
  TP_LEN,
  TP_MAC,
  TP_PKTTYPE,
  TP_SNAPLEN,
  TP_STATUS_CSUMNOTREADY,
  TP_STATUS_KERNEL,
  TP_STATUS_LOSING,
  TP_STATUS_USER,
  TP_STATUS_VLAN_TPID_VALID,
  TP_STATUS_VLAN_VALID,
  TP_VLAN_TCI,
  TP_VLAN_TPID,
  TPACKET2_HDRLEN,
} from '../../abi/if-packet.ts'
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VNET_HDR_LENGTH } from '../../abi/virtio-net.ts'
import type { FrameMemory } from '../../io/frame-reader.ts'
import { FrameReader } from '../../io/frame-reader.ts'
import type { TierEvents, WatchedSocket } from '../../io/tier.ts'
import type { Burst } from '../../mem/burst.ts'
import { Window } from '../../mem/window.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../../wire/ethernet.ts'
import { isGso } from '../../wire/vnet-hdr.ts'
import type { RingGeometry } from './geometry.ts'
import { FRAME_LENGTH_MAX, SLOT_LENGTH, slotOffsets } from './geometry.ts'
import type { OffloadGuess } from './offload-guess.ts'

/** Two MAC addresses. */
const ADDRESSES_LENGTH = 12
const TPID_8021Q = 0x8100
/** Less than any kernel says: a vnet_hdr, a tag, and where an odd frame is moved to, stand before the frame. */
const FRAME_AT_MIN: number = TPACKET2_HDRLEN + VNET_HDR_LENGTH + VLAN_TAG_LENGTH + 2

export class PacketRing implements FrameMemory {
  readonly socket: WatchedSocket
  readonly window: Window
  readonly words: Int32Array
  readonly halfWords: Uint16Array
  readonly bytes: Uint8Array
  /** The kernel has had no slot for a frame since its drops were last counted. */
  isLosing = false

  readonly #vnetHdrLength: number
  readonly #reader: FrameReader
  readonly #events: Pick<TierEvents, 'dropped'>
  readonly #port: number
  readonly #offsets: Int32Array
  /** For frames without a vnet_hdr. */
  readonly #guess: OffloadGuess
  #at: number
  #taken = 0

  /** `window` is the control plane's; `first` is the slot that the kernel fills next. */
  constructor(
    port: number,
    socket: WatchedSocket,
    window: number,
    first: number,
    vnetHdrLength: number,
    geometry: RingGeometry,
    guess: OffloadGuess,
    events: Pick<TierEvents, 'dropped'>,
  ) {
    this.#port = port
    this.socket = socket
    this.window = Window.view(window)
    this.words = new Int32Array(this.window.buffer)
    this.halfWords = new Uint16Array(this.window.buffer)
    this.bytes = new Uint8Array(this.window.buffer)
    this.#vnetHdrLength = vnetHdrLength
    this.#offsets = slotOffsets(geometry)
    this.#at = first
    this.#guess = guess
    this.#events = events
    this.#reader = new FrameReader(this, 0)
  }

  /** The slot that is read next; all before it are the kernel's between turns. */
  get next(): number {
    return this.#at
  }

  /** Another process has read what is before that slot. */
  moveOn(next: number): void {
    this.#at = next
  }

  /** There is a frame. @hot */
  hasFrame(): boolean {
    return (Atomics.load(this.words, this.#offsets[this.#at] >> 2) & TP_STATUS_USER) !== 0
  }

  /** Fills the burst within its limits; returns the slots taken, until `release`. @hot */
  fill(burst: Burst): number {
    const { words, halfWords } = this
    const offsets = this.#offsets
    const slots = offsets.length
    const reader = this.#reader
    const { framesMax } = burst
    let bytesLeft = burst.bytesMax
    let taken = 0
    let malformed = 0
    let oversize = 0
    let at = this.#at
    reader.begin(burst, this.#vnetHdrLength)
    while (taken < framesMax && taken < slots && bytesLeft > 0) {
      const slot = offsets[at]
      const status = Atomics.load(words, slot >> 2)
      if ((status & TP_STATUS_USER) === 0) break
      taken++
      at = at + 1 < slots ? at + 1 : 0
      if ((status & TP_STATUS_LOSING) !== 0) this.isLosing = true
      // Where the kernel does not leave out what this machine sends (before Linux 4.20).
      if (this.bytes[slot + TP_PKTTYPE] === PACKET_OUTGOING) continue
      let length = words[(slot + TP_SNAPLEN) >> 2]
      if (words[(slot + TP_LEN) >> 2] !== length || length > FRAME_LENGTH_MAX) {
        oversize++
        continue
      }
      const mac = halfWords[(slot + TP_MAC) >> 1]
      const isInside = mac >= FRAME_AT_MIN && mac + length <= SLOT_LENGTH
      if (length < ETHER_HEADER_LENGTH || !isInside) {
        malformed++
        continue
      }
      bytesLeft -= length
      let start = slot + mac - this.#vnetHdrLength
      if ((start & 3) !== 0) start = this.#align(start, this.#vnetHdrLength + length)
      if ((status & TP_STATUS_VLAN_VALID) !== 0) {
        this.#putTagBack(slot, status, start)
        start -= VLAN_TAG_LENGTH
        length += VLAN_TAG_LENGTH
      }
      const k = burst.count
      reader.add(start, this.#vnetHdrLength + length)
      if (this.#vnetHdrLength === 0 && burst.count > k) {
        const isPartial = (status & TP_STATUS_CSUMNOTREADY) !== 0
        if (!this.#guess.add(burst, k, this.bytes, start, isPartial)) {
          burst.count = k
          oversize++
        }
      }
    }
    this.#at = at
    this.#taken = taken
    burst.descriptors = taken
    if ((malformed | oversize) !== 0) this.#events.dropped(this.#port, malformed, 0, oversize)
    reader.end(this.#events, this.#port)
    return taken
  }

  /** A network header at an odd place: none of Ethernet's. Moves the frame to the left. @hot */
  #align(start: number, length: number): number {
    const aligned = start & ~3
    this.bytes.copyWithin(aligned, start, start + length)
    return aligned
  }

  /**
   * The kernel has taken the outer VLAN tag out of the frame: it goes back behind the addresses, which
   * move to the left with the vnet_hdr before them. Neither of the header's offsets counts that tag
   * (tpacket_rcv, af_packet.c).
   * @hot
   */
  #putTagBack(slot: number, status: number, start: number): void {
    const { bytes, halfWords } = this
    const headLength = this.#vnetHdrLength
    const end = start + headLength + ADDRESSES_LENGTH
    for (let at = start; at < end; at++) bytes[at - VLAN_TAG_LENGTH] = bytes[at]
    const hasTpid = (status & TP_STATUS_VLAN_TPID_VALID) !== 0
    const tpid = hasTpid ? halfWords[(slot + TP_VLAN_TPID) >> 1] : TPID_8021Q
    const tci = halfWords[(slot + TP_VLAN_TCI) >> 1]
    bytes[end - 4] = tpid >>> 8
    bytes[end - 3] = tpid
    bytes[end - 2] = tci >>> 8
    bytes[end - 1] = tci
    if (headLength === 0) return
    const half = (start - VLAN_TAG_LENGTH) >> 1
    const flags = halfWords[half]
    if (isGso(flags)) halfWords[half + 1] += VLAN_TAG_LENGTH
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) halfWords[half + 3] += VLAN_TAG_LENGTH
  }

  /** The slots of the last `fill` are the kernel's again. @hot */
  release(): void {
    const offsets = this.#offsets
    const slots = offsets.length
    let at = this.#at - this.#taken
    if (at < 0) at += slots
    for (let left = this.#taken; left > 0; left--) {
      Atomics.store(this.words, offsets[at] >> 2, TP_STATUS_KERNEL)
      at = at + 1 < slots ? at + 1 : 0
    }
    this.#taken = 0
  }

  /** Its memory is the control plane's. */
  close(): void {
    this.window.detach()
  }
}
