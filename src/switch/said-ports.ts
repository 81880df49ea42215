/** What another process has by a preview, and what of each port is to be told beyond that. */
import type { ControlPort } from '../port/control-port.ts'
import type { HandedState } from '../port/handed.ts'
import { countedSince, countedSoFar } from '../stats/port-counters.ts'
import type { HandedPort, PreviewedPort } from './handed.ts'
import type { PortEntry } from './port-entry.ts'

export type PortHanded = HandedState & Pick<HandedPort, 'isExcluded'>

/** A port as it was said: all of it but its position. */
export interface SaidPort {
  /** One that was opened anew may have other descriptors with the same numbers. */
  readonly open: ControlPort
  readonly text: string
  readonly counters: Float64Array
}

/** A port that nobody changes any more. */
export interface QuietPort {
  readonly handed: HandedState
  /** As the other process has it; undefined: it has not, or another one. */
  readonly said: SaidPort | undefined
  /** What may come to be meanwhile, nevertheless. */
  readonly failure: string | undefined
  readonly wasUp: boolean
}

export function saidOf(
  entry: PortEntry,
  { version, state, fds }: HandedState,
): Omit<SaidPort, 'counters'> {
  const { options, isHeld, link, handedFailure, wasUp, droppedBefore, open } = entry
  const { fdGeneration } = open
  const own = [options, isHeld, link, handedFailure, wasUp, droppedBefore]
  return { open, text: JSON.stringify([own, fdGeneration, version, state, fds]) }
}

/** `said`: by id. */
export function quietPort(
  entry: PortEntry,
  handed: HandedState,
  said: ReadonlyMap<string, SaidPort>,
): QuietPort {
  const { failure, wasUp, open, options } = entry
  const own = said.get(options.id)
  const isAsSaid = own?.open === open && own.text === saidOf(entry, handed).text
  return { handed, said: isAsSaid ? own : undefined, failure, wasUp }
}

/** What is told of each port: all of it, or what has changed since the preview. `places`: by their numbers. */
export function divide(
  entries: readonly PortEntry[],
  handed: readonly PortHanded[],
  quiet: ReadonlyMap<PortEntry, QuietPort>,
  cells: Float64Array,
): { ports: HandedPort[]; previewed: PreviewedPort[]; places: ReadonlyMap<number, number> } {
  const ports: HandedPort[] = []
  const previewed: PreviewedPort[] = []
  const places = new Map<number, number>()
  const known: number[] = []
  for (const [at, entry] of entries.entries()) {
    const { options, index } = entry
    const said = knownAs(entry, handed[at], quiet.get(entry))
    if (said === undefined) {
      places.set(index, ports.length)
      ports.push({ ...describe(entry, cells, index), ...handed[at] })
    } else {
      known.push(index)
      const { position } = handed[at]
      const counters = countedSince(cells, index, said.counters)
      previewed.push({
        id: options.id,
        ...(position === undefined ? {} : { position }),
        counters,
      })
    }
  }
  for (const [at, index] of known.entries()) places.set(index, ports.length + at)
  return { ports, previewed, places }
}

/** What the other process has of it, if that still holds. */
function knownAs(
  { failure, wasUp }: PortEntry,
  { state, fds }: PortHanded,
  quiet: QuietPort | undefined,
): SaidPort | undefined {
  const isAsQuiet =
    state === quiet?.handed.state &&
    fds === quiet.handed.fds &&
    failure === quiet.failure &&
    wasUp === quiet.wasUp
  return isAsQuiet ? quiet.said : undefined
}

/** Its counters are those at `index` of `cells`. */
export function describe(
  entry: PortEntry,
  cells: Float64Array,
  index: number,
): Omit<HandedPort, keyof PortHanded> {
  const { options, link, isHeld, handedFailure: failure, wasUp, droppedBefore } = entry
  return {
    id: options.id,
    options,
    link,
    isHeld,
    failure,
    wasUp,
    droppedBefore,
    counters: countedSoFar(cells, index),
  }
}
