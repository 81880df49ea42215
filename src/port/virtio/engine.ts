/**
 * A virtio-net device as the engine sees it: queue pairs in a guest's memory, polled. Who set them up
 * (a vhost-user session, the in-process device) is the control plane's affair and asks between turns.
 *
 * Queue 2i is the receiveq (to the guest) of pair i, queue 2i + 1 its transmitq. A queue is started
 * or stopped, and enabled or not, independently: started and not enabled, a receiveq is given
 * nothing, and what is in a transmitq is read and dropped. Stopped, it is not touched.
 */
import type { IoTier } from '../../io/tier.ts'
import type { Burst } from '../../mem/burst.ts'
import { BURST_SIZE_MAX } from '../../mem/burst.ts'
import type { GuestRegion } from '../../mem/guest-memory.ts'
import { GuestMemory } from '../../mem/guest-memory.ts'
import type { NewHeads } from '../../mem/new-heads.ts'
import type { EventSignals } from '../../native/event-signals.ts'
import { shim } from '../../native/shim.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../stats/counters.ts'
import { BROKEN_TEXT } from '../../virtio/ring/chain.ts'
import type { DeviceQueue, QueueSetup } from '../../virtio/ring/device-queue.ts'
import { CALL_BY_EVENT } from '../../virtio/ring/device-queue.ts'
import { DirtyLog } from '../../virtio/ring/dirty-log.ts'
import { DESCRIPTORS_AHEAD, descriptorsNext } from '../../virtio/net/descriptor-budget.ts'
import type { FlowSteering } from '../../virtio/net/flow-steering.ts'
import type { FrameSink } from '../../virtio/net/frame-sink.ts'
import type { FrameSource } from '../../virtio/net/frame-source.ts'
import { Rss } from '../../virtio/net/rss.ts'
import type { VirtioNegotiated } from '../../virtio/net/negotiated.ts'
import { NOTHING_NEGOTIATED } from '../../virtio/net/negotiated.ts'
import { attachQueue } from '../../virtio/ring/queue-layout.ts'
import { startBase } from '../../virtio/ring/start-base.ts'
import type { EngineServices, PolledPort, PortEvents } from '../contract.ts'
import type { PortCall } from '../messages.ts'
import { countRxDrops } from '../rx-drops.ts'
import { closeFd, ringStates, StartedQueue } from './started-queue.ts'
import type { VirtioScratch } from './scratch.ts'
import { QUEUE_PAIRS_MAX } from './scratch.ts'
import { WantedFrames } from './wanted-frames.ts'

export class VirtioEnginePort implements PolledPort {
  readonly isGuest = true
  readonly index: number
  txOffloads = 0
  rxQueue = 0

  readonly #tier: IoTier
  readonly #signals: EventSignals
  readonly #counters: Float64Array
  readonly #counterBase: number
  readonly #events: PortEvents
  /** Shared with the other ports: told what was negotiated here before each use. */
  readonly #source: FrameSource
  readonly #sink: FrameSink
  /** Of our receive buffers, that may still be read: what one guest's cost is not another's. */
  #descriptorsLeft: number = DESCRIPTORS_AHEAD
  readonly #steering: FlowSteering
  #negotiated: VirtioNegotiated = NOTHING_NEGOTIATED
  #memory: GuestMemory = new GuestMemory([])
  #log: DirtyLog | null = null
  /** Another process has it, or is about to. */
  #isLeft = false
  /** Its owner took its memory away, and gives it none that is used. */
  #isLost = false
  /** By queue index; null: stopped. */
  readonly #rings: (StartedQueue | null)[] = Array.from({ length: 2 * QUEUE_PAIRS_MAX }, () => null)
  readonly #isEnabled: Uint8Array = new Uint8Array(2 * QUEUE_PAIRS_MAX)
  /** Pairs whose receiveq takes frames, and started transmitqs: what the data plane goes through. */
  readonly #receiveqs: StartedQueue[] = []
  readonly #transmitqs: StartedQueue[] = []
  readonly #transmitqPair: Int32Array = new Int32Array(QUEUE_PAIRS_MAX)
  #nextTransmitq = 0
  #isWired = false
  readonly #rss: Rss = new Rss()
  readonly #wanted: WantedFrames = new WantedFrames()
  #filled: StartedQueue | null = null

  constructor(
    index: number,
    tier: IoTier,
    scratch: VirtioScratch,
    signals: EventSignals,
    counters: Float64Array,
    events: PortEvents,
  ) {
    this.index = index
    this.#tier = tier
    this.#signals = signals
    this.#source = scratch.source
    this.#sink = scratch.sink
    this.#steering = scratch.steering
    this.#counters = counters
    this.#counterBase = index * COUNTERS_STRIDE
    this.#events = events
  }

