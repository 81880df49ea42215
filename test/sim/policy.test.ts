/** What ports are allowed, on the whole switch: isolation, floods, locked ports, limits, storms. */
import { expect, test } from 'vitest'
import type { StormChange } from '../../src/engine/messages.ts'
import { NO_POLICY } from '../../src/engine/messages.ts'
import { addStaticMacs } from '../../src/engine/static-macs.ts'
import { STORM_BROADCAST, STORM_MULTICAST, STORM_UNKNOWN } from '../../src/engine/storm.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { optionMacs } from '../../src/switch/policy.ts'
import { frame, Sim } from '../support/sim.ts'
import { tagged } from '../support/vlan-frames.ts'

const BROADCAST = 255

function simOf(...ports: readonly SwitchingOptions[]): Sim {
  const sim = new Sim(ports.length)
  for (const [port, options] of ports.entries()) {
    addStaticMacs(sim.engine.forwarder.macTable, port, optionMacs(options))
    sim.allow(port, options)
  }
  return sim
}

/** The ports that were given what one sent. */
function reached(sim: Sim, port: number, sent: Uint8Array): number[] {
  sim.send(port, sent)
  return sim.ports.flatMap((_, at) => (sim.receive(at).length > 0 ? [at] : []))
}

const multicast = (source: number): Uint8Array => frame(1, source).fill(3, 0, 1)

test('P1: isolated ports exchange nothing, known or unknown, and meet the others', () => {
  using sim = simOf({ isolated: true }, { isolated: true }, {})
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([2])
  expect(reached(sim, 1, frame(BROADCAST, 2))).toEqual([2])
  expect(reached(sim, 2, frame(BROADCAST, 3))).toEqual([0, 1])
  expect(reached(sim, 0, frame(2, 1))).toEqual([])
  expect(sim.count(1).tx_drop_isolated).toBe(1)
  expect(reached(sim, 0, frame(9, 1))).toEqual([2])
  expect(reached(sim, 0, multicast(1))).toEqual([2])
  expect([reached(sim, 2, frame(1, 3)), reached(sim, 0, frame(3, 1))]).toEqual([[0], [2]])
})

test('P1: alone among isolated ports nobody gets a flood, which is counted', () => {
  using sim = simOf({ isolated: true }, { isolated: true })
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([])
  expect(sim.count(0).rx_drop_no_port).toBe(1)
})

test('P1: it is in force before the first frame, and in another port of that number', () => {
  using sim = new Sim(0)
  for (const port of [0, 1]) {
    sim.allow(port, { isolated: true })
    sim.addPort(port)
  }
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([])
  // As a postponed port that is opened: what it is made of changes.
  const before = sim.engine.forwarder.port(1)!
  sim.engine.forwarder.replacePort(before)
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([])
  // A number that is free is nobody's.
  sim.engine.removePort(1)
  sim.addPort(1)
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([1])
})

test('P2: each kind of flood can be kept from a port; what is for it is not', () => {
  using sim = simOf({}, { flood: false }, { 'mcast-flood': false }, { 'bcast-flood': false })
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([1, 2])
  expect(reached(sim, 0, multicast(1))).toEqual([1, 3])
  expect(reached(sim, 0, frame(77, 1))).toEqual([2, 3])
  sim.send(1, frame(1, 8))
  sim.receive(0)
  expect(reached(sim, 0, frame(8, 1))).toEqual([1])
})

test('P3: a locked port is its static addresses, in their VLANs, and learns none', () => {
  const macs = ['02:00:00:00:00:01']
  using sim = simOf({ locked: true, macs }, {}, { locked: true, macs: [frameMac(5)], tag: 10 })
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([1])
  expect(reached(sim, 0, frame(BROADCAST, 2))).toEqual([])
  expect(reached(sim, 0, tagged(frame(BROADCAST, 1), 10))).toEqual([])
  expect(sim.count(0).rx_drop_locked).toBe(2)
  expect(reached(sim, 2, frame(BROADCAST, 5))).toEqual([0, 1])
  // Frames for it go there, and only there, though it has never said a word.
  expect(reached(sim, 1, tagged(frame(5, 9), 10))).toEqual([2])
  // Somebody else with the address changes nothing.
  expect(reached(sim, 1, frame(77, 1))).toEqual([0])
  expect(reached(sim, 1, frame(1, 9))).toEqual([0])
  expect(sim.engine.forwarder.macTable.lookup(2, 0x0200)).toBe(-1)
})

