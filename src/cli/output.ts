/** Standard output and error, whose readers may go at any time: `framepump show macs | head -1`. */
import { systemReason } from '../text.ts'
import { EXIT_FAILED } from './common.ts'

let isReaderGone = false
let failure = 0
const listeners: (() => void)[] = []

/** Without this a reader that goes is an uncaught error. */
export function watchOutput(): void {
  process.stdout.on('error', failed)
  // There is nobody left to tell.
  process.stderr.on('error', () => undefined)
}

function failed(error: NodeJS.ErrnoException): void {
  if (isReaderGone) return
  // Whatever it is, nothing more can be written.
  isReaderGone = true
  // A terminal that was lost answers EIO.
  const hasGone = error.code === 'EPIPE' || (error.code === 'EIO' && process.stdout.isTTY)
  if (!hasGone) {
    process.stderr.write(`framepump: standard output: ${systemReason(error)}\n`)
    failure = EXIT_FAILED
  }
  for (const listener of listeners.splice(0)) listener()
}

/** What the exit code is at least: output that was lost is a failure, a reader that went is none. */
export function outputFailure(): number {
  return failure
}

/** For a command that goes on writing: there is no use in it any more. */
export function onReaderGone(listener: () => void): void {
  listeners.push(listener)
}

export function hasReader(): boolean {
  return !isReaderGone
}

/** Resolves when standard output has taken it, or never will. */
export function write(text: string): Promise<void> {
  return new Promise((resolve) => {
    // Called after a failure as well, when there is no `drain`.
    process.stdout.write(text, () => resolve())
  })
}
