/**
 * Going on with the switch of another process. Ports are what the descriptors say that came; nothing is
 * opened but what was left out, nothing set, and nothing read before the switch is told to go on.
 */
import type { GroupRows, HandedEngine, MacRows } from '../engine/messages.ts'
import { PORT_OF_ROW, STATIC_AGE } from '../engine/messages.ts'
import { shim } from '../native/shim.ts'
import type { ControlPort } from '../port/control-port.ts'
import type { HandedState } from '../port/handed.ts'
import { handOverError } from '../port/handed.ts'
import { changedOptions, takeOverPort } from '../port/kinds.control.ts'
import { clearCounters, writeCounters } from '../stats/port-counters.ts'
import { wire } from './adding.ts'
import { placeFor } from './hand-over.ts'
import type { HandedPort, HandedSwitch, HandOverOutline } from './handed.ts'
import type { SwitchParts } from './parts.ts'
import { policyOf } from './policy.ts'
import { PortEntry } from './port-entry.ts'
import type { PortOpener } from './port-opener.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'

/** A switch that goes on with another one, or is about to. */
export class TakingOver {
  readonly #parts: SwitchParts
  readonly #opener: PortOpener
  /** Places of ports that are to come. */
  #places: PortEntry[] = []
  #hasTaken = false
  /** Ports whose interfaces are not watched yet: that waits until frames pass. */
  #unwatched: (readonly [PortEntry, HandedPort])[] = []

  constructor(parts: SwitchParts, opener: PortOpener) {
    this.#parts = parts
    this.#opener = opener
  }

  /** It has all of another one. */
  get hasTaken(): boolean {
    return this.#hasTaken
  }

