/** Mirrors beside those of Open vSwitch: the same frames into both, what leaves by each port compared. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MirrorDescription } from '../../src/engine/messages.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
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
    const vlansOrAll = vlans.length === 0 ? null : ranges
    return { ...one, number, snapLength, outputVlan: 0, filter: null, vlans: vlansOrAll }
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

const COPIES = 100

/** What a port is to VLANs, in the words of either. */
const MODES: readonly [ours: SwitchingOptions, theirs: readonly string[]][] = [
  [{ 'vlan-mode': 'trunk' }, []],
  [{ tag: 10 }, ['tag=10']],
  [{ tag: COPIES }, [`tag=${COPIES}`]],
  [{ trunks: ['0', '10', '20'] }, ['trunks=0,10,20']],
  [{ trunks: ['10', '100'] }, ['trunks=10,100']],
  [{ tag: 20, 'vlan-mode': 'native-tagged' }, ['tag=20', 'vlan_mode=native-tagged']],
  [{ tag: COPIES, 'vlan-mode': 'native-tagged' }, [`tag=${COPIES}`, 'vlan_mode=native-tagged']],
  [{ tag: 20, 'vlan-mode': 'native-untagged' }, ['tag=20', 'vlan_mode=native-untagged']],
  [{ tag: COPIES, 'vlan-mode': 'native-untagged' }, [`tag=${COPIES}`, 'vlan_mode=native-untagged']],
  [{ tag: 30, 'vlan-mode': 'dot1q-tunnel' }, ['tag=30', 'vlan_mode=dot1q-tunnel']],
  [
    { tag: COPIES, 'vlan-mode': 'dot1q-tunnel', 'qinq-ethtype': '0x8100' },
    [`tag=${COPIES}`, 'vlan_mode=dot1q-tunnel', 'other_config:qinq-ethtype=802.1q'],
  ],
]

/** The same mirrors with VLANs for copies in both switches, whose ports are of these modes. */
function setUpRspan(
  ovs: Ovs,
  sim: Sim,
  modes: readonly number[],
  mirrors: readonly {
    readonly key: 'select_src_port' | 'select_dst_port'
    readonly ports: readonly number[]
    readonly snapLength: number
  }[],
): void {
  ovs.newBridge(Object.fromEntries(modes.map((mode, port) => [`p${port}`, MODES[mode][1]])))
  modes.forEach((mode, port) => sim.allow(port, MODES[mode][0]))
  const uuids = modes.map((_, port) => ovs.vsctl('get', 'port', `p${port}`, '_uuid').trim())
  ovs.vsctl('set', 'bridge', ovs.bridge, `flood_vlans=${COPIES}`, 'other_config:forward-bpdu=true')
  mirrors.forEach(({ key, ports, snapLength }, number) => {
    const values = [
      `name=m${number}`,
      `${key}=[${ports.map((port) => uuids[port]).join(',')}]`,
      `output_vlan=${COPIES}`,
      ...(snapLength === 0 ? [] : [`snaplen=${snapLength}`]),
    ]
    const add = ['add', 'bridge', ovs.bridge, 'mirrors', '@m']
    ovs.vsctl('--id=@m', 'create', 'mirror', ...values, '--', ...add)
  })
  sim.engine.forwarder.setMirrors(
    mirrors.map(({ key, ports, snapLength }, number) => ({
      number,
      sources: key === 'select_src_port' ? ports : [],
      destinations: key === 'select_dst_port' ? ports : [],
      vlans: null,
      output: -1,
      outputVlan: COPIES,
      filter: null,
      snapLength,
    })),
  )
}

/** A frame and its copy leave a port in an order that differs: Open vSwitch gives out copies first. */
async function bothInAnyOrder(ovs: Ovs, sim: Sim, port: number, bytes: Uint8Array): Promise<void> {
  sim.send(port, bytes)
  await ovs.give(`p${port}`, bytes)
  const sorted = (frames: readonly Uint8Array[]): string[] =>
    frames.map((one) => Buffer.from(one).toString('hex')).toSorted()
  const ours = PORTS.map((one) => sorted(sim.receive(one)))
  expect(ours).toEqual(PORTS.map((one) => sorted(ovs.taken(`p${one}`))))
}

