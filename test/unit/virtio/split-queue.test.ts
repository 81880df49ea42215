/** What is special about split virtqueues: indices, tables of descriptors, event_idx. */
import { expect, test } from 'vitest'
import {
  BROKEN_AVAIL_STEP,
  BROKEN_INDEX,
  BROKEN_INDIRECT,
  BROKEN_LOOP,
  Chain,
} from '../../../src/virtio/ring/chain.ts'
import type { DeviceQueue } from '../../../src/virtio/ring/device-queue.ts'
import type { Guest } from '../../support/guest.ts'
import { attach, GUEST_ADDRESS, makeGuest, ringLayout } from '../../support/guest.ts'

const SIZE = 8
const MEMORY = 65536
const BUFFER = 32768
const PLAIN = { isPacked: false, hasEventIdx: false, tableEntries: 0 }
const EVENTS = { ...PLAIN, hasEventIdx: true }
const TABLES = { ...PLAIN, tableEntries: 4 }
const NEXT = 1
const WRITE = 2
const INDIRECT = 4

/** A ring that this file writes by hand. */
class Ring {
  readonly guest: Guest = makeGuest(MEMORY)
  readonly layout = ringLayout(PLAIN, SIZE)

  /** Descriptor `index` of the table at `offset`. */
  describe(index: number, flags: number, next = 0, length = 64, offset = 0, at = BUFFER): void {
    const word = (offset >> 2) + index * 4
    this.guest.words.set([(GUEST_ADDRESS + at) | 0, 1, length, flags | (next << 16)], word)
  }

  /** Makes the chain at `head` available as the one with avail index `index` - 1. */
  offer(index: number, head: number): void {
    const avail = this.layout.availOffset >> 1
    this.guest.halfWords[avail + 2 + ((index - 1) & (SIZE - 1))] = head
    this.guest.halfWords[avail + 1] = index
  }

  get usedIndex(): number {
    return this.guest.halfWords[(this.layout.usedOffset >> 1) + 1]
  }

  set availFlags(flags: number) {
    this.guest.halfWords[this.layout.availOffset >> 1] = flags
  }

  get usedFlags(): number {
    return this.guest.halfWords[this.layout.usedOffset >> 1]
  }

  set usedEvent(index: number) {
    this.guest.halfWords[(this.layout.availOffset >> 1) + 2 + SIZE] = index
  }

  get availEvent(): number {
    return this.guest.halfWords[(this.layout.usedOffset >> 1) + 2 + SIZE * 4]
  }
}

function takeBroken(queue: DeviceQueue): number {
  expect(queue.take(new Chain())).toBe(false)
  return queue.broken
}

test('a used element is head and length, at the place of its index', () => {
  const ring = new Ring()
  const queue = attach(ring.guest, PLAIN, SIZE, 0, 0xffff)!
  ring.describe(5, WRITE)
  ring.offer(0, 5)
  const chain = new Chain()
  expect(queue.take(chain)).toBe(true)
  queue.put(chain.id, chain.entries, 0x12345)
  expect(ring.usedIndex).toBe(0)
  queue.publish()
  // Index 0xffff is the last of eight; the next is 0.
  const element = (ring.layout.usedOffset >> 2) + 1 + 2 * 7
  expect([...ring.guest.words.subarray(element, element + 2)]).toEqual([5, 0x12345])
  expect(ring.usedIndex).toBe(0)
  expect(queue.base()).toBe(0)
})

test.each([SIZE + 1, 0x8000, 0xffff])('an avail idx that jumps by %i breaks the queue', (step) => {
  const ring = new Ring()
  ring.describe(0, 0)
  ring.offer(step, 0)
  expect(takeBroken(attach(ring.guest, PLAIN, SIZE, 0, 0)!)).toBe(BROKEN_AVAIL_STEP)
})

test.each([SIZE, 0xffff])('a head of %i breaks the queue', (head) => {
  const ring = new Ring()
  ring.offer(1, head)
  expect(takeBroken(attach(ring.guest, PLAIN, SIZE, 0, 0)!)).toBe(BROKEN_INDEX)
})

test.each([SIZE, 0xffff])('a next of %i breaks the queue', (next) => {
  const ring = new Ring()
  ring.describe(0, NEXT, next)
  ring.offer(1, 0)
  expect(takeBroken(attach(ring.guest, PLAIN, SIZE, 0, 0)!)).toBe(BROKEN_INDEX)
})

