/** How many slots are in rotation: what the traffic needs, and no more than the cache holds. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BufferRing } from '../../../src/io/buffer-ring.ts'
import { uringLack } from '../../../src/io/probe.ts'
import { Uring } from '../../../src/io/uring.ts'
import { FramePool } from '../../../src/mem/frame-pool.ts'

const SLOTS = 128
const lacks = uringLack()
const why = lacks === undefined ? '' : ` (skipped: ${lacks})`

describe.skipIf(lacks !== undefined)(`slots in rotation${why}`, () => {
  let uring: Uring
  let pool: FramePool
  let ring: BufferRing

  beforeEach(() => {
    uring = new Uring(8, 16)
    pool = new FramePool(SLOTS)
    ring = new BufferRing(uring.fd, pool)
  })
  afterEach(() => {
    ring.close()
    pool.close()
    uring.close()
  })

  /** A turn with one frame of that length. */
  const turn = (length: number): void => ring.giveBack(Int32Array.of(0), 1, length)

  test('each shortage of slots for short frames doubles them, up to all there are', () => {
    expect(ring.rotation).toBe(16)
    const seen = []
    for (let n = 0; n < 4; n++) {
      turn(60)
      ring.widen()
      seen.push(ring.rotation)
    }
    expect(seen).toEqual([32, 64, 128, 128])
  })

  test('a shortage for 64 KiB frames changes nothing, for 4 KiB frames they all fit', () => {
    turn(65_550)
    ring.widen()
    expect(ring.rotation).toBe(16)
    turn(4096)
    for (let n = 0; n < 4; n++) ring.widen()
    expect(ring.rotation).toBe(128)
  })

  test('never more than they may be, from the next frames on', () => {
    for (let n = 0; n < 3; n++) ring.widen()
    expect(ring.rotation).toBe(128)
    ring.limit(5)
    ring.widen()
    expect(ring.rotation).toBe(5)
    for (let n = 0; n < 20_000; n++) turn(60)
    expect(ring.rotation).toBe(5)
    ring.limit(0)
    expect(ring.rotation).toBe(1)
    ring.limit(1000)
    const seen = []
    for (let n = 0; n < 8; n++) {
      ring.widen()
      seen.push(ring.rotation)
    }
    expect(seen).toEqual([2, 4, 8, 16, 32, 64, 128, 128])
  })

  test('long frames halve them turn by turn, to what the cache holds', () => {
    for (let n = 0; n < 3; n++) ring.widen()
    const seen = []
    for (let n = 0; n < 4; n++) {
      turn(65_000)
      seen.push(ring.rotation)
    }
    expect(seen).toEqual([64, 32, 16, 16])
  })

  test('a long time without a shortage halves them', () => {
    for (let n = 0; n < 3; n++) ring.widen()
    for (let n = 0; n < 16_384; n++) turn(60)
    expect(ring.rotation).toBe(64)
    for (let n = 0; n < 16_384; n++) turn(60)
    expect(ring.rotation).toBe(32)
  })
})
