/**
 * IGMP and MLD snooping: which ports multicast goes to, by what their hosts say that they want. RFC 4541.
 *
 *     gather: reads the headers of a burst's group frames ...
 *     find:   what frames of one run are, and who is to have them ...
 *     heed:   of a message about groups: learns of it, and says who is to have that
 *
 * All of it is known by domain: the VLAN, the tag inside that of the VLAN, if there is one, and the family of IP.
 * As long as no querier has been heard in a domain nobody there is asked what he wants, so everything is flooded.
 * A port for whose groups there is no room is given everything for a while: nobody misses what he has asked for.
 */
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS } from '../mem/burst.ts'
import type { VlanPorts } from '../offload/vlan-ports.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { isBroadcast, isGroup } from '../wire/ethernet.ts'
import {
  BAD_MESSAGE,
  MembershipMessage,
  OTHER_MESSAGE,
  QUERY,
  REPORT,
  ROUTER_GONE,
  ROUTER_HERE,
  WANTS_IT,
  WANTS_IT_NOT,
} from '../wire/membership.ts'
import {
  ABOUT_GROUPS,
  FOR_GROUP,
  isForAllIpv4,
  isForAllIpv6,
  isGroupIpv4,
  isGroupIpv6,
  MULTICAST_HEADERS,
  MulticastHeader,
  NO_GROUP,
} from '../wire/multicast.ts'
import {
  GroupTable,
  MEMBERSHIP_DS,
  QUERIER_HEARD,
  QUERIER_PORT,
  QUERIER_UNTIL,
  QUERIER_WORD0,
  ROBUSTNESS,
} from './group-table.ts'
import type { GroupRow, GroupRows, SnoopingSettings } from './messages.ts'
import { LEFT_OF_ROW, PORT_OF_ROW } from './messages.ts'
import { RouterPorts } from './router-ports.ts'
import { WholeFrame } from './whole-frame.ts'

/** Who is to have frames: all ports that take floods; all ports; those that are listed; nobody, as they are wrong. */
export const TO_FLOOD = 0
export const TO_EVERYBODY = 1
export const TO_MEMBERS = 2
export const TO_ROUTERS = 3
export const TO_NOBODY = 4
/** `heed` knows. */
export const ASK_HEED = 5

/** In a domain: bits of the VLAN, of the tag inside, of the family. */
const INNER_SHIFT = 12
const IPV6_DOMAIN: number = 1 << 24
const VLAN_MASK = 0xfff
const ANY_PORT = -1

/** Longest message that is read. */
const MESSAGE_MAX = 9216
/** Longest query that is taken for a querier's: no port has an mtu that keeps it from hosts who should answer. */
const QUERY_MAX = 128
/** Tenths of a second: RFC 3376 §8.4, 8.5, 8.8, with the defaults there; and nothing lasts longer than an hour. */
const MEMBERSHIP_DEFAULT_DS = 2600
const ROUTER_DEFAULT_DS = 2550
const LAST_MEMBER_DS = 20
const LONGEST_DS = 36_000
/** Cells of the table that are read between two turns. */
const PAGE_CELLS = 4096
/** What it costs to look at a message, at each of its bytes, and at a record of one, in nanoseconds: about. */
const MESSAGE_NS = 500
const BYTE_NS = 1
const RECORD_NS = 100

export class Snooping {
  /** Some family is snooped on. */
  isOn = false
  /** Who is to have what `find` or `heed` was about last, if it is for some ports: some may be no members. */
  readonly ports: Int32Array = new Int32Array(3 * PORTS_MAX)
  portCount = 0
  /** Behind the frames that `find` was about. */
  behind = 0
  /** Reckoned nanoseconds of what was heeded since it was asked for. */
  #costNs = 0
  /** Messages and records for which there was no room. */
  full = 0
  readonly #time: Float64Array
  readonly #vlans: VlanPorts
  #igmp = false
  #mld = false
  #maxGroups = 0
  #maxPerPort = 0
  #table: GroupTable | null = null
  /** For a whole message; made when it is on for the first time. */
  #whole: WholeFrame | null = null
  readonly #header: MulticastHeader = new MulticastHeader()
  readonly #other: MulticastHeader = new MulticastHeader()
  readonly #message: MembershipMessage = new MembershipMessage()
  /** By port: it was listed in the list of this number. */
  readonly #listed: Int32Array = new Int32Array(PORTS_MAX)
  #list = 0
  /** By port: others that are isolated do not hear what comes by it. */
  readonly #isIsolated: Uint8Array = new Uint8Array(PORTS_MAX)
  /** What is given to ports of routers, by their options, is heeded there. */
  readonly routers: RouterPorts = new RouterPorts()

