/**
 * The options that say how a port takes part in the switch: VLANs, the forwarding database, policy. Every kind
 * of port has them, and none has to do with what the port is made of; all of them change while it runs. A
 * link passes everything, so a port on a link has none.
 */
import type { At } from '../schema/read-option.ts'
import { fail } from '../schema/read-option.ts'
import { FORMATS, vlanRange } from '../schema/formats.ts'
import { parseIpPrefix } from '../schema/ip-prefix.ts'
import type { OptionRules, StaticMembers } from '../schema/value.ts'

const SWITCHING = {
  'vlan-mode': {
    kind: 'choice',
    values: ['access', 'trunk', 'native-tagged', 'native-untagged', 'dot1q-tunnel'],
    absent:
      '`access` with `tag`, `trunk` with `trunks`; else a trunk that leaves all tags as they are',
    inPlace: true,
    description: 'How the port takes part in VLANs, in the words of Open vSwitch.',
  },
  tag: {
    kind: 'integer',
    range: [1, 4094],
    absent: 'none',
    inPlace: true,
    description: 'VLAN of frames that come untagged; of an access port or a tunnel, the VLAN.',
  },
  trunks: {
    kind: 'list',
    of: { kind: 'string', format: 'vlans' },
    count: [1, 4096],
    absent: 'all',
    inPlace: true,
    description: 'VLANs that a trunk or a native port carries; 0 is what belongs to none.',
  },
  'qinq-ethtype': {
    kind: 'choice',
    values: ['0x88a8', '0x8100'],
    default: '0x88a8',
    inPlace: true,
    description: 'TPID of the tag that a tunnel pushes.',
  },
  cvlans: {
    kind: 'list',
    of: { kind: 'string', format: 'vlans' },
    count: [1, 4096],
    absent: 'all',
    inPlace: true,
    description: "The customer's VLANs that a tunnel carries; 0 is what comes untagged.",
  },
  'priority-tags': {
    kind: 'choice',
    values: ['never', 'if-nonzero', 'always'],
    default: 'never',
    inPlace: true,
    description:
      'Frames that would leave untagged leave with a tag of VID 0: if they have a priority, or always.',
  },
  learning: {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description: 'Addresses of senders behind the port are learnt.',
  },
  'mac-limit': {
    kind: 'integer',
    range: [1, 1_048_576],
    absent: 'none',
    inPlace: true,
    description: 'Addresses that are learnt at the port at most, in all VLANs together.',
  },
  'mac-limit-action': {
    kind: 'choice',
    values: ['forward', 'drop'],
    default: 'forward',
    inPlace: true,
    description: 'What becomes of frames whose sender is not learnt because of `mac-limit`.',
  },
  sticky: {
    kind: 'boolean',
    default: false,
    inPlace: true,
    description:
      'An address that was learnt at the port does not move: frames with it from elsewhere are dropped.',
  },
  locked: {
    kind: 'boolean',
    default: false,
    inPlace: true,
    description:
      'Frames are accepted only of senders that have a static entry at the port in their VLAN; nothing is learnt.',
  },
  macs: {
    kind: 'list',
    of: { kind: 'string', format: 'mac' },
    count: [1, 1024],
    absent: 'none',
    inPlace: true,
    description:
      'Addresses behind the port: what a guarded port may send as; with `locked` its static entries, in its VLAN `tag`, in each of `trunks`, or without a VLAN.',
  },
  storm: {
    kind: 'map',
    members: {
      broadcast: {
        kind: 'integer',
        range: [1, 200_000_000],
        unit: 'frames a second',
        description: 'Broadcast.',
      },
      multicast: {
        kind: 'integer',
        range: [1, 200_000_000],
        unit: 'frames a second',
        description: 'Multicast.',
      },
      'unknown-unicast': {
        kind: 'integer',
        range: [1, 200_000_000],
        unit: 'frames a second',
        description: 'Unicast whose destination is not known.',
      },
    },
    absent: 'no limit',
    inPlace: true,
    description:
      'Frames a second that are flooded from the port, as `storm: { broadcast: 1000 }` or `storm.broadcast=1000`; a tenth of them at once, 32 at least.',
  },
  'group-addresses': {
    kind: 'list',
    words: ['transparent', '802.1D'],
    of: { kind: 'string', format: 'octet' },
    count: [1, 16],
    absent: "the switch's",
    inPlace: true,
    description:
      'What becomes of frames to 01-80-C2-00-00-00..0F that come in by the port: all pass, none, or those with these last octets.',
  },
  isolated: {
    kind: 'boolean',
    default: false,
    inPlace: true,
    description: 'Isolated ports exchange no frames with one another; with others they do.',
  },
  flood: {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description:
      'The port has its part in floods of unicast frames whose destination is not known.',
  },
  'mcast-flood': {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description: 'The same for multicast.',
  },
  'bcast-flood': {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description: 'The same for broadcast.',
  },
  'multicast-router': {
    kind: 'choice',
    values: ['never', 'auto', 'always'],
    default: 'auto',
    inPlace: true,
    description:
      'With `snooping`: whether all multicast groups go to the port, as routers need them: never, when one was heard there, or always.',
  },
  guard: {
    kind: 'list',
    of: { kind: 'choice', values: ['mac', 'arp', 'ipv4', 'ipv6', 'dhcp', 'ra'] },
    count: [1, 6],
    absent: 'none',
    inPlace: true,
    description:
      'What the port may not send: frames of other MAC addresses than `macs` (`mac`), ARP of other addresses than `ips` and `macs` (`arp`), packets of other addresses than `ips` (`ipv4`, `ipv6` with neighbour discovery), answers of DHCP servers (`dhcp`), advertisements and redirects of routers (`ra`).',
  },
  ips: {
    kind: 'list',
    of: { kind: 'string', format: 'ip' },
    count: [1, 64],
    absent: 'none',
    inPlace: true,
    description:
      'IP addresses and prefixes that a guarded port may send as; in an option string those of IPv6 are in brackets.',
  },
  hairpin: {
    kind: 'boolean',
    default: false,
    inPlace: true,
    description: 'Frames that came in by the port may leave by it.',
  },
} as const

