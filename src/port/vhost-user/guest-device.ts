/**
 * The device behind one vhost-user connection: it keeps what the front-end said, and passes it on to
 * the engine's port while it owns that. A second front-end of the same port (a guest that migrates
 * from one QEMU to another) has a device of its own, which waits until the first one's rings stop.
 *
 *     VhostUserSession -> GuestDevice -> (owner only) engine: VirtioEnginePort
 */
import { ProtocolError, StateError } from '../../errors.ts'
import { shim } from '../../native/shim.ts'
import { VHOST_F_LOG_ALL } from '../../abi/virtio-features.ts'
import type { DirtyLogFile, MemoryRegion, VhostUserDevice } from '../../vhost-user/device.ts'
import type { QueueSetup } from '../../virtio/ring/device-queue.ts'
import { has } from '../../virtio/device/features.ts'
import { negotiatedOf } from '../../virtio/net/negotiated.ts'
import type { RingState, VirtioCall } from '../virtio/messages.ts'
import type { MappedRegion } from './guest-mapping.ts'
import { mapLog, mapRegion, unmapLog, unmapRegions } from './guest-mapping.ts'
import type { FileRoom } from './memory-files.ts'
import { MemoryFiles } from './memory-files.ts'
import type { CameDevice, DeviceState } from './guest-state.ts'
import type { MemoryPace } from './memory-pace.ts'
import type { WindowBudget } from './window-shares.ts'

/** Who decides which device owns the port, and carries out what it says. */
export interface DeviceHost {
  /** Shared by all devices of the port. */
  readonly windows: WindowBudget
  readonly fileRoom: FileRoom
  /** Told what changes of their memory cost. */
  readonly pace: MemoryPace
  /** Has the engine's port do something between two turns. */
  call(call: VirtioCall): Promise<unknown>
  /** This device runs a queue: it is attached now, or when the owner's rings have stopped. */
  claim(device: GuestDevice): Promise<void>
  /** Queues of this device started or stopped, or its features changed. */
  changed(device: GuestDevice): Promise<void>
  sendRarp(mac: Uint8Array): Promise<void>
  canTakeMtu(mtu: number): boolean
}

/** Windows that mapping them takes, if it is done: also what is refused in the end has its price. */
function windowsOf(regions: readonly MemoryRegion[]): number {
  return regions.reduce((sum, { size }) => sum + Math.min(512, Math.ceil(size / 2 ** 30)), 0)
}

export class GuestDevice implements VhostUserDevice {
  features = 0n
  readonly #host: DeviceHost
  #isOwner = false
  #regions: readonly MappedRegion[] = []
  readonly #files: MemoryFiles
  /** Queues that run; those of a device that waits are started when it becomes the owner. */
  readonly #queues = new Map<number, QueueSetup>()
  /** Those of them whose descriptors are the engine's. */
  readonly #started = new Set<number>()
  readonly #enabled = new Set<number>()
  #logWindow = -1
  /** What is mapped there; its descriptor is one of the files, or was not kept (-1). */
  #logFile: DirtyLogFile | null = null
  /** What was to be replaced when the engine failed: it may have either, until it has let go of all. */
  readonly #doubtfulRegions: MappedRegion[] = []
  readonly #doubtfulLogs: number[] = []

  constructor(host: DeviceHost) {
    this.#host = host
    this.#files = new MemoryFiles(host.fileRoom)
  }