const frameMac = (last: number): string => `02:00:00:00:00:${last.toString(16).padStart(2, '0')}`

test('P5: a storm is cut to its rate, class by class, and told at begin and end', () => {
  const told: StormChange[] = []
  using sim = new Sim(2, { onStorms: (changes) => void told.push(...changes) })
  sim.allow(0, { storm: { broadcast: 1000, 'unknown-unicast': 10 } })
  const burst = (frames: number, make: () => Uint8Array): number => {
    let passed = 0
    for (let left = frames; left > 0; left -= 200) {
      for (let k = 0; k < Math.min(left, 200); k++) sim.ports[0].send(make())
      while (sim.engine.turn(false, 0) > 0);
      passed += sim.receive(1).length
    }
    return passed
  }
  // The burst is a tenth of a second of the rate, and 32 frames at least.
  expect(burst(600, () => frame(BROADCAST, 1))).toBe(100)
  expect(burst(600, () => frame(77, 1))).toBe(32)
  expect(burst(600, () => multicast(1))).toBe(600)
  expect(sim.count(0).rx_drop_storm).toBe(500 + 568)
  sim.clock.nowS += 0.05
  expect(burst(600, () => frame(BROADCAST, 1))).toBe(50)
  sim.wait(1)
  expect(burst(1, () => frame(BROADCAST, 1))).toBe(1)
  // The first look was while the first burst was under way.
  expect(told).toEqual([
    { port: 0, kind: STORM_BROADCAST, isStorm: true, dropped: 100 },
    { port: 0, kind: STORM_UNKNOWN, isStorm: true, dropped: 568 },
  ])
  sim.wait(1)
  burst(1, () => frame(BROADCAST, 1))
  expect(told.slice(2)).toEqual([
    { port: 0, kind: STORM_BROADCAST, isStorm: false, dropped: 1050 },
    { port: 0, kind: STORM_UNKNOWN, isStorm: false, dropped: 568 },
  ])
  // Off: everything passes.
  sim.engine.forwarder.setPolicy(0, NO_POLICY)
  expect(burst(600, () => frame(BROADCAST, 1))).toBe(600)
  expect(told.some(({ kind }) => kind === STORM_MULTICAST)).toBe(false)
})

test('P6: with hairpin a frame may leave by its own port, known or flooded', () => {
  using sim = simOf({ hairpin: true }, {})
  expect(reached(sim, 0, frame(BROADCAST, 1))).toEqual([0, 1])
  sim.send(0, frame(BROADCAST, 2))
  for (const port of [0, 1]) sim.receive(port)
  expect(reached(sim, 0, frame(1, 2))).toEqual([0])
  expect(sim.count(0).rx_drop_same_port).toBe(0)
  expect(reached(sim, 1, frame(BROADCAST, 3))).toEqual([0])
})

test('P7: group addresses pass that the port lists, or the switch if it lists none', () => {
  using sim = new Sim(3, { groups: 1 << 0x0e })
  sim.allow(1, { 'group-addresses': ['02', 3] })
  sim.allow(2, { 'group-addresses': 'transparent' })
  const passes = (port: number): string =>
    Array.from({ length: 16 }, (_, octet) => {
      const sent = frame(1, 1 + port)
      sent.set([1, 0x80, 0xc2, 0, 0, octet])
      return reached(sim, port, sent).length > 0 ? octet.toString(16) : ''
    }).join('')
  expect([passes(0), passes(1), passes(2)]).toEqual(['e', '23', '0123456789abcdef'])
  expect(sim.count(1).rx_drop_group_address).toBe(14)
  sim.allow(1, { 'group-addresses': '802.1D' })
  expect(passes(1)).toBe('')
  const other = frame(1, 2)
  other.set([1, 0x80, 0xc2, 0, 0, 0x10])
  expect(reached(sim, 1, other)).toEqual([0, 2])
})

