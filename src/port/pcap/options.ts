/** Options of a pcap port: what each may be, and what one says about another. */
import type { PcapOptions } from '../options.ts'
import { fail, ID, MTU } from '../option-rules.ts'
import type { At, OptionRules } from '../option-rules.ts'

export const pcapRules: OptionRules = {
  id: ID,
  replay: { kind: 'string' },
  record: { kind: 'string' },
  pace: { kind: 'choice', values: ['recorded', 'full'] },
  loop: { kind: 'integer', range: [0, 0x7fff_ffff] },
  mtu: MTU,
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
