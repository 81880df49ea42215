/**
 * The keys of the config file, each said once. Its ports' options are their kinds'. From it come the checks
 * of a file, and both references (config/README.md, config/framepump.schema.json).
 */
import type { MapValue, StaticMembers } from '../schema/value.ts'
import { MIRRORS } from './mirrors.ts'

const KEYS = {
  control: {
    kind: 'string',
    absent:
      "`/run/framepump/control.sock`, of an ordinary user's daemon `$XDG_RUNTIME_DIR/framepump/control.sock`",
    description: 'Path of the control socket.',
  },
  'state-dir': {
    kind: 'string',
    absent: 'nothing is kept',
    description:
      "Directory for what must survive a restart: what vhost-user guests negotiated. It is made if it is missing, and must be nobody else's.",
  },
  engines: {
    kind: 'integer',
    range: [1, 1],
    default: 1,
    description: 'Engine threads; only 1 for now.',
  },
  pace: {
    kind: 'choice',
    values: ['adaptive', 'busy', 'interrupt', 'warm'],
    default: 'adaptive',
    inPlace: true,
    description:
      'How the engine waits for frames: `busy` never sleeps, `interrupt` never spins, `adaptive` does both, `warm` dozes for 0.1 s before it sleeps.',
  },
  io: {
    kind: 'choice',
    values: ['auto', 'io_uring-multishot', 'read-write'],
    default: 'auto',
    description: 'Tier of TAP input and output; `auto`: the one that is faster here.',
  },
  'log-level': {
    kind: 'choice',
    values: ['debug', 'info', 'warning', 'error'],
    default: 'info',
    description: 'What the log has: lines of this level and of those behind it.',
  },
  'log-format': {
    kind: 'choice',
    values: ['text', 'json', 'journald'],
    absent: '`journald` when standard error is the journal, else `text`',
    description:
      'How a line of the log is written: `json` an object, `journald` with its priority (`<6>`) and without a time.',
  },
  switch: {
    kind: 'map',
    isNullable: true,
    description: 'The learning switch.',
    members: {
      'mac-aging-s': {
        kind: 'integer',
        range: [1, 1_000_000],
        unit: 's',
        default: 300,
        inPlace: true,
        description: 'Time after which an address is forgotten.',
      },
      'mac-table-size': {
        kind: 'integer',
        range: [16, 1_048_576],
        default: 8192,
        description: 'Addresses that are remembered.',
      },
      'group-addresses': {
        kind: 'list',
        words: ['transparent', '802.1D'],
        of: { kind: 'string', format: 'octet' },
        count: [1, 16],
        default: 'transparent',
        inPlace: true,
        description:
          '01-80-C2-00-00-00..0F (LLDP, LACP, STP): `transparent` forwards them, as labs want it, `802.1D` drops them, a list forwards those with these last octets (`[02, 0e]`). A port may say otherwise.',
      },
      snooping: {
        kind: 'map',
        inPlace: true,
        absent: 'multicast is flooded',
        description:
          'Multicast goes to those ports only whose hosts want it, and to routers. Until a querier was heard in a VLAN, it is flooded there.',
        members: {
          igmp: {
            kind: 'boolean',
            default: false,
            description: 'IGMP, versions 1 to 3: of IPv4 groups.',
          },
          mld: {
            kind: 'boolean',
            default: false,
            description: 'MLD, versions 1 and 2: of IPv6 groups.',
          },
          'max-groups': {
            kind: 'integer',
            range: [16, 65_536],
            default: 2048,
            description: 'Groups that are known.',
          },
          'max-groups-per-port': {
            kind: 'integer',
            range: [1, 65_536],
            default: 256,
            description:
              'Of them those of one port; if its hosts want more it is given all multicast.',
          },
        },
      },
    },
  },
  privileges: {
    kind: 'map',
    isNullable: true,
    description: 'What the daemon may do after its start.',
    members: {
      user: {
        kind: 'name',
        absent: 'who started it',
        description: 'User to run as, a name or a number.',
      },
      group: {
        kind: 'name',
        absent: "the user's own",
        description: 'Its group, a name or a number; only with `user`.',
      },
      keep: {
        kind: 'list',
        isUnique: true,
        of: {
          kind: 'choice',
          values: ['net-admin', 'net-raw', 'sys-admin', 'sys-ptrace', 'dac-override'],
        },
        absent: "what the config's ports need",
        description: 'Capabilities that are kept for ports to come.',
      },
      mode: {
        kind: 'choice',
        values: ['on', 'locked', 'off'],
        default: 'on',
        description: '`locked`: nothing is kept; `off`: nothing is given up.',
      },
      scripts: {
        kind: 'boolean',
        default: false,
        description:
          "Ports that are added later may run scripts and helpers, though none of the config's does.",
      },
    },
  },
  ports: {
    kind: 'list',
    isNullable: true,
    count: [0, 1024],
    inPlace: true,
    // Their options are read with their kinds' rules, in words of their own.
    of: { kind: 'map', members: {}, isOpen: true },
    description: 'Ports: `id`, `type` and the options of that type.',
  },
  fdb: {
    kind: 'list',
    isNullable: true,
    inPlace: true,
    of: {
      kind: 'map',
      members: {
        mac: { kind: 'string', format: 'mac', required: true, description: 'The address.' },
        vlan: {
          kind: 'integer',
          range: [0, 4095],
          default: 0,
          description: 'VID; 0: of frames without one.',
        },
        port: { kind: 'string', required: true, description: 'The port that it is behind.' },
      },
    },
    description: 'Static entries of the forwarding database: they neither age nor move.',
  },
  links: {
    kind: 'list',
    isNullable: true,
    inPlace: true,
    of: { kind: 'list', count: [2, 2], isUnique: true, of: { kind: 'string' } },
    description: 'Pairs of ports that are wired to each other and leave the switch.',
  },
} as const

/** As it stands in the file. */
export type RawConfig = StaticMembers<typeof KEYS>
export type RawPrivileges = NonNullable<RawConfig['privileges']>

export const CONFIG_SCHEMA: MapValue = {
  kind: 'map',
  members: { ...KEYS, mirrors: MIRRORS },
}
