/**
 * Static entries of the forwarding database, as the control plane keeps them: with the port that has them, by
 * its options (a locked port's `macs`) or by hand (`fdb` of the config, fdb-add).
 */
import type { EngineClient } from '../engine/client.ts'
import type { StaticMac } from '../engine/messages.ts'
import { StateError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { formatMac } from '../wire/ethernet.ts'
import type { Fdb, FdbEntry, FdbFlush } from './api.ts'
import { checkVlan, optionMacs, staticMac } from './policy.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'

const keyOf = ([hi, lo]: StaticMac): string => `${hi},${lo}`
const describe = ([hi, lo]: StaticMac): string => {
  const vlan = lo >>> 16
  return `${formatMac(hi, lo)}${vlan === 0 ? '' : ` in VLAN ${vlan}`}`
}

/** Those of a port. */
export class StaticMacs {
  #byOptions: ReadonlyMap<string, StaticMac>
  readonly #byHand = new Map<string, StaticMac>()

  constructor(options: PortOptions) {
    this.#byOptions = byKey(optionMacs(options))
  }

  get all(): StaticMac[] {
    return [...new Map([...this.#byOptions, ...this.#byHand]).values()]
  }

  get byHand(): readonly StaticMac[] {
    return [...this.#byHand.values()]
  }

  has(mac: StaticMac): boolean {
    return this.#byHand.has(keyOf(mac)) || this.#byOptions.has(keyOf(mac))
  }

  hasByHand(mac: StaticMac): boolean {
    return this.#byHand.has(keyOf(mac))
  }

  add(mac: StaticMac): void {
    this.#byHand.set(keyOf(mac), mac)
  }

  remove(mac: StaticMac): void {
    this.#byHand.delete(keyOf(mac))
  }

  setOptions(options: PortOptions): void {
    this.#byOptions = byKey(optionMacs(options))
  }
}

const byKey = (macs: readonly StaticMac[]): ReadonlyMap<string, StaticMac> =>
  new Map(macs.map((mac) => [keyOf(mac), mac]))

/** Throws when one of them is another port's. `own`: the port whose they are to be, if it is there. */
export function checkMacs(
  macs: readonly StaticMac[],
  ports: readonly PortEntry[],
  own?: PortEntry,
): void {
  for (const entry of ports) {
    if (entry === own) continue
    const taken = macs.find((mac) => entry.statics.has(mac))
    if (taken === undefined) continue
    throw new StateError('FDB_ENTRY', `${describe(taken)} is static at port "${entry.options.id}"`)
  }
}

type RunChange = <T>(action: (undo: Undo) => Promise<T>) => Promise<T>
type Address = Omit<FdbEntry, 'port'>

/** The static entries of the switch that were added by hand, and how they change. */
export class StaticFdb implements Fdb {
  readonly #ports: PortTable
  readonly #engine: Pick<EngineClient, 'request'>
  readonly #change: RunChange

  /** `change` runs something as a change of the switch. */
  constructor(ports: PortTable, engine: Pick<EngineClient, 'request'>, change: RunChange) {
    this.#ports = ports
    this.#engine = engine
    this.#change = change
  }

  list(): FdbEntry[] {
    return this.#ports.all.flatMap(({ options, statics }) =>
      statics.byHand.map(([hi, lo]) => ({
        mac: formatMac(hi, lo),
        vlan: lo >>> 16,
        port: options.id,
      })),
    )
  }

  add(entries: readonly FdbEntry[]): Promise<void> {
    return this.#change(async (undo) => {
      for (const { mac, vlan = 0, port } of entries) {
        const entry = this.#ports.entry(port)
        const one = staticMac(mac, vlan)
        checkMacs([one], this.#ports.all, entry)
        if (!entry.statics.hasByHand(one)) await this.#addOne(entry, one, undo)
      }
    })
  }

  async #addOne(entry: PortEntry, one: StaticMac, undo: Undo): Promise<void> {
    if (!entry.statics.has(one)) {
      undo(() => this.#removeFromEngine(entry, one))
      await this.#engine.request({ op: 'add-macs', port: entry.index, macs: [one] })
    }
    undo(() => entry.statics.remove(one))
    entry.statics.add(one)
  }

  remove(entries: readonly Address[]): Promise<void> {
    return this.#change((undo) => this.#remove(entries, undo))
  }

  async #remove(entries: readonly Address[], undo: Undo): Promise<void> {
    for (const { mac, vlan = 0 } of entries) {
      const one = staticMac(mac, vlan)
      const entry = this.#ports.all.find(({ statics }) => statics.hasByHand(one))
      if (entry === undefined) {
        throw new StateError('FDB_ENTRY', `there is no static entry of ${describe(one)}`, {
          hint: 'framepump show macs; those of a locked port are in its macs=',
        })
      }
      undo(() => this.#addOne(entry, one, () => undefined))
      entry.statics.remove(one)
      await this.#removeFromEngine(entry, one)
    }
  }

  async #removeFromEngine(entry: PortEntry, one: StaticMac): Promise<void> {
    if (entry.statics.has(one)) return
    await this.#engine.request({ op: 'remove-macs', port: entry.index, macs: [one] })
  }

  flush({ port, vlan, all = false }: FdbFlush = {}): Promise<void> {
    return this.#change(async (undo) => {
      checkVlan(vlan)
      const index = port === undefined ? -1 : this.#ports.entry(port).index
      await this.#engine.request({ op: 'flush-macs', port: index, vlan: vlan ?? -1 })
      if (!all) return
      const meant = this.list().filter(
        (one) => (port ?? one.port) === one.port && (vlan ?? one.vlan) === one.vlan,
      )
      await this.#remove(meant, undo)
    })
  }
}
