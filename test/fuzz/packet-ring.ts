/**
 * Byte strings as a kernel that fills the receive ring of a packet socket with anything: what is no
 * frame is left out and counted, the others are in the burst as a model reads them, nothing outside the
 * slots that were taken is touched or described, and every slot is given back once.
 *
 *     byte 0: vnet_hdr, first slot, status    then operations, a byte each and their operands
 */
import { Burst, BURST_SIZE_MAX } from '../../src/mem/burst.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'
import { KernelRing, STATUS } from '../support/packet-ring.ts'
import { MALFORMED, modelNeeds, UNKNOWN_TYPE } from './models/offload-model.ts'
import { makeFrame } from './offloads.ts'

const RING_KB = 256
const OPERATIONS_MAX = 60
/** Of what the kernel and the driver of a card write, and nobody else touches. */
const HEADER = 52
const LENGTHS = [0, 13, 14, 60, 1514, 4096, 65557, 65558, 65664, 0x7fffffff, -1, -0x80000000]
const MACS = [0, 1, 51, 52, 55, 56, 66, 67, 68, 69, 76, 78, 4096, 65535]
const LIMITS = [1, 2, 3, 7, 256]
const BYTES = [1, 60, 1514, 100_000, 0x7fff_ffff]

const rings = [0, 10].map((length) => new KernelRing(RING_KB, length))
const burst = new Burst()
const copy = new Uint8Array(rings[0].bytes.length)

interface ModelFrame {
  readonly bytes: Uint8Array
  /** What its vnet_hdr asks for; null: nobody says. */
  readonly needs: number | null
}

type Verdict = ModelFrame | 'malformed' | 'oversize' | 'unknown' | 'silent'

export function fuzzPacketRing(input: Uint8Array, seen: Features): void {
  new RingRun(new Operands(input), seen).run()
}

class RingRun {
  readonly #in: Operands
  readonly #seen: Features
  readonly #kernel: KernelRing
  readonly #headLength: number
  /** The slot that is read next; slots that are not given back. */
  #at: number
  #taken = 0
  #before = 0

  constructor(operands: Operands, seen: Features) {
    this.#in = operands
    this.#seen = seen
    const kind = operands.byte()
    this.#headLength = (kind & 1) * 10
    this.#kernel = rings[kind & 1]
    this.#kernel.clear()
    this.#at = this.#kernel.at
  }

