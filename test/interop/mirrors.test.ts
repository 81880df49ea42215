/** Mirrors beside those of Open vSwitch: the same frames into both, what leaves by each port compared. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MirrorDescription } from '../../src/engine/messages.ts'
import { Lab } from '../support/lab.ts'
import { Ovs } from '../support/ovs.ts'
import { frame, Sim } from '../support/sim.ts'

const BROADCAST = 255
const PORTS = [0, 1, 2, 3, 4]

interface Selected {
  readonly sources: readonly number[]
  readonly destinations: readonly number[]
  readonly output: number
  /** Of these only; none: of all. */
  readonly vlans?: readonly number[]
}

/** Both switches, with the same ports and mirrors; ports 0 to 2 have sent. */
async function setUp(
  ovs: Ovs,
  sim: Sim,
  mirrors: readonly Selected[],
  snapLength: number,
): Promise<void> {
  ovs.newBridge(Object.fromEntries(PORTS.map((port) => [`p${port}`, []])))
  const uuids = PORTS.map((port) => ovs.vsctl('get', 'port', `p${port}`, '_uuid').trim())
  const set = (key: string, ports: readonly number[]): string =>
    `${key}=[${ports.map((port) => uuids[port]).join(',')}]`
  mirrors.forEach(({ sources, destinations, output, vlans = [] }, number) => {
    const values = [
      `name=m${number}`,
      set('select_src_port', sources),
      set('select_dst_port', destinations),
      `output_port=${uuids[output]}`,
      ...(vlans.length === 0 ? [] : [`select_vlan=[${vlans.join(',')}]`]),
      ...(snapLength === 0 ? [] : [`snaplen=${snapLength}`]),
    ]
    const add = ['add', 'bridge', ovs.bridge, 'mirrors', '@m']
    ovs.vsctl('--id=@m', 'create', 'mirror', ...values, '--', ...add)
  })
  const described = mirrors.map(({ vlans = [], ...one }, number): MirrorDescription => {
    const ranges = vlans.map((vid) => [vid, vid] as const)
    return { ...one, number, snapLength, vlans: vlans.length === 0 ? null : ranges }
  })
  sim.engine.forwarder.setMirrors(described)
  for (const port of [0, 1, 2]) await both(ovs, sim, port, frame(BROADCAST, port + 1))
}

/** The frame enters by that port of both, and leaves both by the same ports with the same bytes. */
async function both(ovs: Ovs, sim: Sim, port: number, bytes: Uint8Array): Promise<void> {
  sim.send(port, bytes)
  await ovs.give(`p${port}`, bytes)
  const ours = PORTS.map((one) => sim.receive(one))
  expect(ours).toEqual(PORTS.map((one) => ovs.taken(`p${one}`)))
}

test('M1, M2, M3, M5: copies are those of Open vSwitch, byte for byte', async () => {
  await using lab = new Lab()
  const ovs = await Ovs.start(lab)
  const ports = fc.uniqueArray(fc.constantFrom(0, 1, 2), { maxLength: 3 })
  const sent = fc.record({
    port: fc.constantFrom(...PORTS),
    to: fc.constantFrom(1, 2, 3, 77, BROADCAST),
    length: fc.integer({ min: 60, max: 200 }),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ sources: ports, destinations: ports, output: fc.constantFrom(3, 4) }), {
        minLength: 1,
        maxLength: 3,
      }),
      fc.constantFrom(0, 14, 64, 100),
      fc.array(sent, { minLength: 1, maxLength: 12 }),
      async (mirrors, snapLength, frames) => {
        using sim = new Sim(PORTS.length)
        await setUp(ovs, sim, mirrors, snapLength)
        let payload = 0
        for (const { port, to, length } of frames) {
          await both(ovs, sim, port, frame(to, port + 1, payload++, length))
        }
      },
    ),
    { numRuns: 40, endOnFailure: true },
  )
  await ovs.close()
})

test('M1: with VLANs selected copies are those of Open vSwitch', async () => {
  await using lab = new Lab()
  const ovs = await Ovs.start(lab)
  const ports = fc.uniqueArray(fc.constantFrom(0, 1, 2), { maxLength: 3 })
  const vid = fc.constantFrom(0, 10, 20)
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        sources: ports,
        destinations: ports,
        output: fc.constantFrom(3, 4),
        vlans: fc.uniqueArray(vid, { maxLength: 2 }),
      }),
      fc.array(
        fc.record({ port: fc.constantFrom(0, 1, 2), to: fc.constantFrom(1, 2, 3, BROADCAST), vid }),
        { minLength: 1, maxLength: 12 },
      ),
      async (mirror, frames) => {
        using sim = new Sim(PORTS.length)
        await setUp(ovs, sim, [mirror], 0)
        let payload = 0
        for (const { port, to, vid: tag } of frames) {
          const bytes = frame(to, port + 1, payload++)
          const outer = [0x81, 0, tag >> 8, tag & 0xff]
          const tagged = Uint8Array.from([...bytes.slice(0, 12), ...outer, ...bytes.slice(12)])
          await both(ovs, sim, port, tag === 0 ? bytes : tagged)
        }
      },
    ),
    { numRuns: 30, endOnFailure: true },
  )
  await ovs.close()
})
