/**
 * Byte strings as memory tables and addresses: where a guest-physical address is, how much follows it
 * in one window, and what a driver's own address is. Regions adjoin each other, leave holes, and are
 * seen through windows that overlap, as those of more than a GiB are.
 */
import type { GuestRegion, GuestWindow } from '../../src/mem/guest-memory.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

const PAGE = 4096
/** Addresses are found without touching memory: the windows may be small. */
const windows = Array.from({ length: 16 }, () => Window.map(PAGE).id)
const STARTS = [0, PAGE, 2 ** 30, 2 ** 31 - PAGE, 2 ** 32 - 2 * PAGE, 2 ** 32, 2 ** 40, 2 ** 52]
const SIZES = [1, PAGE - 1, PAGE, 3 * PAGE, 2 ** 20, 2 ** 29]

interface Piece {
  readonly start: number
  readonly limit: number
  readonly part: GuestWindow
}

export function fuzzGuestMemory(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const regions = makeRegions(operands)
  const memory = new GuestMemory(regions)
  const edges = regions.flatMap(({ guestAddress, size }) => [guestAddress, guestAddress + size])
  while (!operands.isAtEnd) {
    const control = operands.byte()
    const from = (control & 1) === 0 ? operands.pick(STARTS) : (edges[control % edges.length] ?? 0)
    const address = from + ((control & 2) === 0 ? operands.signed() : operands.word())
    if (address < 0) continue
    const piece = pieceOf(regions, address)
    const isFound = memory.locate(address | 0, Math.floor(address / 2 ** 32) | 0)
    checkEqual(isFound, piece !== undefined, `whether ${address} is in the memory`)
    seen.add(isFound ? 1 : 0, regions.length, control & 3)
    checkUser(memory, regions, address)
    if (piece === undefined) continue
    const { part, start } = piece
    const inside = address - start
    checkEqual(memory.window, part.window, 'window')
    checkEqual(memory.offset, part.windowOffset + inside, 'offset')
    checkEqual(memory.room, part.length - inside, 'room')
    check(memory.room > 0, 'there is room where an address is')
    const own = memory.addressOf(part.window) + memory.offset
    checkEqual(own, address, 'address of an offset')
  }
}

function makeRegions(operands: Operands): GuestRegion[] {
  const regions: GuestRegion[] = []
  const count = operands.byte() % 5
  let next = 0
  let window = 0
  for (let n = 0; n < count; n++) {
    const kind = operands.byte()
    const size = operands.pick(SIZES)
    // One behind the other, with holes or without.
    const guestAddress = Math.max(next, (kind & 1) === 0 ? operands.pick(STARTS) : 0)
    next = guestAddress + size
    const parts = 1 + ((kind >> 1) & 3)
    const step = Math.ceil(size / parts)
    const list: GuestWindow[] = []
    for (let at = 0; at < size; at += step) {
      // Each reaches into the next, to the region's end at most.
      const length = Math.min(size - at, step + ((kind & 8) === 0 ? 0 : step))
      const windowOffset = (kind & 16) === 0 ? 0 : PAGE / 2
      list.push({ window: windows[window++], regionOffset: at, windowOffset, length })
    }
    const userAddress = 0x7f00_0000_0000 + n * 2 ** 33
    regions.push({ guestAddress, size, userAddress, windows: list })
  }
  // The order in which a front-end names them means nothing.
  return (operands.byte() & 1) === 0 ? regions : regions.toReversed()
}

/** The last window that begins at the address or before it: windows overlap towards the next. */
function pieceOf(regions: readonly GuestRegion[], address: number): Piece | undefined {
  for (const { guestAddress, size, windows: parts } of regions) {
    if (address < guestAddress || address >= guestAddress + size) continue
    const inside = address - guestAddress
    const part = parts.findLast(({ regionOffset }) => regionOffset <= inside)!
    const start = guestAddress + part.regionOffset
    return { start, limit: guestAddress + size, part }
  }
  return undefined
}

function checkUser(memory: GuestMemory, regions: readonly GuestRegion[], address: number): void {
  for (const { guestAddress, userAddress, size } of regions) {
    const inside = address - guestAddress
    if (inside < 0 || inside >= size) continue
    checkEqual(memory.guestAddress(userAddress + inside), address, 'address of a driver’s address')
  }
  checkEqual(memory.guestAddress(address), -1, 'an address that is no driver’s')
}
