/**
 * The engine: one thread that owns all queues and runs bursts.
 *
 *     turn:  nextBurst -> classify -> [capture in] -> deliver [capture out] -> copies ...
 *            ... until no queue has more; then flush, give slots back, look for new frames
 *
 * It never throws on what frames, guests or peers do, never logs, and talks to the control plane between turns only.
 */
import type { Recorder } from '../capture/recorder.ts'
import type { IoTier, TapQueue, TierEvents } from '../io/tier.ts'
import { Burst } from '../mem/burst.ts'
import { FaultWatch } from '../mem/fault-watch.ts'
import { CopyProgram } from '../mem/copy-program.ts'
import type { EnginePort, EngineServices, PolledPort, PortFailed } from '../port/contract.ts'
import { polledWaitUs, PORTS_MAX, queuesOf } from '../port/contract.ts'
import type { PortFailure } from '../port/messages.ts'
import { EFAULT } from '../abi/errno.ts'
import type { Clock } from '../mem/clock.ts'
import { ENGINE_BURSTS, ENGINE_SLEEPS, SHARED_PENDING, SHARED_SLEEPING } from './cells.ts'
import type { EngineSettingsInPlace, MacRows } from './messages.ts'
import type { PolicyEvents } from './port-policy.ts'
import { PortPolicies } from './port-policy.ts'
import { Recorders } from './recorders.ts'
import type { DozeOptions } from './doze.ts'
import { Doze } from './doze.ts'
import { StageMachinery } from './egress.ts'
import { Forwarder } from './forward.ts'
import type { OnLoops } from './housekeeping.ts'
import { Housekeeping } from './housekeeping.ts'
import { Intake } from './intake.ts'
import { fillWithFrame } from './lone-frame.ts'
import { MacTable } from './mac-table.ts'
import { OwnFrames } from './own-frames.ts'
import type { Snooping } from './snooping.ts'
import { TapBudget } from './tap-budget.ts'
import { TierReports } from './tier-reports.ts'
import { TurnBudget } from './turn-budget.ts'

/** Cells of the MAC table that are read between two turns. */
const MAC_PAGE_CELLS = 4096
/**
 * A turn with at most so many frames ends asleep at once: at light load, and with the 64 KiB frames of
 * TCP, a system call saved is worth more than a sleep avoided (measured: spinning first cost 5-15 %
 * of TCP throughput beside sender and receiver on two cores).
 */
const FEW_FRAMES = 8
const DRAIN_WAIT_US = 1000
/** Reads that were cancelled answer at once; so long means that something is broken. */
const DRAIN_TURNS_MAX = 100_000
/** A TAP queue holds 1000 frames (txqueuelen), and most turns read 64 of them or more. */
const READ_OUT_TURNS_MAX = 64

export interface EngineOptions extends EngineSettingsInPlace, PolicyEvents, DozeOptions {
  readonly macTableSize: number
  readonly macSeed: number
  readonly counters: Float64Array
  readonly engineCounters: Float64Array
  readonly shared: Int32Array
  /** Longest sleep in microseconds; -1: until something wakes it. */
  readonly sleepMaxUs: number
  readonly clock: Clock
  /** A port cannot go on: its device is gone. */
  readonly onPortFailed: PortFailed
  readonly onLoops: OnLoops
}

