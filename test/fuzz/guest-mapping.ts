/**
 * Byte strings as memory regions of a front-end, in files of every size: what is mapped is the region
 * and nothing else, what is refused leaves no window and no descriptor behind, and the port's windows
 * are all given back.
 */
import { ProtocolError } from '../../src/errors.ts'
import type { GuestRegion } from '../../src/mem/guest-memory.ts'
import { shim } from '../../src/native/shim.ts'
import {
  mapLog,
  mapOpenRegion,
  unmapLog,
  unmapRegions,
} from '../../src/port/vhost-user/guest-mapping.ts'
import {
  LOG_WINDOWS,
  PORT_WINDOWS_MAX,
  WindowBudget,
  WindowPool,
  windowShares,
} from '../../src/port/vhost-user/window-shares.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

const PAGE = 4096
const GIBIBYTE = 2 ** 30
/** A dirty log of more would be for more than 8 TiB. */
const LOG_LENGTH_MAX = 2 ** 28
const SIZES = [1, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE, GIBIBYTE, GIBIBYTE + 1, 3 * GIBIBYTE - PAGE]
const REGIONS_MAX = 6

export function fuzzGuestMapping(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const budget = new WindowBudget(new WindowPool(windowShares(65530)))
  let left = PORT_WINDOWS_MAX
  // Some of them are others' already.
  if (operands.byte() >= 200) for (; left > 3; left--) budget.take()
  const used = PORT_WINDOWS_MAX - left
  const mapped: GuestRegion[] = []
  for (let n = 0; n < REGIONS_MAX && !operands.isAtEnd; n++) {
    const kind = operands.byte()
    const size = operands.pick(SIZES)
    const mmapOffset = (kind & 1) === 0 ? operands.byte() * PAGE : operands.half()
    const short = (kind & 14) === 2 ? 1 : 0
    const fd = shim.memfdCreate('region', 1)
    check(shim.ftruncate(fd, mmapOffset + size - short) === 0, 'a file')
    const isLog = (kind & 0x70) === 0x70
    const windows = isLog ? LOG_WINDOWS : Math.ceil(size / GIBIBYTE)
    const before = left
    try {
      if (isLog) {
        const window = mapLog({ fd, size, offset: mmapOffset }, budget)
        check(
          mmapOffset % PAGE === 0 && size < LOG_LENGTH_MAX && left >= LOG_WINDOWS,
          'a log that can be',
        )
        checkEqual(shim.windowLength(window), size, 'length of a log')
        unmapLog(window, budget)
      } else {
        const region = mapOpenRegion(
          { fd, size, mmapOffset, guestAddress: 0, userAddress: 0 },
          budget,
        )
        check(short === 0 && left > 0, 'a region that can be')
        left -= checkRegion(region, mmapOffset)
        mapped.push(region)
      }
      seen.add(1, SIZES.indexOf(size), windows, kind & 1)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      left = before
      const isRight = isLog ? mmapOffset % PAGE === 0 && size < LOG_LENGTH_MAX : short === 0
      check(!isRight || windows >= left, `refused without a reason: ${error.message}`)
      seen.addText(error.message.slice(0, 60))
    }
    check(shim.close(fd) === 0, 'the descriptor stays the caller’s')
  }
  unmapRegions(mapped, budget)
  let free = 0
  while (budget.take()) free++
  checkEqual(free, PORT_WINDOWS_MAX - used, 'windows that are given back')
}

/** Every byte of the region is in a window, and at its place in the file. Returns the windows. */
function checkRegion(region: GuestRegion, mmapOffset: number): number {
  let covered = 0
  for (const { window, regionOffset, windowOffset, length } of region.windows) {
    check(regionOffset <= covered, 'there is no gap between windows')
    check(length > 0 && regionOffset + length <= region.size, 'a window is of the region')
    checkEqual(windowOffset, (mmapOffset + regionOffset) % PAGE, 'place in a page')
    check(windowOffset + length <= shim.windowLength(window), 'a window is long enough')
    covered = Math.max(covered, regionOffset + length)
  }
  checkEqual(covered, region.size, 'bytes that are mapped')
  return region.windows.length
}
