/** Frames through descriptors: bursts of reads and gathered writes on socket pairs and pipes. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { EAGAIN, EBADF, ECANCELED, EFAULT, EOPNOTSUPP, EPIPE } from '../../../src/abi/errno.ts'
import { Aio } from '../../../src/io/aio.ts'
import {
  READ_ROW_INTS,
  SEGMENT_INTS,
  shim,
  WINDOW_READ_ONLY,
  WRITE_ROW_INTS,
} from '../../../src/native/shim.ts'
import {
  GUARD,
  keepFd,
  mapWindow,
  memfd,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  PAGE,
  pair,
  runChild,
  shimPath,
  SOCK_DGRAM,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  unmapWindow,
} from './windows.ts'
import type { Mapped } from './windows.ts'

const CLOSED_FD = 1 << 20

/** Puts one frame of `length` bytes of `value` into the socket. */
function send(fd: number, length: number, value: number): void {
  const data = new Uint8Array(length).fill(value)
  expect(shim.sendMsg(fd, data, 0, length, null, 0, 0)).toBe(length)
}

/** The next frame of the socket. */
function receive(fd: number): Buffer {
  const data = new Uint8Array(PAGE)
  const length = shim.recvMsg(fd, data, new Int32Array(0), new Int32Array(2), 0)
  expect(length).toBeGreaterThanOrEqual(0)
  return Buffer.from(data.subarray(0, length))
}

function slots(): Mapped {
  const window = mapWindow(PAGE)
  window.bytes.fill(GUARD)
  return window
}

const aio = Aio.open()!
afterAll(() => aio.close())

interface Way {
  readonly read: (...rest: Parameters<typeof shim.readFrames>) => number
  readonly write: (...rest: Parameters<typeof shim.writeFrames>) => number
}

/** Of sockets. */
const bySendmmsg: [string, Pick<Way, 'write'>] = [
  'by sendmmsg',
  { write: (...rest) => shim.sendFrames(...rest) },
]

/** Both keep the same promises. */
const ways: [string, Way][] = [
  [
    'a call each',
    {
      read: (...rest) => shim.readFrames(...rest),
      write: (...rest) => shim.writeFrames(...rest),
    },
  ],
  [
    'by AIO',
    {
      read: (...rest) => shim.aioReadFrames(aio.low, aio.high, ...rest),
      write: (...rest) => shim.aioWriteFrames(aio.low, aio.high, ...rest),
    },
  ],
]

