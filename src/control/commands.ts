/** The commands of the control socket, by name: QEMU's where QEMU has them, then ours. */
import { portOptionsFromObject } from '../config/port-options.ts'
import { ConfigErrors, FramepumpError, StateError } from '../errors.ts'
import { givenDescriptors } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import type {
  Capture,
  CaptureDirection,
  CaptureFormat,
  CaptureOptions,
  CaptureSummary,
  PortInfo,
  Switch,
} from '../switch/api.ts'
import type { Command, ServerVersion, Session } from './server.ts'
import { NEGOTIATION_ARGUMENTS, Pages } from './server.ts'

const PAGE_LENGTH = 64

/** What the commands act on. */
export interface ControlTarget {
  readonly switch: Switch
  readonly version: ServerVersion
  /** Applies the config file again; returns what it did. */
  reload(): Promise<unknown>
  /** Forwarding begins, or goes on. */
  resume(): Promise<void>
  /** Begins to end the daemon. */
  quit(): void
  /** Adds a port; says so when what it needs was given up. */
  addPort(
    options: PortOptions,
    given: ReadonlyMap<string, number>,
    peer: string | undefined,
  ): Promise<unknown>
  addLink(a: string, b: string): Promise<unknown>
  /** The error, with what of it comes of what was given up. */
  explain(error: unknown): unknown
  migrateIncoming(): Promise<unknown>
  /** What the daemon may do. */
  privileges(): unknown
  sendEvent(event: string, data?: Readonly<Record<string, unknown>>): void
}

