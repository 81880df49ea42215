/**
 * Handing the switch over to another process, as its owner sees it:
 *
 *     outline -> hand over -> (take back | handed over)
 *
 * Handed over, the engine is paused: all that it had read is delivered, and nothing more is read. No port
 * changes anything outside, nor does any change of the switch run. Who takes it back goes on exactly there.
 */
import { setTimeout } from 'node:timers/promises'
import { StateError } from '../errors.ts'
import type { HandedEngine } from '../engine/messages.ts'
import { MAC_ROW, PORT_OF_ROW } from '../engine/messages.ts'
import type { ControlPort } from '../port/control-port.ts'
import type { JsonValue } from '../port/handed.ts'
import { handOverError } from '../port/handed.ts'
import type { PortOptions } from '../port/options.ts'
import { openPort } from '../port/kinds.control.ts'
import { PostponedControlPort } from '../port/postponed.control.ts'
import { copyCounters } from '../stats/port-counters.ts'
import type { RunState } from './api.ts'
import type { HandedPort, HandedSwitch, HandOverOptions, HandOverOutline } from './handed.ts'
import { LAST_REHEARSALS, LAST_REHEARSING_MS, REHEARSALS, REHEARSING_MS, settle } from './handed.ts'
import type { SwitchParts } from './parts.ts'
import type { PortEntry } from './port-entry.ts'
import { listLinks } from './port-entry.ts'
import type { PortOpener } from './port-opener.ts'
import type { PortHanded, QuietPort, SaidPort } from './said-ports.ts'
import { describe, divide, quietPort, saidOf } from './said-ports.ts'
import type { Undo } from './undo.ts'
import { doAll } from './undo.ts'

/** What is written of captures that end with the hand-over is waited for so long. */
const LEAVE_MS = 5000
const INCLUDED_HINT = 'hand it over: set backend-transfer=on, and do not exclude it'

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
    if (why !== undefined) throw handOverError(id, `cannot be left out: ${why}`, INCLUDED_HINT)
    return
  }
  const canBeLeftOut = open.whyNotOpenedAgain?.() === undefined
  const hint = canBeLeftOut
    ? `leave it out (framepump upgrade -- --exclude ${id}), or remove it`
    : 'remove it'
  if (open.handOver === undefined || open.handedOver === undefined) {
    throw handOverError(id, `a ${type} port cannot be handed over`, hint)
  }
  const why = open.whyNotHandedOver?.()
  if (why !== undefined) throw handOverError(id, `cannot be handed over: ${why}`, hint)
}

/**
 * What whoever takes over can have before anything stands still: ports that are open, and addresses. These hold as
 * long as the table has changed so often; undefined: they are not all.
 */
async function preview(
  parts: SwitchParts,
  excluded: readonly string[],
): Promise<{ handed: Omit<HandedSwitch, 'runState'>; previewed: Previewed }> {
  const { engine, ports, captures } = parts
  outline(parts, excluded)
  const entries = ports.all.filter(
    ({ open, options }) => open.preview !== undefined && !excluded.includes(options.id),
  )
  const said = new Map<string, SaidPort>()
  const tell = async (entry: PortEntry): Promise<HandedPort> => {
    const handed = await entry.open.preview!(parts.access(entry))
    const counters = copyCounters(engine.counters, entry.index)
    said.set(entry.options.id, { ...saidOf(entry, handed), counters })
    return { ...describe(entry, counters, 0), ...handed, isExcluded: false }
  }
  // As at the end, while frames wait: code that has run some times is faster then.
  for (let time = 1; time < REHEARSALS; time++) {
    await Promise.all(engine.together(() => entries.map(tell)))
  }
  const described = await Promise.all(engine.together(() => entries.map(tell)))
  const places = new Map(described.map(({ id }, place) => [ports.entry(id).index, place]))
  const { macs, isWhole, changes } = await readMacs(parts, places)
  const none = { mirrors: [], links: [], ownFrames: [] }
  const counters = engine.switchCounters()
  const handed = { ports: described, macs, counters, captures: captures.preview(), ...none }
  return { handed, previewed: { ports: said, macChanges: isWhole ? changes : undefined } }
}

