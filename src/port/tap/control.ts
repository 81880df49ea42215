/** A TAP as the control plane keeps it. */
import { VNET_HDR_TUNNEL_LENGTH } from '../../abi/virtio-net.ts'
import { shim } from '../../native/shim.ts'
import { OFFLOADS_ALL, OFFLOADS_PLAIN } from '../../wire/vnet-hdr.ts'
import type { LinkInfo } from '../interface/link.ts'
import type { ControlPort, ControlPortContext, EngineAccess, PortFacts } from '../control-port.ts'
import type { HandedState } from '../handed.ts'
import type { TapOptions } from '../options.ts'
import type { TapShape } from '../shape.ts'
import { FollowingTap } from '../shape.ts'
import { handOverTap, takeOverTap, whyNotOpenedAgain } from './hand-over.ts'
import type { TakenTap } from './hand-over.ts'
import type { TapDescription } from './messages.ts'
import { openTap } from './open.ts'
import type { OpenTap } from './open-tap.ts'

export async function openTapPort(
  options: TapOptions,
  context: ControlPortContext,
): Promise<ControlPort> {
  return new TapControlPort(await openTap(options, { ...context, shim }))
}

export function takeOverTapPort(
  options: TapOptions,
  handed: HandedState,
  context: ControlPortContext,
): ControlPort {
  const taken = takeOverTap(options, handed, { ...context, shim })
  return new TapControlPort(taken.tap, taken)
}

/** What a vnet_hdr of that length has room for. */
function fittingOffloads(vnetHdrLength: number): number {
  if (vnetHdrLength === 0) return 0
  return vnetHdrLength >= VNET_HDR_TUNNEL_LENGTH ? OFFLOADS_ALL : OFFLOADS_PLAIN
}

class TapControlPort implements ControlPort {
  readonly acceptsPostponedPeer = true
  readonly queues: number
  readonly txOffloads: number
  rxOffloads = 0
  readonly tap: FollowingTap
  readonly #tap: OpenTap
  /** What its kernel knows. */
  readonly #known: number
  /** What was asked for, of which the kernel may know less. */
  #asked = 0
  /** What it is while it is quiet. */
  #said: HandedState | undefined
  /** It was taken over in that shape. */
  readonly #handed: TapShape | undefined

  constructor(tap: OpenTap, taken?: TakenTap) {
    this.#tap = tap
    this.queues = tap.fds.length
    this.#handed = taken?.shape
    this.tap = new FollowingTap(tap.vnetHdrLength, tap.fds.length, taken?.shape)
    this.rxOffloads = tap.inForce
    this.#asked = taken?.asked ?? 0
    // TUNSETOFFLOAD limits only what the kernel gives us: it takes every offload from us that fits
    // into the header. On a link that may be shorter, as a guest without tunnels sends none.
    this.txOffloads = fittingOffloads(tap.vnetHdrLength)
    this.#known = tap.probed.hasTunnel ? OFFLOADS_ALL : OFFLOADS_PLAIN
  }

  get description(): TapDescription {
    const { fds, vnetHdrLength } = this.#tap
    const handed = this.#handed
    return {
      kind: 'tap',
      fds: [...fds],
      vnetHdrLength,
      ...(handed === undefined ? {} : { handed }),
    }
  }

  get vnetHdrLength(): number {
    return this.tap.current.vnetHdrLength
  }

  facts(): PortFacts {
    const { ifname, netns } = this.#tap.identify()
    return { ifname, ...(netns === undefined ? {} : { netns }) }
  }

  get offloads(): { readonly possible: number; readonly asked: number } {
    const possible = this.#known & fittingOffloads(this.tap.leastVnetHdrLength)
    return { possible, asked: this.#asked }
  }

  setOffloads(offloads: number): void {
    this.#asked = offloads
    this.rxOffloads = this.#tap.setOffloads(offloads)
  }

  setCarrier(isUp: boolean): void {
    this.#tap.setCarrier(isUp)
  }

  change(before: TapOptions, after: TapOptions): void {
    this.#tap.change(before, after)
  }

  lookUp(): LinkInfo | null {
    return this.#tap.lookUp()
  }

  openNetns(): number {
    return this.#tap.openNetns()
  }

  probe(): void {
    this.#tap.probe()
  }

  async quiesce(engine: EngineAccess): Promise<HandedState> {
    return (this.#said = await this.preview(engine))
  }

  async handOver(engine: EngineAccess): Promise<HandedState> {
    await engine.call({ do: 'leave' })
    return this.#said!
  }

  async preview(engine: EngineAccess): Promise<HandedState> {
    const shape = (await engine.call({ do: 'describe' })) as TapShape
    return handOverTap(shim, this.#tap, shape, this.#asked)
  }

  async keep(engine: EngineAccess): Promise<void> {
    await engine.call({ do: 'keep' })
  }

  handedOver(): Promise<void> {
    this.#tap.letGo()
    return Promise.resolve()
  }

  whyNotOpenedAgain(): string | undefined {
    return whyNotOpenedAgain(shim, this.#tap.fds[0])
  }

  close(): Promise<void> {
    return this.#tap.close()
  }

  abandon(): Promise<void> {
    return this.#tap.abandon()
  }
}
