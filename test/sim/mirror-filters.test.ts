/** Filters of mirrors in the whole switch; what programs do is test/property/filter.test.ts's. */
import { expect, test } from 'vitest'
import type { Instruction } from '../support/bpf.ts'
import { byteIs, packed } from '../support/bpf.ts'
import { BROADCAST, learnt, mirror, selected, sendAll, tagged } from '../support/mirrors.ts'
import { frame } from '../support/sim.ts'

/** The 16 bits at that place are this. */
const wordIs = (at: number, value: number): Instruction[] => [
  [0x28, 0, 0, at],
  [0x15, 0, 1, value],
  [0x06, 0, 0, 0xffff_ffff],
  [0x06, 0, 0, 0],
]
const ofVlan = (vid: number): Int32Array =>
  packed([
    [0x28, 0, 0, 12],
    [0x15, 0, 4, 0x8100],
    [0x28, 0, 0, 14],
    [0x54, 0, 0, 0xfff],
    [0x15, 0, 1, vid],
    [0x06, 0, 0, 1],
    [0x06, 0, 0, 0],
  ])
/** Of the source's last byte. */
const fromHost = (host: number): Int32Array => byteIs(11, host)

test('M1: filter: what it does not want is neither copied nor counted, and goes where it went', () => {
  using sim = learnt()
  sim.engine.forwarder.setMirrors([mirror({ sources: [0, 1], filter: fromHost(1) })])
  sendAll(sim, 0, [frame(3, 1, 1), frame(3, 9, 2), frame(3, 1, 3), frame(BROADCAST, 9, 4)])
  sim.send(1, frame(3, 2, 5))
  expect(sim.receive(3)).toEqual([frame(3, 1, 1), frame(3, 1, 3)])
  expect(selected(sim)).toEqual([2, 120])
  expect(sim.receive(2)).toHaveLength(5)
})

test('M1, M2: each mirror has a filter of its own, and one without has everything', () => {
  using sim = learnt(5)
  sim.engine.forwarder.setMirrors([
    mirror({ sources: [0], filter: fromHost(1), snapLength: 20 }),
    mirror({ number: 1, destinations: [2], filter: fromHost(9) }),
    mirror({ number: 2, sources: [0], output: 4 }),
    mirror({ number: 30, sources: [0], filter: fromHost(77) }),
  ])
  const frames = [frame(3, 1, 1), frame(3, 9, 2), frame(3, 8, 3)]
  sendAll(sim, 0, frames)
  expect(sim.receive(3)).toEqual([frames[0].slice(0, 20), frames[1]])
  expect(sim.receive(4)).toEqual(frames)
  expect([0, 1, 2, 30].map((number) => selected(sim, number)[0])).toEqual([1, 1, 3, 0])
})

test('M1, M2: it looks at what the copy is: as it came, or with the tags with which it leaves', () => {
  using sim = learnt(5)
  sim.allow(0, { tag: 10 })
  sim.allow(2, { tag: 10 })
  sim.send(2, frame(BROADCAST, 3))
  for (let port = 0; port < 5; port++) sim.receive(port)
  sim.engine.forwarder.setMirrors([
    mirror({ sources: [0], filter: ofVlan(10) }),
    mirror({ number: 1, destinations: [1], output: 4, filter: ofVlan(10) }),
  ])
  sendAll(sim, 0, [frame(BROADCAST, 1, 1), frame(3, 1, 2), frame(BROADCAST, 1, 3)])
  // It came without a tag, and leaves by the trunk with one.
  expect(sim.receive(3)).toEqual([])
  expect(sim.receive(4)).toEqual([1, 3].map((n) => tagged(10, frame(BROADCAST, 1, n))))
  // And the other way round.
  sim.engine.forwarder.setMirrors([
    mirror({ sources: [1], filter: ofVlan(10) }),
    mirror({ number: 1, destinations: [0], output: 4, filter: ofVlan(10) }),
    mirror({ number: 2, destinations: [0], output: 4, filter: packed(wordIs(12, 0x0800)) }),
  ])
  for (let port = 0; port < 5; port++) sim.receive(port)
  const sent = tagged(10, frame(1, 5, 4))
  sim.send(1, sent)
  expect(sim.receive(3)).toEqual([sent])
  const left = sim.receive(0).at(-1)!
  const type = (left[12] << 8) | left[13]
  expect(type).not.toBe(0x8100)
  sim.engine.forwarder.setMirrors([
    mirror({ destinations: [0], output: 4, filter: packed(wordIs(12, type)) }),
  ])
  sim.receive(4)
  sim.send(1, sent)
  expect(sim.receive(4)).toEqual([left])
})

test('M1: a filter sees all of a frame, and none of it behind its end', () => {
  using sim = learnt()
  const long = frame(3, 1, 1)
  const last = long.length - 2
  long.set([0xab, 0xcd], last)
  sim.engine.forwarder.setMirrors([
    mirror({ sources: [0], filter: packed(wordIs(last, 0xabcd)) }),
    mirror({ number: 1, sources: [0], filter: packed(wordIs(last + 1, 0xcd00)) }),
  ])
  sendAll(sim, 0, [long, frame(3, 1, 2)])
  expect(sim.receive(3)).toEqual([long])
  expect([0, 1].map((number) => selected(sim, number)[0])).toEqual([1, 0])
})