/** Addresses of ports that have a place. */
async function readMacs(
  { engine }: SwitchParts,
  places: ReadonlyMap<number, number>,
): Promise<{ macs: number[]; isWhole: boolean; changes: number }> {
  const macs: number[] = []
  let isWhole = true
  let since: number | undefined
  for await (const { rows, changes } of engine.macTable()) {
    // Those that change on the way may be missing, or come twice.
    since ??= changes
    for (let at = 0; at < rows.length; at += MAC_ROW) {
      const place = places.get(rows[at + 2])
      if (place === undefined) isWhole = false
      else macs.push(rows[at], rows[at + 1], place, rows[at + 3])
    }
  }
  return { macs, isWhole, changes: since! }
}

async function readGroups({ engine }: SwitchParts): Promise<(readonly number[])[]> {
  const groups: (readonly number[])[] = []
  for await (const rows of engine.groupTable()) groups.push(...rows)
  return groups
}

type Quiet = ReadonlyMap<PortEntry, QuietPort>

/** How it is handed over. */
interface Crossing {
  readonly excluded: readonly string[]
  /** Those of the MAC table when it was told last; undefined: it was not. */
  readonly macChanges: number | undefined
  readonly quiet: Quiet
  readonly undo: Undo
  /** Frames pass, and nothing is to become of it. */
  readonly isRehearsed: boolean
}

/** The engine has been told to pause. `undo` goes back to where it was, but for the pause. */
async function handOver(
  parts: SwitchParts,
  opener: PortOpener,
  { excluded, macChanges, quiet, undo, isRehearsed }: Crossing,
): Promise<Omit<HandedSwitch, 'runState'>> {
  const { engine, ports, captures, mirrors, access } = parts
  const entries = isRehearsed ? [...quiet.keys()] : ports.all
  // All at once: the engine does them one after the other, once it is paused.
  const handing = entries.map((entry) =>
    excluded.includes(entry.options.id)
      ? leaveOut(entry, opener, undo)
      : handOverPort(entry, parts, isRehearsed ? undefined : undo),
  )
  const asked = [
    Promise.allSettled(handing),
    engine.request({ op: 'hand-over' }),
    readGroups(parts),
    engine.request({ op: 'publish-counters' }),
    // Between the same two turns: the engine goes on with them.
    ...(isRehearsed ? entries.map((entry) => access(entry).call({ do: 'keep' })) : []),
  ] as const
  const [settled, told, groups] = await Promise.all(asked)
  const handed = settled.map((one) => {
    if (one.status === 'rejected') throw one.reason
    return one.value
  })
  const { own, macChanges: changes, havingAll } = told as HandedEngine
  const { places, ...crossing } = divide(entries, handed, quiet, engine.counters)
  const counters = engine.switchCounters()
  const all = {
    ...crossing,
    links: listLinks(entries),
    mirrors: mirrors.infos().map(({ options }) => options),
    mirrored: mirrors.counted(),
    sequences: await mirrors.sequences(),
    macs: isRehearsed || changes === macChanges ? null : (await readMacs(parts, places)).macs,
    groups: groups.map((row) => row.with(PORT_OF_ROW, places.get(row[PORT_OF_ROW])!)),
    ...(havingAll.length === 0
      ? {}
      : { havingAll: havingAll.map(([port, left]) => [places.get(port)!, left] as const) }),
    counters,
    captures: isRehearsed ? [] : captures.handOver(),
    ownFrames: own.map(({ port, frame }): [number, string] => [
      places.get(port)!,
      Buffer.from(frame).toString('base64'),
    ]),
  }
  if (!isRehearsed) return all
  const none = { ports: [], links: [], mirrors: [], captures: [], ownFrames: [] }
  return { ...none, previewed: crossing.previewed, macs: null, counters }
}

