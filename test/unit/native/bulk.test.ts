/** Bulk memory: tables of copies, heads and checksums; a wrong row stops and touches nothing. */
import { describe, expect, test } from 'vitest'
import { EFAULT, EINVAL } from '../../../src/abi/errno.ts'
import {
  CHECKSUM_ROW_INTS,
  COPY_BEHIND_HEAD,
  COPY_BEHIND_HEADER,
  COPY_BEHIND_TAG,
  COPY_SAME_HEAD,
  COPY_ROW_INTS,
  shim,
  WINDOW_MIRRORED,
  WINDOW_READ_ONLY,
} from '../../../src/native/shim.ts'
import { GUARD, mapWindow, memfd, PAGE, unmapWindow } from './windows.ts'
import type { Mapped } from './windows.ts'

const INT_MAX = 0x7fff_ffff

/** Ascending bytes, so that a copy from the wrong place shows. */
function pattern(window: Mapped): Mapped {
  for (let k = 0; k < window.bytes.length; k++) window.bytes[k] = (k * 7 + (k >> 8)) & 0xff
  return window
}

function guarded(length = PAGE): Mapped {
  const window = mapWindow(length)
  window.bytes.fill(GUARD)
  return window
}

/** Offsets of the bytes that are no guard bytes any more. */
function touched(window: Mapped): number[] {
  return [...window.bytes.keys()].filter((k) => window.bytes[k] !== GUARD)
}

/** A struct virtio_net_hdr_v1 without offloads, num_buffers 1. */
const PLAIN_HEADER = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]

