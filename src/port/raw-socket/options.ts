/** Options of a raw socket: what each may be, and what one says about another. */
import { missing } from '../../schema/formats.ts'
import type { At } from '../../schema/read-option.ts'
import { fail } from '../../schema/read-option.ts'
import type { StaticMembers } from '../../schema/value.ts'
import type { CommonOptions, GroOption, PortSchema } from '../port-schema.ts'
import { GRO, ID, MTU } from '../port-schema.ts'
import { RING_KB_DEFAULT, RING_KB_MAX, RING_KB_MIN, RINGS_KB_MAX } from './geometry.ts'

const OPTIONS = {
  ifname: {
    kind: 'string',
    format: 'ifname-of-one',
    description:
      'The interface: a network card, a veth, a macvlan, a bridge. It must be there, and stays as it is: bring it up yourself.',
  },
  netns: {
    kind: 'string',
    absent: "the daemon's own",
    description: 'Network namespace of the interface: a name of `ip netns`, a path, or a pid.',
  },
  fd: {
    kind: 'string',
    description:
      'In place of `ifname`, a packet socket: name given with `getfd`, or a number. SOCK_RAW, bound to an interface and ETH_P_ALL, without a ring.',
  },
  queues: {
    kind: 'integer',
    range: [1, 64],
    default: 1,
    description: 'Queues, between which the kernel divides flows (PACKET_FANOUT_HASH).',
  },
  promisc: {
    kind: 'boolean',
    default: true,
    inPlace: true,
    description:
      "Also frames for other stations than the interface (PACKET_MR_PROMISC); the interface's own flag is left alone.",
  },
  vnet_hdr: {
    kind: 'boolean',
    default: true,
    description:
      'Checksums and segmentation are left to the other side (PACKET_VNET_HDR); `off`: they are done here.',
  },
  bypass: {
    kind: 'boolean',
    default: false,
    inPlace: true,
    description: 'Frames leave past the queueing discipline (PACKET_QDISC_BYPASS).',
  },
  'ring-kb': {
    kind: 'integer',
    range: [RING_KB_MIN as typeof RING_KB_MIN, RING_KB_MAX as typeof RING_KB_MAX],
    default: RING_KB_DEFAULT as typeof RING_KB_DEFAULT,
    unit: 'KiB',
    description:
      'Kernel memory for frames that wait, for each queue (16384: 255 frames); all queues of a port together have at most 1048576.',
  },
} as const

export interface RawSocketOptions extends CommonOptions, GroOption, StaticMembers<typeof OPTIONS> {
  readonly type: 'raw-socket'
}

export const rawSocketSchema: PortSchema = {
  description: 'An interface of the host, as an uplink, by a packet socket.',
  options: { id: ID, ...OPTIONS, mtu: MTU, gro: GRO },
}

export function checkRawSocket(options: RawSocketOptions, at: At): void {
  const { ifname, fd, queues = 1, 'ring-kb': ringKb = RING_KB_DEFAULT } = options
  if (queues * ringKb > RINGS_KB_MAX) {
    fail(
      at('ring-kb'),
      `${queues} rings of ${ringKb} KiB are more than the ${RINGS_KB_MAX} KiB that a port may have`,
      'give a smaller ring-kb=, or fewer queues',
    )
  }
  if (fd !== undefined) {
    const others = (['ifname', 'netns', 'queues'] as const).filter(
      (key) => options[key] !== undefined,
    )
    if (others.length > 0) {
      fail(at('fd'), `${others.join('=, ')}= cannot be given with fd=, which says all of it`)
    }
  } else if (ifname === undefined) {
    const { message, hint } = missing('ifname', 'the interface, as ifname=eth1')
    fail(at('ifname'), message, hint)
  }
}
