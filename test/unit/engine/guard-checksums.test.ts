/** P4: where in a frame of a guarded port a checksum may be that its sender leaves to others. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { checkFrame, PASSES } from '../../../src/engine/guard-check.ts'
import { firstPlace } from '../../../src/engine/guard-checksums.ts'
import { GuardRules } from '../../../src/engine/guard-rules.ts'
import {
  arp,
  ether,
  extension,
  fragmentHeader,
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

const RULES = new GuardRules({
  checks: ['mac', 'arp', 'ipv4', 'ipv6', 'dhcp', 'ra'],
  macs: [octets(MAC)],
  ipv4: [[0x0a00_0001, -1]],
  ipv6: [[0xfd00_0000 | 0, 0, 0, 1, -1, -1, -1, -1]],
})
const TAG = '8100 0005'
const QINQ = '88a8 0064 8100 0005'
const inIpv6 = { protocol: 17 }

/** What passes, and where its checksum is; none: nobody leaves it to others. */
const FRAMES: Readonly<Record<string, readonly [Uint8Array, number?]>> = {
  'TCP in IPv4': [ipv4(tcp(), { protocol: 6 }), 34 + 16],
  'UDP in IPv4': [ipv4(udp(1024, 1025)), 34 + 6],
  'UDP behind options': [ipv4(udp(1024, 1025), { options: 3 }), 46 + 6],
  'UDP behind a tag': [ipv4(udp(1024, 1025), { before: TAG }), 38 + 6],
  'UDP behind two tags': [ipv4(udp(1024, 1025), { before: QINQ }), 42 + 6],
  DHCP: [ipv4(udp(68, 67), { from: '0.0.0.0', to: '255.255.255.255' }), 34 + 6],
  'TCP in IP in IP': [
    ipv4([...ipv4(tcp(), { protocol: 6 }).subarray(14, 54)], { protocol: 4 }),
    70,
  ],
  'VXLAN with TCP': [
    ipv4([...udp(1024, 4789, 8), ...ipv4(tcp(), { protocol: 6 }).subarray(0, 54)]),
    34 + 16 + 34 + 16,
  ],
  'TCP in IPv6': [ipv6(tcp(), { protocol: 6 }), 54 + 16],
  'UDP in IPv6': [ipv6(udp(1024, 1025), inIpv6), 54 + 6],
  'UDP behind extensions': [
    ipv6([...extension(60), ...extension(17, 2), ...udp(1024, 1025)], { protocol: 0 }),
    54 + 8 + 24 + 6,
  ],
  'a fragment of UDP': [
    ipv6([...fragmentHeader(17), ...udp(1024, 1025)], { protocol: 44 }),
    54 + 8 + 6,
  ],
  MPLS: [ether([0, 1, 1, 64, ...ipv4(tcp()).subarray(14, 54)], { type: 0x8847 }), 14 + 4 + 20 + 16],
  ARP: [arp()],
  'an echo request': [ipv4(icmp(8, [1, 2]), { protocol: 1 })],
  'a neighbour solicitation': [ipv6(icmp(135, [...ip6('fd00::2'), ...linkOption(1)]))],
  'a solicitation of routers behind options': [
    ipv6([...extension(58), ...icmp(133)], { protocol: 0 }),
  ],
  LLC: [ether([0x42, 0x42, 3, ...Array<number>(40).fill(0)], { type: 43 })],
}

const verdict = (frame: Uint8Array): number =>
  checkFrame(RULES, frame, 0, Math.min(256, frame.length), frame.length, false)

describe.each(Object.entries(FRAMES))('P4: %s', (_, [frame, place]) => {
  const first = firstPlace(frame, 0, Math.min(256, frame.length))

  test('passes, and so does its checksum', () => {
    expect(verdict(frame)).toBe(PASSES)
    if (place === undefined) expect(first).toBeGreaterThan(0xffff)
    else expect(first).toBeLessThanOrEqual(place)
  })

  test('whatever is written where a checksum may be passes as well', () => {
    for (let at = first; at + 2 <= frame.length; at++) {
      for (const value of [0, 0x43, 0x44, 0x86, 0x88, 0x89, 0xff]) {
        expect(verdict(frame.with(at, value).with(at + 1, value))).toBe(PASSES)
      }
    }
  })

  test('no checksum may be where a frame that is cut off is not readable', () => {
    for (let length = 0; length < Math.min(first, frame.length); length++) {
      expect(firstPlace(frame, 0, length)).toBeGreaterThan(length)
    }
  })
})

test('P4: of anything that passes nothing is made by a checksum that does not', () => {
  const frames = Object.values(FRAMES).map(([frame]) => frame)
  const changes = fc.array(fc.tuple(fc.nat(80), fc.integer({ min: 0, max: 255 })), { maxLength: 3 })
  let written = 0
  fc.assert(
    fc.property(
      fc.constantFrom(...frames),
      changes,
      fc.nat(100),
      fc.integer({ min: 0, max: 0xffff }),
      (frame, list, place, sum) => {
        const changed = frame.slice()
        for (const [at, value] of list) if (at < changed.length) changed[at] = value
        const first = firstPlace(changed, 0, Math.min(256, changed.length))
        const at = first + place
        if (verdict(changed) !== PASSES || at + 2 > changed.length) return
        written++
        expect(verdict(changed.with(at, sum >> 8).with(at + 1, sum & 0xff))).toBe(PASSES)
      },
    ),
    { numRuns: 20_000 },
  )
  expect(written).toBeGreaterThan(1000)
})
