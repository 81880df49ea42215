/**
 * Byte strings as bursts of frames between ports that come, go, are wired, and lose their link: each
 * port is given the frames that a learning bridge gives it, in their order, and every other frame is
 * counted for the reason that it has.
 */
import { Burst, HEAD_WORDS } from '../../src/mem/burst.ts'
import type { StageMachinery } from '../../src/engine/egress.ts'
import type { FrameTaker } from '../../src/offload/stage.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../src/stats/counters.ts'
import { Forwarder } from '../../src/engine/forward.ts'
import { MacTable } from '../../src/engine/mac-table.ts'
import { PortPolicies } from '../../src/engine/port-policy.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

const PORTS = 6
const FRAMES_MAX = 12
const NONE = -1
/** Addresses of two halves; the last ones are groups, one of them never forwarded by a bridge. */
const STATIONS: readonly (readonly [hi: number, lo: number])[] = [
  [0x0000_0002, 1],
  [0x0000_0002, 2],
  [0x0100_0002, 1],
  [-2 & ~1, 0xffff],
  [0, 0],
  [-1, 0xffff],
  [0x005e_0001, 0x0001],
  [0x00c2_8001, 0x0e00],
]
const TSO = 6

interface Given {
  readonly how: 'plain' | 'finished' | 'merged'
  readonly frames: number[]
}

interface ModelPort {
  readonly txOffloads: number
  readonly mtu: number
  isUp: boolean
  peer: number
  merges: boolean
}

const burst = new Burst()
burst.hasOffloads = true

const counters = new Float64Array(PORTS * COUNTERS_STRIDE)

/** What a port was given of the burst that is being forwarded. */
const given = new Map<number, Given>()

function take(
  index: number,
  how: Given['how'],
  list: Int32Array,
  first: number,
  count: number,
): void {
  check(!given.has(index), `port ${index} is given a burst once`)
  given.set(index, { how, frames: [...list.subarray(first, first + count)] })
}

function makeForwarder(dropsReserved: boolean): Forwarder {
  const to =
    (how: Given['how']) =>
    (
      _next: FrameTaker,
      port: number,
      _takes: number,
      _burst: Burst,
      ...[list, first, count]: [Int32Array, number, number, number]
    ): void =>
      take(port, how, list, first, count)
  const machinery = {
    finisher: { segments: 0, beginBurst: () => undefined, finish: to('finished') },
    merger: { merge: to('merged') },
    // No port has VLAN options; those that keep heads go through it, and no sender is a guest.
    tagger: {
      watch: { isWatching: false },
      beginBurst: () => undefined,
      tag: (next: FrameTaker, _port: number, ...given: Parameters<FrameTaker['transmit']>) =>
        next.transmit(...given),
    },
  }
  const table = new MacTable(64, 7)
  const policies = new PortPolicies(new Float64Array(4), new Float64Array(1024 * 64))
  policies.setGroups(dropsReserved ? 0 : 0xffff)
  return new Forwarder(table, counters, policies, machinery as unknown as StageMachinery)
}

/** Used again and again, as they have a list of frames for each of a thousand ports: all ports leave. */
const forwarders = [makeForwarder(false), makeForwarder(true)]

export function fuzzForwarding(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const kind = operands.byte() & 1
  counters.fill(0)
  try {
    new Run(operands, seen, forwarders[kind], kind === 1).run()
  } catch (error) {
    forwarders[kind] = makeForwarder(kind === 1)
    throw error
  }
}

class Run {
  readonly #in: Operands
  readonly #seen: Features
  readonly #dropsReserved: boolean
  readonly #forwarder: Forwarder
  // The model's.
  readonly #ports = new Map<number, ModelPort>()
  readonly #learnt = new Map<number, number>()
  readonly #counts: Record<string, number>[] = Array.from({ length: PORTS }, () => ({}))

  constructor(operands: Operands, seen: Features, forwarder: Forwarder, dropsReserved: boolean) {
    this.#in = operands
    this.#seen = seen
    this.#forwarder = forwarder
    this.#dropsReserved = dropsReserved
    for (let index = 0; index < 3; index++) this.#add(index, 0)
  }

