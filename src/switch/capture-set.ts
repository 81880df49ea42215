/** The captures of a switch: which ports each of them is of, and the engine's end of them. */
import { CaptureSession } from '../capture/capture.ts'
import { StateError } from '../errors.ts'
import type { Capture, CaptureInfo, CaptureOptions } from './api.ts'
import type { EngineClient } from '../engine/client.ts'
import type { PortEntry } from './port-entry.ts'
import type { Undo } from './undo.ts'

/** Captures at the same time: each has a ring and a thread. */
const CAPTURES_MAX = 16

export class CaptureSet {
  readonly #engine: EngineClient
  readonly #sessions = new Map<number, CaptureSession>()
  #nextId = 1

  constructor(engine: EngineClient) {
    this.#engine = engine
  }

  get infos(): CaptureInfo[] {
    return [...this.#sessions.values()].map((capture) => capture.info())
  }

  /** `ports`: all of the switch; those that the options do not name are left out. */
  async start(options: CaptureOptions, ports: readonly PortEntry[], undo: Undo): Promise<Capture> {
    if (this.#sessions.size >= CAPTURES_MAX) {
      throw new StateError('TOO_MANY_CAPTURES', `there are ${CAPTURES_MAX} captures already`)
    }
    const id = this.#nextId++
    const capture = new CaptureSession(id, options, async () => {
      this.#sessions.delete(id)
      await this.#engine.request({ op: 'remove-capture', capture: id }).catch(() => undefined)
    })
    undo(() => capture.end())
    const interfaces = ports
      .filter((entry) => isCaptured(capture, entry))
      .map((entry) => describe(capture, entry))
    this.#sessions.set(id, capture)
    await this.#engine.request({ op: 'add-capture', capture: id, ring: capture.ring, interfaces })
    capture.begin()
    return capture
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

  async stop(): Promise<void> {
    await Promise.all([...this.#sessions.values()].map((capture) => capture.stop()))
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
