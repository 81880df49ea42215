/**
 * What one guest's port may cost the others: how much goes into one burst of it, and how much time it
 * has in a turn. What a port could not do in its turn it does in the next, beginning with the queue
 * that follows, so that no queue and no port starves.
 *
 *     turn      | port 0: burst burst burst | port 1: burst | port 2: burst burst | TAPs ...
 *     budget    |<--------- slice -------->|  of time, looked at after each burst
 *                         |<--->| frames, bytes and descriptors, fixed before it is filled
 *
 * When the ports of a turn have together used up what there is, those that had much to do in their
 * last turn wait for the next one, which begins with the first of them. The others, who have a frame
 * now and then, are asked in every turn: with a thousand busy neighbours they wait as with one.
 *
 * Three things make a burst dear. Its descriptors and bytes are counted while it is filled. To how
 * many ports its frames go, and in how many segments, is known only afterwards: a port whose burst
 * was dearer than BURST_NS has its next ones halved until they are not, and gets back one halving in
 * RECOVERY_US; and it is left out of as many turns as the burst was too dear, also when that was a single
 * frame for a thousand ports. The cost is reckoned, not measured: a thread that is preempted in a burst would
 * look like a dear guest. What receivers cost, who can make every frame dear that is sent to them, is limited
 * in virtio/net/frame-sink.ts.
 *
 * All that is for guests. Ports of the program itself, memory and replayed files, are taken as they come.
 *
 * With several ports that have frames in every turn all of this shrinks, so that the turn stays short.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, SEGMENTS_MAX } from '../mem/burst.ts'
import { PORTS_MAX } from '../port/contract.ts'
import type { Clock } from '../mem/clock.ts'

/** Microseconds of all polled ports in a turn; and of one of them, at most. */
const TURN_US = 400
const SLICE_US_MAX = 200
/** Descriptors and L2 bytes of all bursts of a turn; and of one of them, at most and at least. */
const TURN_DESCRIPTORS = 8192
export const DESCRIPTORS_MAX = 4096
const DESCRIPTORS_MIN = 256
const TURN_BYTES = 2_097_152
/** 256 frames of 1514 bytes are not cut, which could be merged. */
export const BYTES_MAX = 524_288
const BYTES_MIN = 65_536
/** Reckoned nanoseconds of all bursts of a turn; and of one of them, at most and at least. */
const TURN_NS = 500_000
const BURST_NS_MAX = 250_000
const BURST_NS_MIN = 25_000
/** Reckoned nanoseconds of a turn after which busy ports wait; and what a port takes that is not busy. */
const BUSY_TURN_NS = 300_000
const SPARSE_NS_MAX = 20_000
const SPARSE_NS_MIN = 4000
/** A descriptor that is read, in a table that is not in the cache (measured: 12 to 17). */
const DESCRIPTOR_NS = 16
const RECOVERY_US = 100_000
/** More than what makes a port's bursts be halved again, or what comes back of them would be lost. */
const SEGMENTS_MIN = 1024
const NOBODY = PORTS_MAX
/** A burst of one frame. */
const HALVINGS_MAX = 8

export class TurnBudget {
  /** By port: how often the limits of its bursts are halved. */
  readonly #halvings: Uint8Array = new Uint8Array(PORTS_MAX)
  /** By port: reckoned nanoseconds for which it is left out, a part of them in each turn. */
  readonly #debtNs: Float64Array = new Float64Array(PORTS_MAX)
  /** By port: whether it had much to do in its last turn. */
  readonly #isBusy: Uint8Array = new Uint8Array(PORTS_MAX)
  /** Some port's bursts are halved. */
  #hasHalvings = false
  #nextRecoveryUs = 0
  /** Ports that had something in the turn before, and in this one so far. */
  #busy = 0
  #busyNow = 0
  /** Of the port whose bursts these are. */
  #isGuest = false
  /** Clock at the port's first burst of the turn; -1: it had none. */
  #startUs = -1
  /** Place of the first port that waits for the next turn, as the others have used up this one. */
  #firstWaiting: number = NOBODY
  /** Reckoned for the guests of the turn so far, and for the port. */
  #turnNs = 0
  #portNs = 0

  /** Returns the place of the polled port, of so many, that is asked first. @hot */
  beginTurn(ports: number): number {
    this.#busy = this.#busyNow
    this.#busyNow = 0
    this.#turnNs = 0
    const first = this.#firstWaiting
    this.#firstWaiting = NOBODY
    return first < ports ? first : 0
  }

