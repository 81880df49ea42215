/**
 * What a switch makes use of, by names, so that a release that does not know one of them says so, instead of
 * going on without it: the kinds of ports, their options, and what else a switch has.
 */
import { OPTION_TABLE } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'

/** Besides ports. */
export type SwitchFeature = 'link' | 'mirror' | 'mirror.filter' | 'capture' | 'capture.ring'

const SWITCH_FEATURES: readonly SwitchFeature[] = [
  'link',
  'mirror',
  'mirror.filter',
  'capture',
  'capture.ring',
]

/** All that this release can go on with: `mirror`, `tap`, `tap.queues`. */
export function knownFeatures(): string[] {
  const kinds = Object.entries(OPTION_TABLE).flatMap(([type, options]) => [
    type,
    ...Object.keys(options).map((option) => `${type}.${option}`),
  ])
  return [...SWITCH_FEATURES, ...kinds]
}

/** Those that these ports use, and `more`. */
export function usedFeatures(
  ports: readonly PortOptions[],
  more: readonly SwitchFeature[],
): string[] {
  const used = new Set<string>(more)
  for (const { type, id: _, ...options } of ports) {
    used.add(type)
    for (const option of Object.keys(options)) used.add(`${type}.${option}`)
  }
  return [...used].toSorted()
}
