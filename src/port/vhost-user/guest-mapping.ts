/**
 * Mapping a guest's memory: from the descriptors of a memory table to windows. Control plane only;
 * the engine views the windows (mem/guest-memory.ts) and detaches them before they are unmapped.
 */
import { fstatSync, statfsSync } from 'node:fs'
import { strerror } from '../../abi/strerror.ts'
import { ProtocolError } from '../../errors.ts'
import type { GuestRegion, GuestWindow } from '../../mem/guest-memory.ts'
import { WINDOW_LENGTH_MAX } from '../../mem/window.ts'
import { shim, WINDOW_DONT_DUMP } from '../../native/shim.ts'
import type { DirtyLogFile, MemoryRegion } from '../../vhost-user/device.ts'
import { fileRefusal } from '../slow-file.ts'
import type { MemoryFiles } from './memory-files.ts'
import type { WindowBudget } from './window-shares.ts'
import { LOG_WINDOWS } from './window-shares.ts'

const GIBIBYTE = 2 ** 30
const PAGE_LENGTH = 4096
/** Of a dirty log, which has a bit for each page: 8 TiB of memory. */
const LOG_LENGTH_MAX: number = 2 ** 28
const HUGETLBFS_MAGIC = 0x958458f6

/** A region that is mapped, and how it is mapped again. */
export interface MappedRegion extends GuestRegion {
  readonly mmapOffset: number
  /** A descriptor of its file, as long as it is mapped; -1: none was kept. */
  readonly file: number
}

/** Maps a region; its descriptor is kept, or closed. Throws ProtocolError, nothing left mapped or open. */
export function mapRegion(
  region: MemoryRegion,
  budget: WindowBudget,
  files: MemoryFiles,
): MappedRegion {
  let isMapped = false
  try {
    const mapped = mapOpenRegion(region, budget)
    isMapped = true
    return { ...mapped, file: files.keep(region.fd) }
  } finally {
    if (!isMapped) shim.close(region.fd)
  }
}

/** The same of a descriptor that stays the caller's. */
export function mapOpenRegion(region: MemoryRegion, budget: WindowBudget): MappedRegion {
  const { fd, guestAddress, size, userAddress, mmapOffset } = region
  const windows: GuestWindow[] = []
  try {
    // First of all: whatever else is asked about the file may wait for its server.
    refuseSlow(fd)
    const end = mmapOffset + size
    const fileSize = fstatSync(fd).size
    if (fileSize < end) {
      throw refused(`the memory file has ${fileSize} bytes, the region ends at ${end}`)
    }
    const pageLength = pageLengthOf(fd)
    for (let at = 0; at < size;) {
      const part = mapPart(fd, mmapOffset, at, end, pageLength, budget)
      windows.push(part)
      // Each window begins a GiB after the one before and reaches a GiB into the next.
      at += at + part.length === size ? part.length : GIBIBYTE
    }
    return { guestAddress, size, userAddress, windows, mmapOffset, file: fd }
  } catch (error) {
    unmapWindows(windows, budget)
    throw error
  }
}

/** Maps a dirty log, whose descriptor stays the caller's. Returns the window. Throws ProtocolError. */
export function mapLog(log: DirtyLogFile, budget: WindowBudget): number {
  const { fd, size, offset } = log
  if (size >= LOG_LENGTH_MAX) throw refused(`a dirty log of ${size} bytes`)
  refuseSlow(fd)
  if (!budget.take()) throw beyondShare(budget)
  try {
    return mapWindow(fd, size, offset, budget)
  } catch (error) {
    budget.giveBack(LOG_WINDOWS - 1)
    throw error
  }
}

export function unmapLog(window: number, budget: WindowBudget): void {
  shim.windowUnmap(window)
  budget.giveBack(LOG_WINDOWS)
}

function refuseSlow(fd: number): void {
  const reason = fileRefusal(shim.getSeals(fd), shim.deviceMajor(fd))
  if (reason !== null) throw refused(reason)
}

function mapWindow(fd: number, length: number, offset: number, budget: WindowBudget): number {
  if (!budget.take()) throw beyondShare(budget)
  // What a guest has in its memory is none of the business of who looks into our core dump.
  const window = shim.windowMap(fd, length, offset, WINDOW_DONT_DUMP)
  if (window >= 0) return window
  budget.giveBack(1)
  throw refused(`mmap of ${length} bytes: ${strerror(-window)}`)
}

function mapPart(
  fd: number,
  mmapOffset: number,
  regionOffset: number,
  end: number,
  pageLength: number,
  budget: WindowBudget,
): GuestWindow {
  const wanted = mmapOffset + regionOffset
  const start = Math.floor(wanted / pageLength) * pageLength
  const longest = Math.floor(WINDOW_LENGTH_MAX / pageLength) * pageLength
  const length = Math.min(Math.ceil((end - start) / pageLength) * pageLength, longest)
  const window = mapWindow(fd, length, start, budget)
  const windowOffset = wanted - start
  return {
    window,
    regionOffset,
    windowOffset,
    length: Math.min(length, end - start) - windowOffset,
  }
}

function pageLengthOf(fd: number): number {
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`)
  return type === HUGETLBFS_MAGIC ? bsize : PAGE_LENGTH
}

const refused = (reason: string): ProtocolError =>
  new ProtocolError('VHOST_USER_MEMORY', `the front-end’s memory cannot be mapped: ${reason}`, {
    hint: 'the guest’s memory must be shared: memory-backend-memfd or -file with share=on',
  })

const beyondShare = (budget: WindowBudget): ProtocolError =>
  new ProtocolError(
    'VHOST_USER_WINDOWS',
    `the front-end’s memory cannot be mapped: with it the port has more than its share of ${budget.most} windows of 1 GiB`,
    { hint: 'fewer memory devices, or vm.max_map_count where that is below 65530' },
  )

function unmapWindows(windows: readonly GuestWindow[], budget: WindowBudget): void {
  for (const { window } of windows) shim.windowUnmap(window)
  budget.giveBack(windows.length)
}

/** Unmaps regions whose views are all detached. */
export function unmapRegions(regions: readonly GuestRegion[], budget: WindowBudget): void {
  for (const { windows } of regions) unmapWindows(windows, budget)
}