/** `undo` undefined: nothing is to become of it. */
async function handOverPort(
  entry: PortEntry,
  { access }: SwitchParts,
  undo: Undo | undefined,
): Promise<PortHanded> {
  const { open } = entry
  undo?.(() => (entry.isAnothers = false))
  if (undo !== undefined) entry.isAnothers = true
  return { ...(await open.handOver!(access(entry))), isExcluded: false }
}

/** It is closed, and its place kept for the case that it is to be opened again. */
async function leaveOut(entry: PortEntry, opener: PortOpener, undo: Undo): Promise<PortHanded> {
  const { open } = entry
  // What undoing this does is not undone.
  undo(() => (entry.open === open ? undefined : opener.openPostponed(entry, () => undefined)))
  await open.stop?.()
  const state = open.left?.() ?? null
  entry.open = placeFor(entry.options, open, state)
  await opener.replaceInEngine(entry)
  await open.close()
  return { ...nothing, state, isExcluded: true }
}

/** The place of a port that is to be opened by its options, later or elsewhere; `left`: what it has said then. */
export function placeFor(
  options: PortOptions,
  { queues, txOffloads }: Pick<ControlPort, 'queues' | 'txOffloads'>,
  left: JsonValue = null,
): PostponedControlPort {
  const facts = 'path' in options ? { path: options.path } : {}
  const form = { info: 'left out of the hand-over', queues, txOffloads, facts }
  return new PostponedControlPort(options, form, (now, context) =>
    openPort(now, left === null ? context : { ...context, left }),
  )
}

/** The run states in which a switch can be handed over. */
function checkRunState(runState: RunState): asserts runState is 'running' | 'paused' {
  if (runState === 'running' || runState === 'paused') return
  throw new StateError('HAND_OVER', `a switch that is ${runState} cannot be handed over`)
}

/** Why a switch that is over takes no changes. */
export function switchClosed(runState: 'shutdown' | 'postmigrate'): StateError {
  const isClosed = runState === 'shutdown'
  const hint = isClosed ? undefined : 'ask again: another process has it now'
  const what = isClosed ? 'is closed' : 'was handed over'
  return new StateError('SWITCH_CLOSED', `the switch ${what}`, { hint })
}

/** What was said by a preview. */
interface Previewed {
  readonly ports: ReadonlyMap<string, SaidPort>
  /** Changes of the MAC table until then; undefined: it did not say all of it. */
  readonly macChanges: number | undefined
}

