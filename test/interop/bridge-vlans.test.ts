/**
 * VLANs beside the Linux bridge: the same frames into one with vlan_filtering, in a guest whose kernel has that,
 * and into ours, whose ports have the options that mean the same; and what leaves compared byte by byte.
 */
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { FrameSocket } from '../support/frame-socket.ts'
import { Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { bootGuest } from '../support/qemu.ts'
import { frame, Sim } from '../support/sim.ts'
import type { Tag } from '../support/vlan-frames.ts'
import { S_TAG, tagged } from '../support/vlan-frames.ts'

const BROADCAST = 255
/** Of frames that tell when those before them have passed. */
const FENCE = 0x7000_0000

interface Port {
  readonly options: SwitchingOptions
  /** The same for `bridge vlan add dev ...`. */
  readonly bridge: readonly string[]
  /** Tags by which frames come into each of its VLANs. */
  readonly fences: readonly (readonly Tag[])[]
}

const port = (
  options: SwitchingOptions,
  bridge: readonly string[],
  vids: readonly number[],
): Port => ({
  options,
  bridge,
  fences: vids.map((vid) => (vid === 0 ? [] : [{ vid }])),
})

/** 0 among the VIDs: untagged. */
const PORTS: readonly Port[] = [
  port({ tag: 10 }, ['vid 10 pvid untagged'], [0]),
  port({ tag: 20 }, ['vid 20 pvid untagged'], [0]),
  port({ trunks: [10, '20-21', 4094] }, ['vid 10', 'vid 20-21', 'vid 4094'], [10, 20, 21, 4094]),
  port({ trunks: [1, 21] }, ['vid 1', 'vid 21'], [1, 21]),
  port(
    { 'vlan-mode': 'native-untagged', tag: 10, trunks: [20] },
    ['vid 10 pvid untagged', 'vid 20'],
    [0, 20],
  ),
  port(
    { 'vlan-mode': 'native-tagged', tag: 20, trunks: [10, 21] },
    ['vid 20 pvid', 'vid 10', 'vid 21'],
    [0, 10, 21],
  ),
  port(
    { 'vlan-mode': 'native-untagged', tag: 1, trunks: ['2-4094'] },
    ['vid 1 pvid untagged', 'vid 2-4094'],
    [0, 10, 20, 21, 4094],
  ),
]

const isAccess = ({ options }: Port): boolean =>
  options.tag !== undefined && options['vlan-mode'] === undefined

interface Sent {
  readonly port: number
  readonly tags: readonly Tag[]
  readonly isUnicast: boolean
}

/**
 * The bridge knows tags of 802.1Q alone, takes those of its VLAN by an access port as well, and keeps the DEI of a
 * priority tag, where Open vSwitch and we keep the PCP.
 */
const outer = fc
  .record({
    vid: fc.constantFrom(0, 1, 10, 20, 21, 30, 4094, 4095),
    pcp: fc.constantFrom(0, 0, 5, 7),
    dei: fc.constantFrom(0, 0, 1),
  })
  .filter(({ vid, dei }) => vid !== 0 || dei === 0)
const inner = fc.record({
  tpid: fc.constantFrom(0x8100, S_TAG, 0x9100),
  vid: fc.constantFrom(0, 10, 20, 4095),
  pcp: fc.constantFrom(0, 3),
})
const tags = fc.oneof(
  fc.constant<readonly Tag[]>([]),
  fc.tuple(outer),
  fc.tuple(outer),
  fc.tuple(outer, inner),
)
const sent: fc.Arbitrary<Sent> = fc
  .record({ port: fc.nat(PORTS.length - 1), tags, isUnicast: fc.boolean() })
  .filter(
    ({ port: at, tags: [first] }) => !isAccess(PORTS[at]) || first?.vid !== PORTS[at].options.tag,
  )

const numberOf = (bytes: Uint8Array): number => {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  let at = 12
  while ([0x8100, S_TAG, 0x9100].includes(view.getUint16(at))) at += 4
  return view.getUint32(at + 2)
}

class Pair implements AsyncDisposable {
  readonly lab = new Lab()
  readonly sim = new Sim(PORTS.length)
  readonly sockets: FrameSocket[] = []
  #fences = 0

  static async start(): Promise<Pair> {
    const pair = new Pair()
    try {
      await pair.#start()
      return pair
    } catch (error) {
      await pair[Symbol.asyncDispose]()
      throw error
    }
  }

  async #start(): Promise<void> {
    const paths = PORTS.map((_, at) => join(this.lab.directory, `nic${at}.sock`))
    // The bridge filters, and no NIC in front of it.
    const [first, ...moreNics] = paths.map((socket, at) => ({
      socket,
      mac: `52:54:00:00:01:0${at}`,
      device: 'ctrl_vlan=off,ctrl_rx=off',
      isStream: true as const,
    }))
    const guest = await bootGuest(this.lab, { ...first, moreNics, address: '10.0.0.1/24' })
    await guest.output(
      'ip link add br0 type bridge && cd /sys/class/net/br0/bridge && echo 0 >default_pvid && echo 0 >multicast_snooping && echo 1 >vlan_filtering',
    )
    for (const [at, { options, bridge }] of PORTS.entries()) {
      const all = bridge.map((one) => `bridge vlan add dev eth${at} ${one}`)
      await guest.output(
        [`ip addr flush dev eth${at}`, `ip link set eth${at} master br0 up`, ...all].join(' && '),
      )
      this.sim.allow(at, options)
    }
    await guest.output('ip link set br0 up')
    await until('all ports forward', async () => {
      const state = await guest.output('cat /sys/class/net/br0/brif/*/state')
      return state
        .trim()
        .split(/\s+/)
        .every((one) => one === '3')
    })
    for (const path of paths) this.sockets.push(await FrameSocket.connect(path, 4))
  }

  /** What leaves by each port of frames that come in one after another, in any order. */
  async through(list: readonly Sent[]): Promise<{ ours: string[][]; theirs: string[][] }> {
    const frames = list.map(({ port: at, tags: its, isUnicast }, number) => ({
      at,
      bytes: tagged(frame(isUnicast ? 99 : BROADCAST, at + 1, number), ...its),
    }))
    const fences = PORTS.flatMap((one, at) =>
      one.fences.map((its) => ({
        at,
        bytes: tagged(frame(BROADCAST, at + 1, FENCE + this.#fences++), ...its),
      })),
    )
    for (const { at, bytes } of [...frames, ...fences]) {
      this.sim.send(at, bytes)
      this.sockets[at].send(bytes)
    }
    const ours = PORTS.map((_, at) => this.sim.receive(at))
    const isFence = (bytes: Uint8Array): boolean => numberOf(bytes) >= FENCE
    // Each behind all that came in by the same port.
    await until('the bridge has forwarded', () =>
      ours.every(
        (given, at) =>
          this.sockets[at].frames.filter(isFence).length >= given.filter(isFence).length,
      ),
    )
    const theirs = this.sockets.map((socket) => socket.frames.splice(0))
    const hex = (all: Uint8Array[], at: number): string[] =>
      all
        .filter((one) => isCompared(one, at))
        .map((one) => Buffer.from(one).toString('hex'))
        .toSorted()
    return { ours: ours.map(hex), theirs: theirs.map(hex) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.close()
    this.sim[Symbol.dispose]()
    await this.lab[Symbol.asyncDispose]()
  }
}

/** An access port of ours is given no frame that has another tag inside; the bridge does not look. */
const isCompared = (bytes: Uint8Array, at: number): boolean =>
  !isAccess(PORTS[at]) ||
  [0x88b5].includes(new DataView(bytes.buffer, bytes.byteOffset).getUint16(12))

test('V1, V2, V3, V7: what leaves is what leaves a Linux bridge with vlan_filtering', async () => {
  await using pair = await Pair.start()
  let copies = 0
  await fc.assert(
    fc.asyncProperty(fc.array(sent, { minLength: 60, maxLength: 60 }), async (list) => {
      const { ours, theirs } = await pair.through(list)
      expect(ours).toEqual(theirs)
      copies += ours.flat().length
    }),
    { numRuns: 20 },
  )
  expect(copies).toBeGreaterThan(2000)
})
