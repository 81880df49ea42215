/**
 * A listening socket that somebody has kept since a process before this one was killed: who has connected to it
 * meanwhile waits in its backlog.
 *
 * It is known by its file, whatever listens on that path now: the file's number is nobody else's as long as the
 * socket is there.
 */
import { constants, lstatSync } from 'node:fs'
import { strerror } from '../abi/strerror.ts'
import { shim } from '../native/shim.ts'
import type { Log } from '../text.ts'
import { SOCK_STREAM } from './listen.ts'
import { numberOf } from './socket-file.ts'

const AF_UNIX = 1
const SOL_SOCKET = 1
const SO_TYPE = 3
const SO_ACCEPTCONN = 30
const SO_DOMAIN = 39

/** Has copies of sockets, by their files' numbers, for the process that comes after one that is killed. */
export interface SocketKeeper {
  /** Those that a process before this one had, the caller's from now on. Empty: none. */
  take(file: string): readonly number[]
  keep(file: string, fd: number): void
  /** Another process has the socket: what is kept stays so. */
  leave(file: string): void
  forget(file: string): void
  readonly log: Log
}

/** The socket that the path leads to, when it has been kept; the caller's. */
export function takeKept(
  path: string,
  backlog: number,
  keeper: SocketKeeper | undefined,
): number | undefined {
  const file = keeper === undefined ? undefined : fileAt(path)
  if (keeper === undefined || file === undefined) return undefined
  // Copies, should there be several.
  const [fd, ...others] = keeper.take(file)
  for (const other of others) shim.close(other)
  if (fd === undefined) return undefined
  const wrong = whyNotListening(fd, backlog)
  if (wrong === undefined) {
    keeper.log(`goes on with the kept socket path=${path}`)
    return fd
  }
  keeper.log(`the kept socket of ${path} is not used because="${wrong}"`, 'warning')
  keeper.forget(file)
  shim.close(fd)
  return undefined
}

function fileAt(path: string): string | undefined {
  try {
    return numberOf(lstatSync(path))
  } catch {
    // Nothing, or what is wrong with it is told when it is bound.
    return undefined
  }
}

function whyNotListening(fd: number, backlog: number): string | undefined {
  const is = (option: number, value: number): boolean => {
    const found = new Int32Array(1)
    const bytes = new Uint8Array(found.buffer)
    return shim.getSocketOption(fd, SOL_SOCKET, option, bytes) > 0 && found[0] === value
  }
  if (!is(SO_DOMAIN, AF_UNIX) || !is(SO_TYPE, SOCK_STREAM) || !is(SO_ACCEPTCONN, 1)) {
    return 'it is no listening Unix socket'
  }
  const flags = shim.getStatusFlags(fd)
  const settled = flags < 0 ? flags : shim.setStatusFlags(fd, flags | constants.O_NONBLOCK)
  // Peers are told from now on that it is this process which listens.
  const listening = settled < 0 ? settled : shim.listen(fd, backlog)
  return listening < 0 ? strerror(-listening) : undefined
}
