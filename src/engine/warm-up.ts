/**
 * Makes the engine's code warm before the first frame. V8 interprets what has run a few times only: the
 * first frames of a new switch would take twice as long as those after some thousand others.
 *
 *     socket pair --> [TapPort] \                 / [TapPort] --> socket pair
 *                                > turns, asleep <
 *     driver's ring -> [VirtioPort] /             \ [VirtioPort] -> driver's ring
 *
 * For each kind of port that is to come, two of it exchange frames for a moment. A socket that keeps
 * messages apart stands in for a TAP, a driver in this thread for a guest. Nothing of it is left: the
 * numbers of those ports are free, their addresses forgotten, their counters zero.
 */
import { VNET_HDR_MRG_LENGTH } from '../abi/virtio-net.ts'
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_VERSION_1 } from '../abi/virtio-features.ts'
import { SysError } from '../errors.ts'
import { wholeWindow } from '../mem/guest-memory.ts'
import { Window } from '../mem/window.ts'
import { makeEventFd } from '../native/event-fd.ts'
import { shim } from '../native/shim.ts'
import type { EnginePort } from '../port/port.ts'
import { PORTS_MAX } from '../port/port.ts'
import { TapPort } from '../port/tap-port.ts'
import { VirtioPort } from '../port/virtio-port.ts'
import { COUNTERS_STRIDE } from '../stats/counters.ts'
import { negotiatedOf } from '../virtio/negotiated.ts'
import { NetDriver, ringSetup } from '../virtio/net-driver.ts'
import { MEMORY_ADDRESS, memoryLength } from '../virtio/net-layout.ts'
import { ENGINE_BURSTS, SHARED_PENDING } from './cells.ts'
import type { PortDescription } from './messages.ts'
import type { Engine } from './engine.ts'
import type { PortSurroundings } from './make-port.ts'
import { RawSocketEnd } from './warm-up-raw.ts'

/** Rounds in which every pair exchanges frames; enough for V8 to compile all that they run through. */
const ROUNDS = 1500
/** The time that it takes at most. */
const LIMIT_MS = 200
/** Frames of a burst: one, as at light load, and more. */
const BURSTS: readonly number[] = [1, 1, 2, 1, 4, 1, 1, 16]
const FRAME_LENGTH = 98
/** The first four bytes of its addresses, locally administered, and as the MAC table has them. */
const ADDRESS_BYTES: readonly number[] = [2, 0x66, 0x70, 0]
const ADDRESS_HI = 0x70_6602
/** Ethertype of IEEE 802. */
const LOCAL_EXPERIMENTAL: readonly number[] = [0x88, 0xb5]
const SOCK_SEQPACKET = 5
const O_NONBLOCK = 0o4000
const FEATURES: bigint = (1n << BigInt(VIRTIO_F_VERSION_1)) | (1n << BigInt(VIRTIO_NET_F_MRG_RXBUF))

/** The other side of a port: what a TAP's network stack or a guest would be. */
interface FarEnd {
  readonly port: EnginePort
  send(frame: Uint8Array): void
  /** Takes what has come; returns how many frames. */
  drain(): number
  /** After the engine let go of the port. */
  close(): void
}

export interface WarmUpSurroundings extends PortSurroundings {
  readonly engine: Engine
  readonly engineCounters: Float64Array
  readonly shared: Int32Array
  /** Wakes the engine, as the control plane does. */
  readonly wake: () => void
}

export class WarmUp {
  readonly #surroundings: WarmUpSurroundings
  /** Of TAPs that are to come, bytes of vnet_hdr. */
  readonly #headerLengths = new Set<number>()
  /** The same of raw sockets. */
  readonly #rawLengths = new Set<number>()
  #hasGuests = false
  readonly #done = new Set<string>()

  constructor(surroundings: WarmUpSurroundings) {
    this.#surroundings = surroundings
  }

