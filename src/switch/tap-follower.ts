/**
 * Has each TAP on a link follow the guest at the other end: frames pass with their vnet_hdr
 * unchanged, and a queue of the TAP is attached while the guest has its queue pair enabled. A TAP
 * without a guest, on a link or on the switch, is as it was when it was opened.
 *
 * A queue is attached at once. It is detached when the guest has not used it for a while, because a
 * front-end enables its pairs one after another, and the frames that wait in a queue are lost.
 */
import { explain } from '../text.ts'
import type { EngineClient } from '../engine/client.ts'
import type { OpenPort } from '../port/open-port.ts'
import type { FollowingTap } from '../port/shape.ts'
import type { ShapedTap, TapShape } from '../port/shape.ts'

const SETTLE_MS = 100

export interface FollowParty {
  readonly index: number
  readonly open: OpenPort
  readonly peer: FollowParty | undefined
  readonly failure: string | undefined
}

/** The shape for a TAP with that port at the other end of its link, or none. */
export function wantedShape(
  preset: TapShape,
  peer: Pick<OpenPort, 'isConnected' | 'isPairEnabled' | 'vnetHdrLength'> | undefined,
): TapShape {
  if (peer?.isConnected !== true || peer.isPairEnabled === undefined) return preset
  const enabled = preset.attached.map((_, pair) => peer.isPairEnabled!(pair))
  return {
    vnetHdrLength: preset.vnetHdrLength === 0 ? 0 : peer.vnetHdrLength,
    // A guest that has enabled nothing has only just come.
    attached: enabled.includes(true)
      ? enabled.map((isEnabled, queue) => isEnabled || queue === 0)
      : preset.attached,
  }
}

function isSame(a: TapShape, b: TapShape): boolean {
  return a.vnetHdrLength === b.vnetHdrLength && isSameSet(a.attached, b.attached)
}

function isSameSet(a: readonly boolean[], b: readonly boolean[]): boolean {
  return a.every((isAttached, queue) => isAttached === b[queue])
}

export class TapFollower {
  readonly #engine: Pick<EngineClient, 'request'>
  readonly #log: (message: string) => void
  #parties: readonly FollowParty[] = []
  #settling: NodeJS.Timeout | undefined

  constructor(engine: Pick<EngineClient, 'request'>, log: (message: string) => void) {
    this.#engine = engine
    this.#log = log
  }

  /**
   * Looks at all ports after a change of any; resolves when the engine has done what is done at
   * once, and never rejects.
   */
  async follow(parties: readonly FollowParty[]): Promise<void> {
    this.#parties = parties
    clearTimeout(this.#settling)
    await this.#shapeAll(false)
  }

  /** Nothing is asked for any more. */
  close(): void {
    this.#parties = []
    clearTimeout(this.#settling)
  }

  async #shapeAll(hasSettled: boolean): Promise<void> {
    const answers: Promise<void>[] = []
    let isSettling = false
    for (const party of this.#parties) {
      const { tap } = party.open
      if (tap === undefined || party.failure !== undefined) continue
      const wanted = wantedShape(tap.preset, party.peer?.open)
      const attached = wanted.attached.map(
        (isWanted, queue) => isWanted || (!hasSettled && tap.asked.attached[queue]),
      )
      if (!isSameSet(attached, wanted.attached)) isSettling = true
      // The offloads are agreed on before the header becomes shorter, so not by this timer.
      const shape = hasSettled ? { ...tap.asked, attached } : { ...wanted, attached }
      if (!isSame(shape, tap.asked)) answers.push(this.#shape(party.index, tap, shape))
    }
    if (isSettling) {
      this.#settling = setTimeout(() => void this.#shapeAll(true), SETTLE_MS).unref()
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
    if (failure !== '' && failure !== tap.failure) this.#log(failure)
    tap.failure = failure
  }
}
