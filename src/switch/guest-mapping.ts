/**
 * Mapping a guest's memory: from the descriptors of a memory table to windows. Control plane only;
 * the engine views the windows (mem/guest-memory.ts) and detaches them before they are unmapped.
 */
import { fstatSync, statfsSync } from 'node:fs'
import { errnoName, ProtocolError } from '../errors.ts'
import type { GuestRegion, GuestWindow } from '../mem/guest-memory.ts'
import type { Window } from '../mem/window.ts'
import { WINDOW_LENGTH_MAX } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import type { MemoryRegion } from '../vhost-user/device.ts'

const GIBIBYTE = 2 ** 30
const PAGE_LENGTH = 4096
const HUGETLBFS_MAGIC = 0x958458f6

/** Maps a region; closes its descriptor whatever happens. Throws ProtocolError, nothing left mapped. */
export function mapRegion(region: MemoryRegion): GuestRegion {
  const { fd, guestAddress, size, userAddress, mmapOffset } = region
  const windows: GuestWindow[] = []
  try {
    const end = mmapOffset + size
    const fileSize = fstatSync(fd).size
    if (fileSize < end) {
      throw refused(`the memory file has ${fileSize} bytes, the region ends at ${end}`)
    }
    const pageLength = pageLengthOf(fd)
    for (let at = 0; at < size;) {
      const part = mapWindow(fd, mmapOffset, at, end, pageLength)
      windows.push(part)
      // Each window begins a GiB after the one before and reaches a GiB into the next.
      at += Math.min(GIBIBYTE, part.length)
    }
    return { guestAddress, size, userAddress, windows }
  } catch (error) {
    unmapWindows(windows)
    throw error
  } finally {
    shim.close(fd)
  }
}

function mapWindow(
  fd: number,
  mmapOffset: number,
  regionOffset: number,
  end: number,
  pageLength: number,
): GuestWindow {
  const wanted = mmapOffset + regionOffset
  const start = Math.floor(wanted / pageLength) * pageLength
  const longest = Math.floor(WINDOW_LENGTH_MAX / pageLength) * pageLength
  const length = Math.min(Math.ceil((end - start) / pageLength) * pageLength, longest)
  const window = shim.windowMap(fd, length, start, 0)
  if (window < 0) throw refused(`mmap of ${length} bytes: ${errnoName(window)}`)
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
  new ProtocolError('VHOST_USER_MEMORY', `guest memory cannot be mapped: ${reason}`, {
    hint: 'the guest’s memory must be shared: memory-backend-memfd or -file with share=on',
  })

function unmapWindows(windows: readonly GuestWindow[]): void {
  for (const { window } of windows) shim.windowUnmap(window)
}

/** Unmaps regions whose views are all detached. */
export function unmapRegions(regions: readonly GuestRegion[]): void {
  for (const { windows } of regions) unmapWindows(windows)
}

/** A window of ours as a region that the driver knows under the same addresses. */
export function wholeWindow(window: Window, guestAddress: number): GuestRegion {
  const size = shim.windowLength(window.id)
  const windows = [{ window: window.id, regionOffset: 0, windowOffset: 0, length: size }]
  return { guestAddress, userAddress: guestAddress, size, windows }
}
