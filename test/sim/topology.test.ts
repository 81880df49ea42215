/**
 * Random networks against a model switch: ports that come and go, links, limits, ageing, a table
 * that is too small, receivers that do not read. The model says for each frame where it goes, or
 * why it does not; every delivery, its order and every counter must agree.
 */
import fc from 'fast-check'
import { whileTrue } from '../support/bounded.ts'
import { expect, test } from 'vitest'
import { COUNTER_NAMES } from '../../src/stats/counters.ts'
import type { CounterName } from '../../src/stats/counters.ts'
import { ALL_GROUPS, NO_GROUPS } from '../support/policies.ts'
import { Sim } from '../support/sim.ts'

const PORTS = 6
const RING_SLOTS = 256
/** An Ethernet header and two VLAN tags, which an mtu does not count. */
const L2_OVERHEAD = 22
const AGING_S = 10
const BROADCAST = 255
const MULTICAST = 254
/** 01:80:c2:00:00:00 */
const RESERVED = 253
/** 00:00:00:00:00:00 */
const ZERO = 0
const GROUPS = [BROADCAST, MULTICAST, RESERVED]

interface Frame {
  readonly source: number
  readonly destination: number
  readonly length: number
}

function addressBytes(station: number): number[] {
  if (station === BROADCAST) return [255, 255, 255, 255, 255, 255]
  if (station === MULTICAST) return [1, 0, 0x5e, 0, 0, 1]
  if (station === RESERVED) return [1, 0x80, 0xc2, 0, 0, 0]
  if (station === ZERO) return [0, 0, 0, 0, 0, 0]
  return [2, 0, 0, 0, 0, station]
}

/** A frame whose payload is its number. */
function bytesOf({ source, destination, length }: Frame, number: number): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes.set([...addressBytes(destination), ...addressBytes(source), 0x88, 0xb5])
  new DataView(bytes.buffer).setUint32(14, number)
  return bytes
}

const numberOf = (bytes: Uint8Array): number => new DataView(bytes.buffer).getUint32(14)

interface ModelPort {
  readonly mtu: number
  isUp: boolean
  peer: number | undefined
  /** Numbers of the frames that its owner has not read. */
  waiting: number[]
}

/** A learning bridge in plain words. */
class Model {
  readonly ports = new Map<number, ModelPort>()
  readonly table = new Map<number, { port: number; seenS: number }>()
  readonly counters: Record<CounterName, number>[] = Array.from(
    { length: PORTS },
    () => Object.fromEntries(COUNTER_NAMES.map((name) => [name, 0])) as Record<CounterName, number>,
  )
  /** Copies that floods made beyond the one that came in. */
  copies = 0
  #sweptS = -1
  /** Stations that had to give way to others, in order: which ones is for the table to say. */
  evicted: number[] = []
  readonly #tableSize: number
  readonly #dropsReserved: boolean

  constructor(tableSize: number, dropsReserved: boolean) {
    this.#tableSize = tableSize
    this.#dropsReserved = dropsReserved
  }

  forget(port: number): void {
    for (const [station, entry] of this.table) if (entry.port === port) this.table.delete(station)
  }

  /** The frames that one port sends before the switch looks. */
  enter(inPort: number, frames: readonly Frame[], first: number, nowS: number): void {
    const counters = this.counters[inPort]
    const { isUp, peer } = this.ports.get(inPort)!
    frames.forEach((frame, k) => {
      counters.rx_frames++
      counters.rx_bytes += frame.length
      if (!isUp) counters.rx_drop_link_down++
      else if (peer !== undefined) this.#give(peer, frame, first + k)
      else this.#bridge(inPort, frame, first + k, nowS)
    })
  }

  #bridge(inPort: number, frame: Frame, number: number, nowS: number): void {
    const { source, destination } = frame
    const counters = this.counters[inPort]
    if (GROUPS.includes(source) || source === ZERO) {
      counters.rx_drop_source++
      return
    }
    if (!this.table.has(source) && this.table.size === this.#tableSize) {
      const gone = this.evicted.shift()!
      expect(this.#victims(inPort)).toContain(gone)
      this.table.delete(gone)
    }
    this.table.set(source, { port: inPort, seenS: nowS })
    const known = this.table.get(destination)
    if (known !== undefined) {
      if (known.port === inPort) counters.rx_drop_same_port++
      else this.#give(known.port, frame, number)
      return
    }
    if (destination === RESERVED && this.#dropsReserved) {
      counters.rx_drop_group_address++
      return
    }
    const others = [...this.ports.keys()].filter(
      (port) => port !== inPort && this.ports.get(port)!.peer === undefined,
    )
    if (others.length === 0) counters.rx_drop_no_port++
    else this.copies += others.length - 1
    for (const port of others) this.#give(port, frame, number)
  }

