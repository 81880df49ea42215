/**
 * The way of a mirror's copies to another host, as the engine sees it: a raw socket of IP that is connected to
 * it, so that the host's routing and neighbours apply. Frames are sent at once, a burst at a time and without
 * waiting; what the socket does not take is dropped and counted. Opening and closing are the control
 * plane's (port/erspan.control.ts).
 *
 * The socket is connected anew each second in which there are copies: a route, an address or the mtu of
 * the path may be another one by then.
 */
import { EAGAIN, EMSGSIZE, ENOBUFS } from '../../abi/errno.ts'
import {
  IP_MTU,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV4_HEADER_LENGTH,
  IPV6_HEADER_LENGTH,
  IPV6_MTU,
} from '../../abi/ip-socket.ts'
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../../mem/burst.ts'
import type { Clock } from '../../mem/clock.ts'
import { Window } from '../../mem/window.ts'
import { SEGMENT_INTS, shim, WRITE_ROW_INTS } from '../../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../stats/counters.ts'
import { ETHER_HEADER_LENGTH } from '../../wire/ethernet.ts'
import { tagIn } from '../../wire/vlan.ts'
import type { EngineKind, EnginePort } from '../contract.ts'
import { reasonOf } from '../frame-writer.ts'
import type { PortCall } from '../messages.ts'
import { ErspanHeaderWriter } from './header.ts'
import type { ErspanDescription } from './messages.ts'

/** Frames of one call, and their segments. */
const ROWS_MAX: number = BURST_SIZE_MAX
const SEGMENTS_MAX = 2048
/** Those of one frame: a row with more is refused by the shim. */
const FRAME_SEGMENTS_MAX = 80
const HEADER_STRIDE = 32
/** Layout of the window, in bytes. */
const ROWS = 0
const SEGMENTS: number = ROWS + ROWS_MAX * WRITE_ROW_INTS * 4
const HEADERS: number = SEGMENTS + SEGMENTS_MAX * SEGMENT_INTS * 4
const WINDOW_LENGTH: number = HEADERS + ROWS_MAX * HEADER_STRIDE

const DISCONNECTED: Uint8Array = new Uint8Array(0)
const NEVER = -1

export class ErspanEnginePort implements EnginePort {
  readonly index: number
  /** Whoever receives them has no vnet_hdr: each is what would be on a wire. */
  readonly txOffloads = 0
  /** A send, and the way of a packet through the host's stack. */
  readonly deliveryNs: number = 2500
  isCut = false

  readonly #fd: number
  readonly #address: Uint8Array
  readonly #isIpv6: boolean
  readonly #clock: Clock
  readonly #counters: Float64Array
  readonly #counterBase: number
  readonly #window: Window
  readonly #words: Int32Array
  readonly #header: ErspanHeaderWriter
  readonly #mtu: Uint8Array = new Uint8Array(4)
  readonly #mtuWord: Int32Array = new Int32Array(this.#mtu.buffer)
  #connectedS = NEVER
  #isConnected = false
  /** L2 bytes of a frame, at most, that the path takes; at first what IP takes. */
  #lengthMax = 0xffff
  #rows = 0
  #segments = 0

  constructor(
    index: number,
    { fd, address, header, sequence }: ErspanDescription,
    clock: Clock,
    counters: Float64Array,
  ) {
    this.index = index
    this.#fd = fd
    this.#address = address
    this.#isIpv6 = address.length > 4
    this.#clock = clock
    this.#counters = counters
    this.#counterBase = index * COUNTERS_STRIDE
    this.#window = Window.map(WINDOW_LENGTH)
    this.#words = new Int32Array(this.#window.buffer)
    const bytes = new Uint8Array(this.#window.buffer)
    this.#header = new ErspanHeaderWriter(header, sequence, bytes)
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number): void {
    const { words } = this.#clock
    const seconds = words[4]
    if (seconds !== this.#connectedS) this.#connect(seconds)
    if (!this.#isConnected) {
      this.#counters[this.#counterBase + COUNTERS.tx_drop_link_down] += count
      return
    }
    this.#header.setTime(seconds, words[5])
    for (let at = first; at < first + count; at++) {
      if (this.#rows === ROWS_MAX || this.#segments + FRAME_SEGMENTS_MAX > SEGMENTS_MAX) {
        this.#flush()
      }
      this.#add(burst, list[at])
    }
    this.#flush()
  }

  /** As much of frame k as the path takes. @hot */
  #add(burst: Burst, k: number): void {
    const most = this.#lengthMax
    const length = burst.length[k]
    const isTooLong = length > most
    const row = this.#rows++
    const header = HEADERS + row * HEADER_STRIDE
    const tag = tagIn(burst.heads[k * HEAD_WORDS + 3])
    this.#header.write(header, tag, this.isCut || isTooLong)
    const before = this.#segments
    this.#addSegment(this.#window.id, header, this.#header.length)
    let left = isTooLong ? most : length
    this.#counters[this.#counterBase + COUNTERS.tx_bytes] += left
    if (burst.isScattered(k)) {
      const { furtherWindow, furtherOffset, furtherLength } = burst
      const firstLength = burst.firstLength[k]
      this.#addSegment(burst.window[k], burst.offset[k], firstLength < left ? firstLength : left)
      left -= firstLength
      for (let part = burst.furtherFirst[k]; left > 0; part++) {
        const partLength = furtherLength[part]
        const taken = partLength < left ? partLength : left
        this.#addSegment(furtherWindow[part], furtherOffset[part], taken)
        left -= partLength
      }
    } else this.#addSegment(burst.window[k], burst.offset[k], left)
    this.#setRow(row, before, this.#segments - before)
  }

  /** @hot */
  #addSegment(window: number, offset: number, length: number): void {
    const word = (SEGMENTS >> 2) + this.#segments++ * SEGMENT_INTS
    this.#words[word] = window
    this.#words[word + 1] = offset
    this.#words[word + 2] = length
  }

