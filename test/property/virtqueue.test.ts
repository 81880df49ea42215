/**
 * Virtqueues of both kinds: driver and device always agree with a model, and a hostile driver gets
 * nothing but a broken queue.
 */
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Window } from '../../src/mem/window.ts'
import { BROKEN_TEXT, Chain, CHAIN_SEGMENTS_MAX } from '../../src/virtio/ring/chain.ts'
import type { DeviceQueue } from '../../src/virtio/ring/device-queue.ts'
import type { Buffer, Guest, Kind } from '../support/guest.ts'
import {
  addChain,
  attach,
  GUEST_ADDRESS,
  KINDS,
  makeQueues,
  region,
  ringLayout,
  USER_ADDRESS,
} from '../support/guest.ts'

const PAGE = 4096
const MEMORY = 16 * PAGE
/** Buffers of the agreeing sides stand behind the ring. */
const BUFFERS = 8 * PAGE

/** One guest for all runs: two regions that adjoin each other, and one a page further on. */
const regions: readonly (readonly [length: number, guestAddress: number])[] = [
  [MEMORY, GUEST_ADDRESS],
  [PAGE, GUEST_ADDRESS + MEMORY],
  [PAGE, GUEST_ADDRESS + MEMORY + 2 * PAGE],
]
const windows = regions.map(([length]) => Window.map(length))
const [window] = windows
const guest: Guest = {
  window,
  memory: new GuestMemory(
    regions.map(([length, guestAddress], at) =>
      region(windows[at].id, length, guestAddress, USER_ADDRESS + guestAddress - GUEST_ADDRESS),
    ),
  ),
  bytes: new Uint8Array(window.buffer),
  words: new Int32Array(window.buffer),
  halfWords: new Uint16Array(window.buffer),
}

afterAll(() => {
  guest.memory.detach()
  for (const window of windows) window.unmap()
})

const sizeOf = (kind: Kind): fc.Arbitrary<number> =>
  kind.isPacked ? fc.integer({ min: 1, max: 20 }) : fc.constantFrom(1, 2, 4, 8, 16)

type Step =
  | { readonly do: 'add'; readonly lengths: readonly number[]; readonly readable: number }
  | { readonly do: 'addIndirect'; readonly lengths: readonly number[]; readonly readable: number }
  | { readonly do: 'publish' | 'enableCall' | 'disableCall' | 'enableKick' | 'disableKick' }
  | { readonly do: 'take'; readonly count: number; readonly untake: number }
  | { readonly do: 'put'; readonly count: number; readonly order: number }
  | { readonly do: 'publishUsed' | 'reattach' }
  | { readonly do: 'takeUsed'; readonly count: number }

const lengths = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 6 })
const count = fc.integer({ min: 1, max: 12 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('add' as const), lengths, readable: count }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('addIndirect' as const), lengths, readable: count }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('publish' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('take' as const),
      count,
      untake: fc.integer({ min: 0, max: 4 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('put' as const), count, order: fc.nat() }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('publishUsed' as const) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('takeUsed' as const), count }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom(
        ...(['enableCall', 'disableCall', 'enableKick', 'disableKick', 'reattach'] as const),
      ),
    }),
  },
)

interface Made {
  readonly id: number
  readonly buffers: readonly Buffer[]
  /** Set when it is taken. */
  entries: number
}

const chain = new Chain()

