/**
 * Where frames go: learns sources, looks destinations up, and hands each egress its frames.
 *
 * A burst goes in passes: classify every frame (learn, look up, decide), which appends its number
 * to the list of each port that shall have it; then deliver list by list. Within a list the order
 * of arrival is kept, so a flow never reorders.
 *
 * Frames are known by VLAN and address. What ports are allowed (engine/port-policy.ts) is a word of flags
 * for each: that of the in-port is looked at once per burst, that of an egress once per run of frames.
 *
 * Ports on a link have exactly one peer and skip the table and all of that.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../mem/burst.ts'
import type { EnginePort } from '../port/contract.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { isGroup } from '../wire/ethernet.ts'
import { tagIn, vidOf } from '../wire/vlan.ts'
import { ENGINE_COUNTERS } from './cells.ts'
import type { StageMachinery } from './egress.ts'
import { Egress, NO_LIMIT, SEGMENT_NS } from './egress.ts'
import { Floods } from './floods.ts'
import { Given } from './given.ts'
import { dropMisplacedChecksums } from './guard-checksums.ts'
import type { MacTable } from './mac-table.ts'
import type { MirrorDescription, PortPolicy } from './messages.ts'
import type { CopyRecorder, MirrorPorts } from './mirror-output.ts'
import { Mirrors } from './mirrors.ts'
import { NO_PORT, Places } from './places.ts'
import type { PortPolicies } from './port-policy.ts'
import { GUARD_LENGTH } from './guards.ts'
import {
  ASKS_INNER,
  HAIRPINS,
  HAS_GUARD,
  HAS_VLANS,
  IS_ISOLATED,
  KEEPS_HEADS,
  LEARNS_NOT,
  READS_ON,
} from './port-policy.ts'
import { endOfLongEnough, endOfRun } from './runs.ts'
import { meetSender, PASSES } from './senders.ts'

/** What a burst costs, in nanoseconds: about, and without what the kernel or a guest make of it. */
const FURTHER_NS = 15
const KIBIBYTE_NS = 100
const COST_MAX = 1e9

/** What of word 3 of `heads` must be the same in a run: the type, or all of a tag. */
const TYPE_MASK = 0xffff
const TAG_MASK = -1
const ANY_PORT = -1

export class Forwarder {
  readonly macTable: MacTable
  readonly mirrors: Mirrors
  readonly #counters: Float64Array
  readonly #policies: PortPolicies
  readonly #machinery: StageMachinery

  readonly #egresses: (Egress | null)[] = Array.from({ length: PORTS_MAX }, () => null)
  readonly #places: Places = new Places()
  /** Ports whose TCP segments are merged for those that take TSO. */
  readonly #merges: Uint8Array = new Uint8Array(PORTS_MAX)
  /** L2 bytes of the current burst. */
  #bytes = 0
  readonly given: Given
  readonly #floods: Floods
  /** Ports that were given frames in this turn. */
  readonly #touched: Int32Array = new Int32Array(PORTS_MAX)
  readonly #isTouched: Uint8Array = new Uint8Array(PORTS_MAX)
  #touchedCount = 0
  /** Reckoned nanoseconds of the last `deliver`. */
  costNs = 0

