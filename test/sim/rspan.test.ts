/** Mirrors into a VLAN, in the whole switch with memory ports; see test/support/sim.ts. */
import { expect, test } from 'vitest'
import type { MirrorDescription } from '../../src/engine/messages.ts'
import { BROADCAST, learnt, mirror, selected, sendAll, tagged } from '../support/mirrors.ts'
import { frame, Sim } from '../support/sim.ts'

/** Ports 0 and 1 are access ports of VLANs 10 and 20, 2 is a trunk of all, 3 an access port of the VLAN of copies. */
function withRspan(more: Partial<MirrorDescription> = { sources: [0] }): Sim {
  const sim = new Sim(5)
  for (const [port, tag] of [10, 20, 0, 100].entries()) {
    if (tag > 0) sim.allow(port, { tag })
  }
  sim.allow(4, { trunks: [10, 20] })
  sim.engine.forwarder.setMirrors([mirror({ output: -1, outputVlan: 100, ...more })])
  return sim
}

test('M4: copies go to all ports that carry the VLAN, with the tags that these have, and to no other', () => {
  using sim = withRspan()
  const bytes = frame(BROADCAST, 1, 1)
  sim.send(0, bytes)
  const received = [0, 1, 2, 3, 4].map((port) => sim.receive(port))
  expect(received).toEqual([
    [],
    [],
    [tagged(10, bytes), tagged(100, bytes)],
    [bytes],
    [tagged(10, bytes)],
  ])
  expect(selected(sim)).toEqual([1, 60])
})

test('M4: a tag that a frame has gets the VID and keeps the rest; also the port by which it came has the copy', () => {
  using sim = withRspan({ sources: [2] })
  const bytes = Uint8Array.from(tagged(10, frame(BROADCAST, 1, 1)))
  // PCP 5, DEI.
  bytes[14] |= 0xb0
  const copy = Uint8Array.from(bytes)
  copy[15] = 100
  sim.send(2, bytes)
  expect(sim.receive(2)).toEqual([copy])
  // An access port takes none with another tag inside.
  const plain = frame(BROADCAST, 1, 1)
  expect(sim.receive(3)).toEqual([plain])
  sim.send(2, tagged(10, tagged(7, plain)))
  expect(sim.receive(2)).toEqual([tagged(100, tagged(7, plain))])
  expect(sim.receive(3)).toEqual([])
  expect(sim.count(3).tx_drop_vlan).toBe(1)
})

test('M4: what leaves by a port is copied as it leaves, then given the tags of the VLAN', () => {
  using sim = withRspan({ destinations: [0] })
  const bytes = Uint8Array.from(tagged(10, frame(BROADCAST, 1, 1)))
  // A priority, which goes with the tag at the access port.
  bytes[14] |= 0xa0
  sim.send(2, bytes)
  expect(sim.receive(2)).toEqual([tagged(100, frame(BROADCAST, 1, 1))])
})

test('M4: the tag of a tunnel is pushed in front of those that frames have', () => {
  using sim = withRspan({ sources: [0] })
  sim.allow(0, { tag: 30, 'vlan-mode': 'dot1q-tunnel' })
  const bytes = tagged(5, frame(BROADCAST, 1, 1))
  sim.send(0, bytes)
  const pushed = (vid: number): Uint8Array => {
    const made = tagged(vid, bytes)
    made.set([0x88, 0xa8], 12)
    return made
  }
  expect(sim.receive(2)).toEqual([pushed(30), pushed(100)])
})

test('M4: neither frames of the VLAN nor those to protocols of switches are copied', () => {
  using sim = withRspan({ sources: [2, 3] })
  sim.send(2, tagged(100, frame(BROADCAST, 1, 1)))
  sim.send(3, frame(BROADCAST, 2, 2))
  expect([sim.receive(2).length, sim.receive(3).length]).toEqual([1, 1])
  const groups = ['0180c2000000', '0180c200000e', '01000ccccccc', '01000cccccc7', '00e02b000004']
  for (const group of groups) {
    const bytes = frame(BROADCAST, 1, 3)
    bytes.set(Buffer.from(group, 'hex'))
    sim.send(2, bytes)
  }
  expect([sim.receive(2), sim.receive(3)]).toEqual([[], []])
  expect(selected(sim)).toEqual([0, 0])
  const bytes = frame(BROADCAST, 1, 3)
  bytes.set(Buffer.from('01000ccccccb', 'hex'))
  sim.send(2, bytes)
  expect(selected(sim)).toEqual([1, 60])
})

