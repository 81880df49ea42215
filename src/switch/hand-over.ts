/**
 * Handing the switch over to another process, as its owner sees it:
 *
 *     outline -> hand over -> (take back | handed over)
 *
 * Handed over, the engine is paused: all that it had read is delivered, and nothing more is read. No port
 * changes anything outside, nor does any change of the switch run. Who takes it back goes on exactly there.
 */
import { StateError } from '../errors.ts'
import type { HandedEngine } from '../engine/messages.ts'
import { PORT_OF_ROW } from '../engine/messages.ts'
import type { ControlPort } from '../port/control-port.ts'
import { handOverError } from '../port/handed.ts'
import type { PortOptions } from '../port/options.ts'
import { openPort } from '../port/kinds.control.ts'
import { PostponedControlPort } from '../port/postponed.control.ts'
import { readCounters } from '../stats/port-counters.ts'
import type { RunState } from './api.ts'
import type { HandedPort, HandedSwitch, HandOverOutline } from './handed.ts'
import type { SwitchParts } from './parts.ts'
import type { PortEntry } from './port-entry.ts'
import { listLinks } from './port-entry.ts'
import type { PortOpener } from './port-opener.ts'
import type { Undo } from './undo.ts'
import { doAll } from './undo.ts'

const nothing = { version: 0, state: null, fds: [] }

/** Throws StateError HAND_OVER, naming the port. */
function outline(
  { ports, captures }: Pick<SwitchParts, 'ports' | 'captures'>,
  excluded: readonly string[],
): HandOverOutline {
  for (const id of excluded) ports.entry(id)
  return {
    ports: ports.all.map((entry) => {
      const { options, open } = entry
      const isExcluded = excluded.includes(options.id)
      check(entry, isExcluded)
      const { queues, txOffloads, rxOffloads, vnetHdrLength } = open
      const { id } = options
      return { id, options, queues, txOffloads, rxOffloads, vnetHdrLength, isExcluded }
    }),
    links: listLinks(ports.all),
    endingCaptures: captures.ending,
  }
}

function check({ options: { id, type }, open }: PortEntry, isExcluded: boolean): void {
  if (open.postponed !== undefined) throw handOverError(id, 'it is not open yet')
  if (isExcluded) {
    const why = open.whyNotOpenedAgain?.()
    if (why !== undefined) throw handOverError(id, `cannot be left out: ${why}`)
  } else if (open.handOver === undefined || open.handedOver === undefined) {
    throw handOverError(id, `a ${type} port cannot be handed over`, 'leave it out, or remove it')
  } else {
    const why = open.whyNotHandedOver?.()
    if (why !== undefined) throw handOverError(id, `cannot be handed over: ${why}`)
  }
}

/** The engine is paused already. `undo` goes back to where it was, but for the pause. */
async function handOver(
  parts: SwitchParts,
  opener: PortOpener,
  excluded: readonly string[],
  undo: Undo,
): Promise<Omit<HandedSwitch, 'runState'>> {
  const { engine, ports, captures, mirrors } = parts
  const entries = ports.all
  undo(() => captures.keep())
  outline(parts, excluded)
  // All at once: the engine answers them between two turns.
  const handing = entries.map((entry) =>
    excluded.includes(entry.options.id)
      ? leaveOut(entry, opener, undo)
      : handOverPort(entry, parts, undo),
  )
  const settled = await Promise.allSettled(handing)
  for (const one of settled) if (one.status === 'rejected') throw one.reason
  const places = new Map(entries.map(({ index }, place) => [index, place]))
  const [, told] = await Promise.all([
    engine.request({ op: 'publish-counters' }),
    engine.request({ op: 'hand-over' }),
  ])
  const { own } = told as HandedEngine
  const macs: (readonly [number, number, number, number])[] = []
  for await (const rows of engine.macTable()) {
    for (const [hi, lo, port, ageS] of rows) macs.push([hi, lo, places.get(port)!, ageS])
  }
  const groups: (readonly number[])[] = []
  for await (const rows of engine.groupTable()) {
    for (const row of rows) groups.push(row.with(PORT_OF_ROW, places.get(row[PORT_OF_ROW])!))
  }
  return {
    ports: settled.map((one, place) => ({
      ...describe(entries[place], engine.counters),
      ...(one as PromiseFulfilledResult<Awaited<(typeof handing)[number]>>).value,
    })),
    links: listLinks(entries),
    mirrors: mirrors.infos().map(({ options }) => options),
    sequences: await mirrors.sequences(),
    macs,
    groups,
    counters: engine.switchCounters(),
    captures: await captures.handOver(),
    ownFrames: own.map(({ port, frame }) => [
      places.get(port)!,
      Buffer.from(frame).toString('base64'),
    ]),
  }
}

type PortHanded = Pick<HandedPort, 'version' | 'state' | 'fds' | 'isExcluded'>

async function handOverPort(
  entry: PortEntry,
  { access }: SwitchParts,
  undo: Undo,
): Promise<PortHanded> {
  const { open } = entry
  undo(async () => {
    entry.isAnothers = false
    await open.keep?.(access(entry))
  })
  entry.isAnothers = true
  const { version, state, fds } = await open.handOver!(access(entry))
  return { version, state, fds, isExcluded: false }
}

