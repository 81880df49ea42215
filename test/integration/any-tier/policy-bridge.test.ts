/**
 * Policy of ports beside that of the kernel's bridge, F and P: the same frames into both go to the same ports, by
 * the names of the kernel's selftests (net/forwarding) and generated. Otherwise than the bridge we keep a static
 * entry where it is, as the bridge does with those that are sticky.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { addStaticMacs } from '../../../src/engine/static-macs.ts'
import { staticMac } from '../../../src/switch/policy.ts'
import { KernelBridge } from '../../support/kernel-bridge.ts'
import { Lab } from '../../support/lab.ts'
import { frame, Sim } from '../../support/sim.ts'

const PORTS = 4
/** Ports of the bridge alone. */
const FENCE = { from: PORTS, to: [PORTS + 1] }
/** Last octets of addresses. */
const BROADCAST = 255
const UNKNOWN = 200

/** Ours, and those of `bridge link set`. */
const WORDS = {
  isolated: 'isolated',
  flood: 'flood',
  'mcast-flood': 'mcast_flood',
  'bcast-flood': 'bcast_flood',
  hairpin: 'hairpin',
  learning: 'learning',
  locked: 'locked',
} as const
type Options = Partial<Record<keyof typeof WORDS, boolean>>
const USUAL: Required<Options> = {
  isolated: false,
  flood: true,
  'mcast-flood': true,
  'bcast-flood': true,
  hairpin: false,
  learning: true,
  locked: false,
}

const macOf = (last: number): string => `02:00:00:00:00:${last.toString(16).padStart(2, '0')}`
const toGroup = (source: number): Uint8Array =>
  frame(BROADCAST, source).fill(0, 0, 6).fill(1, 0, 1).fill(7, 5, 6)

class Pair implements Disposable {
  readonly bridge: KernelBridge
  sim = new Sim(PORTS)

  constructor(lab: Lab) {
    this.bridge = new KernelBridge(lab, PORTS + 2, ['mcast_snooping', '0'])
  }

  /** Neither knows anything. */
  clear(): void {
    this.sim[Symbol.dispose]()
    this.sim = new Sim(PORTS)
    this.bridge.forget()
  }

  set(port: number, options: Options): void {
    this.sim.allow(port, options)
    const all = Object.entries({ ...USUAL, ...options })
    const words = all.flatMap(([key, is]) => [WORDS[key as keyof Options], is ? 'on' : 'off'])
    this.bridge.set(port, ...words)
  }

  addEntry(port: number, last: number): void {
    addStaticMacs(this.sim.engine.forwarder.macTable, port, [staticMac(macOf(last), 0)])
    this.bridge.addEntry(port, macOf(last), 'static', 'sticky')
  }

  /** The ports that were given it, by both. */
  async same(port: number, sent: Uint8Array): Promise<number[]> {
    this.sim.send(port, sent)
    const ours = this.sim.ports.flatMap((_, at) => this.sim.receive(at).map(() => at))
    const theirs = await this.bridge.send(port, sent, FENCE)
    const given = theirs.slice(0, PORTS).flatMap((frames, at) => frames.map(() => at))
    expect({ port, sent: Buffer.from(sent.subarray(0, 14)).toString('hex'), ours }).toEqual({
      port,
      sent: Buffer.from(sent.subarray(0, 14)).toString('hex'),
      ours: given,
    })
    return ours
  }

  [Symbol.dispose](): void {
    this.sim[Symbol.dispose]()
    this.bridge[Symbol.dispose]()
  }
}

test('F1, F3, P2: bridge_vlan_unaware: learning, and floods of unicast and multicast', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  expect(await pair.same(0, frame(UNKNOWN, 1))).toEqual([1, 2, 3])
  expect(await pair.same(1, frame(1, 2))).toEqual([0])
  expect(await pair.same(0, frame(2, 1))).toEqual([1])
  expect(await pair.same(0, frame(1, 1))).toEqual([])
  // It moves with its sender.
  expect(await pair.same(2, frame(2, 1))).toEqual([1])
  expect(await pair.same(1, frame(1, 2))).toEqual([2])
  pair.set(3, { learning: false })
  await pair.same(3, frame(BROADCAST, 4))
  expect(await pair.same(0, frame(4, 3))).toEqual([1, 2, 3])
  pair.set(1, { flood: false })
  expect(await pair.same(0, frame(UNKNOWN, 3))).toEqual([2, 3])
  expect(await pair.same(0, toGroup(3))).toEqual([1, 2, 3])
  pair.set(1, { 'mcast-flood': false })
  expect(await pair.same(0, toGroup(3))).toEqual([2, 3])
  expect(await pair.same(0, frame(BROADCAST, 3))).toEqual([1, 2, 3])
  pair.set(1, { 'bcast-flood': false })
  expect(await pair.same(0, frame(BROADCAST, 3))).toEqual([2, 3])
  expect(await pair.same(0, frame(2, 3))).toEqual([1])
})

