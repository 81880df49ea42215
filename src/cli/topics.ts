/**
 * What `framepump help` tells beside commands: the options of each type of port, and the commands of the
 * control socket. Both from the definitions that the daemon checks.
 */
import type { Command } from 'commander'
import { COMMANDS } from '../control/commands.ts'
import { OPTION_TABLE, PORT_SCHEMAS } from '../port/kinds.control.ts'
import type { Booleans } from '../schema/describe.ts'
import { defaultOf, JSON_BOOLEANS, mayBe, WORDS } from '../schema/describe.ts'
import type { Members } from '../schema/value.ts'

export const TOPICS: readonly string[] = [
  ...Object.keys(PORT_SCHEMAS),
  ...COMMANDS.map(({ name }) => name),
]

/** The help on a type of port or a control command, as wide as that of `program`; undefined: there is none. */
export function topicHelp(name: string, program: Command): string | undefined {
  if (Object.hasOwn(PORT_SCHEMAS, name)) {
    const { description } = PORT_SCHEMAS[name]
    return [
      `Port type ${name}: ${plain(description)}`,
      `As in: framepump run --port ${name},id=ID,key=value,...\n` +
        `       framepump ctl netdev_add type=${name} id=ID key=value ...\n` +
        `       ports: [{ type: ${name}, id: ID, key: value }]   in a config file`,
      items('Options:', OPTION_TABLE[name], WORDS, program),
    ].join('\n\n')
  }
  const command = COMMANDS.find((one) => one.name === name)
  if (command === undefined) return undefined
  const { description, arguments: members, more, returns } = command
  return [
    `Control command ${name}: ${plain(description)}`,
    `As in: framepump ctl ${name}${Object.keys(members).length === 0 ? '' : ' key=value ...'}`,
    ...(Object.keys(members).length === 0
      ? []
      : [items('Arguments:', members, JSON_BOOLEANS, program)]),
    ...(more === undefined ? [] : [`Also: ${plain(more)}.`]),
    `Answer: ${plain(returns ?? 'nothing')}`,
  ].join('\n\n')
}

/** A line, or more, for each, as commander has them. */
function items(head: string, members: Members, booleans: Booleans, program: Command): string {
  const helper = program.createHelp()
  helper.helpWidth = process.stdout.isTTY ? process.stdout.columns : 80
  const terms = Object.entries(members).map(([name, member]) => {
    const without = plain(defaultOf(member, booleans))
    const isRequired = member.required === true
    const note = isRequired ? ' (required)' : without === '' ? '' : ` (default: ${without})`
    return {
      name,
      text: `${plain(member.description)}\n${plain(mayBe(member, booleans))}${note}`,
    }
  })
  const width = Math.max(...terms.map(({ name }) => name.length))
  return [
    head,
    ...terms.map(({ name, text }) => helper.formatItem(name, width, text, helper)),
  ].join('\n')
}

const plain = (markdown: string): string => markdown.replaceAll('`', '')
