/** A queue of a virtio port that its driver has started: what it said, and where the queue stands. */
import type { DeviceQueue, QueueSetup } from '../../virtio/ring/device-queue.ts'

export class StartedQueue {
  readonly setup: QueueSetup
  queue: DeviceQueue | null
  kickFd: number
  callFd: number
  logAddress: number
  /** Where the queue stood when its memory went away. */
  base: number
  isToldBroken = false
  /** Has something to publish at the end of the turn. */
  isTouched = false

  constructor(setup: QueueSetup, queue: DeviceQueue | null) {
    this.setup = setup
    this.queue = queue
    this.kickFd = setup.kickFd
    this.callFd = setup.callFd
    this.logAddress = setup.logAddress
    this.base = setup.base
  }
}
