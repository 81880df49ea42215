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
import type { Burst } from '../../src/mem/burst.ts'
import { Window } from '../../src/mem/window.ts'
import type { EnginePort, PolledPort } from '../../src/port/contract.ts'
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
    filter: null,
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

/** A port that passes nothing on and, when it is given frames, writes to the memory of the sender. */
class Spoiler implements EnginePort {
  readonly index: number
  readonly txOffloads = 0
  readonly #spoil: () => void

  constructor(index: number, spoil: () => void) {
    this.index = index
    this.#spoil = spoil
  }

  transmit(): void {
    this.#spoil()
  }
  endTurn(): void {}
  close(): void {}
}

/** Frames of a guest that lie in its memory until they are given back. */
class GuestSender implements PolledPort {
  readonly index = 0
  readonly isGuest = true
  readonly rxQueues = 1
  readonly rxQueue = 0
  readonly txOffloads = 0
  readonly memory: Window = Window.map(1 << 16)
  readonly bytes: Uint8Array = new Uint8Array(this.memory.buffer)
  frames: readonly Uint8Array[] = []

  receive(burst: Burst): number {
    burst.clear()
    this.frames.forEach((frame, k) => {
      this.bytes.set(frame, 2048 * k)
      burst.window[k] = this.memory.id
      burst.offset[k] = 2048 * k
      burst.length[k] = frame.length
      burst.headLength[k] = 0
    })
    burst.count = this.frames.length
    burst.descriptors = burst.count
    burst.gatherHeads()
    this.frames = []
    return burst.count
  }
  release(): void {}
  waitUs(): number {
    return -1
  }
  transmit(): void {}
  endTurn(): void {}
  close(): void {
    this.memory.unmap()
  }
}

const STICKY: SwitchingOptions = { sticky: true }

test.each<
  readonly [
    what: string,
    SwitchingOptions,
    looked: number,
    ipOptions: number,
    others: SwitchingOptions,
  ]
>([
  ['P4: guards', GUARD, 64, 0, {}],
  ['P4: guards that look further', GUARD, 256, 2, {}],
  ['P4: the guard of the source', { guard: ['mac'], macs: [MAC] }, 64, 0, {}],
  ['V1: the tag of an access port', { tag: 10 }, 16, 0, {}],
  ['P7: the group addresses that pass', { 'group-addresses': '802.1D' }, 16, 0, {}],
  ['P3: the sender of a locked port', { locked: true, macs: [MAC] }, 16, 0, {}],
  ['F4: a sender within the limit', { 'mac-limit': 1, 'mac-limit-action': 'drop' }, 16, 0, {}],
  ['F5: a sender that is none of a sticky port', {}, 16, 0, STICKY],
])(
  '%s: a guest that writes to its frames meanwhile sends what was looked at',
  (_what, options, looked, ipOptions, others) => {
    const sim = new Sim(0)
    const guest = new GuestSender()
    sim.engine.forwarder.setPolicy(0, policy(options))
    sim.engine.addPort(guest, 0)
    // It has frames before the others do.
    sim.engine.addPort(
      new Spoiler(1, () => {
        for (const at of [0, 2048, 4096]) guest.bytes.fill(0xee, at, at + looked)
      }),
      0,
    )
    sim.addPort(2)
    sim.engine.forwarder.setPolicy(2, policy('tag' in options ? { tag: 10 } : others))
    sim.engine.forwarder.setPolicy(1, policy('tag' in options ? { tag: 10 } : {}))
    if (options.locked === true) sim.engine.forwarder.macTable.addStatic(0x0002, 0x0100, 0)
    const sent = [
      arp(),
      ipv4([...udp(1, 2), ...Array.from({ length: 900 }, (_, n) => n & 0xff)], {
        options: ipOptions,
      }),
      ether([1, 2, 3], { type: 0x88b5 }),
    ]
    guest.frames = sent
    while (sim.engine.turn(false, 0) > 0);
    expect(guest.bytes.subarray(0, looked).every((byte) => byte === 0xee)).toBe(true)
    expect(sim.receive(2)).toEqual(sent)
    sim[Symbol.dispose]()
  },
)
