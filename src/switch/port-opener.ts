/** Ports that are exchanged for what they are made of now: in the engine, and for those who look at them. */
import type { SwitchParts } from './parts.ts'
import type { PortEntry } from './port-entry.ts'
import type { Undo } from './undo.ts'

export class PortOpener {
  readonly #parts: SwitchParts

  constructor(parts: SwitchParts) {
    this.#parts = parts
  }

  /** First in first out. At a failure those that were opened are postponed again, last first. */
  async openAllPostponed(undo: Undo): Promise<void> {
    for (const entry of this.#parts.ports.all) {
      if (entry.open.postponed !== undefined) await this.openPostponed(entry, undo)
    }
  }

  async openPostponed(entry: PortEntry, undo: Undo): Promise<void> {
    const { states, watcher, context, access } = this.#parts
    const postponed = entry.open.postponed!
    const open = await postponed.open(context(entry.options.id))
    undo(() => states.show(entry))
    undo(() => open.abandon?.() ?? open.close())
    undo(() => {
      watcher.remove(entry)
      entry.open = postponed
      entry.failure = undefined
      entry.wasConnected = undefined
      return this.replaceInEngine(entry)
    })
    undo(() => open.stop?.())
    entry.open = open
    entry.wasConnected = open.isConnected
    await this.replaceInEngine(entry)
    if (!entry.link) open.setCarrier(false)
    watcher.add(entry)
    open.start?.(access(entry))
    states.show(entry)
  }

  /** The engine has what `entry.open` describes from now on. */
  async replaceInEngine(entry: PortEntry): Promise<void> {
    const { index, open } = entry
    const { txOffloads, description } = open
    const { engine, agreement, states } = this.#parts
    await engine.request({ op: 'replace-port', port: index, txOffloads, description })
    await agreement.reach()
    await states.tell(entry)
  }

  /** Ends of a link, or no longer. */
  setPeers(a: PortEntry, b: PortEntry, areWired: boolean): Promise<void> {
    a.peer = areWired ? b : undefined
    b.peer = areWired ? a : undefined
    return this.#parts.agreement.reach()
  }
}
