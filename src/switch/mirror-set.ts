/**
 * The mirrors of a switch. They name ports by their ids; the engine, which knows numbers, is told all of
 * them anew whenever one of them or a port comes or goes. A mirror outlives the ports that it names.
 */
import type { EngineClient } from '../engine/client.ts'
import type { MirrorDescription } from '../engine/messages.ts'
import { MIRRORS_MAX } from '../engine/cells.ts'
import { ConfigError, StateError } from '../errors.ts'
import type { MirrorInfo, MirrorOptions } from './api.ts'
import { vlanRanges } from '../port/switching-options.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'

/** Bytes of a copy, least and most. */
const SNAP_LENGTH_RANGE: readonly [number, number] = [14, 65535]
const VLAN_RANGE: readonly [number, number] = [1, 4094]

interface Mirror {
  readonly number: number
  readonly options: MirrorOptions
}

export class MirrorSet {
  readonly #engine: EngineClient
  readonly #ports: PortTable
  readonly #byName = new Map<string, Mirror>()

  constructor(engine: EngineClient, ports: PortTable) {
    this.#engine = engine
    this.#ports = ports
  }

  async add(options: MirrorOptions, undo: Undo): Promise<void> {
    this.#check(options)
    const { name } = options
    undo(() => this.#drop(name))
    this.#byName.set(name, { number: this.#freeNumber(), options })
    await this.#tell()
  }

  /** Those of another process that goes on here; of those with a name that there is here ours are right. */
  async takeOver(others: readonly MirrorOptions[], undo: Undo): Promise<void> {
    for (const options of others) if (!this.#byName.has(options.name)) await this.add(options, undo)
  }

  async remove(name: string): Promise<void> {
    if (!this.#byName.has(name)) {
      throw new StateError('MIRROR_NOT_FOUND', `there is no mirror "${name}"`)
    }
    await this.#drop(name)
  }

  #drop(name: string): Promise<void> {
    return this.#byName.delete(name) ? this.#tell() : Promise.resolve()
  }

  /** Ports have come or gone: before a new one has its first frame. */
  async portsChanged(): Promise<void> {
    if (this.#byName.size > 0) await this.#tell()
  }

  /** Throws when the port is the output of a mirror, which is on no link. */
  checkWirable(id: string): void {
    for (const { options } of this.#byName.values()) {
      if (options.outputPort !== id) continue
      throw new ConfigError('BAD_LINK', `port "${id}" is the output of mirror "${options.name}"`)
    }
  }

  infos(): MirrorInfo[] {
    return [...this.#byName.values()].map(({ number, options }) => ({
      options,
      missing: named(options).filter((id) => this.#ports.find(id) === undefined),
      ...this.#engine.mirrorCounters(number),
    }))
  }

  async #tell(): Promise<void> {
    const mirrors = [...this.#byName.values()].map((mirror) => this.#describe(mirror))
    await this.#engine.request({ op: 'set-mirrors', mirrors })
  }

  #describe({ number, options }: Mirror): MirrorDescription {
    const { selectAll, selectSrcPort, selectDstPort, selectVlan, snapLength } = options
    const { outputPort, outputVlan } = options
    const all = selectAll === true ? this.#ports.all.map(({ index }) => index) : undefined
    const numbers = (ids: readonly string[] = []): number[] =>
      ids.flatMap((id) => this.#ports.find(id)?.index ?? [])
    return {
      number,
      sources: all ?? numbers(selectSrcPort),
      destinations: all ?? numbers(selectDstPort),
      vlans: vlanRanges(selectVlan, 'select-vlan'),
      output: numbers(outputPort === undefined ? [] : [outputPort]).at(0) ?? -1,
      outputVlan: outputVlan ?? 0,
      snapLength: snapLength ?? 0,
    }
  }

  #freeNumber(): number {
    const taken = new Set([...this.#byName.values()].map(({ number }) => number))
    for (let number = 0; number < MIRRORS_MAX; number++) if (!taken.has(number)) return number
    throw new ConfigError('BAD_MIRROR', `a switch has at most ${MIRRORS_MAX} mirrors`)
  }

  #check(options: MirrorOptions): void {
    const { name, outputPort } = options
    vlanRanges(options.selectVlan, 'select-vlan')
    const wrong = mirrorFault(options)
    if (wrong !== undefined) throw refused(name, wrong)
    if (this.#byName.has(name)) throw refused(name, 'there is a mirror of that name already')
    for (const id of named(options)) this.#ports.entry(id)
    if (outputPort === undefined) return
    const { peer } = this.#ports.entry(outputPort)
    if (peer === undefined) return
    throw refused(name, `its output "${outputPort}" is wired to "${peer.options.id}"`)
  }
}

const refused = (name: string, why: string): ConfigError =>
  new ConfigError('BAD_MIRROR', `mirror "${name}": ${why}`)

/** Ports that it names. */
function named({ selectSrcPort = [], selectDstPort = [], outputPort }: MirrorOptions): string[] {
  const output = outputPort === undefined ? [] : [outputPort]
  return [...new Set([...selectSrcPort, ...selectDstPort, ...output])]
}

/** What is wrong with a mirror, whatever ports there are. */
export function mirrorFault(options: MirrorOptions): string | undefined {
  const { selectAll, selectSrcPort, selectDstPort, outputPort, outputVlan, snapLength } = options
  const selected = [selectSrcPort, selectDstPort].filter((list) => list !== undefined)
  if (selectAll === true && selected.length > 0) {
    return 'select-all selects all ports: there is nothing to add to it'
  }
  if (selectAll !== true && selected.flat().length === 0) {
    return 'it selects nothing: give select-all, select-src-port or select-dst-port'
  }
  if ((outputPort === undefined) === (outputVlan === undefined)) {
    return 'it has one output: give output-port or output-vlan'
  }
  if (outputPort !== undefined && selected.flat().includes(outputPort)) {
    return `it selects its own output "${outputPort}"`
  }
  return (
    outOfRange('output-vlan', outputVlan, VLAN_RANGE) ??
    outOfRange('snaplen', snapLength, SNAP_LENGTH_RANGE)
  )
}

function outOfRange(
  name: string,
  value: number | undefined,
  [least, most]: readonly [number, number],
): string | undefined {
  if (value === undefined) return undefined
  const isRight = Number.isInteger(value) && value >= least && value <= most
  return isRight ? undefined : `${name} must be ${least} to ${most}`
}