describe.each(ways)('reading frames, %s', (_, { read }) => {
  test('reads one frame per row until the socket is empty', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const table = mapWindow(PAGE)
    for (let k = 0; k < 4; k++) {
      table.ints.set([window.id, k * 100 + 1, 99, -7], 2 + k * READ_ROW_INTS)
    }
    send(far, 60, 1)
    send(far, 99, 2)
    send(far, 1, 3)
    expect(read(near, table.id, 8, 4)).toBe(3)
    expect([5, 9, 13, 17].map((k) => table.ints[k])).toEqual([60, 99, 1, -7])
    expect(window.bytes[0]).toBe(GUARD)
    expect(window.bytes.subarray(1, 61).every((byte) => byte === 1)).toBe(true)
    expect(window.bytes[61]).toBe(GUARD)
    expect(window.bytes.subarray(101, 200).every((byte) => byte === 2)).toBe(true)
    expect([...window.bytes.subarray(200, 203)]).toEqual([GUARD, 3, GUARD])
    expect(window.bytes.subarray(203).every((byte) => byte === GUARD)).toBe(true)
  })

  test('reads no more frames than there are rows and leaves the rest in the kernel', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const table = mapWindow(PAGE)
    table.ints.set([window.id, 0, 10, -7, window.id, 10, 10, -7])
    for (const value of [1, 2, 3]) send(far, 10, value)
    expect(read(near, table.id, 0, 2)).toBe(2)
    expect(receive(near)[0]).toBe(3)
  })

  test('cuts a frame at the capacity of its row', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const table = mapWindow(PAGE)
    table.ints.set([window.id, 0, 8, -7])
    send(far, 20, 1)
    expect(read(near, table.id, 0, 1)).toBe(1)
    expect(table.ints[3]).toBe(8)
    expect([...window.bytes.subarray(7, 10)]).toEqual([1, GUARD, GUARD])
  })

  test('answers -errno when the first read fails', () => {
    const [near] = pair(SOCK_DGRAM)
    const window = slots()
    const table = mapWindow(PAGE)
    table.ints.set([window.id, 0, 100, -7])
    expect(read(near, table.id, 0, 1)).toBe(-EAGAIN)
    expect(read(CLOSED_FD, table.id, 0, 1)).toBe(-EBADF)
    expect(read(-1, table.id, 0, 1)).toBe(-EBADF)
    expect(read(near, table.id, 0, 0)).toBe(0)
    expect(table.ints[3]).toBe(-7)
  })

  test('stops before a wrong row without reading a frame for it', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const readOnly = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_READ_ONLY)
    const table = mapWindow(PAGE)
    const closed = unmapWindow(mapWindow(PAGE))
    for (const row of [
      [window.id, -1, 10],
      [window.id, PAGE - 9, 10],
      [window.id, 0, -1],
      [window.id, 0x7fff_ffff, 0x7fff_ffff],
      [closed, 0, 10],
      [32768, 0, 10],
      [readOnly.id, 0, 10],
    ]) {
      window.bytes.fill(GUARD)
      for (const value of [1, 2]) send(far, 10, value)
      table.ints.set([...row, -7])
      expect([row.join(' '), read(near, table.id, 0, 1)]).toEqual([row.join(' '), -EFAULT])
      table.ints.set([window.id, 0, 10, -7, ...row, -7])
      expect([row.join(' '), read(near, table.id, 0, 2)]).toEqual([row.join(' '), 1])
      expect(table.ints[7]).toBe(-7)
      expect(window.bytes.subarray(10).every((byte) => byte === GUARD)).toBe(true)
      expect(receive(near)[0]).toBe(2)
    }
  })

  test('refuses a table outside its window', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const table = mapWindow(PAGE)
    send(far, 10, 1)
    for (const [offset, count] of [
      [-4, 1],
      [1, 1],
      [PAGE - 12, 1],
      [0, 257],
      [0, -1],
      [0, 0x7fff_ffff],
    ] as const) {
      expect(read(near, table.id, offset, count)).toBe(-EFAULT)
    }
    expect(read(near, -1, 0, 1)).toBe(-EFAULT)
    expect(receive(near)[0]).toBe(1)
  })
})

