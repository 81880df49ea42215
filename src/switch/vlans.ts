/** Which ports carry which VLANs, from their options. */
import type { SwitchingOptions } from '../port/switching-options.ts'
import { vlanModeOf, vlanRanges } from '../port/switching-options.ts'
import type { VlanInfo } from './api.ts'

interface Party {
  readonly options: SwitchingOptions & { readonly id: string }
}

type Ranges = readonly (readonly [number, number])[] | null

/** Those that an option names, and 0, in their order. */
export function listVlans(ports: readonly Party[]): VlanInfo[] {
  const named = new Set<number>([0])
  for (const { options } of ports) {
    if (options.tag !== undefined) named.add(options.tag)
    for (const [first, last] of vlanRanges(options.trunks, 'trunks') ?? []) {
      for (let vlan = first; vlan <= last; vlan++) named.add(vlan)
    }
  }
  const lists = ports.map(({ options }) => ({
    options,
    trunks: vlanRanges(options.trunks, 'trunks'),
  }))
  return [...named]
    .toSorted((one, other) => one - other)
    .map((vlan) => {
      const by = (how: 'tagged' | 'untagged'): string[] =>
        lists.flatMap(({ options, trunks }) =>
          leaves(options, trunks, vlan) === how ? [options.id] : [],
        )
      return { vlan, tagged: by('tagged'), untagged: by('untagged') }
    })
}

/** Frames of the VLAN leave by the port. */
export function carries(options: SwitchingOptions, vlan: number): boolean {
  return leaves(options, vlanRanges(options.trunks, 'trunks'), vlan) !== undefined
}

function leaves(
  options: SwitchingOptions,
  trunks: Ranges,
  vlan: number,
): 'tagged' | 'untagged' | undefined {
  const mode = vlanModeOf(options) ?? 'trunk'
  const isNative = vlan === options.tag
  if (mode === 'access' || mode === 'dot1q-tunnel') return isNative ? 'untagged' : undefined
  const isListed = trunks === null || trunks.some(([from, to]) => vlan >= from && vlan <= to)
  if (!isListed && !isNative) return undefined
  if (isNative) return mode === 'native-tagged' ? 'tagged' : 'untagged'
  return vlan === 0 && mode === 'trunk' ? 'untagged' : vlan === 0 ? undefined : 'tagged'
}
