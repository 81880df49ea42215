/**
 * The switch as its user sees it: ports, links, captures, run state. Everything here is control
 * plane; the frames are the engine's (engine.ts), which is asked through EngineClient.
 *
 * Changes run one after another, each to its end: a port is never half added.
 */
import { EventEmitter } from 'node:events'
import { CaptureSession } from '../capture/capture.ts'
import { strerror } from '../abi/strerror.ts'
import { ConfigError, StateError } from '../errors.ts'
import { chooseTier } from '../io/probe.ts'
import type { PortOptions } from '../port/options.ts'
import { PORTS_MAX } from '../port/port.ts'
import { clearCounters, readCounters } from '../stats/port-counters.ts'
import { formatMac } from '../wire/ethernet.ts'
import type {
  Capture,
  CaptureOptions,
  IoTierName,
  MacEntry,
  MemoryPort,
  PortInfo,
  PortState,
  RunState,
  Switch,
  SwitchCounters,
  VirtioNetPort,
  SwitchEvents,
  SwitchOptions,
} from './api.ts'
import { EngineClient } from './engine-client.ts'
import {
  ENGINE_BURSTS,
  ENGINE_MAC_ENTRIES,
  ENGINE_MAC_FULL,
  ENGINE_MAC_MOVES,
  ENGINE_SLEEPS,
} from './engine.ts'
import { agreeOffloads } from './offload-agreement.ts'
import { checkSwitchOptions, offloadNames } from './switch-options.ts'
import type { EngineAccess, OpenPort } from './switch-port.ts'
import { MemorySwitchPort, openPort } from './switch-port.ts'
import { VirtioNetSwitchPort } from './virtio-net-port.ts'

/** Captures at the same time: each has a ring and a thread. */
const CAPTURES_MAX = 16

interface PortEntry {
  readonly index: number
  readonly options: PortOptions
  readonly open: OpenPort
  link: boolean
  failure: string | undefined
  /** Somebody is at the other end, as it was last told; undefined: there is no such thing. */
  wasConnected: boolean | undefined
  peer: PortEntry | undefined
}

export interface CreateSwitchOptions extends SwitchOptions {
  /** Told what happens that nobody asked for, one line each. Default: silent. */
  readonly log?: (message: string) => void
}

/** Makes an empty switch and starts its engine. */
export function createSwitch(options: CreateSwitchOptions = {}): Switch {
  checkSwitchOptions(options)
  return new UserspaceSwitch(options)
}

class UserspaceSwitch implements Switch {
  readonly events: EventEmitter<SwitchEvents> = new EventEmitter()
  readonly io: IoTierName
  readonly ioReason?: string
  runState: RunState = 'running'

