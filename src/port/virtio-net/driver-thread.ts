/** A driver of ours for an in-process device, in a thread of its own: the main thread's end. */
import { StateError } from '../../errors.ts'
import { makeEventFds } from '../../native/event-fd.ts'
import { shim } from '../../native/shim.ts'
import { WORKER_SLEEP_MAX_MS } from '../../native/worker-exit.ts'
import { WorkerThread } from '../../native/worker-thread.ts'
import type { DriverWorkerData } from './driver-worker.ts'

type DriverChoice = Pick<DriverWorkerData, 'mode' | 'window' | 'features' | 'pairs' | 'mac'>

export class DriverThread {
  /** Resolves when the driver has laid out its rings. */
  readonly ready: Promise<void>
  readonly #thread: WorkerThread<'go', 'ready'>
  readonly #stop: Int32Array = new Int32Array(new SharedArrayBuffer(4))
  /** One to kick the engine, then one for each receiveq to call the driver. */
  readonly #fds: readonly number[]
  /** Those that the engine has not been given, and the one that it never is. */
  readonly #own: Set<number>
  /** Never given away: the others may be closed by the engine, and their numbers another's. */
  readonly #wakeFd: number

  /** `failed` is told when the driver dies. */
  constructor(choice: DriverChoice, failed: (reason: string) => void) {
    const [wakeFd, ...fds] = makeEventFds(2 + choice.pairs)
    this.#wakeFd = wakeFd
    this.#fds = fds
    this.#own = new Set([wakeFd, ...fds])
    const [kickFd, ...callFds] = fds
    const workerData: DriverWorkerData = {
      ...choice,
      kickFd,
      callFds,
      wakeFd,
      sleepMaxMs: WORKER_SLEEP_MAX_MS,
      stop: this.#stop,
    }
    let isReady!: () => void
    let isOver!: (error: Error) => void
    this.ready = new Promise((resolve, reject) => {
      isReady = resolve
      isOver = reject
    })
    try {
      this.#thread = new WorkerThread<'go', 'ready'>(
        new URL('../virtio-net/driver-worker.js', import.meta.url),
        workerData,
        {
          message: () => isReady(),
          ended: (failure) => {
            const reason = failure?.reason ?? 'it was stopped'
            const error = new StateError('VIRTIO_NET', `the driver failed: ${reason}`)
            isOver(error)
            if (Atomics.load(this.#stop, 0) === 0) failed(error.message)
          },
        },
        () => this.#wake(),
      )
    } catch (error) {
      this.#closeOwn()
      throw error
    }
  }

  /** The descriptors for a queue: the engine's, once it has been asked to start it. */
  give(queue: number): { readonly kickFd: number; readonly callFd: number } {
    const kickFd = queue === 1 ? this.#fds[0] : -1
    const callFd = queue % 2 === 0 ? this.#fds[1 + queue / 2] : -1
    this.#own.delete(kickFd)
    this.#own.delete(callFd)
    return { kickFd, callFd }
  }

  /** The device works: the driver may begin. */
  go(): void {
    this.#thread.post('go')
  }

  /** Ends the thread; the engine still has its descriptors. */
  async stop(): Promise<void> {
    await this.#thread.end(() => {
      this.#wake()
      // One that has not begun yet begins, and finds that it shall end.
      this.#thread.post('go')
    })
    this.#closeOwn()
  }

  #closeOwn(): void {
    for (const fd of this.#own) shim.close(fd)
    this.#own.clear()
  }

  #wake(): void {
    Atomics.store(this.#stop, 0, 1)
    shim.eventfdWrite(this.#wakeFd)
  }
}