describe('copyRows', () => {
  test('copies every row, in order, between windows, and not a byte beside', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, 0, destination.id, 16, 4], 2)
    table.ints.set([source.id, 100, destination.id, 18, 4], 2 + COPY_ROW_INTS)
    table.ints.set([source.id, PAGE - 1, destination.id, PAGE - 1, 1], 2 + 2 * COPY_ROW_INTS)
    expect(shim.copyRows(table.id, 8, 3)).toBe(3)
    expect([...destination.bytes.subarray(15, 23)]).toEqual([
      GUARD,
      ...source.bytes.subarray(0, 2),
      ...source.bytes.subarray(100, 104),
      GUARD,
    ])
    expect(touched(destination)).toEqual([16, 17, 18, 19, 20, 21, PAGE - 1])
  })

  test('copies behind a vnet_hdr that it writes, which has to be in the window as well', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    const length = 4 + COPY_BEHIND_HEADER
    table.ints.set([source.id, 7, destination.id, PAGE - 16, length])
    table.ints.set([source.id, 7, destination.id, PAGE - 15, length], COPY_ROW_INTS)
    expect(shim.copyRows(table.id, 0, 2)).toBe(1)
    expect([...destination.bytes.subarray(PAGE - 17)]).toEqual([
      GUARD,
      ...PLAIN_HEADER,
      ...source.bytes.subarray(7, 11),
    ])
    expect(touched(destination)).toHaveLength(16)
  })

  test('copies behind the head that the next row is, and behind a vnet_hdr before that', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    const head = [0x04030201, 0x08070605, 0x0c0b0a09, 0x100f0e0d]
    const headBytes = Array.from({ length: 16 }, (_, at) => at + 1)
    const rows = [
      [source.id, 7, destination.id, 1, 4 + COPY_BEHIND_HEAD],
      [...head, -1],
      // Of no more bytes than the head, and at the end of the window.
      [source.id, 9, destination.id, PAGE - 28, COPY_BEHIND_HEAD + COPY_BEHIND_HEADER],
      [...head, -1],
      [source.id, 0, destination.id, 40, 2 + COPY_BEHIND_HEAD + COPY_BEHIND_TAG],
      [...head, 0x14131211],
    ]
    table.ints.set(rows.flat())
    expect(shim.copyRows(table.id, 0, 6)).toBe(6)
    const twentyBytes = Array.from({ length: 20 }, (_, at) => at + 1)
    expect([...destination.bytes.subarray(40, 62)]).toEqual([
      ...twentyBytes,
      ...source.bytes.subarray(0, 2),
    ])
    expect([...destination.bytes.subarray(0, 22)]).toEqual([
      GUARD,
      ...headBytes,
      ...source.bytes.subarray(7, 11),
      GUARD,
    ])
    expect([...destination.bytes.subarray(PAGE - 28)]).toEqual([...PLAIN_HEADER, ...headBytes])
    expect(touched(destination)).toHaveLength(20 + 22 + 28)
    destination.bytes.fill(GUARD)
    table.ints[14] = 1 + COPY_BEHIND_HEAD + COPY_BEHIND_HEADER
    expect(shim.copyRows(table.id, 0, 6)).toBe(2)
    // Nothing stands behind the last row.
    expect(shim.copyRows(table.id, 0, 1)).toBe(0)
    expect(touched(destination)).toHaveLength(20)
  })

  test('copies behind the head that was given last, in this call', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    const head = [0x04030201, 0x08070605, 0x0c0b0a09, 0x100f0e0d, 0x14131211]
    const behind = COPY_BEHIND_HEAD + COPY_SAME_HEAD
    const rows = [
      [source.id, 7, destination.id, 1, 4 + COPY_BEHIND_HEAD],
      head,
      [source.id, 9, destination.id, 40, 2 + behind + COPY_BEHIND_HEADER],
      [source.id, 5, destination.id, 100, 3 + behind + COPY_BEHIND_TAG],
      // Of no head it is a length.
      [source.id, 3, destination.id, 90, 2 + COPY_SAME_HEAD],
    ]
    table.ints.set(rows.flat())
    expect(shim.copyRows(table.id, 0, 5)).toBe(4)
    const bytes = Array.from({ length: 20 }, (_, at) => at + 1)
    const { bytes: from } = source
    expect([...destination.bytes.subarray(1, 21)]).toEqual([
      ...bytes.slice(0, 16),
      ...from.subarray(7, 11),
    ])
    expect([...destination.bytes.subarray(40, 70)]).toEqual([
      ...PLAIN_HEADER,
      ...bytes.slice(0, 16),
      ...from.subarray(9, 11),
    ])
    expect([...destination.bytes.subarray(100, 123)]).toEqual([...bytes, ...from.subarray(5, 8)])
    expect(touched(destination)).toHaveLength(20 + 30 + 23)
    // In another call none was given.
    destination.bytes.fill(GUARD)
    expect(shim.copyRows(table.id, 40, 2)).toBe(0)
    expect(touched(destination)).toHaveLength(0)
  })

  test('copies a full burst of rows, more than it prefetches', () => {
    const source = pattern(mapWindow(256 * 64))
    const destination = guarded(256 * 64)
    const table = mapWindow(8192)
    for (let k = 0; k < 256; k++) {
      const row = [source.id, (255 - k) * 64, destination.id, k * 64, 60]
      table.ints.set(row, k * COPY_ROW_INTS)
    }
    expect(shim.copyRows(table.id, 0, 256)).toBe(256)
    for (let k = 0; k < 256; k++) {
      const expected = [...source.bytes.subarray((255 - k) * 64, (255 - k) * 64 + 60)]
      expect([...destination.bytes.subarray(k * 64, k * 64 + 64)]).toEqual([
        ...expected,
        ...Array.from({ length: 4 }, () => GUARD),
      ])
    }
  })

  test.each([
    ['forwards', 10, 13],
    ['backwards', 13, 10],
    ['onto itself', 10, 10],
  ])('copies overlapping memory %s as memmove does', (_, from, to) => {
    const window = pattern(mapWindow(PAGE))
    const expected = window.bytes.slice()
    expected.copyWithin(to, from, from + 500)
    const table = mapWindow(PAGE)
    table.ints.set([window.id, from, window.id, to, 500])
    expect(shim.copyRows(table.id, 0, 1)).toBe(1)
    expect(Buffer.compare(window.bytes, expected)).toBe(0)
  })

  test('copies through the seam of a mirrored window', () => {
    const ring = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_MIRRORED)
    const source = pattern(mapWindow(PAGE))
    const table = mapWindow(PAGE)
    table.ints.set([source.id, 0, ring.id, PAGE - 4, 8])
    expect(shim.copyRows(table.id, 0, 1)).toBe(1)
    expect([...ring.bytes.subarray(0, 4)]).toEqual([...source.bytes.subarray(4, 8)])
  })

  test('rows without bytes are done, also at the very end of a window', () => {
    const source = mapWindow(PAGE)
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, PAGE, destination.id, PAGE, 0])
    expect(shim.copyRows(table.id, 0, 1)).toBe(1)
    expect(shim.copyRows(table.id, 0, 0)).toBe(0)
    expect(touched(destination)).toEqual([])
  })

  test('reads from a read-only window', () => {
    const fd = memfd(PAGE)
    const source = pattern(mapWindow(PAGE, fd))
    const view = mapWindow(PAGE, fd, 0, WINDOW_READ_ONLY)
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([view.id, 8, destination.id, 0, 8])
    expect(shim.copyRows(table.id, 0, 1)).toBe(1)
    expect([...destination.bytes.subarray(0, 8)]).toEqual([...source.bytes.subarray(8, 16)])
  })

  test('stops at a wrong row: earlier rows are done, nothing else is touched', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const fd = memfd(PAGE)
    const behind = mapWindow(PAGE, fd)
    behind.bytes.fill(GUARD)
    const readOnly = mapWindow(PAGE, fd, 0, WINDOW_READ_ONLY)
    const table = mapWindow(PAGE)
    const closed = unmapWindow(mapWindow(PAGE))
    const s = source.id
    const d = destination.id
    const wrong: Record<string, readonly number[]> = {
      'negative source offset': [s, -1, d, 100, 8],
      'lowest source offset': [s, -INT_MAX - 1, d, 100, 8],
      'negative destination offset': [s, 0, d, -1, 8],
      'source one byte beyond the end': [s, PAGE - 7, d, 100, 8],
      'source offset beyond the end': [s, PAGE + 1, d, 100, 0],
      'destination one byte beyond the end': [s, 0, d, PAGE - 7, 8],
      'source end overflows an int32': [s, INT_MAX, d, 100, INT_MAX],
      'destination end overflows an int32': [s, 0, d, INT_MAX, INT_MAX],
      'negative length': [s, 0, d, 100, -1],
      'lowest length': [s, 0, d, 100, -INT_MAX - 1],
      'closed source window': [closed, 0, d, 100, 8],
      'closed destination window': [s, 0, closed, 100, 8],
      'closed window without bytes': [closed, 0, d, 100, 0],
      'negative source window': [-1, 0, d, 100, 8],
      'source window beyond the table': [32768, 0, d, 100, 8],
      'destination window beyond the table': [s, 0, INT_MAX, 100, 8],
      'lowest window number': [s, 0, -INT_MAX - 1, 100, 8],
      'read-only destination': [s, 0, readOnly.id, 100, 8],
    }
    for (const [name, row] of Object.entries(wrong)) {
      destination.bytes.fill(GUARD)
      table.ints.set([s, 0, d, 0, 2, ...row, s, 0, d, 200, 8])
      expect([name, shim.copyRows(table.id, 0, 3)]).toEqual([name, 1])
      expect([name, touched(destination)]).toEqual([name, [0, 1]])
      expect([name, touched(behind)]).toEqual([name, []])
    }
  })

  test('refuses a table that is not inside its window', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    for (let at = 0; at + COPY_ROW_INTS <= table.ints.length; at += COPY_ROW_INTS) {
      table.ints.set([source.id, 0, destination.id, 0, 8], at)
    }
    const closed = unmapWindow(mapWindow(PAGE))
    const wrong: readonly (readonly [number, number, number])[] = [
      [table.id, -4, 1],
      [table.id, 2, 1],
      [table.id, PAGE - 16, 1],
      [table.id, PAGE + 4, 0],
      [table.id, 0, 205],
      [table.id, 0, -1],
      [table.id, 0, INT_MAX],
      // 5 * 4 * 214748365 is 4 more than 2^32.
      [table.id, 0, 214_748_365],
      [table.id, INT_MAX - 3, 1],
      [closed, 0, 1],
      [-1, 0, 1],
      [32768, 0, 1],
    ]
    for (const [window, offset, count] of wrong) {
      expect([`${offset} ${count}`, shim.copyRows(window, offset, count)]).toEqual([
        `${offset} ${count}`,
        -EFAULT,
      ])
      expect([`${offset} ${count}`, shim.checksumRows(window, offset, count)]).toEqual([
        `${offset} ${count}`,
        -EFAULT,
      ])
    }
    expect(touched(destination)).toEqual([])
    expect(shim.copyRows(table.id, 12, 204)).toBeGreaterThanOrEqual(0)
  })
})

