/** Options of a TAP: what each may be, and what one says about another. */
import type { At } from '../../schema/read-option.ts'
import { fail } from '../../schema/read-option.ts'
import type { StaticMembers } from '../../schema/value.ts'
import type { CommonOptions, GroOption, PortSchema } from '../port-schema.ts'
import { GRO, ID, MTU } from '../port-schema.ts'

/** QEMU's NetdevTapOptions, then ours. */
const OPTIONS = {
  ifname: {
    kind: 'string',
    format: 'ifname',
    absent: '`tap%d`',
    description:
      'Name of the interface; it is made when there is none. The kernel puts a number at `%d`.',
  },
  fd: {
    kind: 'string',
    description: 'A descriptor of the TAP: name given with `getfd`, or a number.',
  },
  fds: {
    kind: 'string',
    format: 'descriptors',
    description: 'Several descriptors, one for each queue, at most 1024.',
  },
  helper: {
    kind: 'string',
    description: 'Path of a bridge helper, a program that sends the descriptor.',
  },
  br: {
    kind: 'string',
    absent: '`br0`',
    description: 'Bridge that the helper puts the interface on; only with `helper`.',
  },
  script: {
    kind: 'script',
    absent: 'none',
    description:
      'Program that is run with the interface name when the port opens, for 30 s at most; `no` and empty: none.',
  },
  downscript: {
    kind: 'script',
    absent: 'none',
    inPlace: true,
    description: 'The same when the port closes.',
  },
  sndbuf: {
    kind: 'size',
    range: [0, 9007199254740991],
    unit: 'bytes',
    absent: 'no limit',
    inPlace: true,
    description: 'Of frames that the kernel has not passed on yet; 0: no limit.',
  },
  vnet_hdr: {
    kind: 'boolean',
    absent: 'used when the kernel has it',
    description:
      '`on`: required, `off`: not used. With it checksums and segmentation are left to the other side.',
  },
  vhost: {
    kind: 'boolean',
    default: false,
    description: 'Must be off: vhost-net is not used.',
  },
  vhostfd: { kind: 'string', description: 'Refused, as it needs vhost-net.' },
  vhostfds: { kind: 'string', description: 'Refused, as it needs vhost-net.' },
  vhostforce: { kind: 'boolean', default: false, description: 'Must be off, as `vhost`.' },
  queues: {
    kind: 'integer',
    range: [1, 256],
    default: 1,
    description: 'Queues, between which the kernel divides flows.',
  },
  'poll-us': {
    kind: 'integer',
    range: [0, 0xffff_ffff],
    unit: 'µs',
    description: 'Refused, as it needs vhost-net.',
  },

  persist: {
    kind: 'boolean',
    absent: 'as it is',
    inPlace: true,
    description: '`on`: the device stays when the port closes; `off`: it goes.',
  },
  netns: {
    kind: 'string',
    absent: "the daemon's own",
    description: 'Network namespace to open it in: a name of `ip netns`, a path, or a pid.',
  },
  owner: {
    kind: 'string',
    absent: 'as it is',
    inPlace: true,
    description: 'User who may open the device later: a name or a number.',
  },
  group: {
    kind: 'string',
    absent: 'as it is',
    inPlace: true,
    description: 'Group who may open the device later: a name or a number.',
  },
  up: {
    kind: 'boolean',
    absent: 'as it is',
    inPlace: true,
    description: 'Set the interface administratively up or down.',
  },
} as const

export interface TapOptions extends CommonOptions, GroOption, StaticMembers<typeof OPTIONS> {
  readonly type: 'tap'
}

export const tapSchema: PortSchema = {
  description: 'A TAP device of the kernel.',
  options: {
    id: ID,
    ...OPTIONS,
    mtu: {
      ...MTU,
      description:
        'Largest L3 payload that may leave by this port, set on the interface as well; longer frames are dropped.',
    },
    gro: GRO,
  },
}

/** QEMU's conflict rules in QEMU's order, with its texts. */
export function checkTap(options: TapOptions, at: At): void {
  const has = (...keys: (keyof TapOptions)[]): boolean =>
    keys.some((key) => options[key] !== undefined)
  if (options.vhost === false && has('vhostfd', 'vhostfds')) {
    fail(at('vhost'), 'vhostfd(s)= is not valid without vhost')
  }
  if (has('fd')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'fds', 'vhostfds')) {
      fail(
        at('fd'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=',
      )
    }
  } else if (has('fds')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'vhostfd')) {
      fail(
        at('fds'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=',
      )
    }
    checkFds(options, at)
  } else if (has('helper')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'queues', 'vhostfds')) {
      fail(
        at('helper'),
        'ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=',
      )
    }
  } else if (has('vhostfds')) {
    fail(at('vhostfds'), `vhostfds= is invalid if fds= wasn't specified`)
  }
  if (options.vhost === true || options.vhostforce === true) {
    fail(at('vhost'), 'vhost-net requested but could not be initialized', 'use vhost=off')
  }
  if (has('vhostfd', 'vhostfds', 'poll-us')) {
    fail(at('vhostfd'), 'vhostfd=, vhostfds= and poll-us= need vhost-net, which framepump has not')
  }
  if (has('br') && !has('helper')) fail(at('br'), 'br= is only valid with helper=')
  if (has('netns') && has('fd', 'fds', 'helper')) {
    fail(at('netns'), 'netns= is invalid with fd=, fds= and helper=')
  }
}

function checkFds(options: TapOptions, at: At): void {
  const count = options.fds!.split(':').length
  if (options.vhostfds !== undefined && options.vhostfds.split(':').length !== count) {
    fail(at('fds'), 'The number of fds passed does not match the number of vhostfds passed')
  }
}
