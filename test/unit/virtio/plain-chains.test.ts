/** Chains of a single buffer, taken many at a time, out of queues of both kinds. */
import { describe, expect, test } from 'vitest'
import { GuestMemory } from '../../../src/mem/guest-memory.ts'
import { Window } from '../../../src/mem/window.ts'
import { Chain } from '../../../src/virtio/ring/chain.ts'
import { PlainKind, PlainPlaces } from '../../../src/virtio/ring/plain-chains.ts'
import type { Buffer } from '../../support/guest.ts'
import {
  addChain,
  atEnd,
  GUEST_ADDRESS,
  KINDS,
  makeGuest,
  makeQueues,
  region,
  USER_ADDRESS,
} from '../../support/guest.ts'

const MEMORY = 1 << 20
/** Buffers stand behind every ring of these tests. */
const BUFFERS = 1 << 19

const buffer = (offset: number, length: number, isWritable = false): Buffer => ({
  offset: BUFFERS + offset,
  length,
  isWritable,
})

/** [offset, length] of the first places. */
const placesOf = ({ offset, length }: PlainPlaces, count: number): number[][] =>
  Array.from({ length: count }, (_, n) => [offset[n] - BUFFERS, length[n]])

// Tables are left to `take`, which the queue's own tests have.
describe.each(KINDS.filter(({ tableEntries }) => tableEntries === 0))('a $name queue', (kind) => {
  test('puts readable buffers as they are taken, and the driver has them with the next publish', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const places = new PlainPlaces()
    const readable = new PlainKind(false)
    readable.skipped = 12
    // More than a lap of the ring.
    for (let round = 0; round < 5; round++) {
      const ids = [100, 200, 300].map((length, k) => addChain(driver, [buffer(k * 512, length)]))
      driver.publish()
      expect(device.takePlain(readable, places, 2, 2)).toBe(2)
      expect(device.takePlain(readable, places, 4, 8)).toBe(1)
      expect(device.takePlain(readable, places, 5, 8)).toBe(0)
      expect(placesOf(places, 5).slice(2)).toEqual([
        [12, 88],
        [524, 188],
        [1036, 288],
      ])
      expect(driver.takeUsed()).toBe(-1)
      device.publish()
      for (const id of ids) {
        expect(driver.takeUsed()).toBe(id)
        expect(driver.usedLength).toBe(0)
      }
    }
  })

  test('leaves writable buffers to be put or given back', () => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const places = new PlainPlaces()
    const writable = new PlainKind(true)
    const ids = [0, 1, 2].map((k) => addChain(driver, [buffer(k * 512, 512, true)]))
    driver.publish()
    expect(device.takePlain(writable, places, 0, 8)).toBe(3)
    expect([...writable.id.subarray(0, 3)]).toEqual(ids)
    device.untake(2)
    device.put(writable.id[0], 1, 76)
    device.publish()
    expect([driver.takeUsed(), driver.usedLength]).toEqual([ids[0], 76])
    expect(driver.takeUsed()).toBe(-1)
    expect(device.takePlain(writable, places, 0, 8)).toBe(2)
    expect(placesOf(places, 2)).toEqual([
      [512, 512],
      [1024, 512],
    ])
  })

  test.each<[string, readonly Buffer[]]>([
    ['of the other kind', [buffer(0, 100, true)]],
    ['of two buffers', [buffer(0, 100), buffer(200, 100)]],
    ['shorter than the shortest', [buffer(0, 25)]],
    ['longer than the longest', [buffer(0, 1527)]],
  ])('stops before a chain %s, which is still there', (_, other) => {
    const { driver, device } = makeQueues(makeGuest(MEMORY), kind, 8)
    const places = new PlainPlaces()
    const readable = new PlainKind(false)
    readable.lengthMin = 26
    readable.lengthMax = 1526
    addChain(driver, [buffer(512, 26)])
    addChain(driver, [buffer(512, 1526)])
    const id = addChain(driver, other)
    addChain(driver, [buffer(512, 100)])
    driver.publish()
    if (kind.isPacked && other.length === 1 && other[0].isWritable) {
      // Which way a buffer goes says the queue: DPDK calls those that are to be read writable.
      expect(device.takePlain(readable, places, 0, 8)).toBe(4)
      return
    }
    expect(device.takePlain(readable, places, 0, 8)).toBe(2)
    expect(device.takePlain(readable, places, 0, 8)).toBe(0)
    expect(device.broken).toBe(0)
    const chain = new Chain()
    expect(device.take(chain)).toBe(true)
    expect(chain.id).toBe(id)
    device.put(chain.id, chain.entries, 0)
    expect(device.takePlain(readable, places, 0, 8)).toBe(1)
  })

  test('finds buffers that lie in two regions by turns, and none that begins or ends outside', () => {
    const guest = makeGuest(MEMORY)
    const other = Window.map(4096)
    const memory = new GuestMemory([
      region(guest.window.id, MEMORY, GUEST_ADDRESS, USER_ADDRESS),
      region(other.id, 4096, GUEST_ADDRESS + 2 * MEMORY, 0x1000),
    ])
    atEnd(() => {
      memory.detach()
      other.unmap()
    })
    const places = new PlainPlaces()
    const far = 2 * MEMORY - BUFFERS
    const outside: readonly (readonly [number, number])[] = [
      [far - 1, 10],
      [far + 4096 - 9, 10],
      [far + 4096, 10],
      [MEMORY - BUFFERS - 9, 10],
      [-GUEST_ADDRESS - BUFFERS, 10],
    ]
    for (const [offset, length] of outside) {
      const { driver, device } = makeQueues({ ...guest, memory }, kind, 8)
      addChain(driver, [buffer(0, 64)])
      addChain(driver, [buffer(far, 4096)])
      addChain(driver, [buffer(512, 64)])
      addChain(driver, [buffer(far + 4086, 10)])
      addChain(driver, [buffer(offset, length)])
      driver.publish()
      expect(device.takePlain(new PlainKind(false), places, 0, 8)).toBe(4)
      const [first, second] = [guest.window.id, other.id]
      expect([...places.window.subarray(0, 4)]).toEqual([first, second, first, second])
      expect([...places.offset.subarray(0, 4)]).toEqual([BUFFERS, 0, BUFFERS + 512, 4086])
      expect(device.take(new Chain())).toBe(false)
      expect(device.broken).not.toBe(0)
    }
  })
})
