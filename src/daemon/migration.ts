/**
 * The daemon's part in a hand-over, of either side: parameters and progress as QEMU tells them, and what
 * the protocol (handover/) does to the switch and to the config that runs.
 */
import { setTimeout } from 'node:timers/promises'
import { StateError } from '../errors.ts'
import type { Channel } from '../handover/channel.ts'
import { reasonOf } from '../handover/channel.ts'
import { connectTo, Meeting, pathOfUri } from '../handover/meeting.ts'
import { knownFeatures, usedFeatures } from '../handover/features.ts'
import type { SwitchFeature } from '../handover/features.ts'
import { PROTOCOL } from '../handover/hello.ts'
import type { HelloOfSource } from '../handover/hello.ts'
import { checkProcess, hasProcessEnded, openOwnProcess } from '../handover/process.ts'
import { closeUnclaimed } from '../handover/socket-channel.ts'
import type { SourceEffects } from '../handover/source.ts'
import type { Handed } from '../handover/state.ts'
import type { ControlServer, HandedClients } from '../control/server.ts'
import { runSource } from '../handover/source.ts'
import type { TargetEffects } from '../handover/target.ts'
import { NotGreeted, runTarget } from '../handover/target.ts'
import type { Topology } from '../config/diff.ts'
import type { Config } from '../config/load.ts'
import { shim } from '../native/shim.ts'
import type { Switch } from '../switch/api.ts'
import type { HandOverOutline } from '../switch/handed.ts'
import type { Log } from '../text.ts'
import { counted } from '../text.ts'
import { DEFAULT_PARAMETERS } from '../handover/progress.ts'
import type { MigrationControl, MigrationInfo, MigrationParameters } from '../handover/progress.ts'
import type { PortOptions } from '../port/options.ts'
import type { HandedTopology, RunningConfig } from './running-config.ts'
import type { Starter } from './starter.ts'

/** Somebody may look at a source that has done its part: an hour. */
const SOURCE_LOOK_MS = 100
const SOURCE_LOOKS_MAX = 36_000

export interface MigrationContext {
  readonly switch: Switch
  readonly running: RunningConfig
  /** What this process was told to be, by its command line and its file. */
  readonly config: Config
  readonly release: string
  /** Who has started this process, to take over. */
  readonly starter: Starter | undefined
  readonly log: Log
  /** Those of the control socket. */
  readonly clients: {
    handOver: ControlServer['handOver']
    takeBack(): void
    handedOver(): void
    takeOver(clients: HandedClients): Promise<void>
  }
  /** Clients are told. */
  readonly told: (info: MigrationInfo) => void
  /** Adds a port that waits for the pre-incoming point, if another process may still have it. */
  readonly addPort: (options: PortOptions) => Promise<unknown>
  /** The service manager knows of what goes on meanwhile. */
  readonly announced: <T>(action: () => Promise<T>) => Promise<T>
  /** The source has stopped reading, or goes on. */
  readonly paused: (isPaused: boolean) => void
  /** The process with that number runs in the place of this one. */
  readonly handedOver: (pid: number) => void
  /** The target runs; `sourceEnded` resolves when the source's process has ended. */
  readonly tookOver: (sourceEnded: Promise<void>) => Promise<void>
  /** The target cannot go on, and nobody needs it. */
  readonly failed: (error: Error) => void
}

type HandedOver = NonNullable<MigrationInfo['result']>

interface Begun {
  readonly ownProcess: number
  readonly cancel: AbortSignal
}

export class Migration implements MigrationControl {
  parameters: MigrationParameters = DEFAULT_PARAMETERS
  readonly #context: MigrationContext
  /** Taken while it can be; the error when it could not. */
  readonly #ownProcess: number | Error
  #info: MigrationInfo = { status: 'none' }
  #side: 'source' | 'target' = 'source'
  #startMs = 0
  #cancel: AbortController | undefined
  /** At the target, the source's process; -1: none. */
  #source = -1
  /** Those of the source's control socket are clients of this one's; at once when none are to come. */
  clientsHere: Promise<void> = Promise.resolve()
  /** The source's part is over, whatever has become of it. */
  settled: Promise<unknown> = Promise.resolve()