describe('gatherFrames', () => {
  test('copies as much of each frame as there is, to a place of its own', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, source.id, source.id, 3, 100, PAGE - 70, 60, 700, 70])
    expect(shim.gatherFrames(table.id, 0, 12, 24, 3, destination.id, 256, 64, -1)).toBe(1)
    const at = (place: number, length: number): number[] => [
      ...destination.bytes.subarray(place, place + length),
    ]
    expect(at(256, 60)).toEqual([...source.bytes.subarray(3, 63)])
    expect(at(512, 65)).toEqual([...source.bytes.subarray(100, 164), GUARD])
    expect(at(768, 65)).toEqual([...source.bytes.subarray(PAGE - 70, PAGE - 6), GUARD])
    expect(touched(destination)).toHaveLength(64 + 64 + 64)
  })

  test('with heads as well: what was copied whole is said to be there', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, source.id, source.id, 3, 100, PAGE - 14, 60, 65, 14])
    expect(shim.gatherFrames(table.id, 0, 12, 24, 3, destination.id, 256, 64, 64)).toBe(2)
    const head = (k: number): number[] => [...table.bytes.subarray(64 + 16 * k, 80 + 16 * k)]
    expect(head(0)).toEqual([...source.bytes.subarray(3, 19)])
    expect(head(1)).toEqual([...source.bytes.subarray(100, 116)])
    expect(head(2)).toEqual([...source.bytes.subarray(PAGE - 14, PAGE), 0, 0])
    const places = [destination.id, source.id, destination.id, 256, 100, 768]
    expect([...table.ints.subarray(0, 9)]).toEqual([...places, 60, 65, 14])
    expect([...destination.bytes.subarray(256, 316)]).toEqual([...source.bytes.subarray(3, 63)])
    expect([...destination.bytes.subarray(768, 782)]).toEqual(head(2).slice(0, 14))
    expect(shim.gatherFrames(table.id, 0, 12, 24, 3, destination.id, 0, 64, PAGE - 47)).toBe(
      -EFAULT,
    )
  })

  test('stops at a frame that leaves its window, and refuses what is no table', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    for (const [window, offset, length] of [
      [source.id, PAGE - 63, 64],
      [source.id, -1, 10],
      [source.id, INT_MAX, 64],
      [source.id, 0, -1],
      [-1, 0, 10],
    ] as const) {
      table.ints.set([source.id, window, 0, offset, 20, length])
      const done = shim.gatherFrames(table.id, 0, 8, 16, 2, destination.id, 0, 256, -1)
      expect([window, offset, length, done]).toEqual([window, offset, length, -EFAULT])
    }
    expect(touched(destination)).toHaveLength(64)
    const d = destination.id
    const wrong: readonly (readonly [Parameters<typeof shim.gatherFrames>, number])[] = [
      [[table.id, 0, 8, 16, 2, d, 0, 257, -1], EINVAL],
      [[table.id, 0, 8, 16, 2, d, 0, -1, -1], EINVAL],
      [[table.id, 0, 8, 16, -1, d, 0, 64, -1], EINVAL],
      [[table.id, 0, 8, 16, INT_MAX, d, 0, 64, -1], EINVAL],
      [[table.id, -4, 8, 16, 2, d, 0, 64, -1], EFAULT],
      [[table.id, 0, 8, PAGE - 4, 2, d, 0, 64, -1], EFAULT],
      [[table.id, 0, 8, 16, 2, d, PAGE - 511, 64, -1], EFAULT],
    ]
    for (const [given, error] of wrong) {
      expect([given, shim.gatherFrames(...given)]).toEqual([given, -error])
    }
    expect(touched(destination)).toHaveLength(64)
  })
})

