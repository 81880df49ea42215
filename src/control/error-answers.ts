/** Errors as QMP answers: QEMU's classes and members first, then ours. */
import { FramepumpError, StateError } from '../errors.ts'
import { systemReason } from '../text.ts'

/** QEMU's, of which the class is all that programs should look at; ours is `code`. */
export const ERROR_CLASSES = {
  CommandNotFound: 'There is no such command, or `qmp_capabilities` was not said first.',
  DeviceNotFound: 'There is no such port.',
  GenericError: 'Everything else.',
} as const

export class NotFound extends StateError {
  constructor(message: string, hint?: string) {
    super('QMP_COMMAND', message, { hint })
  }
}

export function describeError(error: unknown): Record<string, string> {
  const name = errorClass(error)
  if (!(error instanceof FramepumpError)) return { class: name, desc: systemReason(error) }
  const { message, code, hint, port } = error
  return {
    class: name,
    desc: message,
    code,
    ...(hint === undefined ? {} : { hint }),
    ...(port === undefined ? {} : { port }),
  }
}

function errorClass(error: unknown): keyof typeof ERROR_CLASSES {
  if (error instanceof NotFound) return 'CommandNotFound'
  if (error instanceof FramepumpError && error.code === 'PORT_NOT_FOUND') return 'DeviceNotFound'
  return 'GenericError'
}
