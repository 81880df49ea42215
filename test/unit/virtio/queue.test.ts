/** Virtqueues of both kinds: the device side against the driver side, in the same memory. */
import { describe, expect, test } from 'vitest'
import { VIRTQ_DESC_F_INDIRECT } from '../../../src/abi/virtio-ring.ts'
import { GuestMemory } from '../../../src/mem/guest-memory.ts'
import { Window } from '../../../src/mem/window.ts'
import {
  BROKEN_ADDRESS,
  BROKEN_AVAIL_STEP,
  BROKEN_CHAIN_LENGTH,
  BROKEN_EMPTY,
  BROKEN_INDEX,
  BROKEN_INDIRECT,
  BROKEN_LOOP,
  BROKEN_ORDER,
  BROKEN_TEXT,
  Chain,
} from '../../../src/virtio/ring/chain.ts'
import type { DeviceQueue } from '../../../src/virtio/ring/device-queue.ts'
import type { DriverQueue } from '../../../src/virtio/ring/driver-queue.ts'
import { attachQueue } from '../../../src/virtio/ring/queue-layout.ts'
import {
  addChain,
  atEnd,
  attach,
  GUEST_ADDRESS,
  initialBase,
  KINDS,
  makeGuest,
  makeQueues,
  region,
  USER_ADDRESS,
} from '../../support/guest.ts'
import type { Buffer, Guest } from '../../support/guest.ts'

const MEMORY = 1 << 20
/** Buffers stand behind every ring of these tests. */
const BUFFERS = 1 << 19

const readable = (offset: number, length: number): Buffer => ({
  offset: BUFFERS + offset,
  length,
  isWritable: false,
})
const writable = (offset: number, length: number): Buffer => ({
  offset: BUFFERS + offset,
  length,
  isWritable: true,
})

/** One buffer through the queue: driver, device, and back. */
function roundTrip(driver: DriverQueue, device: DeviceQueue, chain: Chain, length: number): number {
  const id = addChain(driver, [writable(0, 64)])
  driver.publish()
  expect(device.take(chain)).toBe(true)
  device.put(chain.id, chain.entries, length)
  device.publish()
  expect(driver.takeUsed()).toBe(id)
  return driver.usedLength
}