export function makeCommands(target: ControlTarget): ReadonlyMap<string, Command> {
  const captures = new Map<number, Capture>()
  const commands = new Map<string, Command>()
  const add = (
    name: string,
    args: Command['arguments'],
    run: (args: never, session: Session) => unknown,
  ): void => {
    commands.set(name, { arguments: args, run: run })
  }
  const sw = target.switch

  add('query-version', {}, () => ({ qemu: target.version, package: 'framepump' }))
  // Beyond QEMU's: what each takes, by which `ctl` tells a name of digits from a number.
  add('query-commands', {}, () => [
    { name: 'qmp_capabilities', arguments: NEGOTIATION_ARGUMENTS },
    ...[...commands].map(([name, command]) => ({ name, arguments: command.arguments })),
  ])
  add('query-status', {}, () => ({
    status: sw.runState,
    running: sw.runState === 'running',
    io: sw.io,
    ...(sw.ioReason === undefined ? {} : { 'io-reason': sw.ioReason }),
    privileges: target.privileges(),
  }))
  add('stop', {}, async () => {
    if (sw.runState !== 'running') return
    await sw.pause()
    target.sendEvent('STOP')
  })
  add('cont', {}, async () => {
    if (sw.runState === 'running') return
    await target.resume()
    target.sendEvent('RESUME')
  })
  add('migrate-incoming', { 'uri?': 'string' }, ({ uri }: { uri?: string }) => {
    if (uri !== undefined) {
      throw new StateError('INCOMING', `descriptors cannot be received from ${uri} yet`, {
        hint: 'without uri the ports are opened by name',
      })
    }
    return target.migrateIncoming()
  })
  add('quit', {}, () => target.quit())

  add(
    'netdev_add',
    { type: 'string', id: 'string', 'peer?': 'string', '*': 'any' },
    async ({ peer, ...args }: Record<string, unknown>, session) => {
      const options = readPort(args)
      await target.addPort(options, session.fds.byName, peer as string | undefined)
      // The port owns them now.
      for (const name of givenDescriptors(options)) session.fds.take(name)
    },
  )
  add('netdev_del', { id: 'string' }, ({ id }: { id: string }) => sw.removePort(id))
  add(
    'set_link',
    { name: 'string', up: 'boolean' },
    ({ name, up }: { name: string; up: boolean }) => sw.setLink(name, up),
  )
  add('getfd', { fdname: 'string' }, ({ fdname }: { fdname: string }, session) =>
    getFd(fdname, session),
  )
  add('closefd', { fdname: 'string' }, ({ fdname }: { fdname: string }, session) =>
    closeFd(fdname, session),
  )

  add('query-ports', {}, () => pagesOf(sw.ports(), describePort))
  add('query-port-stats', { 'id?': 'string' }, async ({ id }: { id?: string }) => {
    // The kernel's own are taken in now.
    await sw.currentCounters()
    return pagesOf(id === undefined ? sw.ports() : [sw.port(id)], (port) => ({
      id: port.id,
      ...port.counters,
      ...sw.kernelCounters(port.id),
    }))
  })
  add('query-links', {}, () => sw.links().map(([a, b]) => ({ a, b })))
  add('query-mac-table', {}, () => new Pages(describeMacs(sw)))
  add('query-switch-stats', {}, () => sw.currentCounters())
  add('query-offloads', { 'from?': 'string' }, ({ from }: { from?: string }) => {
    const ports = sw.ports()
    return new Pages(describeOffloads(from === undefined ? ports : [sw.port(from)], ports))
  })
  add('link-add', { a: 'string', b: 'string' }, ({ a, b }: { a: string; b: string }) =>
    target.addLink(a, b),
  )
  add('link-del', { a: 'string', b: 'string' }, ({ a, b }: { a: string; b: string }) =>
    sw.removeLink(a, b),
  )
  add('config-reload', {}, () => target.reload())

  add(
    'capture-start',
    {
      'ports?': 'strings',
      'direction?': 'string',
      'snaplen?': 'number',
      'count?': 'number',
      'format?': 'string',
      'fd?': 'string',
      'path?': 'string',
      'truncate?': 'boolean',
    },
    async (args: CaptureArguments, session) => {
      const options = captureOptions(args, session)
      const capture = await sw.startCapture(options).catch((error: unknown) => {
        // Not taken: the server closes it with what the command leaves.
        if ('fd' in options.to) session.received.push(options.to.fd)
        throw target.explain(error)
      })
      captures.set(capture.id, capture)
      const stop = (): void => void capture.stop()
      // A capture into a descriptor of a client ends with the client.
      if (args.fd !== undefined) session.onClose.add(stop)
      void capture.done.then((summary) => {
        captures.delete(capture.id)
        session.onClose.delete(stop)
        target.sendEvent('CAPTURE_ENDED', { id: capture.id, ...summary })
      })
      return { id: capture.id }
    },
  )
  add('capture-stop', { id: 'number' }, ({ id }: { id: number }): Promise<CaptureSummary> => {
    const capture = captures.get(id)
    if (capture === undefined) throw new StateError('NO_CAPTURE', `there is no capture ${id}`)
    return capture.stop()
  })
  add('query-captures', {}, () =>
    sw.captures().map(({ snapLength, count, frames, dropped, ...rest }) => ({
      ...rest,
      'snaplen-bytes': snapLength,
      ...(count === undefined ? {} : { 'count-frames': count }),
      frames,
      'dropped-frames': dropped,
    })),
  )
  return commands
}

/** The first error, as QEMU. */
function readPort(args: Readonly<Record<string, unknown>>): PortOptions {
  try {
    return portOptionsFromObject(args)
  } catch (error) {
    const first = error instanceof ConfigErrors ? error.errors[0] : error
    if (first instanceof FramepumpError) first.port = String(args['id'])
    throw first
  }
}

interface CaptureArguments {
  readonly ports?: readonly string[]
  readonly direction?: CaptureDirection
  readonly snaplen?: number
  readonly count?: number
  readonly format?: CaptureFormat
  readonly fd?: string
  readonly path?: string
  readonly truncate?: boolean
}

