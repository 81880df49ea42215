/** What a front-end has said about one virtqueue so far. */
import type { QueueSetup } from '../virtio/ring/device-queue.ts'
import type { VringState } from './session-state.ts'
import { PACKED_BASE_INITIAL } from '../virtio/ring/packed-driver.ts'

export class Vring {
  /** 0: not said yet. */
  size = 0
  /** -1: not said yet, where a ring begins that nobody has used. */
  base = -1
  descriptorAddress = -1
  availAddress = -1
  usedAddress = -1
  logAddress = -1
  /** Descriptors that came before the queue started; it takes them over. -1: none. */
  kickFd = -1
  callFd = -1
  /** Ours until the connection ends. */
  errFd = -1
  /** The front-end has kicked it into life, and it has not been stopped since. */
  isWanted = false
  /** The device runs it. */
  isStarted = false

  /** Goes on where another process was, with the descriptors that came. */
  static of(state: VringState): Vring {
    return Object.assign(new Vring(), state)
  }

  /** For another process. */
  get state(): VringState {
    const { size, base, descriptorAddress, availAddress, usedAddress, logAddress } = this
    const { kickFd, callFd, errFd, isWanted, isStarted } = this
    return {
      size,
      base,
      descriptorAddress,
      availAddress,
      usedAddress,
      logAddress,
      kickFd,
      callFd,
      errFd,
      isWanted,
      isStarted,
    }
  }

  get isComplete(): boolean {
    return this.isWanted && this.size > 0 && this.descriptorAddress >= 0
  }

  /** Hands the descriptors over. */
  takeSetup(isPacked: boolean): QueueSetup {
    const { size, descriptorAddress, availAddress, usedAddress, logAddress } = this
    const unused = isPacked ? PACKED_BASE_INITIAL : 0
    const base = this.base < 0 ? unused : this.base
    const { kickFd, callFd } = this
    this.kickFd = -1
    this.callFd = -1
    return {
      size,
      descriptorAddress,
      availAddress,
      usedAddress,
      logAddress,
      base,
      kickFd,
      callFd,
    }
  }

  /** Descriptors that are ours; they are no longer kept here. */
  takeFds(): number[] {
    const fds = [this.kickFd, this.callFd, this.errFd].filter((fd) => fd >= 0)
    this.kickFd = -1
    this.callFd = -1
    this.errFd = -1
    return fds
  }
}
