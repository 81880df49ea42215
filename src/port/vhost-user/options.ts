/** Options of a vhost-user port: what each may be. */
import type { StaticMembers } from '../../schema/value.ts'
import type { CommonOptions, GroOption, PortSchema } from '../port-schema.ts'
import { GRO, ID, MTU } from '../port-schema.ts'

const OPTIONS = {
  path: {
    kind: 'string',
    format: 'socket-path',
    required: true,
    description:
      'Unix socket between the front-end and us. Ours has mode 0600; its directory is made if it is missing, and goes with it.',
  },
  server: {
    kind: 'boolean',
    default: true,
    description: '`on`: we listen on the path; `off`: the front-end does, and is tried for ever.',
  },
  queues: {
    kind: 'integer',
    range: [1, 128],
    default: 1,
    description: "Queue pairs at most: as many as the guest's `queues=`.",
  },
} as const

export interface VhostUserOptions extends CommonOptions, GroOption, StaticMembers<typeof OPTIONS> {
  readonly type: 'vhost-user'
}

export const vhostUserSchema: PortSchema = {
  description: 'A guest of another process (QEMU, DPDK), which shares its memory with us.',
  options: {
    id: ID,
    ...OPTIONS,
    mtu: {
      ...MTU,
      description:
        'Largest L3 payload that may leave by this port, and MTU that a guest may ask for; longer frames are dropped.',
    },
    gro: GRO,
  },
}
