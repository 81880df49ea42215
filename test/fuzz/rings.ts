/**
 * Byte strings as a hostile driver: they say what it writes into its rings and tables, and what the
 * device side does in between. A model (models/) of the specification works on a copy of the memory;
 * every answer of the device is the model's, and in the end so is every byte of the guest's memory:
 * used rings, events, vnet_hdrs, frames, and all that nobody may write.
 *
 *     byte 0: size and kind    bytes 1, 2: base    then operations, a byte each and their operands
 */
import { Burst, BURST_SIZE_MAX } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import { BROKEN_TEXT, Chain } from '../../src/virtio/ring/chain.ts'
import type { DeviceQueue } from '../../src/virtio/ring/device-queue.ts'
import { DirtyLog } from '../../src/virtio/ring/dirty-log.ts'
import { FrameSink } from '../../src/virtio/net/frame-sink.ts'
import { FrameSource } from '../../src/virtio/net/frame-source.ts'
import { packedLayout } from '../../src/virtio/ring/packed-driver.ts'
import { PlainKind, PlainPlaces } from '../../src/virtio/ring/plain-chains.ts'
import { attachQueue } from '../../src/virtio/ring/queue-layout.ts'
import { splitLayout } from '../../src/virtio/ring/split-driver.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'
import type { SinkFrame, SourceFrame } from './models/frames-model.ts'
import { bytesOf, deliverFrames, fillBurst, withoutFirst } from './models/frames-model.ts'
import type { Part } from './models/guest-model.ts'
import { GuestModel } from './models/guest-model.ts'
import type { ModelRing, RingModel } from './models/ring-model.ts'
import { AVAIL_STEP, PackedModel, SplitModel } from './models/ring-model.ts'

const PAGE = 4096
const MEMORY = 8 * PAGE
const GUEST_ADDRESS = 0x1_2345_0000
const USER_ADDRESS = 0x7f12_3456_0000
/** Indirect tables stand behind the ring, buffers behind the tables. */
const TABLES = 2048
const TABLE_ENTRIES = 48
const BUFFERS: number = TABLES + TABLE_ENTRIES * 16
const OPERATIONS_MAX = 200

/** Two regions that adjoin each other, and one a page further on. */
const REGIONS: readonly (readonly [length: number, guestAddress: number])[] = [
  [MEMORY, GUEST_ADDRESS],
  [PAGE, GUEST_ADDRESS + MEMORY],
  [PAGE, GUEST_ADDRESS + MEMORY + 2 * PAGE],
]
const ADDRESSES = [0, GUEST_ADDRESS, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 4096]
const BORDERS = [0, MEMORY, MEMORY + PAGE, MEMORY + 2 * PAGE, MEMORY + 3 * PAGE]
/** Sixteen; with a vnet_hdr of 12 bytes, 26 are the shortest frame. */
// prettier-ignore
const LENGTHS = [
  0, 1, 12, 16, 60, 1514, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 16 * 1025, 14, 26, 25, 3,
]
const HEADER_LENGTHS = [12, 10, 20, 24]
const OFFLOADS = 0x1ef

const windows = REGIONS.map(([length]) => Window.map(length))
const memory = new GuestMemory(
  REGIONS.map(([size, guestAddress], at) => ({
    guestAddress,
    size,
    userAddress: USER_ADDRESS + guestAddress - GUEST_ADDRESS,
    windows: [{ window: windows[at].id, regionOffset: 0, windowOffset: 0, length: size }],
  })),
)
const bytesOfWindow = windows.map(({ buffer }) => new Uint8Array(buffer))
const words = new Int32Array(windows[0].buffer)
const halfWords = new Uint16Array(windows[0].buffer)
const model = new GuestModel(REGIONS)

const chain = new Chain()
/** More than there is of anything. */
const MANY = 0x3fff_ffff
const kinds = [new PlainKind(false), new PlainKind(true)] as const
const places = new PlainPlaces()
const source = new FrameSource()
const copies = new CopyProgram()
const sink = new FrameSink(copies)
const burst = new Burst()
/**
 * Frames of our own, for the receiveq: in a window that no guest has, whose second half has room for
 * what the longest has in further segments.
 */
