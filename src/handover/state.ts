/**
 * The state of a switch as records: one for each port and each capture, with its descriptors, the MAC table and
 * multicast groups in parts, then everything else, and how many there were.
 */
import type { HandedCapture, HandedPort, HandedSwitch } from '../switch/handed.ts'
import type { OutgoingRecord } from './channel.ts'
import type { HandOverRecord } from './records.ts'
import { channelError } from './records.ts'

/** Numbers of the MAC table in one record: about 64 KiB; those of an entry stay together. */
const MACS_PER_RECORD = 8192
/** Multicast groups in one record. */
const GROUPS_PER_RECORD = 2048

/** Ports without descriptors in one record. */
const PORTS_PER_RECORD = 64

/** What crosses: the switch, and the control socket with its clients as the control plane tells of them. */
export interface Handed {
  readonly switch: HandedSwitch
  readonly control: HandedControl
  /** It is to be done with as with the state, which is still to come. */
  readonly isRehearsed?: boolean
}

export interface HandedControl {
  readonly data: unknown
  readonly fds: readonly number[]
}

export const NO_CONTROL: HandedControl = { data: null, fds: [] }

/** Said before the switch, and once: not in a rehearsal. */
export const controlRecord = (control: HandedControl): OutgoingRecord => ({
  section: 'control',
  ...control,
})

export function* stateRecords(
  handed: HandedSwitch,
  isRehearsed = false,
): Generator<OutgoingRecord> {
  const { ports, macs, groups = [], captures, ...rest } = handed
  yield* portRecords(ports)
  for (const { fds, ...capture } of captures) yield { section: 'capture', data: capture, fds }
  for (let at = 0; at < (macs?.length ?? 0); at += MACS_PER_RECORD) {
    yield { section: 'macs', data: macs!.slice(at, at + MACS_PER_RECORD), fds: [] }
  }
  for (let at = 0; at < groups.length; at += GROUPS_PER_RECORD) {
    yield { section: 'groups', data: groups.slice(at, at + GROUPS_PER_RECORD), fds: [] }
  }
  yield { section: 'switch', data: rest, fds: [] }
  const counts = {
    ports: ports.length,
    macs: macs?.length ?? null,
    groups: groups.length,
    ...(isRehearsed ? { isRehearsed } : {}),
  }
  yield { section: 'end-of-state', data: counts, fds: [] }
}

interface Counts {
  readonly ports?: unknown
  /** Null: as the preview said. */
  readonly macs?: unknown
  readonly groups?: unknown
  readonly isRehearsed?: unknown
}

/** Those without descriptors, as many of them as follow one another, in one record. */
function* portRecords(ports: HandedSwitch['ports']): Generator<OutgoingRecord> {
  let bare: unknown[] = []
  for (const { fds, ...port } of ports) {
    if (fds.length > 0) {
      if (bare.length > 0) yield { section: 'ports', data: bare, fds: [] }
      bare = []
      yield { section: 'port', data: port, fds }
    } else if (bare.push(port) === PORTS_PER_RECORD) {
      yield { section: 'ports', data: bare, fds: [] }
      bare = []
    }
  }
  if (bare.length > 0) yield { section: 'ports', data: bare, fds: [] }
}

/** Puts them together again, one state after another. Whoever gives up on it closes what `takeFds` returns. */
export class StateReader {
  readonly #ports: HandedPort[] = []
  readonly #captures: HandedCapture[] = []
  readonly #macs: unknown[] = []
  readonly #groups: unknown[] = []
  readonly #unclaimed: number[] = []
  #rest: unknown
  #control: HandedControl | undefined

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
        this.#addPort(data, fds)
        return undefined
      case 'ports':
        if (!Array.isArray(data)) throw channelError('the ports are no list')
        for (const port of data) this.#addPort(port, [])
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

  #addPort(data: unknown, fds: readonly number[]): void {
    if (data === null || typeof data !== 'object') throw channelError('a port is no object')
    this.#ports.push({ ...(data as Omit<HandedPort, 'fds'>), fds })
  }

  #finish(counts: Counts | null): Handed {
    const isWhole =
      counts?.ports === this.#ports.length &&
      (counts.macs ?? 0) === this.#macs.length &&
      // One that knows nothing of groups has none.
      (counts.groups ?? 0) === this.#groups.length &&
      typeof this.#rest === 'object' &&
      this.#rest !== null
    const isRehearsed = counts?.isRehearsed === true
    const control = this.#control ?? (isRehearsed ? NO_CONTROL : undefined)
    if (!isWhole || control === undefined) throw channelError('parts of the state are missing')
    if (!isRehearsed) {
      this.#control = undefined
      this.#unclaimed.length = 0
    }
    const rest = this.#rest as Omit<HandedSwitch, 'ports' | 'captures' | 'macs' | 'groups'>
    const [ports, captures] = [this.#ports.splice(0), this.#captures.splice(0)]
    const macs = counts.macs === null ? null : (this.#macs.splice(0) as number[])
    const groups = this.#groups.splice(0) as NonNullable<HandedSwitch['groups']>
    return { switch: { ...rest, ports, captures, macs, groups }, control, isRehearsed }
  }
}