describe('alikeRows', () => {
  test('counts the first rows that have the bits of the mask as the first one has them', () => {
    const rows = mapWindow(PAGE)
    const mask = mapWindow(PAGE)
    mask.bytes.fill(0xff, 100, 164)
    mask.bytes[100 + 33] = 0xf0
    const numbers = mapWindow(PAGE)
    const alike = (count: number): number =>
      shim.alikeRows(rows.id, 8, 70, count, mask.id, 100, numbers.id, 20)
    const row = 8 + 5 * 70
    for (let at = 0; at < 64; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const isMasked = at === 33 && bit < 4
        rows.bytes[row + at] ^= 1 << bit
        expect([at, bit, alike(9), alike(5)]).toEqual([at, bit, isMasked ? 9 : 5, 5])
        rows.bytes[row + at] ^= 1 << bit
      }
    }
    // What lies between two of them is none of them.
    rows.bytes.fill(7, row + 64, row + 70)
    expect([alike(9), alike(1), alike(0)]).toEqual([9, 1, 0])
    numbers.ints[5 + 3] = 1
    numbers.ints[5 + 9] = 1
    expect([alike(9), alike(3)]).toEqual([3, 3])
  })

  test('refuses what leaves its window', () => {
    const [{ id }, mask] = [mapWindow(PAGE), mapWindow(PAGE)]
    const wrong: readonly (readonly [Parameters<typeof shim.alikeRows>, number])[] = [
      [[id, 0, 63, 2, mask.id, 0, id, 0], EINVAL],
      [[id, 0, 257, 2, mask.id, 0, id, 0], EINVAL],
      [[id, 0, 64, -1, mask.id, 0, id, 0], EINVAL],
      [[id, 0, 64, INT_MAX, mask.id, 0, id, 0], EINVAL],
      [[id, PAGE - 127, 64, 2, mask.id, 0, id, 0], EFAULT],
      [[id, -1, 64, 1, mask.id, 0, id, 0], EFAULT],
      [[id, 0, 64, 1, mask.id, PAGE - 63, id, 0], EFAULT],
      [[-1, 0, 64, 1, mask.id, 0, id, 0], EFAULT],
      [[id, 0, 64, 2, mask.id, 0, id, PAGE - 4], EFAULT],
      [[id, 0, 64, 1, mask.id, 0, id, 2], EFAULT],
    ]
    for (const [given, error] of wrong) {
      expect([given, shim.alikeRows(...given)]).toEqual([given, -error])
    }
    expect(shim.alikeRows(id, PAGE - 128, 64, 2, mask.id, PAGE - 64, id, PAGE - 8)).toBe(2)
  })
})

