/**
 * The switch as its user sees it: ports, links, captures, run state. Everything here is control
 * plane; the frames are the engine's (engine.ts), which is asked through EngineClient.
 *
 * Changes run one after another, each as a whole or not at all (undo.ts): no port is ever half there,
 * and the engine is told before a descriptor is closed or memory unmapped.
 */
import { EventEmitter } from 'node:events'
import { StateError } from '../errors.ts'
import { chooseTier } from '../io/probe.ts'
import { shimFailure } from '../native/shim.ts'
import type { PortFailure } from '../port/messages.ts'
import type { PortOptions } from '../port/options.ts'
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
  MirrorInfo,
  MirrorOptions,
  PortInfo,
  RunState,
  Switch,
  SwitchCounters,
  VirtioNetPort,
  SwitchEvents,
  SwitchOptions,
  SwitchSettings,
  VlanInfo,
} from './api.ts'
import { addPort, unwire, wire } from './adding.ts'
import { Agreement } from './agreement.ts'
import { CaptureSet } from './capture-set.ts'
import { changeOptions } from './changing.ts'
import { EngineClient } from '../engine/client.ts'
import { collect, Groups } from './groups.ts'
import type { HandedSwitch, HandOverOptions, HandOverOutline } from './handed.ts'
import { HandingOver, switchClosed } from './hand-over.ts'
import { hold, release } from './holding.ts'
import { LimitedLog } from './log-limit.ts'
import { LinkWatcher } from './link-watcher.ts'
import { Loops } from './loops.ts'
import { MirrorSet, withProgram } from './mirror-set.ts'
import type { PortEntry } from './port-entry.ts'
import { listLinks } from './port-entry.ts'
import { PortStates } from './port-states.ts'
import { PortTable } from './port-table.ts'
import { StaticFdb } from './static-macs.ts'
import { policyEvents } from './storms.ts'
import type { SwitchParts } from './parts.ts'
import { InterfaceFollower } from './reopening.ts'
import { checkSwitchOptions, engineSettings, settingsInPlace } from './switch-options.ts'
import type { EngineAccess, ControlPortContext } from '../port/control-port.ts'
import { openPort } from '../port/kinds.control.ts'
import { PortOpener } from './port-opener.ts'
import { TakingOver } from './take-over.ts'
import { listVlans } from './vlans.ts'
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
  readonly fdb: StaticFdb
  readonly groups: Groups
  runState: RunState

  /** Made to take over from another instance. */
  readonly #isIncoming: boolean
  #isSignalled = false
  #closing: Promise<void> | undefined
  readonly #engine: EngineClient
  readonly #limitedLog: LimitedLog
  readonly #log: Log
  readonly #outside: Pick<ControlPortContext, 'stateDirectory' | 'keeper'>
  readonly #ports: PortTable = new PortTable()
  readonly #states: PortStates
  readonly #captures: CaptureSet
  readonly #agreement: Agreement
  readonly #mirrors: MirrorSet
  readonly #watcher: LinkWatcher
  readonly #follower: InterfaceFollower
  readonly #parts: SwitchParts
  readonly #opener: PortOpener
  readonly #handing: HandingOver
  readonly #taking: TakingOver
  /** The end of the queue of changes. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: CreateSwitchOptions) {
    const tier = chooseTier(options.io ?? 'auto')
    this.io = tier.name
    if (tier.reason !== undefined) this.ioReason = tier.reason
    this.#limitedLog = new LimitedLog(options.log ?? (() => undefined))
    this.#log = this.#limitedLog.log
    this.#outside = { stateDirectory: options.stateDirectory, keeper: options.keeper }
    this.#isIncoming = options.incoming ?? false
    this.runState = this.#isIncoming ? 'inmigrate' : 'running'
    this.#engine = new EngineClient(engineSettings(options, tier), {
      portFailed: (index, failure) => this.#portFailed(index, failure),
      queueBroken: (index, queue, reason) => this.#states.queueBroken(index, queue, reason),
      driverCalled: (index) => this.#ports.at(index)?.open.driverCalled?.(),
      // At the end ports go one by one: each time what is left looks like another loop.
      loops: (moving) => void (this.#closing ?? loops.seen(moving)),
      ...policyEvents(this.#ports, this.#log),
      failed: (error) => {
        this.runState = 'shutdown'
        this.events.emit('engine-failed', error)
        void this.close()
      },
    })
    this.#states = new PortStates(this.#ports, this.#engine, this.events, this.#log)
    this.fdb = new StaticFdb(this.#ports, this.#engine, (action) => this.#change(action))
    this.groups = new Groups(this.#ports, this.#engine, (action) => this.#change(action))
    const loops = new Loops(this.#ports, this.events, this.#log)
    this.#captures = new CaptureSet(this.#engine, this.events)
    this.#agreement = new Agreement(this.#engine, () => this.#ports.all, this.#log)
    this.#mirrors = new MirrorSet(this.#engine, this.#ports)
    this.#watcher = new LinkWatcher(this.#engine, this.events, this.#log, (entry) =>
      this.#follower.changed(entry),
    )
    this.#parts = {
      engine: this.#engine,
      ports: this.#ports,
      states: this.#states,
      captures: this.#captures,
      agreement: this.#agreement,
      watcher: this.#watcher,
      mirrors: this.#mirrors,
      log: this.#log,
      context: (id, given) => this.#openContext(id, given),
      access: (entry) => this.#engineAccess(entry),
      forget: (entry) => this.#forget(entry),
    }
    this.#opener = new PortOpener(this.#parts)
    this.#taking = new TakingOver(this.#parts, this.#opener)
    this.#handing = new HandingOver(this.#parts, this.#opener, this, (action) =>
      this.#change(action),
    )
    this.#follower = new InterfaceFollower({
      log: this.#log,
      change: (step) => this.#change(step),
      ports: this.#ports,
      states: this.#states,
      call: ({ index: port }, call) => this.#engine.request({ op: 'call', port, call }),
      open: ({ options: port }) => openPort(port, this.#openContext(port.id)),
      replace: (entry) => this.#opener.replaceInEngine(entry),
      watch: (entry) => this.#watcher.add(entry),
    })
    // Before the first port is there. When it fails the engine is gone, and says so itself.
    if (this.#isIncoming) this.#engine.request({ op: 'pause' }).catch(() => undefined)
  }

  async addPort(
    options: PortOptions,
    given: ReadonlyMap<string, number> = new Map(),
    settings: AddPortSettings = {},
  ): Promise<PortInfo> {
    const info = await this.#change(async (undo) => {
      const entry = await addPort(this.#parts, this.#opener, options, given, settings, undo)
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
      ...this.#outside,
      failed: (reason) => this.#portStopped(id, reason),
      takesOver: this.runState === 'inmigrate',
    }
  }

  changePort(options: PortOptions): Promise<void> {
    return this.#change(async (undo) => {
      const entry = this.#ports.entry(options.id)
      await changeOptions(entry, options, this.#ports.all, this.#engine, undo)
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
    const { index, open, isAnothers } = entry
    return doAll(
      [
        () => (isAnothers ? undefined : open.stop?.()),
        // Before its descriptors are closed.
        () => this.#engine.request({ op: 'remove-port', port: index }),
        () => this.#forget(entry),
        () => (isAnothers ? open.handedOver?.() : open.close()),
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
    return this.#change((undo) => {
      const [first, second] = [this.#ports.entry(a), this.#ports.entry(b)]
      return wire(this.#parts, this.#opener, first, second, undo)
    })
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

  removeLink(a: string, b: string): Promise<void> {
    return this.#change((undo) => {
      const [first, second] = [this.#ports.entry(a), this.#ports.entry(b)]
      return unwire(this.#parts, this.#opener, first, second, undo)
    })
  }

  async addMirror(options: MirrorOptions, mayLack = false): Promise<void> {
    // Others need not wait while its filter is compiled.
    const compiled = await withProgram(options)
    return this.#change((undo) => this.#mirrors.add(compiled, undo, mayLack))
  }

  removeMirror(name: string): Promise<void> {
    return this.#change(() => this.#mirrors.remove(name))
  }

  mirrors(): MirrorInfo[] {
    return this.#mirrors.infos()
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

  memoryPort = (id: string): MemoryPort => this.#ports.memoryPort(id)
  virtioNetPort = (id: string): VirtioNetPort => this.#ports.virtioNetPort(id)

  links(): [string, string][] {
    return listLinks(this.#ports.all)
  }

  vlans(): VlanInfo[] {
    return listVlans(this.#ports.all.filter(({ peer }) => peer === undefined))
  }

  macTable(): Promise<MacEntry[]> {
    return collect(this.macTablePages())
  }

  async *macTablePages(): AsyncGenerator<readonly MacEntry[]> {
    for await (const { rows } of this.#engine.macTable()) yield this.#ports.macEntries(rows)
  }

  counters(): SwitchCounters {
    return this.#engine.switchCounters()
  }

  currentCounters(): Promise<SwitchCounters> {
    return this.#engine.request({ op: 'publish-counters' }).then(() => this.counters())
  }

  pause(): Promise<void> {
    return this.#change(async (undo) => {
      if (this.runState === 'inmigrate' && this.#isSignalled) await this.#taking.keepPaused(undo)
      else if (this.runState !== 'running') return
      this.#engine.isHurried = false
      undo(() => this.#engine.request({ op: 'resume' }))
      await this.#engine.request({ op: 'pause' })
      this.runState = 'paused'
    })
  }

  resume(reading: (atUs: number) => void = () => undefined): Promise<void> {
    return this.#change((undo) => this.#resume(reading, false, undo))
  }

  /** `isRehearsed`: nothing comes of it, but for code that has run once more. */
  async #resume(reading: (atUs: number) => void, isRehearsed: boolean, undo: Undo): Promise<void> {
    if (this.runState === 'running') return
    const isTaken = this.runState === 'inmigrate'
    if (isTaken && !isRehearsed) {
      if (!this.#isSignalled) {
        const reason = 'ports are still postponed until the pre-incoming point'
        throw new StateError('INCOMING', reason, { hint: 'migrate-incoming first' })
      }
      await this.#opener.openAllPostponed(undo)
    }
    if (!isRehearsed) undo(() => this.#engine.request({ op: 'pause' }))
    const atUs = await this.#engine.request({ op: isRehearsed ? 'publish-counters' : 'resume' })
    this.#engine.isHurried = false
    reading(Number(atUs))
    if (isRehearsed) return
    if (isTaken) await this.#taking.keep()
    this.runState = 'running'
    this.#taking.watch()
    await this.#agreement.reach()
  }

  migrateIncoming(): Promise<void> {
    return this.#change(async (undo) => {
      if (this.#isSignalled) {
        throw new StateError('INCOMING', 'The incoming migration has already been started')
      }
      if (!this.#isIncoming) {
        throw new StateError('INCOMING', `'-incoming' was not specified on the command line`)
      }
      await this.#opener.openAllPostponed(undo)
      this.#isSignalled = true
    })
  }

  outlineHandOver = (excluded: readonly string[] = []): Promise<HandOverOutline> =>
    this.#handing.outline(excluded)
  previewHandOver = (excluded: readonly string[] = []): Promise<HandedSwitch> =>
    this.#handing.preview(excluded)
  handOver = (
    excluded: readonly string[] = [],
    options: HandOverOptions = {},
  ): Promise<HandedSwitch> => this.#handing.handOver(excluded, options)
  takeBack = (): Promise<void> => this.#handing.takeBack()
  handedOver = (settled?: Promise<unknown>): Promise<void> => this.#handing.handedOver(settled)

  prepareTakeOver(outlined: HandOverOutline, preview?: HandedSwitch): Promise<string[]> {
    return this.#change((undo) => {
      this.#checkWaits()
      return this.#taking.prepare(outlined, preview, undo)
    })
  }

  #checkWaits(): void {
    if (this.runState === 'inmigrate' && !this.#isSignalled) return
    throw new StateError('INCOMING', 'the switch does not wait to take over')
  }

  dropPreview = (): Promise<void> => this.#change(() => this.#taking.dropPreviewed())
  rehearseTakeOver = (handed: HandedSwitch): Promise<void> =>
    this.#change(async (undo) => {
      this.#checkWaits()
      await this.#taking.rehearse(handed)
      await this.#resume(() => undefined, true, undo)
    })

  takeOver(handed: HandedSwitch): Promise<void> {
    return this.#change(async (undo) => {
      this.#checkWaits()
      await this.#taking.takeOver(handed, undo)
      this.#isSignalled = true
    })
  }

  /** Where a port has an interface, that says whether it cannot go on. */
  #portFailed(index: number, failure: PortFailure): void {
    const entry = this.#ports.at(index)
    if (entry?.open.judge === undefined) this.#states.portFailed(index, failure)
    else this.#follower.changed(entry)
  }

  startCapture(options: CaptureOptions): Promise<Capture> {
    return this.#change((undo) => this.#captures.start(options, this.#ports, undo))
  }

  capture = (id: number): Capture => this.#captures.capture(id)
  captures = (): ReturnType<Switch['captures']> => this.#captures.infos

  close(): Promise<void> {
    return (this.#closing ??= this.#change(async () => {
      const captured = this.#captures.stop()
      if (this.runState !== 'shutdown') await captured
      for (const entry of this.#ports.all) await this.#release(entry)
      await this.#mirrors.close(this.#log)
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
    const result = this.#last.then(async () => {
      await (isClosing ? this.#handing.settle() : this.#handing.over)
      const { runState } = this
      if (!isClosing && (runState === 'shutdown' || runState === 'postmigrate')) {
        throw switchClosed(runState)
      }
      return allOrNothing(action, this.#log)
    })
    this.#last = result.catch(() => undefined)
    return result
  }

  async #forget(entry: PortEntry): Promise<void> {
    this.#ports.remove(entry)
    this.#watcher.remove(entry)
    await this.#mirrors.portsChanged()
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
