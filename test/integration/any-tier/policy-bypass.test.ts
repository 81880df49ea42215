/**
 * A hostile guest on a port that is not allowed everything. Its driver may leave a checksum to others, who write it
 * when the frame leaves: of a frame that was harmless when it was looked at nothing else may come by that.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch, VhostUserOptions } from '../../../src/index.ts'
import { F_PROTOCOL, F_VERSION_1, FrontEnd } from '../../support/front-end.ts'
import {
  arp,
  icmp,
  ip6,
  ipv4,
  ipv6,
  linkOption,
  MAC,
  octets,
  tcp,
  udp,
} from '../../support/guard-frames.ts'
import { IO } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'

const { createSwitch } = (await import('../../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const F_CSUM = 1n
const NEEDS_CSUM = 1
const GUARD = {
  guard: ['mac', 'arp', 'ipv4', 'ipv6', 'dhcp', 'ra'],
  macs: [MAC],
  ips: ['10.0.0.1', 'fd00::1'],
} as const

/** A vnet_hdr: the checksum of what begins at `start` is to be written at `field`. */
function left(start: number, field: number): Uint8Array {
  const header = new Uint8Array(12)
  const view = new DataView(header.buffer)
  view.setUint8(0, NEEDS_CSUM)
  view.setUint16(6, start, true)
  view.setUint16(8, field - start, true)
  return header
}

const withTag = (frame: Uint8Array, tag: string): Uint8Array =>
  Uint8Array.from([...frame.subarray(0, 12), ...octets(tag), ...frame.subarray(12)])

class Bed implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'framepump-bypass-'))
  readonly sw: Switch = createSwitch({ io: IO as 'auto' })
  #guest: FrontEnd | undefined
  #sent = 0
  #received = 0

  /** A port of a hostile guest, and one that has what leaves. */
  static async make(options: Partial<VhostUserOptions>): Promise<Bed> {
    const bed = new Bed()
    const path = join(bed.directory, 'guest.sock')
    await bed.sw.addPort({ type: 'memory', id: 'probe' })
    await bed.sw.addPort({ type: 'vhost-user', id: 'guest', path, ...options })
    bed.#guest = FrontEnd.connect(path)
    await bed.#guest.start(F_VERSION_1 | F_PROTOCOL | F_CSUM)
    return bed
  }

  /** What the others have of frames that the guest sends. */
  async through(frames: readonly (readonly [Uint8Array, Uint8Array?])[]): Promise<Uint8Array[]> {
    for (const [frame, header] of frames) this.#guest!.transmit(frame, header)
    this.#sent += frames.length
    await until('what became of each is known', () => {
      const { tx_frames: given, tx_drop_offload: refused } = this.sw.port('probe').counters
      return given + refused + this.dropped >= this.#sent
    })
    const probe = this.sw.memoryPort('probe')
    const received: Uint8Array[] = []
    await until('the others have it', () => {
      for (let one = probe.receive(); one !== null; one = probe.receive()) received.push(one)
      return this.#received + received.length === this.sw.port('probe').counters.tx_frames
    })
    this.#received += received.length
    return received
  }

  get dropped(): number {
    return this.sw.port('guest').counters.rx_drop_malformed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#guest?.close()
    await this.sw.close()
    rmSync(this.directory, { recursive: true })
  }
}

test('P4: a checksum that is left to others is written to nothing that a guard looked at', async () => {
  await using bed = await Bed.make(GUARD)
  const [plain, echo] = [ipv4(udp(1024, 1025)), ipv4(icmp(8, [1, 2]), { protocol: 1 })]
  const asked = ipv6(icmp(135, [...ip6('fd00::2'), ...linkOption(1)]))
  const [ip, l4, l4Of6] = [14, 34, 54]
  const tries: readonly [Uint8Array, Uint8Array][] = [
    // The sender of ARP, its MAC; the source of IPv4; ports; types of ICMP.
    [arp(), left(ip, ip + 16)],
    [arp(), left(ip, ip + 12)],
    [plain, left(ip, ip + 14)],
    [plain, left(l4, l4)],
    [plain, left(ip, l4 + 2)],
    [withTag(plain, '8100 0005'), left(18, 18 + 14)],
    [ipv4(tcp(), { protocol: 6 }), left(ip, ip + 12)],
    [echo, left(l4, l4)],
    [ipv6(udp(1024, 1025), { protocol: 17 }), left(l4Of6, l4Of6 + 2)],
    [ipv6(udp(1024, 1025), { protocol: 17 }), left(ip, ip + 22)],
    [asked, left(l4Of6, l4Of6 + 26)],
  ]
  expect(await bed.through(tries)).toEqual([])
  // For none of these was anything wrong with the frame itself.
  const frames = tries.map(([frame]) => [frame] as const)
  expect(await bed.through(frames)).toEqual(frames.map(([frame]) => frame))
  expect(bed.dropped).toBe(tries.length)
  const [inner, ports] = [ipv4(tcp(), { protocol: 6 }), tcp()]
  const passed = await bed.through([
    [plain, left(l4, l4 + 6)],
    [ipv4(ports, { protocol: 6 }), left(l4, l4 + 16)],
    // In a tunnel, of IP in IP.
    [ipv4([...inner.subarray(14, 54)], { protocol: 4 }), left(54, 54 + 16)],
  ])
  expect(passed).toHaveLength(3)
})

test.each([
  ['V1, access', { tag: 10 }, '8100 0000'],
  ['V2, trunk', { trunks: [10] }, '8100 000a'],
  ['V4, tunnel', { 'vlan-mode': 'dot1q-tunnel', tag: 10, cvlans: [5] }, '8100 0005'],
] as const)(
  '%s: a checksum that is left to others is not written to a tag',
  async (_, options, tag) => {
    await using bed = await Bed.make(options)
    const frame = withTag(ipv4(udp(1024, 1025)), tag)
    expect(
      await bed.through([
        [frame, left(14, 14)],
        [frame, left(14, 16)],
      ]),
    ).toEqual([])
    expect(bed.sw.port('probe').counters).toMatchObject({ tx_drop_offload: 2 })
    expect(await bed.through([[frame], [frame, left(38, 44)]])).toHaveLength(2)
  },
)
