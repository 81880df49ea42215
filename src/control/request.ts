/** What a client says, once it is JSON: QMP's members of a request. */
import { StateError } from '../errors.ts'

export interface Request {
  readonly execute: string
  readonly args: Readonly<Record<string, unknown>>
}

/** Of the request, whatever else is wrong with it. */
export function idOf(value: unknown): unknown {
  const isObject = value !== null && typeof value === 'object' && Object.hasOwn(value, 'id')
  return isObject ? (value as { id: unknown }).id : undefined
}

/** Throws QMP_SYNTAX, in QEMU's words. */
export function checkRequest(value: unknown): Request {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new StateError('QMP_SYNTAX', 'QMP input must be a JSON object')
  }
  let execute: string | undefined
  let args: Record<string, unknown> = {}
  for (const [key, member] of Object.entries(value)) {
    if (key === 'execute') {
      if (typeof member !== 'string') {
        throw new StateError('QMP_SYNTAX', `QMP input member 'execute' must be a string`)
      }
      execute = member
    } else if (key === 'arguments') {
      if (member === null || typeof member !== 'object' || Array.isArray(member)) {
        throw new StateError('QMP_SYNTAX', `QMP input member 'arguments' must be an object`)
      }
      args = member as Record<string, unknown>
    } else if (key !== 'id') {
      throw new StateError('QMP_SYNTAX', `QMP input member '${key}' is unexpected`)
    }
  }
  if (execute === undefined) {
    throw new StateError('QMP_SYNTAX', `QMP input lacks member 'execute'`)
  }
  return { execute, args }
}
