/** The engine warms up on frames of its own, and nothing of that is left. */
import { readdirSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Recorder } from '../../../src/capture/recorder.ts'
import { createCaptureRing } from '../../../src/capture/ring.ts'
import { uringLack } from '../../../src/io/probe.ts'
import { ReadWriteTier } from '../../../src/io/read-write-tier.ts'
import type { IoTier, TierEvents } from '../../../src/io/tier.ts'
import { UringTier } from '../../../src/io/uring-tier.ts'
import { makeEventFd } from '../../../src/native/event-fd.ts'
import { EventSignals } from '../../../src/native/event-signals.ts'
import { shim } from '../../../src/native/shim.ts'
import { MemoryEndpoint } from '../../../src/port/memory/control.ts'
import { MemoryEnginePort } from '../../../src/port/memory/engine.ts'
import { MemoryRing } from '../../../src/port/memory/ring.ts'
import { PORTS_MAX } from '../../../src/port/contract.ts'
import { allocateCounters } from '../../../src/stats/port-counters.ts'
import { KernelClock } from '../../../src/mem/clock.ts'
import {
  ENGINE_BURSTS,
  ENGINE_COUNTERS,
  SHARED_PENDING,
  SHARED_WORDS,
} from '../../../src/engine/cells.ts'
import type { PortDescription } from '../../../src/port/messages.ts'
import { Engine } from '../../../src/engine/engine.ts'
import { WarmUp } from '../../../src/engine/warm-up.ts'
import { NO_SNOOPING } from '../../../src/engine/messages.ts'

const tap = (vnetHdrLength: number): PortDescription => ({ kind: 'tap', fds: [], vnetHdrLength })
const raw = (vnetHdrLength: number): PortDescription => {
  const geometry = { blockLength: 4096, blocks: 1, slotsPerBlock: 1 }
  return { kind: 'raw-socket', queues: [], geometry, vnetHdrLength, mtu: 1500 }
}
const GUEST: PortDescription = { kind: 'virtio' }
const POSTPONED: PortDescription = { kind: 'postponed' }

class Bench implements Disposable {
  readonly eventFd: number = makeEventFd()
  readonly signals: EventSignals = EventSignals.open()
  readonly counters = new Float64Array(allocateCounters(PORTS_MAX))
  readonly engineCounters = new Float64Array(ENGINE_COUNTERS)
  readonly shared = new Int32Array(SHARED_WORDS)
  readonly engine: Engine
  readonly #shares: { close(): void }[] = []
  readonly warmUp: WarmUp
  /** A member of the switch, that every flood would reach. */
  readonly witness: MemoryEndpoint
  readonly failed: number[] = []
  #hasLeft = false

  constructor(
    makeTier: (eventFd: number, events: TierEvents) => IoTier,
    macTableSize = 1024,
    wake = () => void shim.eventfdWrite(this.eventFd),
  ) {
    const { counters, engineCounters, shared, signals } = this
    const clock = new KernelClock()
    this.engine = new Engine(
      {
        pace: 'adaptive',
        macAgingS: 300,
        macTableSize,
        macSeed: 1,
        groups: 0xffff,
        snooping: NO_SNOOPING,
        counters,
        engineCounters,
        shared,
        sleepMaxUs: -1,
        clock,
        onPortFailed: (port) => this.failed.push(port),
        onLoops: () => undefined,
        onStorms: () => undefined,
        onGuardDrops: () => undefined,
      },
      (events) => makeTier(this.eventFd, events),
    )
    const inward = MemoryRing.create()
    const outward = MemoryRing.create()
    const { engine } = this
    engine.addPort(new MemoryEnginePort(0, inward, outward, engine.copies, counters), 0)
    this.witness = new MemoryEndpoint('witness', inward, outward, () => undefined)
    this.warmUp = new WarmUp({
      engine,
      tier: engine.tier,
      copies: engine.copies,
      signals,
      counters,
      engineCounters,
      shared,
      clock,
      portFailed: (port) => this.failed.push(port),
      events: { queueBroken: (port) => this.failed.push(port), driverCalled: () => undefined },
      share: <T extends { close(): void }>(_kind: string, make: () => T): T => {
        const shared = make()
        this.#shares.push(shared)
        return shared
      },
      wake,
    })
  }