describe('gatherHeads', () => {
  test('packs the first 16 bytes at every place', () => {
    const source = pattern(mapWindow(PAGE))
    const other = pattern(mapWindow(2 * PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, other.id, source.id], 4)
    table.ints.set([3, PAGE + 1, PAGE - 16], 10)
    expect(shim.gatherHeads(table.id, 16, 40, 3, destination.id, 32, 0)).toBe(3)
    expect([...destination.bytes.subarray(32, 80)]).toEqual([
      ...source.bytes.subarray(3, 19),
      ...other.bytes.subarray(PAGE + 1, PAGE + 17),
      ...source.bytes.subarray(PAGE - 16),
    ])
    const beside = [...destination.bytes.subarray(0, 32), ...destination.bytes.subarray(80)]
    expect(beside.every((byte) => byte === GUARD)).toBe(true)
  })

  test('fills up with zeros past the end of a window', () => {
    const source = mapWindow(PAGE)
    source.bytes.fill(0x77)
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, source.id, source.id, PAGE - 15, PAGE - 1, PAGE])
    expect(shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, 0)).toBe(3)
    const head = (length: number): number[] =>
      Array.from({ length: 16 }, (_, k) => (k < length ? 0x77 : 0))
    expect([...destination.bytes.subarray(0, 48)]).toEqual([...head(15), ...head(1), ...head(0)])
    expect(destination.bytes[48]).toBe(GUARD)
  })

  test('from some bytes behind a place on: zeros behind the end of the window', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    table.ints.set([source.id, source.id, source.id, 3, PAGE - 20, PAGE - 16])
    expect(shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, 16)).toBe(3)
    expect([...destination.bytes.subarray(0, 49)]).toEqual([
      ...source.bytes.subarray(19, 35),
      ...source.bytes.subarray(PAGE - 4),
      ...Array.from({ length: 28 }, () => 0),
      GUARD,
    ])
    // It is the place that must be in the window.
    table.ints.set([source.id, source.id, source.id, 0, -8, 0])
    expect(shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, 16)).toBe(1)
    table.ints.set([source.id, source.id, source.id, 0, INT_MAX, 0])
    expect(shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, 16)).toBe(1)
    expect(shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, -1)).toBe(-EINVAL)
  })

  test('of places where the heads themselves go is what stood there', () => {
    const both = pattern(mapWindow(PAGE))
    const table = mapWindow(PAGE)
    // The second reaches beyond the end, so zeros follow what was there.
    table.ints.set([both.id, both.id, PAGE - 36, PAGE - 12])
    const first = [...both.bytes.subarray(PAGE - 36, PAGE - 20)]
    const last = [...both.bytes.subarray(PAGE - 12)]
    expect(shim.gatherHeads(table.id, 0, 8, 2, both.id, PAGE - 32, 0)).toBe(2)
    expect([...both.bytes.subarray(PAGE - 32)]).toEqual([...first, ...last, 0, 0, 0, 0])
  })

  test('stops at a wrong place', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const table = mapWindow(PAGE)
    const closed = unmapWindow(mapWindow(PAGE))
    for (const [window, offset] of [
      [source.id, -1],
      [source.id, PAGE + 1],
      [source.id, INT_MAX],
      [source.id, -INT_MAX - 1],
      [closed, 0],
      [-1, 0],
      [32768, 0],
    ] as const) {
      destination.bytes.fill(GUARD)
      table.ints.set([source.id, window, source.id, 0, offset, 0])
      const done = shim.gatherHeads(table.id, 0, 12, 3, destination.id, 0, 0)
      expect([`${window} ${offset}`, done]).toEqual([`${window} ${offset}`, 1])
      expect(destination.bytes.subarray(16).every((byte) => byte === GUARD)).toBe(true)
    }
  })

  test('refuses a column or destination outside its window, and a read-only destination', () => {
    const source = pattern(mapWindow(PAGE))
    const destination = guarded()
    const fd = memfd(PAGE)
    const behind = mapWindow(PAGE, fd)
    behind.bytes.fill(GUARD)
    const readOnly = mapWindow(PAGE, fd, 0, WINDOW_READ_ONLY)
    const table = mapWindow(PAGE)
    table.ints.fill(source.id, 0, PAGE / 8)
    const closed = unmapWindow(mapWindow(PAGE))
    const d = destination.id
    const half = PAGE / 2
    const wrong: readonly (readonly [number, number, number, number, number, number])[] = [
      [table.id, -4, half, 1, d, 0],
      [table.id, 2, half, 1, d, 0],
      [table.id, PAGE, half, 1, d, 0],
      [table.id, 0, -4, 1, d, 0],
      [table.id, 0, half + 2, 1, d, 0],
      [table.id, 0, PAGE - 4, 2, d, 0],
      [table.id, 0, half, -1, d, 0],
      [table.id, 0, half, INT_MAX, d, 0],
      [closed, 0, half, 1, d, 0],
      [table.id, 0, half, 2, d, -1],
      [table.id, 0, half, 2, d, PAGE - 31],
      [table.id, 0, half, 257, d, 0],
      [table.id, 0, half, 2, d, INT_MAX],
      [table.id, 0, half, 2, closed, 0],
      [table.id, 0, half, 2, readOnly.id, 0],
    ]
    for (const given of wrong)
      expect([given.join(' '), shim.gatherHeads(...given, 0)]).toEqual([given.join(' '), -EFAULT])
    expect(touched(destination)).toEqual([])
    expect(touched(behind)).toEqual([])
  })
})

