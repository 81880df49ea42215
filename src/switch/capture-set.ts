/** The captures of a switch: which ports each of them is of, and the engine's end of them. */
import type { EventEmitter } from 'node:events'
import { CaptureSession } from '../capture/capture.ts'
import { mapRing } from '../capture/ring.ts'
import { StateError } from '../errors.ts'
import type { Window } from '../mem/window.ts'
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
/** Of the state of one. */
const VERSION = 1
/** What was recorded may take so long to be written before it is handed over. */
const WRITE_MS = 50
const HANDED_OVER = 'the switch was handed over: start it again'

export class CaptureSet {
  readonly #engine: EngineClient
  readonly #events: EventEmitter<SwitchEvents>
  readonly #sessions = new Map<number, CaptureSession>()
  /** Those that another process has, or is about to. */
  readonly #handed = new Set<CaptureSession>()
  /** Those that came, and have not begun here. */
  readonly #came = new Set<CaptureSession>()
  /** Memory of rings for those that are to come; the engine has it in view. */
  readonly #spare: Window[] = []
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
    return [...this.#sessions].filter(([, { isFile }]) => !isFile).map(([id]) => id)
  }

  /** The engine is paused. Those whose files take too long to be written end here, with all their frames. */
  async handOver(): Promise<HandedCapture[]> {
    const handing = [...this.#sessions].map(async ([id, session]) => {
      const handed = await session.handOver(WRITE_MS)
      if (handed === null) return []
      this.#handed.add(session)
      return [{ id, version: VERSION, state: writeCapture(handed.state), fds: [handed.fd] }]
    })
    return (await Promise.all(handing)).flat()
  }

  /** So many are to come. What takes long is done while frames pass. */
  async prepare(count: number, undo: Undo): Promise<void> {
    undo(() => this.dropSpare())
    while (this.#spare.length < Math.min(count, CAPTURES_MAX)) {
      const window = mapRing()
      this.#spare.push(window)
      await this.#engine.request({ op: 'view-ring', window: window.id })
    }
  }

  /** They do not come. */
  async dropSpare(): Promise<void> {
    for (const window of this.#spare.splice(0)) {
      await this.#engine.request({ op: 'forget-ring', window: window.id }).catch(() => undefined)
      window.unmap()
    }
  }

  /** They go on here. */
  keep(): void {
    this.#handed.clear()
    for (const capture of this.#came) this.#begin(capture)
    this.#came.clear()
  }

  /** Another process goes on with those that it could be given; the others are ended. */
  async leave(): Promise<void> {
    await Promise.all(
      [...this.#sessions.values()].map((capture) =>
        this.#handed.has(capture) ? capture.leave() : capture.stop(HANDED_OVER),
      ),
    )
  }

  /** Goes on with one of another process, from `keep` on. The descriptor is the capture's with success. */
  async takeOver(
    { id, version, state, fds }: HandedCapture,
    ports: readonly PortEntry[],
    taken: () => void,
    undo: Undo,
  ): Promise<void> {
    if (version !== VERSION || fds.length !== 1) {
      const text = `capture ${id}: its state has version ${version}, and this release reads ${VERSION}`
      throw new StateError('HAND_OVER', text)
    }
    const read = readCapture(new HandedReader(`capture ${id}`, state))
    const came = { state: read, fd: fds[0], ring: this.#spare.pop() }
    const capture = CaptureSession.of(came, id, () => this.#detach(id))
    taken()
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
