/** What ports are allowed, as `framepump show policy` has it: their options of VLANs and policy, as in option strings. */
import { formatField } from '../config/netdev.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import { onlySwitching } from '../port/switching-options.ts'

/** `tag=10 isolated=on`; empty: none is given. */
export function shownPolicy(options: SwitchingOptions): string {
  return Object.entries(onlySwitching(options))
    .flatMap(([key, value]) => formatField(key, value))
    .join(' ')
}
