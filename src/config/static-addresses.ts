/**
 * Static entries of the forwarding database that a config names, by `macs` of locked ports and by `fdb`: an address
 * is static at one port in its VLAN.
 */
import type { PortOptions } from '../port/options.ts'
import { lockedVlans } from '../port/switching-options.ts'
import type { FdbEntry } from '../switch/api.ts'

/** Locally administered, and no port's that anybody has heard of; one for each number of a port. */
function nobody(at: number): string {
  const octet = (value: number): string => (value & 0xff).toString(16).padStart(2, '0')
  return `02:ff:ff:ff:${octet(at >> 8)}:${octet(at)}`
}

interface Addresses {
  readonly ports: readonly PortOptions[]
  readonly fdb?: readonly FdbEntry[] | undefined
}

/** How an address is spelt makes no difference. */
export function addressKey(mac: string, vlan: number): string {
  return `${mac.toLowerCase().replaceAll('-', ':')} ${vlan}`
}

/** What a locked port has by its options. */
function keysOf(port: PortOptions, macs: readonly string[] = port.macs ?? []): string[] {
  const vlans = lockedVlans(port, (key) => key)
  return macs.flatMap((mac) => vlans.map((vlan) => addressKey(mac, vlan)))
}

/** Calls `tell` for ports and entries of `fdb`, by number, whose address is another port's by `macs`. */
export function tellTaken(
  { ports, fdb = [] }: Addresses,
  tell: (list: 'ports' | 'fdb', at: number, message: string) => void,
): void {
  const seen = new Map<string, string>()
  const taken = (key: string, port: string): string | undefined => {
    const owner = seen.get(key) ?? port
    const [mac, vlan] = key.split(' ')
    const where = vlan === '0' ? '' : ` in VLAN ${vlan}`
    return owner === port ? undefined : `${mac}${where} is static at port "${owner}"`
  }
  for (const [at, port] of ports.entries()) {
    const keys = keysOf(port)
    const first = keys.map((key) => taken(key, port.id)).find((one) => one !== undefined)
    if (first !== undefined) tell('ports', at, first)
    for (const key of keys) if (!seen.has(key)) seen.set(key, port.id)
  }
  for (const [at, { mac, vlan = 0, port }] of fdb.entries()) {
    const one = taken(addressKey(mac, vlan), port)
    if (one !== undefined) tell('fdb', at, one)
  }
}

/** Ids of ports by the addresses that they have by `macs`. */
export const addressOwners = (ports: readonly PortOptions[]): ReadonlyMap<string, string> =>
  new Map(ports.flatMap((port) => keysOf(port).map((key) => [key, port.id] as const)))

/**
 * A locked port, the one of that number, as it is before addresses of its own go to other ports, if any do: without these. One that has no
 * other takes no frame until it is given those that it is to have.
 */
export function withoutLost(
  running: PortOptions,
  at: number,
  owners: ReadonlyMap<string, string>,
): PortOptions | undefined {
  const { id, macs = [] } = running
  const isKept = (key: string): boolean => (owners.get(key) ?? id) === id
  const kept = macs.filter((mac) => keysOf(running, [mac]).every(isKept))
  if (kept.length === macs.length) return undefined
  if (kept.length > 0) return { ...running, macs: kept }
  // Who has an entry of fdb there does not come by without the guard, which cannot be without an address.
  if (running.guard !== undefined) return { ...running, macs: [nobody(at)] }
  const { macs: _, ...options } = running
  return options
}
