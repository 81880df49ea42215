/**
 * The Port contract, as the engine sees a port. What a port is to the outside (state, names,
 * opening and closing) is the control plane's: port/control-port.ts.
 *
 * A TAP's frames arrive through the I/O tier; every other port that can hand frames to the switch
 * is a `PolledPort` and is asked once per turn.
 */
import type { IoTier, TapQueue } from '../io/tier.ts'
import type { Burst } from '../mem/burst.ts'
import type { Clock } from '../mem/clock.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import type { NewHeads } from '../mem/new-heads.ts'
import type { EventSignals } from '../native/event-signals.ts'
import type { PortCall, PortDescription, PortFailure } from './messages.ts'

/** Ports of one switch. */
export const PORTS_MAX = 1024

export interface EnginePort {
  /** Number of the port in the engine, 0..PORTS_MAX - 1. */
  readonly index: number
  /**
   * Somebody whom nobody trusts fills it, and can write to its frames while they are forwarded. It is polled, held
   * to a budget, and heeds the burst's limits.
   */
  readonly isGuest?: boolean
  /** It is on a link (queue to queue) or back on the switch. */
  setWired?(isWired: boolean): void
  /**
   * Stops every queue and lets go of the memory if that was lost since the last call; true: it was, and
   * the port cannot go on.
   */
  stopIfFaulted?(): boolean
  /** About what a frame costs that is given to it, in nanoseconds, if it is more than a copy. */
  readonly deliveryNs?: number
  /** Queues that the I/O tier reads while the engine has the port; absent: it is no TAP. */
  readonly queues?: readonly TapQueue[]
  /** TUN_F_* bits that the port can be given. */
  readonly txOffloads: number
  /**
   * Takes the frames list[first .. first + count) of the burst, in that order, that came in by rx
   * queue `queue`. What it cannot take it drops and counts. Frames of polled ports stay valid until
   * the tier's flush and `CopyProgram.run`, which the engine calls after the last transmit.
   * @hot
   */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void
  /** It copies frames, and writes their beginnings as it does so (offload/tag-stage.ts). */
  readonly writesHeads?: boolean
  /**
   * The same with these heads: there if `writesHeads` may be true. Each first segment has LOOKED_AT bytes or
   * more.
   * @hot
   */
  transmitWithHeads?(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
    heads: NewHeads,
  ): void
  /** What it is given next are the beginnings of longer frames, which it tells. Absent: it tells nobody. */
  isCut?: boolean
  /**
   * A write of `length` bytes, vnet_hdr included, that the port gave to the tier failed with a positive errno:
   * its frame did not leave, and is counted so. True: what it writes to is gone.
   */
  writeFailed?(length: number, errno: number): boolean
  /** Frames that the tier read for it and that never became one of a burst: counts of them. */
  dropped?(malformed: number, unknownGsoType: number, oversize: number): void
  /** Called in a turn in which the port was given frames, after the last copy has run. @hot */
  endTurn(): void
  /** What the control plane asks of it, between turns. Absent: there is nothing. */
  call?(call: PortCall, engine: EngineServices): unknown
  /** Forgets this thread's memory of it; no method is called afterwards. */
  close(): void
}

/** The engine, as a port may ask it between turns. */
export interface EngineServices {
  /** Runs a change between two reads of these queues; those attached after it are read again. */
  withoutReading(queues: readonly TapQueue[], change: () => void): void
  /** Forwards what waits in the kernel, as far as a bounded number of turns goes. */
  readOut(): void
  /** Frames of the port wait: it is held, or all are. */
  isStill(port: number): boolean
  /** What the port can be given is different now. */
  txOffloadsChanged(port: EnginePort): void
}

/** What ports of an engine share. */
export interface PortSurroundings {
  readonly tier: IoTier
  readonly copies: CopyProgram
  readonly signals: EventSignals
  readonly counters: Float64Array
  readonly clock: Clock
  readonly portFailed: PortFailed
  readonly events: PortEvents
  /** What all ports of a kind use, made with the first of them and closed with the engine. */
  share<T extends { close(): void }>(kind: string, make: () => T): T
}

/** The port cannot go on. */
export type PortFailed = (port: number, failure: PortFailure) => void

/** What a port tells the control plane. */
export interface PortEvents {
  /** A driver broke its queue. */
  queueBroken(port: number, queue: number, reason: string): void
  /** The device calls a driver whose queues have CALL_BY_EVENT. */
  driverCalled(port: number): void
}

/** Where a new port belongs. */
export interface PortPlace {
  readonly index: number
  readonly txOffloads: number
}

/** The other side of a port that warms up (engine/warm-up.ts): a network stack or a guest, in this thread. */
export interface FarEnd {
  readonly port: EnginePort
  send(frame: Uint8Array): void
  /** Takes what has come; returns how many frames. */
  drain(): number
  /** After the engine let go of the port. */
  close(): void
}

/** Makes one. `key`: those with the same are alike, and one kind of warm-up. Throws SysError. */
export interface FarEndMaker {
  readonly key: string
  make(index: number, surroundings: PortSurroundings): FarEnd
}

/** A kind of port, as the engine thread has it. */
export interface EngineKind<D extends PortDescription> {
  /**
   * All or nothing: when the port cannot be made nothing of it is left in this thread, as its owner unmaps
   * its memory and closes its descriptors next.
   */
  make(description: D, place: PortPlace, surroundings: PortSurroundings): EnginePort
  /** What exchanges frames so that the code of such a port is warm before the first; absent: nothing. */
  farEnds?(description: D): readonly FarEndMaker[]
}

export interface PolledPort extends EnginePort {
  /** Rx queues: so often `receive` is asked in a turn. */
  readonly rxQueues: number
  /** The rx queue of which the last `receive` gave frames. */
  readonly rxQueue: number
  /**
   * Fills the burst with the next frames that entered by this port; returns their count. Each call
   * asks the next rx queue.
   * @hot
   */
  receive(burst: Burst): number
  /** The frames of the last `receive` have been delivered: their memory may be used again. @hot */
  release(): void
  /**
   * Called before the engine sleeps: asks the senders for a wake-up. Returns the microseconds until
   * `receive` will have something, below 2^31; -1: when a sender wakes the engine.
   * @hot
   */
  waitUs(): number
  /** The engine is awake again: senders need not wake it. @hot */
  wake?(): void
  /**
   * Counts what the kernel has dropped of what it was to receive; `mustAsk`: also where nothing says that
   * it has. Called now and then.
   */
  countDrops?(mustAsk: boolean): void
}

export function isPolled(port: EnginePort): port is PolledPort {
  return 'receive' in port
}

/** Microseconds until one of them has something, at most `most`; -1 stands for no end. @hot */
export function polledWaitUs(ports: readonly PolledPort[], most: number): number {
  let least = most
  for (let at = 0; at < ports.length; at++) {
    const waitUs = ports[at].waitUs()
    if (waitUs >= 0 && (least < 0 || waitUs < least)) least = waitUs
  }
  return least
}

/** The queues that the tier reads. */
export function queuesOf(port: EnginePort | null): readonly TapQueue[] {
  return port?.queues ?? []
}