function captureOptions(args: CaptureArguments, session: Session): CaptureOptions {
  const { ports, direction, snaplen, count, format, fd, path, truncate = false } = args
  if ((fd === undefined) === (path === undefined)) {
    throw new StateError('QMP_ARGUMENT', `either 'fd' or 'path' is needed`)
  }
  if (direction !== undefined && !['in', 'out', 'both'].includes(direction)) {
    throw new StateError('QMP_ARGUMENT', `Parameter 'direction' must be in, out or both`)
  }
  if (format !== undefined && !['pcapng', 'pcap'].includes(format)) {
    throw new StateError('QMP_ARGUMENT', `Parameter 'format' must be pcapng or pcap`)
  }
  const options = {
    ...(ports === undefined ? {} : { ports }),
    ...(direction === undefined ? {} : { direction }),
    ...(snaplen === undefined ? {} : { snapLength: snaplen }),
    ...(count === undefined ? {} : { count }),
    ...(format === undefined ? {} : { format }),
  }
  if (path !== undefined) return { ...options, to: { path } }
  // The capture closes it at its end.
  const given = session.fds.take(fd!)
  if (given === undefined) {
    throw new StateError('NO_FD', `File descriptor named '${fd}' has not been found`)
  }
  return { ...options, to: { fd: given, truncate } }
}

function getFd(name: string, session: Session): void {
  const [fd] = session.received
  if (fd === undefined) {
    throw new StateError('NO_FD', 'No file descriptor supplied via SCM_RIGHTS')
  }
  const old = session.fds.take(name)
  // Left with the command's own: the server closes them when the command is done.
  if (old !== undefined) session.received.push(old)
  session.fds.add(name, fd)
  session.received.shift()
}

function closeFd(name: string, session: Session): void {
  const fd = session.fds.take(name)
  if (fd === undefined) throw new StateError('NO_FD', `File descriptor named '${name}' not found`)
  session.received.push(fd)
}

/** PortInfo in QMP's spelling. */
export function describePort(port: PortInfo): Record<string, unknown> {
  const { vnetHdrLength, notPostponed, queuesAttached, ...rest } = port
  return {
    ...rest,
    ...(notPostponed === undefined ? {} : { 'not-postponed': notPostponed }),
    ...(queuesAttached === undefined ? {} : { 'queues-attached': queuesAttached }),
    'vnet-hdr-length': vnetHdrLength,
  }
}

/**
 * For each pair of ports that can meet: which offloads pass unchanged, which are done in software
 * because the egress lacks them, which segments are merged; and what the egress was given so far, by
 * all senders together.
 */
function* describeOffloads(
  senders: readonly PortInfo[],
  ports: readonly PortInfo[],
): Generator<readonly unknown[]> {
  for (const from of senders) {
    yield ports
      .filter((to) => to.id !== from.id && meet(from, to))
      .map((to) => ({
        from: from.id,
        to: to.id,
        pass: from.offloads.rx.filter((name) => to.offloads.tx.includes(name)),
        software: from.offloads.rx.filter((name) => !to.offloads.tx.includes(name)),
        merge: from.gro ? to.offloads.tx.filter((name) => name === 'tso4' || name === 'tso6') : [],
        checksummed: to.counters.tx_checksummed,
        segmented: to.counters.tx_segmented,
        coalesced: to.counters.tx_coalesced,
        dropped: to.counters.tx_drop_offload,
      }))
  }
}

async function* describeMacs(sw: Switch): AsyncGenerator<readonly unknown[]> {
  for await (const page of sw.macTablePages()) {
    yield page.map(({ mac, port, ageS }) => ({ mac, port, 'age-s': ageS }))
  }
}

/** A list of things that are as long as a port's description. */
function pagesOf<T>(all: readonly T[], describe: (one: T) => unknown): Pages {
  const count = Math.ceil(all.length / PAGE_LENGTH)
  return new Pages(
    Array.from({ length: count }, (_, page) =>
      all.slice(page * PAGE_LENGTH, (page + 1) * PAGE_LENGTH).map(describe),
    ),
  )
}

function meet(from: PortInfo, to: PortInfo): boolean {
  if (from.peer !== undefined || to.peer !== undefined) return from.peer === to.id
  return true
}
