/** What the commands share: paths, errors, exit codes, tables. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EMFILE } from '../abi/errno.ts'
import { ConfigError, ConfigErrors, FramepumpError } from '../errors.ts'
import { OPEN_FILES_HINT } from './open-files.ts'
import { printable } from '../switch/printable.ts'
import { explain } from '../text.ts'

export const EXIT_FAILED = 1
export const EXIT_BAD_USAGE = 2
export const EXIT_UNREACHABLE = 3
export const EXIT_MACHINE_LACKS = 77

/** The machine lacks something that a command needs: exit 77. */
export class MachineError extends FramepumpError {
  constructor(message: string, hint: string) {
    super('MACHINE_LACKS', message, { hint })
  }
}

export function defaultControlPath(): string {
  const runtime = process.env['XDG_RUNTIME_DIR']
  const base = process.getuid?.() === 0 || runtime === undefined ? '/run' : runtime
  return join(base, 'framepump', 'control.sock')
}

export function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

let writeErrorLine = (line: string): void => void process.stderr.write(`${printable(line)}\n`)

/** From now on what `reportError` says is part of a log. */
export function writeErrorsTo(write: (line: string) => void): void {
  writeErrorLine = write
}

/** Says what failed, each error in one line, and which exit code it is. */
export function reportError(error: unknown): number {
  const errors = error instanceof ConfigErrors ? error.errors : [error]
  for (const one of errors) {
    const hint = isOutOfFiles(one) ? ` (${OPEN_FILES_HINT})` : ''
    writeErrorLine(`framepump: ${explain(one)}${hint}`)
  }
  if (!(error instanceof FramepumpError)) {
    if (error instanceof Error && process.env['FRAMEPUMP_DEBUG'] !== undefined) {
      process.stderr.write(`${error.stack}\n`)
    }
    return EXIT_FAILED
  }
  if (error instanceof MachineError || error.code === 'SHIM_NOT_LOADED') return EXIT_MACHINE_LACKS
  if (error.code === 'DAEMON_UNREACHABLE') return EXIT_UNREACHABLE
  return error instanceof ConfigError ? EXIT_BAD_USAGE : EXIT_FAILED
}

/** And nothing has been said yet of what to do about it. Of what ended a thread there is the message alone. */
function isOutOfFiles(error: unknown): boolean {
  const { errno, hint, message } = (error ?? {}) as Partial<Record<string, unknown>>
  if (hint !== undefined) return false
  const isErrno = typeof errno === 'number' && Math.abs(errno) === EMFILE
  return isErrno || /\bEMFILE\b/.test(String(message))
}

/** 1234567 -> `1.23 M` */
export function formatCount(value: number): string {
  for (const [unit, size] of [
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3],
  ] as const) {
    if (value >= size) return `${(value / size).toFixed(2)} ${unit}`
  }
  return value.toFixed(0)
}

export function formatBits(bytes: number, seconds: number): string {
  return `${formatCount((bytes * 8) / Math.max(seconds, 1e-9))}bit/s`
}
