/** VLANs on the whole switch: into which a frame comes, where it goes, and with which tag it leaves. */
import { expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { frame, macRows, Sim } from '../support/sim.ts'
import { C_TAG, S_TAG, tagged } from '../support/vlan-frames.ts'

const BROADCAST = 255
const plain = frame(BROADCAST, 1)

/** A switch whose ports have these options. */
function vlanSim(...ports: readonly SwitchingOptions[]): Sim {
  const sim = new Sim(ports.length)
  for (const [port, options] of ports.entries()) sim.allow(port, options)
  return sim
}

/** Sends by port 0; what the others were given. */
function through(sim: Sim, sent: Uint8Array): Uint8Array[][] {
  sim.send(0, sent)
  return sim.ports.slice(1).map((_, at) => sim.receive(at + 1))
}

test('V1: an access port has frames of its VLAN, without a tag, and takes none with one', () => {
  using sim = vlanSim({ tag: 10 }, { tag: 10 }, { 'vlan-mode': 'access', tag: 20 }, {})
  expect(through(sim, plain)).toEqual([[plain], [], [tagged(plain, 10)]])
  expect(through(sim, tagged(plain, { vid: 0, pcp: 5 }))).toEqual([
    [plain],
    [],
    [tagged(plain, { vid: 10, pcp: 5 })],
  ])
  for (const vid of [10, 20, 4095]) expect(through(sim, tagged(plain, vid))).toEqual([[], [], []])
  expect(sim.count(0).rx_drop_vlan).toBe(3)
  // From the trunk: the tag goes.
  sim.send(3, tagged(frame(BROADCAST, 4), { vid: 20, pcp: 3 }))
  expect([0, 1, 2].map((port) => sim.receive(port))).toEqual([[], [], [frame(BROADCAST, 4)]])
})

test('V1: an access port is not given a frame that has another tag inside', () => {
  using sim = vlanSim({}, { tag: 10 }, {})
  const double = tagged(plain, 10, 20)
  expect(through(sim, double)).toEqual([[], [double]])
  expect(sim.count(1).tx_drop_vlan).toBe(1)
  // One that does, beside those that do not, in the same burst.
  for (const one of [tagged(plain, 10), double, tagged(plain, 10)]) sim.ports[0].send(one)
  sim.send(0, tagged(frame(BROADCAST, 9), { vid: 10, tpid: S_TAG }))
  expect(sim.receive(1)).toEqual([plain, plain, frame(BROADCAST, 9)])
})

test('V2: a trunk carries the VLANs that it lists, and VLAN 0 only if that is among them', () => {
  using sim = vlanSim({ trunks: [10, '20-30'] }, { trunks: ['0', '25'] }, { 'vlan-mode': 'trunk' })
  const at = (vid: number): Uint8Array => tagged(plain, { vid, pcp: 7, dei: 1 })
  expect(through(sim, at(10))).toEqual([[], [at(10)]])
  expect(through(sim, at(25))).toEqual([[at(25)], [at(25)]])
  for (const vid of [9, 11, 19, 31, 4094, 4095]) expect(through(sim, at(vid))).toEqual([[], []])
  expect(through(sim, plain)).toEqual([[], []])
  expect(through(sim, tagged(plain, 0))).toEqual([[], []])
  expect(sim.count(0).rx_drop_vlan).toBe(8)
  sim.send(2, plain)
  sim.send(2, tagged(plain, { vid: 0, pcp: 3 }))
  // A trunk leaves a priority as it came.
  expect([sim.receive(0), sim.receive(1)]).toEqual([[], [plain, tagged(plain, { vid: 0, pcp: 3 })]])
})

test('V2: ports without options pass every frame as it is, of VLAN 0 and 4095 too', () => {
  using sim = vlanSim({}, {})
  for (const tags of [
    [],
    [0],
    [{ vid: 0, pcp: 7, dei: 1 }],
    [4095],
    [1, 2, 3],
    [{ vid: 5, tpid: 0x9100 }],
  ]) {
    expect(through(sim, tagged(plain, ...tags))).toEqual([[tagged(plain, ...tags)]])
  }
})

test('V3: a native port has one VLAN untagged, or tagged, and the others as a trunk', () => {
  using sim = vlanSim(
    { 'vlan-mode': 'native-untagged', tag: 10, trunks: [20] },
    { 'vlan-mode': 'native-tagged', tag: 10, trunks: [20] },
    { 'vlan-mode': 'native-untagged', tag: 20, trunks: [10] },
    { trunks: [10, 20] },
  )
  const [ten, twenty] = [tagged(plain, 10), tagged(plain, 20)]
  expect(through(sim, plain)).toEqual([[ten], [ten], [ten]])
  expect(through(sim, ten)).toEqual([[ten], [ten], [ten]])
  expect(through(sim, twenty)).toEqual([[twenty], [plain], [twenty]])
  expect(through(sim, tagged(plain, 30))).toEqual([[], [], []])
  expect(sim.count(0).rx_drop_vlan).toBe(1)
  sim.send(1, plain)
  expect([0, 2, 3].map((port) => sim.receive(port))).toEqual([[plain], [ten], [ten]])
})

test('V4: a tunnel puts an outer tag on whatever comes, and takes it off', () => {
  const tunnel = { 'vlan-mode': 'dot1q-tunnel', tag: 10 } as const
  using sim = vlanSim(tunnel, {}, { ...tunnel, 'qinq-ethtype': '0x8100' }, { tag: 10 })
  const outer = { vid: 10, tpid: S_TAG }
  for (const tags of [[], [20], [{ vid: 20, pcp: 7, dei: 1 }, 30, 40], [0]]) {
    const sent = tagged(plain, ...tags)
    // An access port of the VLAN has no use for what has a tag of its own.
    const isPlain = tags.length === 0 || tags[0] === 0
    expect(through(sim, sent)).toEqual([[tagged(sent, outer)], [sent], isPlain ? [sent] : []])
  }
  sim.send(2, tagged(plain, 20))
  expect(sim.receive(1)).toEqual([tagged(plain, 10, 20)])
  sim.receive(0)
  sim.send(1, tagged(plain, { vid: 10, pcp: 3 }, 20))
  expect([sim.receive(0), sim.receive(2)]).toEqual([[tagged(plain, 20)], [tagged(plain, 20)]])
})

test("V4: of a customer's VLANs those pass that are listed", () => {
  const tunnel = { 'vlan-mode': 'dot1q-tunnel', tag: 10, cvlans: [0, '20-21'] } as const
  using sim = vlanSim(tunnel, {}, tunnel)
  const outer = { vid: 10, tpid: S_TAG }
  for (const tags of [[], [20], [21, 99]]) {
    const sent = tagged(plain, ...tags)
    expect(through(sim, sent)).toEqual([[tagged(sent, outer)], [sent]])
  }
  expect(through(sim, tagged(plain, 22))).toEqual([[], []])
  expect(sim.count(0).rx_drop_vlan).toBe(1)
  sim.send(1, tagged(plain, outer, 22))
  expect([sim.receive(0), sim.receive(2)]).toEqual([[], []])
})

test('V5: where a tag goes one of VID 0 can stay, for a priority or in any case', () => {
  using sim = vlanSim(
    {},
    { tag: 10 },
    { tag: 10, 'priority-tags': 'if-nonzero' },
    { tag: 10, 'priority-tags': 'always' },
  )
  const priority = (pcp: number): Uint8Array => tagged(plain, { vid: 0, pcp })
  expect(through(sim, tagged(plain, { vid: 10, pcp: 5 }))).toEqual([
    [plain],
    [priority(5)],
    [priority(5)],
  ])
  expect(through(sim, tagged(plain, { vid: 10, pcp: 0 }))).toEqual([
    [plain],
    [plain],
    [priority(0)],
  ])
  // From an access port: what came with a priority tag.
  sim.send(1, priority(6))
  expect([2, 3].map((port) => sim.receive(port))).toEqual([[priority(6)], [priority(6)]])
  sim.send(1, plain)
  expect([2, 3].map((port) => sim.receive(port))).toEqual([[plain], [plain]])
})

test("V5: so can that of a tunnel's outer tag, where the customer's frame has none inside", () => {
  const tunnel = { 'vlan-mode': 'dot1q-tunnel', tag: 10 } as const
  using sim = vlanSim(
    { trunks: ['10'] },
    tunnel,
    { ...tunnel, 'priority-tags': 'if-nonzero' },
    { ...tunnel, 'priority-tags': 'always' },
  )
  const sent = (port: number, one: Uint8Array): Uint8Array[][] => {
    sim.send(port, one)
    return [1, 2, 3].map((to) => sim.receive(to))
  }
  const priority = (pcp: number): Uint8Array => tagged(plain, { vid: 0, pcp })
  expect(sent(0, tagged(plain, { tpid: S_TAG, vid: 10, pcp: 5 }))).toEqual([
    [plain],
    [priority(5)],
    [priority(5)],
  ])
  expect(sent(0, tagged(plain, 10))).toEqual([[plain], [plain], [priority(0)]])
  // The priority of the tunnel is not the customer's.
  for (const inside of [tagged(plain, 7), tagged(plain, { vid: 0, pcp: 3 })]) {
    expect(sent(0, tagged(inside, { vid: 10, pcp: 5 }))).toEqual([[inside], [inside], [inside]])
  }
  expect(sent(1, plain)).toEqual([[], [plain], [priority(0)]])
})

test('V6: the outer tag is the one behind the addresses, with TPID 0x8100 or 0x88a8', () => {
  using sim = vlanSim({ trunks: [10] }, {})
  const outer = tagged(plain, { vid: 10, tpid: S_TAG }, 99)
  expect(through(sim, outer)).toEqual([[outer]])
  expect(through(sim, tagged(plain, { vid: 10, tpid: 0x9100 }))).toEqual([[]])
  expect(through(sim, tagged(plain, 99, 10))).toEqual([[]])
})

test('V7: priority and DEI stay with the tag; a native tag has the priority of what it replaces', () => {
  using sim = vlanSim({ 'vlan-mode': 'native-untagged', tag: 10 }, {})
  const kept = tagged(plain, { vid: 20, pcp: 6, dei: 1, tpid: S_TAG })
  expect(through(sim, kept)).toEqual([[kept]])
  const priority = tagged(plain, { vid: 0, pcp: 6, tpid: S_TAG })
  expect(through(sim, priority)).toEqual([[tagged(plain, { vid: 10, pcp: 6, tpid: S_TAG })]])
  expect(through(sim, plain)).toEqual([[tagged(plain, { vid: 10, pcp: 0, tpid: C_TAG })]])
})

test('V8: a frame that is cut off inside its tag is malformed', () => {
  using sim = vlanSim({ tag: 10 }, {})
  using open = new Sim(2)
  const whole = tagged(plain, 0)
  for (const length of [14, 15, 16, 17]) {
    expect(through(sim, whole.slice(0, length))).toEqual([[]])
    expect(through(open, whole.slice(0, length))).toEqual([[]])
  }
  expect(sim.count(0).rx_drop_malformed).toBe(4)
  expect(open.count(0).rx_drop_malformed).toBe(4)
  // What is just long enough has an empty payload.
  expect(through(open, whole.slice(0, 18))).toEqual([[whole.slice(0, 18)]])
  expect(through(sim, whole.slice(0, 18))).toEqual([[tagged(plain, 10).slice(0, 18)]])
  sim.send(1, tagged(plain, 10).slice(0, 19))
  expect(sim.receive(0)).toEqual([plain.slice(0, 15)])
  // A whole one between cut ones of the same run.
  for (const length of [17, 60, 16, 60]) open.ports[0].send(whole.slice(0, length))
  while (open.engine.turn(false, 0) > 0);
  expect(open.receive(1)).toHaveLength(2)
})

test('V9: a link passes everything as it is', () => {
  using sim = new Sim(3)
  sim.engine.forwarder.wire(0, 1)
  for (const tags of [[], [0], [4095], [{ vid: 7, tpid: S_TAG }, 8]]) {
    expect(through(sim, tagged(plain, ...tags))).toEqual([[tagged(plain, ...tags)], []])
  }
  const cut = tagged(plain, 0).slice(0, 15)
  expect(through(sim, cut)).toEqual([[cut], []])
})

test('V10: tags are not counted against the mtu, those that are pushed neither', () => {
  using sim = new Sim(1)
  sim.addPort(1, 100)
  sim.allow(0, { tag: 10 })
  const longest = frame(BROADCAST, 1, 0, 114)
  expect(through(sim, longest)).toEqual([[tagged(longest, 10)]])
  sim.allow(0, {})
  const double = tagged(longest, 1, 2)
  expect(through(sim, double)).toEqual([[double]])
  sim.allow(0, { 'vlan-mode': 'dot1q-tunnel', tag: 10 })
  expect(through(sim, double)).toEqual([[tagged(longest, { vid: 10, tpid: S_TAG }, 1, 2)]])
  expect(through(sim, frame(BROADCAST, 1, 0, 123))).toEqual([[]])
  expect(sim.count(1).tx_drop_mtu).toBe(1)
})

test('F1: an address is known in the VLAN where it was seen, and nowhere else', () => {
  using sim = vlanSim({}, {}, {})
  sim.send(0, tagged(frame(BROADCAST, 1), 10))
  sim.send(1, tagged(frame(BROADCAST, 1), 20))
  sim.send(1, frame(BROADCAST, 1))
  for (const port of [0, 1, 2]) sim.receive(port)
  const to = (...tags: number[]): number[] => {
    sim.send(2, tagged(frame(1, 3), ...tags))
    return [0, 1].filter((port) => sim.receive(port).length > 0)
  }
  expect([to(10), to(20), to(), to(30), to(0)]).toEqual([[0], [1], [1], [0, 1], [1]])
  expect(sim.engine.forwarder.macTable.moves).toBe(0)
  const rows = macRows(sim.engine.macTable(0)).map(([, lo, port]) => [lo >>> 16, port])
  expect(rows.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])).toEqual([
    [0, 1],
    [0, 2],
    [10, 0],
    [10, 2],
    [20, 1],
    [20, 2],
    [30, 2],
  ])
})
