/**
 * What runs of the config: its start, its reloads, and what of it is known to run after each action,
 * whatever becomes of those behind it.
 *
 * Nothing passes half of a topology. Ports that are added, and those that get another link, are held
 * until the last action is done; then all of them begin at once. Other ports go on meanwhile.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Action } from '../config/diff.ts'
import { planChanges } from '../config/diff.ts'
import type { Config } from '../config/load.ts'
import type { PortOptions } from '../port/options.ts'
import type { Switch } from '../switch/api.ts'

/** Settings that only a restart changes. */
const FIXED_SETTINGS = [
  'control',
  'stateDir',
  'pace',
  'io',
  'macAgingS',
  'macTableSize',
  'groupAddresses',
  'privileges',
] as const

export interface RunningConfigContext {
  readonly switch: Switch
  addPort(options: PortOptions): Promise<unknown>
  readonly log: (message: string) => void
  /** Aborted: no further action is begun. */
  readonly signal: AbortSignal | undefined
}

export interface Reloaded {
  readonly actions: string[]
  readonly 'needs-restart': string[]
}

export class RunningConfig {
  readonly #context: RunningConfigContext
  #config: Config
  /** The end of the queue of starts, reloads and links by hand. */
  #last: Promise<unknown> = Promise.resolve()

  /** Of `config`, nothing runs yet but its settings. */
  constructor(config: Config, context: RunningConfigContext) {
    this.#context = context
    this.#config = { ...config, ports: [], links: [] }
  }

  start(config: Config): Promise<unknown> {
    return this.#inTurn(() => this.#apply(planChanges(this.#running(), config), config))
  }

  /** Applies the difference between the config and what runs of it. */
  reload(read: () => Config): Promise<Reloaded> {
    return this.#inTurn(async () => {
      const { log } = this.#context
      const wanted = read()
      const restart = FIXED_SETTINGS.filter(
        (key) => !isDeepStrictEqual(this.#config[key], wanted[key]),
      )
      for (const key of restart) log(`config: ${key} changed: takes effect at the next start`)
      const plan = planChanges(this.#running(), wanted)
      await this.#apply(plan, wanted)
      log(`config: reloaded actions=${plan.length}`)
      return { actions: plan.map(describeAction), 'needs-restart': [...restart] }
    })
  }

  /** By hand: ports that waited for a link have one now. */
  addLink(a: string, b: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#context.switch.addLink(a, b)
      await this.#context.switch.release([a, b])
    })
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action)
    this.#last = result.catch(() => undefined)
    return result
  }

  /** What runs of what the config named: ports added by hand are not the config's to remove. */
  #running(): { ports: PortOptions[]; links: [string, string][] } {
    const existing = this.#ids()
    const ports = this.#config.ports.filter(({ id }) => existing.has(id))
    const wired = this.#context.switch.links()
    const links = wired.filter((link) => link.every((id) => ports.some((port) => port.id === id)))
    return { ports, links }
  }

  #ids(): Set<string> {
    return new Set(this.#context.switch.ports().map(({ id }) => id))
  }

  async #apply(plan: readonly Action[], wanted: Config): Promise<void> {
    const { switch: sw, signal } = this.#context
    const before = this.#ids()
    const rewired = plan.flatMap((step) => ('a' in step ? [step.a, step.b] : []))
    await sw.hold([...new Set(rewired)].filter((id) => before.has(id)))
    for (const step of plan) {
      try {
        signal?.throwIfAborted()
        await this.#do(step)
      } catch (error) {
        await this.#stopAt(step, before, wanted)
        throw error
      }
    }
    await sw.release()
    // Settings that need a restart stay as they run.
    this.#config = { ...this.#config, ports: wanted.ports, links: wanted.links }
  }

  async #do(step: Action): Promise<void> {
    const { switch: sw } = this.#context
    switch (step.action) {
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
    }
  }

  /** So it runs from now on. */
  #note(id: string, options?: PortOptions): void {
    const others = this.#config.ports.filter((port) => port.id !== id)
    const ports = options === undefined ? others : [...others, options]
    this.#config = { ...this.#config, ports }
  }

  /**
   * An action failed. What ran before goes on, but for ports that lack their link: on the switch their
   * frames would reach ports that shall never see them. They wait, as do new ports, for a reload that
   * succeeds.
   */
  async #stopAt(step: Action, before: ReadonlySet<string>, wanted: Config): Promise<void> {
    const { switch: sw, log } = this.#context
    try {
      const peers = new Map(sw.ports().map(({ id, peer }) => [id, peer]))
      const isLacking = (id: string): boolean =>
        wanted.links.some(
          ([a, b]) => (a === id && peers.get(a) !== b) || (b === id && peers.get(b) !== a),
        )
      await sw.release([...peers.keys()].filter((id) => before.has(id) && !isLacking(id)))
      const held = sw.ports().flatMap((port) => (port.held === true ? [port.id] : []))
      const waiting = held.length === 0 ? '' : ` held=${held.join(',')}`
      log(`config: stopped at="${describeAction(step)}"${waiting}`)
    } catch (error) {
      log(`config: stopped at="${describeAction(step)}" error="${(error as Error).message}"`)
    }
  }
}

export function describeAction(step: Action): string {
  switch (step.action) {
    case 'add':
      return `add ${step.options.id}`
    case 'remove':
      return `remove ${step.id}`
    case 'link':
    case 'unlink':
      return `${step.action} ${step.a},${step.b}`
  }
}
