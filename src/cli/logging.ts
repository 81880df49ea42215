/** The daemon's log: `component name: event key=value` lines on standard error. */
import { configure, getLogger } from '@logtape/logtape'
import { printable } from '../switch/printable.ts'

/** Bytes that wait for whoever reads the log; lines beyond them are lost, and counted. */
const LOG_BUFFER_MAX = 256 * 1024
/** How long the end of the process waits for the reader. */
const END_WAIT_MS = 500

let lost = 0

/** Writes a line to standard error, if there is room for it: nothing waits for its reader. */
export function writeLogLine(line: string): void {
  const { stderr } = process
  if (stderr.writableLength > LOG_BUFFER_MAX) {
    if (lost++ === 0) stderr.once('drain', tellLost)
    return
  }
  stderr.write(`${printable(line)}\n`)
}

function tellLost(): void {
  const count = lost
  lost = 0
  writeLogLine(`${new Date().toISOString()} log: lost lines=${count} because="nobody read it"`)
}

export async function openLog(): Promise<(message: string) => void> {
  // A switch outlives whoever read its log (EPIPE).
  process.stderr.on('error', () => undefined)
  await configure({
    sinks: {
      stderr: (record) => {
        writeLogLine(`${new Date(record.timestamp).toISOString()} ${record.message.join('')}`)
      },
    },
    loggers: [
      { category: 'framepump', sinks: ['stderr'], lowestLevel: 'info' },
      { category: ['logtape', 'meta'], sinks: ['stderr'], lowestLevel: 'error' },
    ],
  })
  const logger = getLogger('framepump')
  return (message) => logger.info('{message}', { message })
}

/**
 * From now on the process ends also with a log that nobody reads. The timer keeps nothing alive: a
 * process that has nothing more to write is gone long before.
 */
export function endLog(): void {
  setTimeout(() => process.exit(), END_WAIT_MS).unref()
}
