/**
 * Byte strings as tables of rows for the shim: copies, heads, checksums, dirty pages, frames through
 * descriptors, with windows, offsets and lengths of every kind. A model does the same on arrays of its
 * own. Each window is shorter than its last page, and all of the page is looked at in the end: what
 * stands behind a window's end is a canary, and so is a window that may only be read.
 */
import { readFileSync } from 'node:fs'
import { Window } from '../../src/mem/window.ts'
import {
  COPY_BEHIND_HEAD,
  COPY_BEHIND_HEADER,
  COPY_BEHIND_TAG,
  COPY_SAME_HEAD,
  shim,
} from '../../src/native/shim.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'

const PAGE = 4096
const OPERATIONS_MAX = 24
const [EFAULT, EAGAIN, EBADF, EINVAL] = [14, 11, 9, 22]
const SOCK_DGRAM = 2
const O_NONBLOCK = 0o4000

interface Piece {
  readonly id: number
  readonly length: number
  readonly isWritable: boolean
  /** All of its pages, by another window. */
  readonly whole: Uint8Array
  readonly should: Uint8Array
  readonly view: DataView
}

function makePiece(length: number, isWritable: boolean): Piece {
  const fd = shim.memfdCreate('rows', 1)
  const pages = Math.ceil(length / PAGE) * PAGE
  shim.ftruncate(fd, pages)
  const window = Window.map(length, { fd, readOnly: !isWritable })
  const whole = new Uint8Array(Window.map(pages, { fd }).buffer)
  shim.close(fd)
  const should = new Uint8Array(pages)
  return { id: window.id, length, isWritable, whole, should, view: new DataView(should.buffer) }
}

/** The first has the tables. */
const TABLE = 2000
const pieces = [
  makePiece(TABLE, true),
  makePiece(1000, true),
  makePiece(PAGE, true),
  makePiece(700, false),
]
const [tables, , , locked] = pieces
/** The last of the shim's numbers is never given out here. */
const UNUSED = 4095
const NUMBERS = [...pieces.map(({ id }) => id), -1, UNUSED, UNUSED + 1, 0x7fffffff]
const tableWords = new Int32Array(tables.whole.buffer, 0, tables.whole.length / 4)

/** The kernel enforces what the shim says of a window. */
function protectionOf(id: number): string {
  const start = shim.windowAddress(id).toString(16)
  const line = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((each) => each.startsWith(`${start}-`))
  return line?.split(' ')[1] ?? ''
}
check(protectionOf(locked.id) === 'r--s', `a read-only window is mapped ${protectionOf(locked.id)}`)
check(protectionOf(tables.id) === 'rw-s', `a window is mapped ${protectionOf(tables.id)}`)

const pair = new Int32Array(2)
check(shim.socketPair(SOCK_DGRAM, pair) === 0, 'a pair of sockets')
const [here, there] = pair
for (const fd of pair) shim.setStatusFlags(fd, shim.getStatusFlags(fd) | O_NONBLOCK)
const DATAGRAMS_MAX = 8

const pieceOf = (id: number): Piece | undefined => pieces.find((piece) => piece.id === id)

/** A row that names a window or a descriptor of somebody else in this process: it is not run. */
class Foreign extends Error {}

/** The bytes of a range, as the rules of the shim's rows have it; null: it is not allowed. */
function range(id: number, offset: number, length: number, isWritten: boolean): Uint8Array | null {
  const piece = pieceOf(id)
  if (piece === undefined && id >= 0 && id < UNUSED) throw new Foreign()
  if (piece === undefined || offset < 0 || length < 0 || offset + length > piece.length) return null
  if (isWritten && !piece.isWritable) return null
  return piece.should.subarray(offset, offset + length)
}

const isTable = (offset: number, rows: number, ints: number): boolean =>
  rows >= 0 && offset >= 0 && offset % 4 === 0 && offset + rows * ints * 4 <= TABLE

export function fuzzShimRows(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const seed = operands.byte()
  for (const { whole, should } of pieces) {
    for (let at = 0; at < should.length; at += 256) should.fill(seed + (at >> 8), at, at + 256)
    whole.set(should)
  }
  const run = new RowsRun(operands, seen)
  try {
    run.run()
  } catch (error) {
    if (error instanceof Foreign) return
    throw error
  } finally {
    run.drain()
  }
  for (const [at, { whole, should }] of pieces.entries()) checkBytes(whole, should, `window ${at}`)
}

class RowsRun {
  readonly #in: Operands
  readonly #seen: Features
  readonly #datagrams: Uint8Array[] = []
  /** Of the copy under way. */
  #lastHead: Uint8Array | null = null

