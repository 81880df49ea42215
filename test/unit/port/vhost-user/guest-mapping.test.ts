/** Which files of a guest are mapped, and how many windows they may take. */
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { afterEach, describe, expect, test } from 'vitest'
import { whileTrue } from '../../../support/bounded.ts'
import { shim } from '../../../../src/native/shim.ts'
import type { MappedRegion } from '../../../../src/port/vhost-user/guest-mapping.ts'
import * as mapping from '../../../../src/port/vhost-user/guest-mapping.ts'
import { unmapLog, unmapRegions } from '../../../../src/port/vhost-user/guest-mapping.ts'
import { KEPT_FILES_MAX, MemoryFiles } from '../../../../src/port/vhost-user/memory-files.ts'
import { fileRefusal } from '../../../../src/port/slow-file.ts'
import { PORT_WINDOWS_MAX, WindowBudget } from '../../../../src/port/vhost-user/window-shares.ts'
import type { DirtyLogFile, MemoryRegion } from '../../../../src/vhost-user/device.ts'
import { openDescriptors } from '../../native/windows.ts'

const MEBIBYTE = 2 ** 20
const GIBIBYTE = 2 ** 30
const EINVAL = 22
/** Major number of a disk. */
const DISK = 254

const paths: string[] = []
afterEach(() => {
  for (const path of paths.splice(0)) rmSync(path)
})

function memfd(length: number): number {
  const fd = shim.memfdCreate('framepump-test-mapping', 1)
  expect(shim.ftruncate(fd, length)).toBe(0)
  return fd
}

/** A file of that length in a directory. */
function file(directory: string, length: number): number {
  const path = join(directory, `framepump-test-mapping-${process.pid}`)
  writeFileSync(path, '')
  paths.push(path)
  const fd = openSync(path, 'r+')
  expect(shim.ftruncate(fd, length)).toBe(0)
  return fd
}

function region(fd: number, size: number, mmapOffset = 0): MemoryRegion {
  return { fd, size, mmapOffset, guestAddress: 0x1_0000_0000, userAddress: 0x7f00_0000_0000 }
}

/** Without the descriptor, once it is mapped. */
function mapRegion(one: MemoryRegion, budget: WindowBudget): MappedRegion {
  const files = new MemoryFiles({ take: () => true, giveBack: () => undefined })
  const mapped = mapping.mapRegion(one, budget, files)
  files.giveBack(mapped.file)
  return mapped
}

function mapLog(log: DirtyLogFile, budget: WindowBudget): number {
  try {
    return mapping.mapLog(log, budget)
  } finally {
    closeSync(log.fd)
  }
}

describe('the files of a guest', () => {
  test('are kept once each, as long as somebody has them', () => {
    const before = openDescriptors()
    let room = KEPT_FILES_MAX + 1
    const files = new MemoryFiles({ take: () => room-- > 0, giveBack: () => void room++ })
    const fd = memfd(4096)
    const same = openSync(`/proc/self/fd/${fd}`, 'r+')
    expect([files.keep(fd), files.keep(same), files.keep(fd)]).toEqual([fd, fd, fd])
    expect(openDescriptors()).toBe(before + 1)
    const others = Array.from({ length: KEPT_FILES_MAX }, () => files.keep(memfd(4096)))
    expect(others.indexOf(-1)).toBe(KEPT_FILES_MAX - 1)
    for (const one of [fd, fd, ...others]) files.giveBack(one)
    expect(openDescriptors()).toBe(before + 1)
    files.giveBack(fd)
    expect(openDescriptors()).toBe(before)
    expect(room).toBe(KEPT_FILES_MAX + 1)
    room = 0
    expect(files.keep(memfd(4096))).toBe(-1)
    expect(openDescriptors()).toBe(before)
  })
})

