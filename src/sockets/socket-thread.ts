/**
 * The main thread's end of the I/O thread: listeners, and the connections that they bring. There is
 * one thread in a process, started by the first user and ended by the last.
 */
import { POLLIN } from '../abi/epoll.ts'
import { StateError } from '../errors.ts'
import { makeEpoll, makeEventFd } from '../native/event-fd.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import { WORKER_SLEEP_MAX_MS } from '../native/worker-exit.ts'
import type { WorkerFailure } from '../native/worker-thread.ts'
import { WorkerThread } from '../native/worker-thread.ts'
import type {
  ConnectionState,
  Framing,
  SocketEvent,
  SocketItem,
  SocketRequest,
  SocketWorkerData,
  SuspendedConnection,
} from './socket-messages.ts'

/** What a listener's owner is told. */
export interface SocketHandlers {
  /** `token`: see SocketThread.adopt. */
  opened(connection: number, token?: number): void
  /** `fds` belong to the receiver. Each item is answered for by `answered`, else no more come. */
  received(connection: number, item: SocketItem, fds: number[]): void
  /**
   * `isCut`: it was we who ended it; what it said and was not carried out is void. Resolves when
   * nothing of the connection is left: then there is room for another one.
   */
  closed(connection: number, isCut: boolean): Promise<void>
  /** The I/O thread is gone: all connections were closed, and none will come. */
  failed(error: Error): void
}

let shared: SocketThread | undefined

export class SocketThread {
  readonly #eventFd: number
  readonly #claim: FdClaim
  readonly #thread: WorkerThread<SocketRequest, SocketEvent>
  readonly #epollClaim: FdClaim
  readonly #handlers = new Map<number, SocketHandlers>()
  readonly #listenerOf = new Map<number, number>()
  readonly #ignored = new Map<number, () => void>()
  readonly #suspended = new Map<number, () => void>()
  readonly #described = new Map<number, (all: readonly SuspendedConnection[]) => void>()
  readonly #stop: Int32Array = new Int32Array(new SharedArrayBuffer(4))
  readonly #watches = new Map<number, () => void>()
  readonly #drained = new Map<number, () => void>()
  #users = 0
  #nextListener = 1
  #nextWatch = 1
  #hasEnded = false

