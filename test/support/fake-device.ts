/** A vhost-user device that does nothing but keep account: of calls, and of every descriptor. */
import { ProtocolError } from '../../src/errors.ts'
import type { MemoryRegion, VhostUserDevice } from '../../src/vhost-user/device.ts'
import type { QueueSetup } from '../../src/virtio/ring/device-queue.ts'
import { VhostUserSession } from '../../src/vhost-user/session.ts'

export class FakeDevice implements VhostUserDevice {
  readonly calls: unknown[][] = []
  /** Descriptors that are the device's now. */
  readonly fds = new Set<number>()
  readonly running = new Map<number, QueueSetup>()
  regions: MemoryRegion[] = []
  isClosed = false

  #note(...call: unknown[]): Promise<void> {
    this.calls.push(call)
    return Promise.resolve()
  }
  #take(...fds: number[]): void {
    for (const fd of fds) {
      if (fd < 0) continue
      if (this.fds.has(fd)) throw new Error(`descriptor ${fd} was given twice`)
      this.fds.add(fd)
    }
  }
  setFeatures(features: bigint): Promise<void> {
    return this.#note('features', features)
  }
  setMemory(regions: readonly MemoryRegion[]): Promise<void> {
    this.#take(...regions.map(({ fd }) => fd))
    this.regions = [...regions]
    return this.#note('memory', regions.length)
  }
  addMemory(region: MemoryRegion): Promise<void> {
    this.#take(region.fd)
    this.regions.push(region)
    return this.#note('add', region.guestAddress)
  }
  removeMemory(region: Omit<MemoryRegion, 'fd' | 'mmapOffset'>): Promise<void> {
    const at = this.regions.findIndex(({ guestAddress }) => guestAddress === region.guestAddress)
    if (at < 0) throw new ProtocolError('VHOST_USER_PROTOCOL', 'no such', { isFatal: false })
    this.regions.splice(at, 1)
    return this.#note('remove', region.guestAddress)
  }
  startQueue(index: number, setup: QueueSetup): Promise<void> {
    this.#take(setup.kickFd, setup.callFd)
    if (this.running.has(index)) throw new Error(`queue ${index} was started twice`)
    this.running.set(index, setup)
    return this.#note('start', index)
  }
  async stopQueue(index: number): Promise<number> {
    if (!this.running.delete(index)) throw new Error(`queue ${index} does not run`)
    await this.#note('stop', index)
    return 42
  }
  enableQueue(index: number, isEnabled: boolean): Promise<void> {
    return this.#note('enable', index, isEnabled)
  }
  setKick(index: number, fd: number): Promise<void> {
    this.#take(fd)
    return this.#note('kick', index)
  }
  setCall(index: number, fd: number): Promise<void> {
    this.#take(fd)
    return this.#note('call', index)
  }
  setQueueLog(index: number, address: number): Promise<void> {
    return this.#note('queue-log', index, address)
  }
  setLog(log: { fd: number; size: number; offset: number }): Promise<void> {
    this.#take(log.fd)
    return this.#note('log', log.size)
  }
  sendRarp(mac: Uint8Array): Promise<void> {
    return this.#note('rarp', ...mac)
  }
  setMtu(mtu: number): boolean {
    return mtu <= 9000
  }
  close(): Promise<void> {
    this.isClosed = true
    return Promise.resolve()
  }
}

export const OFFERED: bigint = (1n << 32n) | (1n << 34n) | (1n << 30n) | (1n << 26n) | (1n << 15n)

/** A session on a fake device; `closed` are the descriptors that the session itself closed. */
export class FakeConnection {
  /** The descriptor that is no eventfd. */
  static readonly noEventFd = 666
  readonly device = new FakeDevice()
  readonly closed: number[] = []
  readonly signalled: number[] = []
  readonly acked: bigint[] = []
  hasEnded = false
  readonly session: VhostUserSession

  constructor(offered: bigint = OFFERED, queuePairsMax = 2, memorySlots = 12) {
    this.session = new VhostUserSession({
      device: this.device,
      offered: () => offered,
      queuePairsMax,
      memorySlots,
      acked: (features) => this.acked.push(features),
      ended: () => (this.hasEnded = true),
      closeFd: (fd) => this.closed.push(fd),
      prepareEventFd: (fd) => fd !== FakeConnection.noEventFd,
      signalFd: (fd) => this.signalled.push(fd),
      log: () => undefined,
    })
  }

  handle(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    fds: number[] = [],
    flags = 1,
  ): Promise<Uint8Array | null> {
    return this.session.handle({ request, flags, payload }, fds)
  }
}
