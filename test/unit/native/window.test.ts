/** Windows: mapped memory by number, mirrored, read-only, unmapped, and lost under our feet. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { EBADF, EINVAL } from '../../../src/abi/errno.ts'
import { HugePages } from '../../support/huge-pages.ts'
import {
  shim,
  WINDOW_DONT_DUMP,
  WINDOW_MIRRORED,
  WINDOW_READ_ONLY,
} from '../../../src/native/shim.ts'
import {
  EMFILE,
  isSanitized,
  keepFd,
  mapWindow,
  memfd,
  O_CLOEXEC,
  O_RDONLY,
  openDescriptors,
  PAGE,
  runChild,
  shimPath,
  unmapWindow,
} from './windows.ts'

const WINDOW_LENGTH_MAX = 0x7fff_f000
const WINDOWS_MAX = 32_768

describe('windowMap', () => {
  test('maps zeroed anonymous memory at a page boundary, of just the length asked for', () => {
    const window = mapWindow(5000)
    expect(window.buffer.byteLength).toBe(5000)
    expect(shim.windowLength(window.id)).toBe(5000)
    expect(shim.windowAddress(window.id) % PAGE).toBe(0)
    expect(shim.windowAddress(window.id)).toBeGreaterThan(0)
    expect(window.bytes.every((byte) => byte === 0)).toBe(true)
  })

  test('maps the longest window without making its pages resident', () => {
    const window = mapWindow(WINDOW_LENGTH_MAX)
    window.bytes[WINDOW_LENGTH_MAX - 1] = 7
    expect(window.bytes[WINDOW_LENGTH_MAX - 1]).toBe(7)
  })

  test('maps a file from an offset, shared with other windows of the file', () => {
    const fd = memfd(3 * PAGE)
    const whole = mapWindow(3 * PAGE, fd)
    const last = mapWindow(PAGE, fd, 2 * PAGE)
    whole.bytes[2 * PAGE + 5] = 0x42
    expect(last.bytes[5]).toBe(0x42)
    last.bytes[6] = 0x43
    expect(whole.bytes[2 * PAGE + 6]).toBe(0x43)
  })

  test('keeps the mapping when the descriptor is closed, and keeps no descriptor', () => {
    const before = openDescriptors()
    const fd = shim.memfdCreate('framepump-test', 1)
    shim.ftruncate(fd, PAGE)
    const window = mapWindow(PAGE, fd)
    shim.close(fd)
    window.bytes[PAGE - 1] = 1
    expect(window.bytes[PAGE - 1]).toBe(1)
    expect(openDescriptors()).toBe(before)
  })

  test('maps a mirrored window twice as long that wraps without a seam', () => {
    const window = mapWindow(2 * PAGE, memfd(2 * PAGE), 0, WINDOW_MIRRORED)
    expect(shim.windowLength(window.id)).toBe(4 * PAGE)
    expect(window.buffer.byteLength).toBe(4 * PAGE)
    window.bytes.set([1, 2, 3, 4], 2 * PAGE - 2)
    expect([...window.bytes.subarray(0, 2)]).toEqual([3, 4])
    expect([...window.bytes.subarray(4 * PAGE - 2)]).toEqual([1, 2])
    window.bytes[3 * PAGE] = 9
    expect(window.bytes[PAGE]).toBe(9)
  })

  test('maps a file that is open for reading as a read-only window', () => {
    const fd = memfd(PAGE)
    mapWindow(PAGE, fd).bytes[3] = 0x33
    const reader = keepFd(shim.open(`/proc/self/fd/${fd}`, O_RDONLY | O_CLOEXEC))
    const window = mapWindow(PAGE, reader, 0, WINDOW_READ_ONLY)
    expect(window.bytes[3]).toBe(0x33)
  })

  test('leaves a window out of core dumps where that is asked for, also when it was lost', () => {
    const { status, stderr } = runChild(`
      const fd = shim.memfdCreate('secret', 1)
      shim.ftruncate(fd, 3 * 4096)
      const isDumped = (id) => {
        const start = '^' + shim.windowAddress(id).toString(16) + '-'
        const entry = require('node:fs').readFileSync('/proc/self/smaps', 'utf8').split(new RegExp(start, 'm'))[1]
        return !/VmFlags:(.*)/.exec(entry)[1].split(' ').includes('dd')
      }
      const plain = shim.windowMap(fd, 3 * 4096, 0, 0)
      const id = shim.windowMap(fd, 3 * 4096, 0, ${WINDOW_DONT_DUMP})
      assert.equal(isDumped(plain), true)
      assert.equal(isDumped(id), false)
      const bytes = new Uint8Array(shim.windowBuffer(id))
      shim.ftruncate(fd, 0)
      assert.equal(bytes[0], 0)
      assert.equal(shim.windowFaults(id), 1)
      assert.equal(isDumped(id), false)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test.each([
    ['length 0', -1, 0, 0, 0, EINVAL],
    ['a negative length', -1, -PAGE, 0, 0, EINVAL],
    ['a length above the maximum', -1, WINDOW_LENGTH_MAX + 1, 0, 0, EINVAL],
    ['a mirrored length whose double is above it', 0, 2 ** 30, 0, WINDOW_MIRRORED, EINVAL],
    ['a negative file offset', 0, PAGE, -PAGE, 0, EINVAL],
    ['a mirrored window without a descriptor', -1, PAGE, 0, WINDOW_MIRRORED, EINVAL],
    ['a closed descriptor', 1 << 20, PAGE, 0, 0, EBADF],
    ['a closed descriptor, mirrored', 1 << 20, PAGE, 0, WINDOW_MIRRORED, EBADF],
  ])('refuses %s', (_, fd, length, offset, flags, errno) => {
    expect(shim.windowMap(fd, length, offset, flags)).toBe(-errno)
  })

  test('refuses offsets and mirrored lengths that are not whole pages', () => {
    const fd = memfd(4 * PAGE)
    expect(shim.windowMap(fd, PAGE, 100, 0)).toBe(-EINVAL)
    expect(shim.windowMap(fd, PAGE + 1, 0, WINDOW_MIRRORED)).toBe(-EINVAL)
  })

  test('refuses a mirrored window from the middle of a file', () => {
    expect(shim.windowMap(memfd(4 * PAGE), PAGE, PAGE, WINDOW_MIRRORED)).toBe(-EINVAL)
  })

  test('answers -EMFILE when the table is full, and works again after one is unmapped', () => {
    const ids: number[] = []
    let last = 0
    while ((last = shim.windowMap(-1, PAGE, 0, 0)) >= 0) ids.push(last)
    expect(last).toBe(-EMFILE)
    expect(ids.length).toBe(WINDOWS_MAX)
    expect(new Set(ids).size).toBe(WINDOWS_MAX)
    expect(shim.windowUnmap(ids[1000])).toBe(0)
    expect(shim.windowMap(-1, PAGE, 0, 0)).toBe(ids[1000])
    for (const id of ids) expect(shim.windowUnmap(id)).toBe(0)
  })
})

describe('the end of a window', () => {
  test('a detached buffer has length 0 and the memory stays', () => {
    const window = mapWindow(PAGE)
    window.bytes[0] = 5
    expect(shim.windowDetach(window.buffer)).toBe(0)
    expect(window.buffer.byteLength).toBe(0)
    const again = shim.windowBuffer(window.id) as ArrayBuffer
    expect(new Uint8Array(again)[0]).toBe(5)
    expect(shim.windowDetach(again)).toBe(0)
  })

  test('every function answers -EBADF for a number that is no window', () => {
    const closed = unmapWindow(mapWindow(PAGE))
    for (const id of [closed, -1, WINDOWS_MAX, 0x7fff_ffff, -0x8000_0000]) {
      expect(shim.windowBuffer(id)).toBe(-EBADF)
      expect(shim.windowUnmap(id)).toBe(-EBADF)
      expect(shim.windowAddress(id)).toBe(-EBADF)
      expect(shim.windowLength(id)).toBe(-EBADF)
      expect(shim.windowFaults(id)).toBe(-EBADF)
    }
  })

  test('unmapping gives the memory back at once', () => {
    const code = `const maps = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8')
      const id = shim.windowMap(shim.memfdCreate('gone', 1), 4096, 0, 0)
      assert.match(maps(), /memfd:gone/)
      shim.windowUnmap(id)
      assert.doesNotMatch(maps(), /memfd:gone/)`
    expect(runChild(code)).toMatchObject({ status: 0, stderr: '' })
  })
})

const TRUNCATED = `
  const PAGE = 4096
  const fd = shim.memfdCreate('cut', 1)
  shim.ftruncate(fd, 4 * PAGE)
  const id = shim.windowMap(fd, 4 * PAGE, 0, FLAGS)
  const bytes = new Uint8Array(shim.windowBuffer(id))
  if (!(FLAGS & 2)) bytes.fill(7)
  assert.equal(shim.windowFaults(id), 0)
  shim.ftruncate(fd, PAGE)
`

/** For a child: the mappings of its process. */
const MAPPINGS = `
  const mappings = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8').trim().split('\\n')
    .map((line) => {
      const [start, end] = line.split(' ')[0].split('-').map((hex) => parseInt(hex, 16))
      return { start, end, name: line }
    })
`

