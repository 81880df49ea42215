/**
 * Byte strings as what a device writes during a migration: each page of it is marked, no other is, and
 * not the byte behind the bitmap. Only when more is noted than the log can hold may pages between those
 * that were written be marked as well.
 */
import { Window } from '../../src/mem/window.ts'
import { shim } from '../../src/native/shim.ts'
import { DirtyLog } from '../../src/virtio/ring/dirty-log.ts'
import type { Features } from './features.ts'
import { check, checkBytes, Operands } from './features.ts'

const PAGE = 4096
/** Of the bitmap, which ends within a page. */
const BYTES = 61
const PAGES = 8 * BYTES
const MANY = 16_500

const fd = shim.memfdCreate('log', 1)
shim.ftruncate(fd, PAGE)
const whole = new Uint8Array(Window.map(PAGE, { fd }).buffer).subarray(0, 128)
const log = new DirtyLog(Window.map(BYTES, { fd }).id)
shim.close(fd)
const should = new Uint8Array(whole.length)
const LENGTHS = [0, 1, 2, 60, 1514, PAGE - 1, PAGE, PAGE + 1, 65536, -1]

export function fuzzDirtyLog(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  whole.fill(0)
  should.fill(0)
  let noted = 0
  const note = (address: number, length: number): void => {
    log.note(address, length)
    if (length <= 0) return
    noted++
    const last = Math.floor((address + length - 1) / PAGE)
    for (let page = Math.floor(address / PAGE); page <= Math.min(last, PAGES - 1); page++) {
      should[page >> 3] |= 1 << (page & 7)
    }
  }
  while (!operands.isAtEnd) {
    const control = operands.byte()
    if (control === 3 && noted === 0 && operands.byte() === 3) {
      // More than it can hold: the last ones share a row.
      for (let k = 0; k < MANY; k++) note((k % 3) * 8 * PAGE, 1)
      seen.add(control, 1)
    } else if (control < 40) {
      log.mark()
      compare(noted)
      noted = 0
      seen.add(control & 3, 2)
    } else {
      const page = operands.byte() * 2 + (control & 1)
      const inside = operands.byte() < 128 ? 0 : operands.half() % PAGE
      note(page * PAGE + inside, LENGTHS[control % LENGTHS.length])
      seen.add(3, control % LENGTHS.length, page >= PAGES - 17 ? page : 0)
    }
  }
  log.mark()
  compare(noted)
}

function compare(noted: number): void {
  if (noted < 16_384) {
    checkBytes(whole, should, 'bitmap')
    return
  }
  for (let at = 0; at < whole.length; at++) {
    check((should[at] & ~whole[at]) === 0, `what was written is marked in byte ${at}`)
    check(at < BYTES || whole[at] === 0, `byte ${at} behind the bitmap is left alone`)
  }
  // From now on more is marked than must be.
  should.set(whole)
}
