/**
 * The place of a port whose set-up is postponed: it can be wired and captured, and nothing passes,
 * as the engine is paused while there is one.
 */
import { VNET_HDR_MRG_LENGTH } from '../abi/virtio-net.ts'
import type { Burst } from '../mem/burst.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import type { EngineKind, EnginePort } from './contract.ts'
import { tapEnds } from './tap/kind.engine.ts'
import { guestEnds } from './virtio/kind.engine.ts'

export const postponedKind: EngineKind<{ readonly kind: 'postponed' }> = {
  make: (_description, { index, txOffloads }, { counters }) =>
    new PostponedEnginePort(index, txOffloads, counters),
  // What it will be is known when frames wait already.
  farEnds: () => [tapEnds(VNET_HDR_MRG_LENGTH), guestEnds],
}

export class PostponedEnginePort implements EnginePort {
  readonly index: number
  readonly txOffloads: number
  readonly #counters: Float64Array

  constructor(index: number, txOffloads: number, counters: Float64Array) {
    this.index = index
    this.txOffloads = txOffloads
    this.#counters = counters
  }

  /** @hot */
  transmit(_burst: Burst, _list: Int32Array, _first: number, count: number): void {
    this.#counters[this.index * COUNTERS_STRIDE + COUNTERS.tx_drop_link_down] += count
  }

  /** @hot */
  endTurn(): void {
    // It was given nothing that it kept.
  }

  close(): void {
    // It has nothing.
  }
}
