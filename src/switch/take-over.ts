/**
 * Going on with the switch of another process. Ports are what the descriptors say that came; nothing is
 * opened but what was left out, nothing set, and nothing read before the switch is told to go on.
 */
import type { GroupRows, HandedEngine, MacRows } from '../engine/messages.ts'
import { MAC_ROW, PORT_OF_ROW, STATIC_AGE } from '../engine/messages.ts'
import { StateError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { ControlPort } from '../port/control-port.ts'
import type { HandedState } from '../port/handed.ts'
import { handOverError } from '../port/handed.ts'
import { changedOptions, takeOverPort } from '../port/kinds.control.ts'
import { changeCounters, clearCounters, writeCounters } from '../stats/port-counters.ts'
import { wire } from './adding.ts'
import { placeFor } from './hand-over.ts'
import type { HandedPort, HandedSwitch, HandOverOutline, PreviewedPort } from './handed.ts'
import type { SwitchParts } from './parts.ts'
import { policyOf } from './policy.ts'
import { PortEntry } from './port-entry.ts'
import type { PortOpener } from './port-opener.ts'
import type { PortTable } from './port-table.ts'
import { explain } from '../text.ts'
import type { Step, Undo } from './undo.ts'
import { doAll } from './undo.ts'

type TakenPort = readonly [PortEntry, HandedPort]

/** A port that was taken over by its preview. */
interface HeldPort {
  readonly taken: TakenPort
  /** How that is undone. */
  readonly steps: readonly Step[]
}

/** A switch that goes on with another one, or is about to. */
export class TakingOver {
  readonly #parts: SwitchParts
  readonly #opener: PortOpener
  /** Places of ports that are to come. */
  #places: PortEntry[] = []
  #preview: HandedSwitch | undefined
  /** Ports that are held by a preview, and not gone on with yet. */
  readonly #held = new Map<string, HeldPort>()
  /** Those of the other switch, whose static ones are not noted yet. */
  #addresses: HandedSwitch | undefined
  /** Ports whose interfaces are not watched yet: that waits until frames pass. */
  #unwatched: TakenPort[] = []

  constructor(parts: SwitchParts, opener: PortOpener) {
    this.#parts = parts
    this.#opener = opener
  }

  /**
   * Does what takes time before ports come: the engine has their places. What there is of a preview is taken over;
   * resolves with the ports that are held from now on. One that cannot be is taken over later, or not.
   */
  async prepare(
    outline: HandOverOutline,
    preview: HandedSwitch | undefined,
    undo: Undo,
  ): Promise<string[]> {
    const { ports = [], captures = [] } = preview ?? {}
    const left = new Set<HandedState>([...ports, ...captures])
    undo(() => closeAll(left))
    await this.#makePlaces(outline, undo)
    await this.#parts.captures.prepare(captures, (one) => void left.delete(one), undo)
    if (preview === undefined) return []
    undo(() => this.dropPreviewed())
    await this.#parts.agreement.suspend()
    for (const port of ports) await this.#takePreview(port, left)
    this.#preview = preview
    const { engine, ports: table } = this.#parts
    await engine.request({ op: 'take-over', ...engineState(preview, table) })
    return [...this.#held.keys()]
  }

  /**
   * What is done at the end, while frames wait, of ports that are held: the code of it has run then. Nothing of it
   * is undone, as nothing changes by it that the end does not change again.
   */
  async rehearse(handed: HandedSwitch): Promise<void> {
    try {
      await this.#takeAll(handed, true, () => undefined)
    } finally {
      this.#parts.engine.isHurried = false
    }
  }

  async #takePreview(port: HandedPort, left: Set<HandedState>): Promise<void> {
    const steps: Step[] = []
    const undo: Undo = (step) => void steps.unshift(step)
    try {
      const taken = (): void => void left.delete(port)
      const pair = await takeOverOne(port, this.#parts, this.#opener, taken, undo)
      if (port.position !== undefined) await this.#moveOn(pair[0], port, true)
      this.#held.set(port.id, { taken: pair, steps })
    } catch (error) {
      this.#parts.log(`hand-over: ${explain(error)}`, 'warning')
      await doAll(steps, this.#parts.log)
      if (left.delete(port)) closeAll([port])
    }
  }

  async #makePlaces({ ports }: HandOverOutline, undo: Undo): Promise<void> {
    for (const port of ports) {
      if (waitingFor(port, this.#parts) !== undefined) continue
      const handed = { options: port.options, isHeld: false }
      this.#places.push(await add(handed, placeFor(port.options, port), this.#parts, undo))
    }
  }

  /** Ports that were taken over by their preview are to come, or to be opened, again. */
  async dropPreviewed(): Promise<void> {
    for (const id of this.#held.keys()) await this.#drop(id)
    await this.#parts.captures.dropSpare()
    this.#parts.agreement.resume()
  }

  async #drop(id: string): Promise<void> {
    const held = this.#held.get(id)
    this.#held.delete(id)
    if (held !== undefined) await doAll(held.steps, this.#parts.log)
  }

  /** All of it or nothing: on failure the descriptors are closed. */
  async takeOver(handed: HandedSwitch, undo: Undo): Promise<void> {
    const { engine, agreement } = this.#parts
    undo(() => (engine.isHurried = false))
    undo(() => agreement.resume())
    await this.#takeAll(handed, false, undo)
  }

  /** Until frames pass the engine is waited for. `isRehearsed`: nothing is to become of it. */
  async #takeAll(handed: HandedSwitch, isRehearsed: boolean, undo: Undo): Promise<void> {
    const { engine, ports, agreement, captures, mirrors } = this.#parts
    engine.isHurried = true
    await agreement.suspend()
    // As the preview said, but for the age.
    const addresses = handed.macs === null ? this.#preview : handed
    const left = new Set<HandedState>([...handed.ports, ...handed.captures])
    // Last of all: those that have become ports' are closed by then.
    undo(() => closeAll(left))
    if (addresses === undefined) {
      throw new StateError(
        'HAND_OVER',
        'its MAC table is said to be that of a preview, and none came',
      )
    }
    if (!isRehearsed) await this.#forgetOthers(handed)
    undo(() => (this.#unwatched = []))
    // What else there is names ports: those that are still to come come first.
    if (handed.ports.length > 0) await this.#takeOverPorts(handed.ports, left, undo)
    await engine.together(() =>
      Promise.all([this.#goOn(handed.previewed ?? [], isRehearsed, undo), this.#toEngine(handed)]),
    )
    for (const [a, b] of handed.links) {
      const [first, second] = [ports.entry(a), ports.entry(b)]
      if (first.peer !== second) await wire(this.#parts, this.#opener, first, second, undo)
    }
    await mirrors.takeOver(handed, undo)
    if (isRehearsed) return
    await this.#opener.openAllPostponed(undo)
    for (const capture of handed.captures) {
      await captures.takeOver(capture, ports.all, () => void left.delete(capture), undo)
    }
    this.#addresses = addresses
  }

  async #toEngine(handed: HandedSwitch): Promise<void> {
    const { engine, ports } = this.#parts
    engine.restoreCounters(handed.counters)
    await engine.request({ op: 'take-over', ...engineState(handed, ports) })
  }

  /** The engine is asked for all of them at once: frames wait meanwhile. */
  async #takeOverPorts(
    handed: readonly HandedPort[],
    left: Set<HandedState>,
    undo: Undo,
  ): Promise<void> {
    const take = async (port: HandedPort): Promise<TakenPort | undefined> => {
      const taken = (): void => void left.delete(port)
      await this.#drop(port.id)
      if (!port.isExcluded) {
        const pair = await takeOverOne(port, this.#parts, this.#opener, taken, undo)
        await this.#moveOn(pair[0], port, false)
        return pair
      }
      await leaveOpen(port, this.#parts, undo)
      return undefined
    }
    const taking = this.#parts.engine.together(() => handed.map(take))
    // What one of them has begun is complete before it is undone for the sake of another.
    const settled = await Promise.allSettled(taking)
    for (const one of settled) {
      if (one.status === 'rejected') throw one.reason
      if (one.value !== undefined) this.#unwatched.push(one.value)
    }
  }

  /** From where the preview said that they are. */
  async #goOn(
    previewed: readonly PreviewedPort[],
    isRehearsed: boolean,
    undo: Undo,
  ): Promise<void> {
    const { engine } = this.#parts
    const moving: Promise<void>[] = []
    for (const port of previewed) {
      const held = this.#held.get(port.id)
      if (held === undefined) throw handOverError(port.id, 'was not taken over by its preview')
      const [entry] = held.taken
      if (!isRehearsed) {
        this.#held.delete(port.id)
        for (const step of held.steps.toReversed()) undo(step)
        this.#unwatched.push(held.taken)
      }
      changeCounters(engine.counters, entry.index, port.counters)
      moving.push(this.#moveOn(entry, port, isRehearsed))
    }
    // What one of them has begun is complete before it is undone for the sake of another.
    const settled = await Promise.allSettled(moving)
    for (const one of settled) if (one.status === 'rejected') throw one.reason
  }

  /** `isRehearsed`: frames pass by the port meanwhile, where it is. */
  async #moveOn(
    entry: PortEntry,
    { position }: Pick<HandedPort, 'position'>,
    isRehearsed: boolean,
  ): Promise<void> {
    await entry.open.moveOn?.(position, this.#parts.access(entry), isRehearsed)
  }

  /** Frames pass: the interfaces of the ports are looked at. */
  watch(): void {
    const { watcher, ports } = this.#parts
    if (this.#addresses !== undefined) noteStatics(this.#addresses, ports)
    this.#addresses = undefined
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
    const ids = new Set([...handed.ports, ...(handed.previewed ?? [])].map(({ id }) => id))
    for (const entry of this.#places.splice(0)) {
      if (ids.has(entry.options.id)) continue
      await this.#drop(entry.options.id)
      await engine.request({ op: 'remove-port', port: entry.index })
      await forget(entry)
    }
  }

  /** The same as `keep`, and no frames are to pass yet. */
  async keepPaused(undo: Undo): Promise<void> {
    await this.#opener.openAllPostponed(undo)
    await this.keep()
    this.watch()
  }

  /** What was taken over is ours from now on: everything can be changed again. */
  async keep(): Promise<void> {
    const { ports, agreement, access, captures } = this.#parts
    captures.keep()
    await captures.dropSpare()
    const taken = ports.all.filter(({ isAnothers }) => isAnothers)
    await Promise.all(
      taken.map(async (entry) => {
        entry.isAnothers = false
        await entry.open.keep?.(access(entry))
        entry.open.start?.(access(entry))
      }),
    )
    agreement.resume()
  }
}

function closeAll(handed: Iterable<HandedState>): void {
  for (const { fds } of handed) for (const fd of fds) shim.close(fd)
}

/** Static entries that were added to the other switch by hand are this one's. */
function noteStatics(
  { macs, ports: handed, previewed = [] }: HandedSwitch,
  ports: PortTable,
): void {
  const ids = [...handed, ...previewed]
  for (let at = 0; macs !== null && at < macs.length; at += MAC_ROW) {
    if (macs[at + 3] !== STATIC_AGE) continue
    const mac = [macs[at], macs[at + 1]] as const
    const { statics } = ports.entry(ids[macs[at + 2]].id)
    if (!statics.has(mac)) statics.add(mac)
  }
}

/** Addresses, and what else the engine has, by numbers of ports. */
function engineState(
  handedSwitch: HandedSwitch,
  ports: PortTable,
): { engine: HandedEngine; macs: MacRows['rows'] | null; groups: GroupRows['rows'] } {
  const { ports: handed, previewed = [], counters, ownFrames, macs } = handedSwitch
  const { groups = [], havingAll = [] } = handedSwitch
  const index = [...handed, ...previewed].map(({ id }) => ports.entry(id).index)
  const own = ownFrames.map(([place, bytes]) => ({
    port: index[place],
    frame: new Uint8Array(Buffer.from(bytes, 'base64')),
  }))
  const rows = macs === null ? null : Int32Array.from(macs)
  for (let at = 2; rows !== null && at < rows.length; at += MAC_ROW) rows[at] = index[rows[at]]
  return {
    engine: {
      macMoves: counters.mac_moves,
      macFull: counters.mac_table_full,
      havingAll: havingAll.map(([place, left]) => [index[place], left] as const),
      own,
    },
    macs: rows,
    groups: groups.map((row) => row.with(PORT_OF_ROW, index[row[PORT_OF_ROW]])),
  }
}

async function takeOverOne(
  port: HandedPort,
  parts: SwitchParts,
  opener: PortOpener,
  taken: () => void,
  undo: Undo,
): Promise<TakenPort> {
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
  const waiting = waitingFor(port, parts)
  const open = placeFor(port.options, waiting?.open ?? { queues, txOffloads: 0 }, port.state)
  if (waiting !== undefined) {
    const { open: before } = waiting
    undo(() => (waiting.open = before))
    waiting.open = open
  }
  const entry = waiting ?? (await add(port, open, parts, undo))
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