  constructor(operands: Operands, seen: Features) {
    this.#in = operands
    this.#seen = seen
  }

  run(): void {
    for (let count = 0; count < OPERATIONS_MAX && !this.#in.isAtEnd; count++) {
      const operation = this.#in.byte() % 9
      const result = this.#operation(operation)
      this.#seen.add(operation, result)
    }
  }

  #operation(operation: number): number {
    switch (operation) {
      case 0:
        return this.#copy()
      case 1:
        return this.#frames()
      case 2:
        return this.#gather()
      case 3:
        return this.#checksum()
      case 4:
        return this.#mark()
      case 5:
        return this.#write()
      case 6:
        return this.#read()
      case 7:
        return this.#alike()
      default: {
        // Some bytes of a window, so that sums have something to add.
        const piece = this.#in.pick(pieces)
        const bytes = this.#in.take(1 + (this.#in.byte() & 31))
        const at = this.#in.half() % (PAGE - 32)
        piece.should.set(bytes, at)
        piece.whole.set(bytes, at)
        return bytes.length
      }
    }
  }

  drain(): void {
    const rest = new Uint8Array(PAGE)
    const info = new Int32Array(2)
    while (shim.recvMsg(there, rest, new Int32Array(0), info, 0) >= 0);
  }

  // --- arguments: mostly right, sometimes a byte beyond --------------------------------------------

  #rows(): number {
    const byte = this.#in.byte()
    return byte < 240 ? byte & 7 : byte < 250 ? byte - 200 : [-1, 33554367, 0x7fffffff][byte % 3]
  }

  #tableOffset(): number {
    const byte = this.#in.byte()
    if (byte < 200) return (byte % 50) * 20
    return [TABLE, TABLE - 20, TABLE - 16, 2, -4, 0x7ffffffc][byte % 6]
  }

  #window(): number {
    const byte = this.#in.byte()
    return byte < 220 ? NUMBERS[byte % 4] : NUMBERS[byte % NUMBERS.length]
  }

  /** Of a range in a window: half of them at an edge of it. */
  #offset(id: number, length: number): number {
    const kind = this.#in.byte()
    const size = pieceOf(id)?.length ?? PAGE
    if (kind < 150) return this.#in.half() % Math.max(size - Math.max(length, 0), 1)
    if (kind < 250) return size - length + (kind % 3) - 1
    return [-1, size, size + 1, 0x7fffffff, -0x80000000][kind % 5]
  }

  #length(): number {
    const byte = this.#in.byte()
    if (byte < 128) return byte
    if (byte < 245) return (this.#in.byte() * byte) >> 4
    return [0, -1, PAGE, PAGE + 1, 0x7fffffff][byte % 5]
  }

  /** Writes a word of the table, which may be one that the shim refuses to look at. */
  #put(offset: number, word: number, value: number): void {
    const at = offset + 4 * word
    if (at < 0 || at % 4 !== 0 || at + 4 > TABLE) return
    tableWords[at / 4] = value
    tables.view.setInt32(at, value, true)
  }

  #word(offset: number, word: number): number {
    return tables.view.getInt32(offset + 4 * word, true)
  }

  // --- calls ------------------------------------------------------------------------------------------

  #copy(): number {
    const rows = this.#rows()
    const offset = this.#tableOffset()
    for (let row = 0; row < Math.min(rows, 8); row++) {
      const length = this.#length()
      const [from, to] = [this.#window(), this.#window()]
      this.#put(offset, 5 * row, from)
      this.#put(offset, 5 * row + 1, this.#offset(from, length))
      this.#put(offset, 5 * row + 2, to)
      this.#put(offset, 5 * row + 3, this.#offset(to, length))
      const flags = (this.#in.byte() & 15) * COPY_SAME_HEAD
      this.#put(
        offset,
        5 * row + 4,
        length >= 0 && length < COPY_SAME_HEAD ? length + flags : length,
      )
    }
    let should = -EFAULT
    this.#lastHead = null
    if (isTable(offset, rows, 5)) {
      for (should = 0; should < rows; should++) {
        const done = this.#copyRow(offset + 20 * should, rows - should)
        if (done === 0) break
        should += done - 1
      }
    }
    const is = shim.copyRows(tables.id, offset, rows)
    checkEqual(is, should, 'rows copied')
    return Math.min(is, 9)
  }

  /** Returns how many rows it is: with a head of its own the one behind it as well. */
  #copyRow(row: number, rows: number): number {
    const given = this.#word(row, 4)
    const ofHead = (given & COPY_BEHIND_HEAD) === 0 ? 0 : COPY_BEHIND_TAG | COPY_SAME_HEAD
    const flags = given > 0 ? given & (COPY_BEHIND_HEADER | COPY_BEHIND_HEAD | ofHead) : 0
    const length = given - flags
    const header = (flags & COPY_BEHIND_HEADER) === 0 ? [] : [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    const hasHead = (flags & COPY_BEHIND_HEAD) !== 0
    const isGiven = hasHead && (flags & COPY_SAME_HEAD) === 0
    if (isGiven) {
      if (rows === 1) return 0
      this.#lastHead = tables.should.slice(row + 20, row + 40)
    }
    if (hasHead && this.#lastHead === null) return 0
    const headLength = !hasHead ? 0 : (flags & COPY_BEHIND_TAG) === 0 ? 16 : 20
    const head = this.#lastHead?.subarray(0, headLength) ?? []
    const from = range(this.#word(row, 0), this.#word(row, 1), length, false)
    const before = header.length + head.length
    const to = range(this.#word(row, 2), this.#word(row, 3), before + length, true)
    if (from === null || to === null) return 0
    to.set(header)
    to.set(head, header.length)
    to.set(from, before)
    return isGiven ? 2 : 1
  }

  #gather(): number {
    const count = this.#rows()
    const windowsAt = this.#tableOffset()
    const offsetsAt = this.#tableOffset()
    for (let k = 0; k < Math.min(count, 8); k++) {
      const from = this.#window()
      this.#put(windowsAt, k, from)
      this.#put(offsetsAt, k, this.#offset(from, this.#in.byte() & 31))
    }
    const to = this.#window()
    const at = this.#offset(to, 16 * count)
    const skip = this.#in.byte() & 31
    let should = -EFAULT
    if (
      isTable(windowsAt, count, 1) &&
      isTable(offsetsAt, count, 1) &&
      range(to, at, 16 * count, true) !== null
    ) {
      for (should = 0; should < count; should++) {
        const from = this.#head(this.#word(windowsAt, should), this.#word(offsetsAt, should), skip)
        if (from === null) break
        range(to, at + 16 * should, 16, true)!.set(from)
      }
    }
    const is = shim.gatherHeads(tables.id, windowsAt, offsetsAt, count, to, at, skip)
    checkEqual(is, should, 'heads gathered')
    return Math.min(is, 9)
  }

  /** 16 bytes from `skip` bytes behind the place on, zeros behind the window's end. */
  #head(id: number, offset: number, skip: number): Uint8Array | null {
    const length = pieceOf(id)?.length ?? 0
    const from = range(id, offset, Math.min(16 + skip, Math.max(length - offset, 0)), false)
    if (from === null) return null
    const head = new Uint8Array(16)
    head.set(from.subarray(skip))
    return head
  }

  /** The first bytes of frames, by three columns. */
  #frames(): number {
    const count = this.#in.byte() & 3
    const at = [0, 1, 2].map(() => this.#tableOffset())
    for (let k = 0; k < count; k++) {
      const from = this.#window()
      const length = this.#length()
      this.#put(at[0], k, from)
      this.#put(at[1], k, this.#offset(from, length))
      this.#put(at[2], k, length)
    }
    const to = this.#window()
    const place = this.#offset(to, 256 * count)
    const most = this.#in.half() % 300
    const heads = (this.#in.byte() & 1) === 0 ? -1 : this.#tableOffset()
    let should = most > 256 ? -EINVAL : -EFAULT
    const isTarget = range(to, place, 256 * count, true) !== null
    const hasHeads = heads < 0 || range(tables.id, heads, 16 * count, true) !== null
    const isThere = isTarget && hasHeads && at.every((offset) => isTable(offset, count, 1))
    if (should === -EFAULT && isThere) {
      should = 0
      for (let k = 0; k < count; k++) {
        const whole = this.#word(at[2], k)
        const length = Math.min(whole, most)
        const window = this.#word(at[0], k)
        const offset = this.#word(at[1], k)
        const from =
          (length >= 0 && length <= 64 ? range(window, offset, 64, false) : null) ??
          range(window, offset, length, false)
        if (from === null) {
          should = -EFAULT
          break
        }
        const target = range(to, place + 256 * k, 256, true)!
        target.set(from)
        if (whole <= most) should++
        if (heads < 0) continue
        const head = new Uint8Array(16)
        head.set(target.subarray(0, Math.min(length, 16)))
        range(tables.id, heads + 16 * k, 16, true)!.set(head)
        if (whole > most) continue
        tables.view.setInt32(at[0] + 4 * k, to, true)
        tables.view.setInt32(at[1] + 4 * k, place + 256 * k, true)
      }
    }
    const is = shim.gatherFrames(tables.id, at[0], at[1], at[2], count, to, place, most, heads)
    checkEqual(is, should, 'frames gathered')
    return Math.min(is, 9)
  }

  #alike(): number {
    const rows = this.#rows()
    const odd = this.#in.byte()
    const stride = odd < 200 ? 64 + (odd % 193) : [0, 63, 257, -1][odd % 4]
    const [window, maskWindow] = [this.#window(), this.#window()]
    const offset = this.#offset(window, Math.max(rows - 1, 0) * stride + 64)
    const maskOffset = this.#offset(maskWindow, 64)
    const numbersAt = this.#tableOffset()
    let should = -EINVAL
    if (stride >= 64 && stride <= 256 && rows >= 0 && rows <= 0x7fffffff / 256) {
      const mask = range(maskWindow, maskOffset, 64, false)
      const all = range(window, offset, rows > 0 ? (rows - 1) * stride + 64 : 0, false)
      should = mask === null || all === null || !isTable(numbersAt, rows, 1) ? -EFAULT : 0
      const isAlike = (row: number): boolean =>
        this.#word(numbersAt, row) === this.#word(numbersAt, 0) &&
        mask!.every((bits, at) => ((all![row * stride + at] ^ all![at]) & bits) === 0)
      if (should === 0) while (should < rows && isAlike(should)) should++
    }
    const is = shim.alikeRows(
      window,
      offset,
      stride,
      rows,
      maskWindow,
      maskOffset,
      tables.id,
      numbersAt,
    )
    checkEqual(is, should, 'rows alike')
    return Math.min(is, 9)
  }

  #checksum(): number {
    const rows = this.#rows()
    const offset = this.#tableOffset()
    for (let row = 0; row < Math.min(rows, 8); row++) {
      const length = this.#length()
      const from = this.#window()
      this.#put(offset, 5 * row, from)
      this.#put(offset, 5 * row + 1, this.#offset(from, length))
      this.#put(offset, 5 * row + 2, length)
      this.#put(
        offset,
        5 * row + 3,
        (this.#in.byte() & 1) === 0 ? this.#in.byte() : this.#in.word(),
      )
    }
    let should = -EFAULT
    if (isTable(offset, rows, 5)) {
      for (should = 0; should < rows; should++) if (!this.#sumRow(offset + 20 * should)) break
    }
    const is = shim.checksumRows(tables.id, offset, rows)
    checkEqual(is, should, 'rows summed')
    return Math.min(is, 9)
  }

  /** RFC 1071 §1: words in network order, an odd byte at the end is the upper half of one. */
  #sumRow(row: number): boolean {
    const bytes = range(this.#word(row, 0), this.#word(row, 1), this.#word(row, 2), false)
    if (bytes === null) return false
    let sum = this.#word(row, 3) >>> 0
    for (let at = 0; at < bytes.length; at++) sum += at % 2 === 0 ? bytes[at] * 256 : bytes[at]
    // Ones' complement: 2^16 is 1. 0 and 0xffff are both zero; only a sum of nothing is 0.
    const folded = sum === 0 ? 0 : sum % 0xffff === 0 ? 0xffff : sum % 0xffff
    const at = row + 16
    tables.view.setInt32(at, folded, true)
    return true
  }

  #mark(): number {
    const rows = this.#rows()
    const offset = this.#tableOffset()
    const bitmap = this.#window()
    const bits = 8 * (pieceOf(bitmap)?.length ?? PAGE)
    for (let row = 0; row < Math.min(rows, 8); row++) {
      const pages =
        this.#in.byte() < 240 ? this.#in.byte() : this.#in.pick([0, -1, bits, 0x7fffffff])
      const edge = this.#in.byte()
      const first =
        edge < 128
          ? this.#in.half() % bits
          : edge < 250
            ? bits - pages + (edge % 3) - 1
            : this.#in.word()
      this.#put(offset, 2 * row, first)
      this.#put(offset, 2 * row + 1, pages)
    }
    let should = -EFAULT
    if (isTable(offset, rows, 2)) {
      for (should = 0; should < rows; should++) {
        if (
          !this.#markRow(bitmap, this.#word(offset, 2 * should), this.#word(offset, 2 * should + 1))
        )
          break
      }
    }
    const is = shim.markDirty(bitmap, tables.id, offset, rows)
    checkEqual(is, should, 'rows marked')
    return Math.min(is, 9)
  }

  #markRow(bitmap: number, first: number, pages: number): boolean {
    const from = first >>> 0
    if (pages < 1) return false
    const lastByte = Math.floor((from + pages - 1) / 8)
    const bytes = range(bitmap, 0, lastByte + 1, true)
    if (bytes === null) return false
    for (let page = from; page < from + pages; page++) bytes[page >> 3] |= 1 << (page & 7)
    return true
  }

  #write(): number {
    const rows = this.#rows()
    const offset = this.#tableOffset()
    const segmentsAt = this.#tableOffset()
    let segment = 0
    for (let row = 0; row < Math.min(rows, 4); row++) {
      const count = this.#in.byte() < 250 ? 1 + (this.#in.byte() & 3) : this.#in.pick([0, -1, 73])
      this.#put(offset, 4 * row, this.#in.byte() < 250 ? here : -1)
      this.#put(offset, 4 * row + 1, this.#in.byte() < 250 ? segment : this.#in.word())
      this.#put(offset, 4 * row + 2, count)
      for (let n = 0; n < Math.min(count, 4); n++, segment++) {
        const length = this.#length()
        const from = this.#window()
        this.#put(segmentsAt, 3 * segment, from)
        this.#put(segmentsAt, 3 * segment + 1, this.#offset(from, length))
        this.#put(segmentsAt, 3 * segment + 2, length)
      }
    }
    // What waits already is read first: the kernel's limit is nobody's mistake.
    if (this.#datagrams.length + rows > DATAGRAMS_MAX) {
      if (rows > DATAGRAMS_MAX) return 10
      this.drain()
      this.#datagrams.length = 0
    }
    let should = -EFAULT
    if (isTable(offset, rows, 4) && segmentsAt >= 0) {
      should = 0
      for (let row = 0; row < rows; row++) {
        if (this.#writeRow(offset + 16 * row, segmentsAt)) should++
      }
    }
    const is = shim.writeFrames(tables.id, offset, rows, segmentsAt)
    checkEqual(is, should, 'frames written')
    return Math.min(is, 9)
  }

  #writeRow(row: number, segmentsAt: number): boolean {
    const parts = this.#segments(segmentsAt, this.#word(row, 1), this.#word(row, 2))
    if (parts === null) {
      tables.view.setInt32(row + 12, -EFAULT, true)
      return false
    }
    const bytes = Uint8Array.from(Buffer.concat(parts))
    const fd = this.#word(row, 0)
    const isOpen = fd === here
    if (fd >= 0 && !isOpen) throw new Foreign()
    tables.view.setInt32(row + 12, isOpen ? bytes.length : -EBADF, true)
    // writev(2) of nothing sends nothing, write(2) does.
    if (isOpen && (bytes.length > 0 || parts.length === 1)) this.#datagrams.push(bytes)
    return isOpen
  }

  #segments(at: number, first: number, count: number): Uint8Array[] | null {
    if (first < 0 || count < 1 || count > 72) return null
    const offset = at + 12 * first
    if (!isTable(offset, count, 3)) return null
    const parts: Uint8Array[] = []
    for (let row = offset; row < offset + 12 * count; row += 12) {
      const part = range(this.#word(row, 0), this.#word(row, 1), this.#word(row, 2), false)
      if (part === null) return null
      parts.push(part)
    }
    return parts
  }

  #read(): number {
    const rows = this.#rows()
    const offset = this.#tableOffset()
    for (let row = 0; row < Math.min(rows, 4); row++) {
      const length = this.#length()
      const to = this.#window()
      this.#put(offset, 4 * row, to)
      this.#put(offset, 4 * row + 1, this.#offset(to, length))
      this.#put(offset, 4 * row + 2, length)
    }
    for (let row = 0; isTable(offset, rows, 4) && row < rows; row++) {
      range(this.#word(offset, 4 * row), 0, 0, false)
    }
    let should = -EFAULT
    if (isTable(offset, rows, 4)) {
      for (should = 0; should < rows; should++) {
        const row = offset + 16 * should
        const capacity = this.#word(row, 2)
        const to = range(this.#word(row, 0), this.#word(row, 1), capacity, true)
        // read(2) of nothing reads nothing.
        const isAsked = to !== null && capacity > 0
        const datagram = isAsked ? this.#datagrams.shift() : new Uint8Array(0)
        if (to === null || datagram === undefined) {
          if (should === 0) should = to === null ? -EFAULT : -EAGAIN
          break
        }
        // A datagram that is longer is cut.
        const length = Math.min(datagram.length, capacity)
        to.set(datagram.subarray(0, length))
        tables.view.setInt32(row + 12, length, true)
      }
    }
    const is = shim.readFrames(there, tables.id, offset, rows)
    checkEqual(is, should, 'frames read')
    return Math.min(is, 9)
  }
}
