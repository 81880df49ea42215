/**
 * What both sides say first, and whether they can go on. Whatever does not agree is refused by its name
 * and with both values, before the source is touched.
 */
import { isDeepStrictEqual } from 'node:util'
import { StateError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import type { HandOverOutline } from '../switch/handed.ts'

/** Of the order of records; what a record holds has a version of its own. */
export const PROTOCOL = 1

export interface HelloOfBoth {
  readonly protocol: number
  /** Of framepump, as in package.json. */
  readonly release: string
  /** Descriptors pass; else every port is opened by name. */
  readonly backendTransfer: boolean
  /** Ports that the target opens by name all the same. */
  readonly exclude: readonly string[]
  /** Of the source what its switch makes use of, of the target all that it knows: see features.ts. */
  readonly features: readonly string[]
  /** Of the source all that run; of the target those that it was told of itself. */
  readonly ports: readonly PortOptions[]
}

export interface HelloOfSource extends HelloOfBoth {
  /** What would be handed over. */
  readonly outline: HandOverOutline
  /** What a successor needs that has to do without the source: the daemon's. */
  readonly desired: unknown
  /** It passes no frames; absent: it does. */
  readonly isPaused?: true
  /** Ports that are down by set_link; absent: none. */
  readonly down?: readonly string[]
  /** What the successor shall have, too, unless it was told otherwise. Absent: of one that does not tell. */
  readonly downtimeLimitMs?: number
}

export interface HelloOfTarget extends HelloOfBoth {
  readonly pid: number
}

export const refused = (message: string, port?: string, hint?: string): StateError => {
  const error = new StateError('HAND_OVER', message, { hint })
  error.port = port
  return error
}

const AGREE_HINT =
  'say the same by migrate-set-parameters at the source, and by options at the target'

/** Of a record `hello`; throws when it is none of this protocol. */
export function readHello(data: unknown, release: string): HelloOfBoth {
  const hello = (data ?? {}) as Partial<HelloOfBoth>
  if (hello.protocol !== PROTOCOL) {
    const there = `hand-over protocol ${String(hello.protocol)} (framepump ${String(hello.release)})`
    throw refused(`the other side speaks ${there}, and framepump ${release} speaks ${PROTOCOL}`)
  }
  if (typeof hello.release !== 'string' || typeof hello.backendTransfer !== 'boolean') {
    throw refused('the other side has said hello without a release or backend-transfer')
  }
  if (![hello.exclude, hello.ports, hello.features].every(Array.isArray)) {
    throw refused('the other side has said hello without exclude, ports or features')
  }
  return hello as HelloOfBoth
}

/**
 * Throws StateError HAND_OVER for the first difference: the target must know what the source makes use of, and
 * ports that both have must be the same.
 */
export function compareHellos(source: HelloOfSource, target: HelloOfTarget): void {
  if (source.backendTransfer !== target.backendTransfer) {
    const word = (is: boolean): string => (is ? 'on' : 'off')
    throw refused(
      `backend-transfer is ${word(source.backendTransfer)} at the source and ${word(target.backendTransfer)} at the target`,
      undefined,
      AGREE_HINT,
    )
  }
  for (const [have, lack, where] of [
    [source, target, 'the source'],
    [target, source, 'the target'],
  ] as const) {
    const id = have.exclude.find((one) => !lack.exclude.includes(one))
    if (id !== undefined) throw refused(`port "${id}" is excluded by ${where} only`, id, AGREE_HINT)
  }
  const unknown = source.features.filter((name) => !target.features.includes(name))
  if (unknown.length > 0) {
    throw refused(
      `the source makes use of ${unknown.join(', ')}, which framepump ${target.release} at the target does not know`,
      undefined,
      'take that away from the source first, or start a newer target',
    )
  }
  for (const wanted of target.ports) {
    const found = source.ports.find(({ id }) => id === wanted.id)
    if (found !== undefined) compareOptions(found, wanted)
  }
}

function compareOptions(source: PortOptions, target: PortOptions): void {
  const [there, here] = [source, target] as unknown as Record<string, unknown>[]
  for (const key of new Set([...Object.keys(there), ...Object.keys(here)])) {
    if (isDeepStrictEqual(there[key], here[key])) continue
    const say = (value: unknown): string =>
      value === undefined ? 'not given' : JSON.stringify(value)
    throw refused(
      `port "${source.id}": ${key} is ${say(there[key])} at the source and ${say(here[key])} at the target`,
      source.id,
      'change one of them first, by a reload',
    )
  }
}