/** It is closed, and its place kept for the case that it is to be opened again. */
async function leaveOut(entry: PortEntry, opener: PortOpener, undo: Undo): Promise<PortHanded> {
  const { open } = entry
  // What undoing this does is not undone.
  undo(() => (entry.open === open ? undefined : opener.openPostponed(entry, () => undefined)))
  await open.stop?.()
  entry.open = placeFor(entry.options, open)
  await opener.replaceInEngine(entry)
  await open.close()
  return { ...nothing, isExcluded: true }
}

/** The place of a port that is to be opened by its options, later or elsewhere. */
export function placeFor(
  options: PortOptions,
  { queues, txOffloads }: Pick<ControlPort, 'queues' | 'txOffloads'>,
): PostponedControlPort {
  const facts = 'path' in options ? { path: options.path } : {}
  const form = { info: 'left out of the hand-over', queues, txOffloads, facts }
  return new PostponedControlPort(options, form, openPort)
}

function describe(entry: PortEntry, counters: Float64Array): Omit<HandedPort, keyof PortHanded> {
  const { options, link, isHeld, handedFailure: failure, wasUp, droppedBefore } = entry
  return {
    id: options.id,
    options,
    link,
    isHeld,
    failure,
    wasUp,
    droppedBefore,
    counters: readCounters(counters, entry.index),
  }
}

/** The run states in which a switch can be handed over. */
function checkRunState(runState: RunState): asserts runState is 'running' | 'paused' {
  if (runState === 'running' || runState === 'paused') return
  throw new StateError('HAND_OVER', `a switch that is ${runState} cannot be handed over`)
}

type RunChange = <T>(action: (undo: Undo) => Promise<T>) => Promise<T>

/** The switch while another process may have it, or has it. */
export class HandingOver {
  readonly #parts: SwitchParts
  readonly #opener: PortOpener
  readonly #run: { runState: RunState }
  readonly #change: RunChange
  /** How it is taken back, step by step; undefined: it is ours. */
  #steps: (() => unknown)[] | undefined
  #over: Promise<void> | undefined
  #end: () => void = () => undefined

  /** `run`: whose state it is; `change` runs something as a change of the switch. */
  constructor(
    parts: SwitchParts,
    opener: PortOpener,
    run: { runState: RunState },
    change: RunChange,
  ) {
    this.#parts = parts
    this.#opener = opener
    this.#run = run
    this.#change = change
  }

  /** Changes of the switch wait for it; undefined: for nothing. */
  get over(): Promise<void> | undefined {
    return this.#over
  }

  outline(excluded: readonly string[]): Promise<HandOverOutline> {
    return this.#change(() => {
      checkRunState(this.#run.runState)
      return Promise.resolve(outline(this.#parts, excluded))
    })
  }

  handOver(excluded: readonly string[]): Promise<HandedSwitch> {
    return this.#change((undo) => this.#handOver(excluded, undo))
  }

  async #handOver(excluded: readonly string[], undo: Undo): Promise<HandedSwitch> {
    const { agreement, engine } = this.#parts
    const { runState } = this.#run
    checkRunState(runState)
    outline(this.#parts, excluded)
    const steps: (() => unknown)[] = []
    const note: Undo = (step) => {
      steps.unshift(step)
      undo(step)
    }
    note(() => {
      agreement.resume()
      return agreement.reach()
    })
    await agreement.suspend()
    if (runState === 'running') {
      note(async () => {
        await engine.request({ op: 'resume' })
        this.#run.runState = 'running'
      })
      await engine.request({ op: 'pause' })
      this.#run.runState = 'paused'
    }
    const handed = await handOver(this.#parts, this.#opener, excluded, note)
    this.#steps = steps
    this.#over = new Promise((resolve) => (this.#end = resolve))
    return { runState, ...handed }
  }

  /** Goes on where it was; what could not be opened again is told. Throws StateError HAND_OVER. */
  async takeBack(): Promise<void> {
    await doAll(this.#takeSteps(), this.#parts.log)
    this.#finish()
  }

  /** Another process has it: nothing of it is left here but its descriptors' numbers. */
  async handedOver(): Promise<void> {
    this.#takeSteps()
    const { ports, captures, log } = this.#parts
    this.#run.runState = 'postmigrate'
    await doAll(
      ports.all.flatMap((entry) => this.#letGo(entry)),
      log,
    )
    this.#finish()
    await captures.leave()
  }

  #letGo(entry: PortEntry): (() => unknown)[] {
    const { engine, forget } = this.#parts
    const { index, open } = entry
    return [
      () => engine.request({ op: 'remove-port', port: index }),
      () => forget(entry),
      () => open.handedOver?.() ?? open.close(),
    ]
  }

  #takeSteps(): readonly (() => unknown)[] {
    const steps = this.#steps
    if (steps === undefined) {
      throw new StateError('HAND_OVER', 'the switch is not being handed over')
    }
    this.#steps = undefined
    return steps
  }

  #finish(): void {
    this.#over = undefined
    this.#end()
  }

  /** The switch ends: it is taken back if nobody has it. */
  async settle(): Promise<void> {
    if (this.#steps !== undefined) await this.takeBack()
    await this.#over
  }
}