  run(): void {
    for (let count = 0; count < OPERATIONS_MAX && !this.#in.isAtEnd; count++) {
      const what = this.#operation()
      this.#seen.add(this.#before, what)
      this.#before = what
    }
    this.#release()
    // However it went, all slots are the kernel's again when there is nothing more.
    burst.framesMax = BURST_SIZE_MAX
    burst.bytesMax = 0x7fff_ffff
    while (this.#fill(99) > 0) this.#release()
    for (let slot = 0; slot < this.#kernel.slots; slot++) {
      checkEqual(this.#kernel.status(slot) & STATUS.user, 0, `slot ${slot} in the end`)
    }
  }

  #operation(): number {
    const operation = this.#in.byte()
    switch (operation % 6) {
      case 0:
      case 1:
      case 2:
        return this.#deliver((operation & 0x80) !== 0)
      case 3:
        burst.framesMax = LIMITS[this.#in.byte() % LIMITS.length]
        burst.bytesMax = BYTES[this.#in.byte() % BYTES.length]
        return 10
      case 4:
        this.#release()
        return 11 + this.#fill(operation)
      default:
        this.#release()
        return 12
    }
  }

  /** A slot with a frame, or with fields that no kernel writes. */
  #deliver(isWild: boolean): number {
    const { bytes, header } = makeFrame(this.#in)
    const status = this.#in.byte()
    const vnetHdr = new Uint8Array(this.#headLength)
    if (this.#headLength > 0) {
      const view = new DataView(vnetHdr.buffer)
      view.setUint8(0, header.flags)
      view.setUint8(1, header.type)
      view.setUint16(2, this.#in.byte(), true)
      view.setUint16(4, header.gsoSize, true)
      view.setUint16(6, header.csumStart, true)
      view.setUint16(8, header.csumOffset, true)
    }
    const wild = isWild ? this.#in.byte() : 0
    const mac = MACS[this.#in.byte() % MACS.length]
    const length = LENGTHS[this.#in.byte() % LENGTHS.length]
    this.#kernel.deliver(bytes, {
      status,
      header: vnetHdr,
      tci: this.#in.half(),
      tpid: [0x8100, 0x88a8, 0, 0x9100][status & 3],
      packetType: wild & 7,
      ...((wild & 8) === 0 ? {} : { toldMac: mac }),
      ...((wild & 16) === 0 ? {} : { length }),
      ...((wild & 32) === 0 ? {} : { snapLength: LENGTHS[wild % LENGTHS.length] }),
    })
    return isWild ? 1 : 2
  }

  /** What the frame in a slot is, read from the copy by the rules of af_packet.c. */
  #judge(slot: number): Verdict {
    const view = new DataView(copy.buffer, this.#kernel.offsets[slot])
    const status = view.getUint32(0, true)
    if (view.getUint8(42) === 4) return 'silent'
    const length = view.getInt32(8, true)
    if (view.getInt32(4, true) !== length || length > 65557) return 'oversize'
    if (length < 14) return 'malformed'
    const mac = view.getUint16(12, true)
    const start = mac - this.#headLength
    // Room for a vnet_hdr, for the tag, and for the few bytes by which an odd frame is moved.
    if (mac < HEADER + 16 || mac + length > this.#kernel.slotLength) return 'malformed'
    let bytes = new Uint8Array(view.buffer, view.byteOffset + mac, length).slice()
    let tag = 0
    if ((status & STATUS.vlan) !== 0) {
      tag = 4
      const tpid = (status & STATUS.vlanTpid) === 0 ? 0x8100 : view.getUint16(26, true)
      const tci = view.getUint16(24, true)
      const put = [tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff]
      bytes = Uint8Array.from([...bytes.subarray(0, 12), ...put, ...bytes.subarray(12)])
    }
    if (this.#headLength === 0) return { bytes, needs: null }
    const [flags, type] = [view.getUint8(start), view.getUint8(start + 1)]
    if ((flags | type) === 0) return { bytes, needs: 0 }
    const isPartial = (flags & 1) !== 0
    const header = {
      flags,
      type,
      gsoSize: view.getUint16(start + 4, true),
      csumStart: (view.getUint16(start + 6, true) + (isPartial ? tag : 0)) & 0xffff,
      csumOffset: view.getUint16(start + 8, true),
      outerTh: 0,
      innerNh: 0,
    }
    const needs = modelNeeds(header, bytes.length)
    if (needs === MALFORMED) return 'malformed'
    return needs === UNKNOWN_TYPE ? 'unknown' : { bytes, needs }
  }

  /** Reads a burst, and compares it with what the model reads. Returns the slots taken. */
  #fill(what: number): number {
    const kernel = this.#kernel
    copy.set(kernel.bytes)
    kernel.drops.length = 0
    const taken = kernel.read(burst)
    check(taken <= kernel.slots && taken <= burst.framesMax, 'the limits')
    const frames: ModelFrame[] = []
    const dropped = { malformed: 0, oversize: 0, unknown: 0, silent: 0 }
    for (let k = 0; k < taken; k++) {
      const slot = (this.#at + k) % kernel.slots
      check((kernel.status(slot) & STATUS.user) !== 0, 'only what is filled is taken')
      const verdict = this.#judge(slot)
      if (typeof verdict === 'string') dropped[verdict]++
      else frames.push(verdict)
      this.#seen.add(40, typeof verdict === 'string' ? verdict.length : (verdict.needs ?? 1), k & 3)
    }
    this.#checkFrames(frames, dropped)
    this.#checkUntouched(taken)
    this.#taken = taken
    this.#at = (this.#at + taken) % kernel.slots
    if (taken < Math.min(burst.framesMax, kernel.slots) && burst.bytesMax > 1e9) {
      checkEqual(kernel.status(this.#at) & STATUS.user, 0, 'a frame is left behind')
    }
    this.#seen.add(41, taken, burst.count, what & 1)
    return taken
  }

  #checkFrames(
    frames: readonly ModelFrame[],
    { malformed, oversize, unknown }: Readonly<Record<string, number>>,
  ): void {
    const kernel = this.#kernel
    const told = [0, 0, 0]
    for (const counts of kernel.drops) counts.forEach((count, at) => (told[at] += count))
    // Without a vnet_hdr what cannot be guessed is left out, too.
    const guessed = told[2] - oversize
    if (this.#headLength > 0) checkEqual(guessed, 0, 'oversize')
    checkEqual(told[0], malformed, 'malformed frames')
    checkEqual(told[1], unknown, 'frames of an unknown type')
    checkEqual(burst.count, frames.length - guessed, 'frames')
    let at = 0
    for (let k = 0; k < burst.count; k++) {
      const bytes = kernel.bytes.subarray(burst.offset[k], burst.offset[k] + burst.length[k])
      checkEqual(burst.window[k], kernel.window.id, 'window')
      while (guessed > 0 && at < frames.length && Buffer.compare(frames[at].bytes, bytes) !== 0)
        at++
      check(at < frames.length, 'a frame of the ring')
      const { bytes: should, needs } = frames[at++]
      checkBytes(bytes, should, `frame ${k}`)
      const head = new Uint8Array(burst.heads.buffer, 16 * k, 14)
      checkBytes(head, should.subarray(0, 14), `head of frame ${k}`)
      if (needs !== null) checkEqual(burst.needs[k], needs, `needs of frame ${k}`)
      this.#checkPlace(burst.offset[k] - this.#headLength, burst.offset[k] + burst.length[k])
    }
  }

  /** It lies behind the kernel's header, in one slot. */
  #checkPlace(from: number, to: number): void {
    const { offsets, slotLength } = this.#kernel
    const slot = offsets.findLast((offset) => offset <= from)!
    check(from >= slot + HEADER && to <= slot + slotLength, 'a frame lies in its slot')
  }

  /** The kernel's headers, slots that were not taken, and what is between the slots. */
  #checkUntouched(taken: number): void {
    const { bytes, offsets, slots, slotLength } = this.#kernel
    for (let k = 0; k < taken; k++) {
      const slot = offsets[(this.#at + k) % slots]
      const header = bytes.subarray(slot, slot + HEADER)
      checkBytes(header, copy.subarray(slot, slot + HEADER), 'header of a slot')
      copy.set(bytes.subarray(slot + HEADER, slot + slotLength), slot + HEADER)
    }
    checkBytes(bytes, copy, 'the rest of the ring')
  }

  #release(): void {
    const kernel = this.#kernel
    kernel.ring.release()
    for (let k = 1; k <= this.#taken; k++) {
      const slot = (this.#at - k + kernel.slots) % kernel.slots
      checkEqual(kernel.status(slot), STATUS.kernel, 'a slot that was given back')
    }
    this.#taken = 0
  }
}
