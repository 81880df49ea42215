/** The dirty log: every page that was noted is marked when it is time to, and not before. */
import { beforeEach, expect, test } from 'vitest'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import { DirtyLog, LOG_PAGE_LENGTH } from '../../../src/virtio/ring/dirty-log.ts'
import { atEnd, KINDS, makeGuest, makeQueues, GUEST_ADDRESS } from '../../support/guest.ts'

/** Pages that the bitmap has. */
const PAGES = 4096 * 8

let log: DirtyLog
let bits: Uint8Array

beforeEach(() => {
  const bitmap = Window.map(PAGES / 8)
  log = new DirtyLog(bitmap.id)
  bits = new Uint8Array(bitmap.buffer)
  atEnd(() => {
    log.close()
    bitmap.unmap()
  })
})

function dirtyPages(): number[] {
  return Array.from({ length: PAGES }, (_, page) => page).filter(
    (page) => ((bits[page >> 3] >> (page & 7)) & 1) === 1,
  )
}

test.each([
  ['one byte', 0, 1, [0]],
  ['a page', 4096, 4096, [1]],
  ['two bytes across a border', 4095, 2, [0, 1]],
  ['pages and their ends', 4095, 8194, [0, 1, 2, 3]],
  ['nothing', 4096, 0, []],
])('%s is marked', (_, address, length, pages) => {
  log.note(address, length)
  expect(dirtyPages()).toEqual([])
  log.mark()
  expect(dirtyPages()).toEqual(pages)
})

test('what was marked once is not marked again', () => {
  log.note(0, 1)
  log.mark()
  bits.fill(0)
  log.note(LOG_PAGE_LENGTH, 1)
  log.mark()
  expect(dirtyPages()).toEqual([1])
})

test('pages beyond the bitmap are left out, the others are marked', () => {
  for (const page of [1, PAGES, 2, PAGES * 3, 3]) log.note(page * LOG_PAGE_LENGTH, 1)
  log.mark()
  expect(dirtyPages()).toEqual([1, 2, 3])
})

test('pages beyond the bitmap take none of those within along, also when rows are shared', () => {
  log.note((PAGES - 1) * LOG_PAGE_LENGTH, 2 * LOG_PAGE_LENGTH)
  // As an int32 it would be the first page.
  log.note(2 ** 32 * LOG_PAGE_LENGTH, 1)
  log.mark()
  expect(dirtyPages()).toEqual([PAGES - 1])
  bits.fill(0)
  for (let at = 0; at < 20_000; at++) log.note((at % 8) * LOG_PAGE_LENGTH, 1)
  for (const page of [9, PAGES + 1, 10]) log.note(page * LOG_PAGE_LENGTH, 1)
  log.mark()
  const dirty = dirtyPages()
  for (const page of [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]) expect(dirty).toContain(page)
  expect(Math.max(...dirty)).toBe(10)
})

test('however much is noted, it is all marked, and none of it early', () => {
  for (let at = 0; at < 30_000; at++) log.note(((at * 7) % 20_000) * LOG_PAGE_LENGTH, 1)
  expect(dirtyPages()).toEqual([])
  log.mark()
  const dirty = new Set(dirtyPages())
  for (let page = 0; page < 20_000; page++) expect(dirty.has(page)).toBe(true)
})

test.each(KINDS)('a $name queue logs the parts of its ring that it writes', (kind) => {
  const guest = makeGuest(1 << 20)
  const offset = 0x40000
  const { device, layout } = makeQueues(guest, kind, 1024, offset)
  const notes: (readonly [number, number])[] = []
  const spy = { note: (...note: [number, number]) => notes.push(note) } as unknown as DirtyLog
  device.logWritten(spy, 0x1234_5678)
  const at = GUEST_ADDRESS + offset
  expect(notes).toEqual(
    kind.isPacked
      ? [
          [at, 1024 * 16],
          [at + layout.usedOffset, 4],
        ]
      : [[0x1234_5678, 4 + 1024 * 8 + 2]],
  )
})

test('a bitmap whose file was truncated is told once', () => {
  const length = 2 * LOG_PAGE_LENGTH
  const fd = shim.memfdCreate('framepump-test-log', 1)
  shim.ftruncate(fd, length)
  const bitmap = Window.map(length, { fd })
  const truncated = new DirtyLog(bitmap.id)
  atEnd(() => {
    truncated.close()
    bitmap.unmap()
    shim.close(fd)
  })
  truncated.note(0, 1)
  truncated.mark()
  expect(truncated.hasFaulted()).toBe(false)
  shim.ftruncate(fd, 0)
  expect(truncated.hasFaulted()).toBe(false)
  truncated.note(0, 1)
  truncated.mark()
  expect(truncated.hasFaulted()).toBe(true)
  expect(truncated.hasFaulted()).toBe(false)
})

test('a bitmap of more pages than a row can name neither throws nor marks another page', () => {
  const bitmap = Window.map(600 * 2 ** 20)
  const large = new DirtyLog(bitmap.id)
  atEnd(() => {
    large.close()
    bitmap.unmap()
  })
  for (const page of [2 ** 31, 2 ** 32 - 1, 2 ** 32 + 5]) large.note(page * LOG_PAGE_LENGTH, 8192)
  large.mark()
  const first = new Uint8Array(bitmap.buffer, 0, 64)
  expect(first.every((byte) => byte === 0)).toBe(true)
})
