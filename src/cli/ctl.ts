/** framepump ctl: one command on the control socket, its return as JSON. */
import { ControlClient } from '../control/client.ts'
import { ConfigError, SysError } from '../errors.ts'
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
    const schema = isWords(args) ? await argumentSchema(client, command) : {}
    const values = parseArguments(args, schema)
    if (command === 'mirror-add') await compileOwnFilter(values)
    const result = await client.execute(command, values)
    process.stdout.write(`${printableJson(result, 2)}\n`)
    return 0
  } finally {
    client.close()
  }
}

/** A daemon that may start no programs any more cannot compile filters. Where it cannot be done here either, it says so. */
async function compileOwnFilter(values: Record<string, unknown>): Promise<void> {
  const { filter, name } = values
  if (typeof filter !== 'string' || values['filter-program'] !== undefined) return
  const { compileFilter } = await import('../filter/compile.ts')
  try {
    values['filter-program'] = await compileFilter(filter, `mirror "${String(name)}"`)
  } catch (error) {
    if (!(error instanceof SysError)) throw error
  }
}

/** What is used of the JSON Schema of a command's arguments. */
interface ArgumentSchema {
  readonly properties?: Readonly<
    Record<string, ArgumentSchema & { readonly type?: string; readonly enum?: unknown }>
  >
  readonly additionalProperties?: boolean
}

/** What the daemon's command takes; anything for a command that it does not know. */
async function argumentSchema(client: ControlClient, command: string): Promise<ArgumentSchema> {
  const commands = (await client.execute('query-commands')) as {
    readonly name: string
    readonly arguments?: ArgumentSchema
  }[]
  const found = commands.find(({ name }) => name === command)?.arguments
  return found ?? { additionalProperties: false }
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
export function parseArguments(
  args: readonly string[],
  schema: ArgumentSchema,
): Record<string, unknown> {
  if (args.length === 1 && args[0].startsWith('{')) {
    try {
      return JSON.parse(args[0]) as Record<string, unknown>
    } catch (cause) {
      throw new ConfigError('BAD_ARGUMENT', `not JSON: ${args[0]}`, { hint: HINT, cause })
    }
  }
  const values = emptyMap()
  for (const word of args) {
    const at = word.indexOf('=')
    put(values, word.slice(0, at), word.slice(at + 1), schema)
  }
  return values
}

/** `erspan.remote-ip=10.0.0.1` is a key of a map. */
function put(
  values: Record<string, unknown>,
  key: string,
  text: string,
  schema: ArgumentSchema,
): void {
  const name = key.slice(0, Math.max(0, key.indexOf('.')))
  if (typeOf(schema, name) !== 'object') {
    values[key] = parseValue(text, typeOf(schema, key))
    return
  }
  const map = (values[name] ??= emptyMap())
  if (!isMap(map)) {
    throw new ConfigError('BAD_ARGUMENT', `${name}= is there already, and ${key}= says more of it`)
  }
  put(map, key.slice(name.length + 1), text, schema.properties?.[name] ?? {})
}

/** A key may be called as something that every object has. */
const emptyMap = (): Record<string, unknown> => Object.create(null) as Record<string, unknown>

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function typeOf({ properties = {}, additionalProperties }: ArgumentSchema, key: string): string {
  if (Object.hasOwn(properties, key)) {
    const { type, enum: values } = properties[key]
    return values === undefined ? (type ?? 'any') : 'string'
  }
  // Options of a port, each of which can be written as a text.
  return additionalProperties === false ? 'any' : 'string'
}

/** A text that looks like a number (`ifname=010`) stays a text where one is taken. */
function parseValue(text: string, type: string): unknown {
  if (type === 'string') return text
  // As in an option string.
  if (type === 'array' && !text.startsWith('[')) return text.split(':')
  const isNumber = /^-?(0|[1-9]\d*)(\.\d+)?$/.test(text)
  if (text === 'on' || text === 'true') return true
  if (text === 'off' || text === 'false') return false
  if ((type === 'number' || type === 'integer') && isNumber) return Number(text)
  if (!/^[[{"]/.test(text)) return text
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}
