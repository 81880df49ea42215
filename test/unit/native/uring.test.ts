/** io_uring through windows: a ring is set up, fed, waited for and asked, as TypeScript does it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  EBADF,
  EFAULT,
  EINTR,
  EINVAL,
  ENOSYS,
  EOPNOTSUPP,
  EPERM,
  ETIME,
} from '../../../src/abi/errno.ts'
import {
  BUF_LENGTH,
  BUF_REG_LENGTH,
  CQE_LENGTH,
  CQE_WORDS,
  IO_URING_OP_SUPPORTED,
  IORING_ENTER_GETEVENTS,
  IORING_OFF_SQES,
  IORING_OFF_SQ_RING,
  IORING_OP_WRITE,
  IORING_REGISTER_PBUF_RING,
  IORING_REGISTER_PROBE,
  IORING_UNREGISTER_PBUF_RING,
  PROBE_OP_FLAGS,
  PROBE_OP_LENGTH,
  PROBE_OPS,
  PROBE_OPS_MAX,
  SQE_ADDR,
  SQE_FD,
  SQE_LEN,
  SQE_OPCODE_FLAGS,
  SQE_USER_DATA,
  SQE_WORDS,
  URING_PARAMS_CQ_ENTRIES,
  URING_PARAMS_CQ_OFF_CQES,
  URING_PARAMS_CQ_OFF_TAIL,
  URING_PARAMS_LENGTH,
  URING_PARAMS_SQ_ENTRIES,
  URING_PARAMS_SQ_OFF_TAIL,
} from '../../../src/abi/io-uring.ts'
import { Uring } from '../../../src/io/uring.ts'
import { shim, WINDOW_READ_ONLY } from '../../../src/native/shim.ts'
import { isCloseOnExec, keepFd, mapWindow, memfd, PAGE, unmapWindow } from './windows.ts'
import type { Mapped } from './windows.ts'

const ENTRIES = 8
const IORING_OP_NOP = 0
const SQE_LENGTH = SQE_WORDS * 4
/** Offset of the index array of the submission queue in struct io_uring_params. */
const URING_PARAMS_SQ_OFF_ARRAY = 64

const trial = shim.uringSetup(1, new Uint8Array(URING_PARAMS_LENGTH))
if (trial >= 0) shim.close(trial)
const isForbidden = trial === -EPERM || trial === -ENOSYS

class Ring {
  readonly fd: number
  readonly ring: Mapped
  readonly entries: Mapped
  readonly params = new Int32Array(URING_PARAMS_LENGTH / 4)
  private submitted = 0

  constructor() {
    this.fd = keepFd(shim.uringSetup(ENTRIES, new Uint8Array(this.params.buffer)))
    // Completions and the index array share one mapping (IORING_FEAT_SINGLE_MMAP).
    const completions = this.field(URING_PARAMS_CQ_OFF_CQES) + this.cqEntries * CQE_LENGTH
    const indices = this.field(URING_PARAMS_SQ_OFF_ARRAY) + ENTRIES * 4
    this.ring = mapWindow(Math.max(completions, indices), this.fd, IORING_OFF_SQ_RING)
    this.entries = mapWindow(ENTRIES * SQE_LENGTH, this.fd, IORING_OFF_SQES)
  }

  field(offset: number): number {
    return this.params[offset / 4]
  }

  get cqEntries(): number {
    return this.field(URING_PARAMS_CQ_ENTRIES)
  }

  get completed(): number {
    return Atomics.load(this.ring.ints, this.field(URING_PARAMS_CQ_OFF_TAIL) / 4)
  }

  /** Fills the next submission entry; `set` are its words by index. */
  prepare(set: Readonly<Record<number, number>>): void {
    const slot = this.submitted % ENTRIES
    this.entries.ints.fill(0, slot * SQE_WORDS, (slot + 1) * SQE_WORDS)
    for (const [word, value] of Object.entries(set)) {
      this.entries.ints[slot * SQE_WORDS + Number(word)] = value
    }
    this.ring.ints[this.field(URING_PARAMS_SQ_OFF_ARRAY) / 4 + slot] = slot
    this.submitted++
    Atomics.store(this.ring.ints, this.field(URING_PARAMS_SQ_OFF_TAIL) / 4, this.submitted)
  }

