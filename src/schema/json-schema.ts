/** A definition as JSON Schema (draft 7), for values in JSON's own types. */
import { BOOLEANS } from './read-option.ts'
import type { Format } from './formats.ts'
import { FORMATS } from './formats.ts'
import type { ListValue, MapValue, ScalarValue, Value } from './value.ts'
import { requiredOf } from './value.ts'

export type JsonSchema = Readonly<Record<string, unknown>>

/** `scalar`: how one is said that has other forms as well. */
export function toJsonSchema(
  value: Value,
  scalar: (value: ScalarValue) => JsonSchema = strictScalar,
): JsonSchema {
  const said = {
    ...(value.description === undefined ? {} : { description: value.description }),
    ...(value.default === undefined ? {} : { default: value.default }),
  }
  if (value.kind === 'list') return { ...said, ...ofList(value, scalar) }
  if (value.kind === 'map') return { ...said, ...ofMap(value, scalar) }
  return { ...said, ...scalar(value) }
}

const typeOf = (type: string, isNullable = false): JsonSchema => ({
  type: isNullable ? [type, 'null'] : type,
})

function ofList(list: ListValue, scalar: (value: ScalarValue) => JsonSchema): JsonSchema {
  const { of, words, count, isUnique, isNullable } = list
  if (words !== undefined) {
    const { words: _, ...other } = list
    return { anyOf: [{ enum: words }, ofList(other, scalar)] }
  }
  return {
    ...typeOf('array', isNullable),
    ...(count === undefined || count[0] === 0 ? {} : { minItems: count[0] }),
    ...(count === undefined ? {} : { maxItems: count[1] }),
    ...(isUnique === true ? { uniqueItems: true } : {}),
    items: toJsonSchema(of, scalar),
  }
}

function ofMap(
  { members, isOpen = false, isNullable }: MapValue,
  scalar: (value: ScalarValue) => JsonSchema,
): JsonSchema {
  const required = requiredOf(members)
  return {
    ...typeOf('object', isNullable),
    ...(isOpen ? {} : { additionalProperties: false }),
    ...(required.length === 0 ? {} : { required }),
    properties: Object.fromEntries(
      Object.entries(members).map(([name, member]) => [name, toJsonSchema(member, scalar)]),
    ),
  }
}

/** In a file a boolean may be one of QEMU's words. */
export function fileScalar(value: ScalarValue): JsonSchema {
  if (value.kind !== 'boolean') return strictScalar(value)
  return { enum: [true, false, ...Object.keys(BOOLEANS)] }
}

export function strictScalar({ kind, range, values, format }: ScalarValue): JsonSchema {
  switch (kind) {
    case 'string':
      return format !== undefined && FORMATS[format].numbers !== undefined
        ? formatted(FORMATS[format])
        : { type: 'string' }
    case 'script':
      return { type: 'string' }
    case 'boolean':
      return { type: 'boolean' }
    case 'number':
      return { type: 'number' }
    case 'integer':
    case 'size':
      return {
        type: 'integer',
        ...(range === undefined ? {} : { minimum: range[0], maximum: range[1] }),
      }
    case 'choice':
      return { enum: values! }
    case 'name':
      return { type: ['string', 'integer'], minLength: 1, minimum: 0 }
    case 'any':
      return {}
  }
}

/** A text of a format, and the numbers that stand for one. */
export function formatted({
  pattern,
  numbers = [1, 0],
}: Pick<Format, 'pattern' | 'numbers'>): JsonSchema {
  const [least, most] = numbers
  return least > most
    ? { type: 'string', pattern }
    : { type: ['string', 'integer'], pattern, minimum: least, maximum: most }
}
