/** Commands about replacing the daemon by another process: QEMU's of a migration. */
import { ConfigError } from '../../errors.ts'
import type { MigrationInfo, MigrationParameters } from '../../handover/progress.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'

const PARAMETERS = {
  'backend-transfer': {
    kind: 'boolean',
    description:
      'Descriptors pass from the source to the target; else the target opens every port by its name.',
  },
  local: { kind: 'boolean', description: 'A later name of `backend-transfer` in QEMU.' },
  exclude: {
    kind: 'list',
    of: { kind: 'string' },
    description: 'Ports that the target opens by name all the same.',
  },
  'downtime-limit': {
    kind: 'integer',
    range: [1, 2_000_000],
    unit: 'ms',
    description: 'How long nobody may read; after that the source goes on.',
  },
} as const

export const MIGRATION_COMMANDS: readonly Command[] = [
  command({
    name: 'migrate-set-parameters',
    description: 'Sets how a daemon is replaced. Both sides must agree, but for `downtime-limit`.',
    arguments: PARAMETERS,
    run: (args, { target: { migration } }) => {
      const transfer = agreed(args['backend-transfer'], args.local)
      const before = migration.parameters
      migration.parameters = {
        backendTransfer: transfer ?? before.backendTransfer,
        exclude: args.exclude ?? before.exclude,
        downtimeLimitMs: args['downtime-limit'] ?? before.downtimeLimitMs,
      }
    },
  }),
  command({
    name: 'query-migrate-parameters',
    description: 'How a daemon is replaced.',
    arguments: {},
    returns: '`{backend-transfer, local, exclude, downtime-limit}`',
    run: (_, { target }) => describeParameters(target.migration.parameters),
  }),
  command({
    name: 'migrate',
    description:
      'Hands everything over to the process that listens there; `query-migrate` and the event `MIGRATION` tell how it goes.',
    arguments: {
      uri: { kind: 'string', required: true, description: 'As `unix:PATH`, with the whole path.' },
    },
    run: ({ uri }, { target, session }) => {
      session.stays = true
      return target.migration.migrate(uri)
    },
  }),
  command({
    name: 'migrate_cancel',
    description: 'Ends a hand-over, as long as the target has not been told to begin.',
    arguments: {},
    run: (_, { target }) => target.migration.cancel(),
  }),
  command({
    name: 'query-migrate',
    description: 'How far a hand-over is, or how it went.',
    arguments: {},
    returns:
      '`{}` before the first, then `{status, total-time?, error-desc?}`, times in ms, and of a source that has completed `{pid, release, downtime, pause-us, frames-lost, ports}`, of the target and of what moved',
    run: (_, { target }) => describeMigration(target.migration.info),
  }),
  command({
    name: 'upgrade',
    description:
      'Starts another daemon of the installed package as this one was started, hands everything over to it, and ends.',
    arguments: {
      options: {
        kind: 'list',
        of: { kind: 'string' },
        description: 'Options of `framepump run` for the successor, after those of this daemon.',
      },
    },
    returns:
      '`{pid, release, downtime, pause-us, frames-lost, ports}`; of a daemon that may start no programs `{start}`: how a client starts the successor, for `migrate`',
    run: ({ options = [] }, { target, session }) => {
      session.stays = true
      return target.upgrade(options, session.ended)
    },
  }),
  command({
    name: 'migrate-incoming',
    description:
      'Of a daemon with `--incoming defer`: takes over from a source that connects to `uri`; without it, opens the ports that were postponed by name, all or none.',
    arguments: { uri: { kind: 'string', description: 'As `unix:PATH`, with the whole path.' } },
    run: ({ uri }, { target }) =>
      uri === undefined ? target.migrateIncoming() : target.migration.takeOver(uri),
  }),
]

/** What was said by either name. */
function agreed(value: boolean | undefined, local: boolean | undefined): boolean | undefined {
  if (value !== undefined && local !== undefined && value !== local) {
    throw new ConfigError('BAD_OPTION', 'backend-transfer and local are the same, and differ here')
  }
  return value ?? local
}

function describeParameters(parameters: MigrationParameters): Record<string, unknown> {
  const { backendTransfer, exclude, downtimeLimitMs } = parameters
  return {
    'backend-transfer': backendTransfer,
    local: backendTransfer,
    exclude,
    'downtime-limit': downtimeLimitMs,
  }
}

function describeMigration({ status, error, totalMs, result }: MigrationInfo): unknown {
  if (status === 'none') return {}
  return {
    status,
    ...(totalMs === undefined ? {} : { 'total-time': Math.round(totalMs) }),
    ...(error === undefined ? {} : { 'error-desc': error }),
    ...(result === undefined ? {} : describeResult(result)),
  }
}

export function describeResult(
  result: NonNullable<MigrationInfo['result']>,
): Record<string, unknown> {
  const { pauseUs, framesLost, release, pid, ports } = result
  return {
    pid,
    downtime: Math.ceil(pauseUs / 1000),
    'pause-us': pauseUs,
    'frames-lost': framesLost,
    release,
    ports,
  }
}
