/**
 * A thread of ours, from the side that started it: it is woken out of the kernel when the process exits,
 * and its end is told once, with the reason when nobody has asked for it.
 */
import type { TransferListItem } from 'node:worker_threads'
import { Worker } from 'node:worker_threads'
import { atExit } from './worker-exit.ts'

/** Why a thread ended that was to go on. */
export interface WorkerFailure {
  readonly reason: string
  readonly cause?: unknown
}

export interface WorkerEvents<Message> {
  message(message: Message): void
  /** It runs no more. `failure`: by an error, or nobody has asked it to end. */
  ended(failure?: WorkerFailure): void
}

export class WorkerThread<Request, Message> {
  readonly #worker: Worker
  readonly #wake: () => void
  readonly #exited: Promise<void>
  #isEnding = false
  #hasEnded = false

  /**
   * `wake` has it leave its loop, if that is in the kernel; it throws nothing. Throws what `Worker`
   * does: then nothing of `workerData` was given away. `given`: what of it becomes the thread's.
   */
  constructor(
    entry: URL,
    workerData: object,
    events: WorkerEvents<Message>,
    wake: () => void = () => undefined,
    given: TransferListItem[] = [],
  ) {
    this.#wake = wake
    this.#worker = new Worker(entry, { workerData, transferList: given })
    const ended = (failure?: WorkerFailure): void => {
      if (this.#hasEnded) return
      this.#hasEnded = true
      events.ended(failure)
    }
    const forget = atExit(wake)
    this.#worker.on('message', (message: Message) => events.message(message))
    this.#worker.on('error', (cause: Error) => ended({ reason: cause.message, cause }))
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        forget()
        ended(this.#isEnding ? undefined : { reason: 'its thread ended' })
        resolve()
      })
    })
  }

  post(request: Request): void {
    this.#worker.postMessage(request)
  }

  /** Has it end; resolves when it has. `ask`: how it is asked, if not only by waking it. */
  async end(ask: () => unknown = this.#wake): Promise<void> {
    this.#isEnding = true
    await ask()
    await this.#exited
  }
}