describe.each([...ways, bySendmmsg])('writing frames, %s', (_, { write }) => {
  const SEGMENTS = 1024

  test('writes one frame per row from one or more segments', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const [otherNear, otherFar] = pair(SOCK_DGRAM)
    const source = mapWindow(PAGE)
    source.bytes.set(Buffer.from('headtail-frame'))
    const table = mapWindow(PAGE)
    table.ints.set([source.id, 9, 5, source.id, 0, 4, source.id, 4, 4], SEGMENTS / 4)
    table.ints.set([near, 0, 1, -7, otherNear, 1, 2, -7, near, 2, 1, -7], 1)
    expect(write(table.id, 4, 3, SEGMENTS)).toBe(3)
    expect([4, 8, 12].map((k) => table.ints[k])).toEqual([5, 8, 4])
    expect(receive(far).toString()).toBe('frame')
    expect(receive(far).toString()).toBe('tail')
    expect(receive(otherFar).toString()).toBe('headtail')
  })

  test('gathers 72 segments into one frame and refuses 73 and 0', () => {
    const [near, far] = pair(SOCK_SEQPACKET)
    const source = mapWindow(PAGE)
    for (let k = 0; k < 73; k++) source.bytes[k] = k
    const table = mapWindow(PAGE)
    for (let k = 0; k < 73; k++) {
      table.ints.set([source.id, 72 - k, 1], SEGMENTS / 4 + k * SEGMENT_INTS)
    }
    table.ints.set([near, 1, 72, -7, near, 0, 73, -7, near, 0, 0, -7, near, 0, -1, -7])
    expect(write(table.id, 0, 4, SEGMENTS)).toBe(1)
    expect([3, 7, 11, 15].map((k) => table.ints[k])).toEqual([72, -EFAULT, -EFAULT, -EFAULT])
    expect([...receive(far)]).toEqual(Array.from({ length: 72 }, (_, k) => 71 - k))
    expect(shim.poll(far, 1, 0)).toBe(0)
  })

  test('a row that fails tells why and does not stop the others', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const [gone, reader] = pair(SOCK_STREAM)
    shim.shutdown(reader, 0)
    const source = mapWindow(PAGE)
    const table = mapWindow(PAGE)
    table.ints.set([source.id, 0, 10], SEGMENTS / 4)
    table.ints.set([CLOSED_FD, 0, 1, -7, near, 0, 1, -7, gone, 0, 1, -7, near, 0, 1, -7])
    expect(write(table.id, 0, 4, SEGMENTS)).toBe(2)
    expect([3, 7, 11, 15].map((k) => table.ints[k])).toEqual([-EBADF, 10, -EPIPE, 10])
    expect(receive(far).length).toBe(10)
    expect(receive(far).length).toBe(10)
  })

  test('more frames than fit one call arrive in their order, those to another socket between them too', () => {
    const [near, far] = pair(SOCK_SEQPACKET)
    const [otherNear, otherFar] = pair(SOCK_SEQPACKET)
    const source = mapWindow(PAGE)
    for (let k = 0; k < 150; k++) source.bytes[k] = k
    const table = mapWindow(8 * PAGE)
    for (let k = 0; k < 150; k++) {
      table.ints.set([source.id, k, 1], PAGE + k * SEGMENT_INTS)
      table.ints.set([k % 75 === 70 ? otherNear : near, k, 1, -7], k * WRITE_ROW_INTS)
    }
    expect(write(table.id, 0, 150, 4 * PAGE)).toBe(150)
    const others = [70, 145]
    for (let k = 0; k < 150; k++) {
      if (!others.includes(k)) expect([...receive(far)]).toEqual([k])
    }
    expect(others.map(() => receive(otherFar)[0])).toEqual(others)
  })

  test('a full socket answers -EAGAIN and a frame that was cut is not written whole', () => {
    const [near] = pair(SOCK_STREAM)
    const length = 16 * 1024 * 1024
    const source = mapWindow(length)
    const table = mapWindow(PAGE)
    table.ints.set([source.id, 0, length], SEGMENTS / 4)
    table.ints.set([near, 0, 1, -7, near, 0, 1, -7])
    expect(write(table.id, 0, 2, SEGMENTS)).toBe(0)
    expect(table.ints[3]).toBeGreaterThan(0)
    expect(table.ints[3]).toBeLessThan(length)
    expect(table.ints[7]).toBe(-EAGAIN)
  })

  test('a frame with a wrong segment is not written at all', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const source = mapWindow(PAGE)
    const table = mapWindow(PAGE)
    const closed = unmapWindow(mapWindow(PAGE))
    for (const segment of [
      [source.id, -1, 10],
      [source.id, PAGE - 9, 10],
      [source.id, 0, -1],
      [source.id, 0x7fff_ffff, 0x7fff_ffff],
      [closed, 0, 10],
      [-1, 0, 10],
    ]) {
      table.ints.set([source.id, 0, 4, ...segment], SEGMENTS / 4)
      table.ints.set([near, 0, 2, -7, near, 1, 1, -7])
      expect([segment.join(' '), write(table.id, 0, 2, SEGMENTS)]).toEqual([segment.join(' '), 0])
      expect([table.ints[3], table.ints[7]]).toEqual([-EFAULT, -EFAULT])
    }
    expect(shim.poll(far, 1, 0)).toBe(0)
  })

  test('segments outside the table window fail their row, and a wrong table the call', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const source = mapWindow(PAGE)
    const table = mapWindow(PAGE)
    for (const [first, count] of [
      [-1, 1],
      [256, 1],
      [255, 2],
      [0x7fff_ffff, 1],
      [0x0800_0000, 1],
      // 12 * 357913942 is 8 more than 2^32.
      [357_913_942, 1],
      [-0x8000_0000, 1],
    ]) {
      table.ints.fill(source.id)
      table.ints.set([near, first, count, -7])
      expect([`${first} ${count}`, write(table.id, 0, 1, SEGMENTS)]).toEqual([
        `${first} ${count}`,
        0,
      ])
      expect(table.ints[3]).toBe(-EFAULT)
    }
    for (const [offset, count, segments] of [
      [-4, 1, 0],
      [2, 1, 0],
      [PAGE - 12, 1, 0],
      [0, -1, 0],
      [0, 257, 0],
      [0, 1, -4],
    ] as const) {
      expect(write(table.id, offset, count, segments)).toBe(-EFAULT)
    }
    table.ints.set([near, 0, 1, -7])
    for (const segments of [2, PAGE, 0x7fff_fffc]) {
      expect(write(table.id, 0, 1, segments)).toBe(0)
      expect(table.ints[3]).toBe(-EFAULT)
    }
    expect(WRITE_ROW_INTS).toBe(4)
    expect(shim.poll(far, 1, 0)).toBe(0)
  })
})

