/** Mirrors in the whole switch with memory ports, without any kernel; see test/support/sim.ts. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BROADCAST, learnt, mirror, selected, sendAll, tagged } from '../support/mirrors.ts'
import { byteIs } from '../support/bpf.ts'
import { policy } from '../support/policies.ts'
import { frame, Sim } from '../support/sim.ts'

test('M1: what enters by a source and what leaves by a destination is copied, nothing else', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], destinations: [1] })])
  sim.send(0, frame(3, 1, 1))
  sim.send(2, frame(2, 3, 2))
  sim.send(1, frame(3, 2, 3))
  sim.send(2, frame(1, 3, 4))
  expect(sim.receive(3)).toEqual([frame(3, 1, 1), frame(2, 3, 2)])
  expect(sim.receive(2)).toEqual([frame(3, 1, 1), frame(3, 2, 3)])
  expect(selected(sim)).toEqual([2, 120])
  expect(sim.count(3)).toMatchObject({ tx_frames: 3 + 2, tx_bytes: 180 + 120 })
})

test('M1: ports on a link can be mirrored', () => {
  using sim = new Sim(4)
  sim.engine.forwarder.wire(0, 1)
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], destinations: [0] })])
  sim.send(0, frame(9, 1, 1))
  sim.send(1, frame(1, 9, 2))
  expect(sim.receive(3)).toEqual([frame(9, 1, 1), frame(1, 9, 2)])
})

test('M1: what goes to no port is copied all the same, for it did enter', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0] })])
  sim.send(0, frame(1, 9, 1))
  expect(sim.count(0).rx_drop_same_port).toBe(1)
  expect(sim.receive(3)).toEqual([frame(1, 9, 1)])
})

test('M2: an output has one copy, selected twice by one mirror or once by several; each counts it', () => {
  using sim = learnt(5)
  sim.engine.forwarder.setMirrors([
    mirror({ sources: [0, 1, 2], destinations: [0, 1, 2] }),
    mirror({ number: 1, destinations: [1, 2] }),
    mirror({ number: 2, sources: [0], output: 4 }),
  ])
  const frames = [frame(2, 1, 1), frame(BROADCAST, 1, 2), frame(3, 1, 3)]
  sendAll(sim, 0, frames)
  expect(sim.receive(3)).toEqual(frames)
  expect(sim.receive(4)).toEqual(frames)
  expect([0, 1, 2].map((number) => selected(sim, number)[0])).toEqual([3, 3, 3])
})

test('M2: copies have the order in which the frames came, whoever selects them', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([
    mirror({ destinations: [2] }),
    mirror({ number: 1, destinations: [1], snapLength: 20 }),
  ])
  const frames = [2, 3, 3, 2, BROADCAST, 2].map((to, n) => frame(to, 1, n))
  sendAll(sim, 0, frames)
  const copies = [0, 3, 5].reduce((all, n) => all.with(n, frames[n].slice(0, 20)), frames)
  expect(sim.receive(3)).toEqual(copies)
})

test('M3: the output takes nothing but copies, and what comes in by it is dropped and not learnt', () => {
  using sim = learnt()
  // It is known at the port before that becomes an output.
  sim.send(3, frame(BROADCAST, 4))
  for (const port of [0, 1, 2]) sim.receive(port)
  sim.engine.forwarder.setMirrors([mirror({ sources: [2] })])
  sim.send(0, frame(4, 1, 1))
  sim.send(0, frame(BROADCAST, 1, 2))
  expect(sim.receive(3)).toEqual([])
  expect(sim.receive(2)).toEqual([frame(4, 1, 1), frame(BROADCAST, 1, 2)])
  sim.receive(1)
  sim.send(3, frame(BROADCAST, 7))
  expect([0, 1, 2].flatMap((port) => sim.receive(port))).toEqual([])
  expect(sim.count(3)).toMatchObject({ rx_drop_mirror_output: 1, rx_drop_link_down: 0 })
  expect(sim.engine.forwarder.macTable.lookup(0x02, 0x0700)).toBe(-1)
})

test('M3: without its mirrors the output is a port of the switch again', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0] })])
  sim.engine.forwarder.setMirrors([])
  sim.send(3, frame(1, 4, 1))
  expect(sim.receive(0)).toEqual([frame(1, 4, 1)])
  sim.send(0, frame(4, 1, 2))
  expect(sim.receive(3)).toEqual([frame(4, 1, 2)])
  expect(selected(sim)).toEqual([0, 0])
})

test('M3: it holds before the first frame of an output that is still to come, and once it has come', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], output: 4 })])
  sim.send(0, frame(2, 1, 1))
  sim.addPort(4)
  sim.send(4, frame(BROADCAST, 9))
  expect([0, 2, 3].flatMap((port) => sim.receive(port))).toEqual([])
  sim.send(0, frame(2, 1, 2))
  expect(sim.receive(4)).toEqual([frame(2, 1, 2)])
  sim.engine.removePort(4)
  sim.send(0, frame(2, 1, 3))
  expect(sim.receive(1)).toEqual([1, 2, 3].map((n) => frame(2, 1, n)))
})

/** Port 0 is an access port of VLAN 10, port 1 a trunk, port 2 an access port of VLAN 20. */
function withVlans(): Sim {
  const sim = new Sim(4)
  const options = [{ tag: 10 }, { trunks: [0, 10, 20] }, { tag: 20 }]
  for (const [port, one] of options.entries()) sim.engine.forwarder.setPolicy(port, policy(one))
  return sim
}

