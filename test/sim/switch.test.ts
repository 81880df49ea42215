/** The whole switch with memory ports and a clock of its own; see test/support/sim.ts. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MemoryEnginePort } from '../../src/port/memory/engine.ts'
import { ENGINE_LOOP_SECONDS } from '../../src/engine/cells.ts'
import type { MovingAddress } from '../../src/engine/messages.ts'
import { frame, Sim } from '../support/sim.ts'

const BROADCAST = 255

test('floods what it does not know and never back to the in-port, then learns', () => {
  using sim = new Sim(3)
  sim.send(0, frame(2, 1, 7))
  expect(sim.receive(0)).toEqual([])
  expect(sim.receive(1)).toEqual([frame(2, 1, 7)])
  expect(sim.receive(2)).toEqual([frame(2, 1, 7)])
  sim.send(1, frame(1, 2))
  expect(sim.receive(0)).toHaveLength(1)
  expect(sim.receive(2)).toEqual([])
  sim.send(0, frame(2, 1))
  expect(sim.receive(2)).toEqual([])
  expect(sim.receive(1)).toHaveLength(1)
})

test('a port is removed while another one never falls silent', () => {
  using sim = new Sim(3)
  const talker = sim.engine.forwarder.port(0) as MemoryEnginePort
  const receive = talker.receive.bind(talker)
  talker.receive = (burst) => {
    sim.ports[0].send(frame(BROADCAST, 1))
    return receive(burst)
  }
  sim.engine.removePort(2)
  expect(sim.engine.forwarder.port(2)).toBeNull()
  expect(sim.receive(1).length).toBeGreaterThan(0)
})

test('what enters by held ports waits, and nothing reaches them', () => {
  using sim = new Sim(4)
  sim.send(1, frame(BROADCAST, 2))
  for (const port of [0, 2, 3]) sim.receive(port)
  sim.engine.hold([0, 1])
  sim.send(0, frame(BROADCAST, 1, 7))
  // As the announcement of a guest that has moved here.
  sim.engine.inject(0, frame(BROADCAST, 5, 8))
  // The held port's address is not known any more, and a flood leaves it out.
  sim.send(2, frame(2, 3, 9))
  expect([1, 2].flatMap((port) => sim.receive(port))).toEqual([])
  expect(sim.receive(3)).toEqual([frame(2, 3, 9)])
  sim.engine.forwarder.wire(0, 1)
  expect(sim.engine.release([0, 1])).toEqual([])
  while (sim.engine.turn(false, 0) > 0);
  expect(sim.receive(1)).toEqual([frame(BROADCAST, 5, 8), frame(BROADCAST, 1, 7)])
  expect([2, 3].flatMap((port) => sim.receive(port))).toEqual([])
})

test('a held port keeps its link state, and its number none of what held it', () => {
  using sim = new Sim(2)
  sim.engine.hold([1])
  sim.engine.forwarder.setLink(1, false)
  sim.engine.release([1])
  sim.send(0, frame(BROADCAST, 1))
  expect(sim.receive(1)).toEqual([])
  expect(sim.count(1).tx_drop_link_down).toBe(1)
  sim.engine.hold([1])
  sim.engine.forwarder.setLink(1, true)
  sim.send(0, frame(BROADCAST, 1))
  expect(sim.receive(1)).toEqual([])
  sim.engine.removePort(1)
  sim.addPort(1)
  sim.send(0, frame(BROADCAST, 1))
  expect(sim.receive(1)).toHaveLength(1)
})

test('a moved address is followed and counted', () => {
  using sim = new Sim(3)
  sim.send(0, frame(BROADCAST, 1))
  sim.send(2, frame(BROADCAST, 1))
  for (const port of [0, 1, 2]) sim.receive(port)
  sim.send(1, frame(1, 2))
  expect(sim.receive(0)).toEqual([])
  expect(sim.receive(2)).toHaveLength(1)
  expect(sim.engine.forwarder.macTable.moves).toBe(1)
})

test('an address that keeps moving is told once a second; many that move once are not', () => {
  const told: (readonly MovingAddress[])[] = []
  using sim = new Sim(3, { onLoops: (loops) => void told.push(loops) })
  const look = (): void => {
    sim.wait(1)
    sim.send(0, frame(BROADCAST, 250))
    for (const port of [0, 1, 2]) sim.receive(port)
  }
  for (const port of [1, 2]) {
    for (let source = 1; source <= 200; source++) sim.send(port, frame(BROADCAST, source))
    for (const other of [0, 1, 2]) sim.receive(other)
  }
  look()
  expect(sim.engine.forwarder.macTable.moves).toBe(200)
  expect([told, sim.engineCounters[ENGINE_LOOP_SECONDS]]).toEqual([[], 0])
  for (let second = 1; second <= 3; second++) {
    for (let k = 0; k < 100; k++) sim.send(1 + (k & 1), frame(1, 7))
    look()
    expect(told).toHaveLength(second)
    expect(sim.engineCounters[ENGINE_LOOP_SECONDS]).toBe(second)
  }
  expect(told[1]).toMatchObject([{ hi: 2, lo: 7 << 8, ports: [1, 2], moves: 95 }])
  look()
  expect(told).toHaveLength(3)
})

test('an address ages out: its frames flood again', () => {
  using sim = new Sim(3, { macAgingS: 10 })
  sim.send(0, frame(BROADCAST, 1))
  sim.wait(12)
  sim.send(1, frame(BROADCAST, 2))
  sim.wait(1)
  for (const port of [0, 1, 2]) sim.receive(port)
  sim.send(1, frame(1, 2))
  expect(sim.receive(2)).toHaveLength(1)
})

test('a full table counts, and learns in the place of an old one', () => {
  using sim = new Sim(2, { macTableSize: 16 })
  for (let source = 1; source <= 40; source++) sim.send(0, frame(BROADCAST, source))
  expect(sim.engine.forwarder.macTable.entries).toBe(16)
  expect(sim.engine.forwarder.macTable.full).toBe(24)
  sim.receive(1)
  sim.send(1, frame(40, 99))
  expect(sim.receive(0)).toHaveLength(1)
  // A station that comes late is known all the same.
  sim.send(0, frame(99, 40))
  expect(sim.receive(1)).toHaveLength(1)
  expect(sim.engine.forwarder.macTable.lookup(2, 99 << 8)).toBe(1)
})

test('a frame for its own port is dropped, one without other ports too, each with its reason', () => {
  using sim = new Sim(1)
  sim.send(0, frame(BROADCAST, 1))
  expect(sim.count(0).rx_drop_no_port).toBe(1)
  sim.send(0, frame(1, 2))
  expect(sim.count(0).rx_drop_same_port).toBe(1)
})

test('a receiver that never reads loses frames, counted, and nobody else does', () => {
  using sim = new Sim(3)
  for (let n = 0; n < 300; n++) {
    sim.send(0, frame(BROADCAST, 1, n))
    sim.receive(2)
  }
  expect(sim.count(1).tx_drop_full).toBe(300 - 256)
  expect(sim.count(2).tx_drop_full).toBe(0)
  expect(sim.receive(1)).toHaveLength(256)
})

test('links are queue to queue and apart from the switch', () => {
  using sim = new Sim(4)
  sim.engine.forwarder.wire(0, 1)
  sim.send(0, frame(BROADCAST, 1))
  sim.send(2, frame(BROADCAST, 2))
  expect(sim.receive(1)).toEqual([frame(BROADCAST, 1)])
  expect(sim.receive(3)).toEqual([frame(BROADCAST, 2)])
  expect(sim.receive(0)).toEqual([])
  expect(sim.engine.forwarder.macTable.lookup(2, 0x0100)).toBe(-1)
})

test('the mtu of a port limits frames that leave by it', () => {
  using sim = new Sim(1)
  sim.addPort(1, 100)
  sim.send(0, frame(BROADCAST, 1, 0, 122))
  sim.send(0, frame(BROADCAST, 1, 0, 123))
  expect(sim.receive(1)).toHaveLength(1)
  expect(sim.count(1).tx_drop_mtu).toBe(1)
})

test('a port that goes is forgotten: its addresses flood, its number can be used again', () => {
  using sim = new Sim(3)
  sim.send(0, frame(BROADCAST, 1))
  sim.engine.removePort(0)
  sim.ports[0].close()
  sim.addPort(0)
  for (const port of [1, 2]) sim.receive(port)
  sim.send(1, frame(1, 2))
  expect(sim.receive(0)).toHaveLength(1)
  expect(sim.receive(2)).toHaveLength(1)
})

test('a port that fails while its link is down is told of, once', () => {
  const failed: unknown[] = []
  using sim = new Sim(2, { onPortFailed: (...args) => void failed.push(args) })
  const gone = { what: 'interface-deleted', errno: 77 } as const
  const { engine } = sim
  engine.forwarder.setLink(0, false)
  engine.portFailed(0, gone)
  expect(failed).toEqual([[0, gone]])
  // Also when its link was set up again by somebody who did not know.
  engine.forwarder.setLink(0, true)
  engine.portFailed(0, gone)
  expect(failed).toHaveLength(1)
  sim.send(0, frame(BROADCAST, 1))
  expect(sim.receive(1)).toEqual([])
  // The next one with its number is another port.
  engine.removePort(0)
  sim.ports[0].close()
  sim.addPort(0)
  engine.portFailed(0, { ...gone, errno: 5 })
  expect(failed).toHaveLength(2)
})

test('any traffic is delivered as a learning bridge would, in order', () => {
  const PORTS = 5
  const traffic = fc.array(
    fc.record({
      port: fc.integer({ min: 0, max: PORTS - 1 }),
      source: fc.integer({ min: 1, max: 9 }),
      destination: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(BROADCAST)),
    }),
    { maxLength: 60 },
  )
  fc.assert(
    fc.property(traffic, (sends) => {
      using sim = new Sim(PORTS)
      const known = new Map<number, number>()
      const expected: number[][] = Array.from({ length: PORTS }, () => [])
      sends.forEach(({ port, source, destination }, n) => {
        sim.send(port, frame(destination, source, n))
        known.set(source, port)
        const to = known.get(destination)
        for (let other = 0; other < PORTS; other++) {
          if (other !== port && (to === undefined || to === other)) expected[other].push(n)
        }
      })
      const got = expected.map((_, port) =>
        sim.receive(port).map((bytes) => new DataView(bytes.buffer).getUint32(14)),
      )
      expect(got).toEqual(expected)
    }),
  )
})