  constructor(context: MigrationContext) {
    this.#context = context
    try {
      this.#ownProcess = openOwnProcess()
    } catch (error) {
      this.#ownProcess = error as Error
    }
  }

  get info(): MigrationInfo {
    const { status } = this.#info
    const isGoingOn = ['setup', 'active', 'device'].includes(status)
    return isGoingOn ? { ...this.#info, totalMs: performance.now() - this.#startMs } : this.#info
  }

  #say(info: MigrationInfo): void {
    const before = this.#info.status
    this.#info = info
    if (info.status === before) return
    const because = info.error === undefined ? '' : ` error="${info.error}"`
    // Both processes may write into one log.
    const text = `hand-over: ${info.status} side=${this.#side}${because}`
    this.#context.log(text, because === '' ? 'info' : 'warning')
    this.#context.told(info)
  }

  #begin(side: 'source' | 'target'): Begun {
    if (this.#cancel !== undefined) {
      throw new StateError('HAND_OVER', 'a hand-over is under way already')
    }
    if (typeof this.#ownProcess !== 'number') throw this.#ownProcess
    this.#side = side
    this.#startMs = performance.now()
    this.#cancel = new AbortController()
    return { ownProcess: this.#ownProcess, cancel: this.#cancel.signal }
  }

  #end(info: MigrationInfo): void {
    this.#cancel = undefined
    this.#say({ ...info, totalMs: performance.now() - this.#startMs })
  }

  /** Ends what can still be ended. */
  cancel(): void {
    this.#cancel?.abort(new Cancelled())
  }

  /** The process ends: a target that waits for it is told so. */
  async close(): Promise<void> {
    this.cancel()
    if (this.#context.switch.runState !== 'postmigrate') await this.settled
  }

  // --- the source -------------------------------------------------------------------------------

  /** The rest goes on by itself. */
  async migrate(uri: string): Promise<void> {
    const { release, log } = this.#context
    const path = pathOfUri(uri)
    const begun = this.#begin('source')
    // As soon as it can be told: when nobody listens there, or not one of us.
    const channel = await this.#orEnd(connectTo(path, release, log))
    this.#hand(channel, this.parameters, begun).catch(() => undefined)
  }

  /**
   * Hands everything over by a channel that is still to be had. Throws what went wrong: this process goes
   * on, unless it is HandedAway.
   */
  async handOver(
    connect: (cancel: AbortSignal) => Promise<Channel>,
    parameters: MigrationParameters,
  ): Promise<HandedOver> {
    const begun = this.#begin('source')
    return await this.#hand(await this.#orEnd(connect(begun.cancel)), parameters, begun)
  }

  /** What cannot begin is not under way. */
  async #orEnd<T>(first: Promise<T>): Promise<T> {
    try {
      return await first
    } catch (error) {
      this.#end({ status: 'failed', error: reasonOf(error) })
      throw error
    }
  }

