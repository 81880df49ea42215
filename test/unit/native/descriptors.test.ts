/** Descriptors and time: open, memfd, eventfd, epoll, poll and the clocks. */
import { existsSync, mkdtempSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, POLLIN } from '../../../src/abi/epoll.ts'
import { POLLHUP, POLLOUT } from '../../../src/abi/epoll.ts'
import { EAGAIN, EBADF, EEXIST, EFAULT, EINVAL, ENOENT } from '../../../src/abi/errno.ts'
import { shim, WINDOW_READ_ONLY } from '../../../src/native/shim.ts'
import {
  GUARD,
  isCloseOnExec,
  keepFd,
  mapWindow,
  memfd,
  MFD_CLOEXEC,
  O_CLOEXEC,
  O_CREAT,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  openDescriptors,
  PAGE,
  pair,
  SOCK_STREAM,
  unmapWindow,
} from './windows.ts'

const CLOSED_FD = 1 << 20
const EFD_CLOEXEC = O_CLOEXEC
const EFD_NONBLOCK = O_NONBLOCK

describe('open and close', () => {
  test('creates a file that only its owner can use', () => {
    const directory = mkdtempSync('/tmp/framepump-shim-')
    const umask = process.umask(0)
    try {
      const path = join(directory, 'ünïcode')
      const fd = keepFd(shim.open(path, O_RDWR | O_CREAT | O_CLOEXEC))
      expect(existsSync(path)).toBe(true)
      expect(statSync(path).mode & 0o777).toBe(0o600)
      expect(isCloseOnExec(fd)).toBe(true)
    } finally {
      process.umask(umask)
      rmSync(directory, { recursive: true })
    }
  })

  test('leaves no descriptor open after close and answers -EBADF for a second one', () => {
    const before = openDescriptors()
    const fd = shim.open('/dev/null', O_RDONLY | O_CLOEXEC)
    expect(openDescriptors()).toBe(before + 1)
    expect(shim.close(fd)).toBe(0)
    expect(shim.close(fd)).toBe(-EBADF)
    expect(openDescriptors()).toBe(before)
  })

  test('answers -errno for what cannot be opened', () => {
    expect(shim.open('/nonexistent/file', O_RDONLY)).toBe(-ENOENT)
    expect(shim.open('', O_RDONLY)).toBe(-ENOENT)
    expect(shim.close(-1)).toBe(-EBADF)
  })

  test('reads and sets the status flags', () => {
    const [near] = pair(SOCK_STREAM, false)
    expect(shim.getStatusFlags(near) & O_NONBLOCK).toBe(0)
    expect(shim.setStatusFlags(near, O_RDWR | O_NONBLOCK)).toBe(0)
    expect(shim.getStatusFlags(near)).toBe(O_RDWR | O_NONBLOCK)
    expect(shim.getStatusFlags(CLOSED_FD)).toBe(-EBADF)
    expect(shim.setStatusFlags(CLOSED_FD, 0)).toBe(-EBADF)
  })

  test('makes a memfd of a length, also above 4 GiB', () => {
    const fd = keepFd(shim.memfdCreate('framepump-test', MFD_CLOEXEC))
    expect(isCloseOnExec(fd)).toBe(true)
    expect(shim.ftruncate(fd, 5 * 2 ** 30)).toBe(0)
    expect(statSync(`/proc/self/fd/${fd}`).size).toBe(5 * 2 ** 30)
    expect(shim.ftruncate(fd, 10)).toBe(0)
    expect(statSync(`/proc/self/fd/${fd}`).size).toBe(10)
    expect(shim.ftruncate(fd, -1)).toBe(-EINVAL)
    expect(shim.ftruncate(CLOSED_FD, 0)).toBe(-EBADF)
    expect(shim.memfdCreate('x', 0x4000_0000)).toBe(-EINVAL)
  })
})

describe('flock', () => {
  const [LOCK_EX, LOCK_NB, LOCK_UN] = [2, 4, 8]

  test('a directory is locked by one open file at a time', () => {
    const [one, other] = [0, 1].map(() => keepFd(shim.open('/proc/self', O_RDONLY | O_CLOEXEC)))
    expect(shim.flock(one, LOCK_EX | LOCK_NB)).toBe(0)
    expect(shim.flock(other, LOCK_EX | LOCK_NB)).toBe(-EAGAIN)
    expect(shim.flock(one, LOCK_UN)).toBe(0)
    expect(shim.flock(other, LOCK_EX | LOCK_NB)).toBe(0)
    expect(shim.flock(CLOSED_FD, LOCK_EX)).toBe(-EBADF)
    expect(shim.flock(one, 0)).toBe(-EINVAL)
  })
})

