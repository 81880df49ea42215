/** framepump show: tables of what a running daemon has. */
import { ControlClient } from '../control/client.ts'
import { ConfigError } from '../errors.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'
import type { PortInfo, SwitchCounters } from '../switch/api.ts'
import { printableJson } from '../switch/printable.ts'
import type { ShowSubject } from './commands.ts'
import { defaultControlPath } from './common.ts'
import { hasReader, write } from './output.ts'
import { shownPolicy } from './shown-policy.ts'
import { formatRows, formatTable, widthsOf } from './table.ts'
import { watch } from './watch.ts'

type Rows = readonly (readonly string[])[]

interface View {
  /** Names of the results in JSON, when there is more than one. */
  readonly names?: readonly string[]
  readonly commands: readonly string[]
  readonly head: readonly string[]
  rows(...results: never[]): Rows
}

type ShownPort = PortInfo & {
  readonly 'vnet-hdr-length': number
  readonly 'not-postponed'?: string
  readonly 'queues-attached'?: number
  readonly 'device-mtu'?: number
}

/** Frames that did not pass, for whatever reason. */
function drops({ counters }: ShownPort, prefix: string): number {
  const names = Object.keys(counters).filter((name) => name.startsWith(prefix))
  return names.reduce((sum, name) => sum + counters[name as keyof typeof counters], 0)
}

/** `2/4`: two of four are attached. */
function shownQueues({ queues, 'queues-attached': attached }: ShownPort): string {
  return attached === undefined ? String(queues) : `${attached}/${queues}`
}

/** Whether nobody has set an interface up yet or it was set down makes no difference to who looks. */
function shownState({ state, device }: ShownPort): string {
  return state === 'open' && device !== undefined && device !== 'up' ? 'down' : state
}

/** Why a port is down that nobody set down here. */
function deviceNote({ device, link, ifname, netns }: ShownPort): string {
  if (device === undefined || device === 'up' || !link) return ''
  if (device === 'no-carrier') return 'the interface has no carrier'
  const where = netns === undefined ? '' : `-n ${netns} `
  return `the interface is down: ip ${where}link set ${ifname} up`
}

const shownVlan = ({ vlan }: { readonly vlan: number }): string => (vlan === 0 ? '-' : String(vlan))

const HELD = 'held: waits for the rest of the config'

const onOff = (value: boolean): string => (value ? 'on' : 'off')

