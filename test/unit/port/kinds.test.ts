/** The engine's end of adding and removing: all or nothing, whatever fails on the way. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { RingMemory } from '../../../src/capture/ring.ts'
import { createCaptureRing } from '../../../src/capture/ring.ts'
import type { IoTier, TapQueue } from '../../../src/io/tier.ts'
import { WINDOWS_MAX } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import { MemoryRing } from '../../../src/port/memory/ring.ts'
import type { EnginePort, PortSurroundings } from '../../../src/port/contract.ts'
import { makePort } from '../../../src/port/kinds.engine.ts'
import type { PortDescription } from '../../../src/port/messages.ts'
import { Sim } from '../../support/sim.ts'

const ENOMEM = 12

let sim: Sim
let shares: Map<string, { close(): void }>
let rings: MemoryRing[]
let capture: RingMemory | undefined
let surroundings: PortSurroundings

beforeEach(() => {
  sim = new Sim(0)
  shares = new Map()
  rings = [MemoryRing.create(), MemoryRing.create()]
  surroundings = {
    tier: sim.engine.tier,
    copies: sim.engine.copies,
    signals: undefined as never,
    counters: sim.counters,
    clock: undefined as never,
    portFailed: () => undefined,
    events: { queueBroken: () => undefined, driverCalled: () => undefined },
    share: <T extends { close(): void }>(kind: string, make: () => T): T => {
      const shared = (shares.get(kind) as T | undefined) ?? make()
      shares.set(kind, shared)
      return shared
    },
  }
  // That of the guests is there, whatever fails later.
  makePort({ kind: 'virtio' }, { index: 2, txOffloads: 0 }, surroundings).close()
})

afterEach(() => {
  vi.restoreAllMocks()
  for (const ring of rings) ring.window.unmap()
  capture?.close()
  capture = undefined
  for (const shared of shares.values()) shared.close()
  sim[Symbol.dispose]()
})

const KINDS: Readonly<Record<string, () => PortDescription>> = {
  tap: () => ({ kind: 'tap', fds: [], vnetHdrLength: 12 }),
  memory: () => ({ kind: 'memory', inward: rings[0].handle, outward: rings[1].handle }),
  replay: () => ({
    kind: 'replay',
    file: {
      fd: -1,
      size: 0,
      offset: new Int32Array(0),
      length: new Int32Array(0),
      dueUs: new Float64Array(0),
      isPaced: true,
      loop: 1,
    },
  }),
  record: () => {
    const made = createCaptureRing({
      format: 'pcapng',
      direction: 'both',
      snapLength: 100,
      countLimit: 0,
    })
    capture = made.memory
    return { kind: 'record', ring: made.handle, block: new Uint8Array(0) }
  },
  virtio: () => ({ kind: 'virtio' }),
  postponed: () => ({ kind: 'postponed' }),
}

/** Numbers of the windows that there are. */
function windows(): number[] {
  return Array.from({ length: WINDOWS_MAX }, (_, id) => id).filter(
    (id) => shim.windowLength(id) > 0,
  )
}

test.each(Object.keys(KINDS))('a %s port that cannot be made leaves no memory', (kind) => {
  const description = KINDS[kind]()
  const make = (): EnginePort => makePort(description, { index: 1, txOffloads: 0 }, surroundings)
  const before = windows()
  for (let n = 1; ; n++) {
    let left = n
    const views: ArrayBuffer[] = []
    const fails = (): boolean => --left === 0
    const [windowMap, windowBuffer] = [shim.windowMap.bind(shim), shim.windowBuffer.bind(shim)]
    vi.spyOn(shim, 'windowMap').mockImplementation((...args) =>
      fails() ? -ENOMEM : windowMap(...args),
    )
    vi.spyOn(shim, 'windowBuffer').mockImplementation((id) => {
      const view = fails() ? -ENOMEM : windowBuffer(id)
      if (typeof view !== 'number') views.push(view)
      return view
    })
    let port: EnginePort | undefined
    try {
      port = make()
    } catch (error) {
      expect(error).toMatchObject({ code: 'OUT_OF_MEMORY' })
    }
    vi.restoreAllMocks()
    port?.close()
    expect(windows(), `step ${n}`).toEqual(before)
    // A view that stays points to memory that its owner unmaps next.
    expect(
      views.map((view) => view.byteLength),
      `step ${n}`,
    ).toEqual(views.map(() => 0))
    if (left > 0) {
      expect(port).toBeDefined()
      return
    }
    expect(port, `step ${n}`).toBeUndefined()
  }
})

/** A port with queues, of which the tier takes only some. */
class Queued implements EnginePort {
  readonly index = 1
  readonly txOffloads = 0
  readonly queues: readonly TapQueue[]
  isClosed = false

  constructor(count: number) {
    this.queues = Array.from(
      { length: count },
      (_, index) =>
        ({
          fd: -1,
          port: 1,
          index,
          id: -1,
          isAttached: true,
          isReading: false,
          failure: 0,
        }) as unknown as TapQueue,
    )
  }
  transmit(): void {}
  endTurn(): void {}
  close(): void {
    this.isClosed = true
  }
}

function refuseFrom(tier: IoTier, count: number): { read: Set<TapQueue> } {
  const read = new Set<TapQueue>()
  vi.spyOn(tier, 'addQueue').mockImplementation((queue) => {
    if (read.size === count) throw new Error('no more')
    queue.id = read.size
    read.add(queue)
  })
  vi.spyOn(tier, 'removeQueue').mockImplementation((queue) => {
    queue.id = -1
    read.delete(queue)
  })
  return { read }
}

test('a port of which a queue cannot be read is not there, and none of its queues is read', () => {
  const { read } = refuseFrom(sim.engine.tier, 2)
  const port = new Queued(3)
  expect(() => sim.engine.addPort(port, 0)).toThrow('no more')
  expect(read.size).toBe(0)
  expect(port.isClosed).toBe(true)
  expect(sim.engine.forwarder.port(1)).toBeNull()
})

test('one that cannot take the place of another leaves that where it is', () => {
  const { read } = refuseFrom(sim.engine.tier, 3)
  const [old, next] = [new Queued(2), new Queued(2)]
  sim.engine.addPort(old, 0)
  expect(() => sim.engine.replacePort(next)).toThrow('no more')
  expect(sim.engine.forwarder.port(1)).toBe(old)
  expect([old.isClosed, next.isClosed]).toEqual([false, true])
  expect([...read]).toEqual(old.queues)
})

test.each(['removePort', 'replacePort'] as const)(
  '%s ends every access also when reads cannot be ended',
  (what) => {
    refuseFrom(sim.engine.tier, 9)
    const old = new Queued(1)
    sim.engine.addPort(old, 0)
    vi.spyOn(sim.engine.tier, 'removeQueue').mockImplementation(() => {
      throw new Error('stuck')
    })
    const next = new Queued(1)
    const run = (): void =>
      what === 'removePort' ? sim.engine.removePort(1) : sim.engine.replacePort(next)
    expect(run).toThrow('stuck')
    expect(old.isClosed).toBe(true)
    expect(sim.engine.forwarder.port(1)).toBe(what === 'removePort' ? null : next)
  },
)

test('a port that was never there is removed without a word', () => {
  expect(() => sim.engine.removePort(7)).not.toThrow()
})
