/**
 * The daemon: a switch made from a config, with a control socket. Reload and shutdown are here;
 * signals are the command line's.
 */
import type { Config } from '../config/load.ts'
import { withPrograms } from '../config/mirrors.ts'
import { makeCommands } from '../control/commands.ts'
import { endWith } from '../control/commands/captures.ts'
import { EventPace } from '../control/event-pace.ts'
import type { EventData } from '../control/events.ts'
import type { ServedCommand } from '../control/server.ts'
import { ControlServer } from '../control/server.ts'
import type { ServerVersion } from '../control/session.ts'
import { FramepumpError, StateError } from '../errors.ts'
import { HandedAway } from '../handover/source.ts'
import type { MigrationParameters } from '../handover/progress.ts'
import type { AddPortSettings, CaptureSummary, LoopInfo, PortInfo, Switch } from '../switch/api.ts'
import { LimitedLog } from '../switch/log-limit.ts'
import { createSwitch } from '../switch/switch.ts'
import type { Log, LogLevel } from '../text.ts'
import { counted, explain } from '../text.ts'
import { socketKeeper } from '../port/keeper.ts'
import type { PortOptions } from '../port/options.ts'
import type { DescriptorStore } from './descriptor-store.ts'
import { Migration } from './migration.ts'
import type { Notify } from './notify.ts'
import type { Privileges } from './privileges.ts'
import type { Reloaded } from './running-config.ts'
import { RunningConfig } from './running-config.ts'
import type { Starter } from './starter.ts'
import { upgrade } from './upgrade.ts'

/** What the log has of a client's word for something. */
const NAME_LENGTH_MAX = 64

export interface DaemonOptions {
  readonly config: Config
  readonly controlPath: string
  /** It takes over from another instance, which comes to that URI; `defer`: to be told later. */
  readonly incoming?: string
  /** How it takes over, until commands say otherwise. */
  readonly transfer?: Pick<MigrationParameters, 'backendTransfer' | 'exclude'>
  readonly version: ServerVersion
  readonly log: Log
  readonly privileges: Privileges
  /** Reads the config anew; absent: there is no config file. */
  readonly reread?: () => Config
  /** Aborted: it does not start any further. */
  readonly signal?: AbortSignal
  /** Told when it begins to end without having been asked. */
  readonly failing?: (error: Error) => void
  /** The service manager. */
  readonly notify?: Notify | undefined
  /** Its store of descriptors; absent: nothing outlives the process. */
  readonly store?: DescriptorStore
  /** Of one that takes over, and ends when that one does before it has. */
  readonly starter?: Starter | undefined
}