  /** @hot */
  #setRow(row: number, firstSegment: number, segments: number): void {
    const word = (ROWS >> 2) + row * WRITE_ROW_INTS
    this.#words[word] = this.#fd
    this.#words[word + 1] = firstSegment
    this.#words[word + 2] = segments
    this.#words[word + 3] = 0
  }

  /** @hot */
  #flush(): void {
    const rows = this.#rows
    if (rows === 0) return
    this.#counters[this.#counterBase + COUNTERS.tx_frames] += rows
    const sent = shim.sendFrames(this.#window.id, ROWS, rows, SEGMENTS)
    // A host that does not know GRE says so, and the socket tells of that in place of the next send.
    if (sent < rows) this.#countFailed(this.#sendAgain(rows))
    this.#rows = 0
    this.#segments = 0
  }

  /** Those that failed for another reason than that there is no room move to the front; returns how many. @hot */
  #sendAgain(rows: number): number {
    const words = this.#words
    let again = 0
    for (let row = 0; row < rows; row++) {
      const word = (ROWS >> 2) + row * WRITE_ROW_INTS
      const result = words[word + 3]
      if (result >= 0) continue
      if (result === -EAGAIN || result === -ENOBUFS) {
        this.#uncount(words[word + 1], words[word + 2], -result)
      } else this.#setRow(again++, words[word + 1], words[word + 2])
    }
    if (again > 0) shim.sendFrames(this.#window.id, ROWS, again, SEGMENTS)
    return again
  }

  /** Of the first rows. @hot */
  #countFailed(rows: number): void {
    const words = this.#words
    for (let row = 0; row < rows; row++) {
      const word = (ROWS >> 2) + row * WRITE_ROW_INTS
      const result = words[word + 3]
      if (result >= 0) continue
      // The path is narrower than it was.
      if (result === -EMSGSIZE) this.#connectedS = NEVER
      this.#uncount(words[word + 1], words[word + 2], -result)
    }
  }

  /** A frame of these segments was not sent. @hot */
  #uncount(firstSegment: number, segments: number, errno: number): void {
    const base = this.#counterBase
    const counters = this.#counters
    let bytes = -this.#header.length
    for (let at = firstSegment; at < firstSegment + segments; at++) {
      bytes += this.#words[(SEGMENTS >> 2) + at * SEGMENT_INTS + 2]
    }
    counters[base + COUNTERS.tx_frames]--
    counters[base + COUNTERS.tx_bytes] -= bytes
    counters[base + reasonOf(errno)]++
  }

  /** Without a route there is none until another second. */
  #connect(seconds: number): void {
    this.#connectedS = seconds
    // Else the address that it has would stay the one that it sends from.
    shim.connectIp(this.#fd, DISCONNECTED)
    this.#isConnected = shim.connectIp(this.#fd, this.#address) === 0
    if (!this.#isConnected) return
    const level = this.#isIpv6 ? IPPROTO_IPV6 : IPPROTO_IP
    const name = this.#isIpv6 ? IPV6_MTU : IP_MTU
    if (shim.getSocketOption(this.#fd, level, name, this.#mtu) < 0) return
    const header = this.#isIpv6 ? IPV6_HEADER_LENGTH : IPV4_HEADER_LENGTH
    const most = this.#mtuWord[0] - header - this.#header.length
    this.#lengthMax = Math.max(most, ETHER_HEADER_LENGTH)
  }

  /** @hot */
  endTurn(): void {
    // Everything has been sent.
  }

  call(call: PortCall): unknown {
    return call.do === 'erspan-sequence' ? this.#header.sequence : undefined
  }

  close(): void {
    this.#window.unmap()
  }
}

export const erspanKind: EngineKind<ErspanDescription> = {
  make: (description, { index }, { clock, counters }) =>
    new ErspanEnginePort(index, description, clock, counters),
}
