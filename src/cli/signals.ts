/**
 * Signals from the first moment on. Node opens its inspector at SIGUSR1, without authentication, so
 * that any local user can run code as ours; a listener takes the signal away from it. What comes for a
 * daemon that is not there yet waits for it. Nothing is imported here, because it takes time.
 */

/** SIGHUP reloads, SIGTERM and SIGINT end; the others do nothing. */
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const
export type CaughtSignal = (typeof SIGNALS)[number]

/** How long, and how often, an inspector is looked for that an early signal has opened late. */
const LATE_MS = 10_000
const LATE_INTERVAL_MS = 20

const waiting: CaughtSignal[] = []
let receiver: ((signal: CaughtSignal) => void) | undefined

/** From now on these signals do not end the process; the daemon asks for them with `receiveSignals`. */
export function catchSignals(): void {
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (receiver !== undefined) receiver(signal)
      else if (!waiting.includes(signal)) waiting.push(signal)
    })
  }
}

/** Gives the signals that came so far, and all later ones, to the receiver. */
export function receiveSignals(receive: (signal: CaughtSignal) => void): void {
  receiver = receive
  for (const signal of waiting.splice(0)) receive(signal)
}

/**
 * Node's inspector is not opened by a signal any more, and closed if one was quicker than these lines.
 * One that the command line asks for (`node --inspect`) stays.
 */
export async function refuseInspector(): Promise<void> {
  process.on('SIGUSR1', () => undefined)
  const given = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].join(' ')
  if (/--inspect(-brk|-wait)?(=|\s|$)/.test(given)) return
  // A signal from before this moment waits in a thread of Node's, which opens it when it is scheduled.
  const timer = setInterval(() => void closeInspector(), LATE_INTERVAL_MS).unref()
  setTimeout(() => clearInterval(timer), LATE_MS).unref()
  await closeInspector()
}

async function closeInspector(): Promise<void> {
  try {
    if (process.getBuiltinModule('node:inspector').url() === undefined) return
    const own = await import('./inspector.ts')
    own.closeInspector()
  } catch {
    // A Node that was built without it.
  }
}