const OWN = 32768
const own = Window.map(OWN)
const ownBytes = new Uint8Array(own.buffer)
for (let at = 0; at < OWN; at++) ownBytes[at] = at * 7 + (at >>> 8)
const outward = new Burst()
const ALL = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)
/** The dirty log: the bits of the guest's pages, and a page of those before and behind them. */
const FIRST_PAGE = GUEST_ADDRESS / PAGE
const LOG_FROM = FIRST_PAGE / 8
const LOG_LENGTH = 4
const bitmap = Window.map(LOG_FROM + LOG_LENGTH)
const bits = new Uint8Array(bitmap.buffer)
const log = new DirtyLog(bitmap.id)
const expectedBits = new Uint8Array(LOG_LENGTH)

/** Runs one input; throws when something that must hold does not. */
export function fuzzRing(isPacked: boolean, input: Uint8Array, seen: Features): void {
  new RingRun(isPacked, new Operands(input), seen).run()
}

class RingRun {
  readonly #in: Operands
  readonly #seen: Features
  readonly #isPacked: boolean
  readonly #size: number
  readonly #hasEventIdx: boolean
  readonly #hasIndirect: boolean
  readonly #availAt: number
  #device: DeviceQueue
  #model: RingModel
  #taken: (readonly [id: number, entries: number])[] = []
  #before = 0
  /** The driver made it impossible to say what comes of it: buffers on rings, say. */
  #isBlurred = false
  #wasOverstepped = false
  #hasLookedAhead = false