  /** A port of this kind is to come. */
  expect(description: PortDescription): void {
    const { kind } = description
    if (kind === 'tap') this.#headerLengths.add(description.vnetHdrLength)
    if (kind === 'raw-socket') this.#rawLengths.add(description.vnetHdrLength)
    // What it will be is known when frames wait already.
    if (kind === 'postponed') this.#headerLengths.add(VNET_HDR_MRG_LENGTH)
    if (kind === 'postponed' || kind === 'virtio') this.#hasGuests = true
  }

  /**
   * Before ports that are expected are read. Once frames have passed nothing is done: they would wait;
   * nor while a capture runs, which would have its frames.
   * Returns how many frames of its own passed. What cannot be had is left out: cold it works as well.
   */
  run(): number {
    const { engine, engineCounters } = this.#surroundings
    if (engineCounters[ENGINE_BURSTS] > 0 || engine.isRecorded) return 0
    const makers = this.#makers()
    if (makers.length === 0) return 0
    const before = Float64Array.from(engineCounters)
    const ends: FarEnd[] = []
    try {
      for (const make of [...makers, ...makers]) this.#add(make, ends)
      // Nobody else is given a frame: every address is known before the first one.
      return this.#learn(ends) ? exchange(ends, this.#surroundings) : 0
    } catch (error) {
      if (!(error instanceof SysError)) throw error
      return 0
    } finally {
      for (const end of ends) this.#remove(end)
      engineCounters.set(before)
    }
  }

  /** Of the kinds that are expected, and not warm yet. */
  #makers(): Make[] {
    const makers: Make[] = []
    for (const length of this.#headerLengths) {
      if (!this.#begins(`tap ${length}`)) continue
      makers.push((index, surroundings) => new TapEnd(index, length, surroundings))
    }
    for (const length of this.#rawLengths) {
      if (!this.#begins(`raw-socket ${length}`)) continue
      makers.push((index, surroundings) => new RawSocketEnd(index, length, surroundings))
    }
    if (this.#hasGuests && this.#begins('guest')) {
      makers.push((index, surroundings) => new GuestEnd(index, surroundings))
    }
    return makers
  }

  #begins(kind: string): boolean {
    if (this.#done.has(kind)) return false
    this.#done.add(kind)
    return true
  }

  #add(make: Make, ends: FarEnd[]): void {
    const { engine } = this.#surroundings
    let index = PORTS_MAX - 1
    while (index >= 0 && engine.forwarder.port(index) !== null) index--
    if (index < 0) return
    const end = make(index, this.#surroundings)
    ends.push(end)
    engine.addPort(end.port, 0, false)
  }

  /** False: the table is too small. */
  #learn(ends: readonly FarEnd[]): boolean {
    const { engine, clock } = this.#surroundings
    const { macTable } = engine.forwarder
    clock.read()
    const nowS = (clock.time[0] / 1e6) | 0
    for (const [at, { port }] of ends.entries()) {
      macTable.learn(ADDRESS_HI, at << 8, port.index, nowS)
    }
    return ends.every(({ port }, at) => macTable.lookup(ADDRESS_HI, at << 8) === port.index)
  }

  #remove(end: FarEnd): void {
    const { engine, counters } = this.#surroundings
    const { index } = end.port
    engine.removePort(index)
    end.close()
    engine.forwarder.macTable.forgetPort(index)
    counters.fill(0, index * COUNTERS_STRIDE, (index + 1) * COUNTERS_STRIDE)
  }
}

/** Of a kind, with that number. */
type Make = (index: number, surroundings: PortSurroundings) => FarEnd

/** Frames from each end to the other one of its kind, and now and then to the rest. */
function exchange(ends: readonly FarEnd[], surroundings: WarmUpSurroundings): number {
  const { engine, shared, wake } = surroundings
  if (ends.length < 2) return 0
  const pending = Atomics.exchange(shared, SHARED_PENDING, 0)
  const until = performance.now() + LIMIT_MS
  const half = ends.length >> 1
  let passed = 0
  const frames = ends.map((_, from) => ends.map((__, to) => frameBetween(from, to)))
  for (let round = 0; round < ROUNDS && performance.now() < until; round++) {
    const count = BURSTS[round % BURSTS.length]
    for (let from = 0; from < ends.length; from++) {
      const to =
        (round & 7) === 7 ? (from + (round >> 3)) % ends.length : (from + half) % ends.length
      for (let sent = 0; sent < count; sent++) ends[from].send(frames[from][to])
      // The first turn finds them as it falls asleep, where there was nothing before.
      for (let turn = 0; turn < 3; turn++) {
        wake()
        engine.turn(true, 0)
      }
      passed += ends[to].drain()
    }
  }
  if (pending !== 0) Atomics.store(shared, SHARED_PENDING, pending)
  return passed
}

