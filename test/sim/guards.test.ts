/** P4: guards of ports in the whole switch, without any kernel. */
import { expect, test } from 'vitest'
import { BAD_ARP, BAD_MAC } from '../../src/engine/guard-check.ts'
import type { GuardDrops } from '../../src/engine/messages.ts'
import { rarpFrame } from '../../src/wire/rarp.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import {
  arp,
  ether,
  icmp,
  ipv4,
  ipv6,
  MAC,
  octets,
  OTHER_MAC,
  udp,
} from '../support/guard-frames.ts'
import { policy } from '../support/policies.ts'
import { Sim } from '../support/sim.ts'

const GUARD: SwitchingOptions = {
  guard: ['mac', 'arp', 'ipv4', 'ipv6', 'dhcp', 'ra'],
  macs: [MAC],
  ips: ['10.0.0.1', 'fd00::1'],
}

function guarded(onGuardDrops: (drops: readonly GuardDrops[]) => void = () => undefined): Sim {
  const sim = new Sim(0, { onGuardDrops })
  // Before the port is there.
  sim.engine.forwarder.setPolicy(0, policy(GUARD))
  for (const port of [0, 1, 2]) sim.addPort(port)
  return sim
}

test('P4: it is in force before the first frame, and what is refused is not learnt', () => {
  using sim = guarded()
  const spoofed = ether([1], { source: OTHER_MAC, type: 0x88b5 })
  sim.send(0, spoofed)
  expect(sim.receive(1)).toEqual([])
  expect(sim.count(0)).toMatchObject({ rx_frames: 1, rx_drop_guard: 1 })
  const toSpoofed = ether([2], {
    source: '02:00:00:00:00:02',
    destination: OTHER_MAC,
    type: 0x88b5,
  })
  sim.send(1, toSpoofed)
  // Nobody has it.
  expect([sim.receive(0), sim.receive(2)]).toEqual([[toSpoofed], [toSpoofed]])
})

test('P4: of a burst those frames go that may not come, the others stay in their order', () => {
  using sim = guarded()
  const good = [arp(), ipv4(udp(1, 2)), ipv6(icmp(128)), ether([3], { type: 0x88b5 }), arp()]
  const bad = [arp({ sender: '10.0.0.9' }), ipv4(udp(67, 68)), ipv6(icmp(134))]
  const sent = [bad[0], good[0], good[1], bad[1], good[2], bad[2], bad[0], good[3], good[4]]
  for (const bytes of sent) sim.ports[0].send(bytes)
  while (sim.engine.turn(false, 0) > 0);
  expect(sim.receive(1)).toEqual(good)
  expect(sim.count(0).rx_drop_guard).toBe(4)
  expect(sim.count(0).rx_frames).toBe(9)
})

test('P4: a burst of nothing else is dropped whole, and its slots are used again', () => {
  using sim = guarded()
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 100; n++) expect(sim.ports[0].send(arp({ sender: '10.0.0.9' }))).toBe(true)
    while (sim.engine.turn(false, 0) > 0);
  }
  expect(sim.receive(1)).toEqual([])
  expect(sim.count(0).rx_drop_guard).toBe(2000)
})

test('P4: other ports have none, and it goes with the option', () => {
  using sim = guarded()
  const wrong = arp({ source: OTHER_MAC, sender: '10.0.0.9' })
  sim.send(1, wrong)
  expect(sim.receive(0)).toEqual([wrong])
  sim.engine.forwarder.setPolicy(0, policy({}))
  sim.send(0, wrong)
  expect(sim.receive(2)).toContainEqual(wrong)
})

test('P4: a port that is replaced keeps it, and one that is removed does not leave it behind', () => {
  using sim = guarded()
  const port = sim.engine.forwarder.port(0)!
  sim.engine.forwarder.replacePort(port)
  sim.send(0, arp({ sender: '10.0.0.9' }))
  expect(sim.count(0).rx_drop_guard).toBe(1)
  sim.engine.removePort(0)
  sim.addPort(0)
  sim.send(0, arp({ sender: '10.0.0.9' }))
  expect(sim.receive(1)).toHaveLength(1)
})

test('P4: a guest that has moved here is announced', () => {
  using sim = guarded()
  const announcement = rarpFrame(Uint8Array.from(octets(MAC)))
  sim.engine.inject(0, announcement)
  expect(sim.receive(1)).toEqual([announcement])
  expect(sim.count(0).rx_drop_guard).toBe(0)
})

test('P4: M6: what a guard drops is not mirrored', () => {
  using sim = guarded()
  const mirror = {
    number: 0,
    sources: [0],
    destinations: [],
    vlans: null,
    output: 2,
    outputVlan: 0,
    snapLength: 0,
  }
  sim.engine.forwarder.setMirrors([mirror])
  sim.send(0, arp({ sender: '10.0.0.9' }))
  sim.send(0, arp())
  expect(sim.receive(2)).toEqual([arp()])
})

test('P4: a reason is told once until it has been quiet for a minute, with a sender', () => {
  const told: GuardDrops[] = []
  using sim = guarded((drops) => void told.push(...drops))
  const secondOf = (...frames: Uint8Array[]): GuardDrops[] => {
    told.length = 0
    for (const bytes of frames) sim.send(0, bytes)
    sim.wait(1)
    sim.send(1, ether([], { source: '02:00:00:00:00:02', type: 0x88b5 }))
    return [...told]
  }
  const wrong = arp({ sender: '10.0.0.9' })
  const foreign = ether([], { source: OTHER_MAC, type: 0x88b5 })
  secondOf()
  expect(secondOf(wrong, wrong, wrong)).toEqual([
    { port: 0, reason: BAD_ARP, dropped: 3, hi: 0x02, lo: 0x0100 },
  ])
  expect(secondOf(wrong)).toEqual([])
  expect(secondOf(foreign)).toEqual([
    { port: 0, reason: BAD_MAC, dropped: 1, hi: 0x02, lo: 0x6600 },
  ])
  for (let second = 0; second < 59; second++) expect(secondOf()).toEqual([])
  expect(secondOf(wrong).map(({ reason }) => reason)).toEqual([BAD_ARP])
})
