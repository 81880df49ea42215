/**
 * The daemon's log, on standard error: lines `component name: event key=value`, in one of three formats:
 *
 *     text      2026-11-29T06:04:23.001Z tap vm1: opened ifname=fp0     (in colour on a terminal)
 *     json      {"time":"...","level":"info","component":"tap","port":"vm1","message":"opened ifname=fp0"}
 *     journald  <6>tap vm1: opened ifname=fp0                           sd-daemon(3): its priority
 */
import { fstatSync } from 'node:fs'
import { configure, getLogger } from '@logtape/logtape'
import { printable, printableJson } from '../switch/printable.ts'
import type { Log, LogFormat, LogLevel } from '../text.ts'
import { writeErrorsTo } from './common.ts'

/** Bytes that wait for whoever reads the log; lines beyond them are lost, and counted. */
const LOG_BUFFER_MAX = 256 * 1024
/** How long the end of the process waits for the reader. */
const END_WAIT_MS = 500
const STDERR = 2

/** syslog(3) */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { error: 3, warning: 4, info: 6, debug: 7 }
/** SGR: red, yellow, none, dim. */
const COLOURS: Readonly<Record<LogLevel, string>> = {
  error: '31',
  warning: '33',
  info: '',
  debug: '2',
}
const DIM = '2'

export interface LogSettings {
  readonly level?: LogLevel | undefined
  /** Absent: journald when standard error is the journal, else text. */
  readonly format?: LogFormat | undefined
}

let format: LogFormat = 'text'
let isColoured = false
let lost = 0

/** A line of the log as it is written, without its end. `timeMs` absent: text without a time. */
export function formatLine(line: string, level: LogLevel, timeMs?: number): string {
  switch (format) {
    case 'journald':
      return `<${PRIORITIES[level]}>${printable(line)}`
    case 'json': {
      const time = new Date(timeMs ?? Date.now()).toISOString()
      const [, component, port, message] = /^([\w-]+)(?: ([\w.-]+))?: (.*)$/s.exec(line) ?? []
      const what = message === undefined ? { message: line } : { component, port, message }
      return printableJson({ time, level, ...what })
    }
    case 'text': {
      const time = timeMs === undefined ? '' : `${paint(new Date(timeMs).toISOString(), DIM)} `
      return time + paint(printable(line), COLOURS[level])
    }
  }
}

function paint(text: string, colour: string): string {
  return isColoured && colour !== '' ? `\u001b[${colour}m${text}\u001b[0m` : text
}

/** Writes a line to standard error, if there is room for it: nothing waits for its reader. */
export function writeLogLine(line: string, level: LogLevel = 'info', timeMs?: number): void {
  const { stderr } = process
  if (stderr.writableLength > LOG_BUFFER_MAX) {
    if (lost++ === 0) stderr.once('drain', tellLost)
    return
  }
  stderr.write(`${formatLine(line, level, timeMs)}\n`)
}

function tellLost(): void {
  const count = lost
  lost = 0
  writeLogLine(`log: lost lines=${count} because="nobody read it"`, 'warning', Date.now())
}

export async function openLog(settings: LogSettings): Promise<Log> {
  format = settings.format ?? (isJournal(process.env['JOURNAL_STREAM']) ? 'journald' : 'text')
  isColoured = wantsColour(process.env, process.stderr.isTTY)
  // A switch outlives whoever read its log (EPIPE).
  process.stderr.on('error', () => undefined)
  writeErrorsTo((line) => writeLogLine(line, 'error'))
  await configure({
    sinks: {
      stderr: ({ message, level, timestamp }) =>
        writeLogLine(message.join(''), level as LogLevel, timestamp),
    },
    loggers: [
      { category: 'framepump', sinks: ['stderr'], lowestLevel: settings.level ?? 'info' },
      { category: ['logtape', 'meta'], sinks: ['stderr'], lowestLevel: 'error' },
    ],
  })
  const logger = getLogger('framepump')
  return (message, level = 'info') => logger[level]('{message}', { message })
}

/** Standard error is the socket that systemd connected to the journal, and not something else by now. */
export function isJournal(stream: string | undefined, fd: number = STDERR): boolean {
  const [device, inode] = (stream ?? '').split(':')
  try {
    const found = fstatSync(fd, { bigint: true })
    return device === String(found.dev) && inode === String(found.ino)
  } catch {
    // Closed: nobody reads it.
    return false
  }
}

/** https://force-color.org, https://no-color.org: what is asked for goes before what is there. */
export function wantsColour(env: NodeJS.ProcessEnv, isTerminal: boolean): boolean {
  const { FORCE_COLOR: forced, NO_COLOR: none, TERM: terminal } = env
  if (forced !== undefined && forced !== '') return forced !== '0' && forced !== 'false'
  if (none !== undefined && none !== '') return false
  return isTerminal && terminal !== 'dumb'
}

/**
 * From now on the process ends also with a log that nobody reads. The timer keeps nothing alive: a
 * process that has nothing more to write is gone long before.
 */
export function endLog(): void {
  setTimeout(() => process.exit(), END_WAIT_MS).unref()
}
