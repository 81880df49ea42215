/**
 * The mirrors of a switch. They name ports by their ids; the engine, which knows numbers, is told all of
 * them anew whenever one of them or a port comes or goes. A mirror outlives the ports that it names.
 */
import type { EngineClient } from '../engine/client.ts'
import type { MirrorDescription } from '../engine/messages.ts'
import { MIRRORS_MAX } from '../engine/cells.ts'
import { ConfigError, StateError } from '../errors.ts'
import { compileFilter } from '../filter/compile.ts'
import { parseProgram } from '../filter/program.ts'
import { erspanFault, isSameSession, outOfRange } from '../port/erspan-options.ts'
import type { MirrorInfo, MirrorOptions } from './api.ts'
import type { HandedSwitch } from './handed.ts'
import { vlanRanges } from '../port/switching-options.ts'
import type { Log } from '../text.ts'
import { MirrorTunnel } from './mirror-tunnels.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'
import { doAll } from './undo.ts'

/** Bytes of a copy, least and most. */
const SNAP_LENGTH_RANGE: readonly [number, number] = [14, 65535]
const VLAN_RANGE: readonly [number, number] = [1, 4094]

type HandedMirrors = Pick<HandedSwitch, 'mirrors' | 'mirrored' | 'sequences'>

interface Mirror {
  readonly number: number
  readonly options: MirrorOptions
  readonly filter: Int32Array | null
  /** To another host. */
  readonly tunnel?: MirrorTunnel
}

export class MirrorSet {
  readonly #engine: EngineClient
  readonly #ports: PortTable
  readonly #byName = new Map<string, Mirror>()

  constructor(engine: EngineClient, ports: PortTable) {
    this.#engine = engine
    this.#ports = ports
  }

  /** `mayLack`: it has been there before, and outlives the ports that it names. */
  async add(options: MirrorOptions, undo: Undo, mayLack = false): Promise<void> {
    if (!mayLack) for (const id of named(options)) this.#ports.entry(id)
    const tunnel = this.#put(options, undo, 0)
    await this.#tell()
    await tunnel?.start()
  }

  /** Those of another process that goes on here; of those with a name that there is here ours are right. */
  async takeOver(
    { mirrors, mirrored = {}, sequences = {} }: HandedMirrors,
    undo: Undo,
  ): Promise<void> {
    const wanted = mirrors.filter(({ name }) => !this.#byName.has(name))
    if (wanted.length === 0) return
    // Frames wait meanwhile: the engine is told once.
    const tunnels = wanted.map((options) => this.#put(options, undo, sequences[options.name] ?? 0))
    await this.#tell()
    for (const { name } of wanted) {
      const { number, tunnel } = this.#byName.get(name)!
      const { frames, bytes, counters = {} } = mirrored[name] ?? { frames: 0, bytes: 0 }
      this.#engine.restoreMirrorCounters(number, frames, bytes)
      tunnel?.goOn(counters)
    }
    for (const tunnel of tunnels) await tunnel?.start()
  }

  /** By name: what they have counted. */
  counted(): NonNullable<HandedSwitch['mirrored']> {
    const counts = this.infos().map(({ options, frames, bytes, counters }) => {
      const sent = counters === undefined ? {} : { counters }
      return [options.name, { frames, bytes, ...sent }] as const
    })
    return Object.fromEntries(counts)
  }

  /** The engine is told of it by whoever asks for it. Returns the session that starts then, if it is one. */
  #put(options: MirrorOptions, undo: Undo, sequence: number): MirrorTunnel | undefined {
    this.#check(options)
    const { name, erspan, filterProgram } = options
    const filter = filterProgram === undefined ? null : parseProgram(filterProgram)
    const number = this.#freeNumber()
    const tunnel =
      erspan === undefined
        ? undefined
        : new MirrorTunnel(this.#engine, this.#ports, name, erspan, sequence)
    undo(() => this.#drop(name))
    this.#byName.set(name, { number, options, filter, ...(tunnel === undefined ? {} : { tunnel }) })
    return tunnel
  }

  /** By name: numbers of the next copies that go to other hosts. */
  async sequences(): Promise<Record<string, number>> {
    const numbers = [...this.#byName].map(
      async ([name, { tunnel }]) => [name, await tunnel?.sequence()] as const,
    )
    const known = (await Promise.all(numbers)).filter(([, sequence]) => sequence !== undefined)
    return Object.fromEntries(known) as Record<string, number>
  }

  async remove(name: string): Promise<void> {
    if (!this.#byName.has(name)) {
      throw new StateError('MIRROR_NOT_FOUND', `there is no mirror "${name}"`)
    }
    await this.#drop(name)
  }

  async #drop(name: string): Promise<void> {
    const mirror = this.#byName.get(name)
    if (mirror === undefined) return
    this.#byName.delete(name)
    try {
      await this.#tell()
    } finally {
      await mirror.tunnel?.end()
    }
  }

  /** The switch ends. */
  close(log: Log): Promise<void> {
    return doAll(
      [...this.#byName.keys()].map((name) => () => this.#drop(name)),
      log,
    )
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
    return [...this.#byName.values()].map(({ number, options, tunnel }) => ({
      options,
      missing: named(options).filter((id) => this.#ports.find(id) === undefined),
      ...this.#engine.mirrorCounters(number),
      ...(tunnel === undefined ? {} : { counters: tunnel.counters }),
    }))
  }

  async #tell(): Promise<void> {
    const mirrors = [...this.#byName.values()].map((mirror) => this.#describe(mirror))
    await this.#engine.request({ op: 'set-mirrors', mirrors })
  }

  #describe({ number, options, filter, tunnel }: Mirror): MirrorDescription {
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
      output: tunnel?.index ?? numbers(outputPort === undefined ? [] : [outputPort]).at(0) ?? -1,
      outputVlan: outputVlan ?? 0,
      filter,
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
    for (const { options: other } of this.#byName.values()) {
      if (!isSameSession(options.erspan, other.erspan)) continue
      throw refused(name, `mirror "${other.name}" has that session-id to that host`)
    }
    if (outputPort === undefined) return
    const peer = this.#ports.find(outputPort)?.peer
    if (peer === undefined) return
    throw refused(name, `its output "${outputPort}" is wired to "${peer.options.id}"`)
  }
}

/** With the program that its filter becomes. Throws what `compileFilter` throws. */
export async function withProgram(options: MirrorOptions): Promise<MirrorOptions> {
  const { name, filter, filterProgram } = options
  if (filter === undefined || filterProgram !== undefined) return options
  return { ...options, filterProgram: await compileFilter(filter, `mirror "${name}"`) }
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
  const outputs = [outputPort, outputVlan, options.erspan].filter((one) => one !== undefined)
  const selected = [selectSrcPort, selectDstPort].filter((list) => list !== undefined)
  if (selectAll === true && selected.length > 0) {
    return 'select-all selects all ports: there is nothing to add to it'
  }
  if (selectAll !== true && selected.flat().length === 0) {
    return 'it selects nothing: give select-all, select-src-port or select-dst-port'
  }
  if (outputs.length !== 1) return 'it has one output: give output-port, output-vlan or erspan'
  if (outputPort !== undefined && selected.flat().includes(outputPort)) {
    return `it selects its own output "${outputPort}"`
  }
  return (
    outOfRange('output-vlan', outputVlan, VLAN_RANGE) ??
    outOfRange('snaplen', snapLength, SNAP_LENGTH_RANGE) ??
    erspanFault(options.erspan)
  )
}
