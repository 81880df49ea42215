/**
 * Byte strings as pcap and pcapng files: blocks as the operands have them, blocks of our own writers,
 * and damage. A second reader, from the drafts, finds the same frames or the same fault; what our
 * writers made has the frames that they were given.
 */
import { CaptureFormatError } from '../../src/wire/capture-visitor.ts'
import { isPcap, pcapHeader, readPcap } from '../../src/wire/pcap.ts'
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  readPcapng,
  sectionHeader,
} from '../../src/wire/pcapng.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'

const LENGTH_MAX = 16 * 1024 * 1024
const MAGICS = [0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1]

interface Frame {
  readonly at: number
  readonly length: number
  readonly original: number
  readonly ns: bigint | null
  readonly from: number
}

/** What a reader has to say of a file. */
interface Reading {
  readonly frames: Frame[]
  truncatedAt: number
  wrongAt: number
}

export function fuzzCaptures(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const kind = operands.byte()
  const file = new File(operands)
  if ((kind & 3) === 0) file.pcap(kind)
  else file.pcapng(kind)
  const bytes = file.damaged()
  const is = read(bytes)
  let end = 0
  for (const { at, length } of is.frames) {
    check(at >= end && length >= 0 && at + length <= bytes.length, 'a frame has its place')
    end = at + length
  }
  check(is.wrongAt <= bytes.length && is.truncatedAt <= bytes.length, 'a fault has its place')
  if (file.isPlain && bytes.length >= 64) checkReading(bytes, is)
  seen.add(
    kind & 3,
    Math.min(is.frames.length, 4),
    Math.min(is.wrongAt, 40),
    is.truncatedAt < 0 ? 0 : 1,
  )
  if (file.isOurs) file.checkFrames(bytes, is)
}

function checkReading(bytes: Uint8Array, is: Reading): void {
  const should = isPcapFile(bytes) ? modelPcap(bytes) : modelPcapng(bytes)
  checkEqual(isPcap(bytes), isPcapFile(bytes), 'whether it is a pcap file')
  checkEqual(is.wrongAt, should.wrongAt, 'where it is wrong')
  checkEqual(is.truncatedAt, should.truncatedAt, 'where it ends early')
  checkEqual(is.frames.length, should.frames.length, 'frames')
  for (const [k, frame] of is.frames.entries()) {
    const other = should.frames[k]
    checkEqual(frame.at, other.at, 'offset of a frame')
    checkEqual(frame.length, other.length, 'length of a frame')
    checkEqual(frame.original, other.original, 'original length of a frame')
    checkEqual(frame.ns, other.ns, 'time of a frame')
    checkEqual(frame.from, other.from, 'interface of a frame')
  }
}

function read(bytes: Uint8Array): Reading {
  const reading: Reading = { frames: [], truncatedAt: -1, wrongAt: -1 }
  const visitor = {
    frame(at: number, length: number, original: number, ns: bigint | null, from: number): void {
      reading.frames.push({ at, length, original, ns, from })
    },
    truncated(at: number): void {
      reading.truncatedAt = at
    },
  }
  try {
    if (isPcap(bytes)) readPcap(bytes, visitor)
    else readPcapng(bytes, visitor)
  } catch (error) {
    if (!(error instanceof CaptureFormatError)) throw error
    reading.wrongAt = error.offset
  }
  return reading
}

class File {
  /** Made by our writers, without damage. */
  isOurs = true
  /** As every reader reads it: what is odd is read in one way or another, or refused. */
  isPlain = true
  readonly #in: Operands
  readonly #parts: Uint8Array[] = []
  readonly #frames: { bytes: Uint8Array; original: number; ns: bigint; from: number }[] = []

  constructor(operands: Operands) {
    this.#in = operands
  }

