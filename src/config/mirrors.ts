/** Mirrors as config files and `mirror-add` have them: each option said once, and what one says about another. */
import { ConfigError } from '../errors.ts'
import { parseProgram } from '../filter/program.ts'
import { FORMATS } from '../schema/formats.ts'
import { vlanRanges } from '../port/switching-options.ts'
import { BOOLEANS } from '../schema/read-option.ts'
import type { ListValue, Members, StaticMembers } from '../schema/value.ts'
import type { ErspanOptions } from '../port/erspan-options.ts'
import type { MirrorInfo, MirrorOptions } from '../switch/api.ts'
import { mirrorFault, withProgram } from '../switch/mirror-set.ts'

const OPTIONS = {
  name: { kind: 'string', required: true, description: 'Unique name of the mirror.' },
  'select-all': {
    kind: 'boolean',
    default: false,
    description: 'Copy what enters and what leaves by any port, those to come included.',
  },
  'select-src-port': {
    kind: 'list',
    isUnique: true,
    of: { kind: 'string' },
    description: 'Ports of which the frames are copied that enter the switch by them.',
  },
  'select-dst-port': {
    kind: 'list',
    isUnique: true,
    of: { kind: 'string' },
    description: 'Ports of which the frames are copied that leave the switch by them.',
  },
  'select-vlan': {
    kind: 'list',
    of: { kind: 'string', format: 'vlans' },
    count: [1, 4096],
    absent: 'all',
    description: 'VLANs of which frames are copied; 0 is what belongs to none.',
  },
  'output-port': {
    kind: 'string',
    absent: '`output-vlan` or `erspan`',
    description:
      'The port that is given the copies, and nothing else; what comes in by it is dropped.',
  },
  'output-vlan': {
    kind: 'integer',
    range: [1, 4094],
    absent: '`output-port`',
    description:
      'The VLAN into which copies go, by all ports that carry it (RSPAN); no address is learnt in it. What is in it already is not copied.',
  },
  erspan: {
    kind: 'map',
    absent: '`output-port`',
    members: {
      'remote-ip': { kind: 'string', required: true, description: 'The host: IPv4 or IPv6.' },
      version: {
        kind: 'integer',
        range: [1, 2],
        default: 1,
        description: '1: type II; 2: type III, which has timestamps.',
      },
      'session-id': {
        kind: 'integer',
        range: [0, 1023],
        required: true,
        description: 'Tells sessions to one host apart.',
      },
      index: {
        kind: 'integer',
        range: [0, 1_048_575],
        default: 0,
        description: 'Type II: a number for where the copies come from.',
      },
      direction: {
        kind: 'choice',
        values: ['ingress', 'egress'],
        default: 'ingress',
        description: 'Type III: what the headers say of all copies.',
      },
      hwid: {
        kind: 'integer',
        range: [0, 63],
        default: 0,
        description: 'Type III: a number for this switch.',
      },
      key: {
        kind: 'integer',
        range: [0, 4_294_967_295],
        absent: 'none',
        description: 'Key of GRE.',
      },
    },
    description:
      'Copies go to another host by IP (ERSPAN): behind GRE, by the routes of this host. It needs CAP_NET_RAW.',
  },
  filter: {
    kind: 'string',
    absent: 'everything',
    description:
      'Only what passes is copied: an expression of pcap-filter(7), as `tcp port 80`. libpcap compiles it.',
  },
  'filter-program': {
    kind: 'string',
    absent: 'made of `filter`',
    description:
      "The same as a program, as `tcpdump -y EN10MB -ddd 'EXPRESSION'` prints it; without libpcap. `filter` only shows then what it is.",
  },
  snaplen: {
    kind: 'integer',
    range: [14, 65535],
    unit: 'bytes',
    absent: 'all',
    description:
      'Kept of each copy. What is cut has no offloads any more: its checksum may be wrong.',
  },
} as const

export const MIRROR: Members = OPTIONS
export const MIRRORS: ListValue & { readonly description: string } = {
  kind: 'list',
  isNullable: true,
  count: [0, 31],
  inPlace: true,
  of: { kind: 'map', members: MIRROR },
  description:
    'Copies of what enters or leaves by some ports, for another port, a VLAN or another host.',
}
/** As it stands in a file or a command. */
export type RawMirror = StaticMembers<typeof OPTIONS>

