/**
 * The I/O thread: the one place that serves sockets which may carry descriptors (Node's own sockets
 * silently drop them). It waits in epoll, splits what arrives into messages, and posts them to the
 * main thread. A peer that stalls, floods or never reads stalls nobody else: it is read no further
 * than the main thread has answered.
 *
 * Of a listener with `connectionsMax` the next peers wait in the backlog. A control socket (`json`)
 * always takes one more: the one that was idle longest goes, so that nobody locks an operator out.
 * When the process has no descriptor left, peers wait; those of a control socket get one of a
 * reserve.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, POLLIN, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN, ECONNABORTED, EMFILE, ENFILE } from '../abi/errno.ts'
import { Window } from '../mem/window.ts'
import { dropThreadCapabilities } from '../native/capabilities.ts'
import { EPOLL_ROW_INTS, shim } from '../native/shim.ts'
import { Connection } from './connection.ts'
import { CONTROL_CONNECTIONS_MAX, CONTROL_CONNECTIONS_PER_USER_MAX } from './limits.ts'
import type {
  ConnectionState,
  Framing,
  SocketEvent,
  SocketRequest,
  SocketWorkerData,
} from './socket-messages.ts'

/**
 * Peers accepted before others are looked at: those that come and go in quick succession would else
 * fill the limit with connections that nobody has yet seen to be gone.
 */
const ACCEPTED_MAX = 16
/** Descriptors kept for control connections. */
const RESERVE_FDS = 8
/** How long a listener that cannot accept is left alone, and the reserve short. */
const PAUSE_MS = 100
/** How long a connection that is hung up may take for what is still to be written. */
const OUTPUT_DEADLINE_MS = 1000
const EVENTS_MAX = 64
const EFD_CLOEXEC = 0o2000000

interface Listener {
  readonly number: number
  readonly fd: number
  readonly framing: Framing
  /** 0: no limit, but those of a control socket. */
  readonly connectionsMax: number
  /** Connections that the main thread still has something of. */
  held: number
  isWatched: boolean
  isSuspended: boolean
  /** It is looked at again from this time on; Infinity: nothing is in its way. */
  resumeMs: number
}

dropThreadCapabilities()
const { eventFd, epoll, sleepMaxMs, stop } = workerData as SocketWorkerData
const port = parentPort!
const table = Window.map(EVENTS_MAX * EPOLL_ROW_INTS * 4)
const rows = new Int32Array(table.buffer)
const listeners = new Map<number, Listener>()
const connections = new Map<number, Connection>()
/** Descriptors that are watched, by number: in epoll until they can be read. */
const watches = new Map<number, number>()
/** What a time is kept for. */
const paused = new Set<Listener>()
const hangingUp = new Set<Connection>()
const reserve: number[] = []
let nextConnection = 1

/** epoll data: connections have their number, listeners theirs below -1, and watches far below. */
const EVENT = -1
const WATCHES = -0x4000_0000
const listenerData = (number: number): number => -2 - number

function post(event: SocketEvent): void {
  port.postMessage(event)
}

// --- listeners ------------------------------------------------------------------------------------

function isFull(listener: Listener): boolean {
  return listener.connectionsMax > 0 && listener.held >= listener.connectionsMax
}

/** Watches the listener while a peer of it could be accepted. */
function watchListener(listener: Listener): void {
  const isWatched = !isFull(listener) && !paused.has(listener) && !listener.isSuspended
  if (isWatched === listener.isWatched) return
  const { fd, number } = listener
  if (!isWatched) shim.epollCtl(epoll, EPOLL_CTL_DEL, fd, 0, 0)
  else if (shim.epollCtl(epoll, EPOLL_CTL_ADD, fd, POLLIN, listenerData(number)) < 0) {
    pause(listener)
    return
  }
  listener.isWatched = isWatched
}

function pause(listener: Listener): void {
  listener.resumeMs = performance.now() + PAUSE_MS
  paused.add(listener)
  watchListener(listener)
}

function accept(listener: Listener): void {
  const isControl = listener.framing === 'json'
  for (let accepted = 0; accepted < ACCEPTED_MAX && !isFull(listener); accepted++) {
    let fd = shim.accept(listener.fd)
    while (isControl && (fd === -EMFILE || fd === -ENFILE) && reserve.length > 0) {
      shim.close(reserve.pop()!)
      fd = shim.accept(listener.fd)
    }
    if (fd === -ECONNABORTED) continue
    if (fd === -EAGAIN) break
    if (fd < 0) {
      // No descriptor, no memory: the peer waits in the backlog, and would be announced for ever.
      pause(listener)
      return
    }
    connect(listener.number, fd, listener.framing)
  }
  watchListener(listener)
}