/** RFC 1071, straight from its text. */
function referenceSum(bytes: Uint8Array, initial: number): number {
  let sum = initial >>> 0
  for (let k = 0; k < bytes.length; k += 2) sum += bytes[k] * 256 + (bytes[k + 1] ?? 0)
  while (sum > 0xffff) sum = (sum % 0x1_0000) + Math.floor(sum / 0x1_0000)
  return sum
}

function checksum(window: Mapped, offset: number, length: number, initial: number): number {
  const table = mapWindow(PAGE)
  table.ints.set([window.id, offset, length, initial, -1])
  expect(shim.checksumRows(table.id, 0, 1)).toBe(1)
  const result = table.ints[CHECKSUM_ROW_INTS - 1]
  unmapWindow(table)
  return result
}

describe('checksumRows', () => {
  test('sums the example of RFC 1071', () => {
    const window = mapWindow(PAGE)
    window.bytes.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])
    expect(checksum(window, 0, 8, 0)).toBe(0xddf2)
  })

  test('sums an IPv4 header to the complement of its checksum', () => {
    const header = Buffer.from('450000730000400040110000c0a80001c0a800c7', 'hex')
    const window = mapWindow(PAGE)
    window.bytes.set(header)
    expect(~checksum(window, 0, 20, 0) & 0xffff).toBe(0xb861)
  })

  test('agrees with the reference for every short length and both alignments', () => {
    const window = pattern(mapWindow(PAGE))
    for (let length = 0; length < 70; length++) {
      for (const offset of [0, 1, 2, 3]) {
        for (const initial of [0, 1, 0xffff, 0x1_2345, INT_MAX, -1]) {
          const expected = referenceSum(window.bytes.subarray(offset, offset + length), initial)
          const given = `${length} bytes at ${offset} with ${initial}`
          expect([given, checksum(window, offset, length, initial)]).toEqual([given, expected])
        }
      }
    }
  })

  test('folds the carries of 64 KiB of ones', () => {
    const window = mapWindow(65_536)
    window.bytes.fill(0xff)
    expect(checksum(window, 0, 65_535, 0)).toBe(referenceSum(window.bytes.subarray(0, 65_535), 0))
    expect(checksum(window, 0, 65_536, 0)).toBe(0xffff)
  })

  test('writes a result for each row and nothing else into the table', () => {
    const window = pattern(mapWindow(PAGE))
    const table = mapWindow(PAGE)
    table.ints.fill(-7)
    table.ints.set([window.id, 0, 9, 5, -7, window.id, 20, 40, 0, -7])
    expect(shim.checksumRows(table.id, 0, 2)).toBe(2)
    expect([...table.ints.subarray(0, 11)]).toEqual([
      window.id,
      0,
      9,
      5,
      referenceSum(window.bytes.subarray(0, 9), 5),
      window.id,
      20,
      40,
      0,
      referenceSum(window.bytes.subarray(20, 60), 0),
      -7,
    ])
  })

  test('stops at a wrong row and leaves its result alone', () => {
    const window = pattern(mapWindow(PAGE))
    const table = mapWindow(PAGE)
    const closed = unmapWindow(mapWindow(PAGE))
    for (const row of [
      [window.id, -1, 4],
      [window.id, 0, -1],
      [window.id, PAGE - 3, 4],
      [window.id, INT_MAX, INT_MAX],
      [closed, 0, 4],
      [32768, 0, 4],
    ]) {
      table.ints.set([window.id, 0, 4, 0, -7, ...row, 0, -7, window.id, 0, 4, 0, -7])
      expect([row.join(' '), shim.checksumRows(table.id, 0, 3)]).toEqual([row.join(' '), 1])
      expect(table.ints[9]).toBe(-7)
      expect(table.ints[14]).toBe(-7)
    }
  })
})
