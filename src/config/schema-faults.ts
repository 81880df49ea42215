/** What the JSON Schema of a config file finds, in our words. */
import type { ErrorObject } from 'ajv'
import { refusal } from '../schema/formats.ts'
import { counted } from '../text.ts'

interface Parent {
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
}

/** JSON's words in ours. */
const TYPES: Readonly<Record<string, string>> = {
  object: 'a map of keys',
  array: 'a list',
  string: 'a text',
  integer: 'a whole number',
}

/** Of a value that may be this or that, only what is wrong with it as what it is meant to be. */
export function toldOf(errors: readonly ErrorObject[]): readonly ErrorObject[] {
  const told = errors.filter((error) => isTold(error))
  return told.length > 0 ? told : errors
}

function isTold({ keyword, schemaPath, data, params }: ErrorObject): boolean {
  if (keyword === 'anyOf') return false
  if (!schemaPath.includes('/anyOf/')) return true
  if (keyword === 'enum') return typeof data === 'string'
  return keyword !== 'type' || params['type'] !== 'array' || typeof data !== 'string'
}

/** Where it is, as keys. */
export function pathOf({ instancePath }: ErrorObject): (string | number)[] {
  return instancePath
    .split('/')
    .slice(1)
    .map((key) =>
      /^\d+$/.test(key) ? Number(key) : key.replaceAll('~1', '/').replaceAll('~0', '~'),
    )
}

/** Where a schema has found something: more is not said of it. */
export class Refused {
  readonly #paths: readonly string[]

  constructor(errors: readonly ErrorObject[]) {
    this.#paths = errors.map((error) => {
      const { missingProperty, additionalProperty } = error.params as Record<string, string>
      return joined([...pathOf(error), ...[missingProperty ?? additionalProperty ?? []].flat()])
    })
  }

  /** At that place, in what stands there, or in what it belongs to. */
  has(path: readonly (string | number)[]): boolean {
    const asked = joined(path)
    return this.#paths.some((one) => one.startsWith(asked) || asked.startsWith(one))
  }
}

const joined = (path: readonly (string | number)[]): string =>
  path.map((key) => `${key}\n`).join('')

/** What is wrong with a value. */
export function describeFault(error: ErrorObject): string {
  const parameters = error.params as Record<string, unknown>
  const { pattern, minimum, maximum } = (error.parentSchema ?? {}) as Parent
  // Also of a number that stands for such a text.
  if (pattern !== undefined && error.keyword !== 'type') {
    return refusal(pattern, String(error.data), error.instancePath)
  }
  switch (error.keyword) {
    case 'enum': {
      const values = parameters['allowedValues'] as unknown[]
      return values.includes(true) ? 'must be on or off' : `must be one of ${values.join(', ')}`
    }
    case 'type': {
      const types = [parameters['type']].flat() as string[]
      return `must be ${types.flatMap((type) => TYPES[type] ?? []).join(' or ')}`
    }
    case 'minimum':
    case 'maximum':
      return maximum === undefined
        ? `must be ${minimum} or more`
        : `must be ${minimum} to ${maximum}`
    case 'minLength':
      return 'must not be empty'
    case 'required':
      return `${parameters['missingProperty'] as string} is missing`
    case 'minItems':
      return `must have ${counted(Number(parameters['limit']), 'entry', 'entries')}`
    case 'maxItems':
      return `must have at most ${counted(Number(parameters['limit']), 'entry', 'entries')}`
    case 'uniqueItems':
      return 'must not have the same entry twice'
    default:
      return error.message ?? 'is wrong'
  }
}