describe('eventfd', () => {
  test('counts the writes until it is read', () => {
    const fd = keepFd(shim.eventfd(2, EFD_CLOEXEC | EFD_NONBLOCK))
    expect(isCloseOnExec(fd)).toBe(true)
    expect(shim.eventfdWrite(fd)).toBe(0)
    expect(shim.eventfdWrite(fd)).toBe(0)
    expect(shim.eventfdRead(fd)).toBe(4)
    expect(shim.eventfdRead(fd)).toBe(-EAGAIN)
  })

  test('answers -errno for what is not an eventfd', () => {
    expect(shim.eventfd(0, 0x4000_0000)).toBe(-EINVAL)
    expect(shim.eventfdWrite(CLOSED_FD)).toBe(-EBADF)
    expect(shim.eventfdRead(CLOSED_FD)).toBe(-EBADF)
  })
})

describe('AIO', () => {
  test('signals an eventfd any number of times, once completions are taken back', () => {
    const fd = keepFd(shim.eventfd(0, EFD_NONBLOCK))
    const context = shim.aioSetup(8)
    expect(context).toBeGreaterThan(0)
    let signalled = 0
    while (shim.aioSignal(context, fd) === 0) signalled++
    expect(shim.aioSignal(context, fd)).toBe(-EAGAIN)
    expect(shim.aioReap(context)).toBeGreaterThan(0)
    expect(shim.aioSignal(context, fd)).toBe(0)
    expect(shim.eventfdRead(fd)).toBe(signalled + 1)
    expect(shim.aioDestroy(context)).toBe(0)
    expect(shim.aioDestroy(context)).toBe(-EINVAL)
    expect(shim.aioSignal(context, fd)).toBe(-EINVAL)
  })

  test('does not wait for an eventfd that is full and blocks', () => {
    const fd = keepFd(shim.eventfd(0, EFD_CLOEXEC))
    writeSync(fd, new BigUint64Array([0xffff_ffff_ffff_fffen]))
    const context = shim.aioSetup(8)
    for (let n = 0; n < 4; n++) expect(shim.aioSignal(context, fd)).toBe(0)
    expect(shim.poll(fd, POLLIN, 0) & POLLIN).toBe(POLLIN)
    shim.aioDestroy(context)
  })

  test('answers -errno for what is not an eventfd', () => {
    const context = shim.aioSetup(8)
    expect(shim.aioSignal(context, keepFd(shim.memfdCreate('x', MFD_CLOEXEC)))).toBe(-EINVAL)
    expect(shim.aioSignal(context, CLOSED_FD)).toBe(-EBADF)
    expect(shim.aioReap(context)).toBe(0)
    shim.aioDestroy(context)
    expect(shim.aioSetup(-1)).toBeLessThan(0)
  })
})

describe('epoll', () => {
  test('writes a row of events and data for every descriptor that is ready', () => {
    const epfd = keepFd(shim.epollCreate())
    expect(isCloseOnExec(epfd)).toBe(true)
    const first = keepFd(shim.eventfd(1, EFD_NONBLOCK))
    const second = keepFd(shim.eventfd(0, EFD_NONBLOCK))
    const window = mapWindow(PAGE)
    window.bytes.fill(GUARD)
    expect(shim.epollCtl(epfd, EPOLL_CTL_ADD, first, POLLIN, -77)).toBe(0)
    expect(shim.epollCtl(epfd, EPOLL_CTL_ADD, second, POLLIN, 88)).toBe(0)
    expect(shim.epollWait(epfd, window.id, 8, 4, 0)).toBe(1)
    expect([...window.ints.subarray(2, 4)]).toEqual([POLLIN, -77])
    expect(window.bytes[7]).toBe(GUARD)
    expect(window.bytes[16]).toBe(GUARD)
    shim.eventfdWrite(second)
    expect(shim.epollWait(epfd, window.id, 8, 4, -1)).toBe(2)
    expect(new Set([window.ints[3], window.ints[5]])).toEqual(new Set([-77, 88]))
    expect(shim.epollWait(epfd, window.id, 8, 1, -1)).toBe(1)
  })

  test('changes and removes descriptors', () => {
    const epfd = keepFd(shim.epollCreate())
    const fd = keepFd(shim.eventfd(1, EFD_NONBLOCK))
    const window = mapWindow(PAGE)
    expect(shim.epollCtl(epfd, EPOLL_CTL_ADD, fd, 0, 1)).toBe(0)
    expect(shim.epollWait(epfd, window.id, 0, 4, 0)).toBe(0)
    expect(shim.epollCtl(epfd, EPOLL_CTL_ADD, fd, POLLIN, 1)).toBe(-EEXIST)
    expect(shim.epollCtl(epfd, EPOLL_CTL_MOD, fd, POLLIN | POLLOUT, 2)).toBe(0)
    expect(shim.epollWait(epfd, window.id, 0, 4, 0)).toBe(1)
    expect([...window.ints.subarray(0, 2)]).toEqual([POLLIN | POLLOUT, 2])
    expect(shim.epollCtl(epfd, EPOLL_CTL_DEL, fd, 0, 0)).toBe(0)
    expect(shim.epollWait(epfd, window.id, 0, 4, 0)).toBe(0)
    expect(shim.epollCtl(epfd, EPOLL_CTL_DEL, fd, 0, 0)).toBe(-ENOENT)
    expect(shim.epollCtl(CLOSED_FD, EPOLL_CTL_ADD, fd, 0, 0)).toBe(-EBADF)
  })

  test('waits no longer than asked', () => {
    const epfd = keepFd(shim.epollCreate())
    const window = mapWindow(PAGE)
    const before = performance.now()
    expect(shim.epollWait(epfd, window.id, 0, 4, 20)).toBe(0)
    expect(performance.now() - before).toBeGreaterThanOrEqual(19)
  })

  test('refuses rows that are not all in a writable window, and wrong counts of them', () => {
    const epfd = keepFd(shim.epollCreate())
    const fd = keepFd(shim.eventfd(1, EFD_NONBLOCK))
    shim.epollCtl(epfd, EPOLL_CTL_ADD, fd, POLLIN, 1)
    const window = mapWindow(PAGE)
    window.bytes.fill(GUARD)
    const readOnly = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_READ_ONLY)
    const closed = unmapWindow(mapWindow(PAGE))
    for (const [id, offset, rows] of [
      [window.id, -8, 1],
      [window.id, 2, 1],
      [window.id, PAGE - 4, 1],
      [window.id, PAGE - 8, 2],
      [readOnly.id, 0, 1],
      [closed, 0, 1],
      [-1, 0, 1],
    ] as const) {
      expect(shim.epollWait(epfd, id, offset, rows, 0)).toBe(-EFAULT)
    }
    expect(shim.epollWait(epfd, window.id, 0, 0, 0)).toBe(-EINVAL)
    expect(shim.epollWait(epfd, window.id, 0, -1, 0)).toBe(-EINVAL)
    expect(shim.epollWait(CLOSED_FD, window.id, 0, 1, 0)).toBe(-EBADF)
    expect(window.bytes.every((byte) => byte === GUARD)).toBe(true)
  })
})