  constructor(isPacked: boolean, operands: Operands, seen: Features) {
    this.#in = operands
    this.#seen = seen
    this.#isPacked = isPacked
    const kind = operands.byte()
    this.#size = isPacked ? 1 + (kind & 31) : 1 << ((kind & 31) % 5)
    this.#hasEventIdx = (kind & 32) !== 0
    this.#hasIndirect = (kind & 64) !== 0
    sink.isMergeable = (kind & 128) !== 0
    sink.log = null
    this.#setHeader(0, 0)
    for (const bytes of bytesOfWindow) bytes.fill(0)
    model.clear()
    const layout = (isPacked ? packedLayout : splitLayout)(this.#size, 0)
    this.#availAt = layout.availOffset >> 1
    const base = operands.half()
    if (!isPacked) this.#poke16(this.#availAt + 1, base)
    const first = isPacked ? (base % this.#size) | (base & 0x8000) : base
    ;[this.#device, this.#model] = this.#attach(first)
  }

  #attach(base: number): [DeviceQueue, RingModel] {
    const layout = (this.#isPacked ? packedLayout : splitLayout)(this.#size, 0)
    const queue = attachQueue(
      memory,
      {
        size: this.#size,
        base,
        descriptorAddress: USER_ADDRESS + layout.descriptorOffset,
        availAddress: USER_ADDRESS + layout.availOffset,
        usedAddress: USER_ADDRESS + layout.usedOffset,
      },
      {
        isPacked: this.#isPacked,
        hasEventIdx: this.#hasEventIdx,
        hasIndirect: this.#hasIndirect,
      },
    )
    check(queue !== null, 'the ring is in the memory')
    const ring: ModelRing = {
      size: this.#size,
      base,
      descriptors: GUEST_ADDRESS + layout.descriptorOffset,
      avail: GUEST_ADDRESS + layout.availOffset,
      used: GUEST_ADDRESS + layout.usedOffset,
      hasEventIdx: this.#hasEventIdx,
      hasIndirect: this.#hasIndirect,
    }
    return [queue, this.#isPacked ? new PackedModel(ring, model) : new SplitModel(ring, model)]
  }

  // --- the driver's side: what it writes, the model's memory has as well --------------------------

  #poke16(at: number, value: number): void {
    if (at === this.#availAt + 1) this.#indexMoves((value - halfWords[at]) & 0xffff)
    halfWords[at] = value
    model.regions[0].view.setUint16(2 * at, value & 0xffff, true)
  }

  #poke32(at: number, value: number): void {
    if (at === this.#availAt >> 1) this.#indexMoves(0xffff)
    words[at] = value
    model.regions[0].view.setUint32(4 * at, value >>> 0, true)
  }

  /** What the device has read of the index while it looked for buffers is not known here. */
  #indexMoves(step: number): void {
    if (this.#hasLookedAhead && step > this.#size) this.#isBlurred = true
  }

  run(): void {
    for (let count = 0; count < OPERATIONS_MAX && !this.#in.isAtEnd; count++) {
      const device = this.#device
      const wasBroken = device.broken
      this.#wasOverstepped = this.#model.isOverstepped()
      const what = this.#operation()
      const { broken } = device
      check(BROKEN_TEXT[broken] !== undefined, 'a reason is known')
      check(wasBroken === 0 || wasBroken === broken, 'a broken queue stays broken')
      this.#checkBroken()
      if (this.#isBlurred) return
      checkEqual(this.#device.base(), this.#model.base(), 'base')
      this.#seen.add(this.#before, what, broken)
      this.#before = what
    }
    for (const [at, { bytes }] of model.regions.entries()) {
      checkBytes(bytesOfWindow[at], bytes, `memory of region ${at}`)
    }
  }

  /** The reason is the model's; but how soon a wrong index is noticed is the device's affair. */
  #checkBroken(): void {
    const is = this.#device.broken
    const should = this.#model.broken
    if (is === should || this.#isBlurred) return
    const isAboutIndex = is === AVAIL_STEP || should === AVAIL_STEP
    const isOverstepped = this.#wasOverstepped || this.#model.isOverstepped()
    check(isAboutIndex && isOverstepped, `broken: ${is} where ${should}`)
    this.#isBlurred = true
  }

  #operation(): number {
    const operation = this.#in.byte() % 21
    switch (operation) {
      case 0:
      case 1:
      case 2:
        return this.#writeDescriptor(operation === 2)
      case 3:
        this.#poke32(this.#in.half() % (MEMORY >> 2), this.#in.word())
        return 10
      case 4:
        this.#poke16(this.#availAt + 2 + (this.#in.byte() % this.#size), this.#in.byte())
        return 11
      case 5:
      case 6:
        // Split: the next entries in the order of their slots become available.
        return this.#makeAvailable(operation === 6 ? this.#in.half() : 1 + (this.#in.byte() & 3))
      case 7:
        this.#writeEvent(this.#in.byte(), this.#in.signed())
        return 12
      case 8:
      case 9:
        return this.#take()
      case 10:
        return this.#takePlain((this.#in.byte() & 1) === 1)
      case 11:
        if (this.#taken.pop() === undefined) return 13
        this.#device.untake(1)
        this.#model.untake(1)
        return 14
      case 12: {
        const length = this.#in.byte()
        for (const [id, entries] of this.#taken.splice(0)) {
          this.#device.put(id, entries, length)
          this.#model.put(id, entries, length)
        }
        return 15
      }
      case 13:
        return 16 + this.#publish()
      case 14: {
        const isWaiting = this.#device.enableKick()
        checkEqual(isWaiting, this.#model.enableKick(), 'what enableKick finds')
        return isWaiting ? 20 : 21
      }
      case 15:
        this.#device.disableKick()
        this.#model.disableKick()
        return 22
      case 16:
        return this.#fill()
      case 17:
        return this.#deliver()
      case 18: {
        const kind = this.#in.byte()
        return this.#setHeader(kind & 3, (kind & 4) === 0 ? 0 : OFFLOADS)
      }
      case 19:
        sink.log = sink.log === null ? log : null
        return 23
      default:
        if (this.#taken.length > 0) return 24
        this.#publish()
        this.#hasLookedAhead = false
        ;[this.#device, this.#model] = this.#attach(this.#device.base())
        return 25
    }
  }

  #setHeader(kind: number, offloads: number): number {
    source.headerLength = HEADER_LENGTHS[kind]
    source.offloads = offloads
    sink.headerLength = source.headerLength
    sink.offloads = offloads
    return 26 + kind
  }

  #writeDescriptor(isInTable: boolean): number {
    const slot = this.#in.byte()
    const kind = this.#in.byte()
    const flags = this.#in.byte()
    let address = GUEST_ADDRESS + BUFFERS + (this.#in.half() % (MEMORY - BUFFERS))
    if ((kind & 15) === 1) address = GUEST_ADDRESS + TABLES + (this.#in.byte() % TABLE_ENTRIES) * 16
    else if ((kind & 7) === 2) {
      address = GUEST_ADDRESS + BORDERS[this.#in.byte() % BORDERS.length] + this.#in.signed()
    } else if ((kind & 31) === 3) {
      address = ADDRESSES[this.#in.byte() % ADDRESSES.length]
    }
    const pick = LENGTHS[(kind >> 4) % LENGTHS.length]
    const length = (kind & 8) === 0 ? pick : this.#in.half() % 5000
    const next = (kind & 4) === 0 ? (slot + 1) % this.#size : this.#in.half()
    const at = isInTable ? (TABLES >> 2) + (slot % TABLE_ENTRIES) * 4 : (slot % this.#size) * 4
    this.#poke32(at, address % 2 ** 32)
    this.#poke32(at + 1, Math.floor(address / 2 ** 32))
    this.#poke32(at + 2, length)
    const vring = flags & 7
    // Packed: available for the wrap counter 1, 0, or what the driver has not made available.
    const wrap = this.#isPacked && !isInTable ? [0x80, 0x8000, 0x8080, 0][(flags >> 3) & 3] : 0
    this.#poke32(at + 3, this.#isPacked ? next | ((vring | wrap) << 16) : vring | (next << 16))
    return isInTable ? 30 : 31 + vring
  }

  /** When the driver wants to be called: flags, or an event near to where things are. */
  #writeEvent(kind: number, near: number): void {
    const at = this.#availAt
    if (this.#isPacked) {
      this.#poke16(at, ((near & 31) % (this.#size + 1)) | ((kind & 8) << 12))
      this.#poke16(at + 1, kind & 3)
    } else if ((kind & 1) === 0) this.#poke16(at, kind)
    else this.#poke16(at + 2 + this.#size, halfWords[at + 1] + (near >> 3))
  }

  #makeAvailable(step: number): number {
    if (this.#isPacked) return 40
    const index = halfWords[this.#availAt + 1]
    if (step <= this.#size) {
      for (let at = 0; at < step; at++) {
        this.#poke16(this.#availAt + 2 + ((index + at) % this.#size), (index + at) % this.#size)
      }
    }
    this.#poke16(this.#availAt + 1, index + step)
    return step <= this.#size ? 41 : 42
  }

  // --- the device's side ---------------------------------------------------------------------------

  #publish(): number {
    const mustCall = this.#device.publish()
    const should = this.#model.publish()
    if (!this.#model.isOpen) checkEqual(mustCall, should, 'whether the driver is called')
    return mustCall ? 1 : 0
  }

  #take(): number {
    const should = this.#model.take()
    const isTaken = this.#device.take(chain)
    checkEqual(isTaken, should !== null, 'whether there is a chain')
    if (should === null) return 50
    checkEqual(chain.id, should.id, 'id of a chain')
    checkEqual(chain.entries, should.entries, 'entries of a chain')
    checkEqual(chain.readable, should.readable.length, 'readable segments')
    checkEqual(chain.count, should.readable.length + should.writable.length, 'segments')
    checkEqual(chain.readableLength, should.readableLength, 'readable bytes')
    checkEqual(chain.writableLength, should.writableLength, 'writable bytes')
    for (const [at, part] of [...should.readable, ...should.writable].entries()) {
      checkPlace(part, chain.window[at], chain.offset[at], chain.length[at])
      checkEqual(chain.address[at], REGIONS[part.region][1] + part.offset, 'guest address')
    }
    this.#taken.push([should.id, should.entries])
    this.#seen.add(99, Math.min(chain.count, 5), Math.min(chain.readable, 3))
    return 51
  }

  #takePlain(isWritable: boolean): number {
    if (!isWritable && this.#taken.length > 0) return 24
    const most = 1 + (this.#in.byte() & 7)
    const kind = kinds[isWritable ? 1 : 0]
    kind.bytesLeft = MANY
    this.#model.isReadOnly = this.#isPacked && !isWritable
    const should = this.#model.takePlain(kind, most)
    this.#model.isReadOnly = false
    const count = this.#device.takePlain(kind, places, 0, most)
    checkEqual(count, should.length, 'plain chains')
    for (const [at, { id, part }] of should.entries()) {
      checkPlace(part, places.window[at], places.offset[at], places.length[at])
      // Readable ones have been put.
      if (!isWritable) continue
      checkEqual(kind.id[at], id, 'id of a plain chain')
      this.#taken.push([id, 1])
    }
    return 52 + Math.min(count, 3)
  }

  /** As the engine does with a transmitq; it has put all that it took before. */
  #fill(): number {
    if (this.#taken.length > 0) return 24
    const { headerLength } = source
    this.#model.isReadOnly = this.#isPacked
    const should = fillBurst(this.#model, headerLength)
    this.#model.isReadOnly = false
    const taken = source.fill(this.#device, burst)
    checkEqual(taken, should.taken, 'chains taken')
    checkEqual(source.oversize, should.oversize, 'oversize frames')
    const lost = taken - burst.count
    checkEqual(lost, source.malformed + source.unknownType + source.oversize, 'frames left out')
    if (source.offloads === 0) checkEqual(source.malformed, should.malformed, 'malformed frames')
    let next = 0
    for (let k = 0; k < burst.count; k++, next++) {
      // What has a header that is wrong is left out: how, is for another target to say.
      while (
        source.offloads !== 0 &&
        next < should.frames.length &&
        !isFrame(should.frames[next], k)
      )
        this.#checkLeftOut(should.frames[next++])
      check(next < should.frames.length, `frame ${k} is one of the queue's`)
      this.#checkFrame(should.frames[next], k)
    }
    for (; next < should.frames.length; next++) this.#checkLeftOut(should.frames[next])
    this.#publish()
    this.#seen.add(
      98,
      Math.min(burst.count, 3),
      Math.min(taken, 3),
      Math.min(burst.furtherTotal, 3),
    )
    return 60
  }

  /** A frame whose vnet_hdr says nothing is not wrong. */
  #checkLeftOut({ parts }: SourceFrame): void {
    const header = bytesOf(model, parts, 2)
    check(source.offloads !== 0 && (header[0] | header[1]) !== 0, 'no good frame is left out')
  }

  #checkFrame(should: SourceFrame, k: number): void {
    checkEqual(burst.length[k], should.length, `length of frame ${k}`)
    const parts = withoutFirst(should.parts, source.headerLength)
    const isScattered = burst.isScattered(k)
    checkEqual(isScattered ? 1 + burst.furtherCount[k] : 1, parts.length, `segments of frame ${k}`)
    const first = isScattered ? burst.firstLength[k] : burst.length[k]
    checkPlace(parts[0], burst.window[k], burst.offset[k], first)
    for (let at = 1; at < parts.length; at++) {
      const piece = burst.furtherFirst[k] + at - 1
      const { furtherWindow, furtherOffset, furtherLength } = burst
      checkPlace(parts[at], furtherWindow[piece], furtherOffset[piece], furtherLength[piece])
    }
    const headLength = burst.headLength[k]
    if (headLength > 0) {
      checkEqual(headLength, source.headerLength, `vnet_hdr before frame ${k}`)
      check(parts[0].offset >= headLength, `vnet_hdr before frame ${k} is in the memory`)
    }
    const heads = new Uint8Array(burst.heads.buffer, 16 * k, 16)
    const bytes = bytesOf(model, parts, Math.min(16, should.length))
    checkBytes(heads.subarray(0, bytes.length), bytes, `head of frame ${k}`)
  }

  /** As the engine does with a receiveq. */
  #deliver(): number {
    if (this.#taken.length > 0) return 24
    const frames = this.#makeFrames(this.#in.byte())
    const { headerLength, isMergeable } = sink
    const hasOffloads = sink.offloads !== 0 && outward.hasOffloads
    this.#model.tables.length = 0
    const should = deliverFrames(this.#model, frames, { headerLength, isMergeable, hasOffloads })
    this.#isBlurred = areBlurred(should.written, this.#model.tables)
    this.#hasLookedAhead = !this.#isPacked
    // What dear buffers may cost in a turn is not what the model is about.
    sink.descriptorsLeft = MANY
    sink.deliverAll(this.#device, memory, outward, ALL, 0, frames.length)
    copies.run()
    check(sink.frames + sink.tooLong <= frames.length, 'no frame is delivered twice')
    // How many descriptors a frame may cost is the device's affair.
    const { tooDear } = sink as unknown as { tooDear?: number }
    if (tooDear !== undefined && tooDear > 0) this.#isBlurred = true
    this.#checkBroken()
    // It looks ahead for buffers: the frames before the one that breaks the queue may have had some.
    if (this.#device.broken === AVAIL_STEP) this.#isBlurred = true
    this.#checkLog(should.written)
    if (this.#isBlurred) return 61
    checkEqual(sink.frames, should.frames, 'frames delivered')
    checkEqual(sink.bytes, should.bytes, 'bytes delivered')
    checkEqual(sink.tooLong, should.tooLong, 'frames that are too long')
    this.#publish()
    this.#seen.add(97, Math.min(sink.frames, 3), Math.min(sink.tooLong, 1), headerLength)
    return 62
  }

  /** Frames of one length, whole or cut, with vnet_hdrs or without. */
  #makeFrames(kind: number): SinkFrame[] {
    const count = 1 + (kind & 7)
    const isCut = (kind & 8) !== 0
    const length = 60 + (this.#in.half() % (kind < 216 ? 200 : 9000))
    outward.hasOffloads = (kind & 32) !== 0
    outward.count = count
    outward.furtherTotal = isCut ? 2 * count : 0
    const frames: SinkFrame[] = []
    for (let k = 0; k < count; k++) {
      const from = 64 + 16 * k
      const cut = isCut ? 14 + k : length
      outward.window[k] = own.id
      outward.offset[k] = from
      outward.length[k] = length
      outward.firstLength[k] = cut
      outward.furtherFirst[k] = 2 * k
      outward.furtherCount[k] = isCut ? 2 : 0
      for (const [at, start, part] of [
        [2 * k, 0, 20],
        [2 * k + 1, 20, length - cut - 20],
      ]) {
        outward.furtherWindow[at] = own.id
        outward.furtherOffset[at] = OWN / 2 + start
        outward.furtherLength[at] = part
      }
      let bytes = ownBytes.subarray(from, from + length)
      if (isCut) {
        bytes = bytes.slice()
        bytes.set(ownBytes.subarray(OWN / 2, OWN / 2 + length - cut), cut)
      }
      const [gso, gsoSize, csumOffset, tunnel] = outward.hasOffloads
        ? [0x36_2101 + k, 0x22_0500 + k, 16, 0x42_0022]
        : [0, 0, 0, 0]
      outward.gso[k] = gso
      outward.gsoSize[k] = gsoSize
      outward.csumOffset[k] = csumOffset
      outward.tunnel[k] = tunnel
      frames.push({ bytes, gso, gsoSize, csumOffset, tunnel })
    }
    return frames
  }

  /** The pages that were written are marked, and no other. */
  #checkLog(written: readonly Part[]): void {
    if (sink.log === null) return
    bits.fill(0, LOG_FROM)
    log.mark()
    if (this.#isBlurred) return
    expectedBits.fill(0)
    for (const { region, offset, length } of written) {
      const start = REGIONS[region][1] + offset - GUEST_ADDRESS
      const last = Math.floor((start + length - 1) / PAGE)
      for (let page = Math.floor(start / PAGE); page <= last; page++) {
        expectedBits[page >> 3] |= 1 << (page & 7)
      }
    }
    checkBytes(bits.subarray(LOG_FROM), expectedBits, 'dirty log')
  }
}

/** What is written lies on a ring or a table, or twice in one place. */
function areBlurred(written: readonly Part[], tables: readonly Part[]): boolean {
  if (written.length === 0) return false
  if (written.some(({ region, offset }) => region === 0 && offset < BUFFERS)) return true
  const far = tables.filter(({ region, offset }) => region !== 0 || offset >= BUFFERS)
  const sorted = [...written, ...far]
    .map(({ region, offset, length }) => [REGIONS[region][1] + offset, length] as const)
    .sort((a, b) => a[0] - b[0])
  return sorted.some(([start, length], at) => start + length > (sorted[at + 1]?.[0] ?? Infinity))
}

function isFrame({ parts }: SourceFrame, k: number): boolean {
  const [first] = withoutFirst(parts, source.headerLength)
  return windows[first.region].id === burst.window[k] && first.offset === burst.offset[k]
}

function checkPlace(part: Part, window: number, offset: number, length: number): void {
  checkEqual(window, windows[part.region].id, 'window')
  checkEqual(offset, part.offset, 'offset')
  checkEqual(length, part.length, 'length')
}