const VIEWS: Readonly<Record<ShowSubject, View>> = {
  ports: {
    commands: ['query-ports'],
    head: [
      'ID',
      'TYPE',
      'STATE',
      'ADMIN',
      'CARRIER',
      'DEVICE',
      'NETNS',
      'MTU',
      'QUEUES',
      'VNET_HDR',
      'PEER',
      'RX_DROP',
      'TX_DROP',
      'NOTE',
      'ERROR',
    ],
    rows: (ports: ShownPort[]) =>
      ports.map((port) => [
        port.id,
        port.type,
        shownState(port),
        port.link ? 'up' : 'down',
        port.device ?? '-',
        port.ifname ?? port.path ?? '-',
        port.netns ?? '-',
        String(port.mtu ?? port['device-mtu'] ?? '-'),
        shownQueues(port),
        port['vnet-hdr-length'] === 0 ? 'off' : 'on',
        port.peer ?? 'switch',
        String(drops(port, 'rx_drop_')),
        String(drops(port, 'tx_drop_')),
        port.held === true ? HELD : (port.info ?? port['not-postponed'] ?? deviceNote(port)),
        port.error ?? '',
      ]),
  },
  macs: {
    commands: ['query-mac-table'],
    head: ['MAC', 'VLAN', 'PORT', 'AGE'],
    rows: (entries: ShownMac[]) =>
      entries.map((entry) => [
        entry.mac,
        shownVlan(entry),
        entry.port,
        entry.static === true ? 'static' : `${entry['age-s']} s`,
      ]),
  },
  groups: {
    commands: ['query-groups'],
    head: ['VLAN', 'GROUP', 'PORT', 'EXPIRES', 'NOTE'],
    rows: (entries: ShownGroup[]) =>
      entries.map((entry) => [
        entry['inner-vlan'] === undefined
          ? shownVlan(entry)
          : `${shownVlan(entry)}.${entry['inner-vlan']}`,
        entry.group ?? `all ${entry.family}`,
        entry.port,
        entry['expires-s'] === undefined ? '-' : `${entry['expires-s']} s`,
        groupNote(entry),
      ]),
  },
  vlans: {
    commands: ['query-vlans'],
    head: ['VLAN', 'TAGGED', 'UNTAGGED'],
    rows: (vlans: { vlan: number; tagged: string[]; untagged: string[] }[]) =>
      vlans.map((one) => [
        shownVlan(one),
        one.tagged.join(' ') || '-',
        one.untagged.join(' ') || '-',
      ]),
  },
  policy: {
    commands: ['query-ports'],
    head: ['ID', 'OPTIONS'],
    rows: (ports: (SwitchingOptions & { readonly id: string })[]) =>
      ports.map((port) => [port.id, shownPolicy(port) || '-']),
  },
  stats: {
    commands: ['query-port-stats', 'query-switch-stats'],
    names: ['ports', 'switch'],
    head: ['PORT', 'COUNTER', 'VALUE'],
    rows: (ports: Record<string, string | number>[], engine: SwitchCounters) => [
      ...ports.flatMap(({ id, ...counters }) =>
        Object.entries(counters)
          .filter(([name, value]) => value !== 0 || /_(frames|bytes)$/.test(name))
          .map(([name, value]) => [String(id), name, String(value)]),
      ),
      ...Object.entries(engine).map(([name, value]) => ['switch', name, String(value)]),
    ],
  },
  links: {
    commands: ['query-links'],
    head: ['A', 'B'],
    rows: (links: { a: string; b: string }[]) => links.map(({ a, b }) => [a, b]),
  },
  mirrors: {
    commands: ['query-mirrors'],
    head: ['NAME', 'SRC', 'DST', 'VLANS', 'OUTPUT', 'SNAPLEN', 'FILTER', 'FRAMES', 'BYTES', 'NOTE'],
    rows: (mirrors: ShownMirror[]) =>
      mirrors.map((mirror) => [
        mirror.name,
        shownSelection(mirror, 'select-src-port'),
        shownSelection(mirror, 'select-dst-port'),
        mirror['select-vlan']?.join(' ') ?? 'all',
        shownOutput(mirror),
        String(mirror.snaplen ?? '-'),
        mirror.filter ?? (mirror['filter-program'] === undefined ? '-' : 'a program'),
        String(mirror.frames),
        String(mirror.bytes),
        [
          ...(mirror.missing.length === 0 ? [] : [`not there: ${mirror.missing.join(' ')}`]),
          ...Object.entries(mirror.counters ?? {})
            .filter(([name, value]) => name.startsWith('tx_drop_') && value > 0)
            .map(([name, value]) => `${name}=${value}`),
        ].join(' '),
      ]),
  },
  // Printed part by part, see showOffloads.
  offloads: {
    commands: [],
    head: [
      'FROM',
      'TO',
      'PASS',
      'SOFTWARE',
      'MERGE',
      'CHECKSUMMED',
      'SEGMENTED',
      'COALESCED',
      'DROPPED',
    ],
    rows: (pairs: OffloadPair[]) =>
      pairs.map(({ from, to, pass, software, merge, ...counts }) => [
        from,
        to,
        pass.join(' ') || 'none',
        software.join(' ') || 'none',
        merge.join(' ') || 'none',
        ...[counts.checksummed, counts.segmented, counts.coalesced, counts.dropped].map(String),
      ]),
  },
  privileges: {
    commands: ['query-status'],
    head: ['WHAT', 'NAME', 'CAPABILITIES', 'NO_NEW_PRIVS', 'SECCOMP'],
    rows: ({ privileges }: { privileges: ShownPrivileges }) => [
      ['mode', `${privileges.mode}${privileges.locked ? ', locked' : ''}`, '', '', ''],
      ['user', `${privileges.user}:${privileges.group}`, '', '', ''],
      ['scripts', onOff(privileges.scripts), '', '', ''],
      ...(privileges.reason === undefined ? [] : [['lacks', privileges.reason, '', '', '']]),
      ...privileges.threads.map((thread) => [
        `thread ${thread.id}`,
        thread.name,
        thread.capabilities.join(',') || 'none',
        onOff(thread['no-new-privs']),
        onOff(thread.seccomp),
      ]),
    ],
  },
}

interface ShownMac {
  readonly mac: string
  readonly vlan: number
  readonly port: string
  readonly 'age-s': number
  readonly static?: boolean
}

interface ShownGroup {
  readonly vlan: number
  readonly 'inner-vlan'?: number
  readonly family: 'ipv4' | 'ipv6'
  readonly group?: string
  readonly port: string
  readonly 'expires-s'?: number
  readonly querier?: string
  readonly 'multicast-router'?: 'always' | 'never'
}

function groupNote({ group, querier, 'multicast-router': option }: ShownGroup): string {
  if (group !== undefined) return ''
  const router = option === 'never' ? 'no router' : option === 'always' ? 'always router' : 'router'
  return querier === undefined ? router : `${router}, querier ${querier}`
}

interface ShownMirror {
  readonly name: string
  readonly 'select-all'?: boolean
  readonly 'select-src-port'?: readonly string[]
  readonly 'select-dst-port'?: readonly string[]
  readonly 'select-vlan'?: readonly (string | number)[]
  readonly 'output-port'?: string
  readonly 'output-vlan'?: number
  readonly erspan?: { readonly 'remote-ip': string; readonly 'session-id': number }
  readonly counters?: Readonly<Record<string, number>>
  readonly filter?: string
  readonly 'filter-program'?: string
  readonly snaplen?: number
  readonly missing: readonly string[]
  readonly frames: number
  readonly bytes: number
}