/** What all kinds have. */
export interface SwitchingOptions extends StaticMembers<typeof SWITCHING> {}

export const SWITCHING_RULES: OptionRules = SWITCHING

/** The names of those that are given. */
export function switchingOptions(options: object): string[] {
  return Object.keys(SWITCHING).filter(
    (key) => (options as Record<string, unknown>)[key] !== undefined,
  )
}

/** The same options without the others. */
export function onlySwitching(options: SwitchingOptions): SwitchingOptions {
  const given = options as Record<string, unknown>
  return Object.fromEntries(switchingOptions(options).map((key) => [key, given[key]]))
}

export type VlanMode = NonNullable<SwitchingOptions['vlan-mode']>

/** The mode that the options mean; undefined: there is no VLAN option. */
export function vlanModeOf(options: SwitchingOptions): VlanMode | undefined {
  const { 'vlan-mode': mode, tag, trunks, 'priority-tags': priorityTags } = options
  if (mode !== undefined) return mode
  if (tag !== undefined) return trunks === undefined ? 'access' : undefined
  return trunks !== undefined || priorityTags !== undefined ? 'trunk' : undefined
}

/** Ranges of VIDs of a list; null: all. Throws ConfigError. */
export function vlanRanges(
  list: readonly (string | number)[] | undefined,
  path: string,
): readonly (readonly [number, number])[] | null {
  if (list === undefined) return null
  return list.map((one) => vlanRange(String(one)) ?? fail(path, `"${one}" is no VID or range`))
}

const ALL_GROUPS = 0xffff

/** Bit n: 01-80-C2-00-00-0n passes. Throws ConfigError. */
export function groupMask(
  groups: NonNullable<SwitchingOptions['group-addresses']>,
  path: string,
): number {
  if (groups === 'transparent') return ALL_GROUPS
  if (groups === '802.1D') return 0
  if (!Array.isArray(groups)) {
    return fail(path, `${path} must be one of transparent, 802.1D, or a list of last octets`)
  }
  return groups.reduce<number>((mask, octet) => {
    const text = String(octet)
    const refusal = FORMATS.octet.refuse(text, path)
    return refusal === undefined ? mask | (1 << parseInt(text, 16)) : fail(path, refusal.message)
  }, 0)
}

/** Static entries that a port has by its options. */
const STATIC_MAX = 4096