test('M1: only frames of selected VLANs are copied, where they enter and where they leave', () => {
  using sim = withVlans()
  const more = { sources: [0, 1, 2], destinations: [0, 1, 2] }
  sim.engine.forwarder.setMirrors([mirror({ ...more, vlans: [[10, 12]] })])
  const [ten, twenty, none] = [1, 2, 3].map((n) => frame(BROADCAST, 5, n))
  sim.send(0, ten)
  sim.send(2, twenty)
  sim.send(1, none)
  sim.send(1, tagged(20, twenty))
  sim.send(1, tagged(10, ten))
  expect(sim.receive(3)).toEqual([ten, tagged(10, ten)])
  expect(selected(sim)[0]).toBe(2)
})

test('M1: VLANs of a link are what its tags say', () => {
  using sim = new Sim(4)
  sim.engine.forwarder.wire(0, 1)
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], destinations: [0], vlans: [[7, 7]] })])
  const frames = [tagged(7, frame(9, 1, 1)), frame(9, 1, 2), tagged(8, frame(9, 1, 3))]
  for (const bytes of frames) sim.send(0, bytes)
  sim.send(1, tagged(7, frame(1, 9, 4)))
  expect(sim.receive(3)).toEqual([frames[0], tagged(7, frame(1, 9, 4))])
})

test('M2: where it enters a copy has the tags that came, where it leaves those that leave', () => {
  using sim = withVlans()
  const bytes = frame(BROADCAST, 5, 1)
  // By the access port untagged, by the trunk tagged.
  sim.engine.forwarder.setMirrors([mirror({ destinations: [1] })])
  sim.send(0, bytes)
  expect(sim.receive(3)).toEqual([tagged(10, bytes)])
  sim.engine.forwarder.setMirrors([mirror({ destinations: [2] })])
  sim.send(1, tagged(20, bytes))
  expect(sim.receive(3)).toEqual([bytes])
  // Selected as both: as it came.
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], destinations: [1] })])
  sim.send(0, bytes)
  expect(sim.receive(3)).toEqual([bytes])
  // The tags of a copy come before its cut.
  sim.engine.forwarder.setMirrors([mirror({ destinations: [1], snapLength: 20 })])
  sim.send(0, bytes)
  expect(sim.receive(3)).toEqual([tagged(10, bytes).slice(0, 20)])
  sim.receive(1)
  expect(sim.count(3).tx_drop_offload).toBe(0)
})

test('M2: a burst of several VLANs is copied in its order, each frame with the tags of its port', () => {
  using sim = withVlans()
  sim.engine.forwarder.setMirrors([mirror({ destinations: [0, 2] })])
  const frames = [10, 20, 20, 10, 0, 20].map((vid, n) => {
    const bytes = frame(BROADCAST, 5, n)
    return vid === 0 ? bytes : tagged(vid, bytes)
  })
  sendAll(sim, 1, frames)
  const copies = [0, 1, 2, 3, 5].map((n) => frame(BROADCAST, 5, n))
  expect(sim.receive(3).filter((bytes) => bytes[17] !== 4)).toEqual(copies)
})

test('M6: what a port may not send in its VLAN is not copied', () => {
  using sim = withVlans()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0] })])
  sim.send(0, tagged(30, frame(BROADCAST, 5, 1)))
  expect(sim.count(0).rx_drop_vlan).toBe(1)
  expect(sim.receive(3)).toEqual([])
})

test('M5: a copy is cut, and the frame itself is not', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0], snapLength: 64 })])
  const frames = [frame(2, 1, 1, 1514), frame(2, 1, 2, 60), frame(2, 1, 3, 64), frame(2, 1, 4, 65)]
  sendAll(sim, 0, frames)
  expect(sim.receive(1)).toEqual(frames)
  expect(sim.receive(3)).toEqual(frames.map((one) => one.slice(0, 64)))
  expect(selected(sim)).toEqual([4, 1514 + 60 + 64 + 65])
})