  /** User data and result of a completion. */
  completion(index: number): readonly [number, number] {
    const at = this.field(URING_PARAMS_CQ_OFF_CQES) / 4 + (index % this.cqEntries) * CQE_WORDS
    return [this.ring.ints[at], this.ring.ints[at + 2]]
  }
}

const reason = isForbidden ? ` (io_uring_setup: ${trial})` : ''

describe.skipIf(isForbidden)(`io_uring${reason}`, () => {
  let ring: Ring
  let onSignal: (() => void) | null = null

  beforeEach(() => {
    ring = new Ring()
  })

  afterEach(() => {
    if (onSignal !== null) process.off('SIGUSR2', onSignal)
    onSignal = null
  })

  test('setup answers a close-on-exec descriptor and fills the parameters', () => {
    expect(isCloseOnExec(ring.fd)).toBe(true)
    expect(ring.field(URING_PARAMS_SQ_ENTRIES)).toBe(ENTRIES)
    expect(ring.cqEntries).toBeGreaterThanOrEqual(ENTRIES)
  })

  test('setup refuses no entries, too many, and parameters that are too short', () => {
    expect(shim.uringSetup(0, new Uint8Array(URING_PARAMS_LENGTH))).toBe(-EINVAL)
    expect(shim.uringSetup(1 << 30, new Uint8Array(URING_PARAMS_LENGTH))).toBe(-EINVAL)
    expect(shim.uringSetup(-1, new Uint8Array(URING_PARAMS_LENGTH))).toBe(-EINVAL)
    expect(shim.uringSetup(1, new Uint8Array(URING_PARAMS_LENGTH - 1))).toBe(-EINVAL)
  })

  test('entries that TypeScript wrote complete in its view of the ring', () => {
    for (let k = 0; k < 3; k++) {
      ring.prepare({ [SQE_OPCODE_FLAGS]: IORING_OP_NOP, [SQE_USER_DATA]: 100 + k })
    }
    expect(shim.uringEnter(ring.fd, 3, 3, IORING_ENTER_GETEVENTS, -1)).toBe(3)
    expect(ring.completed).toBe(3)
    expect([0, 1, 2].map((k) => ring.completion(k))).toEqual([
      [100, 0],
      [101, 0],
      [102, 0],
    ])
  })

  test('an entry can write from the address of a window', () => {
    const file = memfd(0)
    const window = mapWindow(PAGE)
    window.bytes.set(Buffer.from('from a window'))
    const address = shim.windowAddress(window.id)
    ring.prepare({
      [SQE_OPCODE_FLAGS]: IORING_OP_WRITE,
      [SQE_FD]: file,
      [SQE_ADDR]: (address % 2 ** 32) | 0,
      [SQE_ADDR + 1]: Math.floor(address / 2 ** 32),
      [SQE_LEN]: 13,
      [SQE_USER_DATA]: 7,
    })
    expect(shim.uringEnter(ring.fd, 1, 1, IORING_ENTER_GETEVENTS, 5_000_000)).toBe(1)
    expect(ring.completion(0)).toEqual([7, 13])
    const reader = keepFd(shim.open(`/proc/self/fd/${file}`, 0))
    expect(shim.readInto(reader, window.id, 100, 100)).toBe(13)
  })

  test('waits no longer than its time-out', () => {
    const before = performance.now()
    expect(shim.uringEnter(ring.fd, 0, 1, IORING_ENTER_GETEVENTS, 20_000)).toBe(-ETIME)
    const elapsed = performance.now() - before
    expect(elapsed).toBeGreaterThanOrEqual(19)
    expect(elapsed).toBeLessThan(5000)
    expect(shim.uringEnter(ring.fd, 0, 1, IORING_ENTER_GETEVENTS, 0)).toBe(-ETIME)
  })

  test('one that the kernel refuses is an error with its number', () => {
    expect(() => new Uring(0, 0)).toThrow(
      expect.objectContaining({ code: 'IO_URING_UNAVAILABLE', errno: EINVAL }) as Error,
    )
  })

  test('a completion ends the wait before its time-out', () => {
    ring.prepare({ [SQE_OPCODE_FLAGS]: IORING_OP_NOP, [SQE_USER_DATA]: 1 })
    const before = performance.now()
    expect(shim.uringEnter(ring.fd, 1, 1, IORING_ENTER_GETEVENTS, 10_000_000)).toBe(1)
    expect(performance.now() - before).toBeLessThan(5000)
  })

  test('a signal ends the wait with -EINTR and is not retried', async () => {
    const heard = new Promise<void>((resolve) => {
      onSignal = resolve
      process.on('SIGUSR2', resolve)
    })
    const child = spawn('sh', ['-c', 'sleep 0.2; kill -USR2 "$PPID"'], { stdio: 'ignore' })
    const exited = once(child, 'exit')
    expect(shim.uringEnter(ring.fd, 0, 1, IORING_ENTER_GETEVENTS, 15_000_000)).toBe(-EINTR)
    await heard
    await exited
  })

  test('enter answers -errno for a descriptor that is no ring', () => {
    expect(shim.uringEnter(1 << 20, 0, 0, 0, -1)).toBe(-EBADF)
    expect(shim.uringEnter(memfd(PAGE), 0, 0, 0, -1)).toBe(-EOPNOTSUPP)
  })

  test('the probe says which operations there are', () => {
    const window = mapWindow(PAGE)
    const length = PROBE_OPS + PROBE_OPS_MAX * PROBE_OP_LENGTH
    expect(shim.uringRegister(ring.fd, IORING_REGISTER_PROBE, window.id, 8, PROBE_OPS_MAX)).toBe(0)
    const flagsOf = (op: number): number =>
      window.bytes[8 + PROBE_OPS + op * PROBE_OP_LENGTH + PROBE_OP_FLAGS]
    expect(flagsOf(IORING_OP_NOP) & IO_URING_OP_SUPPORTED).toBe(IO_URING_OP_SUPPORTED)
    expect(flagsOf(IORING_OP_WRITE) & IO_URING_OP_SUPPORTED).toBe(IO_URING_OP_SUPPORTED)
    expect(window.bytes.subarray(8 + length).every((byte) => byte === 0)).toBe(true)
  })

  test('a ring of provided buffers in a window is registered and unregistered', () => {
    const buffers = mapWindow(8 * BUF_LENGTH)
    const argument = mapWindow(PAGE)
    const address = shim.windowAddress(buffers.id)
    argument.ints.set([(address % 2 ** 32) | 0, Math.floor(address / 2 ** 32), 8, 3])
    const register = (op: number): number => shim.uringRegister(ring.fd, op, argument.id, 0, 1)
    expect(register(IORING_REGISTER_PBUF_RING)).toBe(0)
    expect(register(IORING_REGISTER_PBUF_RING)).toBeLessThan(0)
    argument.ints.set([0, 0, 0, 3])
    expect(register(IORING_UNREGISTER_PBUF_RING)).toBe(0)
    expect(register(IORING_UNREGISTER_PBUF_RING)).toBeLessThan(0)
  })

  test('an argument outside its window is refused, and so is every other operation', () => {
    const window = mapWindow(PAGE)
    const readOnly = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_READ_ONLY)
    const closed = unmapWindow(mapWindow(PAGE))
    const probe = (id: number, offset: number, count: number): number =>
      shim.uringRegister(ring.fd, IORING_REGISTER_PROBE, id, offset, count)
    expect(probe(window.id, -8, 1)).toBe(-EFAULT)
    expect(probe(window.id, PAGE - PROBE_OPS, 1)).toBe(-EFAULT)
    expect(probe(readOnly.id, 0, 1)).toBe(-EFAULT)
    expect(probe(closed, 0, 1)).toBe(-EFAULT)
    expect(probe(-1, 0, 1)).toBe(-EFAULT)
    expect(probe(window.id, 0, PROBE_OPS_MAX + 1)).toBe(-EOPNOTSUPP)
    expect(probe(window.id, 0, -1)).toBe(-EOPNOTSUPP)
    const end = PAGE - BUF_REG_LENGTH + 8
    for (const op of [IORING_REGISTER_PBUF_RING, IORING_UNREGISTER_PBUF_RING]) {
      expect(shim.uringRegister(ring.fd, op, window.id, end, 1)).toBe(-EFAULT)
    }
    const IORING_REGISTER_BUFFERS = 0
    for (const op of [IORING_REGISTER_BUFFERS, 2, 9, 200, -1]) {
      expect(shim.uringRegister(ring.fd, op, window.id, 0, 1)).toBe(-EOPNOTSUPP)
    }
    expect(window.bytes.every((byte) => byte === 0)).toBe(true)
  })
})
