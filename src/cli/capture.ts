/**
 * framepump capture: has a daemon write a live capture into a descriptor that we open here, with our
 * own permissions, and hand over.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs'
import { extname } from 'node:path'
import { isatty } from 'node:tty'
import { ControlClient } from '../control/client.ts'
import { ConfigError, SysError } from '../errors.ts'
import type { CaptureDirection, CaptureSummary } from '../switch/api.ts'
import { printable, printableJson } from '../switch/printable.ts'
import { counted, systemReason } from '../text.ts'
import { defaultControlPath, EXIT_FAILED } from './common.ts'

export interface CaptureCommandOptions {
  readonly control?: string
  readonly interface?: string
  readonly direction?: CaptureDirection
  readonly write: string
  readonly snaplen?: number
  readonly count?: number
  readonly json?: boolean
}

export async function capture(options: CaptureCommandOptions): Promise<number> {
  const isStdout = options.write === '-'
  if (isStdout && isatty(1)) {
    throw new ConfigError('BAD_OPTION', 'standard output is a terminal', {
      hint: 'pipe it, as in: framepump capture -w - | wireshark -k -i -',
    })
  }
  const client = await ControlClient.connect(options.control ?? defaultControlPath())
  try {
    const file = isStdout ? undefined : openFile(options.write)
    return await captureBy(client, options, file?.fd ?? 1, () => file?.remove())
  } finally {
    client.close()
  }
}

/** `refused` is called when there will be no capture. */
async function captureBy(
  client: ControlClient,
  options: CaptureCommandOptions,
  fd: number,
  refused: () => void,
): Promise<number> {
  const isStdout = options.write === '-'
  const { interface: ports, direction, snaplen, count } = options
  try {
    await client.execute('getfd', { fdname: 'capture' }, fd)
  } catch (error) {
    refused()
    throw error
  } finally {
    // The daemon has its own: with ours closed, a reader sees the end when the daemon is done.
    closeSync(fd)
  }
  // Every client is told of every capture's end; ours may come before we know its id.
  let id: number | undefined
  const early: (CaptureSummary & { id: number })[] = []
  let resolveEnded: (summary: CaptureSummary) => void = () => undefined
  const ended = new Promise<CaptureSummary>((resolve, reject) => {
    resolveEnded = resolve
    client.events.on('event', (name, data) => {
      if (name !== 'CAPTURE_ENDED') return
      const summary = data as unknown as CaptureSummary & { id: number }
      if (id === undefined) early.push(summary)
      else if (summary.id === id) resolve(summary)
    })
    client.events.on('close', () =>
      reject(new SysError('CAPTURE_LOST', 'the daemon ended during the capture')),
    )
  })
  ended.catch(() => undefined)
  const starting = client.execute('capture-start', {
    fd: 'capture',
    ...(isStdout ? {} : { truncate: true }),
    format: extname(options.write) === '.pcap' ? 'pcap' : 'pcapng',
    ...(ports === undefined ? {} : { ports: ports.split(',') }),
    ...(direction === undefined ? {} : { direction }),
    ...(snaplen === undefined ? {} : { snaplen }),
    ...(count === undefined ? {} : { count }),
  }) as Promise<{ id: number }>
  const started = await starting.catch((error: unknown) => {
    refused()
    throw error
  })
  id = started.id
  const already = early.find((summary) => summary.id === id)
  if (already !== undefined) resolveEnded(already)
  const stop = (): void => {
    client.execute('capture-stop', { id }).catch(() => undefined)
  }
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  if (!isStdout) {
    const line = printable(`framepump: capturing to ${options.write}, ctrl-C ends it`)
    process.stderr.write(`${line}\n`)
  }
  return report(await ended, options)
}

interface CaptureFile {
  readonly fd: number
  /** Undoes that it was made here; one that was there before has been left as it was. */
  remove(): void
}

/** Not truncated: that is done when the daemon has accepted the capture. */
function openFile(path: string): CaptureFile {
  const { O_WRONLY, O_CREAT, O_EXCL } = constants
  try {
    const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    const { ino } = fstatSync(fd)
    return { fd, remove: () => removeOwn(path, ino) }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw unopened(path, cause)
  }
  try {
    return { fd: openSync(path, O_WRONLY | O_CREAT, 0o600), remove: () => undefined }
  } catch (cause) {
    throw unopened(path, cause)
  }
}

function removeOwn(path: string, ino: number): void {
  try {
    if (lstatSync(path).ino === ino) unlinkSync(path)
  } catch {
    // Somebody removed it before.
  }
}

function unopened(path: string, cause: unknown): SysError {
  const { errno } = cause as NodeJS.ErrnoException
  return new SysError('CAPTURE_FILE', `cannot create ${path}: ${systemReason(cause)}`, {
    syscall: 'open',
    errno: Math.abs(errno ?? 0),
    path,
    cause,
  })
}

function report(summary: CaptureSummary, options: CaptureCommandOptions): number {
  const { frames, dropped, error } = summary
  if (options.json === true) process.stderr.write(`${printableJson(summary)}\n`)
  else process.stderr.write(`framepump: ${counted(frames, 'frame')} captured, ${dropped} dropped\n`)
  // Whoever reads standard output ends the capture by going.
  const isWanted = options.write === '-' && error?.startsWith('the reader closed') === true
  if (error === undefined || isWanted) return 0
  process.stderr.write(`${printable(`framepump: capture ended: ${error}`)}\n`)
  return EXIT_FAILED
}
