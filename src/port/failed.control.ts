/**
 * A port that could not be opened and is kept all the same, so that the others go on and it can be
 * seen why: it has its place on the switch or on a link, and nothing passes.
 */
import type { PortOptions } from './options.ts'
import type { PortDescription } from './messages.ts'
import type { ControlPort, PortFacts } from './control-port.ts'
import type { HandedState } from './handed.ts'
import { HandedReader } from './handed.ts'

/** Of the state of a port that is none of its kind's. */
const FAILED_VERSION = 0

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

  constructor(options: PortOptions, failure: string) {
    this.queues = 'queues' in options ? (options.queues ?? 1) : 1
    this.failure = failure
    this.#facts = 'path' in options ? { path: options.path } : {}
  }

  facts(): PortFacts {
    return this.#facts
  }

  setCarrier(): void {
    // There is no interface that could show it.
  }

  handOver(): Promise<HandedState> {
    return Promise.resolve({ version: FAILED_VERSION, state: { failure: this.failure }, fds: [] })
  }

  handedOver(): Promise<void> {
    return Promise.resolve()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** The same again where another process had such a one; undefined: it is the state of another port. */
export function takeOverFailed(
  options: PortOptions,
  handed: HandedState,
): FailedControlPort | undefined {
  if (handed.version !== FAILED_VERSION) return undefined
  const state = HandedReader.of(options, handed, FAILED_VERSION)
  return new FailedControlPort(options, state.string('failure'))
}