  readonly #engine: EngineClient
  readonly #log: (message: string) => void
  readonly #stateDirectory: string | undefined
  readonly #ports = new Map<string, PortEntry>()
  readonly #byIndex: (PortEntry | undefined)[] = []
  readonly #captures = new Map<number, CaptureSession>()
  #nextCapture = 1
  /** The end of the queue of changes. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: CreateSwitchOptions) {
    const tier = chooseTier(options.io ?? 'auto')
    this.io = tier.name
    if (tier.reason !== undefined) this.ioReason = tier.reason
    this.#log = options.log ?? (() => undefined)
    this.#stateDirectory = options.stateDirectory
    this.#engine = new EngineClient(
      {
        io: tier.name,
        pace: options.pace ?? 'adaptive',
        macAgingS: options.macAgingS ?? 300,
        macTableSize: options.macTableSize ?? 8192,
        dropsReservedGroups: options.groupAddresses === '802.1D',
      },
      {
        portFailed: (index, errno) => this.#portFailed(index, errno),
        queueBroken: (index, queue, reason) => this.#queueBroken(index, queue, reason),
        driverCalled: (index) => this.#byIndex[index]?.open.driverCalled?.(),
        failed: (error) => {
          this.runState = 'shutdown'
          this.events.emit('engine-failed', error)
        },
      },
    )
  }

  addPort(options: PortOptions, given: ReadonlyMap<string, number> = new Map()): Promise<PortInfo> {
    return this.#change(async () => {
      const { id } = options
      if (this.#ports.has(id)) throw new ConfigError('DUPLICATE_ID', `Duplicate ID '${id}'`)
      const index = this.#freeIndex()
      const open = await openPort(options, {
        given,
        log: this.#log,
        wake: this.#engine.wake,
        signals: this.#engine.signals,
        stateDirectory: this.#stateDirectory,
        failed: (reason) => this.#portStopped(id, reason),
      })
      const entry: PortEntry = {
        index,
        options,
        open,
        link: true,
        failure: undefined,
        wasConnected: open.isConnected,
        peer: undefined,
      }
      clearCounters(this.#engine.counters, index)
      this.#ports.set(id, entry)
      this.#byIndex[index] = entry
      try {
        // Before the first frame, so that none needs what this port cannot take.
        this.#agreeOffloads()
        await this.#engine.request({
          op: 'add-port',
          port: index,
          mtu: options.mtu ?? 0,
          txOffloads: open.txOffloads,
          description: open.description,
        })
        for (const capture of this.#captures.values()) await this.#captureAlso(capture, entry)
        if (open.isConnected !== undefined) await this.#setEngineLink(entry)
        open.start?.(this.#engineAccess(entry))
      } catch (error) {
        this.#forget(entry)
        await open.close()
        throw error
      }
      const info = this.#info(entry)
      this.events.emit('port-added', info)
      return info
    })
  }

  removePort(id: string): Promise<void> {
    return this.#change(async () => {
      const entry = this.#entry(id)
      await entry.open.stop?.()
      await this.#engine.request({ op: 'remove-port', port: entry.index })
      if (entry.peer !== undefined) entry.peer.peer = undefined
      this.#forget(entry)
      await entry.open.close()
      this.events.emit('port-removed', id)
    })
  }

  setLink(id: string, up: boolean): Promise<void> {
    return this.#change(async () => {
      const entry = this.#entry(id)
      entry.link = up
      await this.#setEngineLink(entry)
      entry.open.setCarrier(up)
      this.events.emit('port-changed', this.#info(entry))
    })
  }

  addLink(a: string, b: string): Promise<void> {
    return this.#change(async () => {
      const [first, second] = [this.#entry(a), this.#entry(b)]
      if (first === second) throw new ConfigError('BAD_LINK', `cannot wire "${a}" to itself`)
      for (const entry of [first, second]) {
        if (entry.peer !== undefined) {
          throw new ConfigError(
            'BAD_LINK',
            `port "${entry.options.id}" is already wired to "${entry.peer.options.id}"`,
          )
        }
      }
      await this.#engine.request({ op: 'wire', a: first.index, b: second.index })
      first.peer = second
      second.peer = first
      this.#agreeOffloads()
    })
  }

  removeLink(a: string, b: string): Promise<void> {
    return this.#change(async () => {
      const [first, second] = [this.#entry(a), this.#entry(b)]
      if (first.peer !== second) {
        throw new ConfigError('BAD_LINK', `"${a}" and "${b}" are not wired to each other`)
      }
      first.peer = undefined
      second.peer = undefined
      // Back on the switch they may meet ports that can take less.
      this.#agreeOffloads()
      await this.#engine.request({ op: 'unwire', a: first.index, b: second.index })
    })
  }

  ports(): PortInfo[] {
    return [...this.#ports.values()].map((entry) => this.#info(entry))
  }

  port(id: string): PortInfo {
    return this.#info(this.#entry(id))
  }

  memoryPort(id: string): MemoryPort {
    const { open } = this.#entry(id)
    if (open instanceof MemorySwitchPort) return open.endpoint
    throw new StateError('NOT_A_MEMORY_PORT', `port "${id}" is not a memory port`)
  }

  virtioNetPort(id: string): VirtioNetPort {
    const { open } = this.#entry(id)
    if (open instanceof VirtioNetSwitchPort) return open
    throw new StateError('VIRTIO_NET', `port "${id}" is not a virtio-net port`)
  }

  links(): [string, string][] {
    const links: [string, string][] = []
    for (const { options, index, peer } of this.#ports.values()) {
      if (peer !== undefined && index < peer.index) links.push([options.id, peer.options.id])
    }
    return links
  }

  async macTable(): Promise<MacEntry[]> {
    const rows = (await this.#engine.request({ op: 'mac-table' })) as [
      number,
      number,
      number,
      number,
    ][]
    return rows.flatMap(([hi, lo, port, ageS]) => {
      const entry = this.#byIndex[port]
      return entry === undefined
        ? []
        : [{ mac: formatMac(hi, lo), port: entry.options.id, ageS: Math.max(0, ageS) }]
    })
  }

  counters(): SwitchCounters {
    const cells = this.#engine.engineCounters
    return {
      mac_entries: cells[ENGINE_MAC_ENTRIES],
      mac_moves: cells[ENGINE_MAC_MOVES],
      mac_table_full: cells[ENGINE_MAC_FULL],
      bursts: cells[ENGINE_BURSTS],
      sleeps: cells[ENGINE_SLEEPS],
    }
  }

  pause(): Promise<void> {
    return this.#change(async () => {
      if (this.runState !== 'running') return
      await this.#engine.request({ op: 'pause' })
      this.runState = 'paused'
    })
  }

  resume(): Promise<void> {
    return this.#change(async () => {
      if (this.runState !== 'paused') return
      await this.#engine.request({ op: 'resume' })
      this.runState = 'running'
    })
  }

  startCapture(options: CaptureOptions): Promise<Capture> {
    return this.#change(async () => {
      for (const id of options.ports ?? []) this.#entry(id)
      if (this.#captures.size >= CAPTURES_MAX) {
        throw new StateError('TOO_MANY_CAPTURES', `there are ${CAPTURES_MAX} captures already`)
      }
      const id = this.#nextCapture++
      const capture = new CaptureSession(id, options, async () => {
        this.#captures.delete(id)
        await this.#engine.request({ op: 'remove-capture', capture: id }).catch(() => undefined)
      })
      this.#captures.set(id, capture)
      const interfaces = [...this.#ports.values()]
        .filter((entry) => isCaptured(capture, entry))
        .map((entry) => this.#captureInterface(capture, entry))
      await this.#engine.request({ op: 'add-capture', capture: id, ring: capture.ring, interfaces })
      return capture
    })
  }

  captures(): { readonly id: number }[] {
    return [...this.#captures.keys()].map((id) => ({ id }))
  }

  close(): Promise<void> {
    return this.#change(async () => {
      if (this.runState === 'shutdown') return
      await Promise.all([...this.#captures.values()].map((capture) => capture.stop()))
      for (const entry of this.#ports.values()) {
        await entry.open.stop?.()
        await this.#engine
          .request({ op: 'remove-port', port: entry.index })
          .catch((error: Error) => this.#log(error.message))
        this.#forget(entry)
        await entry.open.close()
      }
      this.runState = 'shutdown'
      await this.#engine.close()
    }, true)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Runs a change after those before it, whatever became of them. */
  #change<T>(action: () => Promise<T>, isClosing = false): Promise<T> {
    const result = this.#last.then(() => {
      if (this.runState === 'shutdown' && !isClosing) {
        throw new StateError('SWITCH_CLOSED', 'the switch is closed')
      }
      return action()
    })
    this.#last = result.catch(() => undefined)
    return result
  }

  #entry(id: string): PortEntry {
    const entry = this.#ports.get(id)
    if (entry === undefined) throw new StateError('PORT_NOT_FOUND', `Device '${id}' not found`)
    return entry
  }

  #freeIndex(): number {
    for (let index = 0; index < PORTS_MAX; index++) {
      if (this.#byIndex[index] === undefined) return index
    }
    throw new StateError('TOO_MANY_PORTS', `a switch has at most ${PORTS_MAX} ports`)
  }

  #forget(entry: PortEntry): void {
    this.#ports.delete(entry.options.id)
    this.#byIndex[entry.index] = undefined
    this.#agreeOffloads()
  }

  #isUp(entry: PortEntry): boolean {
    return entry.link && entry.failure === undefined && entry.open.isConnected !== false
  }

  #setEngineLink(entry: PortEntry): Promise<unknown> {
    return this.#engine.request({ op: 'set-link', port: entry.index, isUp: this.#isUp(entry) })
  }

  #engineAccess(entry: PortEntry): EngineAccess {
    const { index: port } = entry
    return {
      call: (call) => this.#engine.request({ op: 'virtio', port, call }),
      inject: (frame) => this.#engine.request({ op: 'inject', port, frame }),
      changed: () => this.#connectionChanged(entry),
    }
  }

  /** A guest came or went, or negotiated anew. A guest that comes back is given another chance. */
  async #connectionChanged(entry: PortEntry): Promise<void> {
    if (this.#byIndex[entry.index] !== entry) return
    if (entry.open.isConnected === false && entry.failure !== undefined) {
      entry.failure = undefined
      this.#showConnection(entry)
    }
    this.#agreeOffloads()
    await this.#setEngineLink(entry)
    this.#showConnection(entry)
  }

  /** Shows who is connected, after the engine has heard of it: frames pass now, or do not any more. */
  #showConnection(entry: PortEntry): void {
    const { isConnected } = entry.open
    if (this.#byIndex[entry.index] !== entry || isConnected === entry.wasConnected) return
    entry.wasConnected = isConnected
    this.events.emit('port-changed', this.#info(entry))
  }

  #agreeOffloads(): void {
    agreeOffloads([...this.#ports.values()])
  }

  #captureInterface(
    capture: CaptureSession,
    entry: PortEntry,
  ): { port: number; id: number; block: Uint8Array } {
    const { ifname, path } = entry.open.facts()
    const what = ifname ?? path
    const description = what === undefined ? entry.options.type : `${entry.options.type} ${what}`
    return { port: entry.index, ...capture.describe(entry.options.id, description) }
  }

  async #captureAlso(capture: CaptureSession, entry: PortEntry): Promise<void> {
    if (!isCaptured(capture, entry)) return
    const description = this.#captureInterface(capture, entry)
    await this.#engine.request({
      op: 'add-interface',
      capture: capture.id,
      interface: description,
    })
  }

  #portFailed(index: number, errno: number): void {
    const entry = this.#byIndex[index]
    if (entry === undefined) return
    const { ifname } = entry.open.facts()
    const what =
      ifname === undefined ? 'its memory was taken away' : `the interface ${ifname} was deleted`
    this.#fail(entry, `${strerror(errno)}: ${what}`)
    entry.open.failed?.()
  }

  #queueBroken(index: number, queue: number, reason: string): void {
    const entry = this.#byIndex[index]
    if (entry === undefined) return
    this.#fail(entry, `queue ${queue} is broken: ${reason}`)
    entry.open.queueBroken?.(queue)
    this.#setEngineLink(entry).catch((error: Error) => this.#log(error.message))
  }

  /** The control plane's end of a port found that it cannot go on. */
  #portStopped(id: string, reason: string): void {
    void this.#change(async () => {
      const entry = this.#ports.get(id)
      if (entry === undefined) return
      this.#fail(entry, reason)
      await this.#engine.request({ op: 'set-link', port: entry.index, isUp: false })
    }).catch((error: Error) => this.#log(error.message))
  }

  #fail(entry: PortEntry, reason: string): void {
    if (entry.failure !== undefined) return
    entry.failure = reason
    this.#log(`${entry.options.type} ${entry.options.id}: failed error=${reason}`)
    this.events.emit('port-changed', this.#info(entry))
  }

  #info(entry: PortEntry): PortInfo {
    const { options, open, failure, link, peer, wasConnected } = entry
    const connection: PortState =
      wasConnected === undefined ? 'open' : wasConnected ? 'connected' : 'disconnected'
    const state: PortState = failure !== undefined ? 'failed' : link ? connection : 'down'
    return {
      id: options.id,
      type: options.type,
      state,
      ...(failure === undefined ? {} : { error: failure }),
      ...open.facts(),
      queues: open.queues,
      offloads: { rx: offloadNames(open.rxOffloads), tx: offloadNames(open.txOffloads) },
      vnetHdrLength: open.vnetHdrLength,
      link,
      ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
      ...(peer === undefined ? {} : { peer: peer.options.id }),
      counters: readCounters(this.#engine.counters, entry.index),
    }
  }
}

/** A record port is a capture itself. */
function isCaptured(capture: CaptureSession, entry: PortEntry): boolean {
  return capture.ports === null || capture.ports.has(entry.options.id)
}
