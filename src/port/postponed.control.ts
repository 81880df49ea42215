/**
 * A port whose set-up is postponed until the pre-incoming point: a predecessor may still own its
 * device or its socket, so nothing of it is touched. Which ports wait is up to their kind.
 */
import { FramepumpError } from '../errors.ts'
import type { PortOptions } from './options.ts'
import { explain } from '../text.ts'
import type { PortDescription } from './messages.ts'
import type { ControlPort, ControlPortContext, PortFacts } from './control-port.ts'

/** What a port that waits is going to be. */
export interface PostponedForm {
  /** For people. */
  readonly info: string
  readonly queues: number
  /** What it will be able to take, as configured. */
  readonly txOffloads: number
  readonly facts: PortFacts
}

/** Opens a port of any kind. */
export type Opener = (options: PortOptions, context: ControlPortContext) => Promise<ControlPort>

export class PostponedControlPort implements ControlPort {
  readonly acceptsPostponedPeer: boolean = true
  readonly postponed: PostponedControlPort = this
  readonly description: PortDescription = { kind: 'postponed' }
  readonly vnetHdrLength = 0
  readonly rxOffloads = 0
  /** What is known of it, for people. */
  readonly info: string
  readonly queues: number
  /** What it will be able to take, as configured. */
  readonly txOffloads: number
  /** Why it could not be opened the last time. */
  error: string | undefined
  #options: PortOptions
  readonly #facts: PortFacts

  readonly #open: Opener

  constructor(options: PortOptions, form: PostponedForm, open: Opener) {
    this.#options = options
    this.info = form.info
    this.queues = form.queues
    this.txOffloads = form.txOffloads
    this.#facts = form.facts
    this.#open = open
  }

  /**
   * Opens all of its queues, in order, or nothing. Throws the error of the step that failed; its
   * text starts with the port and the queue.
   */
  async open(context: ControlPortContext): Promise<ControlPort> {
    const { type, id } = this.#options
    let at = ''
    const reached = (queue: number): void => {
      at = ` queue ${queue}`
    }
    try {
      const open = await this.#open(this.#options, { ...context, isLeft: true, reached })
      this.error = undefined
      return open
    } catch (error) {
      const failure = error instanceof Error ? error : new FramepumpError('ENGINE', String(error))
      failure.message = `${type} ${id}${at}: ${failure.message}`
      this.error = failure.message
      context.log(`${explain(failure)}: postponed again`, 'error')
      throw failure
    }
  }

  /** For the time when it is open. */
  change(_before: PortOptions, after: PortOptions): void {
    this.#options = after
  }

  facts(): PortFacts {
    return this.#facts
  }

  setCarrier(): void {
    // The switch remembers it for the time when it is open.
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
