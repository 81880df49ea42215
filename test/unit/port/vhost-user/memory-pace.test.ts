/** How fast the guests of a port may change their memory. */
import { expect, test } from 'vitest'
import { MemoryPace } from '../../../../src/port/vhost-user/memory-pace.ts'

const BURST = 8192
const PER_S = 1024

test('a burst goes at once, what is beyond it waits as long as it takes', () => {
  let nowMs = 5
  const pace = new MemoryPace(() => nowMs)
  pace.charge(BURST)
  expect(pace.waitMs()).toBe(0)
  pace.charge(PER_S / 2)
  expect(pace.waitMs()).toBe(500)
  nowMs += 400
  expect(pace.waitMs()).toBe(100)
  nowMs += 100
  expect(pace.waitMs()).toBe(0)
  pace.charge(PER_S)
  expect(pace.waitMs()).toBe(1000)
})

test('nothing is saved beyond a burst', () => {
  let nowMs = 0
  const pace = new MemoryPace(() => nowMs)
  nowMs = 1e9
  pace.charge(BURST + PER_S)
  expect(pace.waitMs()).toBe(1000)
})

test('guests of QEMU start as before: a table for each of 128 pairs at each of ten changes', () => {
  const pace = new MemoryPace(() => 0)
  for (let table = 0; table < 1280; table++) pace.charge(1 + 4)
  expect(pace.waitMs()).toBe(0)
})
