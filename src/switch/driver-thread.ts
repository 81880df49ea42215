/** A driver of ours for an in-process device, in a thread of its own: the main thread's end. */
import { Worker } from 'node:worker_threads'
import { makeEventFds } from '../native/event-fd.ts'
import { shim } from '../native/shim.ts'
import type { DriverWorkerData } from './driver-worker.ts'

type DriverChoice = Pick<DriverWorkerData, 'mode' | 'window' | 'features' | 'pairs' | 'mac'>

export class DriverThread {
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  readonly #stop: Int32Array
  readonly #fds: number[]
  #areGiven = false

  private constructor(worker: Worker, stop: Int32Array, fds: number[]) {
    this.#worker = worker
    this.#exited = new Promise((resolve) => worker.once('exit', resolve))
    this.#stop = stop
    this.#fds = fds
  }

  /** Resolves when the driver has laid out its rings. */
  static async start(choice: DriverChoice): Promise<DriverThread> {
    // One to kick the engine, one for each receiveq to call the driver.
    const fds = makeEventFds(1 + choice.pairs)
    const stop = new Int32Array(new SharedArrayBuffer(4))
    const [kickFd, ...callFds] = fds
    const workerData: DriverWorkerData = { ...choice, kickFd, callFds, stop }
    const worker = new Worker(new URL('./driver-worker.js', import.meta.url), { workerData })
    const thread = new DriverThread(worker, stop, fds)
    await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    return thread
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
    Atomics.store(this.#stop, 0, 1)
    this.#worker.postMessage('go')
    shim.eventfdWrite(this.#fds[1])
    await this.#exited
    if (!this.#areGiven) for (const fd of this.#fds) shim.close(fd)
  }
}