  #hand(channel: Channel, parameters: MigrationParameters, begun: Begun): Promise<HandedOver> {
    const over = this.#handAll(channel, parameters, begun)
    this.settled = over.catch(() => undefined)
    return over
  }

  async #handAll(
    channel: Channel,
    parameters: MigrationParameters,
    begun: Begun,
  ): Promise<HandedOver> {
    const { running, handedOver, announced } = this.#context
    try {
      this.#say({ status: 'setup' })
      const result = await announced(async () => {
        const done = await running.alone(() => this.#run(channel, parameters, begun))
        handedOver(done.pid)
        return done
      })
      this.#end({ status: 'completed', result })
      return result
    } catch (error) {
      const status = error instanceof Cancelled ? 'cancelled' : 'failed'
      this.#end({ status, error: reasonOf(error) })
      throw error
    }
  }

  async #run(
    channel: Channel,
    { exclude, backendTransfer, downtimeLimitMs }: MigrationParameters,
    begun: Begun,
  ): Promise<HandedOver> {
    const { switch: sw, running, release, paused, clients } = this.#context
    const left = backendTransfer ? exclude : sw.ports().map(({ id }) => id)
    const outline = await this.#outline(channel, left)
    const ports = outline.ports.map((port) => port.options)
    const down = sw.ports().flatMap(({ id, link }) => (link ? [] : [id]))
    const hello: HelloOfSource = {
      protocol: PROTOCOL,
      release,
      backendTransfer,
      exclude,
      features: usedFeatures(ports, featuresOf(sw)),
      ports,
      outline,
      desired: running.topology,
      ...(sw.runState === 'paused' ? { isPaused: true as const } : {}),
      ...(down.length === 0 ? {} : { down }),
      downtimeLimitMs,
    }
    const effects: SourceEffects = {
      preview: () => sw.previewHandOver(left),
      silence: async (captures) => {
        paused(true)
        const { handed, ending } = await clients.handOver(captures)
        return { control: handed, ending }
      },
      answer: () => {
        clients.takeBack()
        paused(false)
      },
      handOver: (how) => sw.handOver(left, how),
      takeBack: () => sw.takeBack(),
      handedOver: (settled) => {
        clients.handedOver()
        return sw.handedOver(settled)
      },
      status: (status) => this.#say({ status }),
      kernelDropped: () => kernelDropped(sw),
      nowUs,
    }
    const result = await runSource(channel, effects, {
      hello,
      downtimeLimitMs,
      checkProcess: (fds) => {
        try {
          checkProcess(fds)
        } finally {
          closeAll(fds)
        }
      },
      ...begun,
    })
    return { ...result, ports: hello.ports.map(({ id }) => id) }
  }

  /** Throws what cannot be handed over; then the target is told so. */
  async #outline(channel: Channel, left: readonly string[]): Promise<HandOverOutline> {
    try {
      return await this.#context.switch.outlineHandOver(left)
    } catch (error) {
      channel.sendNow('abort', { reason: reasonOf(error) })
      await channel.close()
      throw error
    }
  }

  // --- the target -------------------------------------------------------------------------------

  /** Listens for a source; the rest goes on by itself. Throws when it cannot. */
  takeOver(uri: string): void {
    const { switch: sw, release, log } = this.#context
    if (sw.runState !== 'inmigrate') {
      throw new StateError('INCOMING', `'-incoming' was not specified on the command line`)
    }
    const { ownProcess, cancel } = this.#begin('target')
    try {
      const meeting = new Meeting(pathOfUri(uri), release, log)
      void this.#meet(meeting, ownProcess, cancel)
    } catch (error) {
      this.#cancel = undefined
      throw error
    }
  }

  async #meet(meeting: Meeting, ownProcess: number, cancel: AbortSignal): Promise<void> {
    const { release, config, starter, tookOver, failed } = this.#context
    const { backendTransfer, exclude } = this.parameters
    const common = { protocol: PROTOCOL, release, backendTransfer, exclude }
    const { pid } = process
    const hello = { ...common, pid, features: knownFeatures(), ports: config.ports }
    const orGone = starter === undefined ? cancel : AbortSignal.any([cancel, starter.gone])
    this.#say({ status: 'setup' })
    try {
      for (;;) {
        const channel = await meeting.accept(orGone)
        const greeted = (peer: string): void => {
          channel.peerRelease = peer
        }
        try {
          // The end of a source has a meaning of its own.
          const given = channel.peerPid === starter?.pid ? cancel : orGone
          const target = { hello, ownProcess, greeted, cancel: given }
          await runTarget(channel, this.#targetEffects(), target)
          break
        } catch (error) {
          // Whoever that was: the source may still come.
          if (!(error instanceof NotGreeted)) throw error
          this.#context.log(`hand-over: not begun error="${error.message}"`, 'warning')
        }
      }
      await this.clientsHere
      this.#end({ status: 'completed' })
      await tookOver(this.#sourceEnded())
    } catch (error) {
      const status = error instanceof Cancelled ? 'cancelled' : 'failed'
      this.#end({ status, error: reasonOf(error) })
      failed(error as Error)
      this.#keepSource(-1)
    } finally {
      starter?.close()
      await meeting.close()
    }
  }

  /** Of the source, unless this one was told another. */
  #inherit(downtimeLimitMs: number = DEFAULT_PARAMETERS.downtimeLimitMs): void {
    const isTold = this.parameters.downtimeLimitMs !== DEFAULT_PARAMETERS.downtimeLimitMs
    if (!isTold) this.parameters = { ...this.parameters, downtimeLimitMs }
  }

  /** Until it has ended; of several the last. */
  #keepSource(process: number): void {
    if (this.#source >= 0) shim.close(this.#source)
    this.#source = process
  }

  async #sourceEnded(): Promise<void> {
    for (let looks = 0; looks < SOURCE_LOOKS_MAX && !(await hasProcessEnded(this.#source, 0));) {
      looks++
      await setTimeout(SOURCE_LOOK_MS, undefined, { ref: false })
    }
    this.#keepSource(-1)
  }

  #targetEffects(): TargetEffects {
    const { switch: sw, running, log, addPort, clients } = this.#context
    let source: HelloOfSource | undefined
    const adopt = ({ desired: topology, downtimeLimitMs }: HelloOfSource): void => {
      running.adopt(topology as HandedTopology)
      this.#inherit(downtimeLimitMs)
    }
    let isPaused = false
    let came: Handed['control'] | undefined
    let clientsCame: () => void = () => undefined
    return {
      prepare: (hello, preview) => {
        source = hello
        return sw.prepareTakeOver(hello.outline, preview.switch)
      },
      rehearse: (handed) => sw.rehearseTakeOver(handed),
      takeOver: async (handed) => {
        came = handed.control
        this.clientsHere = new Promise((resolve) => (clientsCame = resolve))
        isPaused = handed.switch.runState === 'paused'
        await sw.takeOver(handed.switch)
      },
      discard: async () => {
        closeAll(came?.fds ?? [])
        await sw.close()
      },
      start: async (reading) => {
        await (isPaused ? sw.pause().then(() => reading(nowUs())) : sw.resume(reading))
        adopt(source!)
        // Frames pass, and nobody else passes them: without its clients it goes on as well.
        void clients
          .takeOver(came as HandedClients)
          .catch((error) =>
            log(`hand-over: clients are lost error="${reasonOf(error)}"`, 'warning'),
          )
          .then(clientsCame)
      },
      openByName: async (hello) => {
        const { ports, outline, down = [] } = hello
        log(
          `hand-over: the source is dead: ${counted(ports.length, 'port')} opened by name`,
          'warning',
        )
        await sw.dropPreview()
        const places = new Map(sw.ports().map(({ id, peer }) => [id, peer]))
        for (const port of ports) if (!places.has(port.id)) await addPort(port)
        for (const id of down) await sw.setLink(id, false)
        for (const [a, b] of outline.links) if (places.get(a) !== b) await sw.addLink(a, b)
        const topology = hello.desired as Topology
        for (const mirror of topology.mirrors ?? []) await sw.addMirror(mirror, true)
        await sw.fdb.add(topology.fdb ?? [])
        adopt(hello)
        await sw.migrateIncoming()
        await sw.release()
        await (hello.isPaused === true ? sw.pause() : sw.resume())
      },
      checkProcess,
      closeProcess: (process) => this.#keepSource(process),
      hasSourceEnded: (process) => hasProcessEnded(process),
      closeFds: (fds) => closeUnclaimed(fds, log),
      status: (status) => this.#say({ status }),
      kernelDropped: () => kernelDropped(sw),
    }
  }
}

class Cancelled extends StateError {
  constructor() {
    super('HAND_OVER', 'it was cancelled')
  }
}

function featuresOf(sw: Switch): SwitchFeature[] {
  const used: [SwitchFeature, number][] = [
    ['link', sw.links().length],
    ['mirror', sw.mirrors().length],
    [
      'mirror.filter',
      sw.mirrors().filter(({ options }) => options.filterProgram !== undefined).length,
    ],
    ['capture', sw.captures().length],
    ['capture.ring', sw.captures().length],
  ]
  return used.flatMap(([name, count]) => (count > 0 ? [name] : []))
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) shim.close(fd)
}

/** CLOCK_MONOTONIC, which all processes of a machine share. */
const nowUs = (): number => Number(process.hrtime.bigint() / 1000n)

async function kernelDropped(sw: Switch): Promise<number> {
  // The kernel is asked about rings: while nobody read, nobody was told.
  await sw.currentCounters()
  const dropped = sw
    .ports()
    .map(
      ({ id, counters }) =>
        counters.rx_drop_kernel + (sw.kernelCounters(id)?.rx_kernel_dropped ?? 0),
    )
  return dropped.reduce((sum, one) => sum + one, 0)
}
