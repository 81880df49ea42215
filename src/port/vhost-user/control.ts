/**
 * A vhost-user port as the control plane keeps it: its socket, the devices of the front-ends that are
 * connected, and which of them owns the engine's port.
 */
import {
  featureMask,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VIRTIO_NET_F_MQ,
} from '../../abi/virtio-features.ts'
import { ConfigError } from '../../errors.ts'
import { shim } from '../../native/shim.ts'
import type { VhostUserOptions } from '../options.ts'
import type { Log } from '../../text.ts'
import { explain } from '../../text.ts'
import type { AckedState } from '../../vhost-user/acked-store.ts'
import { AckedStore, offeredFeatures } from '../../vhost-user/acked-store.ts'
import type { FileRoom } from './memory-files.ts'
import { MEMORY_SLOTS_MAX } from '../../vhost-user/device.ts'
import { prepareEventFd } from '../../vhost-user/event-fd.ts'
import type { PassedConnection } from '../../vhost-user/listener.ts'
import { VhostUserListener } from '../../vhost-user/listener.ts'
import { VhostUserSession } from '../../vhost-user/session.ts'
import { rarpFrame } from '../../wire/rarp.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import type { DescriptorShare } from '../descriptor-budget.ts'
import { frontEndFds } from '../descriptor-budget.ts'
import { socketKeeper } from '../keeper.ts'
import type { PortCall as VirtioCall, PortDescription } from '../messages.ts'
import type { SessionState } from '../../vhost-user/session-state.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { handOverError } from '../handed.ts'
import type { RingState } from '../virtio/messages.ts'
import type { DeviceHost } from './guest-device.ts'
import type { CamePort, PortConnection } from './hand-over.ts'
import { writePort, writePosition } from './hand-over.ts'
import type { DeviceState } from './guest-state.ts'
import { negotiatedOf } from '../../virtio/net/negotiated.ts'
import { GuestDevice } from './guest-device.ts'
import { readBases } from './guest-state.ts'
import { DEVICE_FEATURES } from '../virtio/guest-features.ts'
import type { EngineAccess, ControlPort, ControlPortContext, PortFacts } from '../control-port.ts'
import { CONNECTION_UNITS, MemoryPace } from './memory-pace.ts'
import { WindowBudget } from './window-shares.ts'

const MTU_MAX = 65535

const VHOST_FEATURES: bigint =
  DEVICE_FEATURES | featureMask(VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES)
const MQ_MASK: bigint = featureMask(VIRTIO_NET_F_MQ)
const SERVABLE: bigint = VHOST_FEATURES | MQ_MASK

export class VhostUserControlPort implements ControlPort, DeviceHost {
  readonly acceptsPostponedPeer = true
  readonly description: PortDescription = { kind: 'virtio' }
  readonly queues: number
  readonly windows: WindowBudget
  readonly fileRoom: FileRoom = {
    take: () => this.#share.tryExtra(1),
    giveBack: () => this.#share.giveBackExtra(1),
  }
  readonly pace: MemoryPace = new MemoryPace()
  #options: VhostUserOptions
  readonly #context: ControlPortContext
  readonly #share: DescriptorShare
  readonly #listener: VhostUserListener
  /** Of the front-end that negotiated last, in this run or before it. */
  #acked: AckedState
  readonly #store: AckedStore
  #engine: EngineAccess | undefined
  readonly #sessions = new Map<GuestDevice, VhostUserSession>()
  #owner: GuestDevice | undefined
  /** Its connections when it was made to be silent. */
  #passed: readonly PassedConnection[] = []
  /** What it is while it is quiet, but for where its queues stand. */
  #said: HandedState | undefined
  /** Another process has it, or is about to. */
  #isLeft: boolean
  /** It was taken over, and nobody is heard yet. */
  #hasCome: boolean

  /** `came`: what another process had, of which nothing is used before `keep`. */
  constructor(
    options: VhostUserOptions,
    context: ControlPortContext,
    share: DescriptorShare,
    came?: CamePort,
  ) {
    this.windows = came?.windows ?? new WindowBudget()
    this.#isLeft = came !== undefined
    this.#hasCome = came !== undefined
    this.#share = share
    this.#options = options
    this.#context = context
    this.queues = options.queues ?? 1
    const log: Log = (message, level) => context.log(`vhost-user ${options.id}: ${message}`, level)
    this.#store = new AckedStore(context.stateDirectory, options.id, log)
    this.#acked = came?.acked ?? this.#store.load()
    // An acked feature that cannot be offered again is told now, not when the guest comes.
    this.#offered()
    if (this.#acked.queuePairs > this.queues) {
      throw new ConfigError(
        'VHOST_USER_ACKED',
        `the guest of port ${options.id} has ${this.#acked.queuePairs} queue pairs`,
        {
          path: 'queues',
          hint: `give queues=${this.#acked.queuePairs} or more, or restart the guest and remove ${this.#store.path}`,
        },
      )
    }
    this.#listener = new VhostUserListener(
      {
        id: options.id,
        path: options.path,
        isServer: options.server ?? true,
        makeSession: () => this.#makeSession(),
        waitMs: () => this.pace.waitMs(),
        log,
        keeper: socketKeeper(context.keeper, log),
        failed: context.failed,
      },
      came === undefined ? undefined : { socket: came.socket, connections: this.#goOnWith(came) },
    )
  }

