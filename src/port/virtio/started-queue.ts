/** A queue of a virtio port that its driver has started: what it said, and where the queue stands. */
import { shim } from '../../native/shim.ts'
import type { DeviceQueue, QueueSetup } from '../../virtio/ring/device-queue.ts'
import type { RingState } from './messages.ts'

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

  /** Its driver is called by that descriptor from now on, which is ours. */
  takeCall(fd: number): true {
    closeFd(this.callFd)
    this.callFd = fd
    return true
  }

  /** As GET_VRING_BASE tells it. */
  get standsAt(): number {
    return this.queue?.base() ?? this.base
  }

  /** Its queue is as one would be that is attached there now. */
  runsFrom(base: number): boolean {
    return this.queue !== null && this.queue.base() === base && this.queue.broken === 0
  }
}

/** Of those that run: what was put is published, as the engine is paused. */
export function ringStates(rings: readonly (StartedQueue | null)[]): RingState[] {
  const states: RingState[] = []
  for (let queue = 0; queue < rings.length; queue++) {
    const ring = rings[queue]
    if (ring === null) continue
    const { kickFd, callFd, logAddress, standsAt: base } = ring
    states.push({ queue, base, kickFd, callFd, logAddress })
  }
  return states
}

export function closeFd(fd: number): void {
  if (fd >= 0) shim.close(fd)
}
