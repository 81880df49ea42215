/** From what runs to what is wanted: a list of actions, as data. */
import { isDeepStrictEqual } from 'node:util'
import { changedInPlace } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import type { FdbEntry, MirrorOptions } from '../switch/api.ts'
import { addressKey, addressOwners, withoutLost } from './static-addresses.ts'

export interface Topology {
  readonly ports: readonly PortOptions[]
  readonly links: readonly (readonly [string, string])[]
  readonly mirrors?: readonly MirrorOptions[]
  readonly fdb?: readonly FdbEntry[]
}

export type Action =
  | { readonly action: 'fdb-del'; readonly entry: FdbEntry }
  | { readonly action: 'fdb-add'; readonly entry: FdbEntry }
  | { readonly action: 'unmirror'; readonly mirror: MirrorOptions }
  | { readonly action: 'unlink'; readonly a: string; readonly b: string }
  | { readonly action: 'remove'; readonly id: string }
  /** `keys`: what is different. */
  | {
      readonly action: 'change'
      readonly options: PortOptions
      readonly keys: readonly string[]
    }
  | { readonly action: 'add'; readonly options: PortOptions }
  | { readonly action: 'link'; readonly a: string; readonly b: string }
  | { readonly action: 'mirror'; readonly mirror: MirrorOptions }

/**
 * The actions, in their order, that lead from `running` to `desired`. A port whose options differ is
 * changed in place where that can be, else removed and added anew; one that is the same is not touched.
 * `isBroken`: the port has failed, and can only be made anew.
 */
export function planChanges(
  running: Topology,
  desired: Topology,
  isBroken: (id: string) => boolean = () => false,
): Action[] {
  const before = new Map(running.ports.map((port) => [port.id, port]))
  const after = new Map(desired.ports.map((port) => [port.id, port]))
  /** What differs of a port that stays; null: it does not. */
  const differing = (id: string): readonly string[] | null => {
    const [old, wanted] = [before.get(id), after.get(id)]
    if (old === undefined || wanted === undefined) return null
    if (isDeepStrictEqual(old, wanted)) return []
    return isBroken(id) ? null : changedInPlace(old, wanted)
  }
  const isKept = (id: string): boolean => differing(id) !== null
  const same = (link: readonly [string, string], others: Topology['links']): boolean =>
    others.some(([a, b]) => (a === link[0] && b === link[1]) || (a === link[1] && b === link[0]))
  const survives = (link: readonly [string, string]): boolean =>
    link.every(isKept) && same(link, running.links) && same(link, desired.links)

  const [mirrorsBefore, mirrorsAfter] = [running.mirrors ?? [], desired.mirrors ?? []]
  const isIn = (mirror: MirrorOptions, others: readonly MirrorOptions[]): boolean =>
    others.some((other) => isDeepStrictEqual(mirror, other))

  // Entries of a port go with it, and a new port passes nothing before the end.
  const entries = (running.fdb ?? []).filter(({ port }) => isKept(port))
  const entriesAfter = desired.fdb ?? []
  const owners = addressOwners(desired.ports)
  const keys = [entries, entriesAfter].map((all) => new Set(all.map(entryKey)))

  return [
    ...entries
      .filter((entry) => !keys[1].has(entryKey(entry)))
      .map((entry): Action => ({ action: 'fdb-del', entry })),
    // Its output may get a link, and the end of a link may become an output.
    ...mirrorsBefore
      .filter((mirror) => !isIn(mirror, mirrorsAfter))
      .map((mirror): Action => ({ action: 'unmirror', mirror })),
    ...running.links
      .filter((link) => !survives(link))
      .map(([a, b]): Action => ({ action: 'unlink', a, b })),
    ...running.ports
      .filter(({ id }) => !isKept(id))
      .map(({ id }): Action => ({ action: 'remove', id })),
    // An address of one port may go to another: it has it no more before.
    ...desired.ports.flatMap(({ id }, at): Action[] => {
      const old = before.get(id)
      const options = isKept(id) && old !== undefined ? withoutLost(old, at, owners) : undefined
      return options === undefined ? [] : [{ action: 'change', options, keys: ['macs'] }]
    }),
    ...desired.ports.flatMap((options): Action[] => {
      const keys = differing(options.id) ?? []
      return keys.length === 0 ? [] : [{ action: 'change', options, keys }]
    }),
    ...desired.ports
      .filter(({ id }) => !isKept(id))
      .map((options): Action => ({ action: 'add', options })),
    ...entriesAfter
      .filter((entry) => !keys[0].has(entryKey(entry)))
      .map((entry): Action => ({ action: 'fdb-add', entry })),
    ...desired.links
      .filter((link) => !survives(link))
      .map(([a, b]): Action => ({ action: 'link', a, b })),
    ...mirrorsAfter
      .filter((mirror) => !isIn(mirror, mirrorsBefore))
      .map((mirror): Action => ({ action: 'mirror', mirror })),
  ]
}

export function entryKey({ mac, vlan = 0, port }: FdbEntry): string {
  return `${addressKey(mac, vlan)} ${port}`
}