/** The VLANs in which a locked port has its addresses. Throws ConfigError when those are too many. */
export function lockedVlans(options: SwitchingOptions, at: At): readonly number[] {
  const { macs = [], tag, trunks, locked = false } = options
  if (!locked || macs.length === 0) return []
  const vlans = new Set<number>(tag === undefined ? [] : [tag])
  for (const [first, last] of vlanRanges(trunks, at('trunks')) ?? []) {
    for (let vlan = first; vlan <= last; vlan++) vlans.add(vlan)
  }
  if (vlans.size === 0) vlans.add(0)
  if (vlans.size * macs.length <= STATIC_MAX) return [...vlans]
  return fail(
    at('macs'),
    `${macs.length} addresses in ${vlans.size} VLANs are more than ${STATIC_MAX} static entries`,
    'list fewer trunks=, or name entries one by one with fdb-add',
  )
}

/** What one of them says about another. Throws ConfigError. */
export function checkSwitching(options: SwitchingOptions, at: At): void {
  const { 'vlan-mode': given, tag, trunks, cvlans, 'qinq-ethtype': qinq } = options
  if (given === undefined && tag !== undefined && trunks !== undefined) {
    fail(
      at('vlan-mode'),
      'tag= and trunks= together need a vlan-mode=',
      'native-untagged, native-tagged, or only one of them',
    )
  }
  const mode = vlanModeOf(options)
  if (mode === 'trunk' && tag !== undefined) {
    fail(at('tag'), 'a trunk has no tag=', 'vlan-mode=native-untagged or native-tagged has one')
  }
  if (mode !== undefined && mode !== 'trunk' && tag === undefined) {
    fail(at('tag'), `vlan-mode=${mode} needs a tag=`)
  }
  if ((mode === 'access' || mode === 'dot1q-tunnel') && trunks !== undefined) {
    fail(at('trunks'), `trunks= is invalid with vlan-mode=${mode}`)
  }
  if (options['mac-limit-action'] !== undefined && options['mac-limit'] === undefined) {
    fail(at('mac-limit-action'), 'mac-limit-action= is only valid with mac-limit=')
  }
  if (options.macs !== undefined && options.locked !== true && options.guard === undefined) {
    fail(at('macs'), 'macs= is only valid with locked=on or guard=')
  }
  lockedVlans(options, at)
  checkGuard(options, at)
  if (mode === 'dot1q-tunnel') return
  for (const [key, value] of [
    ['cvlans', cvlans],
    ['qinq-ethtype', qinq],
  ] as const) {
    if (value !== undefined) fail(at(key), `${key}= is only valid with vlan-mode=dot1q-tunnel`)
  }
}

function checkGuard({ guard, macs, ips }: SwitchingOptions, at: At): void {
  if (guard === undefined) {
    if (ips !== undefined) fail(at('ips'), 'ips= is only valid with guard=')
    return
  }
  if (guard.includes('mac') && macs === undefined) fail(at('macs'), 'guard=mac needs macs=')
  const ofIps = guard.find((one) => one === 'arp' || one === 'ipv4' || one === 'ipv6')
  if (ofIps !== undefined && ips === undefined) fail(at('ips'), `guard=${ofIps} needs ips=`)
}

/** What the guard of a port compares with; null: there is none. Throws ConfigError. */
export function guardOf({ guard, macs = [], ips = [] }: SwitchingOptions): Guard | null {
  if (guard === undefined) return null
  const prefixes = ips.map((text) => parseIpPrefix(text) ?? fail('ips', `"${text}" is no address`))
  const of = (isIpv6: boolean): number[][] =>
    prefixes
      .filter((prefix) => prefix.isIpv6 === isIpv6)
      .map(({ address, mask }) => [...address, ...mask])
  return {
    checks: guard,
    macs: macs.map((text) => text.split(/[:-]/).map((octet) => Number.parseInt(octet, 16))),
    ipv4: of(false),
    ipv6: of(true),
  }
}

export interface Guard {
  readonly checks: NonNullable<SwitchingOptions['guard']>
  /** Six octets each. */
  readonly macs: readonly (readonly number[])[]
  /** Words of the address, then those of the mask. */
  readonly ipv4: readonly (readonly number[])[]
  readonly ipv6: readonly (readonly number[])[]
}