/** Runs the steps against a model: chains in the order in which they are at each place. */
function exchange(kind: Kind, size: number, steps: readonly Step[]): void {
  const { driver, device: first } = makeQueues(guest, kind, size)
  let device = first
  const committed: Made[] = []
  const available: Made[] = []
  const taken: Made[] = []
  const put: (readonly [Made, number])[] = []
  const used: (readonly [Made, number])[] = []
  let canReattach = true
  let lengthOfPut = 0
  // Who sleeps, and was not notified although it must be.
  let isDeviceAsleep = false
  let isDriverAsleep = false
  for (const step of steps) {
    switch (step.do) {
      case 'add':
      case 'addIndirect': {
        const isIndirect = step.do === 'addIndirect'
        const buffers = step.lengths.map((length, at) => ({
          offset: BUFFERS + at * 2000,
          length,
          isWritable: at >= step.readable,
        }))
        const needed = isIndirect && buffers.length <= kind.tableEntries ? 1 : buffers.length
        const free = driver.free
        const id = addChain(driver, buffers, isIndirect)
        expect(id >= 0).toBe(needed <= free)
        if (id < 0) break
        expect(driver.free).toBe(free - needed)
        const inFlight = [
          ...committed,
          ...available,
          ...taken,
          ...[...put, ...used].map(([m]) => m),
        ]
        expect(inFlight.map((made) => made.id)).not.toContain(id)
        committed.push({ id, buffers, entries: needed })
        break
      }
      case 'publish': {
        const isKicked = driver.publish()
        if (committed.length === 0) expect(isKicked).toBe(false)
        else if (isDeviceAsleep) {
          expect(isKicked).toBe(true)
          isDeviceAsleep = false
        }
        available.push(...committed.splice(0))
        break
      }
      case 'take': {
        const now: Made[] = []
        for (let at = 0; at < step.count; at++) {
          const made = available.shift()
          expect(device.take(chain)).toBe(made !== undefined)
          if (made === undefined) break
          expect(chain.id).toBe(made.id)
          expect(chain.count).toBe(made.buffers.length)
          expect(chain.readable).toBe(made.buffers.filter((each) => !each.isWritable).length)
          made.buffers.forEach(({ offset, length }, k) => {
            expect(chain.window[k]).toBe(window.id)
            expect(chain.offset[k]).toBe(offset)
            expect(chain.length[k]).toBe(length)
            expect(chain.address[k]).toBe(GUEST_ADDRESS + offset)
          })
          made.entries = chain.entries
          now.push(made)
        }
        const back = Math.min(step.untake, now.length)
        device.untake(back)
        available.unshift(...now.splice(now.length - back))
        taken.push(...now)
        canReattach &&= taken.length === 0
        break
      }
      case 'put':
        for (let at = 0; at < step.count && taken.length > 0; at++) {
          const [made] = taken.splice(step.order % taken.length, 1)
          lengthOfPut = (lengthOfPut * 31 + 7) % 100_003
          device.put(made.id, made.entries, lengthOfPut)
          put.push([made, lengthOfPut])
        }
        break
      case 'publishUsed': {
        const isCalled = device.publish()
        if (put.length === 0) expect(isCalled).toBe(false)
        else if (isDriverAsleep) {
          expect(isCalled).toBe(true)
          isDriverAsleep = false
        }
        used.push(...put.splice(0))
        break
      }
      case 'takeUsed':
        for (let at = 0; at < step.count; at++) {
          const next = used.shift()
          expect(driver.takeUsed()).toBe(next?.[0].id ?? -1)
          if (next === undefined) break
          expect(driver.usedLength).toBe(next[1])
        }
        isDriverAsleep = false
        break
      case 'enableCall':
        expect(driver.enableCall()).toBe(used.length > 0)
        isDriverAsleep = used.length === 0
        break
      case 'disableCall':
        driver.disableCall()
        isDriverAsleep = false
        break
      case 'enableKick':
        expect(device.enableKick()).toBe(available.length > 0)
        isDeviceAsleep = available.length === 0
        break
      case 'disableKick':
        device.disableKick()
        isDeviceAsleep = false
        break
      case 'reattach':
        // Only when every chain has been put, as when GET_VRING_BASE is answered.
        if (taken.length > 0 || put.length > 0) break
        device = attach(guest, kind, size, 0, device.base())!
        break
    }
    expect(device.broken).toBe(0)
    expect(driver.isBroken).toBe(false)
    expect(device.hasChain()).toBe(available.length > 0)
  }
  // Nothing is lost: whatever is anywhere comes back.
  driver.publish()
  available.push(...committed.splice(0))
  for (const made of available.splice(0)) {
    expect(device.take(chain)).toBe(true)
    expect(chain.id).toBe(made.id)
    taken.push({ ...made, entries: chain.entries })
  }
  for (const made of taken.splice(0)) {
    device.put(made.id, made.entries, 0)
    put.push([made, 0])
  }
  device.publish()
  for (const [made, length] of [...used, ...put]) {
    expect(driver.takeUsed()).toBe(made.id)
    expect(driver.usedLength).toBe(length)
  }
  expect(driver.takeUsed()).toBe(-1)
  expect(driver.free).toBe(size)
}

describe.each(KINDS)('a $name queue', (kind) => {
  test('takes chains from driver to device and back as a model does', () => {
    fc.assert(
      fc.property(sizeOf(kind), fc.array(step, { maxLength: 120 }), (size, steps) => {
        exchange(kind, size, steps)
      }),
      { numRuns: 300 },
    )
  })
})

