/**
 * Byte strings as a hostile driver: they say what it writes into its rings and tables, and what the
 * device side does in between. Whatever they say, nothing outside the guest's memory is reached,
 * every call ends, and a broken queue stays broken for a known reason.
 *
 *     byte 0: size and kind    bytes 1, 2: base    then operations, a byte each and their operands
 */
import { Burst, BURST_SIZE_MAX } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import { BROKEN_TEXT, Chain, CHAIN_SEGMENTS_MAX } from '../../src/virtio/chain.ts'
import type { DeviceQueue } from '../../src/virtio/device-queue.ts'
import { FrameSink } from '../../src/virtio/frame-sink.ts'
import { FrameSource } from '../../src/virtio/frame-source.ts'
import { packedLayout } from '../../src/virtio/packed-driver.ts'
import { PlainKind, PlainPlaces } from '../../src/virtio/plain-chains.ts'
import { attachQueue } from '../../src/virtio/queue-layout.ts'
import { splitLayout } from '../../src/virtio/split-driver.ts'
import type { Features } from './features.ts'
import { check, Operands } from './features.ts'

const PAGE = 4096
const MEMORY = 16 * PAGE
const GUEST_ADDRESS = 0x1_2345_0000
const USER_ADDRESS = 0x7f12_3456_0000
/** Indirect tables stand behind the ring. */
const TABLES = 4 * PAGE
const OPERATIONS_MAX = 400

/** Two regions that adjoin each other, and one a page further on. */
const REGIONS: readonly (readonly [length: number, guestAddress: number])[] = [
  [MEMORY, GUEST_ADDRESS],
  [PAGE, GUEST_ADDRESS + MEMORY],
  [PAGE, GUEST_ADDRESS + MEMORY + 2 * PAGE],
]
const ADDRESSES = [0, GUEST_ADDRESS, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 4096]
const BORDERS = [0, MEMORY, MEMORY + PAGE, MEMORY + 2 * PAGE, MEMORY + 3 * PAGE]
const LENGTHS = [0, 1, 12, 16, 60, 1514, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 16 * 1025]

const windows = REGIONS.map(([length]) => Window.map(length))
const memory = new GuestMemory(
  REGIONS.map(([size, guestAddress], at) => ({
    guestAddress,
    size,
    userAddress: USER_ADDRESS + guestAddress - GUEST_ADDRESS,
    windows: [{ window: windows[at].id, regionOffset: 0, windowOffset: 0, length: size }],
  })),
)
const bytesOf = windows.map(({ buffer }) => new Uint8Array(buffer))
const words = new Int32Array(windows[0].buffer)
const halfWords = new Uint16Array(windows[0].buffer)

