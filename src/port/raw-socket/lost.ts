/**
 * The place of a raw socket port whose interface is gone: nothing of it is left, and nothing passes. It
 * goes on when an interface of that name is there.
 */
import { ENODEV } from '../../abi/errno.ts'
import { strerror } from '../../abi/strerror.ts'
import { shim } from '../../native/shim.ts'
import type { LinkInfo } from '../interface/link.ts'
import { getLink } from '../interface/link.ts'
import { openNetns } from '../interface/netns.ts'
import type { PortOptions, RawSocketOptions } from '../options.ts'
import type { PortDescription } from '../messages.ts'
import type { HandedState } from '../handed.ts'
import { HandedReader } from '../handed.ts'
import type { InterfaceVerdict, ControlPort, PortFacts } from '../control-port.ts'

/** Of the state of a port without sockets. */
const LOST_VERSION = 101

export class LostControlPort implements ControlPort {
  readonly acceptsPostponedPeer = true
  readonly facesOutward = true
  readonly isPlaceholder = true
  readonly description: PortDescription = { kind: 'postponed' }
  readonly vnetHdrLength = 0
  readonly rxOffloads = 0
  readonly queues: number
  readonly txOffloads: number
  readonly failure: string
  /** It goes on when there is an interface of its name. */
  readonly isHoping: boolean
  #options: RawSocketOptions
  readonly #reason: string | undefined
  readonly #facts: PortFacts

  /** `reason` is why there is none. */
  constructor(
    options: RawSocketOptions,
    open: Pick<ControlPort, 'facts' | 'queues' | 'txOffloads'>,
    reason?: string,
  ) {
    this.#options = options
    this.#facts = open.facts()
    this.queues = open.queues
    this.txOffloads = open.txOffloads
    const { ifname } = options
    this.isHoping = ifname !== undefined
    const hope =
      ifname === undefined
        ? 'give the port another socket'
        : `the port goes on when there is an interface ${ifname}`
    this.#reason = reason
    const gone = `${strerror(ENODEV)}: the interface ${this.#facts.ifname} was deleted or moved away`
    this.failure = `${reason ?? gone} (${hope})`
  }

  facts(): PortFacts {
    return this.#facts
  }

  setCarrier(): void {
    // The switch remembers that it is shut.
  }

  change(_before: PortOptions, after: PortOptions): void {
    this.#options = after as RawSocketOptions
  }

  lookUp(): LinkInfo | null {
    const { ifname } = this.#options
    if (ifname === undefined) return null
    const netnsFd = this.openNetns()
    // The namespace may have gone with it.
    if (netnsFd < 0 && this.#options.netns !== undefined) return null
    try {
      return getLink(shim, netnsFd, ifname)
    } catch {
      return null
    } finally {
      if (netnsFd >= 0) shim.close(netnsFd)
    }
  }

  openNetns(): number {
    const { netns } = this.#options
    try {
      return netns === undefined ? -1 : openNetns(shim, netns)
    } catch {
      return -1
    }
  }

  placeholder(options: PortOptions, reason?: string): ControlPort {
    return new LostControlPort(options as RawSocketOptions, this, reason)
  }

  judge(link: LinkInfo | null): InterfaceVerdict {
    return link === null ? 'gone' : 'anew'
  }

  handOver(): Promise<HandedState> {
    const { queues, txOffloads } = this
    const state = { facts: { ...this.#facts }, queues, txOffloads, reason: this.#reason ?? null }
    return Promise.resolve({ version: LOST_VERSION, state, fds: [] })
  }

  handedOver(): Promise<void> {
    return Promise.resolve()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** The same where another process had such a one; undefined: that one had its sockets. */
export function takeOverLost(
  options: RawSocketOptions,
  handed: HandedState,
): LostControlPort | undefined {
  if (handed.version !== LOST_VERSION) return undefined
  const state = HandedReader.of(options, handed, LOST_VERSION)
  const told = state.object('facts')
  const facts = {
    ...(told.has('ifname') ? { ifname: told.string('ifname') } : {}),
    ...(told.has('netns') ? { netns: told.string('netns') } : {}),
  }
  const [queues, txOffloads] = [state.number('queues'), state.number('txOffloads')]
  const reason = state.has('reason') ? state.string('reason') : undefined
  return new LostControlPort(options, { facts: () => facts, queues, txOffloads }, reason)
}
