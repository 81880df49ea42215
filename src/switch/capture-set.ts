/** The captures of a switch: which ports each of them is of, and the engine's end of them. */
import type { EventEmitter } from 'node:events'
import { CaptureSession } from '../capture/capture.ts'
import { RingMemory } from '../capture/ring.ts'
import { StateError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import { HandedReader } from '../port/handed.ts'
import { readCapture, writeCapture } from '../port/handed-capture.ts'
import type { Capture, CaptureInfo, CaptureOptions, SwitchEvents } from './api.ts'
import type { EngineClient } from '../engine/client.ts'
import type { HandedCapture } from './handed.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'

/** Captures at the same time: each has a ring and a thread. */
const CAPTURES_MAX = 16
/** Of the state of one, and the one before, which came without its ring. */
const VERSION = 2
const VERSION_WRITTEN = 1
/** What is written to a disk right now may take so long. */
const HOLD_MS = 200
const HANDED_OVER = 'the switch was handed over: start it again'

export class CaptureSet {
  readonly #engine: EngineClient
  readonly #events: EventEmitter<SwitchEvents>
  readonly #sessions = new Map<number, CaptureSession>()
  /** Those that another process has, or is about to: nothing of them is written. */
  readonly #handed = new Set<CaptureSession>()
  /** Those that came, and have not begun here. */
  readonly #came = new Set<CaptureSession>()
  /** Rings of those that are to come; the engine has them in view. */
  readonly #spare = new Map<number, RingMemory>()
  #nextId = 1

  constructor(engine: EngineClient, events: EventEmitter<SwitchEvents>) {
    this.#engine = engine
    this.#events = events
  }

  get infos(): CaptureInfo[] {
    return [...this.#sessions.values()].map((capture) => capture.info())
  }

  /** `ports`: all of the switch; those that the options do not name are left out. */
  async start(
    options: CaptureOptions,
    ports: Pick<PortTable, 'all' | 'entry'>,
    undo: Undo,
  ): Promise<Capture> {
    for (const id of options.ports ?? []) ports.entry(id)
    if (this.#sessions.size >= CAPTURES_MAX) {
      throw new StateError('TOO_MANY_CAPTURES', `there are ${CAPTURES_MAX} captures already`)
    }
    const id = this.#nextId++
    const capture = new CaptureSession(id, options, () => this.#detach(id))
    undo(() => capture.end())
    const interfaces = ports.all
      .filter((entry) => isCaptured(capture, entry))
      .map((entry) => describe(capture, entry))
    this.#sessions.set(id, capture)
    await this.#engine.request({ op: 'add-capture', capture: id, ring: capture.ring, interfaces })
    this.#begin(capture)
    return capture
  }

  #begin(capture: CaptureSession): void {
    capture.begin()
    void capture.done.then((summary) => {
      if (this.#handed.has(capture)) this.#handed.delete(capture)
      else this.#events.emit('capture-ended', capture.id, summary)
    })
  }

  async #detach(capture: number): Promise<void> {
    this.#sessions.delete(capture)
    await this.#engine.request({ op: 'remove-capture', capture }).catch(() => undefined)
  }

  /** Throws StateError when it does not run. */
  capture(id: number): Capture {
    const capture = this.#sessions.get(id)
    if (capture !== undefined) return capture
    throw new StateError('NO_CAPTURE', `there is no capture ${id}`)
  }

  /** Numbers of those that another process could not go on with. */
  get ending(): number[] {
    return [...this.#sessions].filter(([, { isStream }]) => isStream).map(([id]) => id)
  }

  /** Their rings, for whoever may go on with them. */
  preview(): HandedCapture[] {
    return [...this.#sessions]
      .filter(([, { isStream }]) => !isStream)
      .map(([id, { ringFd }]) => ({ id, version: VERSION, state: null, fds: [ringFd] }))
  }

  /**
   * Nothing of them is written from now on, until `keep`, `endHere` or `leave`; frames still pass, and wait in
   * the rings. Returns those of which that holds: others end here, with all their frames.
   */
  async hold(): Promise<number[]> {
    const holding = [...this.#sessions.values()].map(async (session) => {
      if (await session.hold(HOLD_MS)) this.#handed.add(session)
    })
    await Promise.all(holding)
    return [...this.#handed].map(({ id }) => id)
  }

  /** Nobody is to go on with these. */
  endHere(ids: readonly number[]): void {
    for (const session of this.#handed) {
      if (!ids.includes(session.id)) continue
      this.#handed.delete(session)
      session.goOn()
    }
  }

  /** The engine is paused: those that are held. */
  handOver(): HandedCapture[] {
    return [...this.#handed].map((session) => {
      const { state, fd, ringFd } = session.handOverHeld()
      return { id: session.id, version: VERSION, state: writeCapture(state), fds: [fd, ringFd] }
    })
  }

  /** These are to come: what takes long is done while frames pass. `taken`: its descriptor is the ring's. */
  async prepare(
    previewed: readonly HandedCapture[],
    taken: (one: HandedCapture) => void,
    undo: Undo,
  ): Promise<void> {
    undo(() => this.dropSpare())
    for (const one of previewed) {
      taken(one)
      const memory = RingMemory.of(one.fds[0])
      this.#spare.set(one.id, memory)
      await this.#engine.request({ op: 'view-ring', window: memory.window.id })
    }
  }

  /** They do not come. */
  async dropSpare(): Promise<void> {
    for (const [id, memory] of this.#spare) {
      this.#spare.delete(id)
      const { id: window } = memory.window
      await this.#engine.request({ op: 'forget-ring', window }).catch(() => undefined)
      memory.close()
    }
  }

  /** They go on here. */
  keep(): void {
    for (const session of this.#handed) session.goOn()
    this.#handed.clear()
    for (const capture of this.#came) this.#beginCame(capture)
    this.#came.clear()
  }

  /** Frames pass, and nobody else passes them: one for which there is no thread ends alone. */
  #beginCame(capture: CaptureSession): void {
    try {
      this.#begin(capture)
    } catch {
      void capture.done.then((summary) => this.#events.emit('capture-ended', capture.id, summary))
      void capture.end()
    }
  }

  /** Another process goes on with those that it could be given; the others are ended. */
  async leave(): Promise<void> {
    await Promise.all(
      [...this.#sessions.values()].map((capture) =>
        this.#handed.has(capture) ? capture.leave() : capture.stop(HANDED_OVER),
      ),
    )
  }

  /** Goes on with one of another process, from `keep` on. `taken`: its descriptors are the capture's. */
  async takeOver(
    handed: HandedCapture,
    ports: readonly PortEntry[],
    taken: () => void,
    undo: Undo,
  ): Promise<void> {
    const { id } = handed
    const capture = this.#make(handed, taken)
    undo(() => {
      this.#came.delete(capture)
      return capture.leave()
    })
    this.#nextId = Math.max(this.#nextId, id + 1)
    this.#sessions.set(id, capture)
    this.#came.add(capture)
    const interfaces = ports.flatMap(({ index: port, options }) => {
      const number = capture.interfaceOf(options.id)
      return number < 0 ? [] : [{ port, id: number, block: null }]
    })
    await this.#engine.request({ op: 'add-capture', capture: id, ring: capture.ring, interfaces })
  }

  #make({ id, version, state, fds }: HandedCapture, taken: () => void): CaptureSession {
    const count = version === VERSION ? 2 : 1
    if (![VERSION, VERSION_WRITTEN].includes(version) || fds.length !== count) {
      const text = `capture ${id}: its state has version ${version}, and this release reads ${VERSION}`
      throw new StateError('HAND_OVER', text)
    }
    const read = readCapture(new HandedReader(`capture ${id}`, state))
    taken()
    const [fd, ringFd] = fds
    try {
      const came = { state: read, fd, ring: this.#ringOf(id, ringFd) }
      return CaptureSession.of(came, id, () => this.#detach(id))
    } catch (error) {
      shim.close(fd)
      throw error
    }
  }

  /** `fd`: by which it came, which is its own; undefined: it did not. */
  #ringOf(id: number, fd: number | undefined): RingMemory | undefined {
    if (fd === undefined) return undefined
    const spare = this.#spare.get(id)
    if (spare === undefined) return RingMemory.of(fd)
    this.#spare.delete(id)
    shim.close(fd)
    return spare
  }

  /** A port is new: captures of all ports have it, too. They lose it with the engine's port. */
  async add(entry: PortEntry): Promise<void> {
    for (const capture of this.#sessions.values()) {
      if (!isCaptured(capture, entry)) continue
      const described = describe(capture, entry)
      try {
        await this.#engine.request({
          op: 'add-interface',
          capture: capture.id,
          interface: described,
        })
      } catch (error) {
        capture.undescribe(described.id)
        throw error
      }
    }
  }

  /** Those that came and have not begun are another process's still. */
  async stop(): Promise<void> {
    await this.dropSpare()
    await Promise.all(
      [...this.#sessions.values()].map((capture) =>
        this.#came.delete(capture) ? capture.leave() : capture.stop(),
      ),
    )
  }
}

/** A record port is a capture itself. */
function isCaptured(capture: CaptureSession, entry: PortEntry): boolean {
  return capture.ports === null || capture.ports.has(entry.options.id)
}

function describe(
  capture: CaptureSession,
  entry: PortEntry,
): { port: number; id: number; block: Uint8Array } {
  const { ifname, path } = entry.open.facts()
  const what = ifname ?? path
  const description = what === undefined ? entry.options.type : `${entry.options.type} ${what}`
  return { port: entry.index, ...capture.describe(entry.options.id, description) }
}