  /** `time`: the engine clock's, microseconds first. */
  constructor(time: Float64Array, vlans: VlanPorts) {
    this.#time = time
    this.#vlans = vlans
  }

  /**
   * From the next burst on. What is known of a family that is off now is forgotten, and everything when there is
   * another limit: then all is flooded until the next query.
   */
  configure({ igmp, mld, maxGroups, maxGroupsPerPort }: SnoopingSettings): void {
    const isOn = igmp || mld
    const isSameSize = maxGroups === this.#maxGroups && maxGroupsPerPort === this.#maxPerPort
    if (!isOn) this.#table = null
    else if (this.#table === null || !isSameSize) {
      this.#table = new GroupTable(maxGroups, maxGroupsPerPort, (Math.random() * 2 ** 32) | 0)
      this.routers.forget(ANY_PORT)
    } else {
      if (!igmp) this.#table.flush(ANY_PORT, IPV6_DOMAIN, 0)
      if (!mld) this.#table.flush(ANY_PORT, IPV6_DOMAIN, IPV6_DOMAIN)
    }
    this.#maxGroups = maxGroups
    this.#maxPerPort = maxGroupsPerPort
    this.#igmp = igmp
    this.#mld = mld
    if (isOn) this.#whole ??= new WholeFrame(MESSAGE_MAX)
    this.isOn = isOn
  }

  /** From the next burst on. */
  setIsolated(port: number, isIsolated: boolean): void {
    this.#isIsolated[port] = isIsolated ? 1 : 0
  }

  /** Groups that are known. */
  get groups(): number {
    return this.#table === null ? 0 : this.#table.groups
  }

  get #now(): number {
    return (this.#time[0] / 1e5) | 0
  }

  /** Reads of the burst what `find` asks for. @hot */
  gather(burst: Burst): void {
    const { headers, heads, count } = burst
    let asked = 0
    for (let k = 0; k < count; k++) {
      const at = k * HEAD_WORDS
      if (!isGroup(heads[at]) || isBroadcast(heads[at], heads[at + 1] & 0xffff)) continue
      headers.want(k, MULTICAST_HEADERS)
      asked++
    }
    if (asked > 0) headers.read()
  }