describe.each(KINDS)('a $name queue', (kind) => {
  const sizes = kind.isPacked ? [1, 2, 3, 7, 64, 100, 256] : [1, 2, 4, 64, 256]

  test('gives nothing while the driver has published nothing', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    expect(device.hasChain()).toBe(false)
    expect(device.take(chain)).toBe(false)
    expect(driver.takeUsed()).toBe(-1)
    addChain(driver, [readable(0, 100)])
    expect(device.take(chain)).toBe(false)
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(device.take(chain)).toBe(false)
    expect(device.broken).toBe(0)
  })

  test('gives the segments of a chain, the readable ones first, where they are', () => {
    const guest = makeGuest(MEMORY)
    const { driver, device } = makeQueues(guest, kind, 8)
    const chain = new Chain()
    const buffers = [readable(0, 12), readable(100, 1), writable(200, 1500), writable(5000, 77)]
    const id = addChain(driver, buffers)
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(chain.id).toBe(id)
    expect(chain.count).toBe(4)
    expect(chain.readable).toBe(2)
    expect(chain.readableLength).toBe(13)
    expect(chain.writableLength).toBe(1577)
    buffers.forEach(({ offset, length }, at) => {
      expect(chain.window[at]).toBe(guest.window.id)
      expect(chain.offset[at]).toBe(offset)
      expect(chain.length[at]).toBe(length)
      expect(chain.address[at]).toBe(GUEST_ADDRESS + offset)
    })
  })

  test('leaves buffers of no bytes out', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    addChain(driver, [readable(0, 0), readable(0, 20), readable(7, 0)])
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(chain.count).toBe(1)
    expect(chain.readableLength).toBe(20)
  })

  test('shows what was put when it is published, not before, and in the order of put', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    const ids = [1, 2, 3].map((count) =>
      addChain(
        driver,
        Array.from({ length: count }, () => writable(0, 100)),
      ),
    )
    driver.publish()
    const taken = ids.map(() => {
      expect(device.take(chain)).toBe(true)
      return { id: chain.id, entries: chain.entries }
    })
    expect(taken.map(({ id }) => id)).toEqual(ids)
    // Out of the order in which they were taken.
    for (const at of [2, 0, 1]) device.put(taken[at].id, taken[at].entries, 10 + at)
    expect(driver.takeUsed()).toBe(-1)
    device.publish()
    for (const at of [2, 0, 1]) {
      expect(driver.takeUsed()).toBe(ids[at])
      expect(driver.usedLength).toBe(10 + at)
    }
    expect(driver.takeUsed()).toBe(-1)
    expect(driver.free).toBe(8)
    expect(driver.isBroken).toBe(false)
  })

  test.each(sizes)('of size %i takes as many chains as it has entries, lap after lap', (size) => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, size)
    const chain = new Chain()
    for (let lap = 0; lap < 5; lap++) {
      const ids = Array.from({ length: size }, (_, at) => addChain(driver, [readable(at, 60 + at)]))
      expect(ids).not.toContain(-1)
      expect(addChain(driver, [readable(0, 60)])).toBe(-1)
      driver.publish()
      for (let at = 0; at < size; at++) {
        expect(device.take(chain)).toBe(true)
        expect(chain.id).toBe(ids[at])
        expect(chain.length[0]).toBe(60 + at)
        device.put(chain.id, chain.entries, at)
      }
      expect(device.hasChain()).toBe(false)
      expect(device.broken).toBe(0)
      device.publish()
      for (let at = 0; at < size; at++) {
        expect(driver.takeUsed()).toBe(ids[at])
        expect(driver.usedLength).toBe(at)
      }
    }
  })

  test('takes a chain of as many buffers as it has entries, across the end of the ring', () => {
    const size = kind.isPacked ? 7 : 8
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, size)
    const chain = new Chain()
    const buffers = Array.from({ length: size }, (_, at) => readable(at * 10, at + 1))
    for (let round = 0; round < 3 * size; round++) {
      roundTrip(driver, device, chain, 1)
      const id = addChain(driver, buffers)
      driver.publish()
      expect(device.take(chain)).toBe(true)
      expect(chain.id).toBe(id)
      expect([...chain.length.subarray(0, size)]).toEqual(buffers.map(({ length }) => length))
      device.put(chain.id, chain.entries, 0)
      device.publish()
      expect(driver.takeUsed()).toBe(id)
      expect(driver.free).toBe(size)
    }
  })

  test('goes on when its indices pass 65535', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, kind.isPacked ? 5 : 4)
    const chain = new Chain()
    let wrong = 0
    for (let round = 0; round < 66_000; round++) {
      const id = addChain(driver, [readable(0, 60), writable(100, 100)])
      driver.publish()
      if (!device.take(chain) || chain.id !== id) wrong++
      device.put(chain.id, chain.entries, round)
      device.publish()
      if (driver.takeUsed() !== id || driver.usedLength !== round) wrong++
    }
    expect(wrong).toBe(0)
    expect(device.broken).toBe(0)
  })

  test('goes back by what is untaken and gives the same chains again', () => {
    const size = kind.isPacked ? 7 : 8
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, size)
    const chain = new Chain()
    for (let round = 0; round < 3 * size; round++) {
      const ids = [1, 3, 2].map((count) =>
        addChain(
          driver,
          Array.from({ length: count }, (_, at) => readable(at, count + at)),
        ),
      )
      driver.publish()
      const before = device.base()
      for (let taken = 1; taken <= 3; taken++) {
        for (let at = 0; at < taken; at++) expect(device.take(chain)).toBe(true)
        device.untake(taken)
        expect(device.base()).toBe(before)
      }
      expect(device.take(chain)).toBe(true)
      expect(device.take(chain)).toBe(true)
      device.untake(1)
      device.put(ids[0], 1, 0)
      for (const at of [1, 2]) {
        expect(device.take(chain)).toBe(true)
        expect(chain.id).toBe(ids[at])
        expect(chain.length[0]).toBe(at === 1 ? 3 : 2)
        device.put(chain.id, chain.entries, 0)
      }
      device.publish()
      for (const id of ids) expect(driver.takeUsed()).toBe(id)
    }
  })

  test('goes on at its base when another device side attaches', () => {
    const guest = makeGuest(MEMORY)
    const size = kind.isPacked ? 7 : 8
    const { driver, device: first } = makeQueues(guest, kind, size)
    const chain = new Chain()
    let device = first
    expect(device.base()).toBe(initialBase(kind))
    for (let round = 0; round < 40; round++) {
      roundTrip(driver, device, chain, 1)
      const id = addChain(driver, [readable(0, 20), writable(0, 9), writable(9, 9)])
      driver.publish()
      const base = device.base()
      expect(Number.isInteger(base) && base >= 0 && base < 2 ** 32).toBe(true)
      // A front-end may know the low half only.
      device = attach(guest, kind, size, 0, round % 2 === 0 ? base : base & 0xffff)!
      expect(device.base()).toBe(base)
      expect(device.take(chain)).toBe(true)
      expect(chain.id).toBe(id)
      device.put(chain.id, chain.entries, 18)
      device.publish()
      expect(driver.takeUsed()).toBe(id)
    }
  })

  test('follows a buffer into the region that adjoins its own: two segments', () => {
    const guest = makeGuest(MEMORY)
    const next = Window.map(4096)
    const memory = new GuestMemory([
      region(next.id, 4096, GUEST_ADDRESS + MEMORY, 0x1000),
      region(guest.window.id, MEMORY, GUEST_ADDRESS, USER_ADDRESS),
    ])
    atEnd(() => {
      memory.detach()
      next.unmap()
    })
    const { driver, device } = makeQueues({ ...guest, memory }, kind, 8)
    const chain = new Chain()
    addChain(driver, [readable(MEMORY - BUFFERS - 10, 30), writable(MEMORY - BUFFERS - 1, 4097)])
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(chain.readable).toBe(2)
    expect(chain.count).toBe(4)
    const [first, second] = [guest.window.id, next.id]
    expect([...chain.window.subarray(0, 4)]).toEqual([first, second, first, second])
    expect([...chain.offset.subarray(0, 4)]).toEqual([MEMORY - 10, 0, MEMORY - 1, 0])
    expect([...chain.length.subarray(0, 4)]).toEqual([10, 20, 1, 4096])
    expect(chain.address[1]).toBe(GUEST_ADDRESS + MEMORY)
    addChain(driver, [writable(MEMORY - BUFFERS - 1, 4098)])
    driver.publish()
    expect(device.take(chain)).toBe(false)
    expect(device.broken).toBe(BROKEN_ADDRESS)
  })

  test.each([
    ['behind the memory', GUEST_ADDRESS + MEMORY, 1],
    ['before the memory', GUEST_ADDRESS - 1, 10],
    ['nowhere', 0, 10],
    ['beyond 2^53', 2 ** 63, 10],
    ['half outside', GUEST_ADDRESS + MEMORY - 10, 11],
    ['longer than the memory', GUEST_ADDRESS, 0xffff_ffff],
  ])('is broken by a buffer %s', (_, address, length) => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    driver.begin(1, false)
    driver.add(address, length, true)
    driver.commit()
    driver.publish()
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_ADDRESS)
  })

  test('is broken by a readable buffer behind a writable one', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    addChain(driver, [writable(0, 10), readable(0, 10)])
    driver.publish()
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_ORDER)
  })

  test('is broken by a chain of no bytes', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    addChain(driver, [readable(0, 0)])
    driver.publish()
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_EMPTY)
  })

  test('is broken by a chain of more descriptors than one may have, though they have no bytes', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 2048)
    addChain(
      driver,
      Array.from({ length: 1500 }, () => readable(0, 0)),
    )
    driver.publish()
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_CHAIN_LENGTH)
  })

  test('gives nothing any more when it is broken, not even what it had seen before', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    for (let at = 0; at < 4; at++) addChain(driver, [readable(at, 10)])
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(device.take(chain)).toBe(true)
    device.broken = BROKEN_EMPTY
    expect(device.take(chain)).toBe(false)
    device.untake(1)
    expect(device.hasChain()).toBe(false)
    expect(device.take(chain)).toBe(false)
    expect(device.enableKick()).toBe(false)
    expect(device.broken).toBe(BROKEN_EMPTY)
  })

  test('is not attached where a part of it is outside the memory or not aligned', () => {
    const guest = makeGuest(MEMORY)
    const setup = {
      size: 256,
      base: 0,
      descriptorAddress: USER_ADDRESS,
      availAddress: USER_ADDRESS + 0x4000,
      usedAddress: USER_ADDRESS + 0x8000,
    }
    const features = { ...kind, hasIndirect: kind.tableEntries > 0 }
    expect(attachQueue(guest.memory, setup, features)).not.toBeNull()
    for (const part of ['descriptorAddress', 'availAddress', 'usedAddress'] as const) {
      for (const wrong of [0, USER_ADDRESS - 1, USER_ADDRESS + MEMORY, USER_ADDRESS + 0x10001]) {
        expect(attachQueue(guest.memory, { ...setup, [part]: wrong }, features)).toBeNull()
      }
      const end = USER_ADDRESS + MEMORY
      expect(attachQueue(guest.memory, { ...setup, [part]: end - 2 }, features)).toBeNull()
    }
  })

  test('asks the other side for a notification only when the queue was idle', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    for (let round = 0; round < 40; round++) {
      // The device waits: the first chain is a kick, what comes before it asks again is none.
      expect(device.enableKick()).toBe(false)
      addChain(driver, [readable(0, 60)])
      expect(driver.publish()).toBe(true)
      device.disableKick()
      addChain(driver, [readable(0, 60)])
      expect(driver.publish()).toBe(false)
      expect(driver.enableCall()).toBe(false)
      for (let at = 0; at < 2; at++) {
        expect(device.take(chain)).toBe(true)
        device.put(chain.id, chain.entries, 0)
        // The same for the driver, which waits for the first used one.
        expect(device.publish()).toBe(at === 0)
        if (at === 0) driver.disableCall()
      }
      expect(driver.takeUsed()).not.toBe(-1)
      expect(driver.takeUsed()).not.toBe(-1)
    }
  })

  test('does not sleep on what was made available before it asked for a notification', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    device.disableKick()
    addChain(driver, [readable(0, 60)])
    driver.publish()
    expect(device.enableKick()).toBe(true)
    expect(device.take(chain)).toBe(true)
    expect(device.enableKick()).toBe(false)
    driver.disableCall()
    device.put(chain.id, chain.entries, 0)
    device.publish()
    expect(driver.enableCall()).toBe(true)
    driver.takeUsed()
    expect(driver.enableCall()).toBe(false)
  })

  test('notifies nobody of nothing', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    device.enableKick()
    driver.enableCall()
    expect(driver.publish()).toBe(false)
    expect(device.publish()).toBe(false)
  })

  test('writes nothing outside the ring', () => {
    const guest = makeGuest(MEMORY)
    const before = 4096
    guest.bytes.fill(0xa5)
    const { driver, device, layout } = makeQueues(guest, kind, 8, before)
    const chain = new Chain()
    for (let round = 0; round < 20; round++) roundTrip(driver, device, chain, 64)
    device.enableKick()
    device.disableKick()
    driver.enableCall()
    driver.disableCall()
    const isUntouched = (from: number, to: number): boolean =>
      guest.bytes.subarray(from, to).every((byte) => byte === 0xa5)
    expect(isUntouched(0, before)).toBe(true)
    expect(isUntouched(before + layout.length, MEMORY)).toBe(true)
  })

  test('driver side: is broken by a device that returns what it was not given', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const chain = new Chain()
    addChain(driver, [readable(0, 60)])
    driver.publish()
    device.take(chain)
    device.put(7, 1, 0)
    device.publish()
    expect(driver.takeUsed()).toBe(-1)
    expect(driver.isBroken).toBe(true)
    expect(driver.begin(1, false)).toBe(false)
  })

  test('driver side: is broken by an id beyond the queue', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    addChain(driver, [readable(0, 60)])
    driver.publish()
    device.take(new Chain())
    device.put(8, 1, 0)
    device.publish()
    expect(driver.takeUsed()).toBe(-1)
    expect(driver.isBroken).toBe(true)
  })
})