/** A file of four pages in a window, cut to one page. */
const truncated = (flags: number): string => TRUNCATED.replaceAll('FLAGS', String(flags))

describe('a file that is cut while it is mapped', () => {
  test('reading a lost page in JavaScript reads zeros, and the whole window is empty at once', () => {
    const { status, stderr } = runChild(`${truncated(0)}
      assert.equal(bytes[5], 7)
      assert.equal(bytes[PAGE + 10], 0)
      assert.equal(bytes[PAGE + 4000], 0)
      assert.equal(bytes[3 * PAGE], 0)
      assert.equal(bytes[5], 0)
      assert.equal(shim.windowFaults(id), 1)
      assert.equal(shim.windowFaults(id), 0)
      bytes[PAGE + 10] = 3
      assert.equal(bytes[PAGE + 10], 3)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('writing a lost page in JavaScript goes to the page in its place', () => {
    const { status, stderr } = runChild(`${truncated(0)}
      bytes[2 * PAGE] = 1
      assert.equal(bytes[2 * PAGE], 1)
      assert.equal(shim.windowFaults(id), 1)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('a lost page of a read-only window is replaced too', () => {
    const { status, stderr } = runChild(`${truncated(WINDOW_READ_ONLY)}
      assert.equal(bytes[2 * PAGE], 0)
      assert.equal(shim.windowFaults(id), 1)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('copyRows goes on over lost pages as its source and as its destination', () => {
    const { status, stderr } = runChild(`${truncated(0)}
      const other = shim.windowMap(-1, 4 * PAGE, 0, 0)
      const otherBytes = new Uint8Array(shim.windowBuffer(other)).fill(9)
      const table = shim.windowMap(-1, PAGE, 0, 0)
      new Int32Array(shim.windowBuffer(table)).set([
        id, PAGE, other, 100, 4,
        other, 0, id, 3 * PAGE - 8, 16,
      ])
      assert.equal(shim.copyRows(table, 0, 2), 2)
      assert.deepEqual([...otherBytes.subarray(99, 105)], [9, 0, 0, 0, 0, 9])
      assert.deepEqual([...bytes.subarray(3 * PAGE - 9, 3 * PAGE + 9)],
        [0, ...Array(16).fill(9), 0])
      assert.equal(shim.windowFaults(id), 1)
      assert.equal(shim.windowFaults(other), 0)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('checksumRows and gatherHeads go on over lost pages', () => {
    const { status, stderr } = runChild(`${truncated(0)}
      const table = shim.windowMap(-1, PAGE, 0, 0)
      const ints = new Int32Array(shim.windowBuffer(table))
      ints.set([id, PAGE, 100, 0x0102, -1, id, 2 * PAGE])
      assert.equal(shim.checksumRows(table, 0, 1), 1)
      assert.equal(ints[4], 0x0102)
      assert.equal(shim.gatherHeads(table, 20, 24, 1, table, 64, 0), 1)
      assert.deepEqual([...ints.subarray(16, 20)], [0, 0, 0, 0])
      assert.equal(shim.windowFaults(id), 1)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('a mirrored window loses both halves', () => {
    const { status, stderr } = runChild(`
      const fd = shim.memfdCreate('cut', 1)
      shim.ftruncate(fd, 8192)
      const id = shim.windowMap(fd, 8192, 0, ${WINDOW_MIRRORED})
      const bytes = new Uint8Array(shim.windowBuffer(id)).fill(7)
      shim.ftruncate(fd, 4096)
      assert.equal(bytes[4096], 0)
      assert.equal(bytes[8192 + 4096], 0)
      assert.equal(bytes[8192], 0)
      assert.equal(shim.windowFaults(id), 1)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('however many of its pages are touched, a window stays one mapping', () => {
    const { status, stderr } = runChild(`${MAPPINGS}
      const pages = 4096
      const fd = shim.memfdCreate('cut', 1)
      shim.ftruncate(fd, pages * 4096)
      const id = shim.windowMap(fd, pages * 4096, 0, 0)
      const bytes = new Uint8Array(shim.windowBuffer(id)).fill(7)
      const before = mappings().length
      shim.ftruncate(fd, 0)
      for (let page = 0; page < pages; page += 2) bytes[page * 4096] = 1
      assert.ok(mappings().length < before + 20, String(mappings().length - before))
      assert.equal(bytes[0], 1)
      assert.equal(shim.windowUnmap(id), 0)`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('in huge pages, and of a length that is no multiple of them', () => {
    const pages = new HugePages(4)
    onTestFinished(() => pages.putBack())
    const { status, stderr } = runChild(`${MAPPINGS}
      const HUGE = 0x200000
      const fd = shim.memfdCreate('huge', 1 | 4 | (21 << 26))
      assert.equal(shim.ftruncate(fd, 2 * HUGE), 0)
      const id = shim.windowMap(fd, HUGE + 5000, 0, 0)
      assert.ok(id >= 0)
      const bytes = new Uint8Array(shim.windowBuffer(id)).fill(7)
      const { start, end } = mappings().find(({ name }) => name.includes('memfd:huge'))
      assert.equal(end - start, 2 * HUGE)
      shim.ftruncate(fd, 0)
      assert.equal(bytes[HUGE + 4999], 0)
      assert.equal(bytes[0], 0)
      assert.equal(shim.windowFaults(id), 1)
      assert.ok(!mappings().some(({ name }) => name.includes('memfd:huge')))
      assert.equal(shim.windowUnmap(id), 0)
      assert.ok(!mappings().some((other) => other.start < end && other.end > start))`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('by several threads at once', () => {
    const { status, stderr } = runChild(`${MAPPINGS}
      const { Worker } = require('node:worker_threads')
      const LENGTH = 256 * 4096
      const shared = new Int32Array(new SharedArrayBuffer(8))
      const script = \`
        const { workerData } = require('node:worker_threads')
        const shim = require(process.env.SHIM)
        const bytes = new Uint8Array(shim.windowBuffer(workerData.id))
        Atomics.add(workerData.shared, 0, 1)
        while (Atomics.load(workerData.shared, 1) === 0);
        for (let round = 0; round < 20; round++) {
          for (let at = 0; at < bytes.length; at += 4096) bytes[at] = round
        }
        shim.windowDetach(bytes.buffer)\`
      const fd = shim.memfdCreate('cut', 1)
      shim.ftruncate(fd, LENGTH)
      const id = shim.windowMap(fd, LENGTH, 0, 0)
      const workers = [0, 1, 2, 3].map(
        () => new Worker(script, { eval: true, workerData: { id, shared } }),
      )
      const exits = workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve)))
      const start = () => {
        if (Atomics.load(shared, 0) < 4) return setTimeout(start, 5)
        shim.ftruncate(fd, 0)
        Atomics.store(shared, 1, 1)
      }
      start()
      Promise.all(exits).then((codes) => {
        assert.deepEqual(codes, [0, 0, 0, 0])
        const faults = shim.windowFaults(id)
        assert.ok(faults >= 1 && faults <= 8, String(faults))
        assert.equal(shim.windowUnmap(id), 0)
      })`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  test('a fault is handled in a worker thread, for a window of the main thread', () => {
    const { status, stderr } = runChild(`${truncated(0)}
      const { Worker } = require('node:worker_threads')
      const worker = new Worker(
        'const shim = require(process.env.SHIM)\\n' +
        'const bytes = new Uint8Array(shim.windowBuffer(' + id + '))\\n' +
        'if (bytes[8192] !== 0) process.exit(3)\\n' +
        'shim.windowDetach(bytes.buffer)', { eval: true })
      worker.on('exit', (code) => {
        assert.equal(code, 0)
        assert.equal(shim.windowFaults(id), 1)
      })`)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })
})

describe('a fault that is not ours', () => {
  test('goes to the handler that was there before', () => {
    const directory = mkdtempSync('/tmp/framepump-shim-')
    try {
      // A second copy of the shim has a table and a handler of its own, installed over the first.
      const copy = join(directory, 'copy.node')
      copyFileSync(shimPath, copy)
      const { status, stderr } = runChild(
        `${truncated(0)}
        const second = require(process.env.COPY)
        assert.notEqual(second, shim)
        const own = second.windowMap(-1, 4096, 0, 0)
        assert.equal(bytes[2 * PAGE], 0)
        assert.equal(shim.windowFaults(id), 1)
        assert.equal(second.windowFaults(own), 0)`,
        { COPY: copy },
      )
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('that somebody sent ends the process at once, whatever address it carries', () => {
    const { status, signal, stdout } = runChild(
      `shim.windowMap(-1, 4096, 0, 0)
      process.kill(process.pid, 'SIGBUS')
      // The signal is delivered by now.
      console.log('after')`,
    )
    expect(stdout).toBe('')
    expect(isSanitized ? status !== 0 : signal).toBe(isSanitized ? true : 'SIGBUS')
  })

  test('ends the process as without the shim when nobody handled it before', () => {
    const directory = mkdtempSync('/tmp/framepump-shim-')
    try {
      // The code of a second copy is cut away: calling it is a SIGBUS outside every window.
      const copy = join(directory, 'copy.node')
      copyFileSync(shimPath, copy)
      const { status, signal, stdout } = runChild(
        `shim.windowMap(-1, 4096, 0, 0)
        const second = require(process.env.COPY)
        require('node:fs').truncateSync(process.env.COPY, 0)
        console.log('before')
        second.windowMap(-1, 4096, 0, 0)
        console.log('after')`,
        { COPY: copy },
      )
      expect(stdout).toBe('before\n')
      // A sanitizer's handler was there before: it reports the fault and ends the process.
      expect(isSanitized ? status !== 0 : signal).toBe(isSanitized ? true : 'SIGBUS')
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