test('M4: nothing is learnt in the VLAN while it is that of copies', () => {
  using sim = new Sim(3)
  const known = (): number => sim.engine.forwarder.macTable.lookup(0x02, 0x0500 | (100 << 16))
  const bytes = tagged(100, frame(BROADCAST, 5))
  sim.send(0, bytes)
  expect(known()).toBe(0)
  sim.engine.forwarder.setMirrors([mirror({ sources: [1], output: -1, outputVlan: 100 })])
  expect(known()).toBe(-1)
  sim.send(0, bytes)
  expect(known()).toBe(-1)
  // In others it is.
  sim.send(0, frame(BROADCAST, 5))
  expect(sim.engine.forwarder.macTable.lookup(0x02, 0x0500)).toBe(0)
  sim.engine.forwarder.setMirrors([])
  sim.send(0, bytes)
  expect(known()).toBe(0)
})

test('M2, M4, M5: several mirrors with the VLAN make one copy, the longest; an output-port has its own', () => {
  using sim = withRspan()
  const into = { output: -1, outputVlan: 100 }
  sim.engine.forwarder.setMirrors([
    mirror({ ...into, sources: [0], snapLength: 20 }),
    mirror({ ...into, number: 1, destinations: [1, 2], snapLength: 40 }),
    mirror({ number: 2, sources: [0], output: 4, snapLength: 30 }),
  ])
  const bytes = frame(BROADCAST, 1, 1)
  sim.send(0, bytes)
  expect(sim.receive(2)).toEqual([tagged(10, bytes), tagged(100, bytes).slice(0, 40)])
  expect(sim.receive(3)).toEqual([bytes.slice(0, 40)])
  expect(sim.receive(4)).toEqual([bytes.slice(0, 30)])
})

test('M3, M4: the output of another mirror has no copies of the VLAN; isolated ports none of each other', () => {
  using sim = new Sim(5)
  const into = { output: -1, outputVlan: 100 }
  sim.engine.forwarder.setMirrors([
    mirror({ ...into, sources: [0] }),
    mirror({ number: 1, sources: [1], output: 4 }),
  ])
  for (const port of [0, 1]) sim.allow(port, { isolated: true })
  const bytes = frame(9, 1, 1)
  sim.send(0, bytes)
  const copy = tagged(100, bytes)
  const received = [0, 1, 2, 3, 4].map((port) => sim.receive(port))
  expect(received).toEqual([[copy], [], [bytes, copy], [bytes, copy], []])
})

test('M4: what passes a link is copied to the ports of the switch', () => {
  using sim = new Sim(4)
  sim.engine.forwarder.wire(0, 1)
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], output: -1, outputVlan: 100 })])
  const frames = [frame(9, 1, 1), tagged(7, frame(9, 1, 2)), tagged(100, frame(9, 1, 3))]
  for (const one of frames) sim.send(0, one)
  expect(sim.receive(1)).toEqual(frames)
  const copies = [tagged(100, frames[0]), tagged(100, frame(9, 1, 2))]
  expect([2, 3].map((port) => sim.receive(port))).toEqual([copies, copies])
})

test('M8: ports of the VLAN that are down or have too small an mtu count what they lose, and nobody else', () => {
  using sim = learnt(5)
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], output: -1, outputVlan: 100 })])
  sim.engine.forwarder.setLink(3, false)
  sim.engine.forwarder.setMtu(4, 100)
  const frames = [1, 2, 3].map((n) => frame(2, 1, n, 200))
  sendAll(sim, 0, frames)
  expect(sim.receive(1)).toEqual([...frames, ...frames.map((one) => tagged(100, one))])
  expect(sim.receive(4)).toEqual([])
  expect([sim.count(3).tx_drop_link_down, sim.count(4).tx_drop_mtu]).toEqual([3, 3])
})
