/** The process that replaces this one: how it is started, whoever does it. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { StateError } from '../errors.ts'

/** Options that are for the start of this process only, each with a value. */
const OWN_OPTIONS = ['--incoming', '--backend-transfer', '--exclude', '--wait-fd']

export interface SuccessorPlan {
  readonly program: string
  readonly arguments: readonly string[]
  /** Beyond what the environment is now. */
  readonly environment: Readonly<Record<string, string>>
}

/**
 * As this process was started (`argv`, of Node's options as well), to take over by `uri`; `more`: options of
 * `run`, which come last.
 */
export function planSuccessor(
  argv: readonly string[],
  uri: string,
  exclude: readonly string[],
  more: readonly string[],
  environment: Readonly<Record<string, string>>,
): SuccessorPlan {
  const [program, script, ...args] = argv
  const excluded = exclude.length === 0 ? [] : ['--exclude', exclude.join(',')]
  const own = [...withoutOwn(args), '--incoming', uri, ...excluded]
  return { program, arguments: [...process.execArgv, script, ...own, ...more], environment }
}

function withoutOwn(args: readonly string[]): string[] {
  const kept: string[] = []
  for (let at = 0; at < args.length; at++) {
    if (OWN_OPTIONS.includes(args[at])) at++
    else if (!OWN_OPTIONS.some((option) => args[at].startsWith(`${option}=`))) kept.push(args[at])
  }
  return kept
}

export class Successor {
  /** Aborted, with the reason, when it ends. */
  readonly ended: AbortSignal
  readonly #child: ChildProcess
  readonly #abort: AbortController = new AbortController()

  /** With the standard streams, directory and session of this process. */
  constructor({ program, arguments: args, environment }: SuccessorPlan) {
    const env = { ...process.env, ...environment }
    this.#child = spawn(program, args, { stdio: 'inherit', env })
    this.ended = this.#abort.signal
    this.#child.once('error', (error) => this.#end(`cannot be started: ${error.message}`))
    this.#child.once('exit', (code, signal) => this.#end(`has ended (${signal ?? `exit ${code}`})`))
  }

  #end(what: string): void {
    const hint = 'its log says why'
    this.#abort.abort(new StateError('HAND_OVER', `the successor ${what}`, { hint }))
  }

  /** It goes on without us. */
  leave(): void {
    this.#child.unref()
  }

  /** Nothing has become of it. */
  end(): void {
    this.#child.kill()
    this.leave()
  }
}
