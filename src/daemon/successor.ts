/** The process that replaces this one: how it is started, whoever does it. */
import { StateError } from '../errors.ts'
import type { MigrationParameters } from '../handover/progress.ts'
import type { ProcessPlace, Started } from './start-process.ts'
import { startChild, startOrphan } from './start-process.ts'
import { STARTER } from './starter.ts'

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

/**
 * What options of the successor say of the hand-over itself, on which both sides have to agree; `before`: what
 * holds without them. Of several the last one counts.
 */
export function transferOf(
  options: readonly string[],
  before: Pick<MigrationParameters, 'backendTransfer' | 'exclude'>,
): Pick<MigrationParameters, 'backendTransfer' | 'exclude'> {
  const transfer = valueOf(options, '--backend-transfer')
  const exclude = valueOf(options, '--exclude')
  return {
    backendTransfer: transfer === undefined ? before.backendTransfer : transfer !== 'off',
    exclude: exclude === undefined ? before.exclude : exclude.split(','),
  }
}

function valueOf(options: readonly string[], name: string): string | undefined {
  const at = options.findLastIndex((one) => one === name || one.startsWith(`${name}=`))
  if (at < 0) return undefined
  return options[at] === name ? options[at + 1] : options[at].slice(name.length + 1)
}

function withoutOwn(args: readonly string[]): string[] {
  const kept: string[] = []
  for (let at = 0; at < args.length; at++) {
    if (OWN_OPTIONS.includes(args[at])) at++
    else if (!OWN_OPTIONS.some((option) => args[at].startsWith(`${option}=`))) kept.push(args[at])
  }
  return kept
}

/** Of this process. */
const HERE: ProcessPlace = { stdio: ['inherit', 'inherit', 'inherit'] }

/**
 * Of a service it is not our child: what is ours when the manager is told of it the manager takes for a
 * stranger's for good, whose end it does not wait for when it stops the service.
 */
export class Successor {
  readonly pid: number | undefined
  /** Aborted, with the reason, when it ends. */
  readonly ended: AbortSignal
  readonly #process: Started
  readonly #abort: AbortController = new AbortController()

  constructor(
    { program, arguments: args, environment }: SuccessorPlan,
    place: ProcessPlace = HERE,
  ) {
    const env = { ...process.env, ...environment, [STARTER]: `${process.pid}` }
    const ended = (what: string): void => {
      const hint = 'its log says why'
      this.#abort.abort(new StateError('HAND_OVER', `the successor ${what}`, { hint }))
    }
    this.ended = this.#abort.signal
    const start = { program, args, env, place, ended }
    const isService = environment['NOTIFY_SOCKET'] !== undefined
    this.#process = (isService ? startOrphan(start) : undefined) ?? startChild(start)
    this.pid = this.#process.pid
  }

  /** It goes on without us. */
  leave(): void {
    this.#process.leave()
  }

  /** Nothing has become of it. */
  end(): void {
    this.#process.end()
    this.leave()
  }
}
