/**
 * The socket of a vhost-user port: listens on a path, or connects to it again and again, and gives
 * every connection a session. The bytes and descriptors are the I/O thread's (sockets/).
 */
import { lstatSync, unlinkSync } from 'node:fs'
import { ENOENT } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { ProtocolError, StateError, SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from '../sockets/listen.ts'
import { listenOn, SOCK_STREAM } from '../sockets/listen.ts'
import type { MessageItem } from '../sockets/message-stream.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import type { VhostUserSession } from './session.ts'

const BACKLOG = 16
/** A front-end that is not there is tried for ever, at first often. */
const RECONNECT_MS_MIN = 50
const RECONNECT_MS_MAX = 2000

export interface ListenerOptions {
  readonly path: string
  /** True: we listen on the path; false: the front-end does, and we connect. */
  readonly isServer: boolean
  readonly makeSession: () => VhostUserSession
  readonly log: (message: string) => void
}

interface Connection {
  readonly session: VhostUserSession
  isBroken: boolean
}

export class VhostUserListener {
  readonly #options: ListenerOptions
  readonly #listenFd: number
  readonly #inode: number
  readonly #connections = new Map<number, Connection>()
  #sockets: SocketThread | undefined
  #group = -1
  /**
   * The end of the queue of messages, of all connections together: what two front-ends of a port
   * say about the same engine's port is carried out one after the other.
   */
  #last: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #waitMs = RECONNECT_MS_MIN
  #isClosed = false

  /** Binds the path; throws when somebody else answers on it. */
  constructor(options: ListenerOptions) {
    this.#options = options
    this.#listenFd = options.isServer
      ? listenOn(options.path, BACKLOG, listenErrors(options.path))
      : -1
    this.#inode = options.isServer ? lstatSync(options.path).ino : -1
  }

  /** From now on there are sessions. */
  start(): void {
    this.#sockets = SocketThread.acquire()
    this.#group = this.#sockets.listen(this.#listenFd, 'vhost-user', {
      opened: (connection) => this.#opened(connection),
      received: (connection, item, fds) => this.#received(connection, item as MessageItem, fds),
      closed: (connection) => this.#closed(connection),
    })
    if (!this.#options.isServer) this.#connect()
  }

  #connect(): void {
    if (this.#isClosed) return
    const fd = shim.socketUnix(SOCK_STREAM)
    const result = fd < 0 ? fd : shim.connectUnix(fd, this.#options.path)
    if (result === 0) {
      this.#waitMs = RECONNECT_MS_MIN
      this.#sockets!.adopt(this.#group, fd, 'vhost-user')
      return
    }
    if (fd >= 0) shim.close(fd)
    this.#connectLater()
  }

  #connectLater(): void {
    this.#timer = setTimeout(() => this.#connect(), this.#waitMs)
    this.#waitMs = Math.min(2 * this.#waitMs, RECONNECT_MS_MAX)
  }

  #opened(connection: number): void {
    const session = this.#options.makeSession()
    this.#connections.set(connection, { session, isBroken: false })
  }

  #received(number: number, item: MessageItem, fds: number[]): void {
    const connection = this.#connections.get(number)
    if (connection === undefined) {
      for (const fd of fds) shim.close(fd)
      return
    }
    this.#last = this.#last
      .then(() => this.#handle(number, connection, item, fds))
      .finally(() => this.#sockets!.answered(number))
  }

  async #handle(
    number: number,
    connection: Connection,
    item: MessageItem,
    fds: number[],
  ): Promise<void> {
    if (connection.isBroken) {
      for (const fd of fds) shim.close(fd)
      return
    }
    try {
      if (item.error !== undefined) {
        for (const fd of fds) shim.close(fd)
        throw new ProtocolError('VHOST_USER_PROTOCOL', item.error)
      }
      const reply = await connection.session.handle(item.message, fds)
      if (reply !== null) this.#sockets!.send(number, reply)
    } catch (error) {
      // Whatever went wrong, it went wrong with this peer.
      this.#options.log(`front-end hung up on: ${(error as Error).message}`)
      connection.isBroken = true
      this.#sockets!.hangUp(number)
    }
  }

  #closed(number: number): void {
    const connection = this.#connections.get(number)
    this.#connections.delete(number)
    if (connection === undefined) return
    this.#last = this.#last
      .then(() => this.#end(connection.session))
      .finally(() => {
        if (!this.#options.isServer && !this.#isClosed) this.#connectLater()
      })
  }

  async #end(session: VhostUserSession): Promise<void> {
    try {
      await session.close()
    } catch (error) {
      this.#options.log((error as Error).message)
    }
  }

  /** Does something between two messages. */
  async run(action: () => Promise<void>): Promise<void> {
    const done = this.#last.then(action)
    this.#last = done.catch(() => undefined)
    await done
  }

  /** Ends every connection because of what happened to the port. */
  hangUp(): void {
    for (const number of this.#connections.keys()) this.#sockets?.hangUp(number)
  }

  /** Ends all sessions, removes the socket file if it is still ours. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    if (this.#sockets !== undefined) {
      await this.#sockets.ignore(this.#group)
      await this.#last
      await this.#sockets.release()
    }
    if (this.#listenFd < 0) return
    shim.close(this.#listenFd)
    try {
      if (lstatSync(this.#options.path).ino === this.#inode) unlinkSync(this.#options.path)
    } catch {
      // Somebody removed it before.
    }
  }
}

function listenErrors(path: string): ListenErrors {
  return {
    notSocket: () => new StateError('VHOST_USER_SOCKET', `${path} exists and is no socket`),
    busy: () =>
      new StateError('VHOST_USER_SOCKET', `somebody else listens on ${path}`, {
        hint: 'end it, or give another path=',
      }),
    failed: (syscall, errno) =>
      new SysError('VHOST_USER_SOCKET', `vhost-user socket ${path}: ${strerror(errno)}`, {
        syscall,
        errno,
        path,
        hint: errno === ENOENT ? 'make its directory first' : undefined,
      }),
  }
}
