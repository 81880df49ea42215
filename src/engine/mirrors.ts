/**
 * Mirrors: copies of the frames that enter or leave by some ports, for another port (Open vSwitch's Mirror
 * table, SPAN). What is selected is noted while frames are classified; copies are given out when every port
 * has had its own frames.
 *
 *     classify:  arrived(frames that are switched)   left(the lists of the egress ports)
 *     deliver:   the lists, as without mirrors       then deliver(): the copies, output by output
 *
 * A frame is copied once for an output, whichever mirrors select it, in its greatest length among them: as it
 * came, if one of them selects it there, else with the tags with which it leaves by the first port that is
 * selected. Copies are no copies in memory: an output is given the frame like any port.
 *
 * An output that is a VLAN (RSPAN) is all ports that carry it. Copies are not selected again, by no mirror.
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../mem/burst.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { isOfSwitches } from '../wire/ethernet.ts'
import { tagIn, vidOf, VlanSet } from '../wire/vlan.ts'
import { ENGINE_MIRRORS, MIRRORS_MAX } from './cells.ts'
import type { MirrorDescription } from './messages.ts'
import { MirrorFilters } from './mirror-filters.ts'
import type { CopyTaker, MirrorPorts } from './mirror-output.ts'
import { MirrorOutput } from './mirror-output.ts'
import { MirrorVlan } from './mirror-vlan.ts'

/** A `snapLength`: nothing is cut. More than any frame has. */
const WHOLE = 0x7fff_ffff
/** In the place of a port by which a frame leaves. */
const AS_IT_CAME = -1
const ALL_VLANS: VlanSet = new VlanSet(null)

export class Mirrors {
  /** There are some. */
  isOn = false
  /** By port: bits of the mirrors that select what enters by it, and what leaves by it. */
  readonly sources: Int32Array = new Int32Array(PORTS_MAX)
  readonly #destinations: Int32Array = new Int32Array(PORTS_MAX)
  readonly #ports: MirrorPorts
  /** The engine's own. */
  readonly #counters: Float64Array
  #outputs: CopyTaker[] = []
  #outputPorts = new Set<number>()
  /** VLANs of copies: no address is learnt in them. */
  readonly copyVlans: VlanSet = new VlanSet([])
  /** By mirror: the number of its output in `#outputs`, -1: none; and the bytes that a copy has at most. */
  readonly #outputOf: Int32Array = new Int32Array(MIRRORS_MAX)
  readonly #snapLength: Int32Array = new Int32Array(MIRRORS_MAX)
  /** By mirror: of which VLANs it selects; bits of those that do not select all. */
  readonly #vlans: VlanSet[] = Array.from({ length: MIRRORS_MAX }, () => ALL_VLANS)
  #choosy = 0
  /** Bits of the mirrors whose output is a VLAN. */
  #intoVlans = 0
  readonly #filters: MirrorFilters
  /** By frame: its VLAN. */
  readonly #vlanOf: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** By frame: bits of the mirrors that have selected it. */
  readonly #selectedBy: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** By output and frame: bytes of the copy, at most; 0: there is none. */
  readonly #lengthOf: Int32Array = new Int32Array(MIRRORS_MAX * BURST_SIZE_MAX)
  /** By output and frame: the port as by which it leaves, or AS_IT_CAME. */
  readonly #copyOf: Int32Array = new Int32Array(MIRRORS_MAX * BURST_SIZE_MAX)
  /** Frames of a list that are copied in the same way. */
  readonly #run: Int32Array = new Int32Array(BURST_SIZE_MAX)

  constructor(ports: MirrorPorts, engineCounters: Float64Array) {
    this.#ports = ports
    this.#counters = engineCounters
    this.#filters = new MirrorFilters(ports.machinery)
  }

  /** These from now on, and no others. Those with a number that there was before go on counting. */
  set(mirrors: readonly MirrorDescription[]): void {
    this.sources.fill(0)
    this.#destinations.fill(0)
    this.#outputOf.fill(-1)
    this.#choosy = 0
    this.#intoVlans = 0
    this.#setOutputs(mirrors)
    this.#filters.set(mirrors)
    for (const { number, sources, destinations, vlans, outputVlan, snapLength } of mirrors) {
      const bit = 1 << number
      for (const port of sources) this.sources[port] |= bit
      for (const port of destinations) this.#destinations[port] |= bit
      this.#vlans[number] = vlans === null ? ALL_VLANS : new VlanSet(vlans)
      if (vlans !== null) this.#choosy |= bit
      this.#snapLength[number] = snapLength === 0 ? WHOLE : snapLength
      if (outputVlan === 0) continue
      // What is in its VLAN already it does not select, or copies would be copied where they come back.
      this.#vlans[number] = new VlanSet(vlans)
      this.#vlans[number].delete(outputVlan)
      this.#choosy |= bit
      this.#intoVlans |= bit
    }
    for (let number = 0; number < MIRRORS_MAX; number++) {
      if (mirrors.some((mirror) => mirror.number === number)) continue
      this.#counters.fill(0, ENGINE_MIRRORS + 2 * number, ENGINE_MIRRORS + 2 * number + 2)
    }
    this.isOn = mirrors.length > 0
  }

