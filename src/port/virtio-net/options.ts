/** Options of an in-process device: what each may be, and what one says about another. */
import { GRO, ID, MTU } from '../option-rules.ts'
import type { OptionRules } from '../option-rules.ts'

export const virtioNetRules: OptionRules = {
  id: ID,
  driver: { kind: 'choice', values: ['echo', 'sink', 'generate'] },
  queues: { kind: 'integer', range: [1, 16] },
  mtu: MTU,
  gro: GRO,
}
