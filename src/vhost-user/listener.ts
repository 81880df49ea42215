/**
 * The socket of a vhost-user port: listens on a path, or connects to it again and again, and gives
 * every connection a session. The bytes and descriptors are the I/O thread's (sockets/).
 */
import { strerror } from '../abi/strerror.ts'
import { ProtocolError, StateError, SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from '../sockets/listen.ts'
import { SOCK_STREAM } from '../sockets/listen.ts'
import type { SocketKeeper } from '../sockets/kept.ts'
import type { CameSocket } from '../sockets/listening-socket.ts'
import { ListeningSocket } from '../sockets/listening-socket.ts'
import type { MessageItem } from '../sockets/message-stream.ts'
import type { ConnectionState } from '../sockets/socket-messages.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import type { VhostUserSession } from './session.ts'

const BACKLOG = 16
/**
 * Front-ends of a port at once: the one that runs, one that waits to take over, and one that looks
 * what the port offers. The next ones wait in the backlog.
 */
export const CONNECTIONS_MAX = 3
/** A front-end that is not there is tried for ever, at first often. */
const RECONNECT_MS_MIN = 50
const RECONNECT_MS_MAX = 2000

export interface ListenerOptions {
  /** Of its port. */
  readonly id: string
  readonly path: string
  /** True: we listen on the path; false: the front-end does, and we connect. */
  readonly isServer: boolean
  /**
   * How long nothing more is read from a front-end that was just heard, and nobody takes the place of
   * one that has just gone.
   */
  readonly waitMs: () => number
  /** For a connection that came; throws when there is nothing left for it. */
  readonly makeSession: () => VhostUserSession
  readonly log: Log
  readonly keeper: SocketKeeper | undefined
  /** No front-end can come any more. */
  readonly failed: (reason: string) => void
}

/** A connection that goes from one process to another. */
export interface PassedConnection {
  readonly fd: number
  readonly state: ConnectionState
  readonly session: VhostUserSession
}

/** What another process had, which is the listener's from its construction on. */
export interface CameListener {
  /** Absent: the front-end listens. */
  readonly socket: CameSocket | undefined
  readonly connections: readonly PassedConnection[]
}

interface Connection {
  readonly number: number
  readonly session: VhostUserSession
  /** What it said is void, and it is not heard any more. */
  isBroken: boolean
  /** When nothing of it is left. */
  readonly ended: Promise<void>
  readonly end: () => void
}

/** What a connection said, or that it is over. */
type Job =
  | {
      readonly connection: Connection
      readonly item: MessageItem
      readonly fds: number[]
    }
  | { readonly connection: Connection; readonly item: null }

export class VhostUserListener {
  readonly #options: ListenerOptions
  /** Absent: the front-end listens. */
  readonly #socket: ListeningSocket | undefined
  /** Those that are heard, and those that are not but whose socket is still there. */
  readonly #connections = new Map<number, Connection>()
  readonly #broken = new Map<number, Connection>()
  #sockets: SocketThread | undefined
  #group = -1
  /**
   * Messages of all connections together: what two front-ends of a port say about the same engine's
   * port is carried out one after the other. The end of a broken connection goes before all of them.
   */
  #jobs: Job[] = []
  readonly #endings: Connection[] = []
  /** As many steps as there were jobs, one after the other. */
  #last: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  /** What ends each of the pauses that are under way. */
  readonly #pauses = new Set<() => void>()
  #waitMs = RECONNECT_MS_MIN
  #isClosed = false
  /** Nothing is heard: another process may have it. */
  #isSuspended = false
  /** Everything that was ever heard of connections: as long as it is the same, their descriptors are. */
  #heard = 0
  /** Those to be ended when that is over. */
  readonly #endLater = new Set<VhostUserSession>()
  /** Until they are the I/O thread's. */
  #came: readonly PassedConnection[] = []

  /** Binds the path; throws when somebody else answers on it. */
  constructor(options: ListenerOptions, came?: CameListener) {
    this.#options = options
    if (options.isServer) {
      const { id, path, keeper } = options
      const errors = listenErrors(path)
      this.#socket = new ListeningSocket(path, BACKLOG, `port "${id}"`, errors, {
        came: came?.socket,
        keeper,
      })
    }
    this.#came = came?.connections ?? []
  }

  /** For another process: the listening socket, and the directory that was made for it. */
  get socket(): CameSocket | undefined {
    const socket = this.#socket
    return socket === undefined ? undefined : { fd: socket.fd, made: socket.file.made }
  }

  /** Whether its file goes with this process, or may be another's. */
  set ownsFile(isOurs: boolean) {
    if (isOurs) this.#socket?.own()
    else this.#socket?.file.disown()
  }

  get heard(): number {
    return this.#heard
  }

  /** From now on there are sessions. */
  start(): void {
    this.#sockets = SocketThread.acquire()
    this.#group = this.#sockets.listen(
      this.#socket?.fd ?? -1,
      'vhost-user',
      {
        opened: (connection, token) => this.#opened(connection, token),
        received: (connection, item, fds) => this.#received(connection, item as MessageItem, fds),
        closed: (connection, isCut) => this.#closed(connection, isCut),
        failed: (error) => this.#options.failed(explain(error)),
      },
      CONNECTIONS_MAX,
    )
    for (const [token, { fd, state }] of this.#came.entries()) {
      this.#sockets.adopt(this.#group, fd, 'vhost-user', { state, token })
    }
    if (!this.#options.isServer && this.#came.length === 0) this.#connect()
  }

  /**
   * Nothing is heard or noticed from here on. Resolves with how far the connections have come, when all that
   * they had said is carried out and answered. The descriptors stay this process's.
   */
  async suspend(): Promise<readonly PassedConnection[]> {
    this.#isSuspended = true
    await this.#sockets!.suspend(this.#group)
    for (let last: Promise<void> | undefined; last !== this.#last;) {
      last = this.#last
      await last
    }
    const all = await this.#sockets!.describe(this.#group)
    return all.flatMap(({ connection, fd, ...state }) => {
      const { session } = this.#connections.get(connection) ?? {}
      return session === undefined ? [] : [{ fd, state, session }]
    })
  }

  resume(): void {
    this.#isSuspended = false
    this.#sockets!.resume(this.#group)
    for (const session of this.#endLater) this.hangUp(session)
    this.#endLater.clear()
    if (!this.#options.isServer && this.#connections.size === 0) this.#connect()
  }

  #connect(): void {
    if (this.#isClosed || this.#isSuspended) return
    clearTimeout(this.#timer)
    const fd = shim.socketUnix(SOCK_STREAM)
    const result = fd < 0 ? fd : shim.connectUnix(fd, this.#options.path)
    if (result === 0) {
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

  #opened(number: number, token: number | undefined): void {
    this.#heard++
    let end!: () => void
    const ended = new Promise<void>((resolve) => {
      end = resolve
    })
    try {
      const session = token === undefined ? this.#options.makeSession() : this.#came[token].session
      this.#connections.set(number, { number, session, isBroken: false, ended, end })
    } catch (error) {
      this.#options.log(`front-end hung up on: ${explain(error)}`, 'warning')
      this.#sockets!.hangUp(number)
    }
  }

  #received(number: number, item: MessageItem, fds: number[]): void {
    this.#heard++
    const connection = this.#connections.get(number)
    if (connection === undefined) {
      this.#sockets!.answered(number)
      for (const fd of fds) shim.close(fd)
    } else this.#add({ connection, item, fds })
  }

  #add(job: Job): void {
    this.#jobs.push(job)
    this.#last = this.#last.then(() => this.#step())
  }

  async #step(): Promise<void> {
    const ending = this.#endings.shift()
    if (ending !== undefined) return this.#end(ending)
    const job = this.#jobs.shift()
    if (job === undefined) return
    if (job.item === null) return this.#end(job.connection)
    await this.#handle(job.connection, job.item, job.fds)
    this.#answer(job.connection)
  }

  /** Whoever does too much is read later; what others say, and the end of this one, does not wait. */
  #answer({ number, isBroken }: Connection): void {
    const answered = (): void => this.#sockets!.answered(number)
    const waitMs = isBroken ? 0 : this.#options.waitMs()
    if (waitMs === 0) answered()
    else void this.#pause(waitMs).then(answered)
  }

  /** Ends with the listener at the latest. */
  #pause(ms: number): Promise<void> {
    if (ms === 0 || this.#isClosed) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#pauses.delete(end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      this.#pauses.add(end)
    })
  }

  async #handle(connection: Connection, item: MessageItem, fds: number[]): Promise<void> {
    try {
      if (item.error !== undefined) {
        for (const fd of fds) shim.close(fd)
        throw new ProtocolError('VHOST_USER_PROTOCOL', item.error)
      }
      const reply = await connection.session.handle(item.message, fds)
      if (reply !== null && !connection.isBroken) this.#sockets!.send(connection.number, reply)
    } catch (error) {
      if (connection.isBroken) return
      // Whatever went wrong, it went wrong with this peer.
      this.#options.log(`front-end hung up on: ${explain(error)}`, 'warning')
      this.#break(connection)
    }
  }

  /**
   * The session ends as the next thing that is done: nothing that the connection said is carried out
   * any more, and its queues do not wait for somebody to read what is still to be written.
   */
  #break(connection: Connection): void {
    if (connection.isBroken) return
    this.#heard++
    connection.isBroken = true
    const isOpen = this.#connections.delete(connection.number)
    if (isOpen) this.#broken.set(connection.number, connection)
    this.#sockets!.hangUp(connection.number)
    const isItsOwn = (job: Job): boolean => job.connection === connection
    for (const job of this.#jobs.filter(isItsOwn)) {
      if (job.item !== null) for (const fd of job.fds) shim.close(fd)
    }
    this.#jobs = this.#jobs.filter((job) => !isItsOwn(job))
    this.#endings.push(connection)
    this.#last = this.#last.then(() => this.#step())
  }

  #closed(number: number, isCut: boolean): Promise<void> {
    this.#heard++
    const connection = this.#connections.get(number) ?? this.#broken.get(number)
    if (connection === undefined) return Promise.resolve()
    if (isCut) this.#break(connection)
    this.#connections.delete(number)
    this.#broken.delete(number)
    if (!connection.isBroken) {
      this.#waitMs = RECONNECT_MS_MIN
      this.#add({ connection, item: null })
    }
    return connection.ended.then(() => {
      if (this.#options.isServer) return this.#pause(this.#options.waitMs())
      if (!this.#isClosed) this.#connectLater()
      return undefined
    })
  }

  async #end({ session, end }: Connection): Promise<void> {
    try {
      await session.close()
    } catch (error) {
      this.#options.log(explain(error), 'warning')
    } finally {
      end()
    }
  }

  /** Ends the connection of a session because of what happened to the port. */
  hangUp(session: VhostUserSession): void {
    if (this.#isSuspended) {
      this.#endLater.add(session)
      return
    }
    const open = [...this.#connections.values(), ...this.#jobs.map(({ connection }) => connection)]
    for (const connection of open) if (connection.session === session) this.#break(connection)
  }

  /** Ends all sessions, removes the socket file if it is still ours. */
  async close(): Promise<void> {
    await this.#leave(false)
    this.#socket?.close()
  }

  /** Another process has its sockets: nothing is said to anybody, and the file stays. */
  async letGo(): Promise<void> {
    await this.#leave(true)
    if (this.#sockets === undefined) {
      for (const { fd, state, session } of this.#came) {
        for (const own of [fd, ...state.fds]) shim.close(own)
        await session.close()
      }
    }
    this.#socket?.letGo()
  }

  async #leave(isAnothers: boolean): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    for (const end of this.#pauses) end()
    const sockets = this.#sockets
    if (sockets === undefined) return
    await (isAnothers ? sockets.letGo(this.#group) : sockets.ignore(this.#group))
    await this.#last
    await sockets.release()
  }
}

function listenErrors(path: string): ListenErrors {
  return {
    notSocket: () =>
      new StateError('VHOST_USER_SOCKET', `${path} exists and is not a socket`, {
        hint: 'give another path=',
      }),
    busy: (pid, owner) => {
      const other = pid === null ? 'somebody else' : `another process (pid ${pid})`
      return new StateError('VHOST_USER_SOCKET', `${owner ?? other} listens on ${path}`, {
        hint: owner === undefined ? 'end it, or give another path=' : 'give another path=',
      })
    },
    failed: (what, syscall, errno, hint) => {
      const reason = [what, strerror(errno)].filter((text) => text !== '').join(': ')
      return new SysError('VHOST_USER_SOCKET', `vhost-user socket ${path}: ${reason}`, {
        syscall,
        errno,
        path,
        hint,
      })
    },
  }
}