function frameBetween(from: number, to: number): Uint8Array {
  const frame = new Uint8Array(FRAME_LENGTH)
  frame.set([...ADDRESS_BYTES, 0, to, ...ADDRESS_BYTES, 0, from, ...LOCAL_EXPERIMENTAL])
  return frame
}

class TapEnd implements FarEnd {
  readonly port: TapPort
  readonly #near: number
  readonly #far: number
  readonly #bytes: Window = Window.map(4096)
  readonly #headerLength: number

  constructor(index: number, headerLength: number, surroundings: PortSurroundings) {
    const fds = new Int32Array(2)
    const made = shim.socketPair(SOCK_SEQPACKET, fds)
    if (made < 0) throw new SysError('OUT_OF_RESOURCES', 'socketpair', { errno: -made })
    for (const fd of fds) shim.setStatusFlags(fd, O_NONBLOCK)
    this.#near = fds[0]
    this.#far = fds[1]
    this.#headerLength = headerLength
    const queue = { fds: [fds[0]], vnetHdrLength: headerLength, txOffloads: 0 }
    // They are no TAP's: nothing is asked of them, which an instance that waits must not either.
    const options = { index, ...queue, areAttached: true }
    try {
      this.port = new TapPort(options, surroundings.tier, surroundings.counters)
    } catch (error) {
      this.close()
      throw error
    }
  }

  send(frame: Uint8Array): void {
    new Uint8Array(this.#bytes.buffer).set(frame, this.#headerLength)
    shim.writeFrom(this.#far, this.#bytes.id, 0, this.#headerLength + frame.length, 0)
  }

  drain(): number {
    let count = 0
    while (shim.readInto(this.#far, this.#bytes.id, 2048, 2048) > 0) count++
    return count
  }

  close(): void {
    shim.close(this.#near)
    shim.close(this.#far)
    this.#bytes.unmap()
  }
}

class GuestEnd implements FarEnd {
  readonly port: VirtioPort
  readonly #memory: Window = Window.map(memoryLength(2))
  readonly #driver: NetDriver

  constructor(index: number, surroundings: PortSurroundings) {
    const { tier, scratch, signals, counters, events } = surroundings
    const kickFd = makeEventFd()
    this.#driver = new NetDriver({
      buffer: this.#memory.buffer,
      features: FEATURES,
      pairs: 1,
      kick: () => void shim.eventfdWrite(kickFd),
    })
    this.port = new VirtioPort(index, tier, scratch, signals, counters, events)
    try {
      this.port.negotiate(negotiatedOf(FEATURES))
      this.port.setMemory([wholeWindow(this.#memory, MEMORY_ADDRESS)])
      this.#start(1, kickFd)
      this.#start(0, -1)
    } catch (error) {
      this.port.close()
      this.close()
      throw error
    }
  }

  #start(queue: number, kickFd: number): void {
    const fds = { kickFd, callFd: makeEventFd() }
    this.port.startQueue(queue, { ...ringSetup(queue, FEATURES), logAddress: -1, ...fds })
    this.port.enableQueue(queue, true)
  }

  send(frame: Uint8Array): void {
    const to = this.#driver.reserve(0)
    if (to < 0) return
    this.#driver.bytes.set(frame, to)
    this.#driver.submit(0, frame.length)
    this.#driver.flush(0)
  }

  drain(): number {
    let count = 0
    for (; this.#driver.receive(0); count++) this.#driver.release(0)
    this.#driver.flush(0)
    this.#driver.enableCalls()
    return count
  }

  close(): void {
    this.#memory.unmap()
  }
}