  run(): void {
    while (!this.#in.isAtEnd) {
      const operation = this.#in.byte()
      const index = (operation >> 4) % PORTS
      const port = this.#ports.get(index)
      switch (operation & 15) {
        case 0:
          if (port === undefined) this.#add(index, this.#in.byte())
          break
        case 1:
          if (port !== undefined && this.#ports.size > 1) this.#remove(index)
          break
        case 2:
          this.#wire(index, this.#in.byte() % PORTS)
          break
        case 3:
          this.#unwire(index)
          break
        case 4:
          if (port !== undefined) this.#setLink(index, (this.#in.byte() & 1) === 1)
          break
        case 5:
          if (port === undefined) break
          port.merges = !port.merges
          this.#forwarder.setMerging(index, port.merges)
          break
        default:
          if (port !== undefined) this.#forward(index)
      }
    }
    for (const index of this.#ports.keys()) this.#forwarder.removePort(index)
    for (const [index, counts] of this.#counts.entries()) {
      for (const [name, at] of Object.entries(COUNTERS)) {
        const is = counters[index * COUNTERS_STRIDE + at]
        if (is !== (counts[name] ?? 0))
          checkEqual(is, counts[name] ?? 0, `${name} of port ${index}`)
      }
    }
  }

  #add(index: number, kind: number): void {
    const mtu = [0, 100, 1500, 0][kind & 3]
    const txOffloads = [0, 1, TSO | 1, TSO | 1][(kind >> 2) & 3]
    const port = {
      index,
      txOffloads,
      transmit: (_: Burst, list: Int32Array, first: number, count: number) =>
        take(index, 'plain', list, first, count),
      endTurn: () => undefined,
      close: () => undefined,
    }
    this.#forwarder.addPort(port, mtu)
    this.#ports.set(index, { txOffloads, mtu, isUp: true, peer: NONE, merges: false })
  }

  #remove(index: number): void {
    this.#unwireModel(index)
    this.#forwarder.removePort(index)
    this.#ports.delete(index)
    this.#forget(index)
  }

  #wire(a: number, b: number): void {
    const [one, other] = [this.#ports.get(a), this.#ports.get(b)]
    if (a === b || one?.peer !== NONE || other?.peer !== NONE) return
    this.#forwarder.wire(a, b)
    one.peer = b
    other.peer = a
    this.#forget(a)
    this.#forget(b)
  }