test('F3: where nothing is learnt frames for senders there are flooded', () => {
  using sim = simOf({ learning: false }, {}, {})
  reached(sim, 0, frame(BROADCAST, 1))
  expect(reached(sim, 1, frame(1, 2))).toEqual([0, 2])
  expect(sim.engine.forwarder.macTable.entries).toBe(1)
})

test('F4: a port learns so many addresses, and passes or drops the frames of others', () => {
  using sim = simOf({ 'mac-limit': 2 }, { 'mac-limit': 2, 'mac-limit-action': 'drop' }, {})
  for (const port of [0, 1]) {
    for (let source = 1; source <= 4; source++)
      reached(sim, port, frame(BROADCAST, 10 * port + source))
  }
  expect(sim.engine.forwarder.macTable.entries).toBe(4)
  expect([sim.count(0).rx_drop_mac_limit, sim.count(1).rx_drop_mac_limit]).toEqual([0, 2])
  expect(reached(sim, 0, frame(BROADCAST, 3))).toEqual([1, 2])
  expect(reached(sim, 1, frame(BROADCAST, 13))).toEqual([])
  expect(reached(sim, 2, frame(3, 99))).toEqual([0, 1])
  // Room again: the port went down.
  sim.engine.forwarder.setLink(1, false)
  sim.engine.forwarder.setLink(1, true)
  expect(reached(sim, 1, frame(BROADCAST, 13))).toEqual([0, 2])
})

test('F4: floods of addresses and VLANs against limits stay within them', () => {
  using sim = new Sim(2, { macTableSize: 256 })
  sim.allow(0, { 'mac-limit': 100 })
  sim.send(1, frame(BROADCAST, 200))
  for (let vlan = 1; vlan <= 40; vlan++) {
    for (let source = 1; source <= 20; source++) {
      sim.ports[0].send(tagged(frame(BROADCAST, source), vlan))
    }
    while (sim.engine.turn(false, 0) > 0);
    sim.receive(1)
  }
  const { macTable } = sim.engine.forwarder
  expect([macTable.entries, macTable.full]).toEqual([101, 0])
  expect(macTable.lookup(2, 200 << 8)).toBe(1)
})

test('F5: an address of a sticky port stays there, and its frames from elsewhere are dropped', () => {
  using sim = simOf({ sticky: true }, {}, { learning: false })
  reached(sim, 0, frame(BROADCAST, 1))
  expect(reached(sim, 1, frame(BROADCAST, 1))).toEqual([])
  expect(reached(sim, 2, frame(BROADCAST, 1))).toEqual([])
  expect([1, 2].map((port) => sim.count(port).rx_drop_mac_moved)).toEqual([1, 1])
  expect(reached(sim, 1, frame(BROADCAST, 2))).toEqual([0, 2])
  expect(reached(sim, 0, frame(BROADCAST, 2))).toEqual([1, 2])
  expect(sim.engine.forwarder.macTable.moves).toBe(1)
})

test('F6: what was learnt at a port goes when it is down or removed; static entries stay with it', () => {
  using sim = simOf({}, {}, {})
  const { macTable } = sim.engine.forwarder
  addStaticMacs(macTable, 0, [[2, (7 << 8) | (10 << 16)]])
  reached(sim, 0, frame(BROADCAST, 1))
  sim.engine.forwarder.setLink(0, false)
  sim.engine.forwarder.setLink(0, true)
  expect(reached(sim, 1, frame(1, 2))).toEqual([0, 2])
  expect(reached(sim, 1, tagged(frame(7, 2), 10))).toEqual([0])
  sim.engine.removePort(0)
  expect(macTable.entries).toBe(2)
  sim.addPort(0)
  expect(reached(sim, 1, tagged(frame(7, 2), 10))).toEqual([0, 2])
})