/** As many as belong there, if they are to be had. */
function fillReserve(): void {
  while (reserve.length < RESERVE_FDS) {
    const fd = shim.eventfd(0, EFD_CLOEXEC)
    if (fd < 0) return
    reserve.push(fd)
  }
}

/** Ends a connection of a control socket that has as many as it may have, `newest` among them. */
function makeRoom(newest: Connection): void {
  const all = [...connections.values()].filter(({ listener }) => listener === newest.listener)
  const of = (uid: number): Connection[] => all.filter((other) => other.uid === uid)
  let from = of(newest.uid)
  if (from.length <= CONTROL_CONNECTIONS_PER_USER_MAX) {
    if (all.length <= CONTROL_CONNECTIONS_MAX) return
    // Of the user who has most.
    for (const { uid } of all) if (of(uid).length > from.length) from = of(uid)
  }
  const [victim] = (from.length > 1 ? from : all).filter((other) => other !== newest).sort(byUse)
  cut(victim)
}

/** Those first that nobody misses: idle, never heard of, long silent. */
function byUse(a: Connection, b: Connection): number {
  return (
    Number(a.isBusy) - Number(b.isBusy) ||
    Number(a.hasSpoken) - Number(b.hasSpoken) ||
    a.lastMs - b.lastMs
  )
}

// --- connections ----------------------------------------------------------------------------------

function connect(
  listener: number,
  fd: number,
  framing: Framing,
  state?: ConnectionState,
  token?: number,
): void {
  const connection = new Connection(nextConnection++, listener, fd, framing, epoll, state)
  connections.set(connection.number, connection)
  const owner = listeners.get(listener)
  if (owner !== undefined) owner.held++
  post({ type: 'open', listener, connection: connection.number, token })
  if (framing === 'json') makeRoom(connection)
  goOn(connection, connection.watch())
}

function drop(connection: Connection, isCut: boolean): void {
  connection.close()
  connections.delete(connection.number)
  hangingUp.delete(connection)
  post({ type: 'close', connection: connection.number, isCut })
  // Now: what was freed may have been of the reserve.
  fillReserve()
}

const cut = (connection: Connection): void => drop(connection, true)

/** Drops a connection that cannot go on. */
function goOn(connection: Connection, canGoOn: boolean): void {
  if (!canGoOn) drop(connection, connection.isHangingUp || connection.isDeaf)
}

function tellDrained(connection: Connection): void {
  if (connection.takeDrained()) post({ type: 'drained', connection: connection.number })
}

function serveEvents(connection: Connection, events: number): void {
  if ((events & POLLOUT) !== 0 && !connection.write()) return goOn(connection, false)
  tellDrained(connection)
  if ((events & ~POLLOUT) === 0) return
  const { number } = connection
  const canGoOn = connection.read((item, fds) => {
    post({ type: 'item', connection: number, item, fds })
  })
  goOn(connection, canGoOn)
}

// --- what the main thread asks ----------------------------------------------------------------------

function connectionsOf(listener: number): Connection[] {
  return [...connections.values()].filter((connection) => connection.listener === listener)
}

function suspend(number: number, isSuspended: boolean, isDeaf: boolean): void {
  const listener = listeners.get(number)
  if (listener !== undefined) {
    listener.isSuspended = isDeaf
    watchListener(listener)
  }
  for (const connection of connectionsOf(number)) {
    goOn(connection, connection.suspend(isSuspended))
  }
}

function describe(listener: number): void {
  const described = connectionsOf(listener).map((connection) => ({
    connection: connection.number,
    fd: connection.fd,
    ...connection.state,
  }))
  post({ type: 'described', listener, connections: described })
}

/**
 * Whatever `listener` has is ended; what is still to be said is said, as far as the peers take it, unless
 * they are another process's now.
 */
function ignore(number: number, isAnothers: boolean): void {
  const listener = listeners.get(number)
  if (listener !== undefined) {
    if (listener.isWatched) shim.epollCtl(epoll, EPOLL_CTL_DEL, listener.fd, 0, 0)
    paused.delete(listener)
    listeners.delete(number)
  }
  for (const connection of connectionsOf(number)) {
    if (!isAnothers) connection.hangUp(0)
    cut(connection)
  }
  post({ type: 'ignored', listener: number })
}