  /** Does what takes time before ports come: the engine has their places, and is warm for their kinds. */
  async prepare({ ports }: HandOverOutline, undo: Undo): Promise<void> {
    for (const port of ports) {
      if (waitingFor(port, this.#parts) !== undefined) continue
      const handed = { options: port.options, isHeld: false }
      this.#places.push(await add(handed, placeFor(port.options, port), this.#parts, undo))
    }
  }

  /** All of it or nothing: on failure the descriptors are closed. */
  async takeOver(handed: HandedSwitch, undo: Undo): Promise<void> {
    const { engine, ports, agreement, captures, mirrors } = this.#parts
    undo(() => agreement.resume())
    undo(() => (this.#hasTaken = false))
    await agreement.suspend()
    const left = new Set<HandedState>([...handed.ports, ...handed.captures])
    // Last of all: those that have become ports' are closed by then.
    undo(() => {
      for (const { fds } of left) for (const fd of fds) shim.close(fd)
    })
    await this.#forgetOthers(handed)
    await this.#takeOverPorts(handed.ports, left, undo)
    for (const [a, b] of handed.links) {
      const [first, second] = [ports.entry(a), ports.entry(b)]
      if (first.peer !== second) await wire(this.#parts, this.#opener, first, second, undo)
    }
    await mirrors.takeOver(handed.mirrors, handed.sequences ?? {}, undo)
    await this.#opener.openAllPostponed(undo)
    this.#hasTaken = true
    for (const capture of handed.captures) {
      await captures.takeOver(capture, ports.all, () => void left.delete(capture), undo)
    }
    engine.restoreCounters(handed.counters)
    await engine.request({ op: 'take-over', ...engineState(handed, ports) })
    noteStatics(handed, ports)
  }

  /** The engine is asked for all of them at once: frames wait meanwhile. */
  async #takeOverPorts(
    handed: readonly HandedPort[],
    left: Set<HandedState>,
    undo: Undo,
  ): Promise<void> {
    undo(() => (this.#unwatched = []))
    const taking = handed.map(async (port) => {
      const taken = (): void => void left.delete(port)
      if (!port.isExcluded) return takeOverOne(port, this.#parts, this.#opener, taken, undo)
      await leaveOpen(port, this.#parts, undo)
      return undefined
    })
    // What one of them has begun is complete before it is undone for the sake of another.
    const settled = await Promise.allSettled(taking)
    for (const one of settled) {
      if (one.status === 'rejected') throw one.reason
      if (one.value !== undefined) this.#unwatched.push(one.value)
    }
  }

  /** Frames pass: the interfaces of the ports are looked at. */
  watch(): void {
    const { watcher, ports } = this.#parts
    for (const [entry, { wasUp, droppedBefore }] of this.#unwatched.splice(0)) {
      if (!ports.has(entry)) continue
      watcher.add(entry)
      entry.wasUp ||= wasUp
      entry.droppedBefore = droppedBefore
    }
  }

  /** Places of ports that are not there any more. */
  async #forgetOthers(handed: HandedSwitch): Promise<void> {
    const { engine, forget } = this.#parts
    for (const entry of this.#places.splice(0)) {
      if (handed.ports.some(({ id }) => id === entry.options.id)) continue
      await engine.request({ op: 'remove-port', port: entry.index })
      await forget(entry)
    }
  }

  /** What was taken over is ours from now on: everything can be changed again. No frames are to pass: `isPaused`. */
  async keep(isPaused = false): Promise<void> {
    const { ports, agreement, access, captures } = this.#parts
    captures.keep()
    const taken = ports.all.filter(({ isAnothers }) => isAnothers)
    await Promise.all(
      taken.map(async (entry) => {
        entry.isAnothers = false
        await entry.open.keep?.(access(entry))
        entry.open.start?.(access(entry))
      }),
    )
    agreement.resume()
    if (isPaused) this.watch()
  }
}

/** Static entries that were added to the other switch by hand are this one's. */
function noteStatics({ macs, ports: handed }: HandedSwitch, ports: PortTable): void {
  for (const [hi, lo, place, ageS] of macs) {
    const { statics } = ports.entry(handed[place].id)
    if (ageS === STATIC_AGE && !statics.has([hi, lo])) statics.add([hi, lo])
  }
}

/** Addresses, and what else the engine has, by numbers of ports. */
function engineState(
  { ports: handed, counters, ownFrames, macs, groups = [] }: HandedSwitch,
  ports: PortTable,
): { engine: HandedEngine; macs: MacRows['rows']; groups: GroupRows['rows'] } {
  const index = handed.map(({ id }) => ports.entry(id).index)
  const own = ownFrames.map(([place, bytes]) => ({
    port: index[place],
    frame: new Uint8Array(Buffer.from(bytes, 'base64')),
  }))
  return {
    engine: { macMoves: counters.mac_moves, macFull: counters.mac_table_full, own },
    macs: macs.map(([hi, lo, place, ageS]) => [hi, lo, index[place], ageS]),
    groups: groups.map((row) => row.with(PORT_OF_ROW, index[row[PORT_OF_ROW]])),
  }
}

async function takeOverOne(
  port: HandedPort,
  parts: SwitchParts,
  opener: PortOpener,
  taken: () => void,
  undo: Undo,
): Promise<readonly [PortEntry, HandedPort]> {
  const { engine, context } = parts
  const { options } = port
  const waiting = waitingFor(port, parts)
  const open = takeOverPort(options, port, context(options.id))
  taken()
  undo(() => open.handedOver!())
  if (waiting !== undefined) await replace(waiting, port, open, parts, opener, undo)
  const entry = waiting ?? (await add(port, open, parts, undo))
  entry.isAnothers = true
  restore(entry, port, engine.counters)
  if (!entry.isUp) await engine.request({ op: 'set-link', port: entry.index, isUp: false })
  return [entry, port]
}

/** The entry that waits for this port; undefined: there is none. Throws when it is another port. */
function waitingFor(
  { options }: Pick<HandedPort, 'options'>,
  { ports }: SwitchParts,
): PortEntry | undefined {
  const waiting = ports.find(options.id)
  if (waiting === undefined) return undefined
  if (waiting.open.postponed === undefined) {
    throw handOverError(options.id, 'it is open here already')
  }
  const differing = changedOptions(waiting.options, options)
  if (differing.length > 0) {
    throw handOverError(options.id, `has other options here: ${differing.join(', ')}`)
  }
  return waiting
}

function restore(entry: PortEntry, port: HandedPort, counters: Float64Array): void {
  entry.link = port.link
  entry.wasConnected = entry.open.isConnected
  entry.failure = entry.open.failure
  if (port.failure !== null) entry.fail(port.failure.reason, port.failure.isGuests)
  writeCounters(counters, entry.index, port.counters)
}

/** It is to be opened by its options. */
async function leaveOpen(port: HandedPort, parts: SwitchParts, undo: Undo): Promise<void> {
  const queues = 'queues' in port.options ? (port.options.queues ?? 1) : 1
  const open = placeFor(port.options, { queues, txOffloads: 0 })
  const entry = waitingFor(port, parts) ?? (await add(port, open, parts, undo))
  restore(entry, { ...port, failure: null }, parts.engine.counters)
}

/** In the engine, in its place among the others. */
async function replace(
  entry: PortEntry,
  { isHeld }: HandedPort,
  open: ControlPort,
  { engine, watcher }: SwitchParts,
  opener: PortOpener,
  undo: Undo,
): Promise<void> {
  const { open: before, index: port } = entry
  undo(async () => {
    watcher.remove(entry)
    entry.open = before
    entry.isAnothers = false
    entry.failure = undefined
    entry.wasConnected = undefined
    await opener.replaceInEngine(entry)
  })
  entry.open = open
  const { txOffloads, description } = open
  const wasHeld = entry.isHeld
  entry.isHeld = isHeld
  await Promise.all([
    engine.request({ op: 'replace-port', port, txOffloads, description }),
    isHeld === wasHeld
      ? undefined
      : engine.request({ op: isHeld ? 'hold' : 'release', ports: [port] }),
  ])
}

async function add(
  { options, isHeld }: Pick<HandedPort, 'options' | 'isHeld'>,
  open: ControlPort,
  { engine, ports, captures, mirrors, forget }: SwitchParts,
  undo: Undo,
): Promise<PortEntry> {
  const index = ports.freeIndex(options.id)
  const entry = new PortEntry(index, options, open, undefined)
  entry.isHeld = isHeld
  clearCounters(engine.counters, index)
  undo(() => forget(entry))
  ports.add(entry)
  await mirrors.portsChanged()
  undo(() => engine.request({ op: 'remove-port', port: index }))
  const { txOffloads, description } = open
  await engine.request({
    op: 'add-port',
    port: index,
    mtu: options.mtu ?? 0,
    txOffloads,
    description,
    isHeld,
    policy: policyOf(options),
    macs: entry.statics.all,
  })
  await captures.add(entry)
  return entry
}
