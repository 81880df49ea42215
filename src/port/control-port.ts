/**
 * The Port contract, as the control plane keeps a port: what was opened, what the engine is told, how it
 * is shown and closed. One class per kind of port.
 */
import type { EventSignals } from '../native/event-signals.ts'
import type { At } from '../schema/read-option.ts'
import type { DescriptorShare } from './descriptor-budget.ts'
import type { HandedState, JsonValue } from './handed.ts'
import type { DescriptorKeeper } from './keeper.ts'
import type { LinkInfo } from './interface/link.ts'
import type { PortCall, PortDescription } from './messages.ts'
import type { PortOptions } from './options.ts'
import type { PortSchema } from './port-schema.ts'
import type { PostponedForm, PostponedControlPort } from './postponed.control.ts'
import type { FollowingTap } from './shape.ts'
import type { MemoryPort, VirtioNetPort } from './api.ts'
import type { Log } from '../text.ts'

/** Facts for PortInfo that differ by kind. */
export interface PortFacts {
  readonly ifname?: string
  readonly netns?: string
  readonly path?: string
}

/**
 * `adapt`: what is open goes on, once it is told (ControlPort.adapt). `gone`: it is of no use any more.
 * `anew`: the port is to be opened anew.
 */
export type InterfaceVerdict = 'fine' | 'adapt' | 'gone' | 'anew'

export interface ControlPort {
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
  /** Its TCP segments are never merged: they are a program's, or a file's. */
  readonly hasNoMerging?: boolean
  readonly description: PortDescription
  facts(): PortFacts
  /** Lets the kernel leave these offloads to us (TUN_F_* bits); absent: the sender decides. */
  setOffloads?(offloads: number): void
  /** Those that it can be asked for now, and those that it was asked for last. */
  readonly offloads?: { readonly possible: number; readonly asked: number }
  setCarrier(isUp: boolean): void
  /**
   * Options that change in place are `after` from now on. When it throws, some may be: it is undone by
   * the opposite call. Absent: none of them is the port's own business.
   */
  change?(before: PortOptions, after: PortOptions): void | Promise<void>
  /** The interface behind it; null: it is gone, or the kernel does not tell. Absent: there is none. */
  lookUp?(): LinkInfo | null
  /** A descriptor of that one's network namespace, for the caller to close; -1: ours, or not told. */
  openNetns?(): number
  /** What comes in at that interface enters the switch; absent: what the host sends out by it does. */
  readonly facesOutward?: boolean
  /** What the state of that interface means for the port; absent: nothing. */
  judge?(link: LinkInfo | null): InterfaceVerdict
  /** For the verdict `adapt`: takes the state in, and returns what the engine's end is to be told. */
  adapt?(link: LinkInfo | null): PortCall
  /** Takes its place while there is no such interface, or it cannot be opened for that reason. */
  placeholder?(options: PortOptions, reason?: string): ControlPort
  /** It is such a one. */
  readonly isPlaceholder?: boolean
  /** It is such a one, in whose place the port is to be opened when it can be. */
  readonly isHoping?: boolean
  /** The outside of it, for the program. */
  readonly memoryPort?: MemoryPort
  readonly virtioNetPort?: VirtioNetPort
  /** Looks again whether the device is what it was; throws when not. */
  probe?(): void
  /** It waits to be set up, by that. */
  readonly postponed?: PostponedControlPort
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
  /**
   * Before each `handOver`, while frames still pass: what takes a moment that shall not be part of the pause. Nothing
   * but its position changes any more and nobody is answered, until `keep` or `handedOver`. Told is what `handOver`
   * will say, with the same `state` and `fds`.
   */
  quiesce?(engine: EngineAccess): Promise<HandedState>
  /**
   * What another process needs to go on with it. The engine is paused; from now on nothing is changed or
   * answered outside, until `keep` or `handedOver`. Absent: it cannot be handed over.
   */
  handOver?(engine: EngineAccess): Promise<HandedState>
  /**
   * What `handOver` would say now, while frames pass and the port goes on. Whoever is to go on with it takes
   * that over before anything stands still, and moves on to the `position` of `handOver` when the rest is the
   * same then. Absent: it is told at the end only.
   */
  preview?(engine: EngineAccess): Promise<HandedState>
  /** Another number whenever its descriptors may have become others with the same numbers; absent: they never do. */
  readonly fdGeneration?: number
  /**
   * Of one that was taken over by its preview, before `keep`: it had come as far as that, or further when frames
   * pass where it is (`isRehearsed`). Throws HAND_OVER.
   */
  moveOn?(
    position: JsonValue | undefined,
    engine: EngineAccess,
    isRehearsed: boolean,
  ): Promise<void>
  /** Why it cannot be handed over as it is now; absent or undefined: it can. */
  whyNotHandedOver?(): string | undefined
  /** It goes on here: it was not handed over after all, or was taken over. */
  keep?(engine: EngineAccess): Promise<void>
  /** In the place of `close`: another process has it, so what it is made of is let go of and not changed. */
  handedOver?(): Promise<void>
  /** It is left out of a hand-over, and closed next: what one that is made anew by its options goes on with. */
  left?(): JsonValue
  /** Why another process could not open it after this one has closed it; absent or undefined: it could. */
  whyNotOpenedAgain?(): string | undefined
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
  call(call: PortCall): Promise<unknown>
  /** A frame enters the switch as if the port had sent it. */
  inject(frame: Uint8Array): Promise<unknown>
  /** Another guest takes the port over, none of whose queues runs yet. */
  newGuest(): Promise<void>
  /** Connection, offloads or queues have changed; resolves when frames pass accordingly. */
  changed(): Promise<void>
  /** Looks again what its peer on a link is; throws when that is not what it was. */
  probePeer(): void
}

