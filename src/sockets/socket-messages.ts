/** What the main thread and the I/O thread tell each other. All of it is structured-cloned. */
import type { JsonItem } from './json-stream.ts'
import type { MessageItem } from './message-stream.ts'

/** What a connection speaks: JSON values one after another, or vhost-user messages. */
export type Framing = 'json' | 'vhost-user'
export type SocketItem = JsonItem | MessageItem

export interface SocketWorkerData {
  readonly eventFd: number
  /** The I/O thread's from its start on. */
  readonly epoll: number
  readonly sleepMaxMs: number
  /** [0] is 1 when the thread shall end; `eventFd` is written after it. */
  readonly stop: Int32Array
}

/** What a connection of `vhost-user` framing has beside its socket. */
export interface ConnectionState {
  /** Of a message in the making, and the descriptors that have come for it. */
  readonly bytes: Uint8Array
  readonly fds: readonly number[]
  /** What the peer has not taken yet. */
  readonly output: Uint8Array
}

export interface SuspendedConnection extends ConnectionState {
  readonly connection: number
  readonly fd: number
}

/** From the main thread. Numbers of listeners and of adopted connections are its own. */
export type SocketRequest =
  /**
   * `fd` listens, and stays the main thread's: it closes it after `ignored`. Peers beyond
   * `connectionsMax` (0: see SocketThread.listen) wait in its backlog.
   */
  | {
      readonly type: 'listen'
      readonly listener: number
      readonly fd: number
      readonly framing: Framing
      readonly connectionsMax: number
    }
  | { readonly type: 'ignore'; readonly listener: number }
  /** A connected socket, ours from now on, as a connection of `listener`. */
  | {
      readonly type: 'adopt'
      readonly listener: number
      readonly fd: number
      readonly framing: Framing
      /** How far it has come elsewhere. */
      readonly state?: ConnectionState
      /** Told with `open`. */
      readonly token?: number
    }
  /** Nobody is accepted, nothing is read or noticed, until `resume`; answered by `suspended`. */
  | { readonly type: 'suspend'; readonly listener: number }
  | {
      readonly type: 'resume'
      readonly listener: number
      /** Another process accepts those who come. */
      readonly isDeaf: boolean
    }
  /** Of a suspended listener, whose messages have been dealt with: answered by `described`. */
  | { readonly type: 'describe'; readonly listener: number }
  /** As `ignore`, but nothing is written any more: another process has the connections. */
  | { readonly type: 'let-go'; readonly listener: number }
  /** The same of one connection. */
  | { readonly type: 'leave'; readonly connection: number }
  | { readonly type: 'send'; readonly connection: number; readonly data: Uint8Array }
  /** Is answered by `drained` when the peer has taken everything, unless the connection ends. */
  | { readonly type: 'tell-drained'; readonly connection: number }
  /** The oldest message of a connection that has not been dealt with has been. */
  | { readonly type: 'answered'; readonly connection: number }
  /** No more is read; what was sent is written as far as the peer takes it within a time. */
  | { readonly type: 'hang-up'; readonly connection: number }
  /** Nothing of a closed connection is left: there is room for another one. */
  | { readonly type: 'released'; readonly listener: number }
  /**
   * Tells once (`readable`) when one of these events is there at the descriptor, which stays the main
   * thread's; `watch` numbers it.
   */
  | {
      readonly type: 'watch'
      readonly watch: number
      readonly fd: number
      readonly events: number
    }
  | { readonly type: 'unwatch'; readonly watch: number }

/** To the main thread. `fds` belong to the receiver. */
export type SocketEvent =
  | {
      readonly type: 'open'
      readonly listener: number
      readonly connection: number
      readonly token: number | undefined
    }
  | { readonly type: 'suspended'; readonly listener: number }
  | {
      readonly type: 'described'
      readonly listener: number
      readonly connections: readonly SuspendedConnection[]
    }
  | {
      readonly type: 'item'
      readonly connection: number
      readonly item: SocketItem
      readonly fds: number[]
    }
  /** `isCut`: it was we who ended it; what it said and was not carried out is void. */
  | { readonly type: 'close'; readonly connection: number; readonly isCut: boolean }
  | { readonly type: 'drained'; readonly connection: number }
  | { readonly type: 'ignored'; readonly listener: number }
  | { readonly type: 'readable' | 'unwatched'; readonly watch: number }
