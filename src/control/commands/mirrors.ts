/** Commands about mirrors. */
import type { RawMirror } from '../../config/mirrors.ts'
import { fromMirror, MIRROR, toMirror } from '../../config/mirrors.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'
import { pagesOf } from '../session.ts'

export const MIRROR_COMMANDS: readonly Command[] = [
  command({
    name: 'mirror-add',
    description:
      'Copies the frames that enter or leave by some ports to another port, which then takes nothing else, into a VLAN, or to another host.',
    arguments: MIRROR,
    run: async (args, { target }) => {
      try {
        await target.switch.addMirror(toMirror(args as unknown as RawMirror))
      } catch (error) {
        throw target.explain(error)
      }
    },
  }),
  command({
    name: 'mirror-del',
    description:
      'Ends a mirror: its output is a port of the switch, or a VLAN, like any other again.',
    arguments: { name: { kind: 'string', required: true, description: 'The mirror.' } },
    run: ({ name }, { target }) => target.switch.removeMirror(name),
  }),
  command({
    name: 'query-mirrors',
    description: 'All mirrors, and what they have selected.',
    arguments: {},
    returns:
      'list of `{name, select-all?, select-src-port?, select-dst-port?, select-vlan?, output-port?, output-vlan?, erspan?, filter?, filter-program?, snaplen?, missing, frames, bytes, counters?}`; missing: ports that it names and that are not there; counters: what `erspan` has sent, and what not',
    run: (_, { target }) => pagesOf(target.switch.mirrors(), fromMirror),
  }),
]
