/** Commands about the switch and its links: who is wired to whom, which addresses are where. */
import type { Members } from '../../schema/value.ts'
import type { Switch } from '../../switch/api.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'
import { Pages } from '../session.ts'

const ENDS = {
  a: { kind: 'string', required: true, description: 'A port.' },
  b: { kind: 'string', required: true, description: 'The other one.' },
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
    description: 'The addresses that the switch remembers.',
    arguments: {},
    returns: 'list of `{mac, port, age-s}`',
    run: (_, { target }) => new Pages(describeMacs(target.switch)),
  }),
  command({
    name: 'query-switch-stats',
    description: 'Counters of the switch as a whole.',
    arguments: {},
    returns: '`{mac_entries, mac_moves, loop_seconds, mac_table_full, bursts, sleeps}`',
    run: (_, { target }) => target.switch.currentCounters(),
  }),
]

async function* describeMacs(sw: Switch): AsyncGenerator<readonly unknown[]> {
  for await (const page of sw.macTablePages()) {
    yield page.map(({ mac, port, ageS }) => ({ mac, port, 'age-s': ageS }))
  }
}
