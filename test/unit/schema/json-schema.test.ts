/** One definition: its JSON Schema, its static type, and what it takes. */
import { Ajv } from 'ajv'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { fileScalar, toJsonSchema } from '../../../src/schema/json-schema.ts'
import type { MapValue, Members, StaticMembers } from '../../../src/schema/value.ts'
import { requiredOf } from '../../../src/schema/value.ts'

const MEMBERS = {
  name: { kind: 'string', required: true, description: 'A text.' },
  size: { kind: 'size', range: [0, 9], unit: 'bytes', description: 'A size.' },
  count: { kind: 'integer', range: [1, 4], default: 2, description: 'A number.' },
  way: { kind: 'choice', values: ['in', 'out'], required: true, description: 'One of two.' },
  on: { kind: 'boolean', description: 'A boolean.' },
  who: { kind: 'name', description: 'A name.' },
  any: { kind: 'any', description: 'Anything.' },
  pairs: {
    kind: 'list',
    count: [0, 3],
    isNullable: true,
    of: { kind: 'list', count: [2, 2], isUnique: true, of: { kind: 'string' } },
    description: 'Pairs.',
  },
  inner: {
    kind: 'map',
    isOpen: true,
    isNullable: true,
    members: { x: { kind: 'number', required: true, description: 'A number.' } },
    description: 'A map.',
  },
} as const satisfies Members
const MAP: MapValue = { kind: 'map', members: MEMBERS }

test('its JSON Schema', () => {
  expect(toJsonSchema(MAP)).toEqual({
    type: 'object',
    additionalProperties: false,
    required: ['name', 'way'],
    properties: {
      name: { description: 'A text.', type: 'string' },
      size: { description: 'A size.', type: 'integer', minimum: 0, maximum: 9 },
      count: { description: 'A number.', default: 2, type: 'integer', minimum: 1, maximum: 4 },
      way: { description: 'One of two.', enum: ['in', 'out'] },
      on: { description: 'A boolean.', type: 'boolean' },
      who: { description: 'A name.', type: ['string', 'integer'], minLength: 1, minimum: 0 },
      any: { description: 'Anything.' },
      pairs: {
        description: 'Pairs.',
        type: ['array', 'null'],
        maxItems: 3,
        items: {
          type: 'array',
          minItems: 2,
          maxItems: 2,
          uniqueItems: true,
          items: { type: 'string' },
        },
      },
      inner: {
        description: 'A map.',
        type: ['object', 'null'],
        required: ['x'],
        properties: { x: { description: 'A number.', type: 'number' } },
      },
    },
  })
  expect(requiredOf(MEMBERS)).toEqual(['name', 'way'])
})

test('its static type', () => {
  type Static = StaticMembers<typeof MEMBERS>
  expectTypeOf<Pick<Static, 'name' | 'way'>>().toEqualTypeOf<{
    readonly name: string
    readonly way: 'in' | 'out'
  }>()
  expectTypeOf<Static['size']>().toEqualTypeOf<number | undefined>()
  expectTypeOf<Static['on']>().toEqualTypeOf<boolean | undefined>()
  expectTypeOf<Static['who']>().toEqualTypeOf<string | number | undefined>()
  expectTypeOf<Static['any']>().toEqualTypeOf<unknown>()
  expectTypeOf<Static['pairs']>().toEqualTypeOf<readonly (readonly string[])[] | null | undefined>()
  expectTypeOf<NonNullable<Static['inner']>['x']>().toEqualTypeOf<number>()
  const least: Static = { name: 'x', way: 'in' }
  expect(new Ajv({ strictTypes: false }).compile(toJsonSchema(MAP))(least)).toBe(true)
})

describe('in a file', () => {
  const takes = new Ajv({ strictTypes: false }).compile(toJsonSchema(MEMBERS.on, fileScalar))

  test.each([true, false, 'on', 'off', 'yes', 'no', 'true', 'false'])(
    '%j is a boolean',
    (value) => {
      expect(takes(value)).toBe(true)
    },
  )

  test.each([1, 'On', '', null])('%j is none', (value) => {
    expect(takes(value)).toBe(false)
  })
})
