/**
 * Where frames go: learns sources, looks destinations up, and hands each egress its frames.
 *
 * A burst goes in passes: classify every frame (learn, look up, decide), which appends its number
 * to the list of each port that shall have it; then deliver list by list. Within a list the order
 * of arrival is kept, so a flow never reorders.
 *
 * Ports on a link have exactly one peer and skip the table.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../mem/burst.ts'
import type { EnginePort } from '../port/contract.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { isGroup, isReservedGroup } from '../wire/ethernet.ts'
import { isGso } from '../wire/vnet-hdr.ts'
import { ENGINE_COUNTERS } from './cells.ts'
import type { StageMachinery } from './egress.ts'
import { Egress, NO_LIMIT, SEGMENT_NS } from './egress.ts'
import type { MacTable } from './mac-table.ts'
import type { MirrorDescription } from './messages.ts'
import type { CopyRecorder, MirrorPorts } from './mirror-output.ts'
import { Mirrors } from './mirrors.ts'

const NO_PORT = -1
/** What a burst costs, in nanoseconds: about, and without what the kernel or a guest make of it. */
const FURTHER_NS = 15
const KIBIBYTE_NS = 100
const COST_MAX = 1e9

export class Forwarder {
  readonly macTable: MacTable
  readonly mirrors: Mirrors
  readonly #counters: Float64Array
  /** 01-80-C2-00-00-00..0F are not forwarded. */
  dropsReservedGroups: boolean
  readonly #machinery: StageMachinery

  readonly #egresses: (Egress | null)[] = Array.from({ length: PORTS_MAX }, () => null)
  /** Ports on the switch (not on a link), for floods. */
  readonly #members: Int32Array = new Int32Array(PORTS_MAX)
  #memberCount = 0
  /** Peer of a port on a link, else NO_PORT. */
  readonly #peer: Int32Array = new Int32Array(PORTS_MAX).fill(NO_PORT)
  readonly #linkUp: Uint8Array = new Uint8Array(PORTS_MAX)
  readonly #isHeld: Uint8Array = new Uint8Array(PORTS_MAX)
  /** The link is up, and the port neither held nor the output of mirrors. */
  readonly #passes: Uint8Array = new Uint8Array(PORTS_MAX)
  /** Ports whose TCP segments are merged for those that take TSO. */
  readonly #merges: Uint8Array = new Uint8Array(PORTS_MAX)
  /** L2 bytes of the current burst. */
  #bytes = 0

  /** Frame numbers for each egress port, BURST_SIZE_MAX per port. */
  readonly lists: Int32Array = new Int32Array(PORTS_MAX * BURST_SIZE_MAX)
  readonly listLength: Int32Array = new Int32Array(PORTS_MAX)
  /** Egress ports of the current burst. */
  readonly egress: Int32Array = new Int32Array(PORTS_MAX)
  egressCount = 0
  /** Ports that were given frames in this turn. */
  readonly #touched: Int32Array = new Int32Array(PORTS_MAX)
  readonly #isTouched: Uint8Array = new Uint8Array(PORTS_MAX)
  #touchedCount = 0
  /** Reckoned nanoseconds of the last `deliver`. */
  costNs = 0

  constructor(
    macTable: MacTable,
    counters: Float64Array,
    dropsReservedGroups: boolean,
    machinery: StageMachinery,
    engineCounters: Float64Array = new Float64Array(ENGINE_COUNTERS),
    recordCopies: CopyRecorder = () => undefined,
  ) {
    this.macTable = macTable
    this.#machinery = machinery
    const ports: MirrorPorts = {
      counters,
      machinery,
      recordCopies,
      egressOf: (index) => this.#egresses[index],
      isUp: (index) => this.#isUp(index),
      touch: (index) => this.#touch(index),
    }
    this.mirrors = new Mirrors(ports, engineCounters)
    this.#counters = counters
    this.dropsReservedGroups = dropsReservedGroups
  }

  /** Puts a port on the switch. `mtu` 0: no limit. */
  addPort(port: EnginePort, mtu: number): void {
    const index = port.index
    const egress = new Egress(port, this.#machinery)
    egress.setMtu(mtu)
    this.#egresses[index] = egress
    this.#linkUp[index] = 1
    this.#peer[index] = NO_PORT
    this.#setPasses(index)
    this.#listMembers()
  }

  #setPasses(index: number): void {
    this.#passes[index] = this.#isUp(index) && !this.mirrors.isOutput(index) ? 1 : 0
  }

  /** Mirrors from now on. Ports that are outputs take nothing but copies, and what comes by them is dropped. */
  setMirrors(mirrors: readonly MirrorDescription[]): void {
    this.mirrors.set(mirrors)
    for (let index = 0; index < PORTS_MAX; index++) {
      if (this.mirrors.isOutput(index)) this.macTable.forgetPort(index)
      this.#setPasses(index)
    }
    this.#listMembers()
  }

