/** Options of a pcap port: what each may be, and what one says about another. */
import type { At } from '../../schema/read-option.ts'
import { fail } from '../../schema/read-option.ts'
import type { StaticMembers } from '../../schema/value.ts'
import type { CommonOptions, PortSchema } from '../port-schema.ts'
import { ID, MTU } from '../port-schema.ts'

const OPTIONS = {
  replay: {
    kind: 'string',
    description: 'A pcap or pcapng file, gzipped or not, whose frames enter the switch.',
  },
  record: {
    kind: 'string',
    description:
      'In place of `replay`, a file that records what the switch gives to this port: pcapng, or pcap when its name ends in `.pcap`.',
  },
  pace: {
    kind: 'choice',
    values: ['recorded', 'full'],
    default: 'recorded',
    inPlace: true,
    description:
      "Of a replay, `recorded`: the file's own; `full`: as fast as the switch takes them.",
  },
  loop: {
    kind: 'integer',
    range: [0, 0x7fff_ffff],
    default: 1,
    inPlace: true,
    description: 'Times the file is replayed; 0: for ever.',
  },
} as const

export interface PcapOptions extends CommonOptions, StaticMembers<typeof OPTIONS> {
  readonly type: 'pcap'
}

export const pcapSchema: PortSchema = {
  description: 'A capture file: one that is replayed into the switch, or one that records.',
  options: { id: ID, ...OPTIONS, mtu: MTU },
}

export function checkPcap(options: PcapOptions, at: At): void {
  const { replay, record } = options
  if ((replay === undefined) === (record === undefined)) {
    fail(at('replay'), 'a pcap port needs either replay=FILE or record=FILE')
  }
  if (record !== undefined && (options.pace !== undefined || options.loop !== undefined)) {
    fail(at('record'), 'pace= and loop= are only valid with replay=')
  }
}
