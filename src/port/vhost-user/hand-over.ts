/**
 * A vhost-user port that another process goes on with: its listening socket, and its connections with all
 * that the front-ends have said, how far they have come in the next message, their memory, and where their
 * queues stand. No front-end notices.
 */
import { explain } from '../../text.ts'
import type { ConnectionState } from '../../sockets/socket-messages.ts'
import type { CameSocket } from '../../sockets/listening-socket.ts'
import type { AckedState } from '../../vhost-user/acked-store.ts'
import type { SessionState } from '../../vhost-user/session-state.ts'
import type { ControlPortContext } from '../control-port.ts'
import type { DescriptorShare } from '../descriptor-budget.ts'
import { frontEndFds } from '../descriptor-budget.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { CameFds, HandedFds, HandedReader, handOverError } from '../handed.ts'
import { shim } from '../../native/shim.ts'
import type { VhostUserOptions } from '../options.ts'
import type { CameDevice, DeviceState } from './guest-state.ts'
import {
  readDevice,
  readSession,
  unmapDevice,
  writeBases,
  writeDevice,
  writeSession,
} from './guest-state.ts'
import { WindowBudget } from './window-shares.ts'

const VERSION = 1

export interface PortConnection<D> {
  readonly fd: number
  readonly state: ConnectionState
  readonly session: SessionState
  readonly device: D
  /** Its device has the engine's port. */
  readonly isOwner: boolean
}

interface PortState<D> {
  readonly acked: AckedState
  /** What the front-end acknowledged is in the state directory. */
  readonly isStored: boolean
  readonly socket: CameSocket | undefined
  readonly connections: readonly PortConnection<D>[]
}

/** One of another process, whose memory is mapped. */
export interface CamePort extends PortState<CameDevice> {
  readonly windows: WindowBudget
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'))

export function writePort({
  acked,
  isStored,
  socket,
  connections,
}: PortState<DeviceState>): HandedState {
  const fds = new HandedFds()
  const state = {
    acked: { ...acked, features: `0x${acked.features.toString(16)}` },
    isStored,
    socket: socket === undefined ? null : { fd: fds.add(socket.fd), made: socket.made ?? null },
    connections: connections.map(({ fd, state: at, session, device, isOwner }) => ({
      fd: fds.add(fd),
      bytes: base64(at.bytes),
      fds: at.fds.map((own) => fds.add(own)),
      output: base64(at.output),
      session: writeSession(session, fds),
      device: writeDevice(device, fds),
      isOwner,
    })),
  } satisfies JsonValue
  return { version: VERSION, state, position: writePosition(connections), fds: fds.fds }
}

/** Where the queues of each connection stand. */
export function writePosition(connections: readonly PortConnection<DeviceState>[]): JsonValue {
  return connections.map(({ device }) => writeBases(device))
}

/** `make` makes the port. The descriptors are its own with success, and the caller's when this throws. */
export function takeOverVhostUser<P>(
  options: VhostUserOptions,
  handed: HandedState,
  { log }: Pick<ControlPortContext, 'log'>,
  share: DescriptorShare,
  make: (came: CamePort) => P,
): P {
  const windows = new WindowBudget()
  const devices: CameDevice[] = []
  try {
    const state = HandedReader.of(options, handed, VERSION)
    const fds = new CameFds(options.id, handed.fds)
    const connections = state.objects('connections').map((connection) => {
      const device = readDevice(connection.object('device'), fds, windows)
      devices.push(device)
      return readConnection(connection, device, fds)
    })
    const extra = Math.max(0, connections.length - 1)
    if (extra > 0) share.takeExtra(extra * frontEndFds(options.queues ?? 1))
    const told = state.has('socket') ? state.object('socket') : undefined
    const socket = told === undefined ? undefined : readSocket(told, fds)
    const acked = readAcked(state.object('acked'))
    const came = { acked, isStored: state.boolean('isStored'), socket, connections, windows }
    const port = make(came)
    for (const fd of fds.unclaimed) {
      log(`vhost-user ${options.id}: descriptor ${fd} came for nothing`, 'warning')
      shim.close(fd)
    }
    return port
  } catch (error) {
    for (const device of devices) unmapDevice(device, windows)
    throw handOverError(options.id, explain(error))
  }
}

function readConnection(
  connection: HandedReader,
  device: CameDevice,
  fds: CameFds,
): PortConnection<CameDevice> {
  return {
    fd: fds.at(connection.number('fd')),
    state: {
      bytes: bytesOf(connection.string('bytes')),
      fds: connection.numbers('fds').map((place) => fds.at(place)),
      output: bytesOf(connection.string('output')),
    },
    session: readSession(connection.object('session'), fds),
    device,
    isOwner: connection.boolean('isOwner'),
  }
}

function readSocket(socket: HandedReader, fds: CameFds): CameSocket {
  const made = socket.has('made') ? socket.string('made') : undefined
  return { fd: fds.at(socket.number('fd')), made }
}

function readAcked(acked: HandedReader): AckedState {
  return {
    features: acked.bits('features'),
    queuePairs: acked.number('queuePairs'),
    slots: acked.number('slots'),
  }
}