/** Tables of the hostile driver: a page behind its ring, full of descriptors. */
const TABLES = 4 * PAGE
const NEXT = 1
const WRITE = 2
const INDIRECT = 4

interface Descriptor {
  readonly address: number
  readonly length: number
  readonly flags: number
}

/** What a driver would write, mostly; every other kind of mistake stays possible. */
const goodDescriptor: fc.Arbitrary<Descriptor> = fc.record({
  address: fc.nat(MEMORY - 2000).map((offset) => GUEST_ADDRESS + offset),
  length: fc.integer({ min: 1, max: 2000 }),
  flags: fc.constantFrom(0, 0, 0, NEXT, NEXT, WRITE, WRITE | NEXT),
})
const goodTable: fc.Arbitrary<Descriptor> = fc.record({
  address: fc.nat(40).map((slot) => GUEST_ADDRESS + TABLES + slot * 16),
  length: fc.integer({ min: 1, max: 8 }).map((count) => count * 16),
  flags: fc.constantFrom(INDIRECT, INDIRECT, INDIRECT | WRITE, INDIRECT | NEXT),
})
const wildDescriptor: fc.Arbitrary<Descriptor> = fc.record({
  address: fc.oneof(
    fc
      .tuple(
        fc.constantFrom(0, MEMORY, MEMORY + PAGE, MEMORY + 2 * PAGE, MEMORY + 3 * PAGE),
        fc.integer({ min: -20, max: 20 }),
      )
      .map(([border, offset]) => GUEST_ADDRESS + border + offset),
    fc.constantFrom(0, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 4096),
  ),
  length: fc.oneof(
    fc.nat(5000),
    fc.constantFrom(0, 16, 0x7fffffff, 0x80000000, 0xffffffff, 16 * 1024, 16 * 1025),
  ),
  flags: fc.nat(7),
})
const descriptor = fc.oneof(
  { weight: 12, arbitrary: goodDescriptor },
  { weight: 4, arbitrary: goodTable },
  { weight: 1, arbitrary: wildDescriptor },
)

/** Between two rounds of calls: descriptors of the ring and of tables, and what makes them available. */
const attack = fc.record({
  /** Where they begin, from the next entry or descriptor on. */
  from: fc.oneof(fc.constant(0), fc.nat(20)),
  descriptors: fc.array(descriptor, { maxLength: 8 }),
  tables: fc.array(fc.tuple(fc.nat(47), descriptor), { maxLength: 8 }),
  /** Packed: whether the flags say that they are available; split: how far avail idx steps. */
  isAvailable: fc.constantFrom(true, true, true, true, false),
  availStep: fc.oneof(
    { weight: 12, arbitrary: fc.nat(3) },
    { weight: 1, arbitrary: fc.nat(0xffff) },
  ),
  heads: fc.oneof(
    { weight: 12, arbitrary: fc.array(fc.nat(7), { minLength: 4, maxLength: 4 }) },
    { weight: 1, arbitrary: fc.array(fc.nat(0xffff), { maxLength: 4 }) },
  ),
  noise: fc.oneof(
    { weight: 12, arbitrary: fc.constant([]) },
    {
      weight: 1,
      arbitrary: fc.array(fc.tuple(fc.nat(1023), fc.nat(0xffffffff)), { maxLength: 4 }),
    },
  ),
  calls: fc.array(
    fc.constantFrom(
      ...(['take', 'take', 'take', 'untake', 'put', 'publish', 'sleep', 'wake'] as const),
    ),
    { maxLength: 12 },
  ),
})
type Attack = typeof attack extends fc.Arbitrary<infer T> ? T : never

