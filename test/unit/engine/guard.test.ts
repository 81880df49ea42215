/** P4: what a guarded port may send, and what it may not, as a table of tries. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import * as guard from '../../../src/engine/guard-check.ts'
import { endOfPlain } from '../../../src/engine/guard-plain.ts'
import { GuardRules } from '../../../src/engine/guard-rules.ts'
import { GUARD_LENGTH, Guards } from '../../../src/engine/guards.ts'
import type { GuardPolicy } from '../../../src/engine/messages.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { Window } from '../../../src/mem/window.ts'
import { COUNTERS_STRIDE } from '../../../src/stats/counters.ts'
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
  OTHER_MAC,
  tcp,
  udp,
} from '../../support/guard-frames.ts'

const ALL = ['mac', 'arp', 'ipv4', 'ipv6', 'dhcp', 'ra'] as const
const words = (bytes: readonly number[]): number[] => [
  ...new Int32Array(Uint8Array.from(bytes).buffer).map((_, n) =>
    Buffer.from(bytes).readInt32BE(4 * n),
  ),
]
const POLICY: GuardPolicy = {
  checks: ALL,
  macs: [octets(MAC)],
  // 10.0.0.1, and 192.0.2.0/24.
  ipv4: [
    [0x0a00_0001, -1],
    [0xc000_0200 | 0, 0xffff_ff00 | 0],
  ],
  // fd00::1, and 2001:db8::/64.
  ipv6: [
    [...words(ip6('fd00::1')), -1, -1, -1, -1],
    [...words(ip6('2001:db8::')), -1, -1, 0, 0],
  ],
}
const LINK_LOCAL = 'fe80::ff:fe00:1'

function check(frame: Uint8Array, more: Partial<GuardPolicy> = {}, isGso = false): number {
  const available = Math.min(frame.length, 256)
  // Whatever stands behind the frame in memory is none of it.
  const bytes = new Uint8Array(600).fill(0xee)
  bytes.set(frame, 40)
  return verdictOn(
    new GuardRules({ ...POLICY, ...more }),
    bytes,
    40,
    available,
    frame.length,
    isGso,
  )
}

/** What was passed by a look at its words. */
let plainlyFine = 0

/** Of frame `at` of the bytes: what a look at its words passes, a look at all of it passes as well. */
function verdictOn(
  rules: GuardRules,
  bytes: Uint8Array,
  at: number,
  available: number,
  length: number,
  isGso = false,
): number {
  const verdict = guard.checkFrame(rules, bytes, at, available, length, isGso)
  const asWords = new Int32Array(bytes.buffer)
  const isRead = available >= Math.min(length, 64)
  if (isRead && endOfPlain(rules, asWords, at >> 2, Int32Array.of(length), 0, 1) === 1) {
    plainlyFine++
    expect(verdict).toBe(guard.PASSES)
  }
  return verdict
}

const solicitation = (target: string, option: readonly number[] = linkOption(1)): number[] =>
  icmp(135, [...ip6(target), ...option])
const advertisement = (target: string, option: readonly number[] = linkOption(2)): number[] =>
  icmp(136, [...ip6(target), ...option])

