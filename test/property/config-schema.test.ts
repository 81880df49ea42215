/** The JSON Schema for editors and the daemon's own checks say the same of a config file. */
import { readdirSync, readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { OPTION_TABLE } from '../../src/port/kinds.control.ts'
import type { OptionRule } from '../../src/schema/value.ts'

// What one option says about another no schema says.
vi.mock('../../src/port/kinds.control.ts', async (original) => ({
  ...(await original<object>()),
  checkOptions: () => undefined,
}))

const CONFIG = new URL('../../config/', import.meta.url)
const validate = new Ajv({ allowUnionTypes: true, strictTypes: false }).compile(
  JSON.parse(readFileSync(new URL('framepump.schema.json', CONFIG), 'utf8')) as object,
)

const isValid = (file: unknown): boolean => validate(file)

/** JSON is YAML. */
function isAccepted(file: unknown): boolean {
  try {
    parseConfig(JSON.stringify(file), 'x.yaml')
    return true
  } catch (error) {
    if (error instanceof ConfigError) return false
    throw error
  }
}

const booleans = ['on', 'off', 'yes', 'no', 'true', 'false', 'none', 'On', '']
const numbers = ['1', '64', '2k', '3M', '1X', '-1', '1.5', ' 1', '0x1f', '010']
const files = ['.', '..', '...', 'a/b', 'a:b', 'a b', 'a\tb', 'a\0b', 'a\n', '/run/x.sock']
const names = ['tap%d', '%d', '%d%d', 'x%s', '100%', '3:4', ':', 'recorded', 'full', 'echo']
const lengths = [15, 16, 62, 63, 64, 107, 108].map((length) => 'x'.repeat(length))
const lists = [1024, 1025].map((count) => Array.from({ length: count }, () => '3').join(':'))
const words = [booleans, numbers, files, names, lengths, lists].flat()
const anything = fc.oneof(
  fc.constantFrom(...words),
  fc.string({ maxLength: 20 }),
  fc.string({ maxLength: 20, unit: 'grapheme' }),
  fc.integer({ min: -3, max: 300 }),
  fc.constantFrom(0.5, 2.0, 1e3, 65_535, 65_536, 262_144, 262_145, 2 ** 31 - 1, 2 ** 31, 2 ** 53),
  fc.boolean(),
  fc.constantFrom(null, [], ['x'], {}, { a: 1 }),
)

const entry = fc.constantFrom(
  0,
  9,
  4095,
  4096,
  '10',
  '20-30',
  '0e',
  '010',
  '02:00:00:00:00:01',
  '02-00-00-00-00-02',
  '02:00:00-00:00:03',
  'access',
  'x',
  '',
)

/** Near what it may be, so that it often is. */
function near(rule: OptionRule): fc.Arbitrary<unknown> {
  if (rule.kind === 'list')
    return fc.oneof(
      fc.array(entry),
      fc.array(entry).map((all) => all.join(':')),
    )
  if (rule.kind === 'map') {
    return fc.dictionary(fc.constantFrom(...Object.keys(rule.members), 'x'), entry)
  }
  const { kind, range, values } = rule
  if (values !== undefined) return fc.constantFrom(...values)
  if (range !== undefined) {
    return fc
      .tuple(fc.constantFrom(...range), fc.integer({ min: -1, max: 1 }), fc.boolean())
      .map(([bound, more, isText]) => (isText ? String(bound + more) : bound + more))
  }
  return kind === 'boolean'
    ? fc.oneof(fc.boolean(), fc.constantFrom('on', 'off', 'yes', 'no', 'true', 'false'))
    : fc.oneof(fc.constantFrom('x', 'fp0', '/x'), fc.integer({ min: 0, max: 99 }), fc.boolean())
}

const port = fc.constantFrom(...Object.keys(OPTION_TABLE)).chain((type) => {
  const options = Object.entries(OPTION_TABLE[type]).map(([key, rule]) =>
    fc.tuple(fc.constant(key), fc.oneof(near(rule), anything)),
  )
  const required = Object.entries(OPTION_TABLE[type]).flatMap(([key, rule]) =>
    rule.required === true ? [[key, key === 'id' ? 'a' : 'x']] : [],
  )
  return fc
    .tuple(
      fc.array(fc.oneof(...options), { maxLength: 3 }),
      fc.array(fc.tuple(fc.constantFrom('ifnam', 'queue', 'x', 'toString'), anything), {
        maxLength: 1,
      }),
      fc.integer({ min: 0, max: 9 }),
    )
    .map(([given, unknown, roll]): Record<string, unknown> =>
      Object.fromEntries([
        // Now and then the type is another, or what is required is missing.
        ...(roll === 0 ? [] : [['type', roll === 1 ? 'tun' : type]]),
        ...(roll === 2 ? [] : required),
        ...given,
        ...(roll < 5 ? unknown : []),
      ]),
    )
})

/** A schema counts no bytes, no digits of a number, and takes no number out of a text. */
function isBeyondSchemas(options: Readonly<Record<string, unknown>>): boolean {
  return Object.values(options).some((value) =>
    typeof value === 'number'
      ? String(value).length > 15
      : typeof value === 'string' && /^\d+[A-Za-z]?$|[^\0-\x7f]/.test(value),
  )
}

test('a port that the schema takes is one that the daemon takes, and the reverse', () => {
  const seen = { valid: 0, invalid: 0 }
  fc.assert(
    fc.property(port, (options) => {
      const file = { ports: [options] }
      const isTaken = isAccepted(file)
      if (isTaken || !isBeyondSchemas(options)) expect(isValid(file)).toBe(isTaken)
      seen[isTaken ? 'valid' : 'invalid']++
    }),
    { numRuns: 10_000 },
  )
  expect(Math.min(seen.valid, seen.invalid)).toBeGreaterThan(1000)
})

test('the schema takes the examples, and every option with its default', () => {
  const examples = new URL('examples/', CONFIG)
  for (const name of readdirSync(examples)) {
    const file: unknown = parse(readFileSync(new URL(name, examples), 'utf8'))
    expect(isValid(file), `${name} ${JSON.stringify(validate.errors)}`).toBe(true)
  }
  for (const [type, rules] of Object.entries(OPTION_TABLE)) {
    for (const [key, { default: value }] of Object.entries(rules)) {
      if (value === undefined) continue
      const file = { ports: [{ type, id: 'a', path: '/x', [key]: value }] }
      if (type !== 'vhost-user') delete (file.ports[0] as { path?: string }).path
      expect([key, isAccepted(file), isValid(file)]).toEqual([key, true, true])
    }
  }
})