/** The hostile driver: writes whatever it likes to, whenever the device side is not at work. */
function scribble(kind: Kind, size: number, base: number, what: Attack): void {
  const { words, halfWords } = guest
  const write = (word: number, flags: number, next: number, each: Descriptor): void => {
    words[word] = each.address % 2 ** 32
    words[word + 1] = Math.floor(each.address / 2 ** 32)
    words[word + 2] = each.length
    words[word + 3] = kind.isPacked ? next | (flags << 16) : flags | (next << 16)
  }
  for (const [slot, each] of what.tables) {
    write((TABLES >> 2) + slot * 4, each.flags & 3, (slot + 1) % 8, each)
  }
  const position = kind.isPacked ? base & 0x7fff : base
  what.descriptors.forEach((each, at) => {
    const slot = position + what.from + at
    let flags = each.flags
    if (kind.isPacked) {
      const wrap = ((base >>> 15) & 1) ^ (Math.floor(slot / size) & 1)
      flags |= (wrap === 1) === what.isAvailable ? 0x80 : 0x8000
    }
    write((slot % size) * 4, flags, (slot + 1) % size, each)
  })
  if (!kind.isPacked) {
    const avail = ringLayout(kind, size).availOffset >> 1
    what.heads.forEach((head, at) => {
      halfWords[avail + 2 + ((base + at) % size)] = head < 8 ? (base + head) % size : head
    })
    halfWords[avail + 1] += what.availStep
  }
  for (const [word, value] of what.noise) words[word] = value
}

/** Bytes from the start of a segment to the end of its region; -1: it is not where it says. */
function roomAt(at: number, chain: Chain): number {
  const index = windows.findIndex(({ id }) => id === chain.window[at])
  if (index < 0 || chain.offset[at] < 0) return -1
  const [size, start] = regions[index]
  if (chain.address[at] !== start + chain.offset[at]) return -1
  return size - chain.offset[at]
}

function expectInside(chain: Chain, size: number): void {
  expect(chain.entries).toBeGreaterThan(0)
  expect(chain.entries).toBeLessThanOrEqual(size)
  expect(chain.count).toBeGreaterThan(0)
  expect(chain.count).toBeLessThanOrEqual(CHAIN_SEGMENTS_MAX)
  let bytes = 0
  for (let at = 0; at < chain.count; at++) {
    expect(chain.length[at]).toBeGreaterThan(0)
    expect(chain.length[at]).toBeLessThanOrEqual(roomAt(at, chain))
    bytes += chain.length[at]
  }
  expect(bytes).toBe(chain.readableLength + chain.writableLength)
}

describe.each(KINDS)('a $name queue of a hostile driver', (kind) => {
  test('gives segments inside the memory only, ends, and is broken for a reason', () => {
    const seen = new Set<number>()
    const attacked = (size: number, base: number, attacks: readonly Attack[]): void => {
      guest.bytes.fill(0)
      const avail = ringLayout(kind, size).availOffset >> 1
      // The driver of a broken queue starts anew, in the memory as it is.
      const start = (): DeviceQueue => {
        if (!kind.isPacked) guest.halfWords[avail + 1] = base
        const position = kind.isPacked ? ((base % size) | (base & 0x8000)) >>> 0 : base
        return attach(guest, kind, size, 0, position)!
      }
      let device = start()
      const taken: (readonly [id: number, entries: number])[] = []
      for (const each of attacks) {
        if (device.broken !== 0) {
          device = start()
          taken.length = 0
        }
        scribble(kind, size, device.base() & 0xffff, each)
        for (const call of each.calls) {
          const wasBroken = device.broken
          switch (call) {
            case 'take':
              if (!device.take(chain)) break
              expect(wasBroken).toBe(0)
              expectInside(chain, size)
              taken.push([chain.id, chain.entries])
              seen.add(0)
              break
            case 'untake':
              if (taken.pop() !== undefined) device.untake(1)
              break
            case 'put':
              for (const [id, entries] of taken.splice(0)) device.put(id, entries, 1)
              break
            case 'publish':
              device.publish()
              break
            case 'sleep':
              device.enableKick()
              break
            case 'wake':
              device.disableKick()
              break
          }
          seen.add(device.broken)
          expect(BROKEN_TEXT[device.broken]).toBeDefined()
          if (wasBroken !== 0) expect(device.broken).toBe(wasBroken)
          const next = device.base()
          expect(Number.isInteger(next) && next >= 0 && next < 2 ** 32).toBe(true)
        }
      }
    }
    fc.assert(
      fc.property(
        sizeOf(kind),
        fc.integer({ min: 0, max: 0xffff }),
        fc.array(attack, { maxLength: 40 }),
        attacked,
      ),
      // The same attacks each time, so that it is no chance what they find.
      { numRuns: 800, seed: 1 },
    )
    // The attacks were good ones: they found nearly every way to break a queue.
    expect(seen.size).toBeGreaterThanOrEqual(6)
  })
})