  #words(isLittle: boolean, ...values: number[]): void {
    const bytes = new Uint8Array(4 * values.length)
    const view = new DataView(bytes.buffer)
    for (const [at, value] of values.entries()) view.setUint32(4 * at, value >>> 0, isLittle)
    this.#parts.push(bytes)
  }

  pcap(kind: number): void {
    this.isOurs = false
    const isLittle = (kind & 4) === 0
    if ((kind & 8) === 0) this.#parts.push(pcapHeader(this.#in.half()))
    else {
      const linkType = this.#in.byte() < 240 ? 1 : this.#in.half()
      const magic = this.#in.pick(MAGICS)
      const isMagicLittle = MAGICS.indexOf(magic) % 2 === 0
      if (linkType !== 1 || isMagicLittle !== isLittle) this.isPlain = false
      this.#words(true, magic)
      this.#words(isLittle, isLittle ? 0x0004_0002 : 0x0002_0004, 0, 0, 65535, linkType)
    }
    while (!this.#in.isAtEnd) {
      const control = this.#in.byte()
      if (control >= 250) return
      const frame = this.#in.take(control & 31)
      const length = control < 200 ? frame.length : this.#in.word()
      if (length !== frame.length) this.isPlain = false
      const original = frame.length + this.#in.half()
      this.#words(isLittle, this.#in.half(), this.#in.word(), length, original)
      this.#parts.push(frame)
    }
  }

  pcapng(kind: number): void {
    const isLittle = (kind & 4) === 0
    let interfaces = 0
    if (isLittle && (kind & 8) === 0) this.#parts.push(sectionHeader('x'.repeat(kind >> 5)))
    else this.#section(isLittle)
    while (!this.#in.isAtEnd) {
      const control = this.#in.byte()
      switch (control % 8) {
        case 0:
        case 1: {
          const name = 'abcdefgh'.slice(0, control >> 5)
          this.#parts.push(interfaceDescription(name, name.slice(1), this.#in.half()))
          interfaces++
          break
        }
        case 2:
        case 3:
          // Without an interface it is wrong, and so is the file.
          if (interfaces === 0) {
            this.isOurs = false
            this.isPlain = false
          }
          this.#enhanced(control, Math.max(interfaces, 1))
          break
        case 4:
          this.#parts.push(interfaceStatistics(this.#in.byte() & 3, 1n, 2n, control, 5))
          break
        case 5:
          this.#section(isLittle)
          interfaces = 0
          break
        default:
          this.#block(isLittle, control)
      }
    }
  }

  #section(isLittle: boolean): void {
    this.isOurs = false
    // Version 1.0 is two half words.
    const version = isLittle ? 1 : 0x1_0000
    this.#words(isLittle, 0x0a0d0d0a, 28, 0x1a2b3c4d, version, -1, -1, 28)
  }

  #enhanced(control: number, interfaces: number): void {
    const from = (control >> 5) % interfaces
    const ns = BigInt(this.#in.word() >>> 0) * 0x1_0000_0001n
    const bytes = this.#in.take(control >> 3)
    const original = bytes.length + this.#in.half()
    this.#parts.push(enhancedPacket(from, ns, bytes, original, this.#in.byte() & 3))
    this.#frames.push({ bytes, original, ns, from })
  }

  /** Any block, whose lengths are mostly right. */
  #block(isLittle: boolean, control: number): void {
    this.isOurs = false
    this.isPlain = false
    const type = [1, 2, 3, 6, 5, 0x0a0d0d0a, 0x40000bad, 4][control >> 5]
    const body = this.#in.take(4 * (this.#in.byte() & 15))
    const padded = (body.length + 3) & ~3
    const length = 12 + padded + (this.#in.byte() < 240 ? 0 : this.#in.signed())
    this.#words(isLittle, type, length)
    this.#parts.push(body, new Uint8Array(padded - body.length))
    this.#words(isLittle, this.#in.byte() < 240 ? length : this.#in.word())
  }

  /** Some bytes of the whole are changed, or its end is missing: as the last operand says. */
  damaged(): Uint8Array {
    const bytes = new Uint8Array(Buffer.concat(this.#parts))
    const last = this.#in.last
    if (last < 200 || bytes.length === 0) return bytes
    this.isOurs = false
    if (bytes.length < 64) this.isPlain = false
    if (last < 225) return bytes.subarray(0, bytes.length - ((last * 7) % bytes.length))
    this.isPlain = false
    bytes[(last * 31) % bytes.length] ^= 1 << (last & 7)
    return bytes
  }

  checkFrames(file: Uint8Array, { frames, wrongAt }: Reading): void {
    checkEqual(wrongAt, -1, 'our own file is right')
    checkEqual(frames.length, this.#frames.length, 'frames of our own file')
    for (const [k, frame] of this.#frames.entries()) {
      const { at, length, original, ns, from } = frames[k]
      checkBytes(file.subarray(at, at + length), frame.bytes, 'a frame of our own file')
      check(original === frame.original && ns === frame.ns && from === frame.from, 'what it says')
    }
  }
}

// --- the second reader -------------------------------------------------------------------------------

function isPcapFile(bytes: Uint8Array): boolean {
  if (bytes.length < 24) return false
  return MAGICS.includes(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true))
}

class Reader {
  readonly #bytes: Uint8Array
  isLittle = true

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  u8(at: number): number {
    return this.#bytes[at]
  }

  u16(at: number): number {
    const [a, b] = [this.#bytes[at], this.#bytes[at + 1]]
    return this.isLittle ? a + 256 * b : b + 256 * a
  }

  u32(at: number): number {
    const [a, b] = [this.u16(at), this.u16(at + 2)]
    return this.isLittle ? a + 65536 * b : b + 65536 * a
  }
}

function modelPcap(bytes: Uint8Array): Reading {
  const reading: Reading = { frames: [], truncatedAt: -1, wrongAt: -1 }
  const reader = new Reader(bytes)
  const magic = MAGICS.indexOf(reader.u32(0))
  reader.isLittle = magic === 0 || magic === 2
  const unitNs = magic < 2 ? 1000n : 1n
  if (reader.u16(reader.isLittle ? 20 : 22) !== 1) return { ...reading, wrongAt: 20 }
  for (let at = 24; at < bytes.length;) {
    const isHead = at + 16 <= bytes.length
    const length = isHead ? reader.u32(at + 8) : 0
    if (length > LENGTH_MAX) return { ...reading, wrongAt: at }
    if (!isHead || at + 16 + length > bytes.length) return { ...reading, truncatedAt: at }
    const ns = BigInt(reader.u32(at)) * 1_000_000_000n + BigInt(reader.u32(at + 4)) * unitNs
    reading.frames.push({ at: at + 16, length, original: reader.u32(at + 12), ns, from: 0 })
    at += 16 + length
  }
  return reading
}

interface ModelInterface {
  readonly linkType: number
  readonly snap: number
  readonly unit: (units: bigint) => bigint
}

function modelPcapng(bytes: Uint8Array): Reading {
  const reading: Reading = { frames: [], truncatedAt: -1, wrongAt: -1 }
  const reader = new Reader(bytes)
  let interfaces: ModelInterface[] = []
  for (let at = 0; at < bytes.length;) {
    if (at + 12 > bytes.length) {
      return at === 0 ? { ...reading, wrongAt: 0 } : { ...reading, truncatedAt: at }
    }
    // The type of a section is a palindrome.
    const isSection = reader.u32(at) === 0x0a0d0d0a
    if (isSection) {
      reader.isLittle = true
      const magic = reader.u32(at + 8)
      if (magic !== 0x1a2b3c4d && magic !== 0x4d3c2b1a) return { ...reading, wrongAt: at }
      reader.isLittle = magic === 0x1a2b3c4d
      interfaces = []
    } else if (at === 0) return { ...reading, wrongAt: 0 }
    const length = reader.u32(at + 4)
    if (length < 12 || length % 4 > 0 || length > LENGTH_MAX) return { ...reading, wrongAt: at }
    if (at + length > bytes.length) return { ...reading, truncatedAt: at }
    if (reader.u32(at + length - 4) !== length) return { ...reading, wrongAt: at }
    const type = reader.u32(at)
    const end = at + length - 4
    if (type === 1) {
      if (end - at - 8 < 8) return { ...reading, wrongAt: at }
      interfaces.push(modelInterface(reader, at + 8, end))
    } else if (type === 2 || type === 3 || type === 6) {
      const frame = modelFrame(reader, type, at, end, interfaces)
      if (frame === null) return { ...reading, wrongAt: at }
      reading.frames.push(frame)
    }
    at += length
  }
  return reading
}

function modelInterface(reader: Reader, at: number, end: number): ModelInterface {
  let resolution = 6
  let offsetS = 0n
  for (let option = at + 8; option + 4 <= end;) {
    const [code, length] = [reader.u16(option), reader.u16(option + 2)]
    if (code === 0 || option + 4 + length > end) break
    if (code === 9 && length === 1) resolution = reader.u8(option + 4)
    if (code === 14 && length === 8) {
      const [first, second] = [reader.u32(option + 4), reader.u32(option + 8)]
      const [low, high] = reader.isLittle ? [first, second] : [second, first]
      offsetS = BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low))
    }
    option += 4 + Math.ceil(length / 4) * 4
  }
  const perSecond = (resolution > 127 ? 2n : 10n) ** BigInt(resolution % 128)
  return {
    linkType: reader.u16(at),
    snap: reader.u32(at + 4),
    unit: (units) => (units * 1_000_000_000n) / perSecond + offsetS * 1_000_000_000n,
  }
}

function modelFrame(
  reader: Reader,
  type: number,
  at: number,
  end: number,
  interfaces: readonly ModelInterface[],
): Frame | null {
  const isSimple = type === 3
  const data = at + 8 + (isSimple ? 4 : 20)
  if (data > end) return null
  const from = isSimple ? 0 : type === 2 ? reader.u16(at + 8) : reader.u32(at + 8)
  const one = interfaces[from]
  if (one === undefined || one.linkType !== 1) return null
  const original = reader.u32(isSimple ? at + 8 : at + 24)
  let length = isSimple ? original : reader.u32(at + 20)
  if (isSimple && one.snap > 0) length = Math.min(length, one.snap)
  if (data + length > end) return null
  const units = isSimple
    ? 0n
    : BigInt(reader.u32(at + 12)) * 2n ** 32n + BigInt(reader.u32(at + 16))
  return { at: data, length, original, ns: one.unit(units), from }
}
