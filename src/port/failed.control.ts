/**
 * A port that could not be opened and is kept all the same, so that the others go on and it can be
 * seen why: it has its place on the switch or on a link, and nothing passes.
 */
import type { FramepumpError } from '../errors.ts'
import type { PortOptions } from './options.ts'
import { explain } from '../text.ts'
import type { PortDescription } from './messages.ts'
import type { ControlPort, PortFacts } from './control-port.ts'

export class FailedControlPort implements ControlPort {
  readonly acceptsPostponedPeer = true
  readonly description: PortDescription = { kind: 'postponed' }
  readonly queues: number
  readonly vnetHdrLength = 0
  readonly txOffloads = 0
  readonly rxOffloads = 0
  /** Why, and what to do about it. */
  readonly failure: string
  readonly #facts: PortFacts

  constructor(options: PortOptions, error: FramepumpError) {
    this.queues = 'queues' in options ? (options.queues ?? 1) : 1
    this.failure = explain(error)
    this.#facts = 'path' in options ? { path: options.path } : {}
  }

  facts(): PortFacts {
    return this.#facts
  }

  setCarrier(): void {
    // There is no interface that could show it.
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