describe('the file of a region', () => {
  test('is mapped when it is memory or on a disk', () => {
    expect(fileRefusal(0, 0)).toBe(null)
    // F_SEAL_SEAL, which every file of a tmpfs has.
    expect(fileRefusal(1, 0)).toBe(null)
    expect(fileRefusal(-EINVAL, DISK)).toBe(null)
  })

  test('is refused when it is neither, or nothing is known of it', () => {
    // FUSE, NFS, CIFS, 9P, sockets, pipes.
    expect(fileRefusal(-EINVAL, 0)).toContain('neither memory (memfd, tmpfs, hugetlbfs) nor')
    expect(fileRefusal(-EINVAL, -EINVAL)).toContain('neither memory')
  })

  test.each([
    ['a memfd', () => memfd(MEBIBYTE)],
    ['a file in /dev/shm', () => file('/dev/shm', MEBIBYTE)],
    ['a file on a disk', () => file(tmpdir(), MEBIBYTE)],
  ])('%s is mapped', (_what, make) => {
    const budget = new WindowBudget()
    const before = openDescriptors()
    const mapped = mapRegion(region(make(), MEBIBYTE), budget)
    expect(mapped.windows.map(({ length }) => length)).toEqual([MEBIBYTE])
    unmapRegions([mapped], budget)
    expect(openDescriptors()).toBe(before)
  })

  test('one of a file system without a disk is refused and closed, as region and as dirty log', () => {
    const budget = new WindowBudget()
    const before = openDescriptors()
    const make = (): number => openSync('/proc/self/comm', 'r+')
    expect(() => mapRegion(region(make(), 4096), budget)).toThrow(/cannot be mapped: the file is/)
    const log = { fd: make(), size: 4096, offset: 0 }
    expect(() => mapLog(log, budget)).toThrow(/cannot be mapped: the file is neither memory/)
    expect(openDescriptors()).toBe(before)
  })
})

describe('the windows of a port', () => {
  /** How many are left. */
  function left(budget: WindowBudget): number {
    let count = 0
    whileTrue('windows', () => budget.take() && ++count > 0)
    budget.giveBack(count)
    return count
  }

  test('are one for each begun GiB, and given back', () => {
    const budget = new WindowBudget()
    // The last one reaches two GiB far.
    const mapped = mapRegion(region(memfd(6 * GIBIBYTE), 6 * GIBIBYTE - 4096), budget)
    expect(left(budget)).toBe(PORT_WINDOWS_MAX - 5)
    const window = mapLog({ fd: memfd(4096), size: 4096, offset: 0 }, budget)
    expect(left(budget)).toBe(PORT_WINDOWS_MAX - 7)
    unmapLog(window, budget)
    unmapRegions([mapped], budget)
    expect(left(budget)).toBe(PORT_WINDOWS_MAX)
  })

  test('are limited: what is beyond is refused as a whole, and the next port has its own', () => {
    const size = (PORT_WINDOWS_MAX + 1) * GIBIBYTE - 8192
    const budget = new WindowBudget()
    const fd = memfd(size + GIBIBYTE)
    const before = openDescriptors()
    const again = (): number => openSync(`/proc/self/fd/${fd}`, 'r+')
    expect(() => mapRegion(region(again(), size + GIBIBYTE), budget)).toThrow(
      expect.objectContaining({
        code: 'VHOST_USER_WINDOWS',
        message: expect.stringContaining(
          'cannot be mapped: with it the port has more than its share of 512 windows of 1 GiB',
        ) as string,
      }) as Error,
    )
    expect(left(budget)).toBe(PORT_WINDOWS_MAX)
    const mapped = mapRegion(region(again(), size), budget)
    expect(() => mapRegion(region(again(), 4096), budget)).toThrow(/more than its share/)
    expect(() => mapLog({ fd: again(), size: 4096, offset: 0 }, budget)).toThrow(
      /more than its share/,
    )
    const other = new WindowBudget()
    unmapRegions([mapRegion(region(again(), size), other)], other)
    unmapRegions([mapped], budget)
    expect(openDescriptors()).toBe(before)
    closeSync(fd)
  })

  test('are not used up by a mapping that fails', () => {
    const budget = new WindowBudget()
    const fd = memfd(4096)
    expect(() => mapLog({ fd, size: 4096, offset: 1 }, budget)).toThrow('Invalid argument')
    expect(left(budget)).toBe(PORT_WINDOWS_MAX)
  })
})

test('a dirty log for more memory than there can be is refused, and leaves nothing', () => {
  const budget = new WindowBudget()
  const before = openDescriptors()
  const fd = memfd(300 * MEBIBYTE)
  expect(() => mapLog({ fd, size: 300 * MEBIBYTE, offset: 0 }, budget)).toThrow('a dirty log of')
  expect(openDescriptors()).toEqual(before)
})
