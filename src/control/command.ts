/**
 * A command of the control socket: its name, what it takes, what it does and what it answers, in one
 * place. `query-commands`, the checks of arguments and README.md of this folder come from it.
 */
import type { MigrationControl } from '../handover/progress.ts'
import type { PortOptions } from '../port/options.ts'
import type { Members, StaticMembers } from '../schema/value.ts'
import type { Switch } from '../switch/api.ts'
import type { EventData, EventName } from './events.ts'
import type { ServerVersion, Session } from './session.ts'

/** What the commands act on. */
export interface ControlTarget {
  readonly switch: Switch
  readonly version: ServerVersion
  /** Applies the config file again; returns what it did. */
  reload(): Promise<unknown>
  /** Forwarding begins, or goes on. */
  resume(): Promise<void>
  /** Begins to end the daemon. */
  quit(): void
  /** Adds a port; says so when what it needs was given up. */
  addPort(
    options: PortOptions,
    given: ReadonlyMap<string, number>,
    peer: string | undefined,
  ): Promise<unknown>
  addLink(a: string, b: string): Promise<unknown>
  /** The error, with what of it comes of what was given up. */
  explain(error: unknown): unknown
  migrateIncoming(): Promise<unknown>
  readonly migration: MigrationControl
  /** Replaces this process by a new one, with further options of `run`. `ended`: whoever asked for it is gone. */
  upgrade(options: readonly string[], ended: Promise<void>): Promise<unknown>
  /** Its start is over: everything that the config names is open, as far as it can be. */
  isReady(): boolean
  /** What the daemon may do. */
  privileges(): unknown
  sendEvent<E extends EventName>(event: E, data: EventData<E>): void
}

export interface CommandContext {
  readonly target: ControlTarget
  readonly session: Session
}

export interface Command<M extends Members = Members> {
  readonly name: string
  /** A sentence for a user. */
  readonly description: string
  readonly arguments: M
  /** There may be others as well: what they are, for a user. */
  readonly more?: string
  /** What the answer is, in one line; absent: nothing (`{}`). */
  readonly returns?: string
  /** Arguments are right when it is called. What it throws is the client's error. */
  run(args: StaticMembers<M>, context: CommandContext): unknown
}

/** Gives `run` the types of the arguments. */
export function command<const M extends Members>(it: Command<M>): Command {
  return it
}
