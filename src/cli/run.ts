/** framepump run: the daemon in the foreground, until a signal or `quit`. */
import { dirname } from 'node:path'
import type { Config } from '../config/load.ts'
import { withPrograms } from '../config/mirrors.ts'
import { parseNetdev } from '../config/netdev.ts'
import type { PrivilegeMode } from '../config/privileges.ts'
import { mergePrivileges, privilegeConflict } from '../config/privileges.ts'
import type { DaemonOptions } from '../daemon/daemon.ts'
import { Daemon } from '../daemon/daemon.ts'
import { DescriptorStore, takeListenFds } from '../daemon/descriptor-store.ts'
import { Notify } from '../daemon/notify.ts'
import { Privileges } from '../daemon/privileges.ts'
import { Starter } from '../daemon/starter.ts'
import { ConfigError, gather, throwGathered } from '../errors.ts'
import { pathOfUri } from '../handover/meeting.ts'
import type { PortOptions } from '../port/options.ts'
import type { SwitchOptions } from '../switch/api.ts'
import type { Log, LogFormat, LogLevel } from '../text.ts'
import { counted, explain, nearest } from '../text.ts'
import { defaultControlPath, EXIT_FAILED, packageVersion, reportError } from './common.ts'
import { DaemonSignals } from './daemon-signals.ts'
import { CLOSE_MS, endWithin, FAILED_CLOSE_MS } from './deadline.ts'
import { endLog, openLog, writeLogLine } from './logging.ts'
import { WaitFd } from './wait-fd.ts'

export interface RunOptions {
  readonly config?: string
  readonly port: readonly string[]
  readonly link: readonly string[]
  readonly control?: string
  readonly io?: NonNullable<SwitchOptions['io']>
  readonly incoming?: string
  readonly backendTransfer?: boolean
  readonly exclude: readonly string[]
  readonly check?: boolean
  readonly user?: string
  readonly privileges?: PrivilegeMode
  readonly logLevel?: LogLevel
  readonly logFormat?: LogFormat
  readonly waitFd?: number
}

export async function run(options: RunOptions): Promise<number> {
  checkIncoming(options)
  // First of all: what is opened from here on could get its number.
  const waitFd = options.waitFd === undefined ? undefined : WaitFd.take(options.waitFd)
  const starter = Starter.take(process.env)
  const { config: file } = options
  // Reading files takes a third of what is to be loaded; once loaded, it is there for reloads.
  const loader = file === undefined ? undefined : await import('../config/load.ts')
  const read = (): Config => merge(options, () => loader?.loadConfig(file!))
  const config = read()
  if (options.check === true) {
    await withPrograms(config)
    const [ports, links] = [config.ports.length, config.links.length]
    process.stdout.write(`${counted(ports, 'port')}, ${counted(links, 'link')}: valid\n`)
    return 0
  }
  const controlPath = options.control ?? config.control ?? defaultControlPath()
  const log = await openLog({
    level: options.logLevel ?? config.logLevel,
    format: options.logFormat ?? config.logFormat,
  })
  // Sockets, stored state and captures are nobody else's business.
  process.umask(0o077)
  try {
    return await runDaemon(options, config, controlPath, log, read, waitFd, starter)
  } catch (error) {
    return reportError(error)
  } finally {
    endLog()
  }
}

async function runDaemon(
  options: RunOptions,
  config: Config,
  controlPath: string,
  log: Log,
  read: () => Config,
  waitFd: WaitFd | undefined,
  starter: Starter | undefined,
): Promise<number> {
  const [major, minor, micro] = packageVersion().split('.').map(Number)
  const signals = new DaemonSignals(log)
  if (signals.ending.aborted) return 0
  // While the manager's socket can be reached, whoever owns it.
  const notify = Notify.open(log)
  const came = takeListenFds(process.env, process.pid)
  const tell = notify === undefined ? undefined : notify.tell.bind(notify)
  const store = new DescriptorStore(tell, came, options.incoming === undefined, log)
  const directories = { control: dirname(controlPath), state: config.stateDir }
  let daemon: Daemon
  let isReady = false
  try {
    const privileges = Privileges.begin(config.privileges, directories, log)
    daemon = await Daemon.start({
      config,
      controlPath,
      ...(options.incoming === undefined ? {} : incomingOf(options.incoming, options)),
      version: { major: major, minor: minor, micro: micro },
      log,
      privileges,
      notify,
      store,
      starter,
      signal: signals.ending,
      failing: ({ message }) =>
        endWithin(isReady ? FAILED_CLOSE_MS : CLOSE_MS, `closing after "${message}"`),
      ...(options.config === undefined ? {} : { reread: read }),
    })
  } catch (error) {
    const isWanted = signals.ending.aborted
    notify?.stopping(isWanted ? undefined : error)
    if (isWanted) return 0
    throw error
  }
  isReady = true
  writeLogLine(`framepump: ready (control ${daemon.controlPath})`)
  waitFd?.ready()
  signals.onReload(() => {
    daemon.reload().catch((error) => log(`config: not reloaded error="${explain(error)}"`, 'error'))
  })
  signals.onUpgrade(() => {
    daemon
      .upgrade()
      .then((answer) => {
        if (!('start' in answer)) return
        log(
          'hand-over: not begun because="it may not start programs any more: framepump upgrade"',
          'warning',
        )
      })
      // The log has it.
      .catch(() => undefined)
  })
  const reason = await Promise.race([daemon.ended, signals.ended])
  log(`switch: stopping reason=${reason === true ? 'quit' : reason === false ? 'failure' : reason}`)
  if (reason === true) endWithin(CLOSE_MS, 'closing')
  await daemon.close()
  return reason === false ? EXIT_FAILED : 0
}