describe('P4: a guest that says who it is', () => {
  test.each<[string, Uint8Array]>([
    ['asks by ARP', arp()],
    ['answers ARP', arp({ operation: 2 })],
    ['announces itself', arp({ target: '10.0.0.1' })],
    ['probes its address', arp({ sender: '0.0.0.0', target: '10.0.0.1' })],
    ['asks by ARP in two tags', arp({ before: '88a8 0064 8100 0065' })],
    ['has an address of a prefix', arp({ sender: '192.0.2.77' })],
    ['is announced by RARP', arp({ type: 0x8035, operation: 3, sender: '0.0.0.0' })],
    ['sends TCP', ipv4(tcp(), { protocol: 6 })],
    ['sends UDP with IP options', ipv4(udp(1000, 2000), { options: 10 })],
    ['sends UDP in a tag', ipv4(udp(1000, 2000), { before: '8100 000a' })],
    ['asks for an address', ipv4(udp(68, 67), { from: '0.0.0.0', to: '255.255.255.255' })],
    ['renews its address', ipv4(udp(68, 67))],
    ['sends the first part of a packet', ipv4(udp(1000, 2000), { fragment: 0x2000 })],
    ['sends the rest of it', ipv4(udp(67, 68), { fragment: 0x0010 })],
    ['sends ICMP', ipv4(icmp(8), { protocol: 1 })],
    ['sends TCP by IPv6', ipv6(tcp(), { protocol: 6 })],
    ['has an address of an IPv6 prefix', ipv6(tcp(), { protocol: 6, from: '2001:db8::abcd' })],
    [
      'has a link-local address of its MAC',
      ipv6(udp(546, 547), { protocol: 17, from: LINK_LOCAL }),
    ],
    ['looks whether its address is free', ipv6(solicitation('fd00::1', []), { from: '::' })],
    ['looks whether its link-local one is', ipv6(solicitation(LINK_LOCAL, []), { from: '::' })],
    ['looks for routers without an address', ipv6(icmp(133), { from: '::' })],
    ['looks for routers', ipv6(icmp(133, linkOption(1)), { from: LINK_LOCAL })],
    ['asks for a neighbour', ipv6(solicitation('fd00::99'))],
    ['advertises itself', ipv6(advertisement('fd00::1'))],
    ['joins a group', ipv6([...extension(58), ...icmp(143)], { protocol: 0, from: '::' })],
    [
      'has extension headers',
      ipv6([...extension(43), ...extension(6), ...tcp()], { protocol: 60 }),
    ],
    [
      'sends a part of an IPv6 packet',
      ipv6([...fragmentHeader(17), ...udp(1, 2)], { protocol: 44 }),
    ],
    ['sends the rest of it', ipv6([...fragmentHeader(58, 8), ...icmp(134)], { protocol: 44 })],
    ['sends a BPDU', ether(octets('424203 0000'), { type: 38 })],
    ['sends another protocol', ether([1, 2, 3], { type: 0x88b5 })],
  ])('%s', (_what, frame) => {
    expect(check(frame)).toBe(guard.PASSES)
  })
})

