/** What is special about packed virtqueues: wrap counters, buffer ids, event suppression. */
import { expect, test } from 'vitest'
import {
  BROKEN_AVAIL_STEP,
  BROKEN_INDIRECT,
  BROKEN_LOOP,
  Chain,
} from '../../../src/virtio/ring/chain.ts'
import type { Guest, Kind } from '../../support/guest.ts'
import { attach, GUEST_ADDRESS, makeGuest, ringLayout } from '../../support/guest.ts'

const MEMORY = 1 << 20
const BUFFER = 3 << 18
const PLAIN: Kind = { isPacked: true, hasEventIdx: false, tableEntries: 0 }
const EVENTS: Kind = { ...PLAIN, hasEventIdx: true }
const TABLES: Kind = { ...PLAIN, tableEntries: 4 }
const NEXT = 1
const WRITE = 2
const INDIRECT = 4
const AVAIL = 0x80
const USED = 0x8000
const START = 0x80008000

/** Descriptor `entry` of the ring, or of the table at `offset`. */
function describe(
  guest: Guest,
  entry: number,
  id: number,
  flags: number,
  length = 64,
  offset = 0,
): void {
  const word = (offset >> 2) + entry * 4
  guest.words.set([(GUEST_ADDRESS + BUFFER) | 0, 1, length, id | (flags << 16)], word)
}

/** len, id, flags of a ring entry. */
function entryOf(guest: Guest, entry: number): readonly number[] {
  const half = entry * 8
  return [guest.words[entry * 4 + 2], guest.halfWords[half + 6], guest.halfWords[half + 7]]
}

const availFlags = (wrap: number): number => (wrap === 1 ? AVAIL : USED)
const usedFlags = (wrap: number): number => (wrap === 1 ? AVAIL | USED : 0)

test('the id of a chain is that of its last descriptor', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 5, 0, START)!
  const chain = new Chain()
  describe(guest, 0, 1111, AVAIL | NEXT)
  describe(guest, 1, 2222, AVAIL | NEXT)
  describe(guest, 2, 0xfffe, AVAIL | WRITE)
  expect(queue.take(chain)).toBe(true)
  expect(chain.id).toBe(0xfffe)
  expect(chain.entries).toBe(3)
})

test('a used descriptor stands at the first entry of its chain, with WRITE if bytes were written', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 5, 0, START)!
  const chain = new Chain()
  describe(guest, 0, 0, AVAIL | NEXT)
  describe(guest, 1, 3, AVAIL | WRITE)
  describe(guest, 2, 4, AVAIL | WRITE)
  queue.take(chain)
  queue.put(chain.id, chain.entries, 0)
  queue.take(chain)
  queue.put(chain.id, chain.entries, 9)
  // Until it is published, the first still looks available.
  expect(entryOf(guest, 0)[2]).toBe(AVAIL | NEXT)
  queue.publish()
  expect(entryOf(guest, 0)).toEqual([0, 3, AVAIL | USED])
  expect(entryOf(guest, 1)).toEqual([64, 3, AVAIL | WRITE])
  expect(entryOf(guest, 2)).toEqual([9, 4, AVAIL | USED | WRITE])
})

test.each([1, 3, 5, 32768])('wrap counters turn over at the end of a ring of %i', (size) => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, size, 0, ((size - 1) | 0x8000) >>> 0)!
  const chain = new Chain()
  describe(guest, size - 1, 1, AVAIL)
  expect(queue.take(chain)).toBe(true)
  queue.put(1, 1, 0)
  queue.publish()
  expect(queue.base()).toBe(0)
  expect(queue.hasChain()).toBe(false)
  // The same flags mean used now.
  describe(guest, 0, 2, USED)
  expect(queue.take(chain)).toBe(true)
  queue.put(2, 1, 0)
  queue.publish()
  expect(entryOf(guest, 0)[2]).toBe(0)
})

test.each([
  [availFlags(1), usedFlags(1), 1],
  [availFlags(0), usedFlags(0), 0],
])('flags %i are available, %i are not, where the wrap counter is %i', (available, used, wrap) => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 4, 0, wrap << 15)!
  for (const flags of [used, availFlags(1 - wrap), usedFlags(1 - wrap)]) {
    describe(guest, 0, 0, flags)
    expect(queue.hasChain()).toBe(false)
  }
  describe(guest, 0, 0, available)
  expect(queue.hasChain()).toBe(true)
})

test('a ring of descriptors with NEXT breaks the queue', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 5, 0, START)!
  for (let entry = 0; entry < 5; entry++) describe(guest, entry, 0, AVAIL | NEXT)
  expect(queue.take(new Chain())).toBe(false)
  expect(queue.broken).toBe(BROKEN_LOOP)
})

test('a chain into entries that the device has breaks the queue', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 3, 0, START)!
  for (let entry = 0; entry < 3; entry++) describe(guest, entry, 0, AVAIL | (entry > 0 ? NEXT : 0))
  expect(queue.take(new Chain())).toBe(true)
  expect(queue.take(new Chain())).toBe(false)
  expect(queue.broken).toBe(BROKEN_LOOP)
})

test('making an entry available that the device has breaks the queue', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 3, 0, START)!
  for (let entry = 0; entry < 3; entry++) describe(guest, entry, entry, AVAIL)
  for (let entry = 0; entry < 3; entry++) expect(queue.take(new Chain())).toBe(true)
  expect(queue.hasChain()).toBe(false)
  expect(queue.broken).toBe(0)
  describe(guest, 0, 0, USED)
  expect(queue.hasChain()).toBe(false)
  expect(queue.broken).toBe(BROKEN_AVAIL_STEP)
})

