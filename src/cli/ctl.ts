/** framepump ctl: one command on the control socket, its return as JSON. */
import { ControlClient } from '../control/client.ts'
import { ConfigError } from '../errors.ts'
import { printableJson } from '../switch/printable.ts'
import { defaultControlPath } from './common.ts'

const HINT = 'give key=value words or one JSON object'

export async function ctl(
  command: string,
  args: readonly string[],
  options: { readonly control?: string },
): Promise<number> {
  checkWords(args)
  const client = await ControlClient.connect(options.control ?? defaultControlPath())
  try {
    const kinds = isWords(args) ? await argumentKinds(client, command) : {}
    const result = await client.execute(command, parseArguments(args, kinds))
    process.stdout.write(`${printableJson(result, 2)}\n`)
    return 0
  } finally {
    client.close()
  }
}

type Kinds = Readonly<Record<string, string>>

/** What the daemon's command takes, by name; nothing for a command that it does not know. */
async function argumentKinds(client: ControlClient, command: string): Promise<Kinds> {
  const commands = (await client.execute('query-commands')) as { name: string; arguments?: Kinds }[]
  return commands.find(({ name }) => name === command)?.arguments ?? {}
}

const isWords = (args: readonly string[]): boolean => args.some((word) => !word.startsWith('{'))

function checkWords(args: readonly string[]): void {
  if (args.length === 1 && args[0].startsWith('{')) return void parseArguments(args, {})
  for (const word of args) {
    if (word.indexOf('=') > 0) continue
    throw new ConfigError('BAD_ARGUMENT', `"${word}" is not key=value`, { hint: HINT })
  }
}

/** `key=value` words, which become what the command takes; or one JSON object, which stays as it is. */
function parseArguments(args: readonly string[], kinds: Kinds): Record<string, unknown> {
  if (args.length === 1 && args[0].startsWith('{')) {
    try {
      return JSON.parse(args[0]) as Record<string, unknown>
    } catch (cause) {
      throw new ConfigError('BAD_ARGUMENT', `not JSON: ${args[0]}`, { hint: HINT, cause })
    }
  }
  return Object.fromEntries(
    args.map((word) => {
      const at = word.indexOf('=')
      const key = word.slice(0, at)
      return [key, parseValue(word.slice(at + 1), kindOf(kinds, key))]
    }),
  )
}

function kindOf(kinds: Kinds, key: string): string {
  for (const name of [key, `${key}?`]) if (Object.hasOwn(kinds, name)) return kinds[name]
  // Options of a port, each of which can be written as a text.
  return Object.hasOwn(kinds, '*') ? 'string' : 'any'
}

/** A text that looks like a number (`ifname=010`) stays a text where one is taken. */
function parseValue(text: string, kind: string): unknown {
  if (kind === 'string') return text
  const isNumber = /^-?(0|[1-9]\d*)(\.\d+)?$/.test(text)
  if (text === 'on' || text === 'true') return true
  if (text === 'off' || text === 'false') return false
  if (kind === 'number' && isNumber) return Number(text)
  if (!/^[[{"]/.test(text)) return text
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}