describe('P4: a guest that says that it is another', () => {
  test.each<[string, number, Uint8Array]>([
    ['by its MAC', guard.BAD_MAC, ether([], { source: OTHER_MAC, type: 0x88b5 })],
    // ARP
    ['by ARP', guard.BAD_ARP, arp({ sender: '10.0.0.9' })],
    ['by an answer', guard.BAD_ARP, arp({ operation: 2, sender: '10.0.0.9' })],
    ['by the MAC in ARP', guard.BAD_ARP, arp({ senderMac: OTHER_MAC })],
    ['by a probe of an address', guard.BAD_ARP, arp({ sender: '0.0.0.0', target: '10.0.0.9' })],
    ['by an answer from nobody', guard.BAD_ARP, arp({ operation: 2, sender: '0.0.0.0' })],
    ['by inverse ARP', guard.BAD_ARP, arp({ operation: 9 })],
    ['by an answer to RARP', guard.BAD_ARP, arp({ type: 0x8035, operation: 4 })],
    [
      'by the MAC in RARP',
      guard.BAD_ARP,
      arp({ type: 0x8035, operation: 3, senderMac: OTHER_MAC }),
    ],
    ['by ARP in a tag', guard.BAD_ARP, arp({ before: '8100 000a', sender: '10.0.0.9' })],
    ['by ARP with priority', guard.BAD_ARP, arp({ before: '8100 e000', sender: '10.0.0.9' })],
    [
      'by ARP in two tags',
      guard.BAD_ARP,
      arp({ before: '88a8 0001 8100 0002', sender: '10.0.0.9' }),
    ],
    ['by ARP in an old tag', guard.BAD_ARP, arp({ before: '9100 0001', sender: '10.0.0.9' })],
    ['by ARP in another old tag', guard.BAD_ARP, arp({ before: '9300 0001', sender: '10.0.0.9' })],
    ['by ARP in three tags', guard.BAD_FORM, arp({ before: '8100 0001 8100 0002 8100 0003' })],
    ['by ARP of other lengths', guard.BAD_FORM, arp({ form: '0001 0800 08 04' })],
    ['by ARP of another network', guard.BAD_FORM, arp({ form: '0006 0800 06 04' })],
    ['by ARP that is cut off', guard.BAD_FORM, arp().slice(0, 41)],
    ['by a tag that is cut off', guard.BAD_FORM, arp({ before: '8100 0001' }).slice(0, 17)],
    // Other encapsulations
    ['by ARP in SNAP', guard.BAD_FORM, ether(octets('aaaa03 000000 0806'), { type: 36 })],
    ['by IPv4 in SNAP', guard.BAD_FORM, ether(octets('aaaa03 000000 0800'), { type: 60 })],
    [
      'by ARP in SNAP of another sender',
      guard.BAD_FORM,
      ether(octets('aa0003 000000 0806'), { type: 36 }),
    ],
    [
      'by ARP in SNAP to a group',
      guard.BAD_FORM,
      ether(octets('abaa03 000000 0806'), { type: 36 }),
    ],
    ['by IP in LLC to a group', guard.BAD_FORM, ether(octets('070603 45'), { type: 60 })],
    [
      'by IPv6 in a bridge tunnel',
      guard.BAD_FORM,
      ether(octets('aaaa03 0000f8 86dd'), { type: 60 }),
    ],
    ['by a tag in SNAP', guard.BAD_FORM, ether(octets('aaaa03 000000 8100'), { type: 60 })],
    ['by IP in LLC', guard.BAD_FORM, ether(octets('060603 45'), { type: 60 })],
    ['by ARP in LLC', guard.BAD_FORM, ether(octets('989803 0001'), { type: 60 })],
    [
      'by SNAP in a tag',
      guard.BAD_FORM,
      ether(octets('aaaa03 000000 0806'), { before: '8100 0001', type: 36 }),
    ],
    ['by a type that is none', guard.BAD_FORM, ether([], { type: 0x5ff })],
    // IPv4
    ['by IPv4', guard.BAD_IPV4, ipv4(udp(1, 2), { from: '10.0.0.9' })],
    ['by the neighbour of a prefix', guard.BAD_IPV4, ipv4(udp(1, 2), { from: '192.0.3.1' })],
    [
      'by IPv4 in a tag',
      guard.BAD_IPV4,
      ipv4(udp(1, 2), { before: '8100 000a', from: '10.0.0.9' }),
    ],
    [
      'by a part of a packet',
      guard.BAD_IPV4,
      ipv4(udp(1, 2), { fragment: 0x0010, from: '10.0.0.9' }),
    ],
    ['from nobody to one', guard.BAD_IPV4, ipv4(udp(68, 67), { from: '0.0.0.0' })],
    [
      'from nobody to another port',
      guard.BAD_IPV4,
      ipv4(udp(68, 53), { from: '0.0.0.0', to: '255.255.255.255' }),
    ],
    [
      'from nobody in parts',
      guard.BAD_IPV4,
      ipv4(udp(68, 67), { from: '0.0.0.0', to: '255.255.255.255', fragment: 0x2000 }),
    ],
    ['by IPv4 of another version', guard.BAD_FORM, ether(octets('65'), { type: 0x0800 })],
    ['by a header that is too short', guard.BAD_FORM, ether(octets('44'), { type: 0x0800 })],
    ['by IPv4 that is cut off', guard.BAD_FORM, ipv4(udp(1, 2)).slice(0, 33)],
    ['by a packet that says more than there is', guard.BAD_FORM, ipv4(udp(1, 2), { said: 900 })],
    ['by a packet that says less than its header', guard.BAD_FORM, ipv4(udp(1, 2), { said: 19 })],
    // DHCP
    ['as a server', guard.BAD_DHCP, ipv4(udp(67, 68))],
    ['as a server by another port', guard.BAD_DHCP, ipv4(udp(4000, 68))],
    ['as a server to a relay', guard.BAD_DHCP, ipv4(udp(67, 67))],
    ['as a server in a tag', guard.BAD_DHCP, ipv4(udp(67, 68), { before: '8100 0001' })],
    ['as a server with options', guard.BAD_DHCP, ipv4(udp(67, 68), { options: 10 })],
    ['as a server in parts', guard.BAD_DHCP, ipv4(udp(67, 68), { fragment: 0x2000 })],
    [
      'as a server in too small parts',
      guard.BAD_FORM,
      ipv4(udp(67, 68).slice(0, 4), { fragment: 0x2000 }),
    ],
    ['as a server whose ports are padding', guard.BAD_FORM, ipv4([], { padding: udp(1, 2) })],
    ['as a server of IPv6', guard.BAD_DHCP, ipv6(udp(547, 546), { protocol: 17 })],
    ['as a server of IPv6 by another port', guard.BAD_DHCP, ipv6(udp(4000, 546), { protocol: 17 })],
    [
      'as a server behind options',
      guard.BAD_DHCP,
      ipv6([...extension(17), ...udp(547, 546)], { protocol: 60 }),
    ],
    // Routers
    ['as a router', guard.BAD_ROUTER, ipv6(icmp(134), { from: LINK_LOCAL })],
    [
      'as a router in a tag',
      guard.BAD_ROUTER,
      ipv6(icmp(134), { from: LINK_LOCAL, before: '8100 0000' }),
    ],
    ['as a router that redirects', guard.BAD_ROUTER, ipv6(icmp(137), { from: LINK_LOCAL })],
    [
      'as a router behind options',
      guard.BAD_ROUTER,
      ipv6([...extension(60), ...extension(58), ...icmp(134)], { protocol: 0, from: LINK_LOCAL }),
    ],
    [
      'as a router in a lone part',
      guard.BAD_ROUTER,
      ipv6([...fragmentHeader(58, 0, false), ...icmp(134)], { protocol: 44, from: LINK_LOCAL }),
    ],
    [
      'as a router in the second part',
      guard.BAD_FORM,
      ipv6([...fragmentHeader(60), ...extension(58)], { protocol: 44, from: LINK_LOCAL }),
    ],
    [
      'as a router whose message is padding',
      guard.BAD_FORM,
      ipv6(extension(58), { protocol: 60, from: LINK_LOCAL, padding: icmp(128) }),
    ],
    [
      'as a router behind more than is read',
      guard.BAD_FORM,
      ipv6([...extension(58, 30), ...icmp(134)], { protocol: 60, from: LINK_LOCAL }),
    ],
    ['as a router that redirects by IPv4', guard.BAD_ROUTER, ipv4(icmp(5), { protocol: 1 })],
    ['as a router of IPv4', guard.BAD_ROUTER, ipv4(icmp(9), { protocol: 1 })],
    // IPv6 and neighbour discovery
    ['by IPv6', guard.BAD_IPV6, ipv6(tcp(), { protocol: 6, from: 'fd00::9' })],
    ['by a link-local address', guard.BAD_IPV6, ipv6(tcp(), { protocol: 6, from: 'fe80::1' })],
    [
      'by the link-local address of another',
      guard.BAD_IPV6,
      ipv6(tcp(), { protocol: 6, from: 'fe80::ff:fe00:66' }),
    ],
    [
      'by the neighbour of an IPv6 prefix',
      guard.BAD_IPV6,
      ipv6(tcp(), { protocol: 6, from: '2001:db8:0:1::1' }),
    ],
    ['from nobody', guard.BAD_IPV6, ipv6(tcp(), { protocol: 6, from: '::' })],
    [
      'from nobody in parts',
      guard.BAD_IPV6,
      ipv6([...fragmentHeader(58), ...solicitation('fd00::1')], { protocol: 44, from: '::' }),
    ],
    [
      'by the rest of a packet',
      guard.BAD_IPV6,
      ipv6(fragmentHeader(6, 9), { protocol: 44, from: 'fd00::9' }),
    ],
    ['by IPv6 of another version', guard.BAD_FORM, ether(octets('45'), { type: 0x86dd })],
    ['by IPv6 that is cut off', guard.BAD_FORM, ipv6(tcp(), { protocol: 6 }).slice(0, 53)],
    [
      'by IPv6 that says more than there is',
      guard.BAD_FORM,
      ipv6(tcp(), { protocol: 6, said: 900 }),
    ],
    ['by an advertisement', guard.BAD_NEIGHBOUR, ipv6(advertisement('fd00::9'))],
    [
      'by the MAC of an advertisement',
      guard.BAD_NEIGHBOUR,
      ipv6(advertisement('fd00::1', linkOption(2, OTHER_MAC))),
    ],
    [
      'by the second MAC of one',
      guard.BAD_NEIGHBOUR,
      ipv6(advertisement('fd00::1', [...linkOption(2), ...linkOption(2, OTHER_MAC)])),
    ],
    [
      'by the MAC of a question',
      guard.BAD_NEIGHBOUR,
      ipv6(solicitation('fd00::9', linkOption(1, OTHER_MAC))),
    ],
    [
      'by the MAC of a question for routers',
      guard.BAD_NEIGHBOUR,
      ipv6(icmp(133, linkOption(1, OTHER_MAC)), { from: LINK_LOCAL }),
    ],
    [
      'by a claim of the address of another',
      guard.BAD_NEIGHBOUR,
      ipv6(solicitation('fd00::9', []), { from: '::' }),
    ],
    [
      'by an advertisement behind options',
      guard.BAD_NEIGHBOUR,
      ipv6([...extension(58), ...advertisement('fd00::9')], { protocol: 60 }),
    ],
    [
      'by an advertisement behind a router alert',
      guard.BAD_NEIGHBOUR,
      ipv6([...extension(58), ...advertisement('fd00::9')], { protocol: 0 }),
    ],
    [
      'by an advertisement in a part',
      guard.BAD_NEIGHBOUR,
      ipv6([...fragmentHeader(58, 0, false), ...advertisement('fd00::1')], { protocol: 44 }),
    ],
    [
      'by an advertisement that is cut off',
      guard.BAD_FORM,
      ipv6(advertisement('fd00::1').slice(0, 20)),
    ],
    [
      'by an option without a length',
      guard.BAD_FORM,
      ipv6(advertisement('fd00::1', linkOption(2, MAC, 0))),
    ],
    [
      'by an option that is cut off',
      guard.BAD_FORM,
      ipv6(advertisement('fd00::1', linkOption(2, MAC, 2))),
    ],
    [
      'by a target that is padding',
      guard.BAD_FORM,
      ipv6(icmp(136), { padding: [...ip6('fd00::1'), ...linkOption(2)] }),
    ],
    [
      'by options behind what is read',
      guard.BAD_NEIGHBOUR,
      ipv6(
        advertisement('fd00::1', [
          14,
          25,
          ...Array<number>(198).fill(0),
          ...linkOption(2, OTHER_MAC),
        ]),
      ),
    ],
  ])('%s', (_what, reason, frame) => {
    expect(check(frame)).toBe(reason)
  })
})

