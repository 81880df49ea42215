/**
 * The headers of a copy that goes to another host by ERSPAN, behind that of IP. All numbers big-endian.
 *
 *     GRE       flags 16 (K 0x2000, S 0x1000), protocol 16 | [key 32] | sequence number 32
 *     type II   version 4, VLAN 12, COS 3, En 2, T 1, session 10 | reserved 12, index 20
 *     type III  version 4, VLAN 12, COS 3, BSO 2, T 1, session 10 | timestamp 32 |
 *               SGT 16, P 1, FT 5, Hw 6, D 1, Gra 2, O 1
 *
 * VLAN and COS are VID and PCP of the frame's outer tag, which stays in the frame. RFC 2784, RFC 2890;
 * draft-foschiano-erspan-03; Linux include/net/erspan.h has the same reading of En.
 */
import { pcpOf, vidOf } from '../../wire/vlan.ts'
import type { ErspanHeader } from './messages.ts'

const GRE_KEY = 0x2000
const GRE_SEQUENCE = 0x1000
const ETH_P_ERSPAN = 0x88be
const ETH_P_ERSPAN2 = 0x22eb
/** En: the tag is in the frame. */
const TAG_IN_FRAME: number = 3 << 11
/** T */
const TRUNCATED: number = 1 << 10
/** P: an Ethernet frame. FT: Ethernet. Gra: 0, as the timestamp is in 100 us. O: nothing follows. */
const ETHERNET_PDU = 0x8000
const EGRESS = 0x0008
/** PCP in a tag's word: bits 21..23; COS: bits 13..15. */
const PCP_TO_COS = 8
/** Of a second, in the timestamp of type III. */
const TICKS = 10_000
const TICK_NS = 100_000

/** Bytes of the longest. */
export const ERSPAN_HEADER_MAX = 24

export class ErspanHeaderWriter {
  /** Bytes of one. */
  readonly length: number
  /** Number of the next frame. */
  sequence: number
  readonly #bytes: Uint8Array
  readonly #isTypeIII: boolean
  readonly #flags: number
  readonly #protocol: number
  readonly #key: number
  readonly #version: number
  readonly #session: number
  readonly #index: number
  readonly #last: number
  #timestamp = 0

  /** Writes into `bytes`. */
  constructor(header: ErspanHeader, sequence: number, bytes: Uint8Array) {
    const { version, sessionId, index, isEgress, hardwareId, key } = header
    this.#bytes = bytes
    this.sequence = sequence >>> 0
    this.#isTypeIII = version === 2
    this.#flags = GRE_SEQUENCE | (key < 0 ? 0 : GRE_KEY)
    this.#protocol = this.#isTypeIII ? ETH_P_ERSPAN2 : ETH_P_ERSPAN
    this.#key = key
    this.#version = version << 12
    this.#session = sessionId
    this.#index = index
    this.#last = ETHERNET_PDU | (hardwareId << 4) | (isEgress ? EGRESS : 0)
    this.length = (key < 0 ? 8 : 12) + (this.#isTypeIII ? 12 : 8)
  }

  /** Those to come are of that time: seconds since 1970, nanoseconds of the second. @hot */
  setTime(seconds: number, nanoseconds: number): void {
    this.#timestamp = ((seconds >>> 0) * TICKS + ((nanoseconds / TICK_NS) | 0)) | 0
  }

  /** At `at` that of a frame with this outer tag (a word of `heads`, 0: none). @hot */
  write(at: number, tag: number, isTruncated: boolean): void {
    this.#write16(at, this.#flags)
    this.#write16(at + 2, this.#protocol)
    let to = at + 4
    if ((this.#flags & GRE_KEY) !== 0) {
      this.#write32(to, this.#key)
      to += 4
    }
    this.#write32(to, this.sequence)
    this.sequence = (this.sequence + 1) >>> 0
    to += 4
    let second = this.#session | (isTruncated ? TRUNCATED : 0)
    let first = this.#version
    if (tag !== 0) {
      first |= vidOf(tag)
      second |= pcpOf(tag) >>> PCP_TO_COS
      if (!this.#isTypeIII) second |= TAG_IN_FRAME
    }
    this.#write16(to, first)
    this.#write16(to + 2, second)
    if (!this.#isTypeIII) {
      this.#write32(to + 4, this.#index)
      return
    }
    this.#write32(to + 4, this.#timestamp)
    this.#write16(to + 8, 0)
    this.#write16(to + 10, this.#last)
  }

  /** @hot */
  #write16(at: number, value: number): void {
    this.#bytes[at] = value >>> 8
    this.#bytes[at + 1] = value
  }

  /** @hot */
  #write32(at: number, value: number): void {
    this.#write16(at, value >>> 16)
    this.#write16(at + 2, value & 0xffff)
  }
}
