/**
 * From a plain object (option string, control command, config file) to checked PortOptions. Errors
 * are ConfigError with the path of the key.
 */
import { ConfigError, gather, throwGathered } from '../errors.ts'
import { checkOptions, OPTION_TABLE, requiredOptions } from '../port/kinds.control.ts'
import type { At, OptionRule, OptionRules } from '../port/option-rules.ts'
import { fail } from '../port/option-rules.ts'
import type { PortOptions, PortType } from '../port/options.ts'
import { nearest } from '../text.ts'

const ID_SYNTAX = /^[A-Za-z][-A-Za-z0-9._]{0,62}$/

/**
 * `path` is where the object stands, as `ports[2]`; empty for an option string. Throws every option's
 * error at once; what one says about another is looked at when each by itself is right.
 */
export function portOptionsFromObject(
  object: Readonly<Record<string, unknown>>,
  path: string = '',
): PortOptions {
  const { type } = object
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`)
  if (typeof type !== 'string') {
    return fail(at('type'), `Parameter 'type' is missing`, `it is one of ${typeNames()}`)
  }
  const rules = rulesOf(type, at('type'))
  const options: Record<string, unknown> = { type }
  const errors: ConfigError[] = []
  for (const [key, value] of Object.entries(object)) {
    if (key === 'type' || value === undefined) continue
    gather(errors, () => {
      const rule = Object.hasOwn(rules, key) ? rules[key] : undefined
      if (rule === undefined) return fail(at(key), ...unknownKey(type, key, Object.keys(rules)))
      options[key] = readValue(rule, key, value, at(key))
    })
  }
  // Where its value could not be read, that has been said.
  if ((object['id'] === undefined) === (options['id'] === undefined)) {
    gather(errors, () => validateId(options['id'] as string | undefined, at))
  }
  for (const key of requiredOptions(type as PortType)) {
    const isThere = object[key] !== undefined
    if (!isThere) gather(errors, () => fail(at(key), `Parameter '${key}' is missing`))
  }
  throwGathered(errors)
  const checked = options as unknown as PortOptions
  validatePortOptions(checked, path)
  return checked
}

/** Whether the option of that port type is a text, whatever it looks like. */
export function isText(type: unknown, key: string): boolean {
  if (typeof type !== 'string' || !Object.hasOwn(OPTION_TABLE, type)) return false
  const rules = OPTION_TABLE[type]
  return Object.hasOwn(rules, key) && ['string', 'script'].includes(rules[key].kind)
}

function typeNames(): string {
  return Object.keys(OPTION_TABLE).join(', ')
}

function rulesOf(type: string, path: string): OptionRules {
  if (type === 'memory') {
    return fail(path, 'port type "memory" exists in the library API only')
  }
  if (!Object.hasOwn(OPTION_TABLE, type)) {
    return fail(path, `unknown port type "${type}"`, `it is one of ${typeNames()}`)
  }
  return OPTION_TABLE[type]
}

function unknownKey(type: string, key: string, known: readonly string[]): [string, string] {
  const near = nearest(key, known)
  return [
    `unknown key "${key}" for a ${type} port`,
    near === undefined ? `known are ${known.join(', ')}` : `did you mean "${near}"?`,
  ]
}

const BOOLEANS: Readonly<Record<string, boolean>> = {
  on: true,
  yes: true,
  true: true,
  off: false,
  no: false,
  false: false,
}

function readValue(rule: OptionRule, key: string, value: unknown, path: string): unknown {
  switch (rule.kind) {
    case 'string':
      return readString(key, value, path)
    case 'script':
      if (value === false) return 'no'
      return readString(key, value, path)
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

function readString(key: string, value: unknown, path: string): string {
  // A JSON number where a name may be one (uids, fds, pids).
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
  if (typeof value !== 'string') {
    const shown = JSON.stringify(value)
    const hint = typeof value === 'object' ? undefined : `write "${shown}" in quotes`
    return fail(path, `"${key}" must be a text, not ${shown}`, hint)
  }
  if (value.includes('\0')) return fail(path, `"${key}" must not contain a zero byte`)
  return value
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
}

function readNumber(rule: OptionRule, key: string, value: unknown, path: string): number {
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

/** Checks what one option says about another. Throws ConfigError. */
export function validatePortOptions(options: PortOptions, path: string = ''): void {
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`)
  validateId(options.id, at)
  checkOptions(options, at)
}

function validateId(id: string | undefined, at: At): void {
  if (id === undefined) return fail(at('id'), `Parameter 'id' is missing`, 'every port needs one')
  if (ID_SYNTAX.test(id)) return
  const hint = 'letters, digits, "-", "." and "_", a letter first, at most 63'
  fail(at('id'), `"${id}" is no id`, hint)
}
