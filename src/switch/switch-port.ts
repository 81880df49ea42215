/**
 * A port as the control plane keeps it: what was opened, what the engine is told, how it is shown
 * and closed. One class per kind of port.
 */
import { VNET_HDR_TUNNEL_LENGTH } from '../abi/virtio-net.ts'
import { CaptureSession } from '../capture/capture.ts'
import type { EventSignals } from '../native/event-signals.ts'
import { shim } from '../native/shim.ts'
import { MemoryEndpoint } from '../port/memory-port.ts'
import { MemoryRing } from '../port/memory-ring.ts'
import type { MemoryOptions, PcapOptions, PortOptions, TapOptions } from '../port/options.ts'
import type { LinkInfo } from '../port/interface/link.ts'
import { OpenTap, openTap } from '../port/tap/open.ts'
import { OFFLOADS_ALL, OFFLOADS_PLAIN } from '../wire/vnet-hdr.ts'
import type { DescriptorShare } from './descriptor-budget.ts'
import { DescriptorBudget } from './descriptor-budget.ts'
import type { PortDescription, VirtioCall } from '../engine/messages.ts'
import { RawSocketSwitchPort } from './raw-socket-port.ts'
import { ReplaySwitchPort } from './replay-port.ts'
import { FollowingTap } from './tap-follower.ts'
import { VhostUserSwitchPort } from './vhost-user-port.ts'
import { VirtioNetSwitchPort } from './virtio-net-port.ts'

/** Facts for PortInfo that differ by kind. */
export interface PortFacts {
  readonly ifname?: string
  readonly netns?: string
  readonly path?: string
}

/** `gone`: what is open is of no use any more. `anew`: the port is to be opened anew. */
export type InterfaceVerdict = 'fine' | 'gone' | 'anew'

export interface OpenPort {
  /**
   * A TAP on a link to it may stay postponed. Without it, such a TAP is opened when it is wired. The
   * switch itself accepts it, too.
   */
  readonly acceptsPostponedPeer: boolean
  readonly queues: number
  readonly vnetHdrLength: number
  /** TUN_F_* bits that it can be given. */
  readonly txOffloads: number
  /** TUN_F_* bits that its frames may need. */
  readonly rxOffloads: number
  readonly description: PortDescription
  facts(): PortFacts
  /** Lets the kernel leave at most these offloads to us; absent: the sender decides. */
  setOffloads?(wish: number): void
  setCarrier(isUp: boolean): void
  /**
   * Options that change in place are `after` from now on. When it throws, some may be: it is undone by
   * the opposite call. Absent: none of them is the port's own business.
   */
  change?(before: PortOptions, after: PortOptions): void
  /** The interface behind it; null: it is gone, or the kernel does not tell. Absent: there is none. */
  lookUp?(): LinkInfo | null
  /** A descriptor of that one's network namespace, for the caller to close; -1: ours, or not told. */
  openNetns?(): number
  /** What comes in at that interface enters the switch; absent: what the host sends out by it does. */
  readonly facesOutward?: boolean
  /** What the state of that interface means for the port; absent: nothing. */
  judge?(link: LinkInfo | null): InterfaceVerdict
  /** Looks again whether the device is what it was; throws when not. */
  probe?(): void
  /** It is there and cannot work: why. */
  readonly failure?: string
  /** Somebody is at the other end; absent: there is no such thing. */
  readonly isConnected?: boolean
  /** The guest uses this queue pair; absent: there are none. */
  isPairEnabled?(pair: number): boolean
  /** It is a TAP whose queues and vnet_hdr follow the guest on its link. */
  readonly tap?: FollowingTap
  /** The engine has its port: whoever waits at the other end may come. */
  start?(engine: EngineAccess): void
  /** Nobody comes any more; the engine still has its port. */
  stop?(): Promise<void>
  /** It was found that the port cannot go on. */
  failed?(): void
  /** The guest broke one of its queues, which stands still. */
  queueBroken?(queue: number): void
  /** The device has something for a driver that asked to be told. */
  driverCalled?(): void
  /** The engine has let go of it. */
  close(): Promise<void>
  /**
   * In the place of `close`, when the port was not added after all: what was given to it stays its
   * giver's. Absent: nothing is ever given.
   */
  abandon?(): Promise<void>
}

/** What a port whose guest comes and goes does to its engine's end. */
export interface EngineAccess {
  call(call: VirtioCall): Promise<unknown>
  /** A frame enters the switch as if the port had sent it. */
  inject(frame: Uint8Array): Promise<unknown>
  /** Another guest takes the port over, none of whose queues runs yet. */
  newGuest(): Promise<void>
  /** Connection, offloads or queues have changed; resolves when frames pass accordingly. */
  changed(): Promise<void>
  /** Looks again what its peer on a link is; throws when that is not what it was. */
  probePeer(): void
}

export interface OpenPortContext {
  readonly given: ReadonlyMap<string, number>
  readonly log: (message: string) => void
  readonly wake: () => void
  /** For eventfds of a front-end. */
  readonly signals: EventSignals
  readonly stateDirectory: string | undefined
  /** The port cannot go on; what is left of it waits to be closed. */
  readonly failed: (reason: string) => void
  /** It takes over from another process, and must not get at what that still has. */
  readonly takesOver?: boolean
  /** Its owner leaves a persistent device behind: it is not made anew. */
  readonly isLeft?: boolean
  /** Told which queue is opened or set up next. */
  readonly reached?: (queue: number) => void
}

/** Its descriptors are set aside until it is closed. Throws, also SysError DESCRIPTOR_SHARE. */
export async function openPort(options: PortOptions, context: OpenPortContext): Promise<OpenPort> {
  const share = DescriptorBudget.ofProcess.take(options)
  try {
    return giveBackAtEnd(await openKind(options, context, share), share)
  } catch (error) {
    share.giveBack()
    throw error
  }
}

