/** Multicast groups as users see them: names of ports, and addresses. */
import type { EngineClient } from '../engine/client.ts'
import type { GroupRow } from '../engine/messages.ts'
import type { GroupEntry, GroupFlush, MulticastGroups } from './api.ts'
import type { PortTable } from './port-table.ts'
import type { Undo } from './undo.ts'

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
    const nameOf = (index: number): string | undefined => this.#ports.at(index)?.options.id
    for await (const rows of this.#engine.groupTable()) {
      yield rows.flatMap((row) => groupEntry(row, nameOf))
    }
  }

  flush({ port, vlan = -1 }: GroupFlush = {}): Promise<void> {
    return this.#change(async () => {
      const index = port === undefined ? -1 : this.#ports.entry(port).index
      await this.#engine.request({ op: 'flush-groups', port: index, vlan })
    })
  }
}

/** All entries of all pages. */
export async function collect<T>(pages: AsyncIterable<readonly T[]>): Promise<T[]> {
  const entries: T[] = []
  for await (const page of pages) for (const entry of page) entries.push(entry)
  return entries
}

/** `nameOf`: the port with that number, undefined when it is gone. */
export function groupEntry(
  row: GroupRow,
  nameOf: (port: number) => string | undefined,
): GroupEntry[] {
  const [domain, word0, word1, word2, word3, index, leftDs, , ...querier] = row
  const port = nameOf(index)
  if (port === undefined) return []
  const innerVlan = (domain >>> VID_BITS) & VID_MASK
  const family = (domain & IPV6_DOMAIN) === 0 ? 'ipv4' : 'ipv6'
  const isRouter = (word0 | word1 | word2 | word3) === 0
  const text = (words: readonly number[]): string =>
    family === 'ipv4' ? formatIpv4(words[3]) : formatIpv6(words)
  return [
    {
      vlan: domain & VID_MASK,
      ...(innerVlan === 0 ? {} : { innerVlan }),
      family,
      ...(isRouter ? {} : { group: text([word0, word1, word2, word3]) }),
      port,
      expiresS: Math.ceil(leftDs / 10),
      ...(querier.length === 0 ? {} : { querier: text(querier) }),
    },
  ]
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
