/**
 * The switch as its user sees it: ports, links, captures, run state. Everything here is control
 * plane; the frames are the engine's (engine.ts), which is asked through EngineClient.
 *
 * Changes run one after another, each to its end: a port is never half added.
 */
import { EventEmitter } from 'node:events'
import { ConfigError, StateError } from '../errors.ts'
import { chooseTier } from '../io/probe.ts'
import type { PortOptions } from '../port/options.ts'
import { clearCounters } from '../stats/port-counters.ts'
import type {
  Capture,
  CaptureOptions,
  IoTierName,
  KernelCounters,
  MacEntry,
  MemoryPort,
  PortInfo,
  RunState,
  Switch,
  SwitchCounters,
  VirtioNetPort,
  SwitchEvents,
  SwitchOptions,
} from './api.ts'
import { CaptureSet } from './capture-set.ts'
import { closeEntries } from './close-entry.ts'
import { EngineClient } from './engine-client.ts'
import { openAllOrNone } from './all-or-none.ts'
import { LimitedLog } from './log-limit.ts'
import { agreeOffloads } from './offload-agreement.ts'
import { LinkWatcher } from './link-watcher.ts'
import { checkWirable, freeIndex, listLinks, listMacs, PortEntry, whyFailed } from './port-entry.ts'
import { PostponedSwitchPort, postponePort } from './postponed-port.ts'
import { checkSwitchOptions } from './switch-options.ts'
import type { EngineAccess, OpenPort, OpenPortContext } from './switch-port.ts'
import { MemorySwitchPort, openPort } from './switch-port.ts'
import { TapFollower } from './tap-follower.ts'
import { VirtioNetSwitchPort } from './virtio-net-port.ts'

export interface CreateSwitchOptions extends SwitchOptions {
  /** Told what happens that nobody asked for, one line each. Default: silent. */
  readonly log?: (message: string) => void
}

/** Makes an empty switch and starts its engine. */
export function createSwitch(options: CreateSwitchOptions = {}): Switch {
  checkSwitchOptions(options)
  return new UserspaceSwitch(options)
}

class UserspaceSwitch implements Switch {
  readonly events: EventEmitter<SwitchEvents> = new EventEmitter()
  readonly io: IoTierName
  readonly ioReason?: string
  runState: RunState

