/**
 * From a plain object (option string, control command, config file) to checked PortOptions. Errors
 * are ConfigError with the path of the key.
 */
import type { ConfigError } from '../errors.ts'
import { gather, throwGathered } from '../errors.ts'
import { checkOptions, isApiOnly, OPTION_TABLE, requiredOptions } from '../port/kinds.control.ts'
import type { PortOptions, PortType } from '../port/options.ts'
import { fail, readOption } from '../schema/read-option.ts'
import type { OptionRules } from '../schema/value.ts'
import { nearest } from '../text.ts'

/**
 * `path` is where the object stands, as `ports[2]`; empty for an option string. Throws every option's
 * error at once; what one says about another is looked at when each by itself is right.
 */
export function portOptionsFromObject(
  object: Readonly<Record<string, unknown>>,
  path: string = '',
): PortOptions {
  const options = readOptions(object, path)
  checkOptions(options, (key) => pathOf(path, key))
  return options
}

const pathOf = (path: string, key: string): string => (path === '' ? key : `${path}.${key}`)

/** Each option by itself: what one says about another is not looked at. */
export function readOptions(
  object: Readonly<Record<string, unknown>>,
  path: string = '',
): PortOptions {
  const { type } = object
  const at = (key: string): string => pathOf(path, key)
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
      options[key] = readOption(rule, key, value, at(key))
    })
  }
  for (const key of requiredOptions(type as PortType)) {
    if (object[key] !== undefined) continue
    const hint = key === 'id' ? 'every port needs one' : undefined
    gather(errors, () => fail(at(key), `Parameter '${key}' is missing`, hint))
  }
  throwGathered(errors)
  return options as unknown as PortOptions
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
  if (isApiOnly(type)) return fail(path, `port type "${type}" exists in the library API only`)
  if (!Object.hasOwn(OPTION_TABLE, type)) {
    return fail(path, `unknown port type "${type}"`, `it is one of ${typeNames()}`)
  }
  return OPTION_TABLE[type]
}

function unknownKey(type: string, key: string, known: readonly string[]): [string, string] {
  const near = nearest(key, known)
  // Behind a comma that should have been a colon; no key begins so.
  if (/^[0-9[]/.test(key)) {
    return [`unknown key "${key}" for a ${type} port`, 'a list is split at ":", as trunks=10:20-30']
  }
  return [
    `unknown key "${key}" for a ${type} port`,
    near === undefined ? `known are ${known.join(', ')}` : `did you mean "${near}"?`,
  ]
}
