/**
 * Keeps the code of a frame's way in the caches while no frame comes: a second, small engine, which shares
 * nothing with the first but its code, passes one frame of its own whenever it is told to.
 *
 *     far end --> [port 0] turn, small engine [port 1] --> far end
 *
 * Its ports are like those of the warm-up (engine/warm-up.ts): a pair of the first kind that the switch has,
 * one more of each other kind. Each frame goes from one of them to the next. Counters, addresses and captures
 * of the switch know nothing of them.
 */
import { SysError } from '../errors.ts'
import type { IoTier, TierEvents } from '../io/tier.ts'
import type { Clock } from '../mem/clock.ts'
import { makeEventFd } from '../native/event-fd.ts'
import type { EventSignals } from '../native/event-signals.ts'
import { shim } from '../native/shim.ts'
import type { FarEnd, FarEndMaker, PortSurroundings } from '../port/contract.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { farEndMakers } from '../port/kinds.engine.ts'
import type { PortDescription } from '../port/messages.ts'
import { COUNTERS_STRIDE } from '../stats/counters.ts'
import { ENGINE_COUNTERS, SHARED_WORDS } from './cells.ts'
import type { Warmth } from './doze.ts'
import { Engine } from './engine.ts'
import { NO_SNOOPING } from './messages.ts'
import { addressOf, frameBetween } from './warm-up.ts'

/** Ports: a pair of one kind, and two other kinds. */
const ENDS_MAX = 4
const MAC_TABLE_SIZE = 64
/** Seconds; addresses never go. */
const FOR_EVER = 0x7fff_ffff
/** A frame of a TAP is there in the second turn; one that comes in none is left to the next time. */
const TURNS_MAX = 3
/** Stirs after which the far ends take what has come: they have room for more. */
const DRAIN_STIRS = 16

/** Makes the tier of the small engine, of that eventfd; throws SysError when there is none. */
type MakeTier = (eventFd: number, events: TierEvents) => IoTier

const nothing = (): void => undefined

export class StayWarm implements Warmth {
  readonly #clock: Clock
  readonly #signals: EventSignals
  readonly #makeTier: MakeTier
  readonly #kinds = new Set<string>()
  /** For the ends that are to come. */
  readonly #makers: FarEndMaker[] = []
  readonly #ends: FarEnd[] = []
  #small: SmallEngine | null = null
  /** From each end to the next. */
  #frames: Uint8Array[] = []
  #from = 0
  #stirs = 0
  /** Frames of its own that have come through, as far as the far ends have taken them. */
  passed = 0

  /** `clock` and `signals` are the first engine's. */
  constructor(clock: Clock, signals: EventSignals, makeTier: MakeTier) {
    this.#clock = clock
    this.#signals = signals
    this.#makeTier = makeTier
  }

  /** Frames of such a port are to come. */
  expect(description: PortDescription): void {
    for (const maker of farEndMakers(description)) {
      if (this.#kinds.has(maker.key)) continue
      this.#kinds.add(maker.key)
      if (this.#kinds.size === 1) this.#makers.push(maker)
      this.#makers.push(maker)
    }
  }

  /** Makes what is expected, which takes some milliseconds: before frames come. Else it is made as it stirs. */
  prepare(): void {
    while (this.#makers.length > 0) this.#makeNext()
  }

  /** What cannot be had is left out. */
  #makeNext(): void {
    const maker = this.#makers.shift()
    if (maker === undefined || this.#ends.length === ENDS_MAX) return
    try {
      this.#small ??= new SmallEngine(this.#clock, this.#signals, this.#makeTier)
      this.#add(this.#small, maker)
    } catch (error) {
      if (!(error instanceof SysError)) throw error
    }
  }

  #add({ engine, surroundings }: SmallEngine, maker: FarEndMaker): void {
    const index = this.#ends.length
    const end = maker.make(index, surroundings)
    this.#ends.push(end)
    engine.addPort(end.port, 0)
    this.#clock.read()
    const [hi, lo] = addressOf(index)
    engine.forwarder.macTable.learn(hi, lo, index, (this.#clock.time[0] / 1e6) | 0)
    const count = this.#ends.length
    this.#frames = this.#ends.map((_, from) => frameBetween(from, (from + 1) % count))
  }

  /** @hot */
  stir(): void {
    if (this.#makers.length > 0) return this.#makeNext()
    const ends = this.#ends
    const count = ends.length
    if (this.#small === null || count < 2) return
    const { engine } = this.#small
    const from = this.#from < count ? this.#from : 0
    this.#from = from + 1
    ends[from].send(this.#frames[from])
    for (let turns = 0; turns < TURNS_MAX && engine.turn(true, 0) === 0; turns++);
    if (++this.#stirs < DRAIN_STIRS) return
    this.#stirs = 0
    for (let at = 0; at < count; at++) this.passed += ends[at].drain()
  }

  close(): void {
    for (const { port } of this.#ends) this.#small?.engine.removePort(port.index)
    for (const end of this.#ends) end.close()
    this.#small?.close()
  }
}

class SmallEngine {
  readonly engine: Engine
  readonly surroundings: PortSurroundings
  readonly #eventFd: number = makeEventFd()
  readonly #shares = new Map<string, { close(): void }>()

  constructor(clock: Clock, signals: EventSignals, makeTier: MakeTier) {
    const counters = new Float64Array(PORTS_MAX * COUNTERS_STRIDE)
    try {
      this.engine = new Engine(
        {
          pace: 'interrupt',
          macAgingS: FOR_EVER,
          macTableSize: MAC_TABLE_SIZE,
          macSeed: 1,
          groups: 0,
          snooping: NO_SNOOPING,
          counters,
          engineCounters: new Float64Array(ENGINE_COUNTERS),
          shared: new Int32Array(SHARED_WORDS),
          sleepMaxUs: 0,
          clock,
          onPortFailed: nothing,
          onLoops: nothing,
          onStorms: nothing,
          onGuardDrops: nothing,
        },
        (events) => makeTier(this.#eventFd, events),
      )
    } catch (error) {
      shim.close(this.#eventFd)
      throw error
    }
    this.surroundings = {
      tier: this.engine.tier,
      copies: this.engine.copies,
      signals,
      counters,
      clock,
      portFailed: nothing,
      events: { queueBroken: nothing, driverCalled: nothing },
      share: <T extends { close(): void }>(kind: string, make: () => T): T => {
        const shared = (this.#shares.get(kind) as T | undefined) ?? make()
        this.#shares.set(kind, shared)
        return shared
      },
    }
  }

  close(): void {
    for (const shared of this.#shares.values()) shared.close()
    this.engine.close()
    shim.close(this.#eventFd)
  }
}