function shownOutput(mirror: ShownMirror): string {
  const { erspan } = mirror
  if (erspan !== undefined) return `${erspan['remote-ip']} session ${erspan['session-id']}`
  return mirror['output-port'] ?? `vlan ${mirror['output-vlan']}`
}

function shownSelection(mirror: ShownMirror, which: 'select-src-port' | 'select-dst-port'): string {
  return mirror['select-all'] === true ? 'all' : (mirror[which]?.join(' ') ?? '-')
}

interface ShownPrivileges {
  readonly mode: string
  readonly locked: boolean
  readonly user: string
  readonly group: string
  readonly scripts: boolean
  readonly reason?: string
  readonly threads: readonly {
    readonly id: number
    readonly name: string
    readonly capabilities: readonly string[]
    readonly 'no-new-privs': boolean
    readonly seccomp: boolean
  }[]
}

interface OffloadPair {
  readonly from: string
  readonly to: string
  readonly pass: readonly string[]
  readonly software: readonly string[]
  readonly merge: readonly string[]
  readonly checksummed: number
  readonly segmented: number
  readonly coalesced: number
  readonly dropped: number
}

export interface ShowOptions {
  readonly control?: string
  readonly json?: boolean
  /** Of macs and groups: which. */
  readonly port?: string
  readonly vlan?: number
  readonly mac?: string
  readonly group?: string
  /** Seconds between two tables; true: one second. */
  readonly watch?: number | true
}

/** Which rows are shown, and of which tables there are such. */
const FILTERS = {
  port: ['macs', 'groups'],
  vlan: ['macs', 'groups'],
  mac: ['macs'],
  group: ['groups'],
} as const satisfies Readonly<Record<string, readonly ShowSubject[]>>
const FILTER_NAMES = Object.keys(FILTERS) as (keyof typeof FILTERS)[]

type Emit = (text: string) => Promise<void>

export async function show(subject: ShowSubject, options: ShowOptions): Promise<number> {
  for (const key of FILTER_NAMES) {
    const of: readonly ShowSubject[] = FILTERS[key]
    if (options[key] === undefined || of.includes(subject)) continue
    const valid = of.map((one) => `show ${one}`).join(' and ')
    throw new ConfigError('BAD_ARGUMENT', `--${key} is only valid with ${valid}`)
  }
  const client = await ControlClient.connect(options.control ?? defaultControlPath())
  const draw = (emit: Emit): Promise<void> => showOnce(client, subject, options, emit)
  try {
    if (options.watch === undefined) await draw(write)
    else {
      const intervalS = options.watch === true ? 1 : options.watch
      await watch({ title: `framepump show ${subject}`, draw }, intervalS)
    }
    return 0
  } finally {
    client.close()
  }
}

async function showOnce(
  client: ControlClient,
  subject: ShowSubject,
  { json: isJson = false, ...options }: ShowOptions,
  emit: Emit,
): Promise<void> {
  if (subject === 'offloads') return showOffloads(client, isJson, emit)
  const view = VIEWS[subject]
  const results: unknown[] = []
  const given = FILTER_NAMES.flatMap((key) =>
    options[key] === undefined ? [] : [[key, options[key]]],
  )
  const filter = Object.fromEntries(given) as Record<string, unknown>
  for (const command of view.commands) results.push(await client.execute(command, filter))
  if (isJson) {
    const named = view.names?.map((name, at) => [name, results[at]] as const)
    const value = named === undefined ? results[0] : Object.fromEntries(named)
    await emit(`${printableJson(value, 2)}\n`)
  } else await emit(`${formatTable(view.head, view.rows(...(results as never[])))}\n`)
}

/**
 * A row for each pair of ports, a million of them if need be: asked for and printed sender by sender.
 */
async function showOffloads(client: ControlClient, isJson: boolean, emit: Emit): Promise<void> {
  const view = VIEWS.offloads
  const ports = (await client.execute('query-ports')) as { readonly id: string }[]
  let widths: number[] | undefined
  let before = isJson ? '[' : ''
  for (const { id: from } of ports) {
    if (!hasReader()) return
    const pairs = (await client.execute('query-offloads', { from })) as never
    const rows = view.rows(pairs)
    if (rows.length === 0) continue
    if (isJson) {
      await emit(
        `${before}\n${(pairs as unknown[]).map((pair) => printableJson(pair)).join(',\n')}`,
      )
      before = ','
      continue
    }
    if (widths === undefined) {
      widths = widthsOf([view.head, ...rows, ...ports.map(({ id }) => [id, id])])
      await emit(`${formatRows([view.head], widths)}\n`)
    }
    await emit(`${formatRows(rows, widths)}\n`)
  }
  if (isJson) await emit(`${before === ',' ? '' : before}\n]\n`)
  else if (widths === undefined) await emit(`${formatTable(view.head, [])}\n`)
}
