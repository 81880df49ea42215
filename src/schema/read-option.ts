/**
 * Reads the value of a port's option, in the forms that option strings, control commands and config files
 * have: `on` is true, `16` is 16, `2k` is 2048, a number may be a name. config/file-schema.ts says in JSON
 * Schema what is accepted here.
 */
import { ConfigError } from '../errors.ts'
import { FORMATS } from './formats.ts'
import type { OptionKind, OptionList, OptionMap, OptionRule, ScalarValue } from './value.ts'

/** Where the option of that name stands, as `ports[2].ifname`. */
export type At = (key: string) => string

export const fail = (path: string, message: string, hint?: string): never => {
  throw new ConfigError('BAD_OPTION', message, { path, hint })
}

export const BOOLEANS: Readonly<Record<string, boolean>> = {
  on: true,
  yes: true,
  true: true,
  off: false,
  no: false,
  false: false,
}

/** Throws ConfigError with the path. */
export function readOption(rule: OptionRule, key: string, value: unknown, path: string): unknown {
  if (rule.kind === 'list') return readList(rule, key, value, path)
  if (rule.kind === 'map') return readMap(rule, key, value, path)
  return readScalar(rule, key, value, path)
}

function readList(rule: OptionList, key: string, value: unknown, path: string): unknown {
  const { of, words = [], count } = rule
  if (typeof value === 'string' && words.includes(value)) return value
  let entries = value
  if (typeof value === 'string') {
    const format = of.format === undefined ? undefined : FORMATS[of.format]
    entries = format?.split?.(value) ?? value.split(':')
  } else if (typeof value === 'number') entries = [value]
  if (!Array.isArray(entries)) return fail(path, `"${key}" must be a list`)
  const [least, most] = count ?? [0, Infinity]
  if (entries.length < least || entries.length > most) {
    return fail(path, `"${key}" must have ${least} to ${most} entries`)
  }
  return entries.map((one: unknown) => readScalar(of, key, one, path))
}

function readMap({ members }: OptionMap, key: string, value: unknown, path: string): unknown {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    const known = Object.keys(members)
    return fail(path, `"${key}" must be a map of ${known.join(', ')}`, `as ${key}.${known[0]}=...`)
  }
  const entries = Object.entries(value as Record<string, unknown>)
  return Object.fromEntries(
    entries.map(([name, one]) => {
      const member = Object.hasOwn(members, name) ? members[name] : undefined
      if (member !== undefined) return [name, readScalar(member, `${key}.${name}`, one, path)]
      return fail(
        path,
        `unknown key "${name}" in ${key}`,
        `known are ${Object.keys(members).join(', ')}`,
      )
    }),
  )
}

function readScalar(
  rule: ScalarValue<OptionKind>,
  key: string,
  value: unknown,
  path: string,
): unknown {
  switch (rule.kind) {
    case 'string':
      return readText(rule, key, value, path)
    case 'script':
      return value === false ? 'no' : readText(rule, key, value, path)
    case 'boolean':
      if (typeof value === 'boolean') return value
      if (typeof value === 'string' && Object.hasOwn(BOOLEANS, value)) return BOOLEANS[value]
      return fail(path, `"${key}" must be on or off, not ${JSON.stringify(value)}`)
    case 'choice':
      if (typeof value === 'string' && rule.values!.includes(value)) return value
      return fail(path, `"${key}" must be one of ${rule.values!.join(', ')}`)
    case 'integer':
    case 'size':
      return readNumber(rule, key, value, path)
  }
}

function readText({ format }: ScalarValue, key: string, value: unknown, path: string): string {
  // A JSON number where a name may be one (uids, fds, pids).
  const text = typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value
  if (typeof text !== 'string') {
    const shown = JSON.stringify(value)
    const hint = typeof value === 'object' ? undefined : `write "${shown}" in quotes`
    return fail(path, `"${key}" must be a text, not ${shown}`, hint)
  }
  if (text.includes('\0')) return fail(path, `"${key}" must not contain a zero byte`)
  const refusal = format === undefined ? undefined : FORMATS[format].refuse(text, key)
  return refusal === undefined ? text : fail(path, refusal.message, refusal.hint)
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
}

function readNumber(rule: ScalarValue, key: string, value: unknown, path: string): number {
  let number = Number.NaN
  if (typeof value === 'number') number = value
  else if (typeof value === 'string') {
    const parts = /^(\d+)([A-Za-z]?)$/.exec(value)
    const unit = parts === null ? undefined : SIZE_UNITS[parts[2].toLowerCase()]
    const isUnit = parts !== null && parts[2] !== ''
    if (unit !== undefined && (rule.kind === 'size' || !isUnit)) number = Number(parts![1]) * unit
  }
  const [least, most] = rule.range!
  if (!Number.isInteger(number) || number < least || number > most) {
    return fail(path, `"${key}" must be a number from ${least} to ${most}`)
  }
  return number
}
