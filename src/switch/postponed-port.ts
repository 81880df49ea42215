/**
 * A port whose set-up is postponed until the pre-incoming point: a predecessor may still own its
 * device or its socket, so nothing of it is touched. Who decides that is here as well.
 */
import { FramepumpError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { postponedInfo, whyNotPostponed } from '../port/tap/postpone.ts'
import { isAnswered } from '../sockets/listen.ts'
import { explain } from '../text.ts'
import { OFFLOADS_PLAIN } from '../wire/vnet-hdr.ts'
import type { PortDescription } from '../engine/messages.ts'
import type { OpenPort, OpenPortContext, PortFacts } from './switch-port.ts'
import { openPort } from './switch-port.ts'

/**
 * The port in its postponed form, or the reason why it is opened at once. `isIncoming`: the instance
 * was started to take over from another one.
 */
export function postponePort(
  options: PortOptions,
  isIncoming: boolean,
): PostponedSwitchPort | string {
  switch (options.type) {
    case 'tap': {
      const reason = whyNotPostponed(options, isIncoming)
      if (reason !== undefined) return reason
      const { ifname, netns, queues = 1, vnet_hdr = true } = options
      const facts = { ifname: ifname!, ...(netns === undefined ? {} : { netns }) }
      const txOffloads = vnet_hdr ? OFFLOADS_PLAIN : 0
      return new PostponedSwitchPort(options, postponedInfo(options), queues, txOffloads, facts)
    }
    case 'raw-socket': {
      const { ifname, netns, fd, queues = 1, vnet_hdr = true } = options
      if (!isIncoming) return 'not started with --incoming'
      if (fd !== undefined) return 'fd= is given: a given descriptor is used'
      // Its owner reads it as well: every frame would be there twice.
      const facts = { ifname: ifname!, ...(netns === undefined ? {} : { netns }) }
      const txOffloads = vnet_hdr ? OFFLOADS_PLAIN : 0
      return new PostponedSwitchPort(options, `ifname=${ifname}`, queues, txOffloads, facts)
    }
    case 'vhost-user': {
      const { path, server = true, queues = 1 } = options
      if (!isIncoming) return 'not started with --incoming'
      // A front-end that listens has one connection, which the predecessor has.
      if (server && !isAnswered(path)) return `nobody listens on ${path}`
      const info = server ? `another process listens on ${path}` : `connects to ${path} later`
      return new PostponedSwitchPort(options, info, queues, 0, { path })
    }
    default:
      return `a ${options.type} port has nothing that another process could own`
  }
}

export class PostponedSwitchPort implements OpenPort {
  readonly acceptsPostponedPeer: boolean = true
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

  constructor(
    options: PortOptions,
    info: string,
    queues: number,
    txOffloads: number,
    facts: PortFacts,
  ) {
    this.#options = options
    this.info = info
    this.queues = queues
    this.txOffloads = txOffloads
    this.#facts = facts
  }

  /**
   * Opens all of its queues, in order, or nothing. Throws the error of the step that failed; its
   * text starts with the port and the queue.
   */
  async open(context: OpenPortContext): Promise<OpenPort> {
    const { type, id } = this.#options
    let at = ''
    const reached = (queue: number): void => {
      at = ` queue ${queue}`
    }
    try {
      const open = await openPort(this.#options, { ...context, isLeft: true, reached })
      this.error = undefined
      return open
    } catch (error) {
      const failure = error instanceof Error ? error : new FramepumpError('ENGINE', String(error))
      failure.message = `${type} ${id}${at}: ${failure.message}`
      this.error = failure.message
      context.log(`${explain(failure)}: postponed again`)
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