describe.each(KINDS.filter(({ tableEntries }) => tableEntries > 0))('a $name queue', (kind) => {
  test('takes a chain in a table with one ring entry', () => {
    const size = kind.isPacked ? 3 : 4
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, size)
    const chain = new Chain()
    const buffers = [readable(0, 12), readable(64, 30), writable(100, 5), writable(200, 6)]
    for (let round = 0; round < 10; round++) {
      const ids = Array.from({ length: size }, () => addChain(driver, buffers, true))
      expect(ids).not.toContain(-1)
      expect(driver.free).toBe(0)
      driver.publish()
      for (const id of ids) {
        expect(device.take(chain)).toBe(true)
        expect(chain.id).toBe(id)
        expect(chain.entries).toBe(1)
        expect(chain.count).toBe(4)
        expect(chain.readable).toBe(2)
        expect([...chain.length.subarray(0, 4)]).toEqual([12, 30, 5, 6])
        expect([...chain.offset.subarray(0, 4)]).toEqual(buffers.map(({ offset }) => offset))
        device.put(chain.id, chain.entries, 11)
      }
      device.publish()
      for (const id of ids) expect(driver.takeUsed()).toBe(id)
    }
  })

  test('driver side: a chain that no table takes goes into the ring', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 16)
    const chain = new Chain()
    const buffers = Array.from({ length: 9 }, (_, at) => readable(at, 1))
    expect(addChain(driver, buffers, true)).not.toBe(-1)
    expect(driver.free).toBe(7)
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(chain.count).toBe(9)
  })

  test('takes a table behind buffers of the ring', () => {
    const guest = makeGuest(MEMORY)
    const { driver, device, layout } = makeQueues(guest, kind, 4)
    const chain = new Chain()
    addChain(driver, [readable(0, 10), readable(layout.tableOffset - BUFFERS, 16)])
    // One descriptor at the first table: 7 bytes, writable.
    guest.words.set(
      [(GUEST_ADDRESS + BUFFERS) | 0, 1, 7, kind.isPacked ? 2 << 16 : 2],
      layout.tableOffset >> 2,
    )
    driver.publish()
    setFlags(guest, kind.isPacked, 1, VIRTQ_DESC_F_INDIRECT)
    expect(device.take(chain)).toBe(true)
    expect(chain.count).toBe(2)
    expect(chain.readable).toBe(1)
    expect(chain.writableLength).toBe(7)
  })

  test.each([
    ['whose length is no multiple of a descriptor', GUEST_ADDRESS + BUFFERS, 24],
    ['of no descriptors', GUEST_ADDRESS + BUFFERS, 0],
    ['of more descriptors than a chain may have', GUEST_ADDRESS + BUFFERS, 16 * 1025],
    ['outside the memory', GUEST_ADDRESS + MEMORY, 16],
    ['half outside the memory', GUEST_ADDRESS + MEMORY - 16, 32],
    ['that is not aligned', GUEST_ADDRESS + BUFFERS + 2, 16],
  ])('is broken by a table %s', (_, address, length) => {
    const guest = makeGuest(MEMORY)
    const { driver, device } = makeQueues(guest, kind, 4)
    driver.begin(1, false)
    driver.add(address, length, false)
    driver.commit()
    driver.publish()
    setFlags(guest, kind.isPacked, 0, VIRTQ_DESC_F_INDIRECT)
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_INDIRECT)
  })

  test('is broken by INDIRECT and NEXT in one descriptor', () => {
    const guest = makeGuest(MEMORY)
    const { driver, device } = makeQueues(guest, kind, 4)
    addChain(driver, [readable(0, 16), readable(0, 16)])
    driver.publish()
    setFlags(guest, kind.isPacked, 0, VIRTQ_DESC_F_INDIRECT)
    expect(device.take(new Chain())).toBe(false)
    expect(device.broken).toBe(BROKEN_INDIRECT)
  })
})

/** Sets flags of a descriptor of the ring at the memory's start. */
function setFlags(guest: Guest, isPacked: boolean, descriptor: number, flags: number): void {
  guest.words[descriptor * 4 + 3] |= isPacked ? flags << 16 : flags
}

test('every reason for which a queue breaks has a text', () => {
  const reasons = [
    BROKEN_INDEX,
    BROKEN_AVAIL_STEP,
    BROKEN_LOOP,
    BROKEN_CHAIN_LENGTH,
    BROKEN_ADDRESS,
    BROKEN_INDIRECT,
    BROKEN_ORDER,
    BROKEN_EMPTY,
  ]
  expect(new Set(reasons).size).toBe(BROKEN_TEXT.length - 1)
  for (const reason of reasons) expect(BROKEN_TEXT[reason].length).toBeGreaterThan(10)
})