/** Throws ConfigError, with the key. */
export function toMirror(raw: RawMirror): MirrorOptions {
  const refusal = FORMATS.id.refuse(raw.name, 'name')
  if (refusal !== undefined) {
    throw new ConfigError('BAD_MIRROR', refusal.message, { path: 'name', hint: refusal.hint })
  }
  const { 'select-src-port': sources, 'select-dst-port': destinations, snaplen } = raw
  const vlans = raw['select-vlan']
  const outputPort = raw['output-port']
  const outputVlan = raw['output-vlan']
  const { erspan, filter } = raw
  const filterProgram = raw['filter-program']
  vlanRanges(vlans, 'select-vlan')
  if (filterProgram !== undefined) parseProgram(filterProgram, 'filter-program')
  const isAll = BOOLEANS[String(raw['select-all'] ?? false)]
  const options = {
    name: raw.name,
    ...(isAll ? { selectAll: true } : {}),
    ...(sources === undefined ? {} : { selectSrcPort: sources }),
    ...(destinations === undefined ? {} : { selectDstPort: destinations }),
    ...(vlans === undefined ? {} : { selectVlan: vlans }),
    ...(outputPort === undefined ? {} : { outputPort }),
    ...(outputVlan === undefined ? {} : { outputVlan }),
    ...(erspan === undefined ? {} : { erspan: toErspan(erspan) }),
    ...(filter === undefined ? {} : { filter }),
    ...(filterProgram === undefined ? {} : { filterProgram }),
    ...(snaplen === undefined ? {} : { snapLength: snaplen }),
  }
  const wrong = mirrorFault(options)
  if (wrong !== undefined) throw new ConfigError('BAD_MIRROR', `mirror "${raw.name}": ${wrong}`)
  return options
}

/**
 * The config with the programs of its filters, which others need not wait for nor fail by later on. Throws what
 * `compileFilter` throws.
 */
export async function withPrograms<T extends { readonly mirrors?: readonly MirrorOptions[] }>(
  config: T,
): Promise<T> {
  const { mirrors } = config
  if (mirrors === undefined) return config
  const compiled: MirrorOptions[] = []
  for (const mirror of mirrors) compiled.push(await withProgram(mirror))
  return { ...config, mirrors: compiled }
}

function toErspan(raw: NonNullable<RawMirror['erspan']>): ErspanOptions {
  const { 'remote-ip': remoteIp, 'session-id': sessionId, version, ...more } = raw
  return {
    remoteIp,
    sessionId,
    ...(version === undefined ? {} : { version: version as 1 | 2 }),
    ...more,
  }
}

function fromErspan({ remoteIp, sessionId, ...more }: ErspanOptions): Record<string, unknown> {
  return { 'remote-ip': remoteIp, 'session-id': sessionId, ...more }
}

/** In the spelling of files and commands. */
export function fromMirror({ options, ...facts }: MirrorInfo): Record<string, unknown> {
  const { name, selectAll, selectSrcPort, selectDstPort, selectVlan } = options
  const { outputPort, outputVlan, erspan, filter, filterProgram, snapLength } = options
  return {
    name,
    ...(selectAll === undefined ? {} : { 'select-all': selectAll }),
    ...(selectSrcPort === undefined ? {} : { 'select-src-port': selectSrcPort }),
    ...(selectDstPort === undefined ? {} : { 'select-dst-port': selectDstPort }),
    ...(selectVlan === undefined ? {} : { 'select-vlan': selectVlan }),
    ...(outputPort === undefined ? {} : { 'output-port': outputPort }),
    ...(outputVlan === undefined ? {} : { 'output-vlan': outputVlan }),
    ...(erspan === undefined ? {} : { erspan: fromErspan(erspan) }),
    ...(filter === undefined ? {} : { filter }),
    ...(filterProgram === undefined ? {} : { 'filter-program': filterProgram }),
    ...(snapLength === undefined ? {} : { snaplen: snapLength }),
    ...facts,
  }
}

/** Paths of ports that a mirror names, and their names, as far as they are texts. */
export function portsOfMirror(
  raw: Readonly<Record<string, unknown>>,
): [(string | number)[], string][] {
  const named = ['select-src-port', 'select-dst-port', 'output-port'].flatMap((key) =>
    [raw[key]].flat().map((id, at): [(string | number)[], unknown] => {
      return [key === 'output-port' ? [key] : [key, at], id]
    }),
  )
  return named.filter((one): one is [(string | number)[], string] => typeof one[1] === 'string')
}
