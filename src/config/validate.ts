/**
 * What a config file's schema says of its values. In what is built, the code that ajv makes of the schema stands
 * in this module's place (config/bundle.mjs): to load ajv and to make it cost each start 0.2 s.
 */
import type { ErrorObject, ValidateFunction } from 'ajv'
import { Ajv } from 'ajv'
import { fileScalar, toJsonSchema } from '../schema/json-schema.ts'
import { CONFIG_SCHEMA } from './schema.ts'

export const VALIDATOR_OPTIONS = { strictTypes: false, verbose: true, allErrors: true } as const

let compiled: ValidateFunction | undefined

/** All that is wrong with it. */
export function validate(raw: unknown): readonly ErrorObject[] {
  compiled ??= new Ajv(VALIDATOR_OPTIONS).compile(toJsonSchema(CONFIG_SCHEMA, fileScalar))
  compiled(raw)
  return compiled.errors ?? []
}
