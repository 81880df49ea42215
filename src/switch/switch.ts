/**
 * The switch as its user sees it: ports, links, captures, run state. Everything here is control
 * plane; the frames are the engine's (engine.ts), which is asked through EngineClient.
 *
 * Changes run one after another, each as a whole or not at all (undo.ts): no port is ever half there,
 * and the engine is told before a descriptor is closed or memory unmapped.
 */
import { EventEmitter } from 'node:events'
import { ConfigError, StateError } from '../errors.ts'
import { chooseTier } from '../io/probe.ts'
import { shimFailure } from '../native/shim.ts'
import type { PortFailure } from '../port/messages.ts'
import type { PortOptions } from '../port/options.ts'
import { clearCounters } from '../stats/port-counters.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import { prepareStateDirectory } from '../vhost-user/state-directory.ts'
import type {
  AddPortSettings,
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
  SwitchSettings,
} from './api.ts'
import { Agreement } from './agreement.ts'
import { CaptureSet } from './capture-set.ts'
import { changeOptions } from './changing.ts'
import { EngineClient } from '../engine/client.ts'
import { hold, release } from './holding.ts'
import { LimitedLog } from './log-limit.ts'
import { LinkWatcher } from './link-watcher.ts'
import { Loops } from './loops.ts'
import { checkFree, checkWirable, listLinks, PortEntry } from './port-entry.ts'
import { PortStates } from './port-states.ts'
import { PortTable } from './port-table.ts'
import { openOrPostpone } from './opening.ts'
import { InterfaceFollower } from './reopening.ts'
import { checkSwitchOptions, engineSettings, settingsInPlace } from './switch-options.ts'
import type { EngineAccess, ControlPortContext } from '../port/control-port.ts'
import { openPort } from '../port/kinds.control.ts'
import type { Undo } from './undo.ts'
import { allOrNothing, doAll } from './undo.ts'

export interface CreateSwitchOptions extends SwitchOptions {
  /** Told what happens that nobody asked for, one line each. Default: silent. */
  readonly log?: (message: string, level?: 'debug' | 'info' | 'warning' | 'error') => void
}

