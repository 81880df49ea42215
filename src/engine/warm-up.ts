/**
 * Makes the engine's code warm before the first frame. V8 interprets what has run a few times only: the
 * first frames of a new switch would take twice as long as those after some thousand others.
 *
 *     socket pair --> [TapEnginePort] \                 / [TapEnginePort] --> socket pair
 *                                > turns, asleep <
 *     driver's ring -> [VirtioEnginePort] /             \ [VirtioEnginePort] -> driver's ring
 *
 * For each kind of port that is to come, two of it exchange frames for a moment. A socket that keeps
 * messages apart stands in for a TAP, a driver in this thread for a guest. Nothing of it is left: the
 * numbers of those ports are free, their addresses forgotten, their counters zero.
 */
import { SysError } from '../errors.ts'
import type { FarEnd, FarEndMaker, PortSurroundings } from '../port/contract.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { farEndMakers } from '../port/kinds.engine.ts'
import type { PortDescription } from '../port/messages.ts'
import { COUNTERS_STRIDE } from '../stats/counters.ts'
import { ENGINE_BURSTS, SHARED_PENDING } from './cells.ts'
import type { Engine } from './engine.ts'

/** Rounds in which every pair exchanges frames; enough for V8 to compile all that they run through. */
const ROUNDS = 1500
/** The time that it takes at most: a start waits for it. */
const LIMIT_MS = 200
/** Of an engine that is paused: another process passes frames meanwhile, and needs the processors as well. */
const LIMIT_PAUSED_MS = 1000
/** Longest sleep of a turn: the control plane's requests wait, which would end another one. */
const SLEEP_US = 1000
/**
 * Housekeeping comes so often then: V8 gives compiled code up at the first thing that it has never seen in it,
 * and every turn of a running engine may meet that.
 */
const TICK_ROUNDS = 16
/** Frames of a burst: one, as at light load, and more. */
const BURSTS: readonly number[] = [1, 1, 2, 1, 4, 1, 1, 16]
const FRAME_LENGTH = 98
/** The first four bytes of its addresses, locally administered, and as the MAC table has them. */
const ADDRESS_BYTES: readonly number[] = [2, 0x66, 0x70, 0]
const ADDRESS_HI = 0x70_6602
/** Ethertype of IEEE 802. */
const LOCAL_EXPERIMENTAL: readonly number[] = [0x88, 0xb5]

export interface WarmUpSurroundings extends PortSurroundings {
  readonly engine: Engine
  readonly engineCounters: Float64Array
  readonly shared: Int32Array
  /** Wakes the engine, as the control plane does. */
  readonly wake: () => void
}

export class WarmUp {
  readonly #surroundings: WarmUpSurroundings
  /** For the ports that are to come. */
  readonly #makers: FarEndMaker[] = []
  readonly #done = new Set<string>()

  constructor(surroundings: WarmUpSurroundings) {
    this.#surroundings = surroundings
  }