export class Daemon {
  readonly switch: Switch
  /** Resolves when somebody asked for the end: true, or the data plane died: false. */
  readonly ended: Promise<boolean>
  readonly #options: DaemonOptions
  readonly #server: ControlServer
  /** Guests that come and go make lines as well. */
  readonly #log: LimitedLog
  readonly #running: RunningConfig
  readonly #migration: Migration
  #isReady = false
  /** The ports of an incoming instance are open, and what they needed is still to be given up. */
  #mustLock = false
  readonly #linkChanges = new EventPace<EventData<'PORT_LINK_CHANGED'>>((data) =>
    this.#server.sendEvent('PORT_LINK_CHANGED', data),
  )
  #end!: (isWanted: boolean) => void

  private constructor(options: DaemonOptions) {
    this.#options = options
    this.#log = new LimitedLog(options.log)
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
    const { config, incoming } = options
    const isIncoming = incoming !== undefined
    const { store } = options
    const keeper = store === undefined ? {} : { keeper: store }
    const settings = { ...switchOptions(config), incoming: isIncoming, ...keeper }
    this.switch = createSwitch({ ...settings, log: options.log })
    this.#running = new RunningConfig(config, {
      switch: this.switch,
      addPort: (port) => this.#addPort(port, undefined, { keepsUnusable: true, isHeld: true }),
      changePort: (port, keys) => this.#changePort(port, keys),
      explain: (error) => options.privileges.explain(error),
      log: options.log,
      signal: options.signal,
    })
    const { major, minor, micro } = options.version
    this.#migration = new Migration({
      switch: this.switch,
      running: this.#running,
      config,
      release: `${major}.${minor}.${micro}`,
      starter: options.starter,
      log: options.log,
      addPort: (port) => this.#addPort(port, undefined, { keepsUnusable: true, isHeld: true }),
      clients: {
        handOver: (captures) => this.#server.handOver(captures),
        takeBack: () => this.#server.takeBack(),
        handedOver: () => this.#server.handedOver(),
        takeOver: (clients) => {
          // Before the source is told that we run: its own file goes with it.
          this.#takePath()
          return this.#server.takeOver(clients, (session, id) => {
            const isThere = this.switch.captures().some((capture) => capture.id === id)
            if (isThere) endWith(session, this.switch.capture(id))
          })
        },
      },
      told: ({ status }) => this.#server.sendEvent('MIGRATION', { status }),
      paused: (isPaused) => this.#server.sendEvent(isPaused ? 'STOP' : 'RESUME', {}),
      tookOver: (sourceEnded) => this.#tookOver(sourceEnded),
      announced: (action) => options.notify?.reloading(action, 'handing over') ?? action(),
      handedOver: (pid) => options.notify?.handedOver(pid),
      failed: (error) => this.#endAfter(error),
    })
    if (options.transfer !== undefined) {
      this.#migration.parameters = { ...this.#migration.parameters, ...options.transfer }
    }
    try {
      const commands = makeCommands({
        switch: this.switch,
        version: options.version,
        reload: () => this.reload(),
        resume: () => this.#resume(),
        quit: () => this.#end(true),
        addPort: (port, given, peer) =>
          this.#addPort(port, given, peer === undefined ? {} : { peer }),
        addLink: (a, b) => this.#running.addLink(a, b),
        explain: (error) => options.privileges.explain(error),
        migrateIncoming: () => this.#migrateIncoming(),
        migration: this.#migration,
        upgrade: (more, ended) => this.upgrade(more, ended),
        privileges: () => options.privileges.status(),
        isReady: () => this.#isReady,
        sendEvent: (event, data) => {
          this.#server.sendEvent(event, data)
          // The run state is part of what it tells.
          options.notify?.changed()
        },
      })
      const { controlPath, version } = options
      const told = withLog(commands, options.log)
      const kept = socketKeeper(store, (line, level) => options.log(`control: ${line}`, level))
      const failed = (error: Error): void => this.#failed(error)
      this.#server = new ControlServer(controlPath, told, version, isIncoming, failed, kept)
    } catch (error) {
      void this.switch.close()
      throw error
    }
    this.#forwardEvents()
  }

  /** Opens everything that the config names; on failure closes what was opened, and throws. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options)
    const { io, ioReason } = daemon.switch
    options.log(`switch: started io=${io}${ioReason === undefined ? '' : ` because="${ioReason}"`}`)
    try {
      const { incoming, config } = options
      const isTakingOver = incoming !== undefined && incoming !== 'defer'
      // The ports are the predecessor's, which tells what they are.
      await daemon.#running.start(
        isTakingOver ? { ...config, ports: [], links: [], mirrors: [], fdb: [] } : config,
      )
      // They come as programs, but a reload compiles its config, which cannot be done then any more.
      if (isTakingOver) await withPrograms(config).catch(() => undefined)
      // The engine thread has its io_uring by then; afterwards none can be made.
      await daemon.switch.macTable()
      if (incoming === undefined) options.store?.closeRest()
      await options.privileges.hold({
        ports: config.ports,
        hasTunnels: (config.mirrors ?? []).some(({ erspan }) => erspan !== undefined),
        isIncoming: incoming !== undefined,
      })
      if (isTakingOver) daemon.#migration.takeOver(incoming)
      daemon.#isReady = true
      // One that takes over is nobody's service before it has.
      if (!isTakingOver) daemon.#tellReady()
      return daemon
    } catch (error) {
      options.notify?.stopping(error)
      options.failing?.(error as Error)
      await daemon.close()
      throw error
    }
  }

  /** Where the control socket is, now. */
  get controlPath(): string {
    return this.#server.path
  }

  async #addPort(
    options: PortOptions,
    given?: ReadonlyMap<string, number>,
    settings?: AddPortSettings,
  ): Promise<void> {
    const { privileges } = this.#options
    try {
      privileges.check(options)
      await this.switch.addPort(options, given, settings)
    } catch (error) {
      throw this.#explain(error, options)
    }
  }

  async #changePort(options: PortOptions, keys: readonly string[]): Promise<void> {
    const { privileges } = this.#options
    // Its script has run, and does not again.
    if (keys.includes('downscript')) privileges.check(options)
    try {
      await this.switch.changePort(options)
    } catch (error) {
      throw this.#explain(error, options)
    }
  }

  /** What went wrong with a port, which its text may not name. */
  #explain(error: unknown, { id }: PortOptions): unknown {
    const explained = this.#options.privileges.explain(error)
    if (explained instanceof FramepumpError) explained.port = id
    return explained
  }

  async #migrateIncoming(): Promise<void> {
    const { privileges } = this.#options
    if (!this.#mustLock) {
      try {
        await this.switch.migrateIncoming()
        this.#options.store?.closeRest()
      } catch (error) {
        throw privileges.explain(error)
      }
      this.#mustLock = true
    }
    await this.#lock()
  }

  /** When it fails it can be tried again: by another migrate-incoming, or by cont, which needs it. */
  async #lock(): Promise<void> {
    if (!this.#mustLock) return
    await this.#options.privileges.lock()
    this.#mustLock = false
  }

  async #resume(): Promise<void> {
    await this.#lock()
    await this.switch.resume()
    this.#options.store?.serve()
    this.#takePath()
  }

  #takePath(): void {
    try {
      this.#server.takePath()
    } catch (error) {
      // It runs, and can still be reached where it was.
      this.#options.log(
        `control: stays at ${this.#server.path} error="${explain(error)}"`,
        'warning',
      )
    }
  }

  #tellReady(): void {
    this.#options.notify?.ready(
      () => this.#describe(),
      () => this.switch.currentCounters(),
    )
  }

  /** Everything of the predecessor is ours, and frames pass. */
  async #tookOver(sourceEnded: Promise<void>): Promise<void> {
    const { config, log } = this.#options
    if (this.switch.runState === 'running') this.#server.sendEvent('RESUME', {})
    this.#takePath()
    if (this.#options.incoming !== 'defer') this.#tellReady()
    this.#options.store?.serve(sourceEnded)
    // A manager that listened to that one still has not heard it.
    void sourceEnded.then(() => this.#options.notify?.again())
    this.#mustLock = true
    try {
      await this.#running.join(config)
      await this.#lock()
    } catch (error) {
      // It runs, and can be told again.
      log(`config: not applied error="${explain(error)}"`, 'error')
    }
  }

  /**
   * Starts a successor, with further options of `run`, and ends once that one runs. Where somebody else has to start
   * it, that one says `quit`, unless it has `ended` before.
   */
  async upgrade(
    more: readonly string[] = [],
    ended?: Promise<void>,
  ): Promise<Record<string, unknown>> {
    const { privileges, notify, version, log } = this.#options
    const { major, minor, micro } = version
    const release = `${major}.${minor}.${micro}`
    const { controlPath } = this.#options
    const context = { migration: this.#migration, privileges, notify, release, controlPath, log }
    const { parameters: before } = this.#migration
    try {
      const answer = await upgrade(context, more)
      // Once the answer is said.
      if (!('start' in answer)) setImmediate(() => this.#end(true))
      else void ended?.then(() => this.#leftBy(before))
      return answer
    } catch (error) {
      if (error instanceof HandedAway) this.#endAfter(error)
      throw error
    }
  }

  /** Whoever should have said `quit`, or else how it was, is gone. */
  async #leftBy({ backendTransfer, exclude }: MigrationParameters): Promise<void> {
    const migration = this.#migration
    await migration.settled
    if (this.switch.runState !== 'postmigrate') {
      migration.parameters = { ...migration.parameters, backendTransfer, exclude }
      return
    }
    const { status, error } = migration.info
    if (status === 'completed') this.#end(true)
    else this.#endAfter(new StateError('HAND_OVER', error ?? 'whoever took over is gone'))
  }

  /** Applies the difference between the config file and what it said before. */
  async reload(): Promise<Reloaded> {
    const { reread, notify } = this.#options
    const reload = async (): Promise<Reloaded> => {
      if (reread !== undefined) return await this.#running.reload(reread)
      throw new StateError('NO_CONFIG', 'there is no config file to reload')
    }
    return notify === undefined ? await reload() : await notify.reloading(reload)
  }

  /** How it is, in a line: `3 ports (1 postponed), running, io read-write`. */
  #describe(): string {
    const ports = this.switch.ports()
    const notes = (['failed', 'postponed', 'down'] as const).flatMap((state) => {
      const count = ports.filter((port) => port.state === state).length
      return count === 0 ? [] : [`${count} ${state}`]
    })
    const note = notes.length === 0 ? '' : ` (${notes.join(', ')})`
    return `${counted(ports.length, 'port')}${note}, ${this.switch.runState}, io ${this.switch.io}`
  }

  #forwardEvents(): void {
    const { log } = this.#log
    const { events } = this.switch
    const { notify } = this.#options
    events.on('port-added', (info: PortInfo) => {
      log(`${info.type} ${info.id}: ${describeOpening(info)}`, levelOf(info))
      this.#server.sendEvent('PORT_ADDED', { id: info.id })
      notify?.changed()
    })
    events.on('port-removed', (id: string) => {
      this.#linkChanges.forget(id)
      log(`port ${id}: removed`)
      this.#server.sendEvent('PORT_REMOVED', { id })
      notify?.changed()
    })
    events.on('port-changed', (info: PortInfo) => {
      const error = info.error === undefined ? '' : ` error="${info.error}"`
      log(`${info.type} ${info.id}: state=${info.state}${error}`, levelOf(info))
      this.#linkChanges.say(info.id, {
        id: info.id,
        state: info.state,
        up: info.state === 'open' || info.state === 'connected',
      })
      notify?.changed()
    })
    events.on('loop-detected', (loop: LoopInfo) => {
      this.#server.sendEvent('LOOP_DETECTED', loop)
    })
    events.on('capture-ended', (id: number, summary: CaptureSummary) => {
      const tell = (): void => this.#server.sendEvent('CAPTURE_ENDED', { id, ...summary })
      // Its client may still have to come.
      void this.#migration.clientsHere.then(tell)
    })
    events.on('engine-failed', (error: Error) => this.#failed(error))
  }

  #failed(error: Error): void {
    this.#options.log(`switch: failed error="${explain(error)}"`, 'error')
    this.#endAfter(error)
  }

  /** Of an error that the log has. */
  #endAfter(error: Error): void {
    this.#options.failing?.(error)
    this.#options.notify?.stopping(error)
    this.#end(false)
  }

  /** Tells the sessions, closes every port, removes the socket. */
  async close(): Promise<void> {
    this.#options.notify?.stopping()
    this.#linkChanges.close()
    this.#server.sendEvent('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' })
    await this.#migration.close()
    await this.switch.close()
    await this.#server.close()
    this.#log.flush()
  }
}