/** Makes an empty switch and starts its engine. */
export function createSwitch(options: CreateSwitchOptions = {}): Switch {
  if (shimFailure !== undefined) throw shimFailure
  checkSwitchOptions(options)
  if (options.stateDirectory !== undefined) prepareStateDirectory(options.stateDirectory)
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
  readonly #log: Log
  readonly #stateDirectory: string | undefined
  readonly #ports: PortTable = new PortTable()
  readonly #states: PortStates
  readonly #captures: CaptureSet
  readonly #agreement: Agreement
  readonly #watcher: LinkWatcher
  readonly #follower: InterfaceFollower
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
    this.#engine = new EngineClient(engineSettings(options, tier), {
      portFailed: (index, failure) => this.#portFailed(index, failure),
      queueBroken: (index, queue, reason) => this.#states.queueBroken(index, queue, reason),
      driverCalled: (index) => this.#ports.at(index)?.open.driverCalled?.(),
      // At the end ports go one by one: each time what is left looks like another loop.
      loops: (moving) => void (this.#closing ?? loops.seen(moving)),
      failed: (error) => {
        this.runState = 'shutdown'
        this.events.emit('engine-failed', error)
        void this.close()
      },
    })
    this.#states = new PortStates(this.#ports, this.#engine, this.events, this.#log)
    const loops = new Loops(this.#ports, this.events, this.#log)
    this.#captures = new CaptureSet(this.#engine)
    this.#agreement = new Agreement(this.#engine, () => this.#ports.all, this.#log)
    this.#watcher = new LinkWatcher(this.#engine, this.events, this.#log, (entry) =>
      this.#follower.changed(entry),
    )
    this.#follower = new InterfaceFollower({
      log: this.#log,
      change: (step) => this.#change(step),
      ports: this.#ports,
      states: this.#states,
      call: ({ index: port }, call) => this.#engine.request({ op: 'call', port, call }),
      open: ({ options: port }) => openPort(port, this.#openContext(port.id)),
      replace: (entry) => this.#replaceInEngine(entry),
      watch: (entry) => this.#watcher.add(entry),
    })
    // Before the first port is there. When it fails the engine is gone, and says so itself.
    if (this.#isIncoming) this.#engine.request({ op: 'pause' }).catch(() => undefined)
  }

  async addPort(
    options: PortOptions,
    given: ReadonlyMap<string, number> = new Map(),
    { keepsUnusable = false, isHeld = false, peer }: AddPortSettings = {},
  ): Promise<PortInfo> {
    const info = await this.#change(async (undo) => {
      const index = this.#ports.freeIndex(options.id)
      const other = peer === undefined ? undefined : this.#ports.entry(peer)
      if (other !== undefined) checkFree(other)
      const { open, notPostponed } = await openOrPostpone(
        options,
        this.#openContext(options.id, given),
        keepsUnusable,
      )
      undo(() => open.abandon?.() ?? open.close())
      const entry = new PortEntry(index, options, open, notPostponed)
      // Its first frame is for its peer as well.
      entry.isHeld = isHeld || other !== undefined
      clearCounters(this.#engine.counters, index)
      undo(() => this.#forget(entry))
      this.#ports.add(entry)
      // Before the first frame, so that none needs what this port cannot take.
      void this.#agreement.reach()
      undo(() => this.#engine.request({ op: 'remove-port', port: index }))
      undo(() => open.stop?.())
      await this.#engine.request({
        op: 'add-port',
        port: index,
        mtu: options.mtu ?? 0,
        txOffloads: open.txOffloads,
        description: open.description,
        isHeld: entry.isHeld,
      })
      await this.#captures.add(entry)
      this.#watcher.add(entry)
      if (!entry.isUp) await this.#states.tell(entry)
      open.start?.(this.#engineAccess(entry))
      if (other !== undefined) {
        await this.#wire(entry, other, undo)
        if (!isHeld && !other.isHeld) await release(this.#engine, [entry])
      }
      return entry.info(this.#engine.counters)
    })
    this.events.emit('port-added', info)
    return info
  }

  #openContext(id: string, given: ReadonlyMap<string, number> = new Map()): ControlPortContext {
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

  changePort(options: PortOptions): Promise<void> {
    return this.#change(async (undo) => {
      const entry = this.#ports.entry(options.id)
      await changeOptions(entry, options, this.#engine, undo)
      await this.#agreement.reach()
    })
  }

  configure(settings: SwitchSettings): Promise<void> {
    return this.#change(async () => {
      checkSwitchOptions(settings)
      await this.#engine.request({ op: 'configure', settings: settingsInPlace(settings) })
    })
  }

  removePort(id: string): Promise<void> {
    return this.#change(async () => {
      await this.#release(this.#ports.entry(id))
      this.events.emit('port-removed', id)
    })
  }

  /** Whatever goes wrong on the way, nothing of the port is left. */
  #release(entry: PortEntry): Promise<void> {
    const { index, open } = entry
    return doAll(
      [
        () => open.stop?.(),
        // Before its descriptors are closed.
        () => this.#engine.request({ op: 'remove-port', port: index }),
        () => this.#forget(entry),
        () => open.close(),
      ],
      this.#log,
    )
  }

  setLink(id: string, up: boolean): Promise<void> {
    return this.#change(async (undo) => {
      const entry = this.#ports.entry(id)
      const { link } = entry
      undo(() => {
        entry.link = link
        return this.#states.tell(entry)
      })
      entry.link = up
      await this.#states.tell(entry)
      entry.open.setCarrier(up)
      this.#watcher.look(entry)
      this.#states.show(entry)
    })
  }

  addLink(a: string, b: string): Promise<void> {
    return this.#change((undo) => this.#wire(this.#ports.entry(a), this.#ports.entry(b), undo))
  }

  async #wire(first: PortEntry, second: PortEntry, undo: Undo): Promise<void> {
    checkWirable(first, second)
    for (const [one, other] of [
      [first, second],
      [second, first],
    ]) {
      const isWaiting = one.open.postponed !== undefined
      if (isWaiting && !other.open.acceptsPostponedPeer) await this.#openPostponed(one, undo)
    }
    const ends = { a: first.index, b: second.index }
    undo(() => this.#engine.request({ op: 'unwire', ...ends }))
    await this.#engine.request({ op: 'wire', ...ends })
    undo(() => this.#setPeers(first, second, false))
    await this.#setPeers(first, second, true)
  }

  hold(ids: readonly string[]): Promise<void> {
    const entries = (): PortEntry[] => ids.map((id) => this.#ports.entry(id))
    return this.#change((undo) => hold(this.#engine, entries(), undo))
  }

  release(ids?: readonly string[]): Promise<void> {
    return this.#change(async () => {
      await release(this.#engine, ids?.map((id) => this.#ports.entry(id)) ?? this.#ports.all)
      // Queues are detached now that they were not as long as frames waited in them.
      await this.#agreement.reach()
    })
  }

  /** Ends of a link, or no longer. */
  #setPeers(a: PortEntry, b: PortEntry, areWired: boolean): Promise<void> {
    a.peer = areWired ? b : undefined
    b.peer = areWired ? a : undefined
    return this.#agreement.reach()
  }

  removeLink(a: string, b: string): Promise<void> {
    return this.#change(async (undo) => {
      const [first, second] = [this.#ports.entry(a), this.#ports.entry(b)]
      if (first.peer !== second) {
        throw new ConfigError('BAD_LINK', `"${a}" and "${b}" are not wired to each other`)
      }
      undo(() => this.#setPeers(first, second, true))
      // Back on the switch they may meet ports that can take less.
      await this.#setPeers(first, second, false)
      const ends = { a: first.index, b: second.index }
      undo(() => this.#engine.request({ op: 'wire', ...ends }))
      await this.#engine.request({ op: 'unwire', ...ends })
    })
  }

  ports(): PortInfo[] {
    this.#watcher.drain()
    return this.#ports.all.map((entry) => entry.info(this.#engine.counters))
  }

  port(id: string): PortInfo {
    this.#watcher.drain()
    return this.#ports.entry(id).info(this.#engine.counters)
  }

  kernelCounters(id: string): KernelCounters | undefined {
    return this.#watcher.kernelCounters(this.#ports.entry(id))
  }

  memoryPort(id: string): MemoryPort {
    const { memoryPort } = this.#ports.entry(id).open
    if (memoryPort !== undefined) return memoryPort
    throw new StateError('NOT_A_MEMORY_PORT', `port "${id}" is not a memory port`)
  }

  virtioNetPort(id: string): VirtioNetPort {
    const { virtioNetPort } = this.#ports.entry(id).open
    if (virtioNetPort !== undefined) return virtioNetPort
    throw new StateError('VIRTIO_NET', `port "${id}" is not a virtio-net port`)
  }

  links(): [string, string][] {
    return listLinks(this.#ports.all)
  }

  async macTable(): Promise<MacEntry[]> {
    const entries: MacEntry[] = []
    for await (const page of this.macTablePages()) for (const entry of page) entries.push(entry)
    return entries
  }

  async *macTablePages(): AsyncGenerator<readonly MacEntry[]> {
    for await (const rows of this.#engine.macTable()) yield this.#ports.macEntries(rows)
  }

  counters(): SwitchCounters {
    return this.#engine.switchCounters()
  }

  currentCounters(): Promise<SwitchCounters> {
    return this.#engine.request({ op: 'publish-counters' }).then(() => this.counters())
  }

  pause(): Promise<void> {
    return this.#change(async (undo) => {
      if (this.runState !== 'running') return
      undo(() => this.#engine.request({ op: 'resume' }))
      await this.#engine.request({ op: 'pause' })
      this.runState = 'paused'
    })
  }

  resume(): Promise<void> {
    return this.#change(async (undo) => {
      if (this.runState === 'running') return
      if (this.runState === 'inmigrate') {
        if (!this.#isSignalled) {
          const reason = 'ports are still postponed until the pre-incoming point'
          throw new StateError('INCOMING', reason, { hint: 'migrate-incoming first' })
        }
        await this.#openAllPostponed(undo)
      }
      undo(() => this.#engine.request({ op: 'pause' }))
      await this.#engine.request({ op: 'resume' })
      this.runState = 'running'
      await this.#agreement.reach()
    })
  }

  migrateIncoming(): Promise<void> {
    return this.#change(async (undo) => {
      if (this.#isSignalled) {
        throw new StateError('INCOMING', 'The incoming migration has already been started')
      }
      if (!this.#isIncoming) {
        throw new StateError('INCOMING', `'-incoming' was not specified on the command line`)
      }
      await this.#openAllPostponed(undo)
      this.#isSignalled = true
    })
  }

  /** First in first out. At a failure those that were opened are postponed again, last first. */
  async #openAllPostponed(undo: Undo): Promise<void> {
    for (const entry of this.#ports.all) {
      if (entry.open.postponed !== undefined) await this.#openPostponed(entry, undo)
    }
  }

  async #openPostponed(entry: PortEntry, undo: Undo): Promise<void> {
    const postponed = entry.open.postponed!
    const open = await postponed.open(this.#openContext(entry.options.id))
    undo(() => this.#states.show(entry))
    undo(() => open.abandon?.() ?? open.close())
    undo(() => {
      this.#watcher.remove(entry)
      entry.open = postponed
      entry.failure = undefined
      entry.wasConnected = undefined
      return this.#replaceInEngine(entry)
    })
    undo(() => open.stop?.())
    entry.open = open
    entry.wasConnected = open.isConnected
    await this.#replaceInEngine(entry)
    if (!entry.link) open.setCarrier(false)
    this.#watcher.add(entry)
    open.start?.(this.#engineAccess(entry))
    this.#states.show(entry)
  }

  /** Where a port has an interface, that says whether it cannot go on. */
  #portFailed(index: number, failure: PortFailure): void {
    const entry = this.#ports.at(index)
    if (entry?.open.judge === undefined) this.#states.portFailed(index, failure)
    else this.#follower.changed(entry)
  }

  async #replaceInEngine(entry: PortEntry): Promise<void> {
    const { index, open } = entry
    const { txOffloads, description } = open
    await this.#engine.request({ op: 'replace-port', port: index, txOffloads, description })
    await this.#agreement.reach()
    await this.#states.tell(entry)
  }

  startCapture(options: CaptureOptions): Promise<Capture> {
    return this.#change((undo) => {
      for (const id of options.ports ?? []) this.#ports.entry(id)
      return this.#captures.start(options, this.#ports.all, undo)
    })
  }

  captures(): ReturnType<Switch['captures']> {
    return this.#captures.infos
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#change(async () => {
      const captured = this.#captures.stop()
      if (this.runState !== 'shutdown') await captured
      for (const entry of this.#ports.all) await this.#release(entry)
      await captured
      this.runState = 'shutdown'
      this.#agreement.close()
      this.#follower.close()
      await this.#watcher.close()
      await this.#engine.close()
      this.#limitedLog.flush()
    }, true))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Runs a change after those before it, whatever became of them: as a whole or not at all. */
  #change<T>(action: (undo: Undo) => Promise<T>, isClosing = false): Promise<T> {
    const result = this.#last.then(() => {
      if (this.runState === 'shutdown' && !isClosing) {
        throw new StateError('SWITCH_CLOSED', 'the switch is closed')
      }
      return allOrNothing(action, this.#log)
    })
    this.#last = result.catch(() => undefined)
    return result
  }

  async #forget(entry: PortEntry): Promise<void> {
    this.#ports.remove(entry)
    this.#watcher.remove(entry)
    await this.#agreement.reach()
  }

  #engineAccess(entry: PortEntry): EngineAccess {
    const { index: port } = entry
    return {
      call: (call) => this.#engine.request({ op: 'call', port, call }),
      inject: (frame) => this.#engine.request({ op: 'inject', port, frame }),
      newGuest: () => this.#states.newGuest(entry),
      changed: () => this.#states.connectionChanged(entry, () => this.#agreement.reach()),
      probePeer: () => {
        entry.peer?.open.probe?.()
        void this.#agreement.reach()
      },
    }
  }

  /** The control plane's end of a port found that it cannot go on. */
  #portStopped(id: string, reason: string): void {
    void this.#change(() => this.#states.stopped(id, reason)).catch((error) =>
      this.#log(explain(error), 'error'),
    )
  }
}