  /**
   * Who is to have frame k of the burst, which came in by the port in that VLAN, and those behind it before
   * `end` that are for the same group. @hot
   */
  find(burst: Burst, k: number, end: number, port: number, vlan: number): number {
    const { headers } = burst
    const { bytes } = headers
    const hasPushed = this.#vlans.isTunnel(port)
    const header = this.#header
    const kind = header.read(bytes, headers.at(k), headers.available(k), hasPushed)
    this.behind = k + 1
    if (kind === NO_GROUP || !(header.isIpv6 ? this.#mld : this.#igmp)) return TO_FLOOD
    if (kind === ABOUT_GROUPS) return ASK_HEED
    // Those that follow are mostly for the same group.
    const other = this.#other
    let next = k + 1
    for (; next < end; next++) {
      const its = other.read(bytes, headers.at(next), headers.available(next), hasPushed)
      if (its !== kind || !isSame(header, other)) break
    }
    this.behind = next
    return kind === FOR_GROUP ? this.#findMembers(vlan) : TO_FLOOD
  }

  /** @hot */
  #domain(vlan: number): number {
    const { inner, isIpv6 } = this.#header
    return vlan | (inner << INNER_SHIFT) | (isIpv6 ? IPV6_DOMAIN : 0)
  }

  /** Who is to have what is for the group of the header. @hot */
  #findMembers(vlan: number): number {
    const domain = this.#domain(vlan)
    const now = this.#now
    if (!this.#listRouters(domain, now)) return TO_FLOOD
    const { word0, word1, word2, word3 } = this.#header
    const table = this.#table!
    const at = table.find(domain, word0, word1, word2, word3)
    if (at < 0) return TO_ROUTERS
    const before = this.portCount
    this.portCount = table.list(at, now, this.ports, before)
    if (this.portCount === before) return TO_ROUTERS
    this.#listOnce()
    return TO_MEMBERS
  }

  /** Lists routers of the domain, and ports that have everything. False: there is no querier. @hot */
  #listRouters(domain: number, now: number): boolean {
    this.portCount = 0
    const table = this.#table
    if (table === null) return false
    const at = table.findDomain(domain)
    if (at < 0) return false
    if (!this.#hasQuerier(at, now) || table.cells[at + QUERIER_HEARD] > now) return false
    const { routers, ports } = this
    this.portCount = routers.keep(ports, table.list(at, now, ports, 0))
    if (routers.hasMore) {
      this.portCount = routers.list(now, ports, this.portCount)
      this.#listOnce()
    }
    return true
  }

  /** There is one in the domain whose cell it is, at a port that everybody hears. @hot */
  #hasQuerier(at: number, now: number): boolean {
    const { cells } = this.#table!
    return cells[at + QUERIER_UNTIL] > now && this.#isIsolated[cells[at + QUERIER_PORT]] === 0
  }

  /** Each port stays in the list once. @hot */
  #listOnce(): void {
    // It wraps, past the 0 of ports that were never listed.
    this.#list = (this.#list + 1) | 0 || 1
    const list = this.#list
    const { ports } = this
    let kept = 0
    for (let at = 0; at < this.portCount; at++) {
      const port = ports[at]
      if (this.#listed[port] === list) continue
      this.#listed[port] = list
      ports[kept++] = port
    }
    this.portCount = kept
  }

  /** The same of frame k, for which `find` returned ASK_HEED, and what it says holds from now on. @hot */
  heed(burst: Burst, k: number, port: number, vlan: number): number {
    const length = burst.length[k]
    if (length > MESSAGE_MAX) return this.#unheeded(vlan)
    // Once more, and all of it: what a guest makes of it meanwhile is not what was looked at.
    const bytes = this.#whole!.read(burst, k, length)
    const header = this.#header
    const kind = header.read(bytes, 0, length, this.#vlans.isTunnel(port))
    if (kind !== ABOUT_GROUPS || !(header.isIpv6 ? this.#mld : this.#igmp)) return TO_FLOOD
    this.#costNs += MESSAGE_NS + length * BYTE_NS
    const domain = this.#domain(vlan)
    const now = this.#now
    switch (this.#message.read(bytes, 0, length, header)) {
      case BAD_MESSAGE:
        return TO_NOBODY
      case REPORT:
        this.#heedReport(domain, port, now)
        return this.#listRouters(domain, now) ? TO_ROUTERS : TO_FLOOD
      case QUERY:
        this.#heedQuery(domain, port, now, length)
        return TO_EVERYBODY
      case ROUTER_HERE:
        this.#addRouter(domain, port, now + ROUTER_DEFAULT_DS)
        return this.#unheeded(vlan)
      case ROUTER_GONE:
        this.#removeRouter(domain, port, now)
        return this.#unheeded(vlan)
      case OTHER_MESSAGE:
        return TO_FLOOD
      default:
        return this.#unheeded(vlan)
    }
  }

  /** It goes where anything for its destination goes. @hot */
  #unheeded(vlan: number): number {
    return this.#header.destination === FOR_GROUP ? this.#findMembers(vlan) : TO_FLOOD
  }

  /** @hot */
  #heedReport(domain: number, port: number, now: number): void {
    const message = this.#message
    const table = this.#table!
    const isIpv6 = (domain & IPV6_DOMAIN) !== 0
    const its = table.findDomain(domain)
    const hasQuerier = its >= 0 && this.#hasQuerier(its, now)
    const until = now + (hasQuerier ? table.cells[its + MEMBERSHIP_DS] : MEMBERSHIP_DEFAULT_DS)
    for (;;) {
      const wants = message.nextRecord()
      if (wants < 0) return
      this.#costNs += RECORD_NS
      const { word0, word1, word2, word3 } = message
      const isForSome = isIpv6
        ? isGroupIpv6(word0) && !isForAllIpv6(word0, word1, word2, word3)
        : isGroupIpv4(word3) && !isForAllIpv4(word3)
      if (!isForSome) continue
      if (wants === WANTS_IT) {
        if (!table.add(domain, word0, word1, word2, word3, port, until)) this.#giveAll(port, until)
      } else if (wants === WANTS_IT_NOT && !hasQuerier) {
        // A querier asks whether others there want it, which is heeded then.
        const at = table.find(domain, word0, word1, word2, word3)
        if (at >= 0) table.shorten(at, port, now + LAST_MEMBER_DS)
      }
    }
  }

  /** There is no room for what the port wants. @hot */
  #giveAll(port: number, until: number): void {
    this.full++
    this.routers.giveAll(port, until)
  }

