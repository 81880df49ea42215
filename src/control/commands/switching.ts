/** Commands about the switch and its links: who is wired to whom, which addresses are where. */
import type { Members } from '../../schema/value.ts'
import type { Switch } from '../../switch/api.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'
import { Pages } from '../session.ts'
import { spellGroup } from '../../switch/groups.ts'
import { checkVlan, spellMac } from '../../switch/policy.ts'

const ENDS = {
  a: { kind: 'string', required: true, description: 'A port.' },
  b: { kind: 'string', required: true, description: 'The other one.' },
} as const satisfies Members

const PORT = { kind: 'string', description: 'The port.' } as const
const ENTRY = {
  mac: { kind: 'string', required: true, description: 'The address.' },
  vlan: { kind: 'number', default: 0, description: 'VID; 0: of frames without one.' },
} as const

const WHERE = {
  port: { ...PORT, absent: 'all' },
  vlan: { kind: 'number', absent: 'all', description: 'Those in the VLAN; 0: in none.' },
} as const satisfies Members

export const SWITCHING_COMMANDS: readonly Command[] = [
  command({
    name: 'link-add',
    description: 'Wires two ports to each other: they leave the switch.',
    arguments: ENDS,
    run: ({ a, b }, { target }) => target.addLink(a, b),
  }),
  command({
    name: 'link-del',
    description: 'Ends a link: both ports are on the switch again.',
    arguments: ENDS,
    run: ({ a, b }, { target }) => target.switch.removeLink(a, b),
  }),
  command({
    name: 'query-links',
    description: 'All links.',
    arguments: {},
    returns: 'list of `{a, b}`',
    run: (_, { target }) => target.switch.links().map(([a, b]) => ({ a, b })),
  }),
  command({
    name: 'query-mac-table',
    description: 'The addresses that the switch knows: learnt ones, and static ones.',
    arguments: {
      port: { kind: 'string', absent: 'all', description: 'Those at the port.' },
      vlan: { kind: 'number', absent: 'all', description: 'Those in the VLAN; 0: in none.' },
      mac: { kind: 'string', absent: 'all', description: 'This address.' },
    },
    returns: 'list of `{mac, vlan, port, age-s, static?}`',
    run: (filter, { target }) => new Pages(describeMacs(target.switch, filter)),
  }),
  command({
    name: 'fdb-add',
    description: 'Adds a static entry: it neither ages nor moves, and wins over what is learnt.',
    arguments: { ...ENTRY, port: { ...PORT, required: true } },
    run: (entry, { target }) => target.switch.fdb.add([entry]),
  }),
  command({
    name: 'fdb-del',
    description: 'Removes a static entry.',
    arguments: ENTRY,
    run: (entry, { target }) => target.switch.fdb.remove([entry]),
  }),
  command({
    name: 'fdb-flush',
    description: 'Forgets addresses: what was learnt, or static entries as well.',
    arguments: {
      ...WHERE,
      which: {
        kind: 'choice',
        values: ['dynamic', 'all'],
        default: 'dynamic',
        description: 'What was learnt, or all but the entries of locked ports.',
      },
    },
    run: ({ which, ...where }, { target }) =>
      target.switch.fdb.flush({ ...where, all: which === 'all' }),
  }),
  command({
    name: 'query-groups',
    description:
      'Members of multicast groups and ports with multicast routers, as IGMP and MLD snooping knows them.',
    arguments: {
      ...WHERE,
      group: { kind: 'string', absent: 'all', description: 'Of this group, as `239.1.2.3`.' },
    },
    returns:
      'list of `{vlan, inner-vlan?, family, group?, port, expires-s?, querier?, multicast-router?}`; without `group` the port has routers, but with `multicast-router: never`; without `expires-s` by its options',
    run: (filter, { target }) => new Pages(describeGroups(target.switch, filter)),
  }),
  command({
    name: 'groups-flush',
    description:
      'Forgets members of multicast groups and ports with routers. Multicast is flooded until the next query of the querier that was forgotten.',
    arguments: WHERE,
    run: (which, { target }) => target.switch.groups.flush(which),
  }),
  command({
    name: 'query-vlans',
    description:
      'The VLANs that options of ports name, and which ports carry them: tagged, or untagged. 0 is what belongs to none; there, ports without VLAN options leave tags as they are.',
    arguments: {},
    returns: 'list of `{vlan, tagged, untagged}`',
    run: (_, { target }) => target.switch.vlans(),
  }),
  command({
    name: 'query-switch-stats',
    description: 'Counters of the switch as a whole.',
    arguments: {},
    returns:
      '`{mac_entries, mac_moves, loop_seconds, mac_table_full, groups, group_table_full, bursts, sleeps}`',
    run: (_, { target }) => target.switch.currentCounters(),
  }),
]

interface MacFilter {
  readonly port?: string
  readonly vlan?: number
  readonly mac?: string
}

/** What cannot be is told: to a question about it there is no answer. */
function checkWhere(sw: Switch, { port, vlan }: { port?: string; vlan?: number }): void {
  if (port !== undefined) sw.port(port)
  checkVlan(vlan)
}

async function* describeMacs(sw: Switch, filter: MacFilter): AsyncGenerator<readonly unknown[]> {
  checkWhere(sw, filter)
  const wanted = filter.mac === undefined ? undefined : spellMac(filter.mac)
  for await (const page of sw.macTablePages()) {
    yield page
      .filter(
        ({ mac, vlan, port }) =>
          (filter.port === undefined || port === filter.port) &&
          (filter.vlan === undefined || vlan === filter.vlan) &&
          (wanted === undefined || mac === wanted),
      )
      .map(({ mac, vlan, port, ageS, static: isStatic }) => ({
        mac,
        vlan,
        port,
        'age-s': ageS,
        ...(isStatic === true ? { static: true } : {}),
      }))
  }
}

async function* describeGroups(
  sw: Switch,
  filter: { readonly port?: string; readonly vlan?: number; readonly group?: string },
): AsyncGenerator<readonly unknown[]> {
  checkWhere(sw, filter)
  const wanted = filter.group === undefined ? undefined : spellGroup(filter.group)
  for await (const page of sw.groups.pages()) {
    yield page
      .filter(
        ({ vlan, group, port }) =>
          (filter.port === undefined || port === filter.port) &&
          (filter.vlan === undefined || vlan === filter.vlan) &&
          (wanted === undefined || group === wanted),
      )
      .map(({ innerVlan, expiresS, querier, vlan, multicastRouter, ...entry }) => ({
        vlan,
        ...(innerVlan === undefined ? {} : { 'inner-vlan': innerVlan }),
        ...entry,
        ...(expiresS === undefined ? {} : { 'expires-s': expiresS }),
        ...(querier === undefined ? {} : { querier }),
        ...(multicastRouter === undefined ? {} : { 'multicast-router': multicastRouter }),
      }))
  }
}