  constructor(
    macTable: MacTable,
    counters: Float64Array,
    policies: PortPolicies,
    machinery: StageMachinery,
    engineCounters: Float64Array = new Float64Array(ENGINE_COUNTERS),
    recordCopies: CopyRecorder = () => undefined,
  ) {
    this.macTable = macTable
    this.#machinery = machinery
    const ports: MirrorPorts = {
      counters,
      machinery,
      policies,
      places: this.#places,
      recordCopies,
      egressOf: (index) => this.#egresses[index],
      mayRetag: (from, to) => this.mayRetag(from, to),
      touch: (index) => this.#touch(index),
    }
    this.mirrors = new Mirrors(ports, engineCounters)
    this.#counters = counters
    this.#policies = policies
    this.given = new Given(counters, this.#places, policies, this.#egresses)
    const { copyVlans } = this.mirrors
    this.#floods = new Floods(counters, this.#places, policies, this.given, copyVlans)
  }

  /** Puts a port on the switch. `mtu` 0: no limit. */
  addPort(port: EnginePort, mtu: number): void {
    const index = port.index
    const egress = new Egress(port, this.#machinery)
    egress.setMtu(mtu)
    this.#egresses[index] = egress
    this.#places.add(index)
  }

  /**
   * Mirrors from now on. Ports that are outputs take nothing but copies, and what comes by them is dropped; in
   * VLANs that are outputs nothing is learnt.
   */
  setMirrors(mirrors: readonly MirrorDescription[]): void {
    this.mirrors.set(mirrors)
    for (let index = 0; index < PORTS_MAX; index++) {
      const isOutput = this.mirrors.isOutput(index)
      if (isOutput) this.forget(index)
      this.#places.setOutput(index, isOutput)
    }
    this.#places.listMembers()
    for (const { outputVlan } of mirrors) {
      if (outputVlan > 0) this.macTable.flush(ANY_PORT, outputVlan)
    }
  }

  /** What a port is allowed from now on; before it is there, from its first frame on. */
  setPolicy(index: number, policy: PortPolicy): void {
    this.#policies.set(index, policy)
    this.macTable.setPort(index, policy.macLimit, policy.isSticky)
  }

  /** Longer frames do not leave by the port; 0: no limit. */
  setMtu(index: number, mtu: number): void {
    this.#egresses[index]?.setMtu(mtu)
  }

  /** Another port with the number of one that is there: it stays where that was. */
  replacePort(port: EnginePort): void {
    const index = port.index
    const egress = new Egress(port, this.#machinery)
    egress.lengthMax = this.#egresses[index]?.lengthMax ?? NO_LIMIT
    this.#egresses[index] = egress
    port.setWired?.(this.#places.peer[index] !== NO_PORT)
  }

  removePort(index: number): void {
    const peer = this.#places.peer[index]
    if (peer !== NO_PORT) this.port(peer)?.setWired?.(false)
    this.#places.remove(index)
    this.#egresses[index] = null
    this.#merges[index] = 0
    this.forget(index)
    this.macTable.forgetStatic(index)
    this.macTable.setPort(index, NO_LIMIT, false)
    this.#policies.clear(index)
  }

  /** What was learnt there is so no more. */
  forget(index: number): void {
    this.macTable.forgetPort(index)
    this.#policies.snooping.forgetPort(index)
  }

  port(index: number): EnginePort | null {
    return this.#egresses[index]?.port ?? null
  }

  setLink(index: number, isUp: boolean): void {
    this.#places.setLink(index, isUp)
    if (!isUp) this.forget(index)
  }

  /** Ports that a flood reaches. */
  get memberCount(): number {
    return this.#places.memberCount
  }

  /** Held ports get nothing and give nothing, and have no part in floods. */
  setHeld(indexes: readonly number[], isHeld: boolean): void {
    this.#places.setHeld(indexes, isHeld)
    // What its hosts have joined they do not say again.
    if (isHeld) for (const index of indexes) this.macTable.forgetPort(index)
  }

  /** What a port can be given has changed: its guest has negotiated. */
  setTxOffloads(index: number, txOffloads: number): void {
    this.#egresses[index]?.setTxOffloads(txOffloads)
  }

  /** Whether segments that come in by the port are merged: it has no TSO, and is not told otherwise. */
  setMerging(index: number, isMerging: boolean): void {
    this.#merges[index] = isMerging ? 1 : 0
  }

  /** Wires two ports to each other; they leave the switch. */
  wire(a: number, b: number): void {
    this.#places.wire(a, b)
    for (const index of [a, b]) this.port(index)?.setWired?.(true)
    this.forget(a)
    this.forget(b)
  }

  /** Both ports of a link return to the switch. */
  unwire(a: number, b: number): void {
    this.#places.unwire(a, b)
    for (const index of [a, b]) this.port(index)?.setWired?.(false)
  }

  /** Before the port gives frames: how much of them is ours from the beginning. @hot */
  expect(burst: Burst, inPort: number): void {
    const isLookedAt = (this.#policies.flags[inPort] & HAS_GUARD) !== 0
    burst.ownLength = isLookedAt && this.#isForeign(inPort) ? GUARD_LENGTH : 0
  }

  /**
   * Decides for each frame of the burst, which came in by `inPort`, who shall have it; afterwards
   * `egress` and `lists` hold the answer, for `deliver`.
   * @hot
   */
  classify(burst: Burst, inPort: number, nowS: number): void {
    this.#countReceived(burst, inPort)
    if (this.#places.passes[inPort] === 0) {
      const reason = this.#places.isUp(inPort)
        ? COUNTERS.rx_drop_mirror_output
        : COUNTERS.rx_drop_link_down
      this.#counters[inPort * COUNTERS_STRIDE + reason] += burst.count
      return
    }
    const peer = this.#places.peer[inPort]
    const { mirrors } = this
    if (peer === NO_PORT) this.#classifyOnSwitch(burst, inPort, nowS)
    else {
      if (mirrors.isOn) mirrors.arrivedOnLink(burst, inPort)
      this.given.give(burst, 0, burst.count, peer)
    }
    if (mirrors.isOn) {
      const { egress, egressCount, lists, listLength } = this.given
      mirrors.left(burst, inPort, egress, egressCount, lists, listLength)
    }
  }

  /** @hot */
  #countReceived(burst: Burst, inPort: number): void {
    const lengths = burst.length
    let bytes = 0
    for (let k = 0; k < burst.count; k++) bytes += lengths[k]
    this.#bytes = bytes
    const base = inPort * COUNTERS_STRIDE
    this.#counters[base + COUNTERS.rx_frames] += burst.count
    this.#counters[base + COUNTERS.rx_bytes] += bytes
  }

  /** Frames that follow one another mostly share addresses and tag: each such run is decided once. @hot */
  #classifyOnSwitch(burst: Burst, inPort: number, nowS: number): void {
    const heads = burst.heads
    const table = this.macTable
    const policyFlags = this.#policies.flags
    const flags = policyFlags[inPort]
    const isOneRun = (flags & HAS_GUARD) !== 0 && this.#admit(burst, inPort)
    if (this.#policies.snooping.isOn) this.#policies.snooping.gather(burst)
    const count = burst.count
    const { mirrors } = this
    const isMirrored = mirrors.isOn
    let lastSourceHi = 0
    let lastSourceLo = 0
    // Zero, which the last one begins with, is no sender.
    let fault: number = COUNTERS.rx_drop_source
    let end = 0
    for (let first = 0; first < count; first = end) {
      const at = first * HEAD_WORDS
      const tag = tagIn(heads[at + 3])
      end = isOneRun ? count : endOfRun(heads, first, count, tag === 0 ? TYPE_MASK : TAG_MASK)
      let vlan = 0
      if (tag !== 0) {
        end = endOfLongEnough(burst.length, first, end)
        vlan = vidOf(tag)
        if (end === first) {
          end = first + 1
          this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_malformed]++
          continue
        }
      }
      burst.isOneRun = end - first === count
      if ((flags & HAS_VLANS) !== 0) {
        vlan = this.#policies.vlans.enter(inPort, tag)
        if (vlan < 0) {
          this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_vlan] += end - first
          continue
        }
      }
      const hi = heads[at]
      const word1 = heads[at + 1]
      const lo = (word1 & 0xffff) | (vlan << 16)
      const word2 = heads[at + 2]
      const sourceHi = (word1 >>> 16) | (word2 << 16)
      const sourceLo = (word2 >>> 16) | (vlan << 16)
      if (sourceHi !== lastSourceHi || sourceLo !== lastSourceLo) {
        const isOfCopies = isMirrored && mirrors.copyVlans.has(vlan)
        const its = isOfCopies ? flags | LEARNS_NOT : flags
        fault = meetSender(table, sourceHi, sourceLo, inPort, its, nowS)
        lastSourceHi = sourceHi
        lastSourceLo = sourceLo
      }
      if (fault !== PASSES) {
        this.#counters[inPort * COUNTERS_STRIDE + fault] += end - first
        continue
      }
      if (isMirrored) mirrors.arrived(burst, inPort, first, end, vlan)
      const port = isGroup(hi) ? NO_PORT : table.lookup(hi, lo)
      if (port === NO_PORT) this.#floods.flood(burst, first, end, inPort, vlan)
      else if (port !== inPort || (flags & HAIRPINS) !== 0) {
        const has = policyFlags[port] & (HAS_VLANS | IS_ISOLATED)
        if (has === 0 || this.#mayLeave(inPort, port, vlan, end - first)) {
          this.given.give(burst, first, end, port)
        }
      } else this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_same_port] += end - first
    }
    if (this.given.asksInner) this.given.dropByInnerTags(burst, inPort)
  }

  /** Leaves of the burst what the guard of the port passes, and stays as it was then; see there. @hot */
  #admit(burst: Burst, inPort: number): boolean {
    if (burst.hasOffloads && (this.#policies.flags[inPort] & READS_ON) !== 0) {
      this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_malformed] +=
        dropMisplacedChecksums(burst)
    }
    return this.#policies.guards.admit(burst, inPort, this.#isForeign(inPort))
  }