export class Engine implements EngineServices {
  readonly forwarder: Forwarder
  readonly copies: CopyProgram = new CopyProgram()
  readonly own: OwnFrames = new OwnFrames()
  sleepMaxUs: number
  readonly #tier: IoTier
  readonly #burst: Burst = new Burst(() => this.#flushWrites())
  readonly #options: EngineOptions
  readonly #engineCounters: Float64Array
  readonly #shared: Int32Array
  readonly #clock: Clock
  readonly #macTable: MacTable
  readonly #housekeeping: Housekeeping
  readonly #stages: StageMachinery
  readonly #recorders: Recorders
  readonly #policies: PortPolicies
  readonly #intake: Intake = new Intake(
    () => this.#tier,
    (isBusy) => this.#drain(isBusy),
  )
  readonly #polled: PolledPort[] = this.#intake.polled
  readonly #faults: FaultWatch = new FaultWatch()
  readonly #budget: TurnBudget = new TurnBudget()
  readonly #tapBudget: TapBudget
  readonly #doze: Doze
  readonly #hasFailed: Uint8Array = new Uint8Array(PORTS_MAX)
  /** Places in `#polled` of the ports whose frames the tier may not have given to the kernel yet. */
  readonly #unreleased: Int32Array = new Int32Array(PORTS_MAX)
  #unreleasedCount = 0
  /** Of `pace`: whether the engine ever sleeps, and after how many turns without a frame. */
  #maySleep = true
  #spinsMax = 0
  #isPaused = false
  /** Turns without a frame, one after another. */
  #spins = 0

  /** `makeTier` is given the receiver of the tier's events. */
  constructor(options: EngineOptions, makeTier: (events: TierEvents) => IoTier) {
    this.#options = options
    this.sleepMaxUs = options.sleepMaxUs
    this.#engineCounters = options.engineCounters
    this.#shared = options.shared
    this.#clock = options.clock
    this.#macTable = new MacTable(options.macTableSize, options.macSeed)
    this.#recorders = new Recorders(this.#clock, this.copies)
    this.#policies = new PortPolicies(this.#clock.time, options.counters)
    this.#stages = new StageMachinery(options.counters, this.#policies.vlans, this.#recorders, () =>
      this.#flushWrites(),
    )
    this.forwarder = new Forwarder(
      this.#macTable,
      options.counters,
      this.#policies,
      this.#stages,
      options.engineCounters,
      this.#recorders.leaves.bind(this.#recorders),
    )
    const reports = new TierReports({
      port: (index) => this.forwarder.port(index),
      portFailed: (index, failure) => this.portFailed(index, failure),
    })
    this.#tier = makeTier(reports)
    this.#tapBudget = new TapBudget(this.#tier)
    this.#doze = new Doze(this.#tier, options)
    this.#housekeeping = new Housekeeping(
      this.#tier,
      this.#budget,
      this.#tapBudget,
      this.#macTable,
      this.#policies.snooping,
      this.#clock.time,
      this.#polled,
      options.engineCounters,
      options.onLoops,
      () => this.#policies.look(options),
    )
    this.configure(options)
    this.#clock.read()
  }

  /** Completes everything that ports were given. @hot */
  #flushWrites(): void {
    this.#tier.flush()
    this.copies.run()
  }

  /** From the next turn on. */
  configure({ pace, macAgingS, groups, snooping }: EngineSettingsInPlace): void {
    this.#maySleep = pace !== 'busy'
    this.#doze.isOn = pace === 'warm'
    this.#spinsMax = pace === 'interrupt' ? 0 : this.#tier.spins
    this.#housekeeping.macAgingS = macAgingS
    this.#policies.setGroups(groups)
    this.snooping.configure(snooping)
  }

  get snooping(): Snooping {
    return this.#policies.snooping
  }

  get tier(): IoTier {
    return this.#tier
  }

  /** Runs until `control`, called when the control plane asks, returns false. */
  run(control: () => boolean): void {
    const shared = this.#shared
    const tier = this.#tier
    for (;;) {
      if (Atomics.load(shared, SHARED_PENDING) !== 0) {
        Atomics.store(shared, SHARED_PENDING, 0)
        if (!control()) return
      }
      if (this.turn(this.#maySleep, this.#spinsMax) > 0 || tier.spin()) this.#spins = 0
      else this.#doze.spun(++this.#spins)
    }
  }

  /**
   * Ends a turn asleep, unless something came up after the last look. After a turn with few frames
   * the writes, the sleep and the next reads are one system call.
   * @hot
   */
  #endTurnAsleep(): void {
    const shared = this.#shared
    // Announce first, look again, then sleep: a sender that saw "awake" has been seen by us.
    Atomics.store(shared, SHARED_SLEEPING, 1)
    const most = this.sleepMaxUs
    let waitUs = Atomics.load(shared, SHARED_PENDING) !== 0 ? 0 : most
    if (waitUs !== 0 && !this.#isPaused) waitUs = polledWaitUs(this.#polled, most)
    // Asking for kicks writes to the guests' memory as well.
    if (this.#faults.hasNew()) waitUs = 0
    if (waitUs !== 0) this.#engineCounters[ENGINE_SLEEPS]++
    this.#doze.endTurn(waitUs)
    Atomics.store(shared, SHARED_SLEEPING, 0)
    if (waitUs !== 0) for (let at = 0; at < this.#polled.length; at++) this.#polled[at].wake?.()
    this.#spins = 0
    this.#clock.read()
    this.#housekeeping.tick()
  }

  /**
   * One turn; returns the frames that came in. With `maySleep` it ends asleep when there were few
   * frames, or none for more than `spinsMax` turns.
   * @hot
   */
  turn(maySleep: boolean, spinsMax: number): number {
    const tier = this.#tier
    const burst = this.#burst
    let frames = 0
    let queue: TapQueue | null
    while ((queue = tier.nextBurst(burst)) !== null) {
      if (frames === 0) this.#clock.read()
      frames += burst.count
      this.#forward(burst, queue.port, queue.index)
      this.#tapBudget.spent(burst.count, this.forwarder.costNs)
    }
    if (frames > 0) this.#tapBudget.endTurn()
    if (this.#polled.length > 0 && !this.#isPaused) frames += this.#poll(frames)
    if (frames > 0) {
      this.forwarder.endTurn()
      this.#housekeeping.tick()
      this.#doze.expectMore()
    }
    if (this.#faults.hasNew()) this.#stopFaulted()
    const isQuiet = frames === 0 ? this.#spins >= spinsMax : frames <= FEW_FRAMES
    if (maySleep && isQuiet) this.#endTurnAsleep()
    else tier.endTurn(0)
    return frames
  }

  /**
   * Gives the senders their memory back, so nothing may point into it any more. Few frames wait for those of
   * other ports, as a flush is a system call: towards a TAP, a frame each of 32 guests, 4.9 us and not 7.5. @hot
   */
  #release(): void {
    const count = this.#unreleasedCount
    if (count === 0) return
    this.#unreleasedCount = 0
    this.#tier.flush()
    this.#burst.headers.release()
    for (let k = 0; k < count; k++) this.#polled[this.#unreleased[k]].release()
  }

  /** Asks the polled ports for frames, each within its budget. @hot */
  #poll(framesBefore: number): number {
    const burst = this.#burst
    let frames = 0
    const ports = this.#polled.length
    let at = this.#budget.beginTurn(ports)
    for (let asked = 0; asked < ports; asked++, at = at + 1 < ports ? at + 1 : 0) {
      const port = this.#polled[at]
      if (!this.#budget.beginPort(port.index, port.isGuest === true, at)) continue
      for (let queues = port.rxQueues; queues > 0; queues--) {
        this.#budget.limit(burst, port.index)
        this.forwarder.expect(burst, port.index)
        const received = port.receive(burst)
        if (received === 0 && burst.descriptors === 0) continue
        this.#budget.read(burst.descriptors)
        // What was read from memory that is gone means nothing. A port that lost it is asked no more.
        if (this.#faults.hasNew() && this.#stopFaulted(port)) break
        this.#budget.begin(this.#clock, port.rxQueues > 1 || framesBefore + frames === 0)
        if (received > 0) {
          frames += received
          this.#forward(burst, port.index, port.rxQueue)
          this.#budget.spent(port.index, this.forwarder.costNs)
          this.#unreleased[this.#unreleasedCount++] = at
          // A port remembers the frames of one queue.
          if (received > FEW_FRAMES || queues > 1) this.#release()
        }
        if (queues > 1 && this.#budget.isUsedUp(this.#clock)) break
      }
      this.#budget.endPort(port.index)
    }
    this.#release()
    this.#budget.endPorts(burst)
    return frames
  }

  /**
   * Memory under a port was taken away: its queues stand still from here on and it fails, the others
   * go on. After every burst, so that no other frame is read from that memory or written to it. True:
   * `asked` is one of those.
   */
  #stopFaulted(asked: PolledPort | null = null): boolean {
    this.#faults.acknowledge()
    const lost = this.#intake.withMemory.filter((port) => port.stopIfFaulted?.() === true)
    for (const { index } of lost) {
      this.forwarder.setLink(index, false)
      this.#options.onPortFailed(index, { what: 'memory-lost', errno: EFAULT })
    }
    return lost.some((port) => port === asked)
  }

  /** @hot */
  #forward(burst: Burst, port: number, queue: number): void {
    this.#engineCounters[ENGINE_BURSTS]++
    const forwarder = this.forwarder
    const recorders = this.#recorders
    if (recorders.isWatching) recorders.recordEntering(burst, port)
    forwarder.classify(burst, port, (this.#clock.time[0] / 1e6) | 0)
    if (recorders.isWatching) recorders.recordLeaving(burst, forwarder, port)
    forwarder.deliver(burst, port, queue)
    this.copies.run()
    if (this.#faults.hasNew()) this.#stopFaulted()
  }

  /** `mustAsk`: the kernel as well, of drops that it gives no sign of. */
  publishCounters(mustAsk: boolean): void {
    this.#housekeeping.publishCounters(mustAsk)
  }

  /** The next turn does all of the housekeeping, whenever it was last. */
  tickSoon(): void {
    this.#housekeeping.soon()
  }

  /** It cannot go on: frames for it and from it are dropped. Told once, also while its link is down. */
  portFailed(port: number, failure: PortFailure): void {
    this.forwarder.setLink(port, false)
    if (this.#hasFailed[port] !== 0) return
    this.#hasFailed[port] = 1
    this.#options.onPortFailed(port, failure)
  }

  // --- what the control plane asks, between turns ---------------------------------------------

  /**
   * The port is the engine's from now on; when this throws it is closed, and not there. With `isHeld`
   * nothing enters or leaves by it before `release`.
   */
  addPort(port: EnginePort, mtu: number, isHeld: boolean = false): void {
    this.#hasFailed[port.index] = 0
    if (isHeld) this.#intake.holdNext(port.index)
    this.#intake.read(port)
    this.#intake.ask(port)
    this.forwarder.addPort(port, mtu)
    if (isHeld) this.forwarder.setHeld([port.index], true)
  }

  /** Ends every access to the port, if there is one, also when that goes wrong half-way. */
  removePort(index: number): void {
    const port = this.forwarder.port(index)
    try {
      this.#intake.stop(index, queuesOf(port))
    } finally {
      this.#intake.forget(index)
      this.own.forget(index)
      this.forwarder.removePort(index)
      this.#budget.forget(index)
      this.#recorders.removePort(index)
      port?.close()
    }
  }

  /**
   * Puts the port in the place of the one with its number, which is closed as by removePort; the rest
   * stays. When the new one cannot be read it is closed, and the old one stays.
   */
  replacePort(port: EnginePort): void {
    const old = this.forwarder.port(port.index)
    this.#hasFailed[port.index] = 0
    this.#intake.read(port)
    try {
      this.#intake.stop(port.index, queuesOf(old))
    } finally {
      this.#intake.ask(port)
      this.forwarder.replacePort(port)
      old?.close()
    }
  }

  /** From now on nothing enters or leaves by these ports: frames wait in their queues. */
  hold(indexes: readonly number[]): void {
    for (const index of indexes) this.#intake.hold(this.forwarder.port(index)!)
    this.forwarder.setHeld(indexes, true)
  }

  /** All of them at once. Returns those that cannot be read, which are held still. */
  release(indexes: readonly number[]): number[] {
    const failed: number[] = []
    for (const index of indexes) {
      try {
        this.#intake.release(this.forwarder.port(index)!)
      } catch {
        failed.push(index)
      }
    }
    const released = indexes.filter((index) => !failed.includes(index))
    this.forwarder.setHeld(released, false)
    this.#injectOwn()
    return failed
  }

  /** Runs a change between two reads of these queues; those attached after it are read again. */
  withoutReading(queues: readonly TapQueue[], change: () => void): void {
    this.#intake.withoutReading(queues, change)
  }

  /** Forwards what waits in the kernel, as far as a bounded number of turns goes. */
  readOut(): void {
    let turns = 0
    while (turns++ < READ_OUT_TURNS_MAX && (this.turn(false, 0) > 0 || this.#tier.spin()));
  }

  txOffloadsChanged({ index, txOffloads }: EnginePort): void {
    this.forwarder.setTxOffloads(index, txOffloads)
  }

  /** Frames of the port wait: it is held, or all are. */
  isStill(port: number): boolean {
    return this.#isPaused || this.#intake.isHeld(port)
  }

  /**
   * Forwards one frame as if it had come in by the port, when frames of it do not wait any more. At
   * most 1514 bytes.
   */
  inject(port: number, frame: Uint8Array): void {
    if (this.isStill(port)) {
      this.own.add(port, frame)
      return
    }
    const window = fillWithFrame(this.#burst, frame)
    this.#clock.read()
    this.#forward(this.#burst, port, 0)
    this.#tier.flush()
    this.forwarder.endTurn()
    window.unmap()
  }

  pause(): void {
    this.#isPaused = true
    this.#tier.pause()
    this.#drain(() => this.#tier.isReading)
    this.#doze.expectNone()
  }

  resume(): void {
    this.#isPaused = false
    this.#tier.resume()
    this.#injectOwn()
  }

  #injectOwn(): void {
    for (const { port, frame } of this.own.takeAll()) this.inject(port, frame)
  }

  /**
   * Runs turns until `isBusy` is false; whatever was read on the way is forwarded, and not only when
   * all other ports are quiet: a turn takes every completion that is there.
   */
  #drain(isBusy: () => boolean): void {
    for (let turns = 0; ; turns++) {
      const frames = this.turn(false, 0)
      if (!isBusy()) return
      if (turns > DRAIN_TURNS_MAX) throw new Error('a cancelled read never completed')
      if (frames === 0) this.#tier.endTurn(DRAIN_WAIT_US)
    }
  }

  get isPaused(): boolean {
    return this.#isPaused
  }

  get isRecorded(): boolean {
    return this.#recorders.isWatching
  }

  addRecorder(recorder: Recorder): void {
    this.#recorders.add(recorder)
  }

  removeRecorder(recorder: Recorder): void {
    this.#recorders.remove(recorder)
  }

  /** The addresses from that cell on: as many as never hold frames up for long, or all when none pass. */
  macTable(cell: number): MacRows {
    this.#clock.read()
    const nowS = (this.#clock.time[0] / 1e6) | 0
    const cells = this.#isPaused ? Infinity : MAC_PAGE_CELLS
    return this.#macTable.page(cell, cells, nowS, this.#housekeeping.macAgingS)
  }

  close(): void {
    this.snooping.close()
    this.#tier.close()
    this.#stages.close()
    this.copies.close()
    this.#burst.close()
  }
}
