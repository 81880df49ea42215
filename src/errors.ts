/**
 * What framepump throws. Match on `code`, not on the class or the text: each code has a row in the
 * README (meaning, cause, what to do).
 */
import { getSystemErrorName } from 'node:util'

export interface FramepumpErrorOptions {
  /** What the user can do about it; the CLI prints it in brackets. */
  readonly hint?: string | undefined
  readonly cause?: unknown
}

export class FramepumpError extends Error {
  readonly code: string
  readonly hint: string | undefined

  constructor(code: string, message: string, options: FramepumpErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = code
    this.hint = options.hint
  }
}

/** A config file, an option string or an API argument is wrong. */
export class ConfigError extends FramepumpError {
  /** Where in the config, as `ports[2].ifname`; empty when it is not about one key. */
  readonly path: string

  constructor(
    code: string,
    message: string,
    options: FramepumpErrorOptions & { readonly path?: string } = {},
  ) {
    super(code, message, options)
    this.path = options.path ?? ''
  }
}

/** The operating system refused something. */
export class SysError extends FramepumpError {
  readonly syscall: string | undefined
  /** Positive errno, undefined when no system call was involved. */
  readonly errno: number | undefined
  readonly ifname: string | undefined
  readonly path: string | undefined

  constructor(
    code: string,
    message: string,
    options: FramepumpErrorOptions & {
      readonly syscall?: string
      readonly errno?: number
      readonly ifname?: string | undefined
      readonly path?: string | undefined
    } = {},
  ) {
    super(code, message, options)
    this.syscall = options.syscall
    this.errno = options.errno
    this.ifname = options.ifname
    this.path = options.path
  }
}

/** A vhost-user peer broke the protocol. `isFatal`: its connection ends. */
export class ProtocolError extends FramepumpError {
  readonly isFatal: boolean

  constructor(
    code: string,
    message: string,
    options: FramepumpErrorOptions & { readonly isFatal?: boolean } = {},
  ) {
    super(code, message, options)
    this.isFatal = options.isFatal ?? true
  }
}

/** The API was used in a state that does not allow it. */
export class StateError extends FramepumpError {}

/** The errno name (`EBUSY`) of a negative return value of the shim. */
export function errnoName(result: number): string {
  const name = getSystemErrorName(result)
  // libuv does not know all of Linux's: EBADFD is what a TAP answers when its device is gone.
  return name.startsWith('Unknown') ? (result === -77 ? 'EBADFD' : `errno ${-result}`) : name
}
