/** Child processes of tests: run to the end, or in the background until the test is over. */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** Runs a program; throws with its standard error when it fails. Returns standard output. */
export function sh(program: string, ...args: string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.status !== 0) {
    const why = result.error?.message ?? result.stderr.trim()
    throw new Error(`${program} ${args.join(' ')}: ${why}`)
  }
  return result.stdout
}

/** The arguments in a command line without quotes. */
export const words = (line: string): string[] => line.split(' ')

/** Waits until a condition holds, polling; fails with `what` when it does not in time. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 40_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    // Before the look: who had no processor for a while looks once more.
    const isLate = performance.now() > deadline
    if (await condition()) return
    if (isLate) throw new Error(`timed out waiting until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** SO_ACCEPTCON in /proc/net/unix. */
const LISTENS = '00010000'

/** Somebody listens on the Unix socket: its file is there a moment before. */
export function isListening(path: string): boolean {
  const sockets = readFileSync('/proc/net/unix', 'utf8').split('\n')
  return sockets.some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === LISTENS)
}

/** A process in the background; its output is collected. */
export class Background {
  readonly child: ChildProcess
  stdout = ''
  stderr = ''
  readonly exited: Promise<number>

  /** It has the descriptors `passed` as 3, 4 and so on. */
  constructor(
    program: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
    passed: readonly number[] = [],
  ) {
    this.child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe', ...passed],
      env: { ...process.env, ...env },
    })
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => (this.stdout += text))
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
    // Who has ended hears nothing any more.
    this.child.stdin!.on('error', () => undefined)
    this.exited = new Promise((resolve) => {
      this.child.once('close', (code, signal) => resolve(code ?? (signal === null ? -1 : 128)))
      this.child.once('error', () => resolve(-1))
    })
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  /** Sends a signal and waits for the end; returns the exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    if (this.isRunning) this.child.kill(signal)
    return this.exited
  }
}
