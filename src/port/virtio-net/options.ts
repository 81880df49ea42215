/** Options of an in-process device: what each may be. */
import type { StaticMembers } from '../../schema/value.ts'
import type { CommonOptions, GroOption, PortSchema } from '../port-schema.ts'
import { GRO, ID, MTU } from '../port-schema.ts'

const OPTIONS = {
  driver: {
    kind: 'choice',
    values: ['echo', 'sink', 'generate'],
    absent: "the program's, by the library",
    description:
      'A driver of ours: `echo` sends frames back with their addresses exchanged, `sink` takes them, `generate` sends 60-byte frames as fast as they are taken.',
  },
  queues: { kind: 'integer', range: [1, 16], default: 1, description: 'Queue pairs.' },
} as const

export interface VirtioNetOptions extends CommonOptions, GroOption, StaticMembers<typeof OPTIONS> {
  readonly type: 'virtio-net'
}

export const virtioNetSchema: PortSchema = {
  description: "A device in the daemon's own process, with a driver beside it.",
  options: {
    id: ID,
    ...OPTIONS,
    // VIRTIO 1.3 §5.1.4.1: the device must not modify its mtu.
    mtu: { ...MTU, inPlace: false },
    gro: GRO,
  },
}
