/**
 * The JSON Schema of a config file, for editors. The daemon checks the same definitions itself; what a
 * schema cannot say (bytes of a text, ranges of numbers in quotes, what one option says about another) is
 * told by the daemon alone.
 */
import { CONFIG_SCHEMA } from '../src/config/schema.ts'
import { OPTION_TABLE, PORT_SCHEMAS } from '../src/port/kinds.control.ts'
import type { PortSchema } from '../src/port/port-schema.ts'
import { FORMATS } from '../src/schema/formats.ts'
import type { JsonSchema } from '../src/schema/json-schema.ts'
import { fileScalar, formatted, toJsonSchema } from '../src/schema/json-schema.ts'
import type { OptionRule, ScalarValue } from '../src/schema/value.ts'
import { requiredOf } from '../src/schema/value.ts'

const NO_ZERO_BYTE = '^[^\\u0000]*$'

/** Every form that schema/read-option.ts takes, in a file. */
function lenientScalar(value: ScalarValue): JsonSchema {
  switch (value.kind) {
    case 'string':
      return text(value)
    case 'script':
      return { anyOf: [text(value), { const: false }] }
    case 'integer':
      return number(value, '^\\d+$')
    case 'size':
      return number(value, '^\\d+[bkmgtBKMGT]?$')
    default:
      return fileScalar(value)
  }
}

/** A number stands for its text, where that can be one. */
function text({ format }: ScalarValue): JsonSchema {
  if (format === undefined) return { type: ['string', 'number'], pattern: NO_ZERO_BYTE }
  const { pattern, lengthMax, numbers } = FORMATS[format]
  if (numbers !== undefined) return formatted(FORMATS[format])
  const isNumberOne = FORMATS[format].refuse('1', '') === undefined
  return {
    type: isNumberOne ? ['string', 'number'] : 'string',
    pattern,
    ...(lengthMax === undefined ? {} : { maxLength: lengthMax }),
  }
}

const number = ({ range }: ScalarValue, pattern: string): JsonSchema => ({
  type: ['integer', 'string'],
  minimum: range![0],
  maximum: range![1],
  pattern,
})

/** In an option a list may be a text as well, as option strings have it, or its only entry. */
function lenient(rule: OptionRule): JsonSchema {
  const schema = toJsonSchema(rule, lenientScalar)
  if (rule.kind !== 'list') return schema
  const { of, words = [], count: [, most] = [0, Infinity] } = rule
  const entry = of.format === undefined ? null : FORMATS[of.format]
  const one = entry === null ? `(?:${(of.values ?? []).join('|')})` : entry.pattern.slice(1, -1)
  const repeated = most === Infinity ? '*' : `{0,${most - 1}}`
  const { description, default: absent, ...list } = schema
  return {
    description,
    ...(absent === undefined ? {} : { default: absent }),
    anyOf: [
      list,
      ...(words.length === 0 ? [] : [{ enum: words }]),
      formatted({
        pattern: entry?.listPattern ?? `^(?:${one})(?::(?:${one}))${repeated}$`,
        numbers: entry?.numbers ?? [1, 0],
      }),
    ],
  }
}

function ofPort(type: string, { description }: PortSchema): JsonSchema {
  const rules = Object.entries(OPTION_TABLE[type])
  const properties = Object.fromEntries(rules.map(([name, rule]) => [name, lenient(rule)]))
  const required = requiredOf(OPTION_TABLE[type])
  return {
    description,
    required,
    properties: { type: { const: type }, ...properties },
    additionalProperties: false,
  }
}

export function fileSchema(): JsonSchema {
  const kinds = Object.entries(PORT_SCHEMAS)
  const file = toJsonSchema(CONFIG_SCHEMA, fileScalar)
  const properties = file['properties'] as Record<string, JsonSchema>
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'framepump switch configuration',
    ...file,
    properties: {
      ...properties,
      ports: {
        ...properties['ports'],
        items: {
          type: 'object',
          required: ['id', 'type'],
          properties: {
            id: toJsonSchema(kinds[0][1].options['id'], lenientScalar),
            type: {
              description: kinds
                .map(([type, { description }]) => `${type}: ${description}`)
                .join('\n'),
              enum: kinds.map(([type]) => type),
            },
          },
          allOf: kinds.map(([type]) => ({
            if: { properties: { type: { const: type } }, required: ['type'] },
            // oxlint-disable-next-line unicorn/no-thenable -- the keyword of JSON Schema
            then: { $ref: `#/definitions/${type}` },
          })),
        },
      },
    },
    definitions: Object.fromEntries(kinds.map(([type, schema]) => [type, ofPort(type, schema)])),
  }
}