function unwatch(watch: number): void {
  const fd = watches.get(watch)
  if (fd !== undefined) shim.epollCtl(epoll, EPOLL_CTL_DEL, fd, 0, 0)
  watches.delete(watch)
}

function serve(request: SocketRequest): void {
  switch (request.type) {
    case 'listen': {
      const { listener: number, fd, framing, connectionsMax } = request
      const state = { held: 0, isWatched: false, isSuspended: false, resumeMs: Infinity }
      const listener = { number, fd, framing, connectionsMax, ...state }
      listeners.set(number, listener)
      return watchListener(listener)
    }
    case 'adopt':
      return connect(request.listener, request.fd, request.framing, request.state, request.token)
    case 'suspend':
      suspend(request.listener, true, true)
      return post({ type: 'suspended', listener: request.listener })
    case 'resume':
      return suspend(request.listener, false, request.isDeaf)
    case 'describe':
      return describe(request.listener)
    case 'ignore':
    case 'let-go':
      return ignore(request.listener, request.type === 'let-go')
    case 'released': {
      const listener = listeners.get(request.listener)
      if (listener === undefined) return
      listener.held--
      return watchListener(listener)
    }
    case 'watch':
      watches.set(request.watch, request.fd)
      shim.epollCtl(epoll, EPOLL_CTL_ADD, request.fd, request.events, WATCHES - request.watch)
      return
    case 'unwatch':
      unwatch(request.watch)
      return post({ type: 'unwatched', watch: request.watch })
    default:
      return serveConnection(request)
  }
}

function serveConnection(
  request: SocketRequest & { type: 'send' | 'answered' | 'hang-up' | 'leave' | 'tell-drained' },
): void {
  const connection = connections.get(request.connection)
  if (connection === undefined) return
  switch (request.type) {
    case 'leave':
      return cut(connection)
    case 'answered':
      return goOn(connection, connection.answered())
    case 'send':
      return goOn(connection, connection.send(request.data))
    case 'tell-drained':
      connection.isAwaited = true
      return tellDrained(connection)
    case 'hang-up':
      hangingUp.add(connection)
      return goOn(connection, connection.hangUp(performance.now() + OUTPUT_DEADLINE_MS))
  }
}

function serveRequests(): void {
  shim.eventfdRead(eventFd)
  for (;;) {
    const message = receiveMessageOnPort(port)
    if (message === undefined) return
    serve(message.message)
  }
}

// --- what happens by time ---------------------------------------------------------------------------

/** Milliseconds until something is due, or sleeps end; -1: nothing is. */
function waitMs(): number {
  let due = reserve.length < RESERVE_FDS ? performance.now() + PAUSE_MS : Infinity
  for (const { resumeMs } of paused) due = Math.min(due, resumeMs)
  for (const { endMs } of hangingUp) due = Math.min(due, endMs)
  if (sleepMaxMs >= 0) due = Math.min(due, performance.now() + sleepMaxMs)
  return due === Infinity ? -1 : Math.max(0, Math.ceil(due - performance.now()))
}

function serveTimes(): void {
  fillReserve()
  if (paused.size + hangingUp.size === 0) return
  const now = performance.now()
  for (const listener of paused) {
    if (listener.resumeMs > now) continue
    paused.delete(listener)
    watchListener(listener)
  }
  for (const connection of hangingUp) if (connection.endMs <= now) cut(connection)
}

function run(): void {
  fillReserve()
  if (shim.epollCtl(epoll, EPOLL_CTL_ADD, eventFd, POLLIN, EVENT) < 0) {
    throw new Error('the I/O thread cannot be woken')
  }
  while (Atomics.load(stop, 0) === 0) {
    const count = shim.epollWait(epoll, table.id, 0, EVENTS_MAX, waitMs())
    for (let k = 0; k < count; k++) {
      const events = rows[k * EPOLL_ROW_INTS]
      const data = rows[k * EPOLL_ROW_INTS + 1]
      if (data === EVENT) serveRequests()
      else if (data <= WATCHES) {
        unwatch(WATCHES - data)
        post({ type: 'readable', watch: WATCHES - data })
      } else if (data < EVENT) {
        const listener = listeners.get(-2 - data)
        if (listener !== undefined) accept(listener)
      } else {
        const connection = connections.get(data)
        if (connection !== undefined) serveEvents(connection, events)
      }
    }
    serveTimes()
  }
}

try {
  run()
} finally {
  // Also when it failed: the peers see that nobody is here any more.
  for (const connection of connections.values()) cut(connection)
  for (const fd of reserve) shim.close(fd)
  shim.close(epoll)
  table.unmap()
  port.close()
}