  get rxQueues(): number {
    return this.#transmitqs.length
  }

  // --- data plane -------------------------------------------------------------------------------

  /** @hot */
  receive(burst: Burst): number {
    burst.count = 0
    const count = this.#transmitqs.length
    if (count === 0) return 0
    if (++this.#nextTransmitq >= count) this.#nextTransmitq = 0
    const ring = this.#transmitqs[this.#nextTransmitq]
    const queue = ring.queue
    if (queue === null) return 0
    const source = this.#source
    source.headerLength = this.#negotiated.headerLength
    source.offloads = this.#negotiated.rxOffloads
    if (source.fill(queue, burst) === 0) {
      if (queue.broken !== 0) this.#tellBroken(ring)
      return 0
    }
    this.#filled = ring
    const pair = this.#transmitqPair[this.#nextTransmitq]
    this.rxQueue = pair
    if ((source.malformed | source.unknownType | source.oversize) !== 0) {
      const { malformed, unknownType, oversize } = source
      countRxDrops(this.#counters, this.index, malformed, unknownType, oversize)
    }
    if (this.#isEnabled[2 * pair + 1] === 0) this.#dropDisabled(burst)
    if (burst.count === 0) this.release()
    return burst.count
  }

  /** As frames of a port whose link is down: they came, and go nowhere. @hot */
  #dropDisabled(burst: Burst): void {
    const base = this.#counterBase
    const count = burst.count
    let bytes = 0
    for (let k = 0; k < count; k++) bytes += burst.length[k]
    this.#counters[base + COUNTERS.rx_frames] += count
    this.#counters[base + COUNTERS.rx_bytes] += bytes
    this.#counters[base + COUNTERS.rx_drop_link_down] += count
    burst.count = 0
  }

  /** @hot */
  release(): void {
    const ring = this.#filled
    if (ring === null || ring.queue === null) return
    this.#filled = null
    const mustCall = ring.queue.publish()
    if (this.#log !== null) this.#logUsed(ring)
    if (mustCall) this.#callDriver(ring)
    if (ring.queue.broken !== 0) this.#tellBroken(ring)
  }

  /** @hot */
  waitUs(): number {
    let isWaiting = false
    for (let at = 0; at < this.#transmitqs.length; at++) {
      const ring = this.#transmitqs[at]
      if (ring.queue === null) continue
      if (ring.queue.enableKick()) isWaiting = true
      if (this.#log !== null) this.#logUsed(ring)
    }
    return isWaiting ? 0 : -1
  }

  /** @hot */
  wake(): void {
    if (this.#isLeft) return
    for (let at = 0; at < this.#transmitqs.length; at++) {
      const ring = this.#transmitqs[at]
      if (ring.queue === null) continue
      ring.queue.disableKick()
      if (this.#log !== null) this.#logUsed(ring)
    }
  }

  /** @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const pairs = this.#receiveqs.length
    if (pairs === 0) {
      this.#counters[this.#counterBase + COUNTERS.tx_drop_link_down] += count
      return
    }
    if (!this.#wanted.isFiltered) {
      this.#spread(burst, list, first, count, queue)
      return
    }
    const wanted = this.#wanted.choose(burst, list, first, count)
    this.#counters[this.#counterBase + COUNTERS.tx_drop_filter] += count - wanted
    this.#spread(burst, this.#wanted.list, 0, wanted, queue)
  }

  /** A filter looks at tags as they are in the burst. */
  get writesHeads(): boolean {
    return !this.#wanted.isFiltered
  }

  /** @hot */
  transmitWithHeads(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
    heads: NewHeads,
  ): void {
    this.#sink.heads = heads
    this.transmit(burst, list, first, count, queue)
    this.#sink.heads = null
  }

  /** @hot */
  #spread(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    const pairs = this.#receiveqs.length
    if (pairs > 1 && !this.#isWired) this.#steer(burst, list, first, count)
    else this.#deliver(this.#receiveqs[queue % pairs], burst, list, first, count)
  }

  /** @hot */
  #steer(burst: Burst, list: Int32Array, first: number, count: number): void {
    const steering = this.#steering
    const pairs = this.#receiveqs.length
    steering.steer(burst, list, first, count, pairs, this.#rss)
    for (let pair = 0; pair < pairs; pair++) {
      const listed = steering.listLength[pair]
      if (listed === 0) continue
      steering.listLength[pair] = 0
      this.#deliver(this.#receiveqs[pair], burst, steering.lists, pair * BURST_SIZE_MAX, listed)
    }
  }

  /** @hot */
  #deliver(ring: StartedQueue, burst: Burst, list: Int32Array, first: number, count: number): void {
    const target = ring.queue
    const base = this.#counterBase
    const counters = this.#counters
    if (target === null) {
      counters[base + COUNTERS.tx_drop_link_down] += count
      return
    }
    const sink = this.#sink
    const negotiated = this.#negotiated
    sink.headerLength = negotiated.headerLength
    sink.isMergeable = negotiated.isMergeable
    sink.offloads = negotiated.txOffloads
    sink.log = this.#log
    sink.descriptorsLeft = this.#descriptorsLeft
    sink.deliverAll(target, this.#memory, burst, list, first, count)
    this.#descriptorsLeft = sink.descriptorsLeft
    ring.isTouched = true
    counters[base + COUNTERS.tx_frames] += sink.frames
    counters[base + COUNTERS.tx_bytes] += sink.bytes
    counters[base + COUNTERS.tx_drop_buffer] += sink.tooLong
    counters[base + COUNTERS.tx_drop_descriptors] += sink.tooDear
    counters[base + COUNTERS.tx_drop_full] += count - sink.frames - sink.tooLong - sink.tooDear
  }

  /** The copies have run: the driver may see them. @hot */
  endTurn(): void {
    this.#descriptorsLeft = descriptorsNext(this.#descriptorsLeft)
    for (let at = 0; at < this.#receiveqs.length; at++) {
      const ring = this.#receiveqs[at]
      if (!ring.isTouched) continue
      ring.isTouched = false
      const queue = ring.queue
      if (queue === null) continue
      const mustCall = queue.publish()
      if (this.#log !== null) this.#logUsed(ring)
      if (mustCall) this.#callDriver(ring)
      if (queue.broken !== 0) this.#tellBroken(ring)
    }
  }

  /** Logs after the writing: a page that is copied between the two is dirty once more. @hot */
  #logUsed(ring: StartedQueue): void {
    const log = this.#log!
    if (ring.logAddress >= 0) ring.queue!.logWritten(log, ring.logAddress)
    log.mark()
  }

  /** @hot */
  #callDriver(ring: StartedQueue): void {
    if (ring.callFd >= 0) this.#signals.signal(ring.callFd)
    else if (ring.callFd === CALL_BY_EVENT) this.#events.driverCalled(this.index)
  }

  #tellBroken(ring: StartedQueue): void {
    if (ring.isToldBroken) return
    ring.isToldBroken = true
    this.#events.queueBroken(
      this.index,
      this.#rings.indexOf(ring),
      BROKEN_TEXT[ring.queue!.broken] ?? 'unknown',
    )
  }

  // --- control plane, between turns ---------------------------------------------------------------

  call(call: PortCall, engine: EngineServices): unknown {
    switch (call.do) {
      case 'negotiate':
        this.negotiate(call.negotiated)
        return engine.txOffloadsChanged(this)
      case 'memory':
        return this.setMemory(call.regions)
      case 'start':
        return this.startQueue(call.queue, call.setup)
      case 'stop':
        return this.stopQueue(call.queue)
      case 'enable':
        return this.enableQueue(call.queue, call.isEnabled)
      case 'call':
        return this.setCall(call.queue, call.fd)
      case 'kick':
        return this.setKick(call.queue, call.fd)
      case 'queue-log':
        return this.setQueueLog(call.queue, call.logAddress)
      case 'log':
        return this.setLog(call.window)
      case 'filter':
        return this.#wanted.set(call.filter)
      case 'rss':
        return this.#rss.configure(call.rss)
      case 'reset':
        return this.reset()
      case 'leave':
      case 'describe':
        this.#isLeft ||= call.do === 'leave'
        return ringStates(this.#rings)
      case 'bases':
        return this.moveOn(call.bases)
      case 'keep':
        this.#isLeft = false
        return this.wake()
      default:
        return undefined
    }
  }

  setWired(isWired: boolean): void {
    this.#isWired = isWired
  }

  negotiate(negotiated: VirtioNegotiated): void {
    this.#negotiated = negotiated
    this.txOffloads = negotiated.txOffloads
  }

  /** Another memory; queues that run go on in it, where it still has them. Old views are detached. */
  setMemory(regions: readonly GuestRegion[]): void {
    if (this.#isLost) return
    const old = this.#memory
    old.forget()
    this.#memory = new GuestMemory(regions)
    for (const ring of this.#rings) {
      if (ring === null) continue
      ring.base = ring.standsAt
      ring.queue?.close()
      ring.queue = null
    }
    // Of the old one nothing is left, also when a queue cannot go on in the new one.
    old.detach()
    for (const ring of this.#rings) {
      // A broken one stays so until its driver starts it again.
      if (ring === null || ring.isToldBroken) continue
      ring.queue = this.#attach({ ...ring.setup, base: ring.base })
    }
  }

  #attach(setup: QueueSetup): DeviceQueue | null {
    const queue = attachQueue(this.#memory, setup, this.#negotiated)
    if (!this.#isLeft) queue?.disableKick()
    return queue
  }

  /** False: its rings do not lie in the memory. The descriptors are ours from now on. */
  startQueue(index: number, setup: QueueSetup): boolean {
    this.stopQueue(index)
    let hasStarted = false
    try {
      const base = startBase(this.#memory, setup, this.#negotiated.isPacked)
      const queue = this.#attach({ ...setup, base })
      if (queue === null) return false
      this.#rings[index] = new StartedQueue(setup, queue)
      if (setup.kickFd >= 0) this.#tier.watch(setup.kickFd)
      this.#list()
      hasStarted = true
      return true
    } finally {
      if (!hasStarted) {
        this.#rings[index] = null
        this.#list()
        closeFd(setup.kickFd)
        closeFd(setup.callFd)
      }
    }
  }

  /** Queues that were started stand there now, as another process has used them. False: one of them cannot. */
  moveOn(bases: readonly (readonly [number, number])[]): boolean {
    for (const [index, base] of bases) {
      const ring = this.#rings[index]
      if (ring === null || ring.runsFrom(base)) continue
      ring.queue?.close()
      ring.queue = this.#attach({ ...ring.setup, base })
      if (ring.queue === null) return false
    }
    return true
  }

  /** Ends every access to the queue; returns where it stands. */
  stopQueue(index: number): number {
    const ring = this.#rings[index]
    if (ring === null) return 0
    this.#rings[index] = null
    this.#list()
    if (ring.kickFd >= 0) this.#tier.unwatch(ring.kickFd)
    closeFd(ring.kickFd)
    closeFd(ring.callFd)
    const { standsAt } = ring
    ring.queue?.close()
    return standsAt
  }

  enableQueue(index: number, isEnabled: boolean): void {
    this.#isEnabled[index] = isEnabled ? 1 : 0
    this.#list()
  }

  setCall(index: number, fd: number): void {
    if (this.#rings[index]?.takeCall(fd) === undefined) closeFd(fd)
  }

  setKick(index: number, fd: number): void {
    const ring = this.#rings[index]
    if (ring === null) {
      closeFd(fd)
      return
    }
    if (ring.kickFd >= 0) this.#tier.unwatch(ring.kickFd)
    closeFd(ring.kickFd)
    ring.kickFd = fd
    if (fd >= 0) this.#tier.watch(fd)
  }

  setQueueLog(index: number, logAddress: number): void {
    const ring = this.#rings[index]
    if (ring !== null) ring.logAddress = logAddress
  }

  /** Number of the window over the dirty bitmap; -1: nothing is logged any more. */
  setLog(window: number): void {
    if (this.#isLost) return
    const log = window < 0 ? null : new DirtyLog(window)
    this.#log?.close()
    this.#log = log
  }

  #list(): void {
    this.#receiveqs.length = 0
    this.#transmitqs.length = 0
    for (let pair = 0; pair < QUEUE_PAIRS_MAX; pair++) {
      const receiveq = this.#rings[2 * pair]
      const transmitq = this.#rings[2 * pair + 1]
      if (receiveq !== null && this.#isEnabled[2 * pair] !== 0) this.#receiveqs.push(receiveq)
      if (transmitq === null) continue
      this.#transmitqPair[this.#transmitqs.length] = pair
      this.#transmitqs.push(transmitq)
    }
  }

  stopIfFaulted(): boolean {
    let hasFaulted = this.#log?.hasFaulted() === true
    // All of them are asked: each is told but once.
    for (const window of this.#memory.windows) {
      if (shim.windowFaults(window) > 0) hasFaulted = true
    }
    if (hasFaulted) {
      this.setMemory([])
      this.setLog(-1)
      this.#isLost = true
    }
    return hasFaulted
  }

  /** Nobody owns it: no queue, no memory, nothing negotiated. */
  reset(): void {
    this.#isLost = false
    for (let index = 0; index < this.#rings.length; index++) this.stopQueue(index)
    this.#isEnabled.fill(0)
    this.setMemory([])
    this.setLog(-1)
    this.#wanted.set(null)
    this.#rss.configure(null)
    this.negotiate(NOTHING_NEGOTIATED)
  }

  close(): void {
    this.reset()
  }
}
