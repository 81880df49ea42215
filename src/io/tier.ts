/**
 * A tier: how frames get from TAP descriptors into bursts and back. There are two of them, chosen
 * at start; the engine and the TAP ports know only what is here.
 *
 * A turn of the engine is: `nextBurst` until it gives null, each burst forwarded as it comes;
 * `write` for every frame that leaves by a TAP; `endTurn`. Memory that `write` was given stays
 * untouched until `flush` or `endTurn` returns.
 */
import type { Burst } from '../mem/burst.ts'

/** Named tiers of TAP input and output. */
export type IoTierName = 'io_uring-multishot' | 'read-write'

/** One queue of a TAP port, as the tier serves it. */
export class TapQueue {
  readonly fd: number
  /** Index of the port in the engine. */
  readonly port: number
  /** Queue number within the port. */
  readonly index: number
  /** vnet_hdr bytes before each frame, 0: none. Changes only while the queue is in no tier. */
  vnetHdrLength: number
  /** The kernel puts frames into it and takes some; else it is in no tier. */
  isAttached = true
  /** Number under which the tier knows it; -1 outside a tier. */
  id = -1
  /** A read may still complete: its descriptor must not be closed. */
  isReading = false
  /** Frames that the next read asks for, where that has to be said; at least 2. */
  readAhead = 2
  /** Positive errno that ended reading for good (the interface was deleted), else 0. */
  failure = 0
  /** Being removed: not read again. */
  isClosing = false

  constructor(fd: number, port: number, index: number, vnetHdrLength: number) {
    this.fd = fd
    this.port = port
    this.index = index
    this.vnetHdrLength = vnetHdrLength
  }
}

/** A socket whose frames wake the engine; see {@link IoTier.watchSocket}. */
export interface WatchedSocket {
  readonly fd: number
  /** Number under which the tier knows it. */
  readonly id: number
  /** The next frame, or error, wakes the engine. */
  isArmed: boolean
}

/** What ends up in the counters of a port, told by the tier. */
export interface TierEvents {
  /** A write of `length` bytes (vnet_hdr included) by the port failed with a positive errno. */
  writeFailed(port: number, length: number, errno: number): void
  /** Frames that never became one of a burst; the arguments are counts. */
  dropped(port: number, malformed: number, unknownGsoType: number, oversize: number): void
  /** Reading a queue ended for good. */
  queueFailed(queue: TapQueue, errno: number): void
}

export interface IoTier {
  readonly name: IoTierName
  /** Starts reading from the queue. */
  addQueue(queue: TapQueue): void
  /** Ends reading; done when `queue.isReading` is false, for which turns must go on. */
  removeQueue(queue: TapQueue): void
  /** Ends all reads (what was read is still delivered); done when `isReading` is false. */
  pause(): void
  resume(): void
  /**
   * Wakes the engine out of its sleep whenever this eventfd is written, which nobody reads; until
   * `unwatch`, before which it is not closed.
   */
  watch(eventFd: number): void
  unwatch(eventFd: number): void
  /**
   * A socket that may wake the engine out of its sleep when it has something to be read, after each
   * `arm` once at least. Its error (SO_ERROR) is taken off it, which would wake for ever. Until
   * `unwatchSocket`, before which it is not closed.
   */
  watchSocket(fd: number): WatchedSocket
  unwatchSocket(socket: WatchedSocket): void
  /** For the sleep that follows. @hot */
  arm(socket: WatchedSocket): void
  /** A read of any queue may still complete. */
  readonly isReading: boolean
  /**
   * The turns to come read so many frames at most, of all queues together, and each begins with another
   * queue. Frames that are on their way already come all the same.
   */
  limitFrames(most: number): void
  /** Fills the burst with the next frames of one queue; null: nothing more in this turn. */
  nextBurst(burst: Burst): TapQueue | null
  /**
   * Queues one frame for writing: `length` bytes at `offset`, its vnet_hdr included. `fd` of a socket is
   * given as its complement, `~fd`, here and in the next two.
   * @hot
   */
  write(fd: number, port: number, window: number, offset: number, length: number): void
  /** The same with the vnet_hdr in a place of its own. @hot */
  writeWithHeader(
    fd: number,
    port: number,
    headWindow: number,
    headOffset: number,
    headLength: number,
    window: number,
    offset: number,
    length: number,
  ): void
  /** Frame k of the burst, whose segments lie in several places, behind a header (length 0: none). @hot */
  writeScattered(
    fd: number,
    port: number,
    headWindow: number,
    headOffset: number,
    headLength: number,
    burst: Burst,
    k: number,
  ): void
  /** Everything written so far has been given to the kernel. @hot */
  flush(): void
  /**
   * Flushes, takes back the slots of this turn, and waits until something arrives or the control
   * eventfd is written, at most `waitUs` (0: does not wait, -1: for ever). Where it can, all of that
   * is one system call. False: it has waited, and nothing came.
   * @hot
   */
  endTurn(waitUs: number): boolean
  /** Looks for new frames without waiting; true: the next turn may find some. @hot */
  spin(): boolean
  /** Fruitless spins after which a sleep is cheaper, at adaptive pace. */
  readonly spins: number
  /** Tries again to read queues whose read failed for a passing reason; called now and then. */
  retry(): void
  close(): void
}
