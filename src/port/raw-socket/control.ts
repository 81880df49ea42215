/** A raw socket port as the control plane keeps it. */
import { TUN_F_USO4, TUN_F_USO6 } from '../../abi/if-tun.ts'
import { shim } from '../../native/shim.ts'
import type { LinkInfo } from '../interface/link.ts'
import type { DescriptorKeeper } from '../keeper.ts'
import type { PortOptions, RawSocketOptions } from '../options.ts'
import type { OpenRawSocket } from './open.ts'
import { LostControlPort, takeOverLost } from './lost.ts'
import { openRawSocket } from './open.ts'
import { OFFLOADS_PLAIN } from '../../wire/vnet-hdr.ts'
import type { PortCall, PortDescription } from '../messages.ts'
import type {
  InterfaceVerdict,
  ControlPort,
  ControlPortContext,
  EngineAccess,
  PortFacts,
} from '../control-port.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { handOverRawSocket, moveOn, takeOverRawSocket } from './hand-over.ts'

const USO: number = TUN_F_USO4 | TUN_F_USO6

export class RawSocketControlPort implements ControlPort {
  readonly acceptsPostponedPeer = true
  readonly facesOutward = true
  readonly queues: number
  readonly vnetHdrLength: number
  readonly txOffloads: number
  readonly rxOffloads: number
  readonly lookUp?: () => LinkInfo | null
  readonly openNetns?: () => number
  readonly #socket: OpenRawSocket
  readonly #ifname: string | undefined
  /** Until `keep`. */
  #isAnothers: boolean
  /** What it is while it is quiet, but for its position. */
  #said: HandedState | undefined
  /** Of one that was taken over, until `keep`. */
  #keeper: DescriptorKeeper | undefined
  /** Of the interface, as the engine knows it. */
  #mtu: number

  constructor(socket: OpenRawSocket, options: RawSocketOptions, isAnothers = false) {
    this.#socket = socket
    this.#isAnothers = isAnothers
    this.#ifname = options.ifname
    const { queues, vnetHdrLength, link, hasUso } = socket
    this.queues = queues.length
    this.vnetHdrLength = vnetHdrLength
    // What the interface cannot do itself its kernel does as the frames leave.
    const plain = hasUso ? OFFLOADS_PLAIN : OFFLOADS_PLAIN & ~USO
    this.txOffloads = vnetHdrLength === 0 ? 0 : plain
    // What comes in is as its sender left it: nobody can be told to do less.
    this.rxOffloads = vnetHdrLength === 0 ? 0 : OFFLOADS_PLAIN
    this.#mtu = link.mtu
    if (!socket.isKnown) return
    this.lookUp = () => socket.lookUp()
    this.openNetns = () => socket.openNetns()
  }

  static open(options: RawSocketOptions, context: ControlPortContext): RawSocketControlPort {
    const socket = openRawSocket(options, { ...context, shim })
    // Whoever gives one gives it to the next one as well.
    if (options.fd === undefined) socket.keepBy(context.keeper)
    return new RawSocketControlPort(socket, options)
  }

  /** Goes on with one of another process: with its sockets, or without an interface. */
  static takeOver(
    options: RawSocketOptions,
    handed: HandedState,
    { keeper }: Pick<ControlPortContext, 'keeper'>,
  ): ControlPort {
    const lost = takeOverLost(options, handed)
    if (lost !== undefined) return lost
    const socket = takeOverRawSocket(shim, options, handed)
    const port = new RawSocketControlPort(socket, options, true)
    if (options.fd === undefined) port.#keeper = keeper
    return port
  }

  get description(): PortDescription {
    const { queues, geometry, vnetHdrLength } = this.#socket
    const shape = { queues, geometry, vnetHdrLength, mtu: this.#mtu }
    return { kind: 'raw-socket', ...shape, isAnothers: this.#isAnothers }
  }

  facts(): PortFacts {
    return this.#socket.identify()
  }

  setCarrier(): void {
    // The interface is the host's, and stays as it is.
  }

  change(before: PortOptions, after: PortOptions): void {
    this.#socket.change(before as RawSocketOptions, after as RawSocketOptions)
  }

  judge(link: LinkInfo | null): InterfaceVerdict {
    if (this.#socket.isGone) {
      const isBack = this.#ifname !== undefined && this.#socket.isBack(this.#ifname)
      return isBack ? 'anew' : 'gone'
    }
    // Without a vnet_hdr the mtu says how long the segments of a TCP frame are.
    const hasChanged = link !== null && link.mtu !== this.#mtu
    return hasChanged && this.vnetHdrLength === 0 ? 'adapt' : 'fine'
  }

  adapt(link: LinkInfo | null): PortCall {
    this.#mtu = link?.mtu ?? this.#mtu
    return { do: 'interface-mtu', mtu: this.#mtu }
  }

  placeholder(options: PortOptions, reason?: string): ControlPort {
    return new LostControlPort(options as RawSocketOptions, this, reason)
  }

  async quiesce(): Promise<HandedState> {
    return (this.#said = await this.preview())
  }

  async handOver(engine: EngineAccess): Promise<HandedState> {
    const position = (await engine.call({ do: 'leave' })) as number[]
    return { ...this.#said!, position }
  }

  preview(): Promise<HandedState> {
    return Promise.resolve(handOverRawSocket(shim, this.#socket))
  }

  async moveOn(
    position: JsonValue | undefined,
    engine: EngineAccess,
    isRehearsed: boolean,
  ): Promise<void> {
    const next = moveOn(this.#socket, position, isRehearsed)
    await engine.call({ do: 'next-slots', next })
  }

  async keep(engine: EngineAccess): Promise<void> {
    this.#isAnothers = false
    if (this.#keeper !== undefined) this.#socket.keepBy(this.#keeper)
    this.#keeper = undefined
    await engine.call({ do: 'keep' })
  }

  handedOver(): Promise<void> {
    this.#socket.letGo()
    return Promise.resolve()
  }

  close(): Promise<void> {
    this.#socket.close()
    return Promise.resolve()
  }

  abandon(): Promise<void> {
    this.#socket.abandon()
    return Promise.resolve()
  }
}