function switchOptions(config: Config): Parameters<typeof createSwitch>[0] {
  const { pace, io, macAgingS, macTableSize, groupAddresses, snooping, stateDir } = config
  return {
    ...(pace === undefined ? {} : { pace }),
    ...(io === undefined ? {} : { io }),
    ...(macAgingS === undefined ? {} : { macAgingS }),
    ...(macTableSize === undefined ? {} : { macTableSize }),
    ...(groupAddresses === undefined ? {} : { groupAddresses }),
    ...(snooping === undefined ? {} : { snooping }),
    ...(stateDir === undefined ? {} : { stateDirectory: stateDir }),
  }
}

/** Each command is a line at level debug: what a client asked for, and how long it took. */
function withLog(
  commands: ReadonlyMap<string, ServedCommand>,
  log: Log,
): ReadonlyMap<string, ServedCommand> {
  const entries = [...commands].map(([name, served]) => {
    const run: ServedCommand['run'] = async (args, session) => {
      const start = performance.now()
      let end = ''
      try {
        return await served.run(args, session)
      } catch (error) {
        end = ` error="${explain(error)}"`
        throw error
      } finally {
        const ms = (performance.now() - start).toFixed(1)
        const subject = args['id'] ?? args['name']
        const of = typeof subject === 'string' ? ` id=${subject.slice(0, NAME_LENGTH_MAX)}` : ''
        log(`control: ${name}${of} ms=${ms}${end}`, 'debug')
      }
    }
    return [name, { ...served, run }] as const
  })
  return new Map(entries)
}

function levelOf({ state }: PortInfo): LogLevel {
  return state === 'failed' ? 'error' : 'info'
}

function describeOpening(info: PortInfo): string {
  if (info.state === 'failed') return `failed error="${info.error}"`
  if (info.state === 'postponed') return `postponed ${info.info}`
  const reason = info.notPostponed
  return `opened ${describeFacts(info)}${reason === undefined ? '' : ` because="${reason}"`}`
}

function describeFacts(info: PortInfo): string {
  const { ifname, netns, path, queues, vnetHdrLength } = info
  return [
    ifname === undefined ? '' : `ifname=${ifname}`,
    netns === undefined ? '' : `netns=${netns}`,
    path === undefined ? '' : `path=${path}`,
    `queues=${queues}`,
    `vnet_hdr=${vnetHdrLength === 0 ? 'off' : 'on'}`,
  ]
    .filter((fact) => fact !== '')
    .join(' ')
}