const chain = new Chain()
const kinds = [new PlainKind(false), new PlainKind(true)] as const
const places = new PlainPlaces()
const source = new FrameSource()
const copies = new CopyProgram()
const sink = new FrameSink(copies)
const burst = new Burst()
/** Frames of our own, for the receiveq: in a window that no guest has. */
const own = Window.map(65536)
const outward = new Burst()
const ALL = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)

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
  #taken: (readonly [id: number, entries: number])[] = []
  #before = ''

  constructor(isPacked: boolean, operands: Operands, seen: Features) {
    this.#in = operands
    this.#seen = seen
    this.#isPacked = isPacked
    const kind = operands.byte()
    this.#size = isPacked ? 1 + (kind & 31) : 1 << ((kind & 31) % 5)
    this.#hasEventIdx = (kind & 32) !== 0
    this.#hasIndirect = (kind & 64) !== 0
    const isMergeable = (kind & 128) !== 0
    sink.isMergeable = isMergeable
    for (const bytes of bytesOf) bytes.fill(0)
    const layout = (isPacked ? packedLayout : splitLayout)(this.#size, 0)
    this.#availAt = layout.availOffset >> 1
    const base = operands.half()
    if (!isPacked) halfWords[this.#availAt + 1] = base
    this.#device = this.#attach(isPacked ? (base % this.#size) | (base & 0x8000) : base)
  }

  #attach(base: number): DeviceQueue {
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
    return queue!
  }

  run(): void {
    for (let count = 0; count < OPERATIONS_MAX && !this.#in.isAtEnd; count++) {
      const device = this.#device
      const wasBroken = device.broken
      const what = this.#operation()
      const { broken } = device
      check(BROKEN_TEXT[broken] !== undefined, `reason ${broken} is known`)
      check(wasBroken === 0 || wasBroken === broken, 'a broken queue stays broken')
      const base = this.#device.base()
      check(Number.isInteger(base) && base >= 0 && base < 2 ** 32, `base ${base}`)
      this.#seen.add(`${this.#before}>${what}:${broken}`)
      this.#before = what
    }
  }

  #operation(): string {
    const operation = this.#in.byte() % 20
    switch (operation) {
      case 0:
      case 1:
      case 2:
        return this.#writeDescriptor(operation === 2)
      case 3:
        words[this.#in.half() % (MEMORY >> 2)] = this.#in.word()
        return 'noise'
      case 4:
        halfWords[this.#availAt + 2 + (this.#in.byte() % this.#size)] = this.#in.byte()
        return 'head'
      case 5:
      case 6:
        // Split: the next entries in the order of their slots become available.
        return this.#makeAvailable(operation === 6 ? this.#in.half() : 1 + (this.#in.byte() & 3))
      case 7:
        halfWords[this.#availAt] = this.#in.half()
        return 'flags'
      case 8:
      case 9:
        return this.#take()
      case 10:
        return this.#takePlain((this.#in.byte() & 1) === 1)
      case 11:
        if (this.#taken.pop() === undefined) return 'nothing'
        this.#device.untake(1)
        return 'untake'
      case 12:
        for (const [id, entries] of this.#taken.splice(0)) this.#device.put(id, entries, 1)
        return 'put'
      case 13:
        return `publish${this.#device.publish()}`
      case 14:
        return `sleep${this.#device.enableKick()}`
      case 15:
        this.#device.disableKick()
        return 'wake'
      case 16:
        return this.#fill()
      case 17:
        return this.#deliver()
      case 18:
        source.headerLength = [10, 12, 20, 24][this.#in.byte() & 3]
        source.offloads = (this.#in.byte() & 1) === 0 ? 0 : 0x1ef
        sink.headerLength = source.headerLength
        sink.offloads = source.offloads
        return 'header'
      default:
        if (this.#taken.length > 0) return 'busy'
        this.#device = this.#attach(this.#device.base())
        return 'attach'
    }
  }

  #writeDescriptor(isInTable: boolean): string {
    const slot = this.#in.byte()
    const kind = this.#in.byte()
    const flags = this.#in.byte()
    let address = GUEST_ADDRESS + (this.#in.half() % MEMORY)
    if ((kind & 3) === 1) address = GUEST_ADDRESS + TABLES + (this.#in.byte() % 48) * 16
    else if ((kind & 3) === 2) {
      address = GUEST_ADDRESS + BORDERS[this.#in.byte() % BORDERS.length] + this.#in.signed()
    } else if ((kind & 31) === 3) {
      address = ADDRESSES[this.#in.byte() % ADDRESSES.length]
    }
    const pick = LENGTHS[(kind >> 4) % LENGTHS.length]
    const length = (kind & 8) === 0 ? pick : this.#in.half() % 5000
    const next = (kind & 4) === 0 ? (slot + 1) % this.#size : this.#in.half()
    const at = isInTable ? (TABLES >> 2) + (slot % 48) * 4 : (slot % this.#size) * 4
    words[at] = address % 2 ** 32
    words[at + 1] = Math.floor(address / 2 ** 32)
    words[at + 2] = length
    const vring = flags & 7
    // Packed: available for the wrap counter 1, 0, or what the driver has not made available.
    const wrap = this.#isPacked && !isInTable ? [0x80, 0x8000, 0x8080, 0][(flags >> 3) & 3] : 0
    words[at + 3] = this.#isPacked ? next | ((vring | wrap) << 16) : vring | (next << 16)
    return isInTable ? 'table' : `descriptor${vring}`
  }

  #makeAvailable(step: number): string {
    if (this.#isPacked) return 'nothing'
    const index = halfWords[this.#availAt + 1]
    if (step <= this.#size) {
      for (let at = 0; at < step; at++) {
        halfWords[this.#availAt + 2 + ((index + at) % this.#size)] = (index + at) % this.#size
      }
    }
    halfWords[this.#availAt + 1] = index + step
    return step <= this.#size ? 'available' : 'jump'
  }

  #take(): string {
    const wasBroken = this.#device.broken
    if (!this.#device.take(chain)) return 'none'
    check(wasBroken === 0, 'nothing is taken from a broken queue')
    const { entries, count, readable } = chain
    check(entries > 0 && entries <= this.#size, `${entries} entries`)
    check(count > 0 && count <= CHAIN_SEGMENTS_MAX && readable <= count, `${count} segments`)
    let bytes = 0
    for (let at = 0; at < count; at++) {
      checkInside(chain.window[at], chain.offset[at], chain.length[at], chain.address[at])
      bytes += chain.length[at]
    }
    check(bytes === chain.readableLength + chain.writableLength, `${bytes} bytes`)
    this.#taken.push([chain.id, entries])
    this.#seen.add(`chain${Math.min(count, 5)},${Math.min(readable, 3)}`)
    return 'take'
  }

  #takePlain(isWritable: boolean): string {
    if (!isWritable && this.#taken.length > 0) return 'busy'
    const wasBroken = this.#device.broken
    const kind = kinds[isWritable ? 1 : 0]
    const count = this.#device.takePlain(kind, places, 0, 1 + (this.#in.byte() & 7))
    check(count === 0 || wasBroken === 0, 'nothing is taken from a broken queue')
    for (let at = 0; at < count; at++) {
      const [window, offset] = [places.window[at], places.offset[at]]
      checkInside(window, offset, places.length[at], memory.addressByWindow[window] + offset)
      // Readable ones have been put.
      if (isWritable) this.#taken.push([kind.id[at], 1])
    }
    return `plain${Math.min(count, 3)}`
  }

  /** As the engine does with a transmitq; it has put all that it took before. */
  #fill(): string {
    if (this.#taken.length > 0) return 'busy'
    const taken = source.fill(this.#device, burst)
    check(burst.count <= taken && taken <= BURST_SIZE_MAX, `${burst.count} of ${taken} frames`)
    for (let k = 0; k < burst.count; k++) {
      const isScattered = burst.isScattered(k)
      let length = isScattered ? burst.firstLength[k] : burst.length[k]
      checkInside(burst.window[k], burst.offset[k], length)
      const head = burst.headLength[k]
      checkInside(burst.window[k], burst.offset[k] - head, head)
      if (!isScattered) continue
      const end = burst.furtherFirst[k] + burst.furtherCount[k]
      for (let at = burst.furtherFirst[k]; at < end; at++) {
        const part = burst.furtherLength[at]
        checkInside(burst.furtherWindow[at], burst.furtherOffset[at], part)
        length += part
      }
      check(length === burst.length[k], 'the segments of a frame are the frame')
    }
    if (burst.count > 0) {
      copies.addFrame(burst, 0, own.id, 0, Math.min(burst.length[0], 4096))
      copies.run()
    }
    this.#device.publish()
    return `fill${Math.min(burst.count, 3)},${Math.min(taken, 3)}`
  }

  /** As the engine does with a receiveq. */
  #deliver(): string {
    if (this.#taken.length > 0) return 'busy'
    const count = 1 + (this.#in.byte() & 7)
    const length = 60 + (this.#in.half() % 9000)
    outward.count = count
    for (let k = 0; k < count; k++) {
      outward.window[k] = own.id
      outward.offset[k] = 64
      outward.length[k] = length
    }
    sink.deliverAll(this.#device, memory, outward, ALL, 0, count)
    check(sink.frames + sink.tooLong <= count, 'no frame is delivered twice')
    copies.run()
    this.#device.publish()
    return `deliver${Math.min(sink.frames, 2)},${Math.min(sink.tooLong, 1)}`
  }
}

/** The bytes are in a region, and at the address they should have. */
function checkInside(window: number, offset: number, length: number, address = -1): void {
  const at = windows.findIndex(({ id }) => id === window)
  check(at >= 0, `window ${window} is the guest's`)
  const [size, start] = REGIONS[at]
  check(offset >= 0 && length >= 0 && offset + length <= size, `${length} bytes at ${offset}`)
  check(address < 0 || (address === start + offset && length > 0), `address ${address}`)
}