  /** @hot */
  #heedQuery(domain: number, port: number, now: number, length: number): void {
    const message = this.#message
    // It is no querier's, but of a switch that has lost its way to one (RFC 4541 §2.1.1).
    if (message.isNameless) return
    const table = this.#table!
    const { robustness, intervalS, responseDs } = message
    if (message.isAboutAll) {
      let presentDs = robustness * intervalS * 10 + (responseDs >> 1)
      if (presentDs > LONGEST_DS) presentDs = LONGEST_DS
      this.#addRouter(domain, port, now + presentDs)
      const at = table.findDomain(domain)
      // Who does not hear the question cannot answer it: he would lose what he has joined.
      const isHeard = this.#isIsolated[port] === 0 && length <= QUERY_MAX
      if (at >= 0 && isHeard) this.#setQuerier(at, port, now, now + presentDs)
      return
    }
    // It asks who is still there after somebody has left: who answers stays. Nobody else asks but the querier.
    const its = table.findDomain(domain)
    const isAskedOfAll = !message.isPartial && length <= QUERY_MAX
    if (!isAskedOfAll || its < 0 || !this.#isQuerier(its, port, now)) return
    const at = table.find(domain, message.word0, message.word1, message.word2, message.word3)
    const lastDs = responseDs * table.cells[its + ROBUSTNESS]
    if (at >= 0) table.shorten(at, -1, now + 1 + (lastDs > LONGEST_DS ? LONGEST_DS : lastDs))
  }

  /** Of those that are there the one with the lowest address is the querier. RFC 3376 §6.6.2. @hot */
  #setQuerier(at: number, port: number, now: number, until: number): void {
    const { cells } = this.#table!
    const message = this.#message
    const isThere = this.#hasQuerier(at, now)
    if (isThere && this.#order(at) > 0) return
    // Until all have had the time to answer nobody is left out.
    if (!isThere) cells[at + QUERIER_HEARD] = now + message.responseDs
    cells[at + QUERIER_UNTIL] = until
    cells[at + QUERIER_PORT] = port
    cells[at + QUERIER_WORD0] = message.source0
    cells[at + QUERIER_WORD0 + 1] = message.source1
    cells[at + QUERIER_WORD0 + 2] = message.source2
    cells[at + QUERIER_WORD0 + 3] = message.source3
    const membershipDs = message.robustness * message.intervalS * 10 + message.responseDs
    cells[at + MEMBERSHIP_DS] = membershipDs > LONGEST_DS ? LONGEST_DS : membershipDs
    cells[at + ROBUSTNESS] = message.robustness
  }

