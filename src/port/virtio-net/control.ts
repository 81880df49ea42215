/**
 * An in-process virtio-net port: the device is the engine's, as for a guest; the driver is the
 * program's that uses the library (api.ts, VirtioNetPort), or one of ours in a thread of its own.
 * Memory, rings and control queue are real: both sides only see what the other wrote into them.
 */
import { randomBytes } from 'node:crypto'
import {
  featureMask,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_STATUS,
} from '../../abi/virtio-features.ts'
import { VIRTIO_NET_OK, VIRTIO_NET_S_LINK_UP } from '../../abi/virtio-net.ts'
import { EINVAL } from '../../abi/errno.ts'
import { StateError, SysError } from '../../errors.ts'
import { Window } from '../../mem/window.ts'
import type { VirtioNetOptions } from '../options.ts'
import { wholeWindow } from '../../mem/guest-memory.ts'
import { explain } from '../../text.ts'
import { CALL_BY_EVENT } from '../../virtio/ring/device-queue.ts'
import { negotiatedOf } from '../../virtio/net/negotiated.ts'
import { DeviceState } from '../../virtio/device/device-state.ts'
import { has, refusedFeatures, TUNNEL_MASK, txOffloads } from '../../virtio/device/features.ts'
import { memoryLength, MEMORY_ADDRESS } from '../../virtio/driver/net-layout.ts'
import { NET_FRAME_LENGTH_MAX, NetDriver, ringSetup } from '../../virtio/driver/net-driver.ts'
import type { SavedState } from '../../virtio/device/saved-state.ts'
import { ETHER_HEADER_LENGTH, parseMac } from '../../wire/ethernet.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import type { VirtioNetConfig, VirtioNetFrame, VirtioNetPort } from '../api.ts'
import { ControlPath } from './control-path.ts'
import { DriverThread } from './driver-thread.ts'
import type { JsonValue } from '../handed.ts'
import { HandedReader, handOverError } from '../handed.ts'
import type { PortDescription } from '../messages.ts'
import { DEVICE_FEATURES } from '../virtio/guest-features.ts'
import type { EngineAccess, ControlPort, ControlPortContext, PortFacts } from '../control-port.ts'

/** ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK. VIRTIO 1.3 §2.1. */
const DEVICE_RUNS = 0x0f

const IN_PROCESS_FEATURES: bigint =
  DEVICE_FEATURES |
  featureMask(
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  ) |
  TUNNEL_MASK
const MULTI_QUEUE: bigint = featureMask(VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS)
const MTU_MASK: bigint = featureMask(VIRTIO_NET_F_MTU)

export class VirtioNetControlPort implements ControlPort, VirtioNetPort {
  readonly acceptsPostponedPeer = true
  readonly description: PortDescription = { kind: 'virtio' }
  readonly queues: number
  readonly #options: VirtioNetOptions
  readonly #context: ControlPortContext
  readonly #window: Window
  readonly #state: DeviceState
  #engine: EngineAccess | undefined
  #driver: NetDriver | undefined
  #control: ControlPath | undefined
  #thread: DriverThread | undefined
  /** Settles when our driver runs, or will not. */
  #starting: Promise<void> | undefined
  #called: (() => void)[] = []
  #isClosed = false

  constructor(options: VirtioNetOptions, context: ControlPortContext) {
    this.#options = options
    this.#context = context
    this.queues = options.queues ?? 1
    const mac = context.left === undefined ? randomMac() : macOf(options.id, context.left)
    const multiQueue = this.queues > 1 ? MULTI_QUEUE : 0n
    const mtu = options.mtu === undefined ? MTU_MASK : 0n
    const offered = (IN_PROCESS_FEATURES | multiQueue) & ~mtu
    this.#state = new DeviceState({ offered, maxPairs: this.queues, mac })
    // A memfd, so that it could be given to somebody else as well.
    const length = memoryLength(2 * this.queues + 1)
    this.#window = Window.mapMemfd('framepump-virtio-net', length)
  }

  get virtioNetPort(): VirtioNetPort {
    return this
  }

