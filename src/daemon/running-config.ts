/**
 * What runs of the config: its start, its reloads, and what of it is known to run after each action,
 * whatever becomes of those behind it.
 *
 * Nothing passes half of a topology. Ports that are added, and those that get another link, are held
 * until the last action is done; then all of them begin at once. Other ports go on meanwhile.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Action, Topology } from '../config/diff.ts'
import { entryKey, planChanges } from '../config/diff.ts'
import type { Config } from '../config/load.ts'
import { withPrograms } from '../config/mirrors.ts'
import type { PortOptions } from '../port/options.ts'
import type { Switch, SwitchSettings } from '../switch/api.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'

/** Settings that only a restart changes, with their names in the file. */
const FIXED_SETTINGS = {
  control: 'control',
  stateDir: 'state-dir',
  io: 'io',
  logLevel: 'log-level',
  logFormat: 'log-format',
  macTableSize: 'mac-table-size',
  privileges: 'privileges',
} as const
/** Settings that change at once. */
const LIVE_SETTINGS = {
  pace: 'pace',
  macAgingS: 'mac-aging-s',
  groupAddresses: 'group-addresses',
  snooping: 'snooping',
} as const

/** Names in the file of those that differ. */
function differing(
  names: Readonly<Partial<Record<keyof Config, string>>>,
  a: Config,
  b: Config,
): string[] {
  const keys = Object.keys(names) as (keyof Config)[]
  return keys.filter((key) => !isDeepStrictEqual(a[key], b[key])).map((key) => names[key]!)
}

type Step =
  Action | { readonly action: 'set'; readonly keys: readonly string[]; readonly to: Config }

export interface RunningConfigContext {
  readonly switch: Switch
  addPort(options: PortOptions): Promise<unknown>
  /** `keys`: the options that differ. */
  changePort(options: PortOptions, keys: readonly string[]): Promise<unknown>
  /** The error, or one that tells which privilege is missing. */
  explain(error: unknown): unknown
  readonly log: Log
  /** Aborted: no further action is begun. */
  readonly signal: AbortSignal | undefined
}

export interface Reloaded {
  readonly actions: string[]
  readonly 'needs-restart': string[]
}

/** What of the config was taken away by hand, by names and keys: it comes back with a reload. */
interface Removed {
  readonly ports: readonly string[]
  readonly mirrors: readonly string[]
  readonly fdb: readonly string[]
}

/** What a successor goes on with. `removed`: what its config may name, and shall not bring back. */
export interface HandedTopology extends Topology {
  /** Absent: of one that does not tell. */
  readonly removed?: Removed
}

const NOTHING_REMOVED: Removed = { ports: [], mirrors: [], fdb: [] }

export class RunningConfig {
  readonly #context: RunningConfigContext
  #config: Config
  /** At predecessors. */
  #removed: Removed = NOTHING_REMOVED
  /** The end of the queue of starts, reloads and links by hand. */
  #last: Promise<unknown> = Promise.resolve()

  /** Of `config`, nothing runs yet but its settings. */
  constructor(config: Config, context: RunningConfigContext) {
    this.#context = context
    this.#config = { ...config, ports: [], links: [], mirrors: [], fdb: [] }
  }