  /** As another process had it, but that it is not attached: see guest-state.ts. */
  static of(host: DeviceHost, came: CameDevice): GuestDevice {
    const device = new GuestDevice(host)
    device.features = came.features
    device.#regions = came.regions.map((region) => ({
      ...region,
      file: device.#files.keep(region.file),
    }))
    for (const [queue, setup] of came.queues) device.#queues.set(queue, setup)
    for (const queue of came.enabled) device.#enabled.add(queue)
    device.#logWindow = came.logWindow
    if (came.logFile !== null) device.#keepLog(came.logFile)
    return device
  }

  /** What it is, for another process; `rings`: of those queues whose descriptors the engine has. */
  stateWith(rings: readonly RingState[]): DeviceState {
    const ringOf = new Map(rings.map((ring) => [ring.queue, ring]))
    return {
      features: this.features,
      regions: this.#regions,
      queues: [...this.#queues].map(([queue, setup]) => {
        const ring = this.#started.has(queue) ? ringOf.get(queue) : undefined
        return [queue, ring === undefined ? setup : { ...setup, ...ring }]
      }),
      enabled: [...this.#enabled],
      logFile: this.#logFile,
    }
  }

  /** Of one that came: its queues stand there. Throws when one of them is not told, or cannot. */
  async moveOn(bases: ReadonlyMap<number, number>): Promise<void> {
    for (const [queue, setup] of this.#queues) {
      const base = bases.get(queue)
      if (base === undefined) throw new StateError('HAND_OVER', `queue ${queue} stands nowhere`)
      this.#queues.set(queue, { ...setup, base })
    }
    const isMoved = await this.#call({ do: 'bases', bases: [...bases] })
    if (isMoved !== false) return
    throw new StateError('HAND_OVER', 'its rings are not in its memory any more')
  }

  /** Why no other process could map its memory; undefined: it could. */
  get whyNotHandedOver(): string | undefined {
    const isKept = this.#regions.every(({ file }) => file >= 0) && (this.#logFile?.fd ?? 0) >= 0
    if (isKept) return undefined
    return 'there was no room for the descriptors of its guest’s memory'
  }

  /** The bitmap may be there before and after the migration. */
  get #activeLog(): number {
    return has(this.features, VHOST_F_LOG_ALL) ? this.#logWindow : -1
  }

  get isRunning(): boolean {
    return this.#queues.size > 0
  }

  /** Frames for the guest can go by it. */
  isPairEnabled(pair: number): boolean {
    return this.#enabled.has(2 * pair)
  }

  /**
   * Takes the engine's port over and brings it to where this device is. Queues that cannot run are
   * no queues any more; the error is thrown when the others run.
   */
  async attach(): Promise<void> {
    this.#isOwner = true
    // At once: the engine does them one after the other, and frames may wait for it.
    await Promise.all([
      this.#call({ do: 'negotiate', negotiated: negotiatedOf(this.features) }),
      this.#call({ do: 'memory', regions: this.#regions }),
      this.#call({ do: 'log', window: this.#activeLog }),
      ...[...this.#enabled].map((queue) => this.#call({ do: 'enable', queue, isEnabled: true })),
    ])
    const starts = [...this.#queues].map(([queue, setup]) => this.#start(queue, setup))
    const failed = (await Promise.allSettled(starts)).find(({ status }) => status === 'rejected')
    if (failed !== undefined) throw (failed as PromiseRejectedResult).reason
  }

  /** Leaves the engine's port empty; no queue of this device runs. */
  async detach(): Promise<void> {
    if (!this.#isOwner) return
    await this.#call({ do: 'reset' })
    this.#isOwner = false
    this.#started.clear()
  }

  async #call(call: VirtioCall): Promise<unknown> {
    if (!this.#isOwner) return undefined
    try {
      return await this.#host.call(call)
    } catch (error) {
      // An engine that is gone has let go of everything.
      if (error instanceof StateError && error.code === 'ENGINE_FAILED') return undefined
      throw error
    }
  }

  async setFeatures(features: bigint): Promise<void> {
    this.features = features
    await this.#call({ do: 'negotiate', negotiated: negotiatedOf(features) })
    await this.#call({ do: 'log', window: this.#activeLog })
    if (this.#isOwner) await this.#host.changed(this)
  }

  async setMemory(regions: readonly MemoryRegion[]): Promise<void> {
    const mapped: MappedRegion[] = []
    this.#host.pace.charge(1 + windowsOf(regions))
    try {
      for (const region of regions) {
        mapped.push(mapRegion(region, this.#host.windows, this.#files))
      }
    } catch (error) {
      this.#unmap(mapped)
      // The one that failed has been closed, those behind it have not.
      for (const { fd } of regions.slice(mapped.length + 1)) shim.close(fd)
      throw error
    }
    await this.#replaceMemory(mapped, this.#regions)
  }

  async addMemory(region: MemoryRegion): Promise<void> {
    this.#host.pace.charge(1 + windowsOf([region]))
    const added = mapRegion(region, this.#host.windows, this.#files)
    await this.#replaceMemory([...this.#regions, added], [])
  }

  async removeMemory(region: Omit<MemoryRegion, 'fd' | 'mmapOffset'>): Promise<void> {
    const isIt = (own: MappedRegion): boolean =>
      own.guestAddress === region.guestAddress &&
      own.userAddress === region.userAddress &&
      own.size === region.size
    const gone = this.#regions.filter(isIt)
    if (gone.length === 0) {
      throw new ProtocolError('VHOST_USER_PROTOCOL', 'no such memory region', { isFatal: false })
    }
    await this.#replaceMemory(
      this.#regions.filter((own) => !isIt(own)),
      gone,
    )
  }

  /** The engine lets go of the old memory first; then it is unmapped, at once. */
  async #replaceMemory(
    regions: readonly MappedRegion[],
    gone: readonly MappedRegion[],
  ): Promise<void> {
    this.#host.pace.charge(this.#started.size)
    this.#regions = regions
    try {
      await this.#call({ do: 'memory', regions })
    } catch (error) {
      this.#doubtfulRegions.push(...gone)
      throw error
    }
    this.#unmap(gone)
  }

  #unmap(regions: readonly MappedRegion[]): void {
    unmapRegions(regions, this.#host.windows)
    for (const { file } of regions) this.#files.giveBack(file)
  }

  async startQueue(index: number, setup: QueueSetup): Promise<void> {
    this.#host.pace.charge(1)
    // Before it is claimed: whoever attaches the device starts all that it has.
    this.#queues.set(index, setup)
    if (this.#isOwner) await this.#start(index, setup)
    else await this.#host.claim(this)
    await this.#host.changed(this)
  }

  async #start(queue: number, setup: QueueSetup): Promise<void> {
    this.#started.add(queue)
    if ((await this.#call({ do: 'start', queue, setup })) === true) return
    this.#started.delete(queue)
    this.#queues.delete(queue)
    throw new ProtocolError(
      'VHOST_USER_PROTOCOL',
      `the rings of queue ${queue} are not in the guest's memory`,
    )
  }

  async stopQueue(index: number): Promise<number> {
    const setup = this.#queues.get(index)
    if (setup === undefined) return 0
    this.#queues.delete(index)
    let base = setup.base
    if (this.#started.delete(index)) {
      base = (await this.#call({ do: 'stop', queue: index })) as number
    } else for (const fd of [setup.kickFd, setup.callFd]) if (fd >= 0) shim.close(fd)
    await this.#host.changed(this)
    return base
  }

  async enableQueue(index: number, isEnabled: boolean): Promise<void> {
    if (isEnabled) this.#enabled.add(index)
    else this.#enabled.delete(index)
    await this.#call({ do: 'enable', queue: index, isEnabled })
    if (this.#isOwner) await this.#host.changed(this)
  }

  async setCall(index: number, fd: number): Promise<void> {
    const setup = this.#queues.get(index)
    if (this.#started.has(index)) {
      await this.#call({ do: 'call', queue: index, fd })
      return
    }
    if (setup === undefined) {
      if (fd >= 0) shim.close(fd)
      return
    }
    if (setup.callFd >= 0) shim.close(setup.callFd)
    this.#queues.set(index, { ...setup, callFd: fd })
  }

  async setKick(index: number, fd: number): Promise<void> {
    const setup = this.#queues.get(index)
    if (this.#started.has(index)) {
      await this.#call({ do: 'kick', queue: index, fd })
    } else if (setup !== undefined) {
      if (setup.kickFd >= 0) shim.close(setup.kickFd)
      this.#queues.set(index, { ...setup, kickFd: fd })
    } else if (fd >= 0) shim.close(fd)
  }

  async setQueueLog(index: number, logAddress: number): Promise<void> {
    const setup = this.#queues.get(index)
    if (setup !== undefined) this.#queues.set(index, { ...setup, logAddress })
    await this.#call({ do: 'queue-log', queue: index, logAddress })
  }

  async setLog(log: DirtyLogFile): Promise<void> {
    let window: number
    try {
      window = mapLog(log, this.#host.windows)
    } catch (error) {
      shim.close(log.fd)
      throw error
    }
    const old = this.#logWindow
    this.#closeLogFile()
    this.#logWindow = window
    this.#keepLog(log)
    try {
      await this.#call({ do: 'log', window: this.#activeLog })
    } catch (error) {
      if (old >= 0) this.#doubtfulLogs.push(old)
      throw error
    }
    if (old >= 0) unmapLog(old, this.#host.windows)
  }

  #keepLog(log: DirtyLogFile): void {
    this.#logFile = { ...log, fd: this.#files.keep(log.fd) }
  }

  #closeLogFile(): void {
    if (this.#logFile !== null) this.#files.giveBack(this.#logFile.fd)
    this.#logFile = null
  }

  sendRarp(mac: Uint8Array): Promise<void> {
    return this.#host.sendRarp(mac)
  }

  setMtu(mtu: number): boolean {
    return this.#host.canTakeMtu(mtu)
  }

  /** In one turn of the engine none of its queues runs any more; the rest may take its time. */
  async close(): Promise<void> {
    const waiting = [...this.#queues].filter(([index]) => !this.#started.has(index))
    const regions = [...this.#regions, ...this.#doubtfulRegions.splice(0)]
    const logs = this.#doubtfulLogs.splice(0)
    if (this.#logWindow >= 0) logs.push(this.#logWindow)
    const isNews = this.#isOwner || this.isRunning
    this.#queues.clear()
    this.#enabled.clear()
    this.#regions = []
    this.#logWindow = -1
    this.#closeLogFile()
    try {
      await this.detach()
    } finally {
      for (const [, { kickFd, callFd }] of waiting) {
        for (const fd of [kickFd, callFd]) if (fd >= 0) shim.close(fd)
      }
      this.#unmap(regions)
      for (const log of logs) unmapLog(log, this.#host.windows)
    }
    if (isNews) await this.#host.changed(this)
  }
}