/** Throws ConfigError. */
function checkIncoming({ incoming, backendTransfer, exclude }: RunOptions): void {
  if (incoming === undefined) {
    const given = backendTransfer !== undefined ? '--backend-transfer' : '--exclude'
    if (backendTransfer === undefined && exclude.length === 0) return
    throw new ConfigError('BAD_OPTION', `${given} is of use with --incoming only`, {
      hint: 'of a source it is set by migrate-set-parameters',
    })
  }
  if (incoming !== 'defer') pathOfUri(incoming, '--incoming')
}

function incomingOf(
  incoming: string,
  { backendTransfer, exclude }: RunOptions,
): Pick<DaemonOptions, 'incoming' | 'transfer'> {
  // With `defer` it is QEMU's default, which is off.
  const transfer = { backendTransfer: backendTransfer ?? incoming !== 'defer', exclude }
  return { incoming, transfer }
}

/** The config file, with what the command line adds or overrides. Throws all that is wrong, at once. */
function merge(options: RunOptions, readFile: () => Config | undefined): Config {
  const errors: ConfigError[] = []
  const base = gather(errors, readFile)
  const ids = new Set(base?.ports.map(({ id }) => id))
  const added = options.port.flatMap((spec) => gather(errors, () => parsePort(spec, ids)) ?? [])
  // What ports there are is not known of a file that is wrong, nor of options that are.
  const areKnown = errors.length === 0
  const wired = options.link.flatMap((text) => {
    const link = gather(errors, () => parseLink(text, areKnown ? ids : undefined))
    return link === undefined ? [] : [link]
  })
  const ports = [...(base?.ports ?? []), ...added]
  const privileges = gather(errors, () => privilegesOf(options, base, ports))
  throwGathered(errors)
  return {
    ...base,
    ...(options.io === undefined ? {} : { io: options.io }),
    ...(privileges === undefined ? {} : { privileges }),
    ports,
    links: [...(base?.links ?? []), ...wired],
  }
}

/** `ids`: of the ports so far, which it joins. */
function parsePort(spec: string, ids: Set<string>): PortOptions {
  const errors: ConfigError[] = []
  const port = gather(errors, () => parseNetdev(spec))
  // Its id when it has one, as the whole may be long.
  const id = /(?:^|,)id=([^,]+)/.exec(spec)?.[1]
  if (id !== undefined) {
    if (ids.has(id)) errors.push(new ConfigError('DUPLICATE_ID', `Duplicate ID '${id}'`))
    ids.add(id)
  }
  throwGathered(errors.map((error) => namingOption(`--port ${id ?? `"${spec}"`}`, error)))
  return port!
}

function namingOption(name: string, { code, path, message, hint }: ConfigError): ConfigError {
  const isSaid = path === '' || message.includes(path)
  return new ConfigError(code, `${name}: ${isSaid ? '' : `${path}: `}${message}`, { path, hint })
}

function privilegesOf(
  options: RunOptions,
  base: Config | undefined,
  ports: readonly PortOptions[],
): Config['privileges'] {
  const privileges = mergePrivileges(base?.privileges, options.user, options.privileges)
  const wrong = privileges === undefined ? undefined : privilegeConflict(privileges, ports)
  if (wrong !== undefined) {
    throw new ConfigError('BAD_OPTION', `privileges: ${wrong.key}: ${wrong.message}`)
  }
  return privileges
}

/** `ids`: of all ports; undefined: nobody knows them. */
function parseLink(text: string, ids: ReadonlySet<string> | undefined): [string, string] {
  const ends = text.split(',')
  if (ends.length !== 2 || ends[0] === ends[1]) {
    throw new ConfigError('BAD_LINK', `--link ${text}: give two different ports as A,B`)
  }
  const missing = ids === undefined ? [] : ends.filter((id) => !ids.has(id))
  const errors = missing.map((id) => {
    const near = nearest(id, [...ids!])
    const hint = near === undefined ? undefined : `did you mean "${near}"?`
    return new ConfigError('BAD_LINK', `--link ${text}: there is no port "${id}"`, { hint })
  })
  throwGathered(errors)
  return [ends[0], ends[1]]
}