  #unwire(index: number): void {
    const peer = this.#ports.get(index)?.peer ?? NONE
    if (peer === NONE) return
    this.#forwarder.unwire(index, peer)
    this.#unwireModel(index)
  }

  #unwireModel(index: number): void {
    const port = this.#ports.get(index)!
    const peer = this.#ports.get(port.peer)
    if (peer !== undefined) peer.peer = NONE
    port.peer = NONE
  }

  #setLink(index: number, isUp: boolean): void {
    this.#forwarder.setLink(index, isUp)
    this.#ports.get(index)!.isUp = isUp
    if (!isUp) this.#forget(index)
  }

  #forget(index: number): void {
    for (const [station, port] of this.#learnt) if (port === index) this.#learnt.delete(station)
  }

  #count(index: number, name: string, by: number): void {
    this.#counts[index][name] = (this.#counts[index][name] ?? 0) + by
  }

  #forward(inPort: number): void {
    const stations = this.#makeBurst()
    const lists = this.#decide(inPort, stations)
    given.clear()
    this.#forwarder.classify(burst, inPort, 1)
    this.#forwarder.deliver(burst, inPort, 0)
    this.#forwarder.endTurn()
    for (const [index, port] of this.#ports) {
      const should = lists.get(index) ?? []
      const is = given.get(index)
      checkEqual(is?.frames.join() ?? '', should.join(), `frames of port ${index}`)
      if (is === undefined) continue
      const isShort = should.some((k) => (burst.needs[k] & ~port.txOffloads) !== 0)
      const merges = this.#ports.get(inPort)!.merges && (port.txOffloads & TSO) !== 0
      const how = isShort ? 'finished' : merges && should.length > 1 ? 'merged' : 'plain'
      // What a frame needs that the mtu keeps back may count as well: it costs time and nothing else.
      if (isShort || is.how !== 'finished')
        checkEqual(is.how, how, `how port ${index} is given them`)
      this.#seen.add(index, Math.min(should.length, 3), how.length, port.mtu)
    }
    checkEqual(
      [...given.keys()].every((index) => this.#ports.has(index)),
      true,
      'ports given',
    )
  }

  #makeBurst(): (readonly [to: number, from: number])[] {
    const count = 1 + (this.#in.byte() % FRAMES_MAX)
    const stations: (readonly [number, number])[] = []
    for (let k = 0; k < count; k++) {
      const kind = this.#in.byte()
      // Runs of the same addresses are decided together.
      const before = stations.at(-1)
      const both =
        kind >= 128 && before !== undefined ? before : ([kind & 7, (kind >> 3) & 7] as const)
      stations.push(both)
      const [[toHi, toLo], [fromHi, fromLo]] = both.map((each) => STATIONS[each])
      const at = k * HEAD_WORDS
      burst.heads[at] = toHi
      burst.heads[at + 1] = toLo | (fromHi << 16)
      burst.heads[at + 2] = (fromHi >>> 16) | (fromLo << 16)
      burst.heads[at + 3] = kind
      const size = this.#in.byte()
      burst.length[k] = 60 + 8 * size
      burst.needs[k] = [0, 0, 0, 1, TSO | 1][size % 5]
      const isGso = size % 5 === 4
      burst.gso[k] = isGso ? 1 | (1 << 8) | (54 << 16) : 0
      burst.gsoSize[k] = isGso ? 4 * size : 0
    }
    burst.count = count
    return stations
  }

  /** IEEE 802.1D: learn, filter, flood. */
  #decide(inPort: number, stations: readonly (readonly [number, number])[]): Map<number, number[]> {
    const lists = new Map<number, number[]>()
    const own = this.#ports.get(inPort)!
    for (const [k, [to, from]] of stations.entries()) {
      this.#count(inPort, 'rx_frames', 1)
      this.#count(inPort, 'rx_bytes', burst.length[k])
      if (!own.isUp) {
        this.#count(inPort, 'rx_drop_link_down', 1)
        continue
      }
      if (own.peer !== NONE) {
        this.#give(lists, own.peer, k)
        continue
      }
      // A station is one address, and a sender is a station.
      if (from >= 4) {
        this.#count(inPort, 'rx_drop_source', 1)
        continue
      }
      this.#learnt.set(from, inPort)
      const known = this.#learnt.get(to) ?? NONE
      if (known === inPort) this.#count(inPort, 'rx_drop_same_port', 1)
      else if (known !== NONE) this.#give(lists, known, k)
      else if (this.#dropsReserved && to === 7) this.#count(inPort, 'rx_drop_group_address', 1)
      else {
        const others = [...this.#ports].filter(
          ([index, { peer }]) => index !== inPort && peer === NONE,
        )
        if (others.length === 0) this.#count(inPort, 'rx_drop_no_port', 1)
        for (const [index] of others) this.#give(lists, index, k)
      }
    }
    return lists
  }

  #give(lists: Map<number, number[]>, index: number, k: number): void {
    const port = this.#ports.get(index)!
    if (!port.isUp) {
      this.#count(index, 'tx_drop_link_down', 1)
      return
    }
    const isGso = (burst.gso[k] & 0xff00) !== 0
    const onWire = isGso ? (burst.gso[k] >>> 16) + burst.gsoSize[k] : burst.length[k]
    // An Ethernet header and two tags do not count.
    if (port.mtu > 0 && onWire > port.mtu + 14 + 8) {
      this.#count(index, 'tx_drop_mtu', 1)
      return
    }
    const list = lists.get(index)
    if (list === undefined) lists.set(index, [k])
    else list.push(k)
  }
}