  /** Made to take over from another instance. */
  readonly #isIncoming: boolean
  #isSignalled = false
  #closing: Promise<void> | undefined
  readonly #engine: EngineClient
  readonly #limitedLog: LimitedLog
  readonly #log: (message: string) => void
  readonly #stateDirectory: string | undefined
  readonly #ports = new Map<string, PortEntry>()
  readonly #byIndex: (PortEntry | undefined)[] = []
  readonly #captures: CaptureSet
  readonly #taps: TapFollower
  readonly #watcher: LinkWatcher
  /** The end of the queue of changes. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: CreateSwitchOptions) {
    const tier = chooseTier(options.io ?? 'auto')
    this.io = tier.name
    if (tier.reason !== undefined) this.ioReason = tier.reason
    this.#limitedLog = new LimitedLog(options.log ?? (() => undefined))
    this.#log = this.#limitedLog.log
    this.#stateDirectory = options.stateDirectory
    this.#isIncoming = options.incoming ?? false
    this.runState = this.#isIncoming ? 'inmigrate' : 'running'
    this.#engine = new EngineClient(
      {
        io: tier.name,
        pace: options.pace ?? 'adaptive',
        macAgingS: options.macAgingS ?? 300,
        macTableSize: options.macTableSize ?? 8192,
        dropsReservedGroups: options.groupAddresses === '802.1D',
      },
      {
        portFailed: (index, errno) => this.#portFailed(index, errno),
        queueBroken: (index, queue, reason) => this.#queueBroken(index, queue, reason),
        driverCalled: (index) => this.#byIndex[index]?.open.driverCalled?.(),
        failed: (error) => {
          this.runState = 'shutdown'
          this.events.emit('engine-failed', error)
          void this.close()
        },
      },
    )
    this.#captures = new CaptureSet(this.#engine)
    this.#taps = new TapFollower(this.#engine, this.#log)
    this.#watcher = new LinkWatcher(this.#engine, this.events, this.#log)
    // Before the first port is there. When it fails the engine is gone, and says so itself.
    if (this.#isIncoming) this.#engine.request({ op: 'pause' }).catch(() => undefined)
  }

  addPort(options: PortOptions, given: ReadonlyMap<string, number> = new Map()): Promise<PortInfo> {
    return this.#change(async () => {
      const { id } = options
      if (this.#ports.has(id)) throw new ConfigError('DUPLICATE_ID', `Duplicate ID '${id}'`)
      const index = freeIndex(this.#byIndex)
      const isWaiting = this.runState === 'inmigrate'
      const postponed = postponePort(options, isWaiting)
      const isOpenedNow = typeof postponed === 'string'
      const open: OpenPort = isOpenedNow
        ? await openPort(options, this.#openContext(id, given))
        : postponed
      const reason = isOpenedNow && isWaiting ? postponed : undefined
      const entry = new PortEntry(index, options, open, reason)
      clearCounters(this.#engine.counters, index)
      this.#ports.set(id, entry)
      this.#byIndex[index] = entry
      try {
        // Before the first frame, so that none needs what this port cannot take.
        void this.#agree()
        await this.#engine.request({
          op: 'add-port',
          port: index,
          mtu: options.mtu ?? 0,
          txOffloads: open.txOffloads,
          description: open.description,
        })
        await this.#captures.add(entry)
        this.#watcher.add(entry)
        if (open.isConnected !== undefined) await this.#setEngineLink(entry)
        open.start?.(this.#engineAccess(entry))
      } catch (error) {
        await this.#forget(entry)
        await open.close()
        throw error
      }
      const info = this.#info(entry)
      this.events.emit('port-added', info)
      return info
    })
  }

  #openContext(id: string, given: ReadonlyMap<string, number> = new Map()): OpenPortContext {
    return {
      given,
      log: this.#log,
      wake: this.#engine.wake,
      signals: this.#engine.signals,
      stateDirectory: this.#stateDirectory,
      failed: (reason) => this.#portStopped(id, reason),
      takesOver: this.runState === 'inmigrate',
    }
  }

  removePort(id: string): Promise<void> {
    return this.#change(async () => {
      const entry = this.#entry(id)
      await entry.open.stop?.()
      await this.#engine.request({ op: 'remove-port', port: entry.index })
      if (entry.peer !== undefined) entry.peer.peer = undefined
      await this.#forget(entry)
      await entry.open.close()
      this.events.emit('port-removed', id)
    })
  }

  setLink(id: string, up: boolean): Promise<void> {
    return this.#change(async () => {
      const entry = this.#entry(id)
      entry.link = up
      await this.#setEngineLink(entry)
      entry.open.setCarrier(up)
      this.#watcher.look(entry)
      this.events.emit('port-changed', this.#info(entry))
    })
  }

  addLink(a: string, b: string): Promise<void> {
    return this.#change(async () => {
      const [first, second] = [this.#entry(a), this.#entry(b)]
      checkWirable(first, second)
      for (const [one, other] of [
        [first, second],
        [second, first],
      ]) {
        const isWaiting = one.open instanceof PostponedSwitchPort
        if (isWaiting && !other.open.acceptsPostponedPeer) await this.#openPostponed(one)
      }
      await this.#engine.request({ op: 'wire', a: first.index, b: second.index })
      first.peer = second
      second.peer = first
      await this.#agree()
    })
  }

  removeLink(a: string, b: string): Promise<void> {
    return this.#change(async () => {
      const [first, second] = [this.#entry(a), this.#entry(b)]
      if (first.peer !== second) {
        throw new ConfigError('BAD_LINK', `"${a}" and "${b}" are not wired to each other`)
      }
      first.peer = undefined
      second.peer = undefined
      // Back on the switch they may meet ports that can take less.
      await this.#agree()
      await this.#engine.request({ op: 'unwire', a: first.index, b: second.index })
    })
  }

  ports(): PortInfo[] {
    this.#watcher.drain()
    return [...this.#ports.values()].map((entry) => this.#info(entry))
  }

  port(id: string): PortInfo {
    this.#watcher.drain()
    return this.#info(this.#entry(id))
  }

  kernelCounters(id: string): KernelCounters | undefined {
    return this.#watcher.kernelCounters(this.#entry(id))
  }

  memoryPort(id: string): MemoryPort {
    const { open } = this.#entry(id)
    if (open instanceof MemorySwitchPort) return open.endpoint
    throw new StateError('NOT_A_MEMORY_PORT', `port "${id}" is not a memory port`)
  }

  virtioNetPort(id: string): VirtioNetPort {
    const { open } = this.#entry(id)
    if (open instanceof VirtioNetSwitchPort) return open
    throw new StateError('VIRTIO_NET', `port "${id}" is not a virtio-net port`)
  }

  links(): [string, string][] {
    return listLinks(this.#ports.values())
  }

  async macTable(): Promise<MacEntry[]> {
    const entries: MacEntry[] = []
    for await (const page of this.macTablePages()) for (const entry of page) entries.push(entry)
    return entries
  }

  async *macTablePages(): AsyncGenerator<readonly MacEntry[]> {
    for await (const rows of this.#engine.macTable()) yield listMacs(rows, this.#byIndex)
  }

  counters(): SwitchCounters {
    return this.#engine.switchCounters()
  }

  pause(): Promise<void> {
    return this.#change(async () => {
      if (this.runState !== 'running') return
      await this.#engine.request({ op: 'pause' })
      this.runState = 'paused'
    })
  }

  resume(): Promise<void> {
    return this.#change(async () => {
      if (this.runState === 'running') return
      if (this.runState === 'inmigrate') {
        if (!this.#isSignalled) {
          const reason = 'ports are still postponed until the pre-incoming point'
          throw new StateError('INCOMING', reason, { hint: 'migrate-incoming first' })
        }
        await this.#openAllPostponed()
      }
      await this.#engine.request({ op: 'resume' })
      this.runState = 'running'
      await this.#agree()
    })
  }

  migrateIncoming(): Promise<void> {
    return this.#change(async () => {
      if (this.#isSignalled) {
        throw new StateError('INCOMING', 'The incoming migration has already been started')
      }
      if (!this.#isIncoming) {
        throw new StateError('INCOMING', `'-incoming' was not specified on the command line`)
      }
      await this.#openAllPostponed()
      this.#isSignalled = true
    })
  }

  /** In the order in which they were added, which is the order of the map. */
  async #openAllPostponed(): Promise<void> {
    const waiting = [...this.#ports.values()].filter(
      ({ open }) => open instanceof PostponedSwitchPort,
    )
    const postponed = new Map(waiting.map((entry) => [entry, entry.open]))
    await openAllOrNone(
      waiting,
      (entry) => this.#openPostponed(entry),
      (entry) => this.#postponeAgain(entry, postponed.get(entry)!),
    )
  }

  async #openPostponed(entry: PortEntry): Promise<void> {
    const postponed = entry.open as PostponedSwitchPort
    const { id } = entry.options
    const open = await postponed.open(this.#openContext(id))
    entry.open = open
    entry.wasConnected = open.isConnected
    try {
      await this.#replaceInEngine(entry)
      if (!entry.link) open.setCarrier(false)
      this.#watcher.add(entry)
      open.start?.(this.#engineAccess(entry))
    } catch (error) {
      await this.#postponeAgain(entry, postponed)
      throw error
    }
    this.events.emit('port-changed', this.#info(entry))
  }

  async #postponeAgain(entry: PortEntry, postponed: OpenPort): Promise<void> {
    const { open } = entry
    await open.stop?.()
    this.#watcher.remove(entry)
    entry.open = postponed
    entry.failure = undefined
    entry.wasConnected = undefined
    await this.#replaceInEngine(entry)
    await open.close()
    this.events.emit('port-changed', this.#info(entry))
  }

  async #replaceInEngine(entry: PortEntry): Promise<void> {
    const { index, open } = entry
    const { txOffloads, description } = open
    await this.#engine.request({ op: 'replace-port', port: index, txOffloads, description })
    await this.#agree()
    await this.#setEngineLink(entry)
  }

  startCapture(options: CaptureOptions): Promise<Capture> {
    return this.#change(() => {
      for (const id of options.ports ?? []) this.#entry(id)
      return this.#captures.start(options, this.#ports.values())
    })
  }

  captures(): { readonly id: number }[] {
    return this.#captures.ids.map((id) => ({ id }))
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#change(async () => {
      const captured = this.#captures.stop()
      if (this.runState !== 'shutdown') await captured
      const forget = (entry: PortEntry): Promise<void> => this.#forget(entry)
      await closeEntries(this.#ports.values(), this.#engine, forget, this.#log)
      await captured
      this.runState = 'shutdown'
      await this.#watcher.close()
      await this.#engine.close()
      this.#limitedLog.flush()
    }, true))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Runs a change after those before it, whatever became of them. */
  #change<T>(action: () => Promise<T>, isClosing = false): Promise<T> {
    const result = this.#last.then(() => {
      if (this.runState === 'shutdown' && !isClosing) {
        throw new StateError('SWITCH_CLOSED', 'the switch is closed')
      }
      return action()
    })
    this.#last = result.catch(() => undefined)
    return result
  }

  #entry(id: string): PortEntry {
    const entry = this.#ports.get(id)
    if (entry === undefined) throw new StateError('PORT_NOT_FOUND', `Device '${id}' not found`)
    return entry
  }

  async #forget(entry: PortEntry): Promise<void> {
    this.#ports.delete(entry.options.id)
    this.#byIndex[entry.index] = undefined
    this.#watcher.remove(entry)
    await this.#agree()
  }

  #setEngineLink(entry: PortEntry): Promise<unknown> {
    return this.#engine.request({ op: 'set-link', port: entry.index, isUp: entry.isUp })
  }

  #engineAccess(entry: PortEntry): EngineAccess {
    const { index: port } = entry
    return {
      call: (call) => this.#engine.request({ op: 'virtio', port, call }),
      inject: (frame) => this.#engine.request({ op: 'inject', port, frame }),
      changed: () => this.#connectionChanged(entry),
      probePeer: () => {
        entry.peer?.open.probe?.()
        void this.#agree()
      },
    }
  }

  /** A guest came or went, or negotiated anew. A guest that comes back is given another chance. */
  async #connectionChanged(entry: PortEntry): Promise<void> {
    if (this.#byIndex[entry.index] !== entry) return
    if (entry.open.isConnected === false && entry.failure !== undefined) {
      entry.failure = undefined
      this.#showConnection(entry)
    }
    await Promise.all([this.#agree(), this.#setEngineLink(entry)])
    this.#showConnection(entry)
  }

  /** Shows who is connected, after the engine has heard of it: frames pass now, or do not any more. */
  #showConnection(entry: PortEntry): void {
    const { isConnected } = entry.open
    if (this.#byIndex[entry.index] !== entry || isConnected === entry.wasConnected) return
    entry.wasConnected = isConnected
    this.events.emit('port-changed', this.#info(entry))
  }

  /** What depends on who is connected to whom. */
  async #agree(): Promise<void> {
    const all = [...this.#ports.values()]
    agreeOffloads(all)
    for (const entry of all) this.#agreeMerging(entry)
    await this.#taps.follow(all)
    // The header of a TAP may have room for more now.
    agreeOffloads([...this.#ports.values()])
  }

  #agreeMerging(entry: PortEntry): void {
    const { index: port, merges: isMerging } = entry
    if (isMerging === entry.wasMerging) return
    entry.wasMerging = isMerging
    this.#engine
      .request({ op: 'set-merging', port, isMerging })
      .catch((error: Error) => this.#log(error.message))
  }

  #portFailed(index: number, errno: number): void {
    const entry = this.#byIndex[index]
    if (entry === undefined) return
    this.#fail(entry, whyFailed(errno, entry.open.facts()))
    entry.open.failed?.()
  }

  #queueBroken(index: number, queue: number, reason: string): void {
    const entry = this.#byIndex[index]
    if (entry === undefined) return
    this.#fail(entry, `queue ${queue} is broken: ${reason}`)
    entry.open.queueBroken?.(queue)
    this.#setEngineLink(entry).catch((error: Error) => this.#log(error.message))
  }

  /** The control plane's end of a port found that it cannot go on. */
  #portStopped(id: string, reason: string): void {
    void this.#change(async () => {
      const entry = this.#ports.get(id)
      if (entry === undefined) return
      this.#fail(entry, reason)
      await this.#engine.request({ op: 'set-link', port: entry.index, isUp: false })
    }).catch((error: Error) => this.#log(error.message))
  }

  #fail(entry: PortEntry, reason: string): void {
    if (entry.failure !== undefined) return
    entry.failure = reason
    this.#log(`${entry.options.type} ${entry.options.id}: failed error=${reason}`)
    this.events.emit('port-changed', this.#info(entry))
  }

  #info(entry: PortEntry): PortInfo {
    return entry.info(this.#engine.counters)
  }
}