export interface ControlPortContext {
  readonly given: ReadonlyMap<string, number>
  readonly log: Log
  readonly wake: () => void
  /** For eventfds of a front-end. */
  readonly signals: EventSignals
  readonly stateDirectory: string | undefined
  /** Absent: descriptors end with the process. */
  readonly keeper?: DescriptorKeeper | undefined
  /** The port cannot go on; what is left of it waits to be closed. */
  readonly failed: (reason: string) => void
  /** It takes over from another process, and must not get at what that still has. */
  readonly takesOver?: boolean
  /** Its owner leaves a persistent device behind: it is not made anew. */
  readonly isLeft?: boolean
  /** Of a port that was left out of a hand-over and is made anew: what the one before has said by `left`. */
  readonly left?: JsonValue
  /** Told which queue is opened or set up next. */
  readonly reached?: (queue: number) => void
}

/** What a process must be allowed to do for a port. */
export interface PortNeeds {
  /** To enter network namespaces. */
  readonly netns?: boolean
  /** To open packet sockets. */
  readonly packets?: boolean
  /** To start programs: when it is opened, or at its end as well. */
  readonly programs?: 'opening' | 'end'
  /** The program is this one, which is setuid perhaps. */
  readonly helper?: string
}

/** A kind of port, as the control plane has it. */
export interface ControlKind<O extends PortOptions> {
  open(
    options: O,
    context: ControlPortContext,
    share: DescriptorShare,
  ): ControlPort | Promise<ControlPort>
  /**
   * Goes on with a port of another process: opens and sets nothing, and answers nobody, before `keep`. The
   * descriptors become the port's; when this throws, StateError HAND_OVER, they stay the caller's. Absent: it
   * cannot be handed over.
   */
  takeOver?(
    options: O,
    handed: HandedState,
    context: ControlPortContext,
    share: DescriptorShare,
  ): ControlPort
  /** Descriptors that a port may need at most. */
  descriptors(options: O): number
  readonly schema: PortSchema
  /** What one option says about another. Throws ConfigError. */
  check?(options: O, at: At): void
  /**
   * In an instance that takes over from another one: what the port is going to be, or why it is opened at
   * once. Absent: it has nothing that another process could own.
   */
  postpone?(options: O): PostponedForm | string
  /** Names or numbers of descriptors that it is given. */
  given?(options: O): readonly string[]
  needs?(options: O): PortNeeds
}