  private constructor() {
    this.#eventFd = makeEventFd()
    const workerData: SocketWorkerData = {
      eventFd: this.#eventFd,
      epoll: makeEpollOr(() => shim.close(this.#eventFd)),
      sleepMaxMs: WORKER_SLEEP_MAX_MS,
      stop: this.#stop,
    }
    try {
      this.#thread = new WorkerThread(
        new URL('../sockets/socket-worker.js', import.meta.url),
        workerData,
        {
          message: (event: SocketEvent) => this.#receive(event),
          ended: (failure) => this.#ended(failure),
        },
        () => {
          Atomics.store(this.#stop, 0, 1)
          shim.eventfdWrite(this.#eventFd)
        },
      )
    } catch (error) {
      shim.close(workerData.epoll)
      shim.close(this.#eventFd)
      throw error
    }
    this.#claim = claimFd(this.#eventFd, 'the I/O thread is woken by it')
    this.#epollClaim = claimFd(workerData.epoll, 'the I/O thread waits at it')
  }

  /** The process's I/O thread; give it back with `release`. */
  static acquire(): SocketThread {
    shared ??= new SocketThread()
    shared.#users++
    return shared
  }

  /** After all of the user's listeners were ignored. */
  async release(): Promise<void> {
    if (--this.#users > 0) return
    if (shared === this) shared = undefined
    await this.#thread.end()
    shim.close(this.#eventFd)
    this.#claim.end()
  }

  /**
   * A group of connections, with a listening socket (which stays the caller's) or without (-1). With
   * `connectionsMax` the next ones wait until there is room; without, a listener of `json` ends the
   * connection that was idle longest.
   */
  listen(fd: number, framing: Framing, handlers: SocketHandlers, connectionsMax = 0): number {
    const listener = this.#nextListener++
    this.#handlers.set(listener, handlers)
    if (fd >= 0) this.#request({ type: 'listen', listener, fd, framing, connectionsMax })
    return listener
  }

  /**
   * A connected socket joins the group; it belongs to the I/O thread from now on. One that came from elsewhere
   * has a `state`, and `opened` is told its `token`.
   */
  adopt(
    listener: number,
    fd: number,
    framing: Framing,
    came?: { readonly state: ConnectionState; readonly token: number },
  ): void {
    if (this.#hasEnded) shim.close(fd)
    else this.#request({ type: 'adopt', listener, fd, framing, ...came })
  }

  /** Ends the listener's connections; when it resolves, nothing touches its socket any more. */
  ignore(listener: number): Promise<void> {
    return this.#leave(listener, 'ignore')
  }

  /** The same of connections that another process has: nothing more is written to them. */
  letGo(listener: number): Promise<void> {
    return this.#leave(listener, 'let-go')
  }

  async #leave(listener: number, type: 'ignore' | 'let-go'): Promise<void> {
    if (!this.#hasEnded) {
      const done = new Promise<void>((resolve) => this.#ignored.set(listener, resolve))
      this.#request({ type, listener })
      await done
    }
    this.#handlers.delete(listener)
  }

  /** Of a suspended connection that another process has: nothing more is written to it. */
  leave(connection: number): void {
    this.#request({ type: 'leave', connection })
  }

  /** Nobody is accepted and nothing is read until `resume`. What was read before has been told of. */
  async suspend(listener: number): Promise<void> {
    if (this.#hasEnded) return
    const done = new Promise<void>((resolve) => this.#suspended.set(listener, resolve))
    this.#request({ type: 'suspend', listener })
    await done
  }

  /** `isDeaf`: those that are connected go on, and others are not accepted any more. */
  resume(listener: number, isDeaf = false): void {
    this.#request({ type: 'resume', listener, isDeaf })
  }

  /** How far the connections of a suspended listener have come, whose messages have been dealt with. */
  async describe(listener: number): Promise<readonly SuspendedConnection[]> {
    if (this.#hasEnded) return []
    const described = new Promise<readonly SuspendedConnection[]>((resolve) =>
      this.#described.set(listener, resolve),
    )
    this.#request({ type: 'describe', listener })
    return described
  }

  /**
   * Calls `told` once, when there is something to read (POLLIN) or room to write (POLLOUT), or the other
   * end is gone. Returns its number, for `unwatch`. One at a time for each descriptor.
   */
  watch(fd: number, told: () => void, events: number = POLLIN): number {
    const watch = this.#nextWatch++
    this.#watches.set(watch, told)
    this.#request({ type: 'watch', watch, fd, events })
    return watch
  }

  /** When it resolves, nothing touches the descriptor any more. */
  async unwatch(watch: number): Promise<void> {
    if (this.#hasEnded) return
    const done = new Promise<void>((resolve) => this.#watches.set(watch, resolve))
    this.#request({ type: 'unwatch', watch })
    await done
  }

  send(connection: number, data: Uint8Array): void {
    this.#request({ type: 'send', connection, data })
  }

  /**
   * Resolves when everything sent has been taken, or the connection is over. One at a time for each
   * connection.
   */
  drained(connection: number): Promise<void> {
    if (!this.#listenerOf.has(connection)) return Promise.resolve()
    return new Promise((resolve) => {
      this.#drained.set(connection, resolve)
      this.#request({ type: 'tell-drained', connection })
    })
  }

  answered(connection: number): void {
    this.#request({ type: 'answered', connection })
  }

  /**
   * Ends a connection: nothing more is read from it, and what was sent is written as far as the peer
   * takes it within a second.
   */
  hangUp(connection: number): void {
    this.#request({ type: 'hang-up', connection })
  }

  #request(request: SocketRequest): void {
    // Its eventfd may be closed by now, and the number another's.
    if (this.#hasEnded) return
    this.#thread.post(request)
    shim.eventfdWrite(this.#eventFd)
  }

  /** The thread is gone; when nobody asked for it, whoever has connections is told. */
  #ended(failure: WorkerFailure | undefined): void {
    this.#hasEnded = true
    this.#epollClaim.end()
    if (shared === this) shared = undefined
    for (const connection of this.#listenerOf.keys()) {
      this.#receive({ type: 'close', connection, isCut: true })
    }
    for (const resolve of this.#ignored.values()) resolve()
    this.#ignored.clear()
    for (const resolve of this.#suspended.values()) resolve()
    this.#suspended.clear()
    for (const resolve of this.#described.values()) resolve([])
    this.#described.clear()
    const watches = [...this.#watches.values()]
    this.#watches.clear()
    for (const told of watches) told()
    if (failure === undefined) return
    const { reason, cause } = failure
    const error = new StateError('IO_THREAD_FAILED', `the I/O thread failed: ${reason}`, { cause })
    for (const handlers of this.#handlers.values()) handlers.failed(error)
  }

  #receive(event: SocketEvent): void {
    switch (event.type) {
      case 'open':
        this.#listenerOf.set(event.connection, event.listener)
        this.#handlers.get(event.listener)?.opened(event.connection, event.token)
        return
      case 'item': {
        const handlers = this.#handlersOf(event.connection)
        if (handlers === undefined) for (const fd of event.fds) shim.close(fd)
        else handlers.received(event.connection, event.item, event.fds)
        return
      }
      case 'close':
        this.#close(event.connection, event.isCut)
        this.#settleDrained(event.connection)
        return
      case 'drained':
        this.#settleDrained(event.connection)
        return
      case 'readable':
      case 'unwatched': {
        // What can be read is out of epoll: to `unwatch` that is an answer as well.
        const told = this.#watches.get(event.watch)
        this.#watches.delete(event.watch)
        told?.()
        return
      }
      case 'suspended':
        this.#suspended.get(event.listener)?.()
        this.#suspended.delete(event.listener)
        return
      case 'described':
        this.#described.get(event.listener)?.(event.connections)
        this.#described.delete(event.listener)
        return
      case 'ignored':
        this.#ignored.get(event.listener)?.()
        this.#ignored.delete(event.listener)
    }
  }

  #close(connection: number, isCut: boolean): void {
    const listener = this.#listenerOf.get(connection)
    const handlers = this.#handlersOf(connection)
    this.#listenerOf.delete(connection)
    if (listener === undefined) return
    const released = (): void => this.#request({ type: 'released', listener })
    void (handlers?.closed(connection, isCut) ?? Promise.resolve()).finally(released)
  }

  #settleDrained(connection: number): void {
    this.#drained.get(connection)?.()
    this.#drained.delete(connection)
  }

  #handlersOf(connection: number): SocketHandlers | undefined {
    return this.#handlers.get(this.#listenerOf.get(connection) ?? -1)
  }
}

function makeEpollOr(onFailure: () => void): number {
  try {
    return makeEpoll()
  } catch (error) {
    onFailure()
    throw error
  }
}
