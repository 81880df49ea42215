/**
 * A host's interface as the engine sees it: packet sockets, one per queue pair, whose receive rings are
 * read in place, and frames written to them by the I/O tier. Opening, set-up and closing are the control
 * plane's (port/raw-socket/open.ts).
 */
import { PACKET_STATISTICS, SOL_PACKET } from '../../abi/if-packet.ts'
import type { IoTier, TierEvents } from '../../io/tier.ts'
import type { Burst } from '../../mem/burst.ts'
import { shim } from '../../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../stats/counters.ts'
import { FrameWriter } from '../frame-writer.ts'
import { countRxDrops } from '../rx-drops.ts'
import type { PolledPort } from '../contract.ts'
import type { PortCall } from '../messages.ts'
import type { RawSocketDescription } from './messages.ts'
import { OffloadGuess } from './offload-guess.ts'
import { PacketRing } from './ring.ts'

export interface RawSocketEnginePortOptions extends Omit<RawSocketDescription, 'kind'> {
  readonly index: number
  readonly txOffloads: number
}

/** struct tpacket_stats: u32 packets, u32 drops, since it was last asked for. */
const STATISTICS_LENGTH = 8

export class RawSocketEnginePort implements PolledPort {
  /** Whoever is on the other side of the wire is held to a budget like a guest. */
  readonly isGuest = true
  readonly index: number
  readonly txOffloads: number
  /** A write, and what the kernel does with it meanwhile. */
  readonly deliveryNs: number = 1500
  readonly vnetHdrLength: number
  readonly rxQueues: number
  rxQueue = 0

  readonly #tier: IoTier
  readonly #counters: Float64Array
  readonly #counterBase: number
  readonly #rings: PacketRing[] = []
  /** Complements, as the tier takes sockets. */
  readonly #fds: Int32Array
  readonly #writer: FrameWriter
  readonly #guess: OffloadGuess
  /** Another process has it, or is about to. */
  #isLeft: boolean
  readonly #statistics: Uint8Array = new Uint8Array(STATISTICS_LENGTH)
  readonly #statisticWords: Uint32Array = new Uint32Array(this.#statistics.buffer)

  constructor(options: RawSocketEnginePortOptions, tier: IoTier, counters: Float64Array) {
    const { index, queues, vnetHdrLength } = options
    this.index = index
    this.txOffloads = options.txOffloads
    this.vnetHdrLength = vnetHdrLength
    this.rxQueues = queues.length
    this.#isLeft = options.isAnothers === true
    this.#tier = tier
    this.#counters = counters
    this.#counterBase = index * COUNTERS_STRIDE
    this.#fds = Int32Array.from(queues, ({ fd }) => ~fd)
    this.#writer = new FrameWriter(index, vnetHdrLength, tier, counters)
    const guess = new OffloadGuess(options.mtu)
    this.#guess = guess
    const events: Pick<TierEvents, 'dropped'> = {
      dropped: (port, ...counts) => countRxDrops(counters, port, ...counts),
    }
    try {
      for (const { fd, window, first } of queues) {
        const socket = tier.watchSocket(fd)
        const { geometry } = options
        this.#rings.push(
          new PacketRing(index, socket, window, first, vnetHdrLength, geometry, guess, events),
        )
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** @hot */
  receive(burst: Burst): number {
    if (++this.rxQueue >= this.rxQueues) this.rxQueue = 0
    const ring = this.#rings[this.rxQueue]
    burst.count = 0
    if (!ring.hasFrame()) return 0
    ring.fill(burst)
    if (burst.count === 0) ring.release()
    return burst.count
  }

  /** @hot */
  release(): void {
    this.#rings[this.rxQueue].release()
  }

  /** @hot */
  waitUs(): number {
    for (let queue = 0; queue < this.rxQueues; queue++) {
      const ring = this.#rings[queue]
      if (ring.hasFrame()) return 0
      this.#tier.arm(ring.socket)
    }
    return -1
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    this.#writer.write(this.#fds[queue % this.rxQueues], burst, list, first, count)
  }

  /** @hot */
  endTurn(): void {
    // The tier flushes by itself.
  }

  call(call: PortCall): unknown {
    if (call.do === 'interface-mtu') this.#guess.mtu = call.mtu
    else if (call.do === 'keep') this.#isLeft = false
    else if (call.do === 'leave') {
      this.countDrops(true)
      this.#isLeft = true
    } else if (call.do === 'next-slots') {
      for (const [queue, next] of call.next.entries()) this.#rings[queue].moveOn(next)
    }
    return this.#rings.map(({ next }) => next)
  }

  writeFailed(length: number, errno: number): boolean {
    return this.#writer.failed(length, errno)
  }

  /** Takes in what the kernel has dropped; `mustAsk`: also where nothing says that it has. */
  countDrops(mustAsk: boolean): void {
    // The kernel tells of each but once, and it is whoever has the socket now who is to count it.
    if (this.#isLeft) return
    for (const ring of this.#rings) {
      if (!mustAsk && !ring.isLosing) continue
      ring.isLosing = false
      const result = shim.getSocketOption(
        ring.socket.fd,
        SOL_PACKET,
        PACKET_STATISTICS,
        this.#statistics,
      )
      if (result < STATISTICS_LENGTH) continue
      this.#counters[this.#counterBase + COUNTERS.rx_drop_kernel] += this.#statisticWords[1]
    }
  }

  close(): void {
    this.countDrops(true)
    for (const ring of this.#rings) {
      this.#tier.unwatchSocket(ring.socket)
      ring.close()
    }
    this.#writer.close()
  }
}
