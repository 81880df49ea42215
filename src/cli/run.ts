/** framepump run: the daemon in the foreground, until a signal or `quit`. */
import { dirname } from 'node:path'
import type { Config } from '../config/load.ts'
import { loadConfig } from '../config/load.ts'
import { parseNetdev } from '../config/netdev.ts'
import type { PrivilegeMode } from '../config/privileges.ts'
import { mergePrivileges, privilegeConflict } from '../config/privileges.ts'
import { Daemon } from '../daemon/daemon.ts'
import { Privileges } from '../daemon/privileges.ts'
import { ConfigError } from '../errors.ts'
import type { SwitchOptions } from '../switch/api.ts'
import { defaultControlPath, EXIT_FAILED, packageVersion } from './common.ts'
import { DaemonSignals } from './daemon-signals.ts'
import { CLOSE_MS, endWithin, FAILED_CLOSE_MS } from './deadline.ts'
import { endLog, openLog, writeLogLine } from './logging.ts'

export interface RunOptions {
  readonly config?: string
  readonly port: readonly string[]
  readonly link: readonly string[]
  readonly control?: string
  readonly io?: NonNullable<SwitchOptions['io']>
  readonly incoming?: string
  readonly check?: boolean
  readonly user?: string
  readonly privileges?: PrivilegeMode
}

export async function run(options: RunOptions): Promise<number> {
  const { incoming } = options
  if (incoming !== undefined && incoming !== 'defer') {
    throw new ConfigError(
      'BAD_OPTION',
      `--incoming ${incoming}: descriptors cannot be received yet`,
      {
        hint: 'give --incoming defer: ports are opened at migrate-incoming',
      },
    )
  }
  const read = (): Config => merge(options)
  const config = read()
  if (options.check === true) {
    process.stdout.write(`${config.ports.length} ports, ${config.links.length} links: valid\n`)
    return 0
  }
  const controlPath = options.control ?? config.control ?? defaultControlPath()
  const log = await openLog()
  // Sockets, stored state and captures are nobody else's business.
  process.umask(0o077)
  try {
    return await runDaemon(options, config, controlPath, log, read)
  } finally {
    endLog()
  }
}

async function runDaemon(
  options: RunOptions,
  config: Config,
  controlPath: string,
  log: (message: string) => void,
  read: () => Config,
): Promise<number> {
  const [major, minor, micro] = packageVersion().split('.').map(Number)
  const signals = new DaemonSignals(log)
  if (signals.ending.aborted) return 0
  const directories = { control: dirname(controlPath), state: config.stateDir }
  const privileges = Privileges.begin(config.privileges, directories, log)
  let daemon: Daemon
  let isReady = false
  try {
    daemon = await Daemon.start({
      config,
      controlPath,
      isIncoming: options.incoming !== undefined,
      version: { major: major, minor: minor, micro: micro },
      log,
      privileges,
      signal: signals.ending,
      failing: ({ message }) =>
        endWithin(isReady ? FAILED_CLOSE_MS : CLOSE_MS, `closing after "${message}"`),
      ...(options.config === undefined ? {} : { reread: read }),
    })
  } catch (error) {
    if (signals.ending.aborted) return 0
    throw error
  }
  isReady = true
  writeLogLine(`framepump: ready (control ${daemon.controlPath})`)
  signals.onReload(() => {
    daemon.reload().catch((error: Error) => log(`config: not reloaded error="${error.message}"`))
  })
  const reason = await Promise.race([daemon.ended, signals.ended])
  log(`switch: stopping reason=${reason === true ? 'quit' : reason === false ? 'failure' : reason}`)
  if (reason === true) endWithin(CLOSE_MS, 'closing')
  await daemon.close()
  return reason === false ? EXIT_FAILED : 0
}

/** The config file, with what the command line adds or overrides. */
function merge(options: RunOptions): Config {
  const base: Config =
    options.config === undefined ? { ports: [], links: [] } : loadConfig(options.config)
  const ports = [...base.ports, ...options.port.map(parseNetdev)]
  const ids = new Set<string>()
  for (const { id } of ports) {
    if (ids.has(id)) throw new ConfigError('DUPLICATE_ID', `Duplicate ID '${id}'`)
    ids.add(id)
  }
  const links = [...base.links, ...options.link.map((text) => parseLink(text, ids))]
  const privileges = mergePrivileges(base.privileges, options.user, options.privileges)
  const wrong = privileges === undefined ? undefined : privilegeConflict(privileges, ports)
  if (wrong !== undefined) {
    throw new ConfigError('BAD_OPTION', `privileges: ${wrong.key}: ${wrong.message}`)
  }
  return {
    ...base,
    ...(options.io === undefined ? {} : { io: options.io }),
    ...(privileges === undefined ? {} : { privileges }),
    ports,
    links,
  }
}

function parseLink(text: string, ids: ReadonlySet<string>): [string, string] {
  const ends = text.split(',')
  if (ends.length !== 2 || ends[0] === ends[1]) {
    throw new ConfigError('BAD_LINK', `--link ${text}: give two different ports as A,B`)
  }
  for (const id of ends) {
    if (!ids.has(id)) throw new ConfigError('BAD_LINK', `--link ${text}: there is no port "${id}"`)
  }
  return [ends[0], ends[1]]
}