  #isUp(index: number): boolean {
    return this.#linkUp[index] !== 0 && this.#isHeld[index] === 0
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
    port.setWired?.(this.#peer[index] !== NO_PORT)
  }

  removePort(index: number): void {
    const peer = this.#peer[index]
    if (peer !== NO_PORT) {
      this.#peer[peer] = NO_PORT
      this.port(peer)?.setWired?.(false)
    }
    this.#peer[index] = NO_PORT
    this.#egresses[index] = null
    this.#linkUp[index] = 0
    this.#isHeld[index] = 0
    this.#passes[index] = 0
    this.#merges[index] = 0
    this.macTable.forgetPort(index)
    this.#listMembers()
  }

  port(index: number): EnginePort | null {
    return this.#egresses[index]?.port ?? null
  }

  setLink(index: number, isUp: boolean): void {
    this.#linkUp[index] = isUp ? 1 : 0
    this.#setPasses(index)
    if (!isUp) this.macTable.forgetPort(index)
  }

  /** Ports that a flood reaches. */
  get memberCount(): number {
    return this.#memberCount
  }

  /** Held ports get nothing and give nothing, and have no part in floods. */
  setHeld(indexes: readonly number[], isHeld: boolean): void {
    for (const index of indexes) {
      this.#isHeld[index] = isHeld ? 1 : 0
      this.#setPasses(index)
      if (isHeld) this.macTable.forgetPort(index)
    }
    this.#listMembers()
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
    this.#peer[a] = b
    this.#peer[b] = a
    for (const index of [a, b]) this.port(index)?.setWired?.(true)
    this.macTable.forgetPort(a)
    this.macTable.forgetPort(b)
    this.#listMembers()
  }

  /** Both ports of a link return to the switch. */
  unwire(a: number, b: number): void {
    this.#peer[a] = NO_PORT
    this.#peer[b] = NO_PORT
    for (const index of [a, b]) this.port(index)?.setWired?.(false)
    this.#listMembers()
  }

