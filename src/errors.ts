/**
 * What framepump throws. Match on `code`, not on the class or the text: each code has a row in
 * errors.md (meaning, cause, what to do).
 */

export interface FramepumpErrorOptions {
  /** What the user can do about it; the CLI prints it in brackets. */
  readonly hint?: string | undefined
  readonly cause?: unknown
}

export class FramepumpError extends Error {
  readonly code: string
  readonly hint: string | undefined
  /** The port that it is about, if it is known: texts that are QEMU's do not name it. */
  port: string | undefined

  constructor(code: string, message: string, options: FramepumpErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = code
    this.hint = options.hint
    this.port = undefined
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

/** Several that were found in one go; the text has all of them. */
export class ConfigErrors extends ConfigError {
  readonly errors: readonly ConfigError[]

  constructor(errors: readonly ConfigError[]) {
    const texts = errors.map(({ message, hint }) =>
      hint === undefined ? message : `${message} (${hint})`,
    )
    super(errors[0].code, texts.join('; '), { path: errors[0].path })
    this.errors = errors
  }
}

/** Runs a check; the errors that it finds join the list. Returns what it returns, if it finds none. */
export function gather<T>(errors: ConfigError[], check: () => T): T | undefined {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    errors.push(...(error instanceof ConfigErrors ? error.errors : [error]))
    return undefined
  }
}

/** Throws them, if there are any: one as itself, several together. */
export function throwGathered(errors: readonly ConfigError[]): void {
  if (errors.length === 1) throw errors[0]
  if (errors.length > 1) throw new ConfigErrors(errors)
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