describe('poll', () => {
  test('answers what happened to a descriptor, 0 on time-out', () => {
    const [near, far] = pair(SOCK_STREAM)
    expect(shim.poll(near, POLLIN, 0)).toBe(0)
    expect(shim.poll(near, POLLIN | POLLOUT, -1)).toBe(POLLOUT)
    shim.shutdown(near, 2)
    expect(shim.poll(far, POLLIN, -1)).toBe(POLLIN | POLLHUP)
    const POLLNVAL = 0x20
    expect(shim.poll(CLOSED_FD, POLLIN, 0)).toBe(POLLNVAL)
  })

  test('waits no longer than asked', () => {
    const [near] = pair(SOCK_STREAM)
    const before = performance.now()
    expect(shim.poll(near, POLLIN, 20)).toBe(0)
    expect(performance.now() - before).toBeGreaterThanOrEqual(19)
  })
})

describe('clockGettime', () => {
  test('writes the monotonic and the real time, and 24 bytes only', () => {
    const window = mapWindow(PAGE)
    window.bytes.fill(GUARD)
    const words = new Uint32Array(window.buffer)
    const monotonicBefore = process.hrtime.bigint() / 1000n
    const realBefore = Date.now()
    expect(shim.clockGettime(window.id, 16)).toBe(0)
    const realAfter = Date.now()
    const monotonicAfter = process.hrtime.bigint() / 1000n
    const monotonicUs = new Float64Array(window.buffer)[2]
    expect(monotonicUs).toBeGreaterThanOrEqual(Number(monotonicBefore))
    expect(monotonicUs).toBeLessThanOrEqual(Number(monotonicAfter))
    const [low, high, seconds, nanoseconds] = words.subarray(6, 10)
    const ns = BigInt(high) * 0x1_0000_0000n + BigInt(low)
    expect(Number(ns / 1_000_000n)).toBeGreaterThanOrEqual(realBefore)
    expect(Number(ns / 1_000_000n)).toBeLessThanOrEqual(realAfter)
    expect(BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds)).toBe(ns)
    expect(nanoseconds).toBeLessThan(1_000_000_000)
    expect(window.bytes[15]).toBe(GUARD)
    expect(window.bytes[40]).toBe(GUARD)
  })

  test('never goes back', () => {
    const window = mapWindow(PAGE)
    const times = new Float64Array(window.buffer)
    let last = 0
    for (let k = 0; k < 1000; k++) {
      shim.clockGettime(window.id, 0)
      expect(times[0]).toBeGreaterThanOrEqual(last)
      last = times[0]!
    }
  })

  test('refuses a place that is not aligned or not all in a writable window', () => {
    const window = mapWindow(PAGE)
    window.bytes.fill(GUARD)
    const readOnly = mapWindow(PAGE, memfd(PAGE), 0, WINDOW_READ_ONLY)
    for (const offset of [-8, 4, PAGE - 16, PAGE, 0x7fff_fff8]) {
      expect(shim.clockGettime(window.id, offset)).toBe(-EFAULT)
    }
    expect(shim.clockGettime(readOnly.id, 0)).toBe(-EFAULT)
    expect(shim.clockGettime(-1, 0)).toBe(-EFAULT)
    expect(window.bytes.every((byte) => byte === GUARD)).toBe(true)
  })
})