/** Tags, outermost first, in front of the type of a frame. */
function withTags(bytes: Uint8Array, tags: readonly (readonly [tpid: number, tci: number])[]) {
  const words = tags.flatMap(([tpid, tci]) => [tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff])
  return Uint8Array.from([...bytes.slice(0, 12), ...words, ...bytes.slice(12)])
}

test('M2, M4, M5: copies into a VLAN are those of Open vSwitch, whatever ports are to VLANs', async () => {
  await using lab = new Lab()
  const ovs = await Ovs.start(lab, 'vlan-limit=2')
  const mode = fc.integer({ min: 0, max: MODES.length - 1 })
  const tag = fc.tuple(
    fc.constantFrom(0x8100, 0x88a8),
    fc.constantFrom(0, 10, 20, COPIES, 0xa00a, 0x6000),
  )
  const sent = fc.record({
    port: fc.constantFrom(...PORTS),
    to: fc.constantFrom(1, 2, 3, 77, BROADCAST),
    tags: fc.array(tag, { maxLength: 2 }),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(mode, { minLength: PORTS.length, maxLength: PORTS.length }),
      // By where frames leave one port at most is selected: of several each switch takes its own first.
      fc.oneof(
        fc.array(
          fc.record({
            key: fc.constant('select_src_port' as const),
            ports: fc.uniqueArray(fc.constantFrom(0, 1, 2), { minLength: 1, maxLength: 3 }),
            snapLength: fc.constant(0),
          }),
          { minLength: 1, maxLength: 2 },
        ),
        fc.tuple(
          fc.record({
            key: fc.constant('select_dst_port' as const),
            ports: fc.tuple(fc.constantFrom(0, 1, 2)),
            snapLength: fc.constantFrom(0, 64),
          }),
        ),
      ),
      fc.array(sent, { minLength: 1, maxLength: 10 }),
      async (modes, mirrors, frames) => {
        using sim = new Sim(PORTS.length)
        setUpRspan(ovs, sim, modes, mirrors)
        let payload = 0
        for (const { port, to, tags } of frames) {
          // See ovs-vlans.test.ts: a tunnel takes one tag off, and priority tags further in go as well.
          const isTunnel = MODES[modes[port]][0]['vlan-mode'] === 'dot1q-tunnel'
          const hasPriorityTag = tags.some(([, tci]) => (tci & 0xfff) === 0)
          if (tags.length > 1 && (isTunnel || hasPriorityTag)) continue
          // To a known address it gives access ports also what has a second tag, which goes as well.
          if (tags.length > 1 && to < 77) continue
          // Where the outer one goes as the frame leaves, the tag inside says its VLAN for mirrors there.
          const isDeep = tags.length + (isTunnel ? 1 : 0) > 1
          if (isDeep && mirrors[0].key === 'select_dst_port') continue
          if (isTunnel && hasPriorityTag) continue
          await bothInAnyOrder(ovs, sim, port, withTags(frame(to, port + 1, payload++, 100), tags))
        }
      },
    ),
    { numRuns: 60, endOnFailure: true },
  )
  await ovs.close()
})

test('M4: frames to protocols of switches are those of Open vSwitch that are not copied', async () => {
  await using lab = new Lab()
  const ovs = await Ovs.start(lab)
  using sim = new Sim(PORTS.length)
  setUpRspan(ovs, sim, [0, 0, 0, 0, 0], [{ key: 'select_src_port', ports: [0], snapLength: 0 }])
  const groups = [
    ...Array.from(
      { length: 18 },
      (_, n) => `0180c20000${(n === 17 ? 0x20 : n).toString(16).padStart(2, '0')}`,
    ),
    ...Array.from({ length: 16 }, (_, n) => `01000cccccc${n.toString(16)}`),
    '01000c000000',
    '01000c000001',
    '01000ccdcdcd',
    '01000ccdcdcc',
    '00e02b000000',
    '00e02b000004',
    '00e02b000006',
    '00e02b000005',
  ]
  for (const group of groups) {
    const bytes = frame(BROADCAST, 1)
    bytes.set(Buffer.from(group, 'hex'))
    await bothInAnyOrder(ovs, sim, 0, bytes)
  }
  await ovs.close()
})
