/**
 * Outputs of mirrors that are sessions to other hosts. In the engine each is a port like others, with a number
 * that no port of the user's has, and an output before it is there: it takes part in nothing else.
 */
import type { EngineClient } from '../engine/client.ts'
import { NO_POLICY } from '../engine/messages.ts'
import { shim } from '../native/shim.ts'
import type { ErspanOptions } from '../port/erspan-options.ts'
import { OpenErspan } from '../port/erspan.control.ts'
import type { CounterName } from '../stats/counters.ts'
import { changeCounters, clearCounters, readCounters } from '../stats/port-counters.ts'
import type { PortTable } from './port-table.ts'

export class MirrorTunnel {
  /** Its number in the engine. */
  readonly index: number
  readonly #engine: EngineClient
  readonly #ports: PortTable
  readonly #open: OpenErspan

  /** Opens it; there are copies from `start` on. `sequence`: number of the first. Throws SysError ERSPAN. */
  constructor(
    engine: EngineClient,
    ports: PortTable,
    mirror: string,
    options: ErspanOptions,
    sequence: number,
  ) {
    this.#engine = engine
    this.#ports = ports
    this.#open = OpenErspan.open(shim, options, `mirror "${mirror}"`, sequence)
    try {
      this.index = ports.reserve()
    } catch (error) {
      this.#open.close()
      throw error
    }
    clearCounters(engine.counters, this.index)
  }

  /** The engine knows that it is an output. */
  async start(): Promise<void> {
    await this.#engine.request({
      op: 'add-port',
      port: this.index,
      mtu: 0,
      txOffloads: 0,
      description: this.#open.description,
      isHeld: false,
      policy: NO_POLICY,
      macs: [],
    })
  }

  /** Of the next copy. */
  async sequence(): Promise<number> {
    const call = { do: 'erspan-sequence' } as const
    return (await this.#engine.request({ op: 'call', port: this.index, call })) as number
  }

  /** What was sent and what was not. */
  get counters(): Partial<Record<CounterName, number>> {
    const all = Object.entries(readCounters(this.#engine.counters, this.index))
    return Object.fromEntries(all.filter(([name]) => name.startsWith('tx_')))
  }

  /** So much was sent, and not sent, by another process; before `start`. */
  goOn(counters: Partial<Record<CounterName, number>>): void {
    changeCounters(this.#engine.counters, this.index, counters)
  }

  /** It is the output of no mirror any more. */
  async end(): Promise<void> {
    try {
      await this.#engine.request({ op: 'remove-port', port: this.index })
    } finally {
      this.close()
    }
  }

  /** The engine has let go of it, or is gone. */
  close(): void {
    this.#open.close()
    this.#ports.unreserve(this.index)
  }
}
