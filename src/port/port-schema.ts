/**
 * What a kind of port takes: its options, each said once. From it come the types of the library, the
 * checks of option strings, control commands and config files, and both references (config/README.md,
 * config/framepump.schema.json). Names are QEMU's (qapi/net.json) where QEMU has them.
 */
import type { OptionRules, StaticMembers } from '../schema/value.ts'
import type { SwitchingOptions } from './switching-options.ts'

export interface PortSchema {
  /** What such a port is, in a sentence. */
  readonly description: string
  /** Those of its own, beside what every port has (switching-options.ts). */
  readonly options: OptionRules
  /** It exists in the library's API only. */
  readonly isApiOnly?: boolean
}

/** Of every kind, `mtu` with its own description where it means more. */
const COMMON = {
  id: {
    kind: 'string',
    format: 'id',
    required: true,
    description: 'Unique name of the port.',
  },
  mtu: {
    kind: 'integer',
    range: [68, 65535],
    unit: 'bytes',
    absent: 'no limit',
    inPlace: true,
    description: 'Largest L3 payload that may leave by this port; longer frames are dropped.',
  },
} as const

const MERGING = {
  gro: {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description:
      'Merge TCP segments that come in by this port towards ports that take TSO. Without effect while its own frames are TSO frames already.',
  },
} as const

/** What all kinds have. */
export interface CommonOptions extends StaticMembers<typeof COMMON>, SwitchingOptions {}
/** What those have whose frames are not a program's or a file's. */
export interface GroOption extends StaticMembers<typeof MERGING> {}

export const ID: OptionRules[string] = COMMON.id
export const MTU: OptionRules[string] = COMMON.mtu
export const GRO: OptionRules[string] = MERGING.gro
