/**
 * The state of a switch as records: one for each port and each capture, with its descriptors, the MAC table and multicast groups in
 * parts, then everything else, and how many there were.
 */
import type { HandedCapture, HandedPort, HandedSwitch } from '../switch/handed.ts'
import type { HandOverRecord, Section } from './records.ts'
import { channelError } from './records.ts'

/** Entries of the MAC table, or of multicast groups, in one record: 128 KiB and more. */
const ROWS_PER_RECORD = 2048

export interface StateRecord {
  readonly section: Section
  readonly data: unknown
  readonly fds: readonly number[]
}

/** What crosses: the switch, and the control socket with its clients as the control plane tells of them. */
export interface Handed {
  readonly switch: HandedSwitch
  readonly control: { readonly data: unknown; readonly fds: readonly number[] }
}

export function* stateRecords({ switch: handed, control }: Handed): Generator<StateRecord> {
  const { ports, macs, groups = [], captures, ...rest } = handed
  yield { section: 'control', ...control }
  for (const { fds, ...port } of ports) yield { section: 'port', data: port, fds }
  for (const { fds, ...capture } of captures) yield { section: 'capture', data: capture, fds }
  for (let at = 0; at < macs.length; at += ROWS_PER_RECORD) {
    yield { section: 'macs', data: macs.slice(at, at + ROWS_PER_RECORD), fds: [] }
  }
  for (let at = 0; at < groups.length; at += ROWS_PER_RECORD) {
    yield { section: 'groups', data: groups.slice(at, at + ROWS_PER_RECORD), fds: [] }
  }
  yield { section: 'switch', data: rest, fds: [] }
  const counts = { ports: ports.length, macs: macs.length, groups: groups.length }
  yield { section: 'end-of-state', data: counts, fds: [] }
}

interface Counts {
  readonly ports?: unknown
  readonly macs?: unknown
  readonly groups?: unknown
}

/** Puts them together again. Whoever gives up on it closes what `takeFds` returns. */
export class StateReader {
  readonly #ports: HandedPort[] = []
  readonly #captures: HandedCapture[] = []
  readonly #macs: unknown[] = []
  readonly #groups: unknown[] = []
  readonly #unclaimed: number[] = []
  #rest: unknown
  #control: Handed['control'] | undefined

  /** Those of the ports and captures that have come so far, and of what belongs to none. */
  takeFds(): number[] {
    const claimed = [...this.#ports.splice(0), ...this.#captures.splice(0)]
    return [...this.#unclaimed.splice(0), ...claimed.flatMap(({ fds }) => fds)]
  }

  /** Returns the whole once it is complete. */
  push({ section, data, fds }: HandOverRecord): Handed | undefined {
    const hasFds = section === 'port' || section === 'capture' || section === 'control'
    if (!hasFds || data === null || typeof data !== 'object') {
      this.#unclaimed.push(...fds)
      if (fds.length > 0) throw channelError(`section "${section}" came with descriptors`)
    }
    switch (section) {
      case 'port':
        if (data === null || typeof data !== 'object') throw channelError('a port is no object')
        this.#ports.push({ ...(data as Omit<HandedPort, 'fds'>), fds })
        return undefined
      case 'capture':
        if (data === null || typeof data !== 'object') throw channelError('a capture is no object')
        this.#captures.push({ ...(data as Omit<HandedCapture, 'fds'>), fds })
        return undefined
      case 'control':
        this.#unclaimed.push(...fds)
        this.#control = { data, fds }
        return undefined
      case 'macs':
        if (!Array.isArray(data)) throw channelError('the MAC table is no list')
        for (const entry of data) this.#macs.push(entry)
        return undefined
      case 'groups':
        if (!Array.isArray(data)) throw channelError('the table of groups is no list')
        for (const entry of data) this.#groups.push(entry)
        return undefined
      case 'switch':
        this.#rest = data
        return undefined
      case 'end-of-state':
        return this.#finish(data as Counts | null)
      default:
        throw channelError(`section "${section}" came in the midst of the state`)
    }
  }

  #finish(counts: Counts | null): Handed {
    const isWhole =
      counts?.ports === this.#ports.length &&
      counts.macs === this.#macs.length &&
      // One that knows nothing of groups has none.
      (counts.groups ?? 0) === this.#groups.length &&
      typeof this.#rest === 'object' &&
      this.#rest !== null
    if (!isWhole || this.#control === undefined) {
      throw channelError('parts of the state are missing')
    }
    this.#unclaimed.length = 0
    const rest = this.#rest as Omit<HandedSwitch, 'ports' | 'captures' | 'macs' | 'groups'>
    const [ports, captures] = [this.#ports.splice(0), this.#captures.splice(0)]
    const macs = this.#macs as HandedSwitch['macs']
    const groups = this.#groups as NonNullable<HandedSwitch['groups']>
    return { switch: { ...rest, ports, captures, macs, groups }, control: this.#control }
  }
}