  /** What comes by the port lies in memory that others write to. @hot */
  #isForeign(port: number): boolean {
    return this.#egresses[port]?.isForeign === true
  }

  /** Frames of the VLAN may go to the port that has their destination; else they are counted. @hot */
  #mayLeave(inPort: number, port: number, vlan: number, frames: number): boolean {
    const { flags, vlans } = this.#policies
    const has = flags[port]
    const isCarried = (has & HAS_VLANS) === 0 || vlans.carries(port, vlan)
    const isApart = (has & flags[inPort] & IS_ISOLATED) !== 0
    if (!isCarried || isApart) {
      const counter = isApart ? COUNTERS.tx_drop_isolated : COUNTERS.tx_drop_vlan
      this.#counters[port * COUNTERS_STRIDE + counter] += frames
      return false
    }
    if ((has & ASKS_INNER) !== 0) this.given.asksInner = true
    return true
  }

  /**
   * Frames that came in by `from` may leave by `to` with other tags than they came with: they go through
   * the tag stage, and whoever watches is told there of what leaves. So do those of a port
   * that keeps heads.
   * @hot
   */
  mayRetag(from: number, to: number): boolean {
    const { flags } = this.#policies
    return (((flags[from] | flags[to]) & HAS_VLANS) | (flags[from] & KEEPS_HEADS)) !== 0
  }

  /** Gives every egress port its frames and empties the lists. @hot */
  deliver(burst: Burst, inPort: number, queue: number): void {
    const { given } = this
    const count = given.egressCount
    let deliveries = 0
    let cost = 0
    const { finisher, tagger } = this.#machinery
    finisher.beginBurst(burst.segmentsMax)
    tagger.beginBurst(inPort, this.#isForeign(inPort))
    const merges = this.#merges[inPort] !== 0
    for (let at = 0; at < count; at++) {
      const port = given.egress[at]
      const egress = this.#egresses[port]!
      const listed = given.listLength[port]
      deliveries += listed
      cost += listed * egress.deliveryNs
      given.listLength[port] = 0
      const before = finisher.segments
      if (listed === 0) {
        egress.isShort = false
        continue
      }
      const isTagging = this.mayRetag(inPort, port)
      let taker = isTagging ? egress.tagPlain : egress.plain
      if (egress.isShort) {
        egress.isShort = false
        taker = isTagging ? egress.tagFinishing : egress.finishing
      } else if (merges && listed > 1) taker = isTagging ? egress.tagMerging : egress.merging
      taker.transmit(burst, given.lists, port * BURST_SIZE_MAX, listed, queue)
      // Each of them is a frame for the port.
      cost += (finisher.segments - before) * egress.deliveryNs
      this.#touch(port)
    }
    given.egressCount = 0
    if (this.mirrors.isOn) cost += this.mirrors.deliver(burst, inPort, queue)
    // What the frames have on average, so often as they were given to somebody.
    if (burst.count > 0) {
      const each = (this.#bytes >> 10) * KIBIBYTE_NS + burst.furtherTotal * FURTHER_NS
      cost += (deliveries / burst.count) * each
    }
    cost += finisher.segments * SEGMENT_NS
    if (this.#policies.snooping.isOn) cost += this.#policies.snooping.takeCost()
    this.costNs = cost < COST_MAX ? cost | 0 : COST_MAX
  }

  /** @hot */
  #touch(port: number): void {
    if (this.#isTouched[port] !== 0) return
    this.#isTouched[port] = 1
    this.#touched[this.#touchedCount++] = port
  }

  /** Tells the ports that were given frames that the turn is over. @hot */
  endTurn(): void {
    const count = this.#touchedCount
    for (let at = 0; at < count; at++) {
      const port = this.#touched[at]
      this.#isTouched[port] = 0
      this.#egresses[port]?.port.endTurn()
    }
    this.#touchedCount = 0
  }
}