describe('readInto and writeFrom', () => {
  test('move bytes between a descriptor and a window', () => {
    const [near, far] = pair(SOCK_STREAM)
    const window = slots()
    window.bytes.set(Buffer.from('some bytes'), 100)
    expect(shim.writeFrom(near, window.id, 100, 10, 0)).toBe(10)
    expect(shim.writeFrom(near, window.id, 100, 4, 1)).toBe(4)
    expect(shim.readInto(far, window.id, 200, 50)).toBe(14)
    expect(Buffer.from(window.bytes.subarray(200, 214)).toString()).toBe('some bytessome')
    expect(window.bytes[214]).toBe(GUARD)
    expect(shim.readInto(far, window.id, 200, 50)).toBe(-EAGAIN)
    expect(shim.readInto(CLOSED_FD, window.id, 0, 1)).toBe(-EBADF)
    expect(shim.writeFrom(CLOSED_FD, window.id, 0, 1, 0)).toBe(-EBADF)
    expect(shim.writeFrom(CLOSED_FD, window.id, 0, 1, 1)).toBe(-EBADF)
  })

  test('read 0 at the end of a file and write on at the current position', () => {
    const fd = memfd(0)
    const window = slots()
    window.bytes.set(Buffer.from('abcdef'))
    expect(shim.writeFrom(fd, window.id, 0, 3, 0)).toBe(3)
    expect(shim.writeFrom(fd, window.id, 3, 3, 1)).toBe(3)
    expect(shim.readInto(fd, window.id, 10, 10)).toBe(0)
    const reader = keepFd(shim.open(`/proc/self/fd/${fd}`, O_RDWR | O_CLOEXEC))
    expect(shim.readInto(reader, window.id, 10, 10)).toBe(6)
    expect(Buffer.from(window.bytes.subarray(10, 16)).toString()).toBe('abcdef')
  })

  test('answer -EFAULT for bytes that are not all in a window that allows it', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const readOnly = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_READ_ONLY)
    const closed = unmapWindow(mapWindow(PAGE))
    send(far, 10, 1)
    for (const [id, offset, length] of [
      [window.id, -1, 10],
      [window.id, PAGE - 9, 10],
      [window.id, 0, -1],
      [window.id, 0x7fff_ffff, 0x7fff_ffff],
      [closed, 0, 1],
      [-1, 0, 1],
    ] as const) {
      expect(shim.readInto(near, id, offset, length)).toBe(-EFAULT)
      expect(shim.writeFrom(near, id, offset, length, 0)).toBe(-EFAULT)
    }
    expect(shim.readInto(near, readOnly.id, 0, 10)).toBe(-EFAULT)
    expect(shim.writeFrom(near, readOnly.id, 0, 10, 0)).toBe(10)
    expect(window.bytes.every((byte) => byte === GUARD)).toBe(true)
    expect(receive(near).length).toBe(10)
  })

  test('with nowait a full socket answers -EAGAIN although it is blocking', () => {
    const { status, stderr } = runChild(`
      const fds = new Int32Array(2)
      shim.socketPair(1, fds)
      const window = shim.windowMap(-1, 65536, 0, 0)
      let result = 0
      while ((result = shim.writeFrom(fds[0], window, 0, 65536, 1)) > 0);
      assert.equal(result, -${EAGAIN})
      assert.equal(shim.getStatusFlags(fds[0]) & 0o4000, 0)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('with nowait a full pipe answers -EAGAIN although it is blocking', () => {
    const directory = mkdtempSync('/tmp/framepump-shim-')
    try {
      // The reader of the pipe never reads from it: it waits for the writer's word in a FIFO.
      const script = `const shim = require(process.env.SHIM)
        const window = shim.windowMap(-1, 65536, 0, 0)
        let result = 0
        while ((result = shim.writeFrom(1, window, 0, 65536, 1)) > 0);
        require('node:fs').writeFileSync('done', String(result))`
      const { stdout } = spawnSync(
        'sh',
        ['-c', 'mkfifo done && "$NODE" -e "$SCRIPT" | timeout 15 cat done'],
        {
          cwd: directory,
          encoding: 'utf8',
          timeout: 20_000,
          env: { ...process.env, NODE: process.execPath, SCRIPT: script, SHIM: shimPath },
        },
      )
      expect(stdout).toBe(String(-EAGAIN))
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('with nowait a FIFO opened by its path is filled, answers -EAGAIN, and never blocks', () => {
    const directory = mkdtempSync('/tmp/framepump-shim-')
    try {
      const path = join(directory, 'fifo')
      expect(spawnSync('mkfifo', [path]).status).toBe(0)
      // In a process of its own: a write that blocks is ended by the time-out.
      const { status, stderr } = runChild(
        `const keep = shim.open(process.env.FIFO, 2)
        const fd = shim.open(process.env.FIFO, 1)
        const window = shim.windowMap(-1, 65536, 0, 0)
        let result = 0, total = 0
        while ((result = shim.writeFrom(fd, window, 0, 65536, 1)) > 0) total += result
        assert.equal(result, -${EAGAIN})
        assert.equal(total, 65536)
        shim.readInto(keep, window, 0, 4096)
        assert.equal(shim.writeFrom(fd, window, 0, 100, 1), 100)`,
        { FIFO: path },
      )
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe('by AIO', () => {
  test('more rows and segments than one batch takes are written in order', () => {
    const [ROWS, KINDS, LIMIT] = [600, 12, 256]
    const path = join(mkdtempSync('/tmp/framepump-fifo-'), 'fifo')
    spawnSync('mkfifo', [path])
    const fifo = keepFd(shim.open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK))
    rmSync(dirname(path), { recursive: true })
    const source = mapWindow(PAGE)
    const table = mapWindow(16 * PAGE)
    const segments = 4 * PAGE
    const expected: number[] = []
    let at = 0
    for (let k = 0; k < ROWS; k++) {
      source.bytes[k] = k % 251
      const count = k % 100 === 7 ? 0 : 1 + (k % KINDS)
      table.ints.set([fifo, at, count, -7], k * WRITE_ROW_INTS)
      for (let part = 0; part < count; part++, at++) {
        table.ints.set([source.id, k, 1], segments / 4 + at * SEGMENT_INTS)
      }
      expected.push(...Array.from({ length: count }, () => k % 251))
    }
    const bad = Array.from({ length: ROWS }, (_, k) => k).filter((k) => k % 100 === 7)
    expect(shim.aioWriteFrames(aio.low, aio.high, table.id, 0, ROWS, segments)).toBe(594)
    const results = Array.from({ length: ROWS }, (_, k) => table.ints[k * WRITE_ROW_INTS + 3])
    expect(results).toEqual(results.map((_, k) => (bad.includes(k) ? -EFAULT : 1 + (k % KINDS))))
    // As many reads as one batch takes, and not one more.
    const window = mapWindow(PAGE)
    for (let k = 0; k < 300; k++) table.ints.set([window.id, k, 1, -7], k * READ_ROW_INTS)
    const received: number[] = []
    for (;;) {
      const got = shim.aioReadFrames(aio.low, aio.high, fifo, table.id, 0, 300)
      if (got < 0) break
      expect(got).toBe(Math.min(LIMIT, expected.length - received.length))
      received.push(...window.bytes.subarray(0, got))
    }
    expect(received).toEqual(expected)
  })

  test('a context that is none does nothing, and says so', () => {
    const [near, far] = pair(SOCK_DGRAM)
    const window = slots()
    const table = mapWindow(PAGE)
    table.ints.set([window.id, 0, 10, -7, window.id, 10, 10, -7])
    send(far, 10, 1)
    expect(shim.aioReadFrames(0, 0, near, table.id, 0, 2)).toBe(-EOPNOTSUPP)
    table.ints.set([window.id, 0, 10], 256)
    table.ints.set([near, 0, 1, -7, near, 0, 1, -7])
    expect(shim.aioWriteFrames(0, 0, table.id, 0, 2, 1024)).toBe(-EOPNOTSUPP)
    expect([table.ints[3], table.ints[7]]).toEqual([-ECANCELED, -ECANCELED])
    expect(receive(near).length).toBe(10)
  })
})