  start(config: Config): Promise<unknown> {
    return this.#inTurn(async () => {
      const wanted = await withPrograms(config)
      await this.#apply(this.#plan(wanted), wanted)
    })
  }

  /** Applies the difference between the config and what runs of it. */
  reload(read: () => Config): Promise<Reloaded> {
    return this.#inTurn(async () => {
      const { log } = this.#context
      const wanted = await withPrograms(read())
      const restart = differing(FIXED_SETTINGS, this.#config, wanted)
      for (const key of restart)
        log(`config: ${key} changed: takes effect at the next start`, 'warning')
      const plan = this.#plan(wanted)
      await this.#apply(plan, wanted)
      this.#removed = NOTHING_REMOVED
      log(`config: reloaded actions=${plan.length}`)
      return { actions: plan.map(describeAction), 'needs-restart': restart }
    })
  }

  /** By hand: ports that waited for a link have one now. */
  addLink(a: string, b: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#context.switch.addLink(a, b)
      await this.#context.switch.release([a, b])
    })
  }

  /** What runs of what the config named, and what of it does not any more. */
  get topology(): HandedTopology {
    const { ports, mirrors, fdb } = this.#removed
    const { switch: sw } = this.#context
    const rest = (names: readonly string[], running: readonly string[]): string[] =>
      [...new Set(names)].filter((name) => !running.includes(name))
    const removed = {
      ports: rest([...ports, ...this.#config.ports.map(({ id }) => id)], [...this.#ids()]),
      mirrors: rest(
        [...mirrors, ...(this.#config.mirrors ?? []).map(({ name }) => name)],
        sw.mirrors().map(({ options }) => options.name),
      ),
      fdb: rest([...fdb, ...(this.#config.fdb ?? []).map(entryKey)], sw.fdb.list().map(entryKey)),
    }
    return { ...this.#running(), removed }
  }

  /** That runs now, taken over from another process: of its config, and not ports added by hand. */
  adopt({ ports, links, mirrors = [], fdb = [], removed = NOTHING_REMOVED }: HandedTopology): void {
    this.#removed = removed
    const isOther = ({ id }: PortOptions): boolean => ports.every((port) => port.id !== id)
    const own = this.#config.ports.filter(isOther)
    this.#config = {
      ...this.#config,
      ports: [...own, ...ports],
      links: links.map(([a, b]) => [a, b]),
      mirrors: [...mirrors],
      fdb: [...fdb],
    }
  }

  /** Adds what the config names and what was not taken over from another process. */
  join(config: Config): Promise<unknown> {
    return this.#inTurn(async () => {
      const ids = this.#ids()
      const { ports, links, mirrors = [], fdb = [] } = this.#config
      const names = new Set(this.#context.switch.mirrors().map(({ options }) => options.name))
      const removed = this.#removed
      const isThere = ({ id }: PortOptions): boolean => ids.has(id)
      const isGone = (id: string): boolean => removed.ports.includes(id)
      const isNamed = ({ id }: PortOptions): boolean => ports.some((port) => port.id === id)
      const own = config.ports.filter((port) => isThere(port) && !isNamed(port))
      this.#config = { ...this.#config, ports: [...ports, ...own] }
      const isKnown = ([a, b]: readonly [string, string]): boolean =>
        (ids.has(a) && ids.has(b)) || isGone(a) || isGone(b)
      const entries = new Set([...fdb.map(entryKey), ...removed.fdb])
      const named = new Set([...names, ...removed.mirrors])
      const wanted = {
        ...this.#config,
        ports: [
          ...this.#config.ports,
          ...config.ports.filter((port) => !isThere(port) && !isGone(port.id)),
        ],
        links: [...links, ...config.links.filter((link) => !isKnown(link))],
        mirrors: [...mirrors, ...(config.mirrors ?? []).filter(({ name }) => !named.has(name))],
        fdb: [
          ...fdb,
          ...(config.fdb ?? []).filter(
            (entry) => !entries.has(entryKey(entry)) && !isGone(entry.port),
          ),
        ],
      }
      const compiled = await withPrograms(wanted)
      await this.#apply(this.#plan(compiled), compiled)
    })
  }

  /** Nothing else changes meanwhile. */
  alone<T>(action: () => Promise<T>): Promise<T> {
    return this.#inTurn(action)
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action)
    this.#last = result.catch(() => undefined)
    return result
  }

  #plan(wanted: Config): Step[] {
    const keys = differing(LIVE_SETTINGS, this.#config, wanted)
    const failed = new Set(
      this.#context.switch.ports().flatMap(({ id, state }) => (state === 'failed' ? [id] : [])),
    )
    const changes = planChanges(this.#running(), wanted, (id) => failed.has(id))
    return keys.length === 0 ? changes : [{ action: 'set', keys, to: wanted }, ...changes]
  }

  /** What runs of what the config named: ports added by hand are not the config's to remove. */
  #running(): Topology {
    const existing = this.#ids()
    const ports = this.#config.ports.filter(({ id }) => existing.has(id))
    const wired = this.#context.switch.links()
    const links = wired.filter((link) => link.every((id) => ports.some((port) => port.id === id)))
    const named = new Set((this.#config.mirrors ?? []).map(({ name }) => name))
    const mirrors = this.#context.switch
      .mirrors()
      .map(({ options }) => options)
      .filter(({ name }) => named.has(name))
    const added = new Set(this.#context.switch.fdb.list().map(entryKey))
    const fdb = (this.#config.fdb ?? []).filter((entry) => added.has(entryKey(entry)))
    return { ports, links, mirrors, fdb }
  }

  #ids(): Set<string> {
    return new Set(this.#context.switch.ports().map(({ id }) => id))
  }

  async #apply(plan: readonly Step[], wanted: Config): Promise<void> {
    const { switch: sw, signal } = this.#context
    const before = this.#ids()
    // Outputs of mirrors as well: between two mirrors they are ports like any other.
    const rewired = plan.flatMap((step) => {
      if ('mirror' in step) return step.mirror.outputPort ?? []
      return 'a' in step ? [step.a, step.b] : []
    })
    await sw.hold([...new Set(rewired)].filter((id) => before.has(id)))
    for (const step of plan) {
      // It ends: what is held stays so.
      signal?.throwIfAborted()
      try {
        await this.#do(step)
      } catch (error) {
        await this.#stopAt(step, before, wanted)
        throw error
      }
    }
    await sw.release()
    // Settings that need a restart stay as they run.
    this.#config = {
      ...this.#config,
      ports: wanted.ports,
      links: wanted.links,
      mirrors: wanted.mirrors ?? [],
      fdb: wanted.fdb ?? [],
    }
  }

  async #do(step: Step): Promise<void> {
    const { switch: sw } = this.#context
    switch (step.action) {
      case 'set': {
        const settings = liveSettings(step.to)
        await sw.configure(settings)
        this.#config = { ...withoutLive(this.#config), ...settings }
        return
      }
      case 'change':
        await this.#context.changePort(step.options, step.keys)
        return this.#note(step.options.id, step.options)
      case 'unlink':
        return sw.removeLink(step.a, step.b)
      case 'remove':
        await sw.removePort(step.id)
        return this.#note(step.id)
      case 'add':
        await this.#context.addPort(step.options)
        return this.#note(step.options.id, step.options)
      case 'link':
        return sw.addLink(step.a, step.b)
      case 'fdb-add':
        await sw.fdb.add([step.entry])
        this.#config = { ...this.#config, fdb: [...(this.#config.fdb ?? []), step.entry] }
        return
      case 'fdb-del':
        return sw.fdb.remove([step.entry])
      case 'mirror':
        await sw.addMirror(step.mirror).catch((error: unknown) => {
          throw this.#context.explain(error)
        })
        this.#config = { ...this.#config, mirrors: [...(this.#config.mirrors ?? []), step.mirror] }
        return
      case 'unmirror':
        return sw.removeMirror(step.mirror.name)
    }
  }

  /** So it runs from now on. */
  #note(id: string, options?: PortOptions): void {
    const others = this.#config.ports.filter((port) => port.id !== id)
    const ports = options === undefined ? others : [...others, options]
    this.#config = { ...this.#config, ports }
  }

  /**
   * An action failed. What ran before goes on, but for ports that lack their link or their mirror: on the
   * switch their frames would reach ports that shall never see them. They wait, as do new ports, for a
   * reload that succeeds.
   */
  async #stopAt(step: Step, before: ReadonlySet<string>, wanted: Config): Promise<void> {
    const { switch: sw, log } = this.#context
    try {
      const peers = new Map(sw.ports().map(({ id, peer }) => [id, peer]))
      const mirrors = new Set(sw.mirrors().map(({ options }) => options.name))
      const isOutput = (id: string): boolean =>
        (wanted.mirrors ?? []).some(
          ({ name, outputPort }) => outputPort === id && !mirrors.has(name),
        )
      const isLacking = (id: string): boolean =>
        isOutput(id) ||
        wanted.links.some(
          ([a, b]) => (a === id && peers.get(a) !== b) || (b === id && peers.get(b) !== a),
        )
      await sw.release([...peers.keys()].filter((id) => before.has(id) && !isLacking(id)))
      const held = sw.ports().flatMap((port) => (port.held === true ? [port.id] : []))
      const waiting = held.length === 0 ? '' : ` held=${held.join(',')}`
      log(`config: stopped at="${describeAction(step)}"${waiting}`, 'warning')
    } catch (error) {
      log(`config: stopped at="${describeAction(step)}" error="${explain(error)}"`, 'error')
    }
  }
}

function withoutLive(config: Config): Config {
  const isLive = (key: string): boolean => Object.hasOwn(LIVE_SETTINGS, key)
  return Object.fromEntries(
    Object.entries(config).filter(([key]) => !isLive(key)),
  ) as unknown as Config
}

function liveSettings({ pace, macAgingS, groupAddresses, snooping }: Config): SwitchSettings {
  return {
    ...(pace === undefined ? {} : { pace }),
    ...(macAgingS === undefined ? {} : { macAgingS }),
    ...(groupAddresses === undefined ? {} : { groupAddresses }),
    ...(snooping === undefined ? {} : { snooping }),
  }
}

function describeAction(step: Step): string {
  switch (step.action) {
    case 'set':
      return `set ${step.keys.join(',')}`
    case 'change':
      return `change ${step.options.id} ${step.keys.join(',')}`
    case 'add':
      return `add ${step.options.id}`
    case 'remove':
      return `remove ${step.id}`
    case 'link':
    case 'unlink':
      return `${step.action} ${step.a},${step.b}`
    case 'fdb-add':
    case 'fdb-del':
      return `${step.action} ${step.entry.mac}`
    case 'mirror':
    case 'unmirror':
      return `${step.action} ${step.mirror.name}`
  }
}
