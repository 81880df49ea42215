/** Where a ring that was taken over is read on, and which places are refused. */
import { afterEach, expect, test } from 'vitest'
import { TP_STATUS_KERNEL, TP_STATUS_USER } from '../../../../src/abi/if-packet.ts'
import { Window } from '../../../../src/mem/window.ts'
import {
  ringGeometry,
  ringLength,
  RING_KB_MIN,
  slotOffsets,
} from '../../../../src/port/raw-socket/geometry.ts'
import { moveOn } from '../../../../src/port/raw-socket/hand-over.ts'

const geometry = ringGeometry(4 * RING_KB_MIN)
const offsets = slotOffsets(geometry)
const windows: Window[] = []

afterEach(() => {
  for (const window of windows.splice(0)) window.unmap()
})

/** A socket whose kernel has filled these slots, and none else. */
function socketWith(...filled: readonly number[]): Parameters<typeof moveOn>[0] {
  const ring = Window.map(ringLength(geometry))
  windows.push(ring)
  const words = new Int32Array(ring.buffer)
  for (const [slot, offset] of offsets.entries()) {
    words[offset >> 2] = filled.includes(slot) ? TP_STATUS_USER : TP_STATUS_KERNEL
  }
  return { id: 'r', geometry, rings: [{ fd: 7, ring, first: 0 }] }
}

test.each([
  { what: 'nothing has come', filled: [], next: 5 },
  { what: 'frames wait there', filled: [5, 6], next: 5 },
  {
    what: 'frames wait over the end of the ring',
    filled: [offsets.length - 1, 0],
    next: offsets.length - 1,
  },
  { what: 'all slots are filled', filled: [...offsets.keys()], next: 5 },
])('it is read on where it was: $what', ({ filled, next }) => {
  const socket = socketWith(...filled)
  expect(moveOn(socket, [next], false)).toEqual([next])
  expect(socket.rings[0].first).toBe(next)
})

test('where others were read already is refused, but in a rehearsal: they are read elsewhere meanwhile', () => {
  // 5 and 6 were read after the place was told, and 7 has come.
  const socket = socketWith(7)
  expect(() => moveOn(socket, [5], false)).toThrow(
    'slot 5 is not the next of descriptor 7 of queue 0',
  )
  expect(moveOn(socket, [5], true)).toEqual([5])
})

test.each([[[]], [[-1]], [[offsets.length]], [['x']], [null]])(
  '%j is no place in it',
  (position) => {
    for (const isRehearsed of [false, true]) {
      expect(() => moveOn(socketWith(), position, isRehearsed)).toThrow('is not the next')
    }
  },
)
