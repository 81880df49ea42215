/** A ring does what the engine needs and nothing else. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { EACCES } from '../../../src/abi/errno.ts'
import {
  CQE_WORDS,
  IORING_OP_WRITE,
  IORING_REGISTER_ENABLE_RINGS,
  IORING_REGISTER_PBUF_RING,
  IORING_REGISTER_PROBE,
  IORING_REGISTER_RESTRICTIONS,
  PROBE_OPS,
  PROBE_OPS_MAX,
  PROBE_OP_LENGTH,
  RESTRICTION_LENGTH,
} from '../../../src/abi/io-uring.ts'
import { limitRing, OPERATIONS } from '../../../src/io/uring-limits.ts'
import { Uring } from '../../../src/io/uring.ts'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'

const OPERATIONS_OF_LINUX = 64

let ring: Uring

beforeEach(() => {
  ring = new Uring(64, 128)
})

afterEach(() => {
  ring.close()
})

/** Submits one entry on a descriptor that does not exist; returns how it completed. */
function complete(opcodeAndFlags: number): number {
  ring.push(opcodeAndFlags, -1, 0, 0, 0, 0, 1, 0, 0)
  ring.submit()
  if (ring.tail() === ring.head) ring.enter(1, 1_000_000)
  const result = ring.cq[ring.cqesAt + (ring.head & ring.cqMask) * CQE_WORDS + 2]
  ring.head++
  ring.publishHead()
  return result
}

test('every operation that the engine does not use is refused', () => {
  const used = OPERATIONS.map(([, operation]) => operation)
  for (let operation = 0; operation < OPERATIONS_OF_LINUX; operation++) {
    const result = complete(operation)
    if (used.includes(operation)) expect([operation, result]).not.toEqual([operation, -EACCES])
    // Beyond its last one a kernel says EINVAL.
    else expect([operation, [-EACCES, -22].includes(result)]).toEqual([operation, true])
  }
  // NOP, OPENAT, SOCKET, CONNECT, SENDMSG, URING_CMD
  for (const operation of [0, 18, 45, 16, 9, 46]) expect(complete(operation)).toBe(-EACCES)
})

test('flags that it does not use are refused: fixed files, drain, links, workers of the kernel', () => {
  for (const flag of [1, 2, 4, 8, 16]) {
    expect([flag, complete(IORING_OP_WRITE | (flag << 8))]).toEqual([flag, -EACCES])
  }
})

test('it is limited for good', () => {
  const window = Window.map(4096)
  try {
    const register = (op: number, count: number): number =>
      shim.uringRegister(ring.fd, op, count === 0 ? -1 : window.id, 0, count)
    expect(register(IORING_REGISTER_RESTRICTIONS, 1)).toBe(-EACCES)
    expect(register(IORING_REGISTER_ENABLE_RINGS, 0)).toBe(-EACCES)
    expect(limitRing(ring.fd)).toBe(-EACCES)
    expect(register(IORING_REGISTER_PROBE, PROBE_OPS_MAX)).toBe(0)
    expect(register(IORING_REGISTER_PBUF_RING, 1)).not.toBe(-EACCES)
  } finally {
    window.unmap()
  }
})

test('the table of restrictions is checked against its window', () => {
  const window = Window.map(4096)
  try {
    const register = (offset: number, count: number): number =>
      shim.uringRegister(ring.fd, IORING_REGISTER_RESTRICTIONS, window.id, offset, count)
    expect(register(4096 - RESTRICTION_LENGTH, 2)).toBe(-14)
    expect(register(0, 257)).toBe(-95)
    expect(PROBE_OPS + PROBE_OPS_MAX * PROBE_OP_LENGTH).toBeLessThanOrEqual(4096)
  } finally {
    window.unmap()
  }
})
