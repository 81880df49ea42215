/** A guest's memory, and both sides of a virtqueue in it. */
import { afterEach } from 'vitest'
import type { GuestRegion } from '../../src/mem/guest-memory.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import type { DeviceQueue } from '../../src/virtio/ring/device-queue.ts'
import type { DriverQueue, RingLayout } from '../../src/virtio/ring/driver-queue.ts'
import {
  PACKED_BASE_INITIAL,
  packedLayout,
  PackedDriver,
} from '../../src/virtio/ring/packed-driver.ts'
import { attachQueue } from '../../src/virtio/ring/queue-layout.ts'
import { splitLayout, SplitDriver } from '../../src/virtio/ring/split-driver.ts'

/** Above 4 GiB, so that both halves of an address matter. */
export const GUEST_ADDRESS = 0x1_2345_0000
/** Where the driver's own addresses begin. */
export const USER_ADDRESS = 0x7f12_3456_0000

export interface Guest {
  readonly window: Window
  readonly memory: GuestMemory
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly halfWords: Uint16Array
}

const closers: (() => void)[] = []

afterEach(() => {
  for (const close of closers.splice(0).toReversed()) close()
})

/** Runs at the end of the test, last first. */
export function atEnd(close: () => void): void {
  closers.push(close)
}

/** The region that a whole window is, at these addresses. */
export function region(
  window: number,
  length: number,
  guestAddress: number,
  userAddress: number,
): GuestRegion {
  const windows = [{ window, regionOffset: 0, windowOffset: 0, length }]
  return { guestAddress, size: length, userAddress, windows }
}

/** Memory of one region, until the end of the test. */
export function makeGuest(length: number): Guest {
  const window = Window.map(length)
  const memory = new GuestMemory([region(window.id, length, GUEST_ADDRESS, USER_ADDRESS)])
  atEnd(() => {
    memory.detach()
    window.unmap()
  })
  const { buffer } = window
  return {
    window,
    memory,
    bytes: new Uint8Array(buffer),
    words: new Int32Array(buffer),
    halfWords: new Uint16Array(buffer),
  }
}

export interface Kind {
  readonly isPacked: boolean
  readonly hasEventIdx: boolean
  /** Descriptors of a table; 0: no indirect ones. */
  readonly tableEntries: number
}

/** Every kind of queue, for `describe.each`. */
export const KINDS: readonly (Kind & { readonly name: string })[] = [false, true].flatMap(
  (isPacked) =>
    [false, true].flatMap((hasEventIdx) =>
      [0, 8].map((tableEntries) => ({
        isPacked,
        hasEventIdx,
        tableEntries,
        name: [
          isPacked ? 'packed' : 'split',
          hasEventIdx ? ' with event_idx' : '',
          tableEntries > 0 ? ' with indirect tables' : '',
        ].join(''),
      })),
    ),
)

export interface Queues {
  readonly driver: DriverQueue
  readonly device: DeviceQueue
  /** Of the ring, whose first byte is at `offset` of the guest's memory. */
  readonly layout: RingLayout
  readonly offset: number
}

export function ringLayout(kind: Kind, size: number): RingLayout {
  return (kind.isPacked ? packedLayout : splitLayout)(size, kind.tableEntries)
}

/** The device side of a ring that stands at `offset`; null: it does not. */
export function attach(
  guest: Guest,
  kind: Kind,
  size: number,
  offset: number,
  base: number,
): DeviceQueue | null {
  const layout = ringLayout(kind, size)
  const setup = {
    size,
    base,
    descriptorAddress: USER_ADDRESS + offset + layout.descriptorOffset,
    availAddress: USER_ADDRESS + offset + layout.availOffset,
    usedAddress: USER_ADDRESS + offset + layout.usedOffset,
  }
  return attachQueue(guest.memory, setup, { ...kind, hasIndirect: kind.tableEntries > 0 })
}

/** A new ring at `offset` and both sides of it. */
export function makeQueues(guest: Guest, kind: Kind, size: number, offset = 0): Queues {
  const { hasEventIdx, tableEntries } = kind
  const memory = {
    buffer: guest.window.buffer,
    offset,
    guestAddress: GUEST_ADDRESS + offset,
  }
  const setup = { size, memory, hasEventIdx, tableEntries }
  const driver = kind.isPacked ? new PackedDriver(setup) : new SplitDriver(setup)
  const device = attach(guest, kind, size, offset, initialBase(kind))
  if (device === null) throw new Error('the ring does not lie in the memory')
  return { driver, device, layout: ringLayout(kind, size), offset }
}

export function initialBase(kind: Kind): number {
  return kind.isPacked ? PACKED_BASE_INITIAL : 0
}

export interface Buffer {
  /** Offset in the guest's memory. */
  readonly offset: number
  readonly length: number
  readonly isWritable: boolean
}

/** Makes a chain available; its id, -1: there is no room. Not published. */
export function addChain(
  driver: DriverQueue,
  buffers: readonly Buffer[],
  isIndirect = false,
): number {
  if (!driver.begin(buffers.length, isIndirect)) return -1
  for (const { offset, length, isWritable } of buffers) {
    driver.add(GUEST_ADDRESS + offset, length, isWritable)
  }
  return driver.commit()
}