  /** As on a machine where a round takes 1 ms, whatever this one is busy with. */
  runOnSteadyClock(): number {
    let nowMs = 0
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => nowMs++)
    try {
      return this.warmUp.run()
    } finally {
      clock.mockRestore()
    }
  }

  /** The witness goes. */
  leave(): void {
    this.engine.removePort(0)
    this.witness.close()
    this.#hasLeft = true
  }

  [Symbol.dispose](): void {
    if (!this.#hasLeft) this.leave()
    for (const shared of this.#shares) shared.close()
    this.engine.close()
    this.signals.close()
    shim.close(this.eventFd)
  }
}

const lacks = uringLack()
const fdCount = (): number => readdirSync('/proc/self/fd').length

describe.each([
  ['read-write', (fd: number, events: TierEvents) => new ReadWriteTier(fd, events)],
  ['io_uring-multishot', (fd: number, events: TierEvents) => new UringTier(fd, events)],
] as const)('%s', (name, makeTier) => {
  const isMissing = name === 'io_uring-multishot' && lacks !== undefined
  const why = isMissing ? ` (skipped: ${lacks})` : ''

  describe.skipIf(isMissing)(`a warm-up${why}`, () => {
    let bench: Bench
    beforeEach(() => {
      bench = new Bench(makeTier)
    })
    afterEach(() => bench[Symbol.dispose]())

    test.each([
      ['TAPs', [tap(12)]],
      ['TAPs of two kinds', [tap(12), tap(0), tap(12)]],
      ['guests', [GUEST]],
      ['raw sockets', [raw(10), raw(0)]],
      ['all kinds', [tap(12), raw(10), GUEST]],
      ['ports that are to come', [POSTPONED]],
    ])('passes frames between %s, and leaves nothing', (_, kinds) => {
      const { warmUp, engine, engineCounters, counters, shared } = bench
      const fds = fdCount()
      Atomics.store(shared, SHARED_PENDING, 1)
      for (const kind of kinds) warmUp.expect(kind)
      expect(bench.runOnSteadyClock()).toBeGreaterThan(20)
      expect(fdCount()).toBe(fds)
      expect(counters.every((count) => count === 0)).toBe(true)
      expect(engineCounters.every((count) => count === 0)).toBe(true)
      expect(bench.failed).toEqual([])
      expect(engine.forwarder.macTable.entries).toBe(0)
      for (let index = 1; index < PORTS_MAX; index++) {
        expect(engine.forwarder.port(index)).toBeNull()
      }
      expect(bench.witness.receive()).toBeNull()
      expect(Atomics.load(shared, SHARED_PENDING)).toBe(1)
      // Once is enough.
      for (const kind of kinds) warmUp.expect(kind)
      expect(warmUp.run()).toBe(0)
    })

    test('ends also when nothing wakes it', () => {
      using deaf = new Bench(makeTier, 1024, () => undefined)
      for (const kind of [tap(12), raw(12), GUEST]) deaf.warmUp.expect(kind)
      expect(deaf.warmUp.run()).toBeGreaterThan(0)
      expect(deaf.engine.sleepMaxUs).toBe(-1)
    })

    test('is left out when frames pass already, and when nothing is expected that needs it', () => {
      const { warmUp, engineCounters } = bench
      expect(warmUp.run()).toBe(0)
      warmUp.expect({ kind: 'memory' } as PortDescription)
      expect(warmUp.run()).toBe(0)
      engineCounters[ENGINE_BURSTS] = 1
      warmUp.expect(tap(12))
      expect(warmUp.run()).toBe(0)
    })

    test('floods, where every other port is held, reach none of those', () => {
      const { warmUp, engine, counters } = bench
      engine.hold([0])
      let most = 0
      const flooded = vi.spyOn(engine.forwarder, 'memberCount', 'get')
      warmUp.expect(tap(12))
      expect(bench.runOnSteadyClock()).toBeGreaterThan(20)
      for (const { value } of flooded.mock.results) most = Math.max(most, value as number)
      // Its own two, so it may.
      expect(most).toBe(2)
      expect(engine.release([0])).toEqual([])
      engine.turn(false, 0)
      expect(bench.witness.receive()).toBeNull()
      expect(counters.every((count) => count === 0)).toBe(true)
    })

    test('of an engine that is paused comes before its ports, and it is paused again', () => {
      const { warmUp, engine, engineCounters } = bench
      engine.pause()
      warmUp.expect(POSTPONED)
      // What the port has would be read.
      expect(warmUp.run()).toBe(0)
      bench.leave()
      expect(bench.runOnSteadyClock()).toBeGreaterThan(20)
      expect(engine.isPaused).toBe(true)
      expect(engineCounters.every((count) => count === 0)).toBe(true)
    })

    test('is left out while a capture runs', () => {
      const { warmUp, engine } = bench
      const format = { format: 'pcapng', direction: 'both', snapLength: 64, countLimit: 0 } as const
      const { memory, handle } = createCaptureRing(format)
      const recorder = new Recorder(handle, PORTS_MAX)
      engine.addRecorder(recorder)
      warmUp.expect(tap(12))
      expect(warmUp.run()).toBe(0)
      engine.removeRecorder(recorder)
      memory.close()
    })
  })

  test.skipIf(isMissing)(
    `without room for its addresses it is left out, and nobody is flooded${why}`,
    () => {
      using bench = new Bench(makeTier, 1)
      bench.warmUp.expect(tap(12))
      expect(bench.warmUp.run()).toBe(0)
      expect(bench.witness.receive()).toBeNull()
    },
  )
})
