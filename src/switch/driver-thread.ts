/** A driver of ours for an in-process device, in a thread of its own: the main thread's end. */
import { Worker } from 'node:worker_threads'
import { StateError } from '../errors.ts'
import { makeEventFds } from '../native/event-fd.ts'
import { shim } from '../native/shim.ts'
import { atExit, WORKER_SLEEP_MAX_MS } from '../native/worker-exit.ts'
import type { DriverWorkerData } from './driver-worker.ts'

type DriverChoice = Pick<DriverWorkerData, 'mode' | 'window' | 'features' | 'pairs' | 'mac'>

export class DriverThread {
  /** Resolves when the driver has laid out its rings. */
  readonly ready: Promise<void>
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  readonly #stop: Int32Array = new Int32Array(new SharedArrayBuffer(4))
  /** One to kick the engine, one for each receiveq to call the driver. */
  readonly #fds: number[]
  /** Never given away: the others may be closed by the engine, and their numbers another's. */
  readonly #wakeFd: number
  #areGiven = false

  /** `failed` is told when the driver dies. */
  constructor(choice: DriverChoice, failed: (reason: string) => void) {
    const [wakeFd, ...fds] = makeEventFds(2 + choice.pairs)
    this.#wakeFd = wakeFd
    this.#fds = fds
    const [kickFd, ...callFds] = fds
    const workerData: DriverWorkerData = {
      ...choice,
      kickFd,
      callFds,
      wakeFd,
      sleepMaxMs: WORKER_SLEEP_MAX_MS,
      stop: this.#stop,
    }
    const worker = new Worker(new URL('./driver-worker.js', import.meta.url), { workerData })
    this.#worker = worker
    const forget = atExit(() => this.#wake())
    this.#exited = new Promise((resolve) => worker.once('exit', resolve)).finally(forget)
    this.ready = new Promise((resolve, reject) => {
      const ended = (reason: string): void => {
        const error = new StateError('VIRTIO_NET', `the driver failed: ${reason}`)
        reject(error)
        if (Atomics.load(this.#stop, 0) === 0) failed(error.message)
      }
      worker.once('message', () => resolve())
      worker.on('error', (error: Error) => ended(error.message))
      worker.on('exit', () => ended('its thread ended'))
    })
  }

  /** The engine owns these from the call on. */
  giveKickFd(): number {
    this.#areGiven = true
    return this.#fds[0]
  }

  giveCallFd(queue: number): number {
    return queue % 2 === 0 ? this.#fds[1 + queue / 2] : -1
  }

  /** The device works: the driver may begin. */
  go(): void {
    this.#worker.postMessage('go')
  }

  /** Ends the thread; the engine still has its descriptors. */
  async stop(): Promise<void> {
    this.#wake()
    this.#worker.postMessage('go')
    await this.#exited
    shim.close(this.#wakeFd)
    if (!this.#areGiven) for (const fd of this.#fds) shim.close(fd)
  }

  #wake(): void {
    Atomics.store(this.#stop, 0, 1)
    shim.eventfdWrite(this.#wakeFd)
  }
}
