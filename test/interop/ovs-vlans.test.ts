/**
 * VLANs beside Open vSwitch: the same frames into its userspace switch and into ours, whose ports have the same
 * options, and what leaves compared byte by byte.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { OvsSwitch, whyNoOvs } from '../support/ovs-switch.ts'
import { frame, Sim } from '../support/sim.ts'
import type { Tag } from '../support/vlan-frames.ts'
import { tagged } from '../support/vlan-frames.ts'

const BROADCAST = 255

/**
 * Each mode, with what changes it: every pair of them meets. Without priority-tags=always where a tag was taken
 * off, with which Open vSwitch 3.1 leaves none if the priority is zero, and without priority-tags= on native ports,
 * where it gives the tag inside the priority of the one that went.
 */
const PORTS: readonly SwitchingOptions[] = [
  { 'vlan-mode': 'trunk' },
  { 'vlan-mode': 'trunk', 'priority-tags': 'if-nonzero' },
  { 'vlan-mode': 'trunk', 'priority-tags': 'always' },
  { trunks: [0, '10-20', 4094] },
  { trunks: ['1-9', 20, 4095] },
  { tag: 10 },
  { tag: 10, 'priority-tags': 'if-nonzero' },
  { tag: 20, 'priority-tags': 'if-nonzero' },
  { tag: 4094 },
  { 'vlan-mode': 'native-tagged', tag: 10 },
  { 'vlan-mode': 'native-tagged', tag: 10, trunks: [20] },
  { 'vlan-mode': 'native-untagged', tag: 10 },
  { 'vlan-mode': 'native-untagged', tag: 20, trunks: [10, 1] },
  { 'vlan-mode': 'native-untagged', tag: 10, trunks: [0, 20] },
  { 'vlan-mode': 'native-untagged', tag: 1 },
  { 'vlan-mode': 'dot1q-tunnel', tag: 10 },
  { 'vlan-mode': 'dot1q-tunnel', tag: 10, 'qinq-ethtype': '0x8100' },
  { 'vlan-mode': 'dot1q-tunnel', tag: 10, cvlans: [20, '1-3'] },
  { 'vlan-mode': 'dot1q-tunnel', tag: 20, cvlans: [0, 10] },
]

let ovs: OvsSwitch | undefined
let sim: Sim | undefined

beforeAll(async () => {
  if (whyNoOvs() !== undefined) return
  ovs = await OvsSwitch.start(PORTS)
  sim = new Sim(PORTS.length)
  for (const [port, options] of PORTS.entries()) sim.allow(port, options)
})

afterAll(async () => {
  sim?.[Symbol.dispose]()
  await ovs?.[Symbol.asyncDispose]()
})

const tag: fc.Arbitrary<Tag> = fc.record({
  tpid: fc.constantFrom(0x8100, 0x8100, 0x88a8, 0x9100),
  vid: fc.constantFrom(0, 1, 10, 20, 30, 4094, 4095),
  pcp: fc.constantFrom(0, 0, 5, 7),
})
// Open vSwitch takes priority tags off further in as well, and what is inside of one that it takes off.
const tags = fc
  .array(tag, { maxLength: 3 })
  .filter((all) => all.length < 2 || all.every(({ vid }) => vid !== 0))

/** It knows two tags of a frame, so a tunnel takes one off; and ports with priority-tags= take a customer's
 * priority for that of the tunnel. */
function isBeyondOvs(options: SwitchingOptions, all: readonly Tag[]): boolean {
  if (options['vlan-mode'] !== 'dot1q-tunnel') return false
  return all.length > 1 || all.some((one) => one.vid === 0 || one.pcp !== 0)
}

const hex = (frames: readonly Uint8Array[]): string[] =>
  frames.map((one) => Buffer.from(one.subarray(0, 34)).toString('hex'))

/** What leaves by which port of some frames that are tagged alike. */
async function compare(port: number, one: readonly Tag[]): Promise<number> {
  const frames = [1, 2].map((number) => tagged(frame(BROADCAST, 1, number), ...one))
  ovs!.forget()
  const theirs = await ovs!.through(port, frames)
  for (const one of frames) sim!.ports[port].send(one)
  while (sim!.engine.turn(false, 0) > 0);
  const ours = PORTS.map((_, at) => sim!.receive(at))
  expect(ours.map(hex)).toEqual(theirs.map(hex))
  return theirs.reduce((sum, { length }) => sum + length, 0)
}

test.skipIf(whyNoOvs() !== undefined)(
  'V1, V2, V3, V4, V5, V6, V7: what leaves is what leaves Open vSwitch',
  { timeout: 180_000 },
  async () => {
    let copies = 0
    await fc.assert(
      fc.asyncProperty(fc.nat(PORTS.length - 1), tags, async (port, all) => {
        fc.pre(!isBeyondOvs(PORTS[port], all))
        copies += await compare(port, all)
      }),
      { numRuns: 250 },
    )
    expect(copies).toBeGreaterThan(1000)
  },
)