  /** The next bursts are those of this port, at that place. False: it is left out of the turn. @hot */
  beginPort(port: number, isGuest: boolean, place: number): boolean {
    this.#startUs = -1
    this.#portNs = 0
    this.#isGuest = isGuest
    if (this.#turnNs >= BUSY_TURN_NS && this.#isBusy[port] !== 0) {
      if (this.#firstWaiting === NOBODY) this.#firstWaiting = place
      this.#busyNow++
      return false
    }
    const debt = this.#debtNs[port]
    if (debt === 0) return true
    const paid = this.#share(TURN_NS, BURST_NS_MIN, BURST_NS_MAX)
    this.#debtNs[port] = debt > paid ? debt - paid : 0
    this.#busyNow++
    return false
  }

  /** A part of what there is for all, between two bounds. @hot */
  #share(whole: number, least: number, most: number): number {
    const share = this.#busy < 2 ? whole : (whole / this.#busy) | 0
    if (share > most) return most
    return share < least ? least : share
  }

  /** The next bursts are not those of guests. @hot */
  endPorts(burst: Burst): void {
    burst.segmentsMax = SEGMENTS_MAX
  }

  /** Sets what the port's next burst may take. @hot */
  limit(burst: Burst, port: number): void {
    const halvings = this.#halvings[port]
    burst.descriptors = 0
    burst.framesMax = BURST_SIZE_MAX >> halvings
    const segments = SEGMENTS_MAX >> halvings
    burst.segmentsMax = segments < SEGMENTS_MIN ? SEGMENTS_MIN : segments
    burst.bytesMax = this.#share(TURN_BYTES, BYTES_MIN, BYTES_MAX) >> halvings
    burst.descriptorsMax = this.#share(TURN_DESCRIPTORS, DESCRIPTORS_MIN, DESCRIPTORS_MAX)
  }

  /**
   * The port has a burst, be it of nothing but unusable chains. With `mustRead` the clock is read if it
   * is the first one of the turn.
   * @hot
   */
  begin(clock: Clock, mustRead: boolean): void {
    if (this.#startUs >= 0) return
    if (mustRead) clock.read()
    this.#startUs = clock.time[0]
    this.#busyNow++
  }

  /** Whether the port's time in this turn is used up. @hot */
  isUsedUp(clock: Clock): boolean {
    if (!this.#isGuest) return false
    clock.read()
    return clock.time[0] - this.#startUs >= this.#share(TURN_US, 1, SLICE_US_MAX)
  }

  /** A burst of so many descriptors was read from the port. @hot */
  read(descriptors: number): void {
    this.#portNs += descriptors * DESCRIPTOR_NS
  }

  /** The port has no more bursts in this turn. @hot */
  endPort(port: number): void {
    if (!this.#isGuest) return
    this.#turnNs += this.#portNs
    const most = this.#share(BUSY_TURN_NS, SPARSE_NS_MIN, SPARSE_NS_MAX)
    this.#isBusy[port] = this.#portNs > most ? 1 : 0
  }

  /** What a burst of the port's led to cost so many reckoned nanoseconds. @hot */
  spent(port: number, costNs: number): void {
    if (!this.#isGuest) return
    this.#portNs += costNs
    const most = this.#share(TURN_NS, BURST_NS_MIN, BURST_NS_MAX)
    if (costNs > most) this.#debtNs[port] = costNs - most
    let halvings = this.#halvings[port]
    for (let cost = costNs; cost > most && halvings < HALVINGS_MAX; cost /= 2) halvings++
    if (halvings === this.#halvings[port]) return
    this.#halvings[port] = halvings
    this.#hasHalvings = true
  }

  /** Called now and then: gives back what was halved. */
  recover(nowUs: number): void {
    if (!this.#hasHalvings || nowUs < this.#nextRecoveryUs) return
    this.#nextRecoveryUs = nowUs + RECOVERY_US
    this.#hasHalvings = false
    for (let port = 0; port < PORTS_MAX; port++) {
      if (this.#halvings[port] === 0) continue
      this.#halvings[port]--
      if (this.#halvings[port] > 0) this.#hasHalvings = true
    }
  }

  /** Another port gets the number. */
  forget(port: number): void {
    this.#halvings[port] = 0
    this.#debtNs[port] = 0
    this.#isBusy[port] = 0
  }
}
