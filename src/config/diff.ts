/** From what runs to what is wanted: a list of actions, as data. */
import { isDeepStrictEqual } from 'node:util'
import type { PortOptions } from '../port/options.ts'

export interface Topology {
  readonly ports: readonly PortOptions[]
  readonly links: readonly (readonly [string, string])[]
}

export type Action =
  | { readonly action: 'unlink'; readonly a: string; readonly b: string }
  | { readonly action: 'remove'; readonly id: string }
  | { readonly action: 'add'; readonly options: PortOptions }
  | { readonly action: 'link'; readonly a: string; readonly b: string }

/**
 * The actions, in their order, that lead from `running` to `desired`. A port whose options differ
 * is removed and added anew; one that is the same is not touched.
 */
export function planChanges(running: Topology, desired: Topology): Action[] {
  const before = new Map(running.ports.map((port) => [port.id, port]))
  const after = new Map(desired.ports.map((port) => [port.id, port]))
  const isKept = (id: string): boolean => {
    const wanted = after.get(id)
    return wanted !== undefined && isDeepStrictEqual(before.get(id), wanted)
  }
  const same = (link: readonly [string, string], others: Topology['links']): boolean =>
    others.some(([a, b]) => (a === link[0] && b === link[1]) || (a === link[1] && b === link[0]))
  const survives = (link: readonly [string, string]): boolean =>
    link.every(isKept) && same(link, running.links) && same(link, desired.links)

  return [
    ...running.links
      .filter((link) => !survives(link))
      .map(([a, b]): Action => ({ action: 'unlink', a, b })),
    ...running.ports
      .filter(({ id }) => !isKept(id))
      .map(({ id }): Action => ({ action: 'remove', id })),
    ...desired.ports
      .filter(({ id }) => !isKept(id))
      .map((options): Action => ({ action: 'add', options })),
    ...desired.links
      .filter((link) => !survives(link))
      .map(([a, b]): Action => ({ action: 'link', a, b })),
  ]
}