test('P1: bridge_port_isolation: isolated ports meet others, and not one another', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  for (const port of [0, 1]) pair.set(port, { isolated: true })
  for (const port of [0, 1, 2]) await pair.same(port, frame(BROADCAST, port + 1))
  expect(await pair.same(0, frame(2, 1))).toEqual([])
  expect(await pair.same(0, frame(UNKNOWN, 1))).toEqual([2, 3])
  expect(await pair.same(0, toGroup(1))).toEqual([2, 3])
  expect(await pair.same(0, frame(3, 1))).toEqual([2])
  expect(await pair.same(2, frame(1, 3))).toEqual([0])
  pair.set(0, { isolated: true, hairpin: true })
  expect(await pair.same(0, frame(BROADCAST, 1))).toEqual([2, 3])
})

test('F2: bridge_sticky_fdb: a static entry stays, whoever sends with its address', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  pair.addEntry(0, 1)
  expect(await pair.same(1, frame(UNKNOWN, 1))).toEqual([0, 2, 3])
  expect(await pair.same(2, frame(1, 3))).toEqual([0])
})

test('P3: bridge_locked_port: senders without an entry pass nothing, whatever they send', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  await pair.same(1, frame(BROADCAST, 2))
  pair.set(0, { locked: true })
  for (const sent of [frame(BROADCAST, 1), frame(2, 1), frame(UNKNOWN, 1), toGroup(1)]) {
    expect(await pair.same(0, sent)).toEqual([])
  }
  // Nothing was learnt of it.
  expect(await pair.same(1, frame(1, 2))).toEqual([0, 2, 3])
  pair.addEntry(0, 1)
  expect(await pair.same(0, frame(2, 1))).toEqual([1])
  expect(await pair.same(1, frame(1, 2))).toEqual([0])
  // An entry of another port is none of its own.
  pair.addEntry(2, 9)
  expect(await pair.same(0, frame(BROADCAST, 9))).toEqual([])
  expect(await pair.same(0, frame(BROADCAST, 2))).toEqual([])
  expect(await pair.same(1, frame(BROADCAST, 1))).toEqual([0, 2, 3])
  pair.set(0, {})
  expect(await pair.same(0, frame(2, 5))).toEqual([1])
})

test('P6: a port with hairpin is given its own, known or flooded', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  pair.set(0, { hairpin: true })
  expect(await pair.same(0, frame(BROADCAST, 1))).toEqual([0, 1, 2, 3])
  expect(await pair.same(0, frame(1, 2))).toEqual([0])
  pair.set(0, { hairpin: true, flood: false })
  expect(await pair.same(0, frame(UNKNOWN, 2))).toEqual([1, 2, 3])
})

test('what is no sender passes neither', async () => {
  await using lab = new Lab()
  using pair = new Pair(lab)
  const zero = frame(BROADCAST, 0).fill(0, 6, 12)
  const group = frame(BROADCAST, 1).fill(3, 6, 7)
  for (const sent of [zero, group]) expect(await pair.same(0, sent)).toEqual([])
})

const options: fc.Arbitrary<Options> = fc.record(
  Object.fromEntries(Object.keys(WORDS).map((key) => [key, fc.boolean()])),
  { requiredKeys: [] },
)
const sent = fc.record({
  port: fc.nat(PORTS - 1),
  source: fc.integer({ min: 1, max: 5 }),
  to: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(BROADCAST, UNKNOWN, 'group')),
})

test(
  'F1, F3, P1, P2, P3, P6: whatever the options of ports are, frames go where the bridge gives them',
  { timeout: 120_000 },
  async () => {
    await using lab = new Lab()
    using pair = new Pair(lab)
    await fc.assert(
      fc.asyncProperty(
        fc.array(options, { minLength: PORTS, maxLength: PORTS }),
        fc.array(sent, { minLength: 20, maxLength: 40 }),
        async (all, frames) => {
          pair.clear()
          for (const [port, its] of all.entries()) pair.set(port, its)
          for (const { port, source, to } of frames) {
            await pair.same(port, to === 'group' ? toGroup(source) : frame(to as number, source))
          }
        },
      ),
      { numRuns: 25 },
    )
  },
)