/** What of it the other one has: undefined, nothing. */
function knownBy(ids: readonly string[] | undefined, { ports, macChanges }: Previewed): Previewed {
  if (ids === undefined) return { ports: new Map(), macChanges: undefined }
  return { ports: new Map([...ports].filter(([id]) => ids.includes(id))), macChanges }
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
  #previewed: Previewed = { ports: new Map(), macChanges: undefined }
  #end: () => void = () => undefined
  #hurry: () => void = () => undefined

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

  preview(excluded: readonly string[]): Promise<HandedSwitch> {
    return this.#change(async () => {
      const { runState } = this.#run
      checkRunState(runState)
      const { handed, previewed } = await preview(this.#parts, excluded)
      this.#previewed = previewed
      return { runState, ...handed }
    })
  }

  handOver(excluded: readonly string[], options: HandOverOptions): Promise<HandedSwitch> {
    return this.#change((undo) => this.#handOver(excluded, options, undo))
  }

  async #handOver(
    excluded: readonly string[],
    { previewed, rehearse, silencing, pausing }: HandOverOptions,
    undo: Undo,
  ): Promise<HandedSwitch> {
    const { agreement, engine, ports, captures, access } = this.#parts
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
    const included = ports.all.filter(({ options }) => !excluded.includes(options.id))
    const keep = async (): Promise<void> => {
      const keeping = engine.together(() =>
        included.map(async (entry) => entry.open.keep?.(access(entry))),
      )
      await Promise.all(keeping)
    }
    note(keep)
    const known = knownBy(previewed, this.#previewed)
    // Ports answer nobody from then on, until they are kept: that takes its time, and frames still pass.
    const hush = async (): Promise<Quiet> => {
      const quiet = new Map<PortEntry, QuietPort>()
      const silence = async (entry: PortEntry): Promise<void> => {
        const handed = await entry.open.quiesce?.(access(entry))
        if (handed !== undefined) quiet.set(entry, quietPort(entry, handed, known.ports))
      }
      await Promise.all(engine.together(() => included.map(silence)))
      return quiet
    }
    const { macChanges } = known
    const over = (quiet: Quiet, isRehearsed: boolean): ReturnType<typeof handOver> =>
      handOver(this.#parts, this.#opener, { excluded, macChanges, quiet, undo: note, isRehearsed })
    const rehearsed = async (times: number, limitMs: number, hushed?: Quiet): Promise<void> => {
      const end = performance.now() + limitMs
      for (let time = 0; time < times && performance.now() < end; time++) {
        const quiet = hushed ?? (await hush())
        const handed = await engine.together(() => over(quiet, true))
        // Nobody is to wait for the other process.
        if (hushed === undefined) await keep()
        await rehearse?.({ runState, ...handed })
      }
    }
    engine.isHurried = true
    try {
      await rehearsed(REHEARSALS, REHEARSING_MS)
      await settle()
      note(() => captures.keep())
      // While frames still pass: no writer is waited for later, however slow it is.
      const held = await captures.hold()
      captures.endHere((await silencing?.(held)) ?? [])
      const quiet = await hush()
      await rehearsed(LAST_REHEARSALS, LAST_REHEARSING_MS, quiet)
      const [handed] = await engine.together(() => {
        let paused: Promise<unknown> = Promise.resolve()
        if (runState === 'running') {
          note(async () => {
            await engine.request({ op: 'resume' })
            this.#run.runState = 'running'
          })
          paused = engine.request({ op: 'pause' })
          this.#run.runState = 'paused'
        }
        const all = Promise.all([over(quiet, false), paused])
        pausing?.()
        return all
      })
      return this.#leave(steps, { runState, ...handed })
    } finally {
      engine.isHurried = false
    }
  }

  #leave(steps: (() => unknown)[], handed: HandedSwitch): HandedSwitch {
    this.#steps = steps
    this.#over = new Promise((resolve) => (this.#end = resolve))
    return handed
  }

  /** Goes on where it was; what could not be opened again is told. Throws StateError HAND_OVER. */
  async takeBack(): Promise<void> {
    await doAll(this.#takeSteps(), this.#parts.log)
    this.#finish()
  }

  /**
   * Another process has it: nothing of it is left here but its descriptors' numbers, once `settled` is. It is
   * not taken back any more from the call on.
   */
  async handedOver(settled: Promise<unknown> | undefined): Promise<void> {
    this.#takeSteps()
    const { ports, captures, log } = this.#parts
    this.#run.runState = 'postmigrate'
    if (settled !== undefined) {
      const hurried = new Promise<void>((resolve) => (this.#hurry = resolve))
      await Promise.race([settled.catch(() => undefined), hurried])
    }
    await doAll(
      ports.all.flatMap((entry) => this.#letGo(entry)),
      log,
    )
    this.#finish()
    // One whose file hangs ends with the process.
    await Promise.race([captures.leave(), setTimeout(LEAVE_MS, undefined, { ref: false })])
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

  /** The switch ends: it is taken back if nobody has it, and whoever has it is not waited for. */
  async settle(): Promise<void> {
    this.#hurry()
    if (this.#steps !== undefined) await this.takeBack()
    await this.#over
  }
}