  /** A port like this is to come. */
  expect(description: PortDescription): void {
    for (const maker of farEndMakers(description)) {
      if (this.#done.has(maker.key)) continue
      this.#done.add(maker.key)
      this.#makers.push(maker)
    }
  }

  /**
   * Before ports that are expected are read. Once frames have passed nothing is done: they would wait;
   * nor while a capture runs, which would have its frames. An engine that is paused reads meanwhile, and
   * has no ports yet.
   * Returns how many frames of its own passed. What cannot be had is left out: cold it works as well.
   */
  run(): number {
    const { engine, engineCounters } = this.#surroundings
    if (engineCounters[ENGINE_BURSTS] > 0 || engine.isRecorded) return 0
    const { isPaused } = engine
    if (isPaused && hasPorts(engine)) return 0
    // Once is enough.
    const makers = this.#makers.splice(0)
    if (makers.length === 0) return 0
    const before = Float64Array.from(engineCounters)
    const { sleepMaxUs } = engine
    // A turn that reads on after a flush has had the wake-up that was meant for its sleep.
    engine.sleepMaxUs = SLEEP_US
    if (isPaused) engine.resume()
    const ends: FarEnd[] = []
    try {
      for (const maker of [...makers, ...makers]) this.#add(maker, ends)
      // Nobody else is given a frame: every address is known before the first one.
      const limitMs = isPaused ? LIMIT_PAUSED_MS : LIMIT_MS
      return this.#learn(ends) ? exchange(ends, this.#surroundings, limitMs) : 0
    } catch (error) {
      if (!(error instanceof SysError)) throw error
      return 0
    } finally {
      for (const end of ends) this.#remove(end)
      if (isPaused) engine.pause()
      engine.sleepMaxUs = sleepMaxUs
      engineCounters.set(before)
    }
  }

  #add(maker: FarEndMaker, ends: FarEnd[]): void {
    const { engine } = this.#surroundings
    let index = PORTS_MAX - 1
    while (index >= 0 && engine.forwarder.port(index) !== null) index--
    if (index < 0) return
    const end = maker.make(index, this.#surroundings)
    ends.push(end)
    engine.addPort(end.port, 0, false)
  }

  /** False: the table is too small. */
  #learn(ends: readonly FarEnd[]): boolean {
    const { engine, clock } = this.#surroundings
    const { macTable } = engine.forwarder
    clock.read()
    const nowS = (clock.time[0] / 1e6) | 0
    for (const [at, { port }] of ends.entries()) {
      macTable.learn(...addressOf(at), port.index, nowS)
    }
    return ends.every(({ port }, at) => macTable.lookup(...addressOf(at)) === port.index)
  }

  #remove(end: FarEnd): void {
    const { engine, counters } = this.#surroundings
    const { index } = end.port
    engine.removePort(index)
    end.close()
    engine.forwarder.macTable.forgetPort(index)
    counters.fill(0, index * COUNTERS_STRIDE, (index + 1) * COUNTERS_STRIDE)
  }
}

function hasPorts({ forwarder }: Engine): boolean {
  for (let index = 0; index < PORTS_MAX; index++) if (forwarder.port(index) !== null) return true
  return false
}

/** Frames from each end to the other one of its kind, and now and then to the rest. */
function exchange(
  ends: readonly FarEnd[],
  surroundings: WarmUpSurroundings,
  limitMs: number,
): number {
  const { engine, shared, wake } = surroundings
  if (ends.length < 2) return 0
  let isPending = false
  // It would reach the others as well.
  const mayFlood = engine.forwarder.memberCount === ends.length
  const until = performance.now() + limitMs
  const half = ends.length >> 1
  let passed = 0
  const frames = ends.map((_, from) => ends.map((__, to) => frameBetween(from, to)))
  const floods = ends.map((_, from) => frameBetween(from, from).fill(0xff, 0, 6))
  for (let round = 0; round < ROUNDS && performance.now() < until; round++) {
    const count = BURSTS[round % BURSTS.length]
    if (round % TICK_ROUNDS === 0) engine.tickSoon()
    for (let from = 0; from < ends.length; from++) {
      const to =
        (round & 7) === 7 ? (from + (round >> 3)) % ends.length : (from + half) % ends.length
      const isFlood = mayFlood && (round & 15) === 5
      const frame = isFlood ? floods[from] : frames[from][to]
      for (let sent = 0; sent < count; sent++) ends[from].send(frame)
      // The first turn finds them as it falls asleep, where there was nothing before.
      for (let turn = 0; turn < 3; turn++) {
        // The control plane goes on asking, and a turn before an answer does not sleep.
        if (Atomics.exchange(shared, SHARED_PENDING, 0) !== 0) isPending = true
        wake()
        engine.turn(true, 0)
      }
      if (isFlood) for (const end of ends) passed += end.drain()
      else passed += ends[to].drain()
    }
  }
  if (isPending) Atomics.store(shared, SHARED_PENDING, 1)
  return passed
}

/** The address behind end number `at`, as the MAC table has it. */
export const addressOf = (at: number): [hi: number, lo: number] => [ADDRESS_HI, at << 8]

/** From one end to another, by their numbers. */
export function frameBetween(from: number, to: number): Uint8Array {
  const frame = new Uint8Array(FRAME_LENGTH)
  frame.set([...ADDRESS_BYTES, 0, to, ...ADDRESS_BYTES, 0, from, ...LOCAL_EXPERIMENTAL])
  return frame
}
