/**
 * How the engine falls asleep: after frames it dozes first, for a tenth of a second, if that is its pace. A doze
 * is short, and ends with a frame of nobody's that passes through the same code (engine/stay-warm.ts), which would
 * else go from the caches while the core does other things or nothing.
 *
 *     frames | doze, stir | doze, stir | ... DOZES | asleep until something wakes it
 *
 * For everybody else all of that is one sleep: who may wake it has been asked to before the first doze.
 */
import type { IoTier } from '../io/tier.ts'

/**
 * A stir takes 9 us when warm, 22 after half a millisecond of sleep, 33 after one, 59 after two and 147 after five,
 * which is how fast the caches lose it (EPYC, KVM, others on the same host).
 */
export const DOZE_US = 1000
/**
 * After the last frame. As long as it dozes the engine takes 4 to 12 % of a core, whatever the length of a doze: what
 * is stirred more seldom is colder, and takes longer. So it is for those who ask for it.
 */
export const DOZES = 100

/** Of so many turns without a frame, which only an engine has that never sleeps, one stirs: a millisecond or two. */
const STIR_SPINS_MASK = 4095

/** What is done between two dozes. */
export interface Warmth {
  /** @hot */
  stir(): void
}

export interface DozeOptions {
  /** What keeps the code warm between two frames. */
  readonly warmth?: Warmth
}

export class Doze {
  /** Of the pace. */
  isOn = true
  readonly #tier: IoTier
  readonly #warmth: Warmth | null
  /** Dozes until the engine sleeps. */
  #left = 0

  constructor(tier: IoTier, { warmth }: DozeOptions) {
    this.#tier = tier
    this.#warmth = warmth ?? null
  }

  /** Frames have come: more may. @hot */
  expectMore(): void {
    this.#left = DOZES
  }

  /** No frames are to come. */
  expectNone(): void {
    this.#left = 0
  }

  /** As the tier's `endTurn`. A sleep that has an end is none of those: dozes would make it longer. @hot */
  endTurn(waitUs: number): void {
    const tier = this.#tier
    const warmth = this.#warmth
    if (waitUs < 0 && warmth !== null && this.isOn) {
      while (this.#left > 0) {
        this.#left--
        if (tier.endTurn(DOZE_US)) return
        warmth.stir()
      }
    }
    tier.endTurn(waitUs)
  }

  /** There were so many turns without a frame, one after another, none of which slept. @hot */
  spun(turns: number): void {
    if ((turns & STIR_SPINS_MASK) === 0) this.#warmth?.stir()
  }
}