  /** Stations of the port that has most of them, which is the sender's if none has more. */
  #victims(inPort: number): number[] {
    const all = [...this.table]
    const count = (port: number): number => all.filter(([, entry]) => entry.port === port).length
    const most = Math.max(...all.map(([, entry]) => count(entry.port)))
    const isBusiest = (port: number): boolean =>
      count(inPort) === most ? port === inPort : count(port) === most
    return all.filter(([, entry]) => isBusiest(entry.port)).map(([station]) => station)
  }

  #give(port: number, frame: Frame, number: number): void {
    const { isUp, mtu, waiting } = this.ports.get(port)!
    const counters = this.counters[port]
    if (!isUp) counters.tx_drop_link_down++
    else if (mtu !== 0 && frame.length > mtu + L2_OVERHEAD) counters.tx_drop_mtu++
    else if (waiting.length >= RING_SLOTS) counters.tx_drop_full++
    else {
      waiting.push(number)
      counters.tx_frames++
      counters.tx_bytes += frame.length
    }
  }

  /** Old addresses go after the first frames of each second. */
  tick(nowS: number): void {
    if (nowS === this.#sweptS) return
    this.#sweptS = nowS
    for (const [station, { seenS }] of this.table) {
      if (seenS < nowS - AGING_S) this.table.delete(station)
    }
  }
}

const port = fc.nat(PORTS - 1)
/** Stations are not bound to ports: they move all the time. */
const station = fc.integer({ min: 1, max: 12 })
const frame = fc.record({
  source: fc.oneof(
    { weight: 20, arbitrary: station },
    { weight: 1, arbitrary: fc.constantFrom(...GROUPS, ZERO) },
  ),
  destination: fc.oneof(
    { weight: 3, arbitrary: station },
    { weight: 1, arbitrary: fc.constantFrom(...GROUPS) },
  ),
  length: fc.oneof(fc.constant(60), fc.integer({ min: 18, max: 200 }), fc.constant(9000)),
})

/** What several ports send at the same time. */
const traffic = fc.uniqueArray(
  fc.record({
    port,
    frames: fc.oneof(
      fc.array(frame, { minLength: 1, maxLength: 12 }),
      // A flow of equal frames, long enough to fill a ring in a few steps.
      fc.tuple(frame, fc.integer({ min: 50, max: 200 })).map(([one, n]) => Array(n).fill(one)),
    ),
  }),
  { minLength: 1, maxLength: PORTS, selector: (sends) => sends.port },
)

const mtu = fc.constantFrom(0, 0, 100, 1500)
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('traffic' as const), traffic }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), port }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.nat(8) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('link' as const), port, isUp: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wire' as const), a: port, b: port }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unwire' as const), port }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), port }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('add' as const), port, mtu }) },
)
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never

/** The switch and the model side by side. */
class Pair implements Disposable {
  readonly sim: Sim
  readonly model: Model
  /** Ports in the order in which they were put on the switch, which is the order of their turns. */
  readonly order: number[] = []
  #number = 0

  constructor(mtus: readonly number[], tableSize: number, dropsReserved: boolean) {
    this.sim = new Sim(0, {
      macAgingS: AGING_S,
      macTableSize: tableSize,
      groups: dropsReserved ? NO_GROUPS : ALL_GROUPS,
    })
    this.model = new Model(tableSize, dropsReserved)
    this.#watchEvictions()
    mtus.forEach((mtu, port) => this.add(port, mtu))
  }