  start(engine: EngineAccess): void {
    this.#engine = engine
    const { driver } = this.#options
    if (driver === undefined) return
    this.#starting = this.#startThread(driver).catch((error: Error) => {
      if (!this.#isClosed) this.#context.failed(explain(error))
    })
  }

  // --- the driver's side of the API ---------------------------------------------------------------

  get offered(): bigint {
    return this.#state.limits.offered
  }

  get features(): bigint {
    return this.#state.features
  }

  get config(): VirtioNetConfig {
    const { filter, status, limits } = this.#state
    return { mac: filter.mac, status, maxPairs: limits.maxPairs, mtu: this.#options.mtu }
  }

  async negotiate(features: bigint): Promise<bigint> {
    this.#assertNoThread()
    const accepted = this.#accept(features)
    await this.reset()
    this.#state.negotiate(accepted)
    await this.#run()
    return accepted
  }

  #accept(features: bigint): bigint {
    const wanted = features & this.offered
    return wanted & ~refusedFeatures(wanted)
  }

  async reset(): Promise<void> {
    this.#assertNoThread()
    await this.#engine!.call({ do: 'reset' })
    this.#driver = undefined
    this.#endControl()
    this.#state.reset()
    await this.#engine!.changed()
  }

  #endControl(): void {
    this.#control?.close()
    this.#control = undefined
  }

  /** Queues anew, in the state that `#state` has. */
  async #run(): Promise<void> {
    const { features } = this.#state
    this.#driver = new NetDriver({
      buffer: this.#window.buffer,
      features,
      pairs: this.queues,
      kick: this.#context.wake,
    })
    this.#driver.disableCalls()
    if (has(features, VIRTIO_NET_F_CTRL_VQ)) {
      this.#control = new ControlPath(this.#window, this.#state)
    }
    await this.#attach(() => ({ kickFd: -1, callFd: CALL_BY_EVENT }))
    await this.#applyState()
  }

  /** Has the engine work on the rings that the driver laid out. */
  async #attach(
    give: (queue: number) => { readonly kickFd: number; readonly callFd: number },
  ): Promise<void> {
    const engine = this.#engine!
    const { features } = this.#state
    await engine.call({ do: 'negotiate', negotiated: negotiatedOf(features) })
    await engine.call({ do: 'memory', regions: [wholeWindow(this.#window, MEMORY_ADDRESS)] })
    for (let queue = 0; queue < 2 * this.queues; queue++) {
      const setup = { ...ringSetup(queue, features), ...give(queue), logAddress: -1 }
      if ((await engine.call({ do: 'start', queue, setup })) !== true) {
        throw new StateError('VIRTIO_NET', `queue ${queue} cannot be started`)
      }
    }
  }

  /** What commands and saved states change. */
  async #applyState(): Promise<void> {
    const engine = this.#engine!
    const { features, offloads, filter, rss, pairs } = this.#state
    const negotiated = { ...negotiatedOf(features), txOffloads: txOffloads(offloads) }
    await engine.call({ do: 'negotiate', negotiated })
    await engine.call({ do: 'filter', filter: filter.settings })
    await engine.call({ do: 'rss', rss: rss.config })
    for (let queue = 0; queue < 2 * this.queues; queue++) {
      await engine.call({ do: 'enable', queue, isEnabled: queue < 2 * pairs })
    }
    this.#state.deviceStatus = DEVICE_RUNS
    await engine.changed()
  }

  get #running(): NetDriver {
    this.#assertNoThread()
    if (this.#driver !== undefined) return this.#driver
    throw new StateError('VIRTIO_NET', `port "${this.#options.id}" has not been negotiated`, {
      hint: 'negotiate(features) first',
    })
  }

  #assertNoThread(): void {
    if (this.#isClosed) throw new StateError('PORT_CLOSED', `port "${this.#options.id}" is closed`)
    if (this.#options.driver === undefined) return
    throw new StateError(
      'VIRTIO_NET',
      `port "${this.#options.id}" has a driver: ${this.#options.driver}`,
    )
  }

  send(frame: Uint8Array, options: { header?: Uint8Array; queue?: number } = {}): boolean {
    const driver = this.#running
    const { header, queue = 0 } = options
    if (frame.length < ETHER_HEADER_LENGTH || frame.length > NET_FRAME_LENGTH_MAX) {
      throw new StateError('FRAME_LENGTH', `a frame of ${frame.length} bytes`)
    }
    if (queue < 0 || queue >= this.#state.pairs) {
      throw new StateError('VIRTIO_NET', `queue ${queue} of ${this.#state.pairs} in use`)
    }
    if (header !== undefined && header.length !== driver.headerLength) {
      throw new StateError('VIRTIO_NET', `a header of ${header.length} bytes`, {
        hint: `${driver.headerLength} were negotiated`,
      })
    }
    const offset = driver.reserve(queue)
    if (offset < 0) return false
    if (header !== undefined) driver.bytes.set(header, offset - header.length)
    driver.bytes.set(frame, offset)
    driver.submit(queue, frame.length)
    driver.flush(queue)
    return true
  }

  receive(): VirtioNetFrame | null {
    const driver = this.#running
    for (let queue = 0; queue < this.queues; queue++) {
      if (!driver.receive(queue)) continue
      const { bytes, headerOffset, headerLength, frameOffset, frameLength } = driver
      const header = bytes.slice(headerOffset, headerOffset + headerLength)
      const frame = bytes.slice(frameOffset, frameOffset + frameLength)
      driver.release(queue)
      driver.flush(queue)
      return { frame, header, queue }
    }
    return null
  }

  async next(options: { readonly signal?: AbortSignal } = {}): Promise<VirtioNetFrame> {
    const { signal } = options
    for (;;) {
      signal?.throwIfAborted()
      const received = this.receive()
      if (received !== null) return received
      const called = new Promise<void>((resolve) => this.#called.push(resolve))
      const aborted = (): void => this.driverCalled()
      signal?.addEventListener('abort', aborted, { once: true })
      const driver = this.#running
      if (!driver.enableCalls()) await called
      // Each call is a message from the engine: only while a driver waits for it.
      driver.disableCalls()
      signal?.removeEventListener('abort', aborted)
    }
  }

  /** The engine has put something into a receiveq whose driver asked to be told. */
  driverCalled(): void {
    for (const resolve of this.#called.splice(0)) resolve()
  }

  async control(command: Uint8Array): Promise<number> {
    this.#assertNoThread()
    if (this.#control === undefined) {
      throw new StateError('VIRTIO_NET', 'there is no control queue', {
        hint: 'negotiate VIRTIO_NET_F_CTRL_VQ',
      })
    }
    const ack = this.#control.execute(command)
    if (ack === VIRTIO_NET_OK) await this.#applyState()
    return ack
  }

  saveState(): SavedState {
    return this.#state.saveState()
  }

  /** Its driver comes to the rest by itself. */
  left(): JsonValue {
    return { mac: this.saveState().mac }
  }

  async loadState(saved: unknown): Promise<void> {
    this.#assertNoThread()
    this.#probePeer()
    // Checked, and nothing changed when it is wrong, before the queues go.
    this.#state.loadState(saved)
    const state = this.saveState()
    await this.reset()
    this.#state.loadState(state)
    await this.#run()
  }

  /** The peer may be open only since a moment: what is offered follows what it is now (F5). */
  #probePeer(): void {
    try {
      this.#engine!.probePeer()
    } catch (error) {
      throw cannotLoad((error as Error).message)
    }
  }

  // --- one of our drivers -------------------------------------------------------------------------

  async #startThread(mode: NonNullable<VirtioNetOptions['driver']>): Promise<void> {
    // Our drivers have no use for tunnels, which would make the header longer.
    const unused = featureMask(VIRTIO_NET_F_CTRL_VQ) | TUNNEL_MASK
    this.#state.negotiate(this.#accept(this.offered & ~unused))
    const { features } = this.#state
    const { mac } = this.#state.filter
    const window = this.#window.id
    const thread = new DriverThread(
      { mode, window, features, pairs: this.queues, mac },
      this.#context.failed,
    )
    this.#thread = thread
    await thread.ready
    if (this.#isClosed) return
    this.#state.pairs = this.queues
    await this.#attach((queue) => thread.give(queue))
    await this.#applyState()
    thread.go()
  }

  // --- what the switch asks -----------------------------------------------------------------------

  get isConnected(): boolean {
    return this.#state.deviceStatus !== 0
  }

  isPairEnabled(pair: number): boolean {
    return pair < this.#state.pairs
  }

  get vnetHdrLength(): number {
    return this.isConnected ? negotiatedOf(this.#state.features).headerLength : 0
  }

  get txOffloads(): number {
    return this.isConnected ? txOffloads(this.#state.offloads) & OFFLOADS_ALL : 0
  }

  get rxOffloads(): number {
    return this.isConnected ? negotiatedOf(this.#state.features).rxOffloads & OFFLOADS_ALL : 0
  }

  facts(): PortFacts {
    return {}
  }

  setCarrier(isUp: boolean): void {
    if (isUp) this.#state.status |= VIRTIO_NET_S_LINK_UP
    else this.#state.status &= ~VIRTIO_NET_S_LINK_UP
  }

  async stop(): Promise<void> {
    this.#isClosed = true
    this.driverCalled()
    // Whoever is still on the way in has the memory and the descriptors as well.
    await this.#starting
    await this.#thread?.stop()
    await this.#engine?.call({ do: 'reset' })
  }

  close(): Promise<void> {
    this.#isClosed = true
    this.#endControl()
    this.#window.unmap()
    return Promise.resolve()
  }
}

function cannotLoad(reason: string): SysError {
  return new SysError('VIRTIO_NET', `the state cannot be loaded: ${reason}`, { errno: EINVAL })
}

function randomMac(): Uint8Array {
  const mac = new Uint8Array(randomBytes(6))
  // Locally administered, no group.
  mac[0] = (mac[0] & 0xfc) | 0x02
  return mac
}

/** That of the device in whose place this one comes. */
function macOf(id: string, left: JsonValue): Uint8Array {
  const address = parseMac(new HandedReader(id, left).string('mac'))
  if (address === undefined) throw handOverError(id, '"mac" of its state is no address')
  const mac = new DataView(new ArrayBuffer(6))
  mac.setInt32(0, address[0], true)
  mac.setInt16(4, address[1], true)
  return new Uint8Array(mac.buffer)
}