/** However the port ends. */
function giveBackAtEnd(open: OpenPort, share: DescriptorShare): OpenPort {
  const ending: { close(): Promise<void>; abandon?(): Promise<void> } = open
  for (const way of ['close', 'abandon'] as const) {
    const end = ending[way]?.bind(open)
    if (end !== undefined) ending[way] = () => end().finally(() => share.giveBack())
  }
  return open
}

async function openKind(
  options: PortOptions,
  context: OpenPortContext,
  share: DescriptorShare,
): Promise<OpenPort> {
  switch (options.type) {
    case 'tap':
      return openTapPort(options, context)
    case 'raw-socket':
      return RawSocketSwitchPort.open(options, context)
    case 'memory':
      return new MemorySwitchPort(options, context.wake)
    case 'vhost-user':
      return new VhostUserSwitchPort(options, context, share)
    case 'virtio-net':
      return new VirtioNetSwitchPort(options, context)
    case 'pcap':
      return options.replay === undefined
        ? new RecordSwitchPort(options, context)
        : ReplaySwitchPort.open(options, context.log)
  }
}

async function openTapPort(options: TapOptions, context: OpenPortContext): Promise<OpenPort> {
  return new TapSwitchPort(await openTap(options, { ...context, shim }))
}

/** What a vnet_hdr of that length has room for. */
function fittingOffloads(vnetHdrLength: number): number {
  if (vnetHdrLength === 0) return 0
  return vnetHdrLength >= VNET_HDR_TUNNEL_LENGTH ? OFFLOADS_ALL : OFFLOADS_PLAIN
}

class TapSwitchPort implements OpenPort {
  readonly acceptsPostponedPeer = true
  readonly queues: number
  readonly txOffloads: number
  rxOffloads = 0
  readonly tap: FollowingTap
  readonly #tap: OpenTap
  /** What its kernel knows. */
  readonly #known: number
  /** What was asked for, of which the kernel may know less. */
  #wish = 0

  constructor(tap: OpenTap) {
    this.#tap = tap
    this.queues = tap.fds.length
    this.tap = new FollowingTap(tap.vnetHdrLength, tap.fds.length)
    // TUNSETOFFLOAD limits only what the kernel gives us: it takes every offload from us that fits
    // into the header. On a link that may be shorter, as a guest without tunnels sends none.
    this.txOffloads = fittingOffloads(tap.vnetHdrLength)
    this.#known = tap.probed.hasTunnel ? OFFLOADS_ALL : OFFLOADS_PLAIN
  }

  get description(): PortDescription {
    return { kind: 'tap', fds: [...this.#tap.fds], vnetHdrLength: this.#tap.vnetHdrLength }
  }

  get vnetHdrLength(): number {
    return this.tap.current.vnetHdrLength
  }

  facts(): PortFacts {
    const { ifname, netns } = this.#tap.identify()
    return { ifname, ...(netns === undefined ? {} : { netns }) }
  }

  setOffloads(wish: number): void {
    const fitting = wish & this.#known & fittingOffloads(this.tap.leastVnetHdrLength)
    if (fitting === this.#wish) return
    this.#wish = fitting
    this.rxOffloads = this.#tap.setOffloads(fitting)
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

  close(): Promise<void> {
    return this.#tap.close()
  }

  abandon(): Promise<void> {
    return this.#tap.abandon()
  }
}

export class MemorySwitchPort implements OpenPort {
  readonly acceptsPostponedPeer = false
  readonly queues = 1
  readonly vnetHdrLength = 0
  readonly txOffloads = 0
  readonly rxOffloads = 0
  readonly endpoint: MemoryEndpoint
  readonly description: PortDescription

  constructor(options: MemoryOptions, wake: () => void) {
    const { inward, outward } = MemoryRing.createPair()
    try {
      this.endpoint = new MemoryEndpoint(options.id, inward, outward, wake)
    } catch (error) {
      for (const { window } of [inward, outward]) window.unmap()
      throw error
    }
    this.description = { kind: 'memory', inward: inward.handle, outward: outward.handle }
  }

  facts(): PortFacts {
    return {}
  }

  setCarrier(): void {
    // Nobody looks.
  }

  close(): Promise<void> {
    this.endpoint.close()
    return Promise.resolve()
  }
}

class RecordSwitchPort implements OpenPort {
  readonly acceptsPostponedPeer = false
  readonly queues = 1
  readonly vnetHdrLength = 0
  readonly txOffloads: number = OFFLOADS_ALL
  readonly rxOffloads = 0
  readonly description: PortDescription
  readonly #path: string
  readonly #capture: CaptureSession
  #letGo: () => void = () => undefined

  constructor(options: PcapOptions, context: OpenPortContext) {
    this.#path = options.record!
    // The engine's recorder is the port itself: it is detached when the port is removed, and not
    // before, also when the disk is full.
    const removed = new Promise<void>((resolve) => (this.#letGo = resolve))
    const captured = { to: { path: this.#path }, direction: 'out' } as const
    const detach = (error?: string): Promise<void> => {
      if (error !== undefined) context.failed(error)
      return removed
    }
    this.#capture = new CaptureSession(0, captured, detach, `port "${options.id}"`)
    const { block } = this.#capture.describe(options.id, 'record')
    this.description = { kind: 'record', ring: this.#capture.ring, block }
  }

  facts(): PortFacts {
    return { path: this.#path }
  }

  setCarrier(): void {
    // Nobody looks.
  }

  /** From now on the file is this port's: what it held before is gone. */
  start(): void {
    this.#capture.begin()
  }

  async close(): Promise<void> {
    this.#letGo()
    await this.#capture.end()
  }
}
