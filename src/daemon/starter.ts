/**
 * Whoever has started this process in the place of a daemon: that one, or a command. One that is killed says
 * nothing to a successor, which nobody would bring the switch any more; so it is watched until that has come.
 */
import { POLLIN } from '../abi/epoll.ts'
import { StateError } from '../errors.ts'
import { shim } from '../native/shim.ts'

/** Of the environment of a successor: the process's number. */
export const STARTER = 'FRAMEPUMP_STARTER'
const LOOK_MS = 50

export class Starter {
  readonly pid: number
  /** Aborted, with the reason, when it has ended. */
  readonly gone: AbortSignal
  readonly #pidfd: number
  readonly #abort: AbortController = new AbortController()
  #watch: NodeJS.Timeout | undefined

  private constructor(pid: number) {
    this.pid = pid
    this.gone = this.#abort.signal
    // Negative: it has ended.
    this.#pidfd = shim.pidfdOpen(pid)
    this.#watch = setInterval(() => this.#look(), LOOK_MS).unref()
    this.#look()
  }

  /** Undefined: nobody who is waited for. It is not the starter of what this process starts. */
  static take(environment: NodeJS.ProcessEnv): Starter | undefined {
    const pid = Number(environment[STARTER])
    Reflect.deleteProperty(environment, STARTER)
    return pid > 0 ? new Starter(pid) : undefined
  }

  #look(): void {
    if (this.#pidfd >= 0 && (shim.poll(this.#pidfd, POLLIN, 0) & POLLIN) === 0) return
    this.#abort.abort(new StateError('HAND_OVER', 'whoever has started this process has ended'))
    this.close()
  }

  /** It is not watched any more. A second call does nothing. */
  close(): void {
    if (this.#watch === undefined) return
    clearInterval(this.#watch)
    this.#watch = undefined
    if (this.#pidfd >= 0) shim.close(this.#pidfd)
  }
}