  #setOutputs(mirrors: readonly MirrorDescription[]): void {
    const ports = [...new Set(mirrors.map(({ output }) => output))].filter((port) => port >= 0)
    const vlans = [...new Set(mirrors.map(({ outputVlan }) => outputVlan))].filter((vid) => vid > 0)
    this.#outputs = [
      ...ports.map((port) => new MirrorOutput(port, this.#ports)),
      ...vlans.map((vid) => new MirrorVlan(vid, this.#ports)),
    ]
    this.#outputPorts = new Set(ports)
    for (const { number, output, outputVlan } of mirrors) {
      this.#outputOf[number] =
        outputVlan > 0 ? ports.length + vlans.indexOf(outputVlan) : ports.indexOf(output)
    }
    this.copyVlans.clear()
    for (const vid of vlans) this.copyVlans.add(vid)
  }

  /** The port takes nothing but copies. */
  isOutput(port: number): boolean {
    return this.#outputPorts.has(port)
  }

  /** Frames first..end - 1 of a VLAN, which came in by the port, have passed all that could drop them. @hot */
  arrived(burst: Burst, port: number, first: number, end: number, vlan: number): void {
    const mirrors = this.sources[port]
    const passes = this.#filters.came(burst, mirrors)
    for (let k = first; k < end; k++) {
      this.#vlanOf[k] = vlan
      if (mirrors !== 0) this.#select(burst, k, mirrors, AS_IT_CAME, passes)
    }
  }

  /** The whole burst came in by the port, which is on a link: VLANs are what the tags say. @hot */
  arrivedOnLink(burst: Burst, port: number): void {
    for (let k = 0; k < burst.count; k++) {
      this.arrived(burst, port, k, k + 1, vidOf(tagIn(burst.heads[k * HEAD_WORDS + 3])))
    }
  }

  /** The burst, which came in by `from`, is classified: these lists say which frames leave by which ports. @hot */
  left(
    burst: Burst,
    from: number,
    ports: Int32Array,
    portCount: number,
    lists: Int32Array,
    listLength: Int32Array,
  ): void {
    for (let at = 0; at < portCount; at++) {
      const port = ports[at]
      const mirrors = this.#destinations[port]
      if (mirrors === 0) continue
      const as = this.#ports.mayRetag(from, port) ? port : AS_IT_CAME
      const list = port * BURST_SIZE_MAX
      const end = list + listLength[port]
      const passes =
        as === AS_IT_CAME
          ? this.#filters.came(burst, mirrors)
          : this.#filters.leaving(burst, mirrors, from, port, lists, list, end)
      for (let place = list; place < end; place++) {
        this.#select(burst, lists[place], mirrors, as, passes)
      }
    }
  }

  /** `passes`: by frame, bits of the mirrors whose filters pass it. @hot */
  #select(burst: Burst, k: number, mirrors: number, as: number, passes: Int32Array): void {
    let left = mirrors & ~this.#selectedBy[k] & (~this.#filters.mirrors | passes[k])
    while (left !== 0) {
      const mirror = 31 - Math.clz32(left)
      const bit = 1 << mirror
      left &= ~bit
      if ((this.#choosy & bit) !== 0 && !this.#vlans[mirror].has(this.#vlanOf[k])) continue
      if ((this.#intoVlans & bit) !== 0 && isForSwitch(burst, k)) continue
      this.#selectedBy[k] |= bit
      const cell = ENGINE_MIRRORS + 2 * mirror
      this.#counters[cell]++
      this.#counters[cell + 1] += burst.length[k]
      const output = this.#outputOf[mirror]
      if (output < 0) continue
      const copy = output * BURST_SIZE_MAX + k
      const length = this.#snapLength[mirror]
      if (this.#lengthOf[copy] === 0) this.#copyOf[copy] = as
      if (this.#lengthOf[copy] < length) this.#lengthOf[copy] = length
      this.#outputs[output].isWanted = true
    }
  }

  /** Gives the outputs their copies of what came in by `from`. Returns what that cost, in reckoned nanoseconds. @hot */
  deliver(burst: Burst, from: number, queue: number): number {
    let cost = 0
    for (let at = 0; at < this.#outputs.length; at++) {
      const output = this.#outputs[at]
      if (output.isWanted) cost += this.#give(output, at * BURST_SIZE_MAX, burst, from, queue)
    }
    this.#selectedBy.fill(0, 0, burst.count)
    cost += this.#filters.costNs
    this.#filters.endBurst()
    return cost
  }

  /** In the order in which they came: those that follow one another and are copied alike together. @hot */
  #give(output: CopyTaker, cells: number, burst: Burst, from: number, queue: number): number {
    const { count } = burst
    const lengthOf = this.#lengthOf
    const copyOf = this.#copyOf
    const run = this.#run
    let inRun = 0
    let snapLength = 0
    let as = AS_IT_CAME
    output.isWanted = false
    output.begin(from)
    for (let k = 0; k < count; k++) {
      const length = lengthOf[cells + k]
      if (length === 0) continue
      if (inRun > 0 && (length !== snapLength || copyOf[cells + k] !== as)) {
        output.give(burst, run, inRun, as, snapLength, queue)
        inRun = 0
      }
      snapLength = length
      as = copyOf[cells + k]
      run[inRun++] = k
      lengthOf[cells + k] = 0
    }
    output.give(burst, run, inRun, as, snapLength, queue)
    return output.end()
  }
}

/** It is sent to a protocol between neighbouring switches. @hot */
function isForSwitch(burst: Burst, k: number): boolean {
  const { heads } = burst
  return isOfSwitches(heads[k * HEAD_WORDS], heads[k * HEAD_WORDS + 1] & 0xffff)
}
