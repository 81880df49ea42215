/** Has ports do what they owe to one another (agree.ts), after each change of any. */
import type { EngineClient } from '../engine/client.ts'
import type { ControlPort } from '../port/control-port.ts'
import type { FollowingTap, ShapedTap, TapShape } from '../port/shape.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import { agree } from './agree.ts'
import type { AgreementAction } from './agree.ts'

const SETTLE_MS = 100

/** A port, as far as it agrees with others. */
export interface AgreementParty {
  readonly index: number
  readonly open: ControlPort
  readonly peer: AgreementParty | undefined
  readonly failure: string | undefined
  readonly merges: boolean
  wasMerging: boolean
}

export class Agreement {
  readonly #engine: Pick<EngineClient, 'request'>
  readonly #ports: () => readonly AgreementParty[]
  readonly #log: Log
  #settling: NodeJS.Timeout | undefined
  #isSuspended = false
  #isClosed = false
  /** Those that are being reached. */
  readonly #reaching = new Set<Promise<void>>()

  constructor(
    engine: Pick<EngineClient, 'request'>,
    ports: () => readonly AgreementParty[],
    log: Log,
  ) {
    this.#engine = engine
    this.#ports = ports
    this.#log = log
  }

  /** Resolves when the engine has done what is done at once. Never rejects. */
  reach(): Promise<void> {
    return this.#begin(false)
  }

  /** Nothing is asked for until `resume`; resolves when all that was is done. */
  async suspend(): Promise<void> {
    this.#isSuspended = true
    clearTimeout(this.#settling)
    await Promise.all(this.#reaching)
  }

  resume(): void {
    this.#isSuspended = false
  }

  /** Nothing is asked for any more. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#settling)
  }

  #begin(hasSettled: boolean): Promise<void> {
    if (this.#isClosed || this.#isSuspended) return Promise.resolve()
    const reached = this.#reach(hasSettled).finally(() => this.#reaching.delete(reached))
    this.#reaching.add(reached)
    return reached
  }

  async #reach(hasSettled: boolean): Promise<void> {
    clearTimeout(this.#settling)
    try {
      const ports = this.#ports()
      const { actions, isSettling } = agree(ports, hasSettled)
      if (isSettling && !this.#isSuspended) {
        this.#settling = setTimeout(() => void this.#begin(true), SETTLE_MS).unref()
      }
      await this.#run(actions, ports)
      if (this.#isClosed || this.#isSuspended) return
      // The header of a TAP may have room for more now, and other frames are merged. What a TAP has
      // refused is asked of it again with the next change.
      const now = this.#ports()
      const { actions: rest } = agree(now)
      await this.#run(
        rest.filter((action) => action.do !== 'shape'),
        now,
      )
    } catch (error) {
      this.#log(explain(error), 'error')
    }
  }

  async #run(actions: readonly AgreementAction[], ports: readonly AgreementParty[]): Promise<void> {
    const answers: Promise<void>[] = []
    for (const action of actions) {
      const party = ports.find(({ index }) => index === action.port)!
      if (action.do === 'set-offloads') party.open.setOffloads?.(action.offloads)
      else if (action.do === 'shape') {
        answers.push(this.#shape(action.port, party.open.tap!, action.shape))
      } else {
        party.wasMerging = action.isMerging
        const { port, isMerging } = action
        this.#engine
          .request({ op: 'set-merging', port, isMerging })
          .catch((error) => this.#log(explain(error), 'error'))
      }
    }
    await Promise.all(answers)
  }

  /** The engine serves requests in their order: the last one asked for stands. */
  async #shape(port: number, tap: FollowingTap, shape: TapShape): Promise<void> {
    tap.asked = shape
    tap.began(shape)
    try {
      const { failures, ...shaped } = (await this.#engine.request({
        op: 'call',
        port,
        call: { do: 'shape', shape },
      })) as ShapedTap
      tap.current = shaped
      // What was not done is asked for again with the next change.
      if (tap.asked === shape) tap.asked = shaped
      this.#tell(tap, failures.join(', '))
    } catch (error) {
      this.#tell(tap, explain(error))
    } finally {
      tap.ended(shape)
    }
  }

  #tell(tap: FollowingTap, failure: string): void {
    if (failure !== '' && failure !== tap.failure) this.#log(failure, 'warning')
    tap.failure = failure
  }
}