test('a chain that comes back to itself breaks the queue', () => {
  const ring = new Ring()
  ring.describe(0, NEXT, 3)
  ring.describe(3, NEXT, 0)
  ring.offer(1, 0)
  expect(takeBroken(attach(ring.guest, PLAIN, SIZE, 0, 0)!)).toBe(BROKEN_LOOP)
})

test('a table that was not negotiated breaks the queue', () => {
  const ring = new Ring()
  ring.describe(0, INDIRECT)
  ring.offer(1, 0)
  expect(takeBroken(attach(ring.guest, PLAIN, SIZE, 0, 0)!)).toBe(BROKEN_INDIRECT)
})

test.each([
  ['comes back to itself', NEXT, 0, BROKEN_LOOP],
  ['leaves it', NEXT, 2, BROKEN_INDEX],
  ['is another table', INDIRECT, 0, BROKEN_INDIRECT],
])('a table with a descriptor that %s breaks the queue', (_, flags, next, reason) => {
  const ring = new Ring()
  ring.describe(0, INDIRECT, 0, 32)
  ring.describe(0, flags, next, 64, BUFFER)
  ring.offer(1, 0)
  expect(takeBroken(attach(ring.guest, TABLES, SIZE, 0, 0)!)).toBe(reason)
})

test('a table is walked by its next fields, whatever its order', () => {
  const ring = new Ring()
  ring.describe(6, INDIRECT | WRITE, 0, 48)
  ring.describe(0, NEXT, 2, 1, BUFFER)
  ring.describe(2, NEXT, 1, 2, BUFFER)
  ring.describe(1, 0, 7, 3, BUFFER)
  ring.offer(1, 6)
  const chain = new Chain()
  expect(attach(ring.guest, TABLES, SIZE, 0, 0)!.take(chain)).toBe(true)
  expect(chain.id).toBe(6)
  expect([...chain.length.subarray(0, chain.count)]).toEqual([1, 2, 3])
  expect(chain.readable).toBe(3)
})

/** Takes and puts `count` chains of one buffer, which are there. */
function use(queue: DeviceQueue, count: number): boolean {
  const chain = new Chain()
  for (let at = 0; at < count; at++) {
    expect(queue.take(chain)).toBe(true)
    queue.put(chain.id, chain.entries, 0)
  }
  return queue.publish()
}

test.each([
  // used index before, chains used, used_event, call
  [0, 1, 0, true],
  [0, 1, 1, false],
  [0, 1, 0xffff, false],
  [0, 4, 3, true],
  [0, 4, 4, false],
  [0xfffe, 4, 0xfffd, false],
  [0xfffe, 4, 0xfffe, true],
  [0xfffe, 4, 0, true],
  [0xfffe, 4, 1, true],
  [0xfffe, 4, 2, false],
])('from used index %i on %i used, used_event %i: call is %s', (base, count, event, isCalled) => {
  const ring = new Ring()
  const queue = attach(ring.guest, EVENTS, SIZE, 0, base)!
  ring.describe(0, 0)
  ring.usedEvent = event
  // Flags mean nothing with event_idx.
  ring.availFlags = 1
  for (let at = 1; at <= count; at++) ring.offer((base + at) & 0xffff, 0)
  expect(use(queue, count)).toBe(isCalled)
})

test.each([
  [0, true],
  [1, false],
])('without event_idx, avail flags %i: call is %s', (flags, isCalled) => {
  const ring = new Ring()
  const queue = attach(ring.guest, PLAIN, SIZE, 0, 0)!
  ring.describe(0, 0)
  ring.availFlags = flags
  ring.offer(1, 0)
  expect(use(queue, 1)).toBe(isCalled)
})

test('without event_idx, NO_NOTIFY is set while the queue is polled', () => {
  const ring = new Ring()
  const queue = attach(ring.guest, PLAIN, SIZE, 0, 0)!
  queue.disableKick()
  expect(ring.usedFlags).toBe(1)
  queue.enableKick()
  expect(ring.usedFlags).toBe(0)
})

test('with event_idx, avail_event is the next index', () => {
  const ring = new Ring()
  const queue = attach(ring.guest, EVENTS, SIZE, 0, 0xfff0)!
  queue.enableKick()
  expect(ring.availEvent).toBe(0xfff0)
  expect(ring.usedFlags).toBe(0)
})
