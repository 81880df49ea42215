/**
 * Descriptors that outlive the process, should it be killed: somebody else has copies of them, and gives
 * them to the process that comes next. Of the main thread.
 */
/** Of a port: its kind, `tap` where nothing is said. */
export type KeptKind = 'tap' | 'raw-socket'

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