  /** The message is the querier's. @hot */
  #isQuerier(at: number, port: number, now: number): boolean {
    const { cells } = this.#table!
    if (!this.#hasQuerier(at, now) || cells[at + QUERIER_PORT] !== port) return false
    return this.#order(at) === 0
  }

  /** Below 0: who sends the message has a lower address than the querier; 0: it is the same. @hot */
  #order(at: number): number {
    const { cells } = this.#table!
    const { source0, source1, source2, source3 } = this.#message
    const word = at + QUERIER_WORD0
    if (source0 !== cells[word]) return source0 >>> 0 < cells[word] >>> 0 ? -1 : 1
    if (source1 !== cells[word + 1]) return source1 >>> 0 < cells[word + 1] >>> 0 ? -1 : 1
    if (source2 !== cells[word + 2]) return source2 >>> 0 < cells[word + 2] >>> 0 ? -1 : 1
    if (source3 === cells[word + 3]) return 0
    return source3 >>> 0 < cells[word + 3] >>> 0 ? -1 : 1
  }

  /** Also behind a port that is none of routers: whether it is one is asked when something is for them. @hot */
  #addRouter(domain: number, port: number, until: number): void {
    const isThere = this.#table!.add(domain, 0, 0, 0, 0, port, until)
    if (!isThere && !this.routers.isNever(port)) this.#giveAll(port, until)
  }

  /** Only what it said itself is taken back: who asks is a router all the same. @hot */
  #removeRouter(domain: number, port: number, now: number): void {
    const table = this.#table!
    const at = table.findDomain(domain)
    if (at < 0 || (this.#hasQuerier(at, now) && table.cells[at + QUERIER_PORT] === port)) return
    table.shorten(at, port, now)
  }

  /** Reckoned nanoseconds of what was heeded since the last call. @hot */
  takeCost(): number {
    const cost = this.#costNs
    this.#costNs = 0
    return cost
  }

  /** Part of the housekeeping: removes what is over, a part of it at a time. True: all was looked at. @hot */
  sweep(): boolean {
    const table = this.#table
    return table === null || table.sweep(this.#now)
  }

  /** About once a second. */
  look(): void {
    this.routers.look(this.#now)
  }

  // --- Control plane

  /** The port is down, elsewhere or gone. */
  forgetPort(port: number): void {
    this.#table?.forgetPort(port)
    this.routers.forget(port)
  }

  /** Forgets members and routers, of a port (-1: of any) and in a VLAN (-1: in any). */
  flush(port: number, vlan: number): void {
    if (vlan < 0) this.#table?.flush(port, 0, 0)
    else this.#table?.flush(port, VLAN_MASK, vlan)
  }

  /** What is known, from a cell of the table on; `isAll`: however long it takes. */
  page(cell: number, isAll: boolean): GroupRows {
    const rows: GroupRow[] = []
    const cells = isAll ? Infinity : PAGE_CELLS
    const next = this.#table?.page(this.#now, cell, cells, (row) => void rows.push(row)) ?? -1
    return { rows, next }
  }

  /** Takes a row that was told by `page`, elsewhere. */
  restore(row: GroupRow): void {
    const isTaken = this.#table?.restore(row, this.#now) ?? true
    if (!isTaken) this.restoreAll(row[PORT_OF_ROW], row[LEFT_OF_ROW])
  }

  /** Ports that are given everything, and for how long still. */
  get havingAll(): (readonly [port: number, left: number])[] {
    return this.routers.havingAll(this.#now)
  }

  /** Such a port of another engine. */
  restoreAll(port: number, left: number): void {
    if (this.isOn) this.routers.giveAll(port, this.#now + left)
  }

  close(): void {
    this.#whole?.close()
  }
}

/** @hot */
function isSame(one: MulticastHeader, other: MulticastHeader): boolean {
  return (
    one.word3 === other.word3 &&
    one.word2 === other.word2 &&
    one.word1 === other.word1 &&
    one.word0 === other.word0 &&
    one.inner === other.inner &&
    one.isIpv6 === other.isIpv6
  )
}
