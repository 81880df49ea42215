/** The daemon's log: `component name: event key=value` lines on standard error. */
import { configure, getLogger } from '@logtape/logtape'

export async function openLog(): Promise<(message: string) => void> {
  // A switch outlives whoever read its log (EPIPE).
  process.stderr.on('error', () => undefined)
  await configure({
    sinks: {
      stderr: (record) => {
        const time = new Date(record.timestamp).toISOString()
        process.stderr.write(`${time} ${record.message.join('')}\n`)
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
