/**
 * What the engine does now and then between two bursts: reads that failed are tried again, old addresses
 * and memberships go, counters are published, and addresses that keep moving are told of.
 */
import type { IoTier } from '../io/tier.ts'
import type { PolledPort } from '../port/contract.ts'
import {
  ENGINE_GROUPS,
  ENGINE_GROUPS_FULL,
  ENGINE_LOOP_SECONDS,
  ENGINE_MAC_ENTRIES,
  ENGINE_MAC_FULL,
  ENGINE_MAC_MOVES,
} from './cells.ts'
import type { MovingAddress } from './messages.ts'
import type { MacTable } from './mac-table.ts'
import type { Snooping } from './snooping.ts'
import type { TapBudget } from './tap-budget.ts'
import type { TurnBudget } from './turn-budget.ts'

const TICK_US = 20_000
const SWEEP_INTERVAL_US = 1_000_000

/** Addresses that moved all the time in the last second. */
export type OnLoops = (loops: readonly MovingAddress[]) => void

export class Housekeeping {
  /** Seconds without a frame after which an address goes. */
  macAgingS = 0
  readonly #tier: IoTier
  readonly #budget: TurnBudget
  readonly #tapBudget: TapBudget
  readonly #macTable: MacTable
  readonly #snooping: Snooping
  /** The engine clock's, microseconds first. */
  readonly #time: Float64Array
  readonly #polled: readonly PolledPort[]
  readonly #counters: Float64Array
  readonly #onLoops: OnLoops
  readonly #eachSecond: () => void
  #nextTickUs = 0
  #nextSweepUs = 0
  #isSweeping = false
  #isSweepingGroups = false

  /** `counters` are the engine's. */
  constructor(
    tier: IoTier,
    budget: TurnBudget,
    tapBudget: TapBudget,
    macTable: MacTable,
    snooping: Snooping,
    time: Float64Array,
    polled: readonly PolledPort[],
    counters: Float64Array,
    onLoops: OnLoops,
    eachSecond: () => void,
  ) {
    this.#tier = tier
    this.#budget = budget
    this.#tapBudget = tapBudget
    this.#macTable = macTable
    this.#snooping = snooping
    this.#time = time
    this.#polled = polled
    this.#counters = counters
    this.#onLoops = onLoops
    this.#eachSecond = eachSecond
  }

  /** The next tick does all of it, whenever the last one was. */
  soon(): void {
    this.#nextTickUs = 0
    this.#nextSweepUs = 0
  }

  /** The clock has just been read. @hot */
  tick(): void {
    // As an argument it might be allocated.
    const nowUs = this.#time[0]
    if (nowUs < this.#nextTickUs) return
    this.#nextTickUs = nowUs + TICK_US
    this.#tier.retry()
    this.#budget.recover(nowUs)
    this.#tapBudget.recover(nowUs)
    if (nowUs >= this.#nextSweepUs) {
      this.#nextSweepUs = nowUs + SWEEP_INTERVAL_US
      this.#isSweeping = true
      this.#isSweepingGroups = this.#snooping.isOn
      this.#lookForLoops()
      this.#eachSecond()
    }
    const beforeS = ((nowUs / 1e6) | 0) - this.macAgingS
    if (this.#isSweeping) this.#isSweeping = !this.#macTable.sweep(beforeS)
    if (this.#isSweepingGroups) this.#isSweepingGroups = !this.#snooping.sweep()
    this.publishCounters(false)
  }

  #lookForLoops(): void {
    const loops = this.#macTable.watch.take()
    if (loops.length === 0) return
    this.#counters[ENGINE_LOOP_SECONDS]++
    this.#onLoops(loops)
  }

  /** `mustAsk`: the kernel as well, of drops that it gives no sign of. */
  publishCounters(mustAsk: boolean): void {
    for (const port of this.#polled) port.countDrops?.(mustAsk)
    this.#counters[ENGINE_MAC_ENTRIES] = this.#macTable.entries
    this.#counters[ENGINE_MAC_MOVES] = this.#macTable.moves
    this.#counters[ENGINE_MAC_FULL] = this.#macTable.full
    this.#counters[ENGINE_GROUPS] = this.#snooping.groups
    this.#counters[ENGINE_GROUPS_FULL] = this.#snooping.full
  }
}