test('in a table every descriptor is used, in order, and only WRITE means something', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, TABLES, 3, 0, START)!
  const chain = new Chain()
  describe(guest, 0, 77, AVAIL | INDIRECT | WRITE, 48)
  describe(guest, 0, 5, 0, 10, BUFFER)
  describe(guest, 1, 9, NEXT | INDIRECT, 20, BUFFER)
  describe(guest, 2, 0, WRITE, 30, BUFFER)
  expect(queue.take(chain)).toBe(true)
  expect(chain.id).toBe(77)
  expect([...chain.length.subarray(0, chain.count)]).toEqual([10, 20, 30])
  expect(chain.readable).toBe(2)
})

test('a table that was not negotiated breaks the queue', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 3, 0, START)!
  describe(guest, 0, 0, AVAIL | INDIRECT, 16)
  expect(queue.take(new Chain())).toBe(false)
  expect(queue.broken).toBe(BROKEN_INDIRECT)
})

test.each([
  // base, size, what it is understood to be
  [0x80008000, 4, 0x80008000],
  [0x8000, 4, 0x80008000],
  [0x0003, 4, 0x00030003],
  [0x8003, 4, 0x80038003],
  [0x8001_0001, 4, 0x8001_0001],
  [0, 4, 0],
])('base %i of a ring of %i is %i', (base, size, expected) => {
  const queue = attach(makeGuest(MEMORY), PLAIN, size, 0, base)!
  expect(queue.base()).toBe(expected)
})

test.each([0x8004, 4, 0x7fff, 0x8004_8000, 0x8001_8000, 0x8000_0001])(
  'a ring of 4 has no base %i',
  (base) => {
    expect(attach(makeGuest(MEMORY), PLAIN, 4, 0, base)).toBeNull()
  },
)

test('what was in flight at the base stays in flight', () => {
  const guest = makeGuest(MEMORY)
  // Entries 1 and 2 were taken by another device side, which never used them.
  const queue = attach(guest, PLAIN, 4, 0, 0x8001_8003)!
  describe(guest, 3, 0, AVAIL)
  describe(guest, 0, 0, USED)
  describe(guest, 1, 0, USED)
  expect(queue.take(new Chain())).toBe(true)
  expect(queue.take(new Chain())).toBe(true)
  expect(queue.take(new Chain())).toBe(false)
  expect(queue.broken).toBe(BROKEN_AVAIL_STEP)
})

const ENABLE = 0
const DISABLE = 1
const DESC = 2
const wrapped = 0x8000

test.each([
  // used position before (wrap counter 1 unless in bit 15 of `from`), used, event, flags, call
  ['ENABLE', 0, 1, 0, ENABLE, true],
  ['ENABLE with an event beyond', 0, 1, 3 | wrapped, ENABLE, true],
  ['DISABLE', 0, 1, 0 | wrapped, DISABLE, false],
  ['reserved flags', 0, 1, 3 | wrapped, 3, true],
  ['the first of one', 0, 1, 0 | wrapped, DESC, true],
  ['the one behind', 0, 1, 1 | wrapped, DESC, false],
  ['the one before', 1, 1, 0 | wrapped, DESC, false],
  ['the last of four', 0, 4, 3 | wrapped, DESC, true],
  ['the same entry of the lap before', 0, 1, 0, DESC, false],
  ['the last of the ring', 3, 3, 4 | wrapped, DESC, true],
  ['the first of the next lap', 3, 3, 0, DESC, true],
  ['the first of this lap, which has passed', 3, 3, 0 | wrapped, DESC, false],
  ['the one behind, in the next lap', 3, 3, 1, DESC, false],
  ['no entry at all', 0, 5, 0x7fff, DESC, false],
])('with event_idx, call for %s', (_, from, count, event, flags, isCalled) => {
  const guest = makeGuest(MEMORY)
  const size = 5
  const queue = attach(guest, EVENTS, size, 0, 0x8000 | from)!
  const chain = new Chain()
  for (let at = 0; at < count; at++) {
    describe(guest, (from + at) % size, at, availFlags(from + at < size ? 1 : 0))
    expect(queue.take(chain)).toBe(true)
    queue.put(chain.id, chain.entries, 0)
  }
  guest.words[ringLayout(EVENTS, size).availOffset >> 2] = event | (flags << 16)
  expect(queue.publish()).toBe(isCalled)
})

test('an event in the middle of a chain that was used is one that passed', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, EVENTS, 5, 0, START)!
  const chain = new Chain()
  describe(guest, 0, 0, AVAIL | NEXT)
  describe(guest, 1, 0, AVAIL)
  queue.take(chain)
  queue.put(chain.id, chain.entries, 0)
  guest.words[ringLayout(EVENTS, 5).availOffset >> 2] = 1 | wrapped | (DESC << 16)
  expect(queue.publish()).toBe(true)
})

test('without event_idx an event is not looked at', () => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, PLAIN, 5, 0, START)!
  const chain = new Chain()
  describe(guest, 0, 0, AVAIL)
  queue.take(chain)
  queue.put(chain.id, chain.entries, 0)
  guest.words[ringLayout(PLAIN, 5).availOffset >> 2] = 3 | wrapped | (DESC << 16)
  expect(queue.publish()).toBe(true)
})

test.each([
  [PLAIN, ENABLE << 16],
  [EVENTS, 3 | wrapped | (DESC << 16)],
])('the device event says what it waits for: %o', (kind, expected) => {
  const guest = makeGuest(MEMORY)
  const queue = attach(guest, kind, 5, 0, 0x8003)!
  const word = ringLayout(kind, 5).usedOffset >> 2
  queue.disableKick()
  expect(guest.words[word]).toBe(DISABLE << 16)
  queue.enableKick()
  expect(guest.words[word]).toBe(expected)
})
