/**
 * How many frames the TAPs may have in a turn, all of them together. Mostly that is what the tier can
 * read. But where each frame goes to many ports, as floods do, a turn with so many would take a tenth of
 * a second, in which guests, other TAPs and the control plane wait: with a hundred TAPs and two of them in a
 * loop it did (512 frames, 98 writes each). Then a turn has as many frames as can be forwarded in
 * TURN_NS, and twice as many after each RECOVERY_US, until that is too many again.
 *
 * The cost is reckoned, as that of guests is (turn-budget.ts), so a thread that is preempted changes nothing.
 */
import type { IoTier } from '../io/tier.ts'

/** Reckoned nanoseconds of a turn; twice of what 512 short frames cost that leave by one TAP each. */
export const TURN_NS = 1_500_000
const RECOVERY_US = 100_000
/** As good as none. */
const FRAMES_MAX = 0x10000

export class TapBudget {
  readonly #tier: IoTier
  #framesMax: number = FRAMES_MAX
  /** Of this turn so far. */
  #frames = 0
  #costNs = 0
  #nextRecoveryUs = 0

  constructor(tier: IoTier) {
    this.#tier = tier
  }

  /** A burst of so many frames of a TAP was forwarded. @hot */
  spent(frames: number, costNs: number): void {
    this.#frames += frames
    this.#costNs += costNs
  }

  /** @hot */
  endTurn(): void {
    if (this.#costNs > TURN_NS) this.#limit(((this.#frames * TURN_NS) / this.#costNs) | 0)
    this.#frames = 0
    this.#costNs = 0
  }

  /** Called now and then. */
  recover(nowUs: number): void {
    if (this.#framesMax === FRAMES_MAX || nowUs < this.#nextRecoveryUs) return
    this.#nextRecoveryUs = nowUs + RECOVERY_US
    this.#limit(2 * this.#framesMax)
  }

  #limit(frames: number): void {
    this.#framesMax = Math.max(1, Math.min(frames, FRAMES_MAX))
    this.#tier.limitFrames(this.#framesMax)
  }
}
