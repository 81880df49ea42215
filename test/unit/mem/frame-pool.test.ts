/** The shape of the pool that the kernel reads into; src/mem/frame-pool.ts draws it. */
import { afterEach, describe, expect, test } from 'vitest'
import {
  FramePool,
  SLOT_CAPACITY,
  SLOT_HEADROOM,
  SLOT_STRIDE,
} from '../../../src/mem/frame-pool.ts'
import { MEMORY_FRAME_LENGTH_MAX } from '../../../src/port/memory/control.ts'

const VNET_HDR_LENGTH_MAX = 24
const pools: FramePool[] = []

function makePool(slots: number): FramePool {
  const pool = new FramePool(slots)
  pools.push(pool)
  return pool
}

afterEach(() => {
  for (const pool of pools.splice(0)) pool.close()
})

describe('a slot', () => {
  test('takes the longest frame with the longest header, and can tell a longer one', () => {
    // Equal would mean that a read that fills the slot was not cut off.
    expect(SLOT_CAPACITY).toBeGreaterThan(65535 + 14 + 2 * 4 + VNET_HDR_LENGTH_MAX)
    expect(SLOT_CAPACITY).toBeGreaterThan(MEMORY_FRAME_LENGTH_MAX)
  })

  test('has room before the frame for any vnet_hdr, and words start at words', () => {
    expect(SLOT_HEADROOM).toBeGreaterThanOrEqual(VNET_HDR_LENGTH_MAX)
    expect(SLOT_HEADROOM % 4).toBe(0)
    expect(SLOT_STRIDE % 4).toBe(0)
  })

  test('does not begin at the same place of its page as its neighbour', () => {
    expect(SLOT_STRIDE % 4096).not.toBe(0)
  })
})

describe('a pool', () => {
  test('is one window that holds its slots exactly, seen as words of both sizes', () => {
    const pool = makePool(5)
    expect(pool.slots).toBe(5)
    expect(pool.window.buffer.byteLength).toBeGreaterThanOrEqual(5 * SLOT_STRIDE)
    expect(pool.window.buffer.byteLength).toBeLessThan(5 * SLOT_STRIDE + 4096)
    const last = 4 * SLOT_STRIDE + SLOT_HEADROOM
    pool.words[last >> 2] = 0x0403_0201
    expect([pool.halfWords[last >> 1], pool.halfWords[(last >> 1) + 1]]).toEqual([0x0201, 0x0403])
  })

  test('is zero at first: headrooms stand for empty vnet_hdrs', () => {
    const pool = makePool(3)
    for (let slot = 0; slot < 3; slot++) {
      const headroom = new Uint8Array(pool.window.buffer, slot * SLOT_STRIDE, SLOT_HEADROOM)
      expect(headroom.every((byte) => byte === 0)).toBe(true)
    }
  })

  test('of the largest size stays below 2 GiB, so that offsets are int32', () => {
    const pool = makePool(4096)
    expect(pool.window.buffer.byteLength).toBeLessThan(2 ** 31)
    pool.words[(4095 * SLOT_STRIDE + SLOT_HEADROOM) >> 2] = 1
  })

  test('gives its memory back when it is closed', () => {
    const pool = new FramePool(2)
    pool.close()
    expect(pool.window.buffer.byteLength).toBe(0)
    expect(pool.words).toHaveLength(0)
  })
})