  #goOnWith({ connections, isStored }: CamePort): PassedConnection[] {
    if (!isStored) this.#store.store(this.#acked)
    return connections.map(({ fd, state, device: has, session: said, isOwner }) => {
      const device = GuestDevice.of(this, has)
      if (isOwner) this.#owner = device
      return { fd, state, session: this.#sessionOf(device, said) }
    })
  }

  start(engine: EngineAccess): void {
    this.#engine = engine
    if (!this.#context.signals.neverWaits) {
      this.#context.log(
        `vhost-user ${this.#options.id}: without AIO (sysctl fs.aio-max-nr) a hostile front-end can hold the switch up`,
      )
    }
    this.#listener.start()
  }

  /** The share is for one front-end. Throws SysError DESCRIPTOR_SHARE. */
  #makeSession(): VhostUserSession {
    if (this.#sessions.size > 0) this.#share.takeExtra(frontEndFds(this.queues))
    this.pace.charge(CONNECTION_UNITS)
    return this.#sessionOf(new GuestDevice(this))
  }

  #sessionOf(device: GuestDevice, came?: SessionState): VhostUserSession {
    const session = new VhostUserSession(
      {
        device,
        offered: () => this.#offered(),
        queuePairsMax: this.queues,
        memorySlots: Math.max(MEMORY_SLOTS_MAX, this.#acked.slots),
        acked: (features) => this.#storeAcked(features),
        ended: () => this.#ended(device),
        closeFd: (fd) => void shim.close(fd),
        prepareEventFd,
        signalFd: (fd) => this.#context.signals.signal(fd),
        log: (message, level) =>
          this.#context.log(`vhost-user ${this.#options.id}: ${message}`, level),
      },
      came,
    )
    this.#sessions.set(device, session)
    return session
  }

  #ended(device: GuestDevice): void {
    this.#sessions.delete(device)
    if (this.#sessions.size > 0) this.#share.giveBackExtra(frontEndFds(this.queues))
  }

  /** What a front-end is offered now. Throws ConfigError when it acked what cannot be served. */
  #offered(): bigint {
    const multiQueue = this.queues > 1 ? MQ_MASK : 0n
    const configured = VHOST_FEATURES | multiQueue
    return offeredFeatures(SERVABLE, configured, this.#acked.features)
  }

  #storeAcked(features: bigint): void {
    const slots = Math.max(MEMORY_SLOTS_MAX, this.#acked.slots)
    if (features === this.#acked.features && this.queues === this.#acked.queuePairs) return
    this.#acked = { features, queuePairs: this.queues, slots }
    this.#store.store(this.#acked)
  }

  // --- what the devices ask ---------------------------------------------------------------------

  call(call: VirtioCall): Promise<unknown> {
    return this.#engine!.call(call)
  }

  async claim(device: GuestDevice): Promise<void> {
    if (this.#owner?.isRunning === true) {
      this.#context.log(`vhost-user ${this.#options.id}: a second front-end waits`)
      return
    }
    await this.#transfer(device)
  }

  async #transfer(to: GuestDevice): Promise<void> {
    await this.#owner?.detach()
    this.#owner = to
    await this.#engine!.newGuest()
    await to.attach()
  }

  async changed(device: GuestDevice): Promise<void> {
    // Nothing of it runs here.
    if (this.#isLeft) return
    if (this.#owner === device && !device.isRunning) await this.#handOver(device)
    await this.#engine!.changed()
  }

  /** The owner's rings have stopped: a device that waits with rings of its own takes over. */
  async #handOver(from: GuestDevice): Promise<void> {
    for (const next of this.#sessions.keys()) {
      if (next === from || !next.isRunning) continue
      try {
        await this.#transfer(next)
        this.#context.log(`vhost-user ${this.#options.id}: the waiting front-end took over`)
      } catch (error) {
        // It is not the fault of the one that hands over.
        this.#context.log(
          `vhost-user ${this.#options.id}: the waiting front-end: ${explain(error)}`,
          'warning',
        )
      }
      if (next.isRunning) return
    }
  }

  async sendRarp(mac: Uint8Array): Promise<void> {
    await this.#engine!.inject(rarpFrame(mac))
  }

  change(_before: VhostUserOptions, after: VhostUserOptions): void {
    this.#options = after
  }

  canTakeMtu(mtu: number): boolean {
    return mtu <= (this.#options.mtu ?? MTU_MAX)
  }

  // --- what the switch asks ---------------------------------------------------------------------

  get isConnected(): boolean {
    return this.#owner?.isRunning === true
  }

  get #negotiated(): ReturnType<typeof negotiatedOf> | undefined {
    return this.isConnected ? negotiatedOf(this.#owner!.features) : undefined
  }

  isPairEnabled(pair: number): boolean {
    return this.#owner?.isPairEnabled(pair) === true
  }

  get vnetHdrLength(): number {
    return this.#negotiated?.headerLength ?? 0
  }

  get txOffloads(): number {
    return (this.#negotiated?.txOffloads ?? 0) & OFFLOADS_ALL
  }

  get rxOffloads(): number {
    return (this.#negotiated?.rxOffloads ?? 0) & OFFLOADS_ALL
  }

  facts(): PortFacts {
    return { path: this.#options.path }
  }

  /**
   * No front-end takes the state of a link from its back-end: QEMU's and cloud-hypervisor's leave
   * VHOST_USER_PROTOCOL_F_CONFIG out, and DPDK's looks whether the socket is connected.
   */
  setCarrier(isUp: boolean): void {
    if (isUp || !this.isConnected) return
    const { id } = this.#options
    this.#context.log(
      `vhost-user ${id}: its guest still sees a link: it cannot be told, frames drop`,
      'warning',
    )
  }

  /** The guest whose memory is gone is sent away; one that waits has its own. */
  failed(): void {
    const session = this.#owner === undefined ? undefined : this.#sessions.get(this.#owner)
    if (session !== undefined) this.#listener.hangUp(session)
  }

  queueBroken(queue: number): void {
    if (this.#owner !== undefined) this.#sessions.get(this.#owner)?.queueBroken(queue)
  }

  whyNotHandedOver(): string | undefined {
    for (const device of this.#sessions.keys()) {
      if (device.whyNotHandedOver !== undefined) return device.whyNotHandedOver
    }
    return undefined
  }

  get fdGeneration(): number {
    return this.#listener.heard
  }

  async preview(engine: EngineAccess): Promise<HandedState> {
    const passed = await this.#listener.suspend()
    try {
      return this.#describe(passed, (await engine.call({ do: 'describe' })) as RingState[])
    } finally {
      this.#listener.resume()
    }
  }

  async quiesce(engine: EngineAccess): Promise<HandedState> {
    this.#passed = await this.#listener.suspend()
    const rings = (await engine.call({ do: 'describe' })) as RingState[]
    return (this.#said = this.#describe(this.#passed, rings))
  }

  async handOver(engine: EngineAccess): Promise<HandedState> {
    this.#isLeft = true
    this.#listener.ownsFile = false
    const rings = (await engine.call({ do: 'leave' })) as RingState[]
    return { ...this.#said!, position: writePosition(this.#connections(this.#passed, rings)) }
  }

  #describe(passed: readonly PassedConnection[], rings: readonly RingState[]): HandedState {
    // One may have come that is not.
    const why = this.whyNotHandedOver()
    if (why !== undefined) throw handOverError(this.#options.id, why)
    return writePort({
      acked: this.#acked,
      isStored: !this.#store.isWaiting,
      socket: this.#listener.socket,
      connections: this.#connections(passed, rings),
    })
  }

  #connections(
    passed: readonly PassedConnection[],
    rings: readonly RingState[],
  ): PortConnection<DeviceState>[] {
    const deviceOf = new Map([...this.#sessions].map(([device, session]) => [session, device]))
    return passed.map(({ fd, state, session }) => {
      const device = deviceOf.get(session)!
      const isOwner = device === this.#owner
      const has = device.stateWith(isOwner ? rings : [])
      return { fd, state, session: session.state, device: has, isOwner }
    })
  }

  /** The queues of its guest are started in the engine with the first call; nothing is written to them. */
  async moveOn(position: JsonValue | undefined, engine: EngineAccess): Promise<void> {
    const isFirst = this.#engine === undefined
    this.#engine = engine
    // By connection, as in the state.
    const bases = Array.isArray(position) ? position : []
    for (const [at, device] of [...this.#sessions.keys()].entries()) {
      await device.moveOn(readBases(bases[at]))
    }
    if (!isFirst) return
    await engine.call({ do: 'leave' })
    try {
      await this.#owner?.attach()
    } catch (error) {
      // Its queues that can run do, and it may start the others again.
      this.#context.log(`vhost-user ${this.#options.id}: ${explain(error)}`, 'error')
    }
  }

  async keep(engine: EngineAccess): Promise<void> {
    this.#isLeft = false
    this.#listener.ownsFile = true
    await engine.call({ do: 'keep' })
    if (this.#hasCome) this.#hasCome = false
    else this.#listener.resume()
  }

  async handedOver(): Promise<void> {
    this.#isLeft = true
    await this.#listener.letGo()
  }

  async stop(): Promise<void> {
    await this.#listener.close()
    this.#store.close()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
