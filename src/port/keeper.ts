/**
 * Descriptors that outlive the process, should it be killed: somebody else has copies of them, and gives
 * them to the process that comes next. Of the main thread.
 */
import type { SocketKeeper } from '../sockets/kept.ts'
import type { Log } from '../text.ts'

/** What they are: a port's, `tap` where nothing is said, or `socket`, one that listens. */
export type KeptKind = 'tap' | 'raw-socket' | 'socket'

/** `id`: of the port, and of a socket its file's number. */
export interface DescriptorKeeper {
  /** Those that a process before this one had for that port, the caller's from now on. Empty: none. */
  take(id: string, kind?: KeptKind): readonly number[]
  /** The port has these now, and nothing else that is kept. They stay the caller's. */
  keep(id: string, fds: readonly number[], kind?: KeptKind): void
  /** Another process has the port now: what is kept stays so. Before our descriptors are closed. */
  leave(id: string, kind?: KeptKind): void
  /** The port has come to its end. Before its descriptors are closed. */
  forget(id: string, kind?: KeptKind): void
}

/** For the listening sockets of a port, or of whoever else has that log. */
export function socketKeeper(
  keeper: DescriptorKeeper | undefined,
  log: Log,
): SocketKeeper | undefined {
  if (keeper === undefined) return undefined
  return {
    take: (file) => keeper.take(file, 'socket'),
    keep: (file, fd) => keeper.keep(file, [fd], 'socket'),
    leave: (file) => keeper.leave(file, 'socket'),
    forget: (file) => keeper.forget(file, 'socket'),
    log,
  }
}