describe('P4: a guard', () => {
  test('checks nothing but what it is told to', () => {
    const tries: [(typeof ALL)[number], Uint8Array][] = [
      ['mac', ether([], { source: OTHER_MAC, type: 0x88b5 })],
      ['arp', arp({ sender: '10.0.0.9' })],
      ['ipv4', ipv4(tcp(), { protocol: 6, from: '10.0.0.9' })],
      ['ipv6', ipv6(tcp(), { protocol: 6, from: 'fd00::9' })],
      ['dhcp', ipv4(udp(67, 68))],
      ['ra', ipv6(icmp(134), { from: LINK_LOCAL })],
    ]
    for (const [name, frame] of tries) {
      for (const one of ALL) {
        expect(check(frame, { checks: [one] }) !== guard.PASSES, `${name} by ${one}`).toBe(
          one === name,
        )
      }
    }
  })

  test('without MAC addresses compares those in ARP and neighbour discovery with the source', () => {
    const none = { macs: [], checks: ['arp', 'ipv6'] as const }
    const source = OTHER_MAC
    expect(check(arp({ source }), none)).toBe(guard.PASSES)
    expect(check(arp({ senderMac: source }), none)).toBe(guard.BAD_ARP)
    const mine = advertisement('fd00::1', linkOption(2, OTHER_MAC))
    expect(check(ipv6(mine, { source }), none)).toBe(guard.PASSES)
    expect(check(ipv6(mine), none)).toBe(guard.BAD_NEIGHBOUR)
  })

  test('takes a GSO frame for as long as it is, as its packet cannot say that', () => {
    const payload = [...tcp(), ...Array<number>(400).fill(0)]
    expect(check(ipv4(payload, { protocol: 6, said: 0 }), {}, true)).toBe(guard.PASSES)
    expect(check(ipv4(payload, { protocol: 6, said: 0 }))).toBe(guard.BAD_FORM)
    expect(check(ipv6(payload, { protocol: 6, said: 0 }), {}, true)).toBe(guard.PASSES)
    expect(check(ipv6(payload, { protocol: 6, said: 0, from: 'fd00::9' }), {}, true)).toBe(
      guard.BAD_IPV6,
    )
  })

  test('reads nothing behind the end of a frame, whatever that is', () => {
    const frames = [
      arp(),
      ipv4(udp(68, 67)),
      ipv6([...extension(58), ...advertisement('fd00::1')], { protocol: 60 }),
      ipv6([...fragmentHeader(58), ...icmp(134)], { protocol: 44 }),
    ]
    fc.assert(
      fc.property(
        fc.constantFrom(...frames),
        fc.nat(),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        (frame, cut, changes) => {
          const bytes = frame.slice(0, 14 + (cut % (frame.length - 13)))
          for (const [at, value] of changes) bytes[at % bytes.length] = value
          const rules = new GuardRules(POLICY)
          const verdicts = [0x00, 0xff].map((filling) => {
            const memory = new Uint8Array(1024).fill(filling)
            memory.set(bytes, 100)
            return verdictOn(rules, memory, 100, bytes.length, bytes.length)
          })
          expect(verdicts[0]).toBe(verdicts[1])
          expect(verdicts[0]).toBeGreaterThanOrEqual(guard.PASSES)
          expect(verdicts[0]).toBeLessThan(guard.REASONS)
        },
      ),
      { numRuns: 3000 },
    )
  })
})

