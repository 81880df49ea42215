/** The end of a process that shall not depend on anything: when an orderly end takes too long. */
import { writeSync } from 'node:fs'
import { shim } from '../native/shim.ts'
import { EXIT_FAILED } from './common.ts'
import { formatLine } from './logging.ts'

/** For closing everything, after a signal or `quit`: scripts run, devices get their shape back. */
export const CLOSE_MS = 5000
/** For closing what is left after a failure; whoever restarts the daemon waits. */
export const FAILED_CLOSE_MS = 1500

const STDERR = 2
const POLLOUT = 4

/** Ends the process after that time, if it is still there. */
export function endWithin(ms: number, what: string): void {
  setTimeout(() => endNow(`${what} took more than ${ms / 1000} s`), ms).unref()
}

/** Ends the process: exit hooks remove sockets' files, and nobody waits for a thread. */
export function endNow(reason: string): never {
  const line = `${formatLine(`framepump: forced end: ${reason}`, 'error')}\n`
  // A reader that does not read must not stop us now.
  if ((shim.poll(STDERR, POLLOUT, 0) & POLLOUT) !== 0) {
    try {
      writeSync(STDERR, line)
    } catch {
      // Nobody reads it.
    }
  }
  process.once('exit', () => shim.exit(EXIT_FAILED))
  return process.exit(EXIT_FAILED)
}
