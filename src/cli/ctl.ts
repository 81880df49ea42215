/** framepump ctl: one command on the control socket, its return as JSON. */
import { ControlClient } from '../control/client.ts'
import { ConfigError } from '../errors.ts'
import { defaultControlPath } from './common.ts'

export async function ctl(
  command: string,
  args: readonly string[],
  options: { readonly control?: string },
): Promise<number> {
  const parsed = parseArguments(args)
  const client = await ControlClient.connect(options.control ?? defaultControlPath())
  try {
    const result = await client.execute(command, parsed)
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
    return 0
  } finally {
    client.close()
  }
}

/** `key=value` words (values that are JSON keep their type), or one JSON object. */
function parseArguments(args: readonly string[]): Record<string, unknown> {
  if (args.length === 1 && args[0].startsWith('{')) {
    try {
      return JSON.parse(args[0]) as Record<string, unknown>
    } catch (cause) {
      throw new ConfigError('BAD_ARGUMENT', `not JSON: ${args[0]}`, { cause })
    }
  }
  const result: Record<string, unknown> = {}
  for (const word of args) {
    const at = word.indexOf('=')
    if (at < 1) {
      throw new ConfigError('BAD_ARGUMENT', `"${word}" is no key=value`, {
        hint: 'give key=value words or one JSON object',
      })
    }
    result[word.slice(0, at)] = parseValue(word.slice(at + 1))
  }
  return result
}

function parseValue(text: string): unknown {
  if (text === 'on') return true
  if (text === 'off') return false
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}