describe('P4: what most guests send', () => {
  const frames = [
    ipv4(tcp(), { protocol: 6 }),
    ipv4(udp(1000, 53)),
    ipv4(udp(1000, 53), { from: '192.0.2.77' }),
    ipv6(tcp(), { protocol: 6 }),
    ipv6(udp(1000, 53), { protocol: 17, from: '2001:db8::7:7' }),
    ipv6(udp(1000, 53), { protocol: 17, from: LINK_LOCAL }),
    ipv4(udp(1000, 53), { before: '8100 e00a' }),
    ipv6(tcp(), { protocol: 6, before: '88a8 000a' }),
  ]

  test('is fine by its words', () => {
    const before = plainlyFine
    for (const frame of frames) expect(check(frame)).toBe(guard.PASSES)
    expect(check(frames[1], { macs: [octets(OTHER_MAC), octets(MAC)] })).toBe(guard.PASSES)
    expect(check(frames[1], { macs: [octets(OTHER_MAC)] })).toBe(guard.BAD_MAC)
    expect(check(frames[0], { checks: ['arp'], macs: [octets(OTHER_MAC)] })).toBe(guard.PASSES)
    expect(plainlyFine - before).toBe(frames.length + 2)
  })

  test('changed anywhere it passes by its words only what passes', () => {
    const before = plainlyFine
    const lists = [
      ALL,
      ['mac', 'ipv4'],
      ['mac', 'ipv6'],
      ['ipv4'],
      ['dhcp', 'ra'],
      ['mac', 'dhcp'],
    ] as const
    fc.assert(
      fc.property(
        fc.constantFrom(...frames),
        fc.constantFrom(...lists),
        fc.array(fc.tuple(fc.integer({ min: 6, max: 61 }), fc.nat(255)), { maxLength: 3 }),
        fc.integer({ min: 14, max: 80 }),
        fc.boolean(),
        (frame, checks, changes, length, isGso) => {
          const bytes = frame.slice(0, length)
          for (const [at, value] of changes) if (at < length) bytes[at] = value
          check(bytes, { checks }, isGso)
        },
      ),
      { numRuns: 8000 },
    )
    expect(plainlyFine - before).toBeGreaterThan(100)
  })

  test('in bursts in which most are alike: the same as one by one', () => {
    const memory = Window.map(64 * 256)
    const burst = new Burst(() => undefined)
    const guards = new Guards(new Float64Array(COUNTERS_STRIDE))
    guards.set(0, POLICY)
    const changed = fc.record({
      at: fc.nat(63),
      changes: fc.array(fc.tuple(fc.integer({ min: 0, max: 79 }), fc.nat(255)), {
        minLength: 1,
        maxLength: 2,
      }),
      length: fc.option(fc.integer({ min: 14, max: 90 })),
    })
    let [dropped, runs] = [0, 0]
    try {
      fc.assert(
        fc.property(
          fc.constantFrom(...frames),
          fc.integer({ min: 17, max: 64 }),
          fc.array(changed, { maxLength: 3 }),
          fc.boolean(),
          (frame, count, others, isForeign) => {
            const made = Array.from({ length: count }, () => new Uint8Array(90))
            const sent = made.map((bytes) => {
              bytes.set(frame.subarray(0, 90))
              return bytes.subarray(0, Math.min(frame.length, 90))
            })
            for (const { at, changes, length } of others) {
              const bytes = made[at % count]
              for (const [place, value] of changes) bytes[place] = value
              sent[at % count] = bytes.subarray(0, length ?? Math.min(frame.length, 90))
            }
            burst.ownLength = isForeign ? GUARD_LENGTH : 0
            burst.clear()
            const whole = new Uint8Array(memory.buffer)
            for (const [k, bytes] of sent.entries()) {
              whole.set(bytes, k * 256)
              burst.window[k] = memory.id
              burst.offset[k] = k * 256
              burst.length[k] = bytes.length
            }
            burst.count = count
            burst.gatherHeads()
            const isOneRun = guards.admit(burst, 0, isForeign)
            // Of a frame with a tag all of that as well.
            const decisive = frame[12] === 0x08 || frame[12] === 0x86 ? 14 : 16
            const heads = new Set(sent.map((bytes) => bytes.subarray(0, decisive).join(' ')))
            expect(!isOneRun || heads.size === 1).toBe(true)
            if (isOneRun) runs++
            const passing = sent.filter((bytes) => check(bytes) === guard.PASSES)
            dropped += count - passing.length
            const { headers } = burst
            for (let k = 0; k < burst.count; k++) headers.want(k, 90)
            headers.read()
            const passed = Array.from({ length: burst.count }, (_, k) =>
              headers.bytes.slice(headers.at(k), headers.at(k) + burst.length[k]),
            )
            expect(passed).toEqual(passing)
          },
        ),
        { numRuns: 1000 },
      )
      expect(dropped).toBeGreaterThan(100)
      expect(runs).toBeGreaterThan(100)
    } finally {
      burst.close()
      memory.unmap()
    }
  })

  test('the last of a burst, changed in each bit: the same as alone', () => {
    const [memory, last] = [Window.map(17 * 256), 16 * 256]
    const whole = new Uint8Array(memory.buffer)
    const burst = new Burst(() => undefined)
    const guards = new Guards(new Float64Array(COUNTERS_STRIDE))
    guards.set(0, POLICY)
    // A bit away from the ports of servers and clients.
    const near = ['', '8100 000a'].flatMap((before) => [
      ipv4(udp(66, 69), { before }),
      ipv4(udp(1000, 69), { before }),
      ipv6(udp(545, 547), { protocol: 17, before }),
      ipv6(udp(1000, 547), { protocol: 17, before }),
    ])
    try {
      for (const frame of [...frames, ...near]) {
        for (let k = 0; k < 17; k++) whole.set(frame, k * 256)
        const decisive = [0x08, 0x86].includes(frame[12]) ? 14 : 16
        for (let bit = 0; bit < 8 * Math.min(frame.length, 64); bit++) {
          const at = bit >> 3
          whole[last + at] = frame[at] ^ (1 << (bit & 7))
          burst.ownLength = 0
          burst.clear()
          for (let k = 0; k < 17; k++) {
            burst.window[k] = memory.id
            burst.offset[k] = k * 256
            burst.length[k] = frame.length
          }
          burst.count = 17
          burst.gatherHeads()
          const isOneRun = guards.admit(burst, 0, false)
          const passes = check(whole.slice(last, last + frame.length)) === guard.PASSES
          expect([bit, burst.count]).toEqual([bit, passes ? 17 : 16])
          if (at < decisive) expect([bit, isOneRun]).toEqual([bit, false])
          whole[last + at] = frame[at]
        }
      }
    } finally {
      burst.close()
      memory.unmap()
    }
  })

  test('changed in each of its bytes to each value: the same', () => {
    for (const frame of frames) {
      for (let at = 6; at < 64; at++) {
        for (let value = 0; value < 256; value++) {
          const bytes = frame.slice()
          bytes[at] = value
          check(bytes)
        }
      }
    }
  })
})
