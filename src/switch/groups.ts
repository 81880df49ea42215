/** Multicast groups as users see them: names of ports, and addresses. */
import { isIPv4, isIPv6 } from 'node:net'
import type { EngineClient } from '../engine/client.ts'
import type { GroupRow } from '../engine/messages.ts'
import { ConfigError } from '../errors.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import type { GroupEntry, GroupFlush, MulticastGroups } from './api.ts'
import { checkVlan } from './policy.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'
import { carries } from './vlans.ts'

const VID_BITS = 12
const VID_MASK = 0xfff
const IPV6_DOMAIN: number = 1 << 24

type RunChange = <T>(action: (undo: Undo) => Promise<T>) => Promise<T>

export class Groups implements MulticastGroups {
  readonly #ports: PortTable
  readonly #engine: EngineClient
  readonly #change: RunChange

  /** `change` runs something as a change of the switch. */
  constructor(ports: PortTable, engine: EngineClient, change: RunChange) {
    this.#ports = ports
    this.#engine = engine
    this.#change = change
  }

  list(): Promise<GroupEntry[]> {
    return collect(this.pages())
  }

  async *pages(): AsyncGenerator<readonly GroupEntry[]> {
    for await (const rows of this.#engine.groupTable()) {
      const ports = new Map(this.#ports.all.map(({ index, options }) => [index, options]))
      yield rows.flatMap((row) => groupEntries(row, ports))
    }
  }

  flush({ port, vlan }: GroupFlush = {}): Promise<void> {
    return this.#change(async () => {
      checkVlan(vlan)
      const index = port === undefined ? -1 : this.#ports.entry(port).index
      await this.#engine.request({ op: 'flush-groups', port: index, vlan: vlan ?? -1 })
    })
  }
}

/** All entries of all pages. */
export async function collect<T>(pages: AsyncIterable<readonly T[]>): Promise<T[]> {
  const entries: T[] = []
  for await (const page of pages) for (const entry of page) entries.push(entry)
  return entries
}

type Party = SwitchingOptions & { readonly id: string }

/** What a row means when the switch has ports with these options, by number. */
export function groupEntries(row: GroupRow, ports: ReadonlyMap<number, Party>): GroupEntry[] {
  const [domain, word0, word1, word2, word3, index, leftDs, , ...querier] = row
  const party = ports.get(index)
  if (party === undefined) return []
  const vlan = domain & VID_MASK
  const innerVlan = (domain >>> VID_BITS) & VID_MASK
  const family = (domain & IPV6_DOMAIN) === 0 ? 'ipv4' : 'ipv6'
  const text = (words: readonly number[]): string =>
    family === 'ipv4' ? formatIpv4(words[3]) : formatIpv6(words)
  const where = { vlan, ...(innerVlan === 0 ? {} : { innerVlan }), family } as const
  const entry = { ...where, port: party.id, expiresS: Math.ceil(leftDs / 10) }
  if ((word0 | word1 | word2 | word3) !== 0) {
    return [{ ...entry, group: text([word0, word1, word2, word3]) }]
  }
  // Of routers: what options say counts, and is told once, where the querier is.
  const mode = party['multicast-router'] ?? 'auto'
  const said = mode === 'auto' ? {} : { multicastRouter: mode }
  if (querier.length === 0) return mode === 'auto' ? [entry] : []
  const others = [...ports.values()].filter(
    (one) => one !== party && one['multicast-router'] === 'always' && carries(one, vlan),
  )
  return [
    { ...entry, querier: text(querier), ...said },
    ...others.map(({ id }) => ({ ...where, port: id, multicastRouter: 'always' as const })),
  ]
}

/** A group as `groupEntries` writes it. Throws ConfigError. */
export function spellGroup(text: string): string {
  if (isIPv4(text)) return text
  if (!isIPv6(text) || text.includes('%')) {
    throw new ConfigError('BAD_OPTION', `"${text}" is no IP address`)
  }
  return new URL(`http://[${text}]`).hostname.slice(1, -1)
}

const formatIpv4 = (word: number): string =>
  [24, 16, 8, 0].map((bits) => (word >>> bits) & 0xff).join('.')

/** RFC 5952. */
function formatIpv6(words: readonly number[]): string {
  const parts = words.slice(0, 4).flatMap((word) => [(word >>> 16) & 0xffff, word & 0xffff])
  const text = parts.map((part) => part.toString(16)).join(':')
  const zeros = [...`:${text}:`.matchAll(/(?<=:)0:(?:0:)+/g)].map(([run]) => run)
  const [longest = ''] = zeros.toSorted((a, b) => b.length - a.length)
  if (longest === '') return text
  return `:${text}:`.replace(`:${longest}`, '::').replace(/^:(?!:)|(?<!:):$/g, '')
}
