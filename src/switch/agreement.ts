/**
 * What ports owe to one another: which offloads a TAP may use, whose segments are merged, and which
 * TAPs follow a guest. All of it is looked at again after each change.
 */
import { explain } from '../text.ts'
import type { EngineClient } from '../engine/client.ts'
import { agreeOffloads } from './offload-agreement.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortTable } from './port-table.ts'
import { TapFollower } from './tap-follower.ts'

export class Agreement {
  readonly #engine: EngineClient
  readonly #ports: PortTable
  readonly #log: (message: string) => void
  readonly #taps: TapFollower

  constructor(engine: EngineClient, ports: PortTable, log: (message: string) => void) {
    this.#engine = engine
    this.#ports = ports
    this.#log = log
    this.#taps = new TapFollower(engine, log)
  }

  /** Resolves when the engine has done what is done at once. Never rejects. */
  async reach(): Promise<void> {
    try {
      const { all } = this.#ports
      agreeOffloads(all)
      for (const entry of all) this.#agreeMerging(entry)
      await this.#taps.follow(all)
      // The header of a TAP may have room for more now.
      agreeOffloads(this.#ports.all)
    } catch (error) {
      this.#log(explain(error))
    }
  }

  #agreeMerging(entry: PortEntry): void {
    const { index: port, merges: isMerging } = entry
    if (isMerging === entry.wasMerging) return
    entry.wasMerging = isMerging
    this.#engine
      .request({ op: 'set-merging', port, isMerging })
      .catch((error) => this.#log(explain(error)))
  }

  close(): void {
    this.#taps.close()
  }
}