test('M6: what is dropped before it is switched is not copied', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0] })])
  const group = frame(2, 1)
  group[6] = 1
  sim.send(0, group)
  sim.engine.forwarder.setLink(0, false)
  sim.send(0, frame(2, 1))
  expect(sim.count(0)).toMatchObject({ rx_drop_source: 1, rx_drop_link_down: 1 })
  expect(sim.receive(3)).toEqual([])
  expect(selected(sim)).toEqual([0, 0])
})

test('M8: an output that is full, down, held or has too small an mtu drops, and nobody else', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0] })])
  const send = (count: number): void => {
    sendAll(
      sim,
      0,
      Array.from({ length: count }, (_, n) => frame(2, 1, n, 200)),
    )
    expect(sim.receive(1)).toHaveLength(count)
  }
  const dropped = (): number[] => {
    const { tx_drop_full, tx_drop_link_down, tx_drop_mtu } = sim.count(3)
    return [tx_drop_full, tx_drop_link_down, tx_drop_mtu]
  }
  while (sim.count(3).tx_drop_full === 0) send(100)
  const [full] = dropped()
  sim.engine.forwarder.setLink(3, false)
  send(3)
  expect(dropped()).toEqual([full, 3, 0])
  sim.engine.forwarder.setLink(3, true)
  sim.engine.hold([3])
  send(2)
  expect(dropped()).toEqual([full, 5, 0])
  sim.engine.release([3])
  sim.engine.forwarder.setMtu(3, 100)
  send(4)
  expect(dropped()).toEqual([full, 5, 4])
})

test('M1-M3, M5: any mirrors select what a model of them selects, in the order of arrival', () => {
  const port = fc.integer({ min: 0, max: 3 })
  const ports = fc.uniqueArray(port, { maxLength: 4 })
  const arbitraryMirror = fc.record({
    sources: ports,
    destinations: ports,
    output: fc.constantFrom(4, 5, 6),
    snapLength: fc.constantFrom(0, 14, 30, 100),
    /** Frames to this one only; 0: all. */
    to: fc.constantFrom(0, 0, 2, 3, BROADCAST),
  })
  const arbitraryBurst = fc.record({
    from: port,
    frames: fc.array(
      fc.record({ to: fc.constantFrom(0, 1, 2, 3, 9), length: fc.integer({ min: 60, max: 300 }) }),
      { minLength: 1, maxLength: 20 },
    ),
  })
  fc.assert(
    fc.property(
      fc.array(arbitraryMirror, { maxLength: 5 }),
      fc.array(arbitraryBurst, { maxLength: 8 }),
      (mirrors, bursts) => {
        using sim = new Sim(7)
        const described = mirrors.map(({ to, ...one }, number) => ({
          ...one,
          number,
          vlans: null,
          outputVlan: 0,
          filter: to === 0 ? null : byteIs(5, to),
        }))
        for (const at of [0, 1, 2, 3]) sim.send(at, frame(BROADCAST, at + 1))
        for (let at = 0; at < 7; at++) sim.receive(at)
        sim.engine.forwarder.setMirrors(described)
        const expected = new Map([4, 5, 6].map((at): [number, Uint8Array[]] => [at, []]))
        const outputs = new Set<number>(mirrors.map(({ output }) => output))
        let payload = 0
        for (const { from, frames } of bursts) {
          const sent = frames.map(({ to, length }) => {
            const bytes = frame(to === 9 ? BROADCAST : to + 1, from + 1, payload++, length)
            const leaves = to === 9 ? [0, 1, 2, 3, 4, 5, 6].filter((at) => at !== from) : [to]
            const isFor = (at: number): boolean => at !== from && leaves.includes(at)
            for (const output of [4, 5, 6]) {
              if (!outputs.has(output)) {
                if (to === 9) expected.get(output)!.push(bytes)
                continue
              }
              const lengths = mirrors
                .filter((one) => one.output === output && [0, bytes[5]].includes(one.to))
                .filter((one) => one.sources.includes(from) || one.destinations.some(isFor))
                .map(({ snapLength }) => (snapLength === 0 ? length : snapLength))
              if (lengths.length > 0) {
                expected.get(output)!.push(bytes.slice(0, Math.max(...lengths)))
              }
            }
            return bytes
          })
          sendAll(sim, from, sent)
        }
        for (const [output, frames] of expected) expect(sim.receive(output)).toEqual(frames)
      },
    ),
    { numRuns: 100 },
  )
})
