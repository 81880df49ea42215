/**
 * Some ports follow their interface by its name: when it is gone all that the port has is let go of, and
 * when there is one of that name the port is opened anew, in its place on the switch or on a link.
 */
import type { FramepumpError } from '../errors.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortStates } from './port-states.ts'
import type { PortTable } from './port-table.ts'
import type { PortCall } from '../port/messages.ts'
import type { ControlPort } from '../port/control-port.ts'

/**
 * A port that is lost is looked at so often without being told: its namespace may have been made anew, or
 * what was in the way of opening it may be gone.
 */
const RETRY_MS = 2000

export interface ReopeningParts {
  readonly log: Log
  /** Runs a step of the switch's changes. */
  change(step: () => Promise<void>): Promise<void>
  /** Those that were not removed. */
  readonly ports: Pick<PortTable, 'has'>
  /** Tells the engine, and those who listen. */
  readonly states: Pick<PortStates, 'tell' | 'show'>
  /** Tells the engine's end of a port something. */
  call(entry: PortEntry, call: PortCall): Promise<unknown>
  /** Opens the port that its options describe. */
  open(entry: PortEntry): Promise<ControlPort>
  /** The engine has what `entry.open` describes from now on. */
  replace(entry: PortEntry): Promise<void>
  /** Looks at the interface of what is open now. */
  watch(entry: PortEntry): void
}

export class InterfaceFollower {
  readonly #parts: ReopeningParts
  /** Those whose step is still to come: however often they change, they are looked at once. */
  readonly #waiting = new Set<PortEntry>()
  readonly #lost = new Set<PortEntry>()
  #retry: NodeJS.Timeout | undefined

  constructor(parts: ReopeningParts) {
    this.#parts = parts
  }

  /** What is there may not be what the port has open. */
  changed(entry: PortEntry): void {
    if (this.#waiting.has(entry)) return
    this.#waiting.add(entry)
    this.#parts
      .change(() => this.#look(entry))
      .catch((error: FramepumpError) => {
        if (error.code !== 'SWITCH_CLOSED') this.#parts.log(explain(error))
      })
  }

  /** Nothing is looked at any more. */
  close(): void {
    this.#lost.clear()
    clearTimeout(this.#retry)
  }

  async #look(entry: PortEntry): Promise<void> {
    this.#waiting.delete(entry)
    this.#lost.delete(entry)
    if (!this.#parts.ports.has(entry)) return
    try {
      await follow(entry, this.#parts)
    } finally {
      if (entry.open.isHoping === true) this.#lost.add(entry)
      if (this.#lost.size > 0) this.#retry ??= setTimeout(() => this.#again(), RETRY_MS).unref()
    }
  }

  #again(): void {
    this.#retry = undefined
    for (const entry of this.#lost) this.changed(entry)
  }
}

async function follow(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open } = entry
  const link = open.lookUp?.() ?? null
  const verdict = open.judge?.(link) ?? 'fine'
  if (verdict === 'adapt') await parts.call(entry, open.adapt!(link))
  if (verdict === 'fine' || verdict === 'adapt') {
    // The engine may have shut it, for what the sockets before these were given.
    await parts.states.tell(entry)
    return
  }
  if (open.isPlaceholder !== true) await lose(entry, parts)
  else if (verdict === 'gone') return
  if (verdict === 'anew') await reopen(entry, parts)
}

async function lose(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open, options } = entry
  const lost = open.placeholder!(options)
  await exchange(entry, lost, parts)
  await open.close()
  parts.watch(entry)
  // What was to be opened anew at once is not shown as lost.
  if (entry.open.judge?.(entry.open.lookUp?.() ?? null) === 'anew') return
  parts.log(`${options.type} ${options.id}: failed error=${lost.failure}`, 'error')
  parts.states.show(entry)
}

async function reopen(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open: lost, options } = entry
  let open: ControlPort
  try {
    open = await parts.open(entry)
  } catch (error) {
    // As long as it is the same that is in the way it is said once.
    const failed = lost.placeholder!(options, explain(error))
    if (entry.failure === failed.failure) return
    entry.open = failed
    entry.failure = failed.failure
    parts.log(`${options.type} ${options.id}: failed error=${failed.failure}`, 'error')
    parts.states.show(entry)
    return
  }
  try {
    await exchange(entry, open, parts)
  } catch (error) {
    await open.close()
    throw error
  }
  parts.watch(entry)
  parts.log(`${options.type} ${options.id}: open again ifname=${open.facts().ifname}`)
  parts.states.show(entry)
}

/** When the engine cannot have the new one it keeps the one before. */
async function exchange(entry: PortEntry, open: ControlPort, parts: ReopeningParts): Promise<void> {
  const { open: before, failure } = entry
  entry.open = open
  entry.failure = open.failure
  try {
    await parts.replace(entry)
  } catch (error) {
    entry.open = before
    entry.failure = failure
    throw error
  }
}