  #listMembers(): void {
    this.#memberCount = 0
    for (let index = 0; index < PORTS_MAX; index++) {
      const isOnSwitch = this.#egresses[index] !== null && this.#peer[index] === NO_PORT
      if (isOnSwitch && this.#isHeld[index] === 0 && !this.mirrors.isOutput(index)) {
        this.#members[this.#memberCount++] = index
      }
    }
  }

  /**
   * Decides for each frame of the burst, which came in by `inPort`, who shall have it; afterwards
   * `egress` and `lists` hold the answer, for `deliver`.
   * @hot
   */
  classify(burst: Burst, inPort: number, nowS: number): void {
    this.#countReceived(burst, inPort)
    if (this.#passes[inPort] === 0) {
      const reason = this.#isUp(inPort)
        ? COUNTERS.rx_drop_mirror_output
        : COUNTERS.rx_drop_link_down
      this.#counters[inPort * COUNTERS_STRIDE + reason] += burst.count
      return
    }
    const peer = this.#peer[inPort]
    const { mirrors } = this
    if (peer === NO_PORT) this.#classifyOnSwitch(burst, inPort, nowS)
    else {
      if (mirrors.sources[inPort] !== 0) mirrors.arrived(burst, inPort, 0, burst.count)
      this.#give(burst, 0, burst.count, peer)
    }
    if (mirrors.isOn) {
      mirrors.left(burst, this.egress, this.egressCount, this.lists, this.listLength)
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

  /** Frames that follow one another mostly share both addresses: each such run is decided once. @hot */
  #classifyOnSwitch(burst: Burst, inPort: number, nowS: number): void {
    const heads = burst.heads
    const table = this.macTable
    const { mirrors } = this
    const isMirrored = mirrors.sources[inPort] !== 0
    const count = burst.count
    let lastSourceHi = 0
    let lastSourceLo = 0
    // Zero, which the last one begins with, is no sender.
    let isSender = false
    let end = 0
    for (let first = 0; first < count; first = end) {
      end = endOfRun(heads, first, count)
      const at = first * HEAD_WORDS
      const hi = heads[at]
      const word1 = heads[at + 1]
      const lo = word1 & 0xffff
      const word2 = heads[at + 2]
      const sourceHi = (word1 >>> 16) | (word2 << 16)
      const sourceLo = word2 >>> 16
      if (sourceHi !== lastSourceHi || sourceLo !== lastSourceLo) {
        isSender = !isGroup(sourceHi) && (sourceHi | sourceLo) !== 0
        if (isSender) table.learn(sourceHi, sourceLo, inPort, nowS)
        lastSourceHi = sourceHi
        lastSourceLo = sourceLo
      }
      if (!isSender) {
        this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_source] += end - first
        continue
      }
      if (isMirrored) mirrors.arrived(burst, inPort, first, end)
      const port = isGroup(hi) ? NO_PORT : table.lookup(hi, lo)
      if (port === NO_PORT) this.#flood(burst, first, end, inPort)
      else if (port !== inPort) this.#give(burst, first, end, port)
      else this.#counters[inPort * COUNTERS_STRIDE + COUNTERS.rx_drop_same_port] += end - first
    }
  }

  /** Unknown unicast, broadcast and multicast: to every port of the switch but the in-port. @hot */
  #flood(burst: Burst, first: number, end: number, inPort: number): void {
    const counters = this.#counters
    const hi = burst.heads[first * HEAD_WORDS]
    const lo = burst.heads[first * HEAD_WORDS + 1] & 0xffff
    const base = inPort * COUNTERS_STRIDE
    if (this.dropsReservedGroups && isReservedGroup(hi, lo)) {
      counters[base + COUNTERS.rx_drop_group_address] += end - first
      return
    }
    const count = this.#memberCount
    if (count < 2) counters[base + COUNTERS.rx_drop_no_port] += end - first
    for (let at = 0; at < count; at++) {
      const port = this.#members[at]
      if (port !== inPort) this.#give(burst, first, end, port)
    }
  }

  /** Appends frames first..end - 1 to the list of a port, or drops them for a reason it has. @hot */
  #give(burst: Burst, first: number, end: number, port: number): void {
    const base = port * COUNTERS_STRIDE
    if (this.#passes[port] === 0) {
      this.#counters[base + COUNTERS.tx_drop_link_down] += end - first
      return
    }
    const egress = this.#egresses[port]!
    const { lengthMax } = egress
    const lists = this.lists
    const list = port * BURST_SIZE_MAX
    const before = this.listLength[port]
    let listed = before
    // Where every frame is as good as any other they are not looked at.
    if (!burst.hasOffloads && lengthMax === NO_LIMIT) {
      for (let k = first; k < end; k++) lists[list + listed++] = k
    } else {
      const { needs, length, gso, gsoSize } = burst
      const lacking = ~egress.txOffloads
      let unmet = 0
      for (let k = first; k < end; k++) {
        const wanted = needs[k]
        unmet |= wanted & lacking
        let onWire = length[k]
        // A GSO frame leaves the next hop in segments: hdr_len + gso_size is what the mtu limits.
        if (wanted !== 0 && isGso(gso[k])) {
          onWire = (gso[k] >>> 16) + (gsoSize[k] & 0xffff)
        }
        if (onWire <= lengthMax) lists[list + listed++] = k
      }
      const given = listed - before
      if (given < end - first) this.#counters[base + COUNTERS.tx_drop_mtu] += end - first - given
      if (given === 0) return
      if (unmet !== 0) egress.isShort = true
    }
    if (before === 0) this.egress[this.egressCount++] = port
    this.listLength[port] = listed
  }

  /** Gives every egress port its frames and empties the lists. @hot */
  deliver(burst: Burst, inPort: number, queue: number): void {
    const count = this.egressCount
    let deliveries = 0
    let cost = 0
    const { finisher } = this.#machinery
    finisher.beginBurst(burst.segmentsMax)
    const merges = this.#merges[inPort] !== 0
    for (let at = 0; at < count; at++) {
      const port = this.egress[at]
      const egress = this.#egresses[port]!
      const listed = this.listLength[port]
      deliveries += listed
      cost += listed * egress.deliveryNs
      this.listLength[port] = 0
      const before = finisher.segments
      let taker = egress.plain
      if (egress.isShort) {
        egress.isShort = false
        taker = egress.finishing
      } else if (merges && listed > 1) taker = egress.merging
      taker.transmit(burst, this.lists, port * BURST_SIZE_MAX, listed, queue)
      // Each of them is a frame for the port.
      cost += (finisher.segments - before) * egress.deliveryNs
      this.#touch(port)
    }
    this.egressCount = 0
    if (this.mirrors.isOn) cost += this.mirrors.deliver(burst, queue)
    // What the frames have on average, so often as they were given to somebody.
    if (burst.count > 0) {
      const each = (this.#bytes >> 10) * KIBIBYTE_NS + burst.furtherTotal * FURTHER_NS
      cost += (deliveries / burst.count) * each
    }
    cost += finisher.segments * SEGMENT_NS
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

/** Behind the frames from `first` on that have the same destination and source. @hot */
function endOfRun(heads: Int32Array, first: number, count: number): number {
  const at = first * HEAD_WORDS
  const word0 = heads[at]
  const word1 = heads[at + 1]
  const word2 = heads[at + 2]
  const behind = count * HEAD_WORDS
  let next = at + HEAD_WORDS
  while (
    next < behind &&
    heads[next] === word0 &&
    heads[next + 1] === word1 &&
    heads[next + 2] === word2
  ) {
    next += HEAD_WORDS
  }
  return (next / HEAD_WORDS) | 0
}
