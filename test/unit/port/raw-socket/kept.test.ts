/** Where a ring that nobody remembers is read on: the kernel's part is played. */
import { expect, test } from 'vitest'
import { POLLIN } from '../../../../src/abi/epoll.ts'
import { ringGeometry, ringLength, slotOffsets } from '../../../../src/port/raw-socket/geometry.ts'
import { findFirst } from '../../../../src/port/raw-socket/kept.ts'

const geometry = ringGeometry(768)
const offsets = slotOffsets(geometry)
const slots = offsets.length
const FILLED = 1

/** A ring whose slots from `first` on are filled, and whose kernel fills `head` next. */
function ringOf(first: number, filled: number): { buffer: ArrayBuffer; head: number } {
  const buffer = new ArrayBuffer(ringLength(geometry))
  const words = new Int32Array(buffer)
  for (let k = 0; k < filled; k++) words[offsets[(first + k) % slots] >> 2] = FILLED
  return { buffer, head: (first + filled) % slots }
}

/** poll(2) of it, as packet_poll has it; `arrive`: frames that come before the call of that number. */
function kernelOf({ buffer, head }: { buffer: ArrayBuffer; head: number }, arrive?: number) {
  const words = new Int32Array(buffer)
  let [at, calls] = [head, 0]
  const poll = (): number => {
    if (calls++ === arrive) {
      // A slot that is not its own it does not touch: it drops the frame.
      if (words[offsets[at] >> 2] === 0) {
        words[offsets[at] >> 2] = FILLED
        at = (at + 1) % slots
      }
    }
    return words[offsets[(at + slots - 1) % slots] >> 2] === 0 ? 0 : POLLIN
  }
  return { poll }
}

const find = (first: number, filled: number, arrive?: number): number => {
  const ring = ringOf(first, filled)
  const statuses = (): number[] => [...offsets].map((at) => new Int32Array(ring.buffer)[at >> 2])
  const before = statuses()
  const found = findFirst(kernelOf(ring, arrive), 3, ring, geometry)
  if (arrive === undefined) expect(statuses()).toEqual(before)
  return found
}

test('an empty ring is read where the kernel fills next, and is left as it was', () => {
  for (let head = 0; head < slots; head++) expect(find(head, 0)).toBe(head)
})

test('what is filled is read from its first slot on, also around the end', () => {
  for (let first = 0; first < slots; first++) {
    for (const filled of [1, 2, slots - 1]) expect(find(first, filled)).toBe(first)
  }
})

test('of a full ring it is the oldest frame', () => {
  for (let first = 0; first < slots; first++) expect(find(first, slots)).toBe(first)
})

test('a frame that comes while it is looked is the first one', () => {
  for (let head = 0; head < slots; head++) {
    for (let arrive = 0; arrive < slots; arrive++) expect(find(head, 0, arrive)).toBe(head)
  }
})

test('pieces are no ring of ours', () => {
  const ring = ringOf(2, 3)
  new Int32Array(ring.buffer)[offsets[7] >> 2] = FILLED
  expect(() => findFirst(kernelOf(ring), 3, ring, geometry)).toThrow('several pieces')
})