  /** Notes which station is no longer in the table when it has learnt another one. */
  #watchEvictions(): void {
    const table = this.sim.engine.forwarder.macTable
    const learn = table.learn.bind(table)
    const stations = (): number[] => {
      const all: number[] = []
      table.forEach((_hi, lo) => all.push(lo >>> 8))
      return all
    }
    table.learn = (...address) => {
      const { full } = table
      const before = stations()
      const learnt = learn(...address)
      if (table.full === full) return learnt
      const after = stations()
      this.model.evicted.push(...before.filter((station) => !after.includes(station)))
      return learnt
    }
  }

  add(port: number, mtu: number): void {
    if (this.model.ports.has(port)) return
    this.sim.addPort(port, mtu)
    this.model.ports.set(port, { mtu, isUp: true, peer: undefined, waiting: [] })
    this.order.push(port)
  }

  remove(port: number): void {
    const gone = this.model.ports.get(port)
    if (gone === undefined) return
    this.sim.engine.removePort(port)
    this.sim.ports[port].close()
    if (gone.peer !== undefined) this.model.ports.get(gone.peer)!.peer = undefined
    this.model.ports.delete(port)
    this.model.forget(port)
    this.order.splice(this.order.indexOf(port), 1)
  }

  setLink(port: number, isUp: boolean): void {
    const model = this.model.ports.get(port)
    if (model === undefined) return
    this.sim.engine.forwarder.setLink(port, isUp)
    model.isUp = isUp
    if (!isUp) this.model.forget(port)
  }

  wire(a: number, b: number): void {
    const [first, second] = [this.model.ports.get(a), this.model.ports.get(b)]
    if (a === b || first === undefined || second === undefined) return
    if (first.peer !== undefined || second.peer !== undefined) return
    this.sim.engine.forwarder.wire(a, b)
    first.peer = b
    second.peer = a
    this.model.forget(a)
    this.model.forget(b)
  }

  unwire(port: number): void {
    const peer = this.model.ports.get(port)?.peer
    if (peer === undefined) return
    this.sim.engine.forwarder.unwire(port, peer)
    this.model.ports.get(port)!.peer = undefined
    this.model.ports.get(peer)!.peer = undefined
  }

  /** All send, then the switch runs until it is quiet. */
  run(sends: readonly { readonly port: number; readonly frames: readonly Frame[] }[]): void {
    const { sim, model } = this
    const nowS = sim.clock.nowS
    const present = sends.filter(({ port }) => model.ports.has(port))
    if (present.length === 0) return
    const first = new Map<number, number>()
    for (const { port, frames } of present) {
      first.set(port, this.#number)
      for (const one of frames) {
        if (!sim.ports[port].send(bytesOf(one, this.#number++))) throw new Error('ring full')
      }
    }
    whileTrue('turns with frames', () => sim.engine.turn(false, 0) > 0)
    for (const port of this.order) {
      const own = present.find((send) => send.port === port)
      if (own !== undefined) model.enter(port, own.frames, first.get(port)!, nowS)
    }
    model.tick(nowS)
  }

  read(port: number): void {
    const model = this.model.ports.get(port)
    if (model === undefined) return
    expect(this.sim.receive(port).map(numberOf)).toEqual(model.waiting)
    model.waiting = []
  }

  step(one: Step): void {
    switch (one.kind) {
      case 'traffic':
        return this.run(one.traffic)
      case 'read':
        return this.read(one.port)
      case 'wait':
        return this.sim.wait(one.seconds)
      case 'link':
        return this.setLink(one.port, one.isUp)
      case 'wire':
        return this.wire(one.a, one.b)
      case 'unwire':
        return this.unwire(one.port)
      case 'remove':
        return this.remove(one.port)
      case 'add':
        return this.add(one.port, one.mtu)
    }
  }

  [Symbol.dispose](): void {
    // The simulation closes every port that it ever had.
    for (let port = 0; port < PORTS; port++) this.add(port, 0)
    this.sim[Symbol.dispose]()
  }
}

const DROPS = COUNTER_NAMES.filter((name) => name.includes('_drop_'))

test('every frame goes where a model switch sends it, in order, or is counted by its reason', () => {
  fc.assert(
    fc.property(
      fc.array(mtu, { minLength: PORTS, maxLength: PORTS }),
      fc.constantFrom(16, 1024),
      fc.boolean(),
      fc.array(step, { minLength: 1, maxLength: 40 }),
      (mtus, tableSize, dropsReserved, steps) => {
        using pair = new Pair(mtus, tableSize, dropsReserved)
        const { sim, model } = pair
        for (const one of steps) pair.step(one)
        for (let port = 0; port < PORTS; port++) {
          pair.read(port)
          expect(sim.count(port)).toEqual(model.counters[port])
        }
        expect(sim.engine.forwarder.macTable.entries).toBe(model.table.size)
        // And without the model: what came in left, was dropped, or was copied by a flood.
        let [rx, out] = [0, 0]
        for (let port = 0; port < PORTS; port++) {
          const counters = sim.count(port)
          rx += counters.rx_frames
          out += counters.tx_frames
          for (const name of DROPS) out += counters[name]
        }
        expect(out).toBe(rx + model.copies)
      },
    ),
    { numRuns: 120 },
  )
})

test('a table that is too small learns in the place of others, and loses nothing', () => {
  const many = fc.integer({ min: 1, max: 200 })
  const talk = fc.array(fc.tuple(port, many, many), { minLength: 30, maxLength: 80 })
  fc.assert(
    fc.property(talk, (frames) => {
      using pair = new Pair(
        Array.from({ length: PORTS }, () => 0),
        16,
        false,
      )
      for (const [at, source, destination] of frames) {
        pair.run([{ port: at, frames: [{ source, destination, length: 60 }] }])
      }
      for (let at = 0; at < PORTS; at++) {
        pair.read(at)
        expect(pair.sim.count(at)).toEqual(pair.model.counters[at])
      }
      expect(pair.sim.engine.forwarder.macTable.entries).toBe(pair.model.table.size)
    }),
  )
})

test('frames arrive byte for byte, whatever their length and the number of receivers', () => {
  const lengths = fc.array(fc.integer({ min: 18, max: 65_549 }), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(lengths, fc.nat(255), (all, fill) => {
      using sim = new Sim(4)
      const sent = all.map((length, n) => {
        const bytes = new Uint8Array(length)
        for (let k = 14; k < length; k++) bytes[k] = (fill + k * 7 + (k >>> 8)) & 0xff
        bytes.set(addressBytes(BROADCAST))
        bytes.set([...addressBytes(1 + n), 0x88, 0xb5], 6)
        return bytes
      })
      for (const bytes of sent) sim.send(0, bytes)
      for (let at = 1; at < 4; at++) {
        const got = sim.receive(at)
        expect(got).toHaveLength(sent.length)
        got.forEach((bytes, k) => expect(Buffer.compare(bytes, sent[k])).toBe(0))
      }
    }),
    { numRuns: 30 },
  )
})
