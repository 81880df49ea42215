/** All commands of the control socket: QEMU's where QEMU has them, and ours. Their groups are in `commands/`. */
import type { JsonSchema } from '../schema/json-schema.ts'
import { toJsonSchema } from '../schema/json-schema.ts'
import type { Members, StaticMembers } from '../schema/value.ts'
import type { Command, ControlTarget } from './command.ts'
import { command } from './command.ts'
import { CAPTURE_COMMANDS } from './commands/captures.ts'
import { DESCRIPTOR_COMMANDS } from './commands/descriptors.ts'
import { MIGRATION_COMMANDS } from './commands/migration.ts'
import { MIRROR_COMMANDS } from './commands/mirrors.ts'
import { PORT_COMMANDS } from './commands/ports.ts'
import { STATE_COMMANDS } from './commands/state.ts'
import { SWITCHING_COMMANDS } from './commands/switching.ts'
import type { ServedCommand } from './server.ts'

const QUERY_COMMANDS: Command = command({
  name: 'query-commands',
  description:
    "All commands. Beyond QEMU's answer: what each takes, by which `framepump ctl` reads its words.",
  arguments: {},
  returns: 'list of `{name, description, arguments}`; arguments is a JSON Schema',
  run: () =>
    COMMANDS.map((one) => ({
      name: one.name,
      description: one.description,
      arguments: argumentSchema(one),
    })),
})

export const COMMANDS: readonly Command[] = [
  ...STATE_COMMANDS,
  QUERY_COMMANDS,
  ...PORT_COMMANDS,
  ...DESCRIPTOR_COMMANDS,
  ...SWITCHING_COMMANDS,
  ...MIRROR_COMMANDS,
  ...CAPTURE_COMMANDS,
  ...MIGRATION_COMMANDS,
]

function argumentSchema({ arguments: members, more }: Command): JsonSchema {
  return toJsonSchema({ kind: 'map', members, isOpen: more !== undefined })
}

/** The commands by name, for a server. */
export function makeCommands(target: ControlTarget): ReadonlyMap<string, ServedCommand> {
  return new Map(
    COMMANDS.map((one) => [
      one.name,
      {
        arguments: one.arguments,
        isOpen: one.more !== undefined,
        run: (args, session) => one.run(args as StaticMembers<Members>, { target, session }),
      },
    ]),
  )
}
