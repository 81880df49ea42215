/**
 * The I/O thread: the one place that serves sockets which may carry descriptors (Node's own sockets
 * silently drop them). It waits in epoll, splits what arrives into messages, and posts them to the
 * main thread. A peer that stalls, floods or never reads stalls nobody else: it is read no further
 * than the main thread has answered.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, POLLIN, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN } from '../abi/errno.ts'
import { Window } from '../mem/window.ts'
import { dropThreadCapabilities } from '../native/capabilities.ts'
import { EPOLL_ROW_INTS, shim } from '../native/shim.ts'
import type { JsonItem } from './json-stream.ts'
import { JsonStream } from './json-stream.ts'
import type { MessageItem } from './message-stream.ts'
import { MessageStream } from './message-stream.ts'

/** Connections of one listener. */
const CONNECTIONS_MAX = 64
/** Bytes that wait for a peer which does not read; more ends the connection. */
const OUTPUT_MAX = 4 * 1024 * 1024
/** Descriptors of one connection that no message has claimed. */
const FDS_MAX = 16
/** Messages of one connection that the main thread has not answered for. */
const UNANSWERED_MAX = 64
const EVENTS_MAX = 64
const READ_LENGTH = 65536

/** What a connection speaks: JSON values one after another, or vhost-user messages. */
export type Framing = 'json' | 'vhost-user'
export type SocketItem = JsonItem | MessageItem

export interface SocketWorkerData {
  readonly eventFd: number
}

/** From the main thread. Numbers of listeners and of adopted connections are its own. */
export type SocketRequest =
  /** `fd` listens, and stays the main thread's: it closes it after `ignored`. */
  | {
      readonly type: 'listen'
      readonly listener: number
      readonly fd: number
      readonly framing: Framing
    }
  | { readonly type: 'ignore'; readonly listener: number }
  /** A connected socket, ours from now on, as a connection of `listener`. */
  | {
      readonly type: 'adopt'
      readonly listener: number
      readonly fd: number
      readonly framing: Framing
    }
  | { readonly type: 'send'; readonly connection: number; readonly data: Uint8Array }
  /** So many messages of a connection have been dealt with. */
  | { readonly type: 'answered'; readonly connection: number }
  | { readonly type: 'hang-up'; readonly connection: number }
  /** Tells once when the descriptor, which stays the main thread's, can be read; `watch` numbers it. */
  | { readonly type: 'watch'; readonly watch: number; readonly fd: number }
  | { readonly type: 'unwatch'; readonly watch: number }
  | { readonly type: 'close' }

/** To the main thread. `fds` belong to the receiver. */
export type SocketEvent =
  | { readonly type: 'open'; readonly listener: number; readonly connection: number }
  | {
      readonly type: 'item'
      readonly connection: number
      readonly item: SocketItem
      readonly fds: number[]
    }
  | { readonly type: 'close'; readonly connection: number }
  | { readonly type: 'ignored'; readonly listener: number }
  | { readonly type: 'readable'; readonly watch: number }
  | { readonly type: 'unwatched'; readonly watch: number }

interface Stream {
  readonly wanted?: number
  push(bytes: Uint8Array): SocketItem[]
}

interface Listener {
  readonly number: number
  readonly fd: number
  readonly framing: Framing
}

interface Connection {
  readonly listener: number
  readonly fd: number
  readonly framing: Framing
  readonly stream: Stream
  readonly output: Uint8Array[]
  outputLength: number
  /** Received descriptors, oldest first, until a message takes them along. */
  fds: number[]
  unanswered: number
  /** Out of epoll: else a peer that has hung up would be told of without end. */
  isParked: boolean
  isHangingUp: boolean
  /** The peer says nothing more, and waits for what it has asked (shutdown(2), `nc -N`). */
  isEnded: boolean
}

dropThreadCapabilities()
const { eventFd } = workerData as SocketWorkerData
const port = parentPort!
const epoll = shim.epollCreate()
const table = Window.map(EVENTS_MAX * EPOLL_ROW_INTS * 4)
const rows = new Int32Array(table.buffer)
const listeners = new Map<number, Listener>()
const connections = new Map<number, Connection>()
/** Descriptors that are watched, by number: in epoll until they can be read. */
const watches = new Map<number, number>()
const buffer = new Uint8Array(READ_LENGTH)
const received = new Int32Array(FDS_MAX)
const info = new Int32Array(2)
let nextConnection = 1
let isOpen = true

/** epoll data: connections have their number, listeners theirs below -1, and watches far below. */
const EVENT = -1
const WATCHES = -0x4000_0000
const listenerData = (number: number): number => -2 - number

function post(event: SocketEvent): void {
  port.postMessage(event)
}

function accept(listener: Listener): void {
  let count = 0
  for (const connection of connections.values()) {
    if (connection.listener === listener.number) count++
  }
  for (;;) {
    const fd = shim.accept(listener.fd)
    if (fd < 0) return
    if (count++ >= CONNECTIONS_MAX) shim.close(fd)
    else connect(listener.number, fd, listener.framing)
  }
}

function connect(listener: number, fd: number, framing: Framing): void {
  const number = nextConnection++
  connections.set(number, {
    listener,
    fd,
    framing,
    stream: framing === 'json' ? new JsonStream() : new MessageStream(),
    output: [],
    outputLength: 0,
    fds: [],
    unanswered: 0,
    isParked: false,
    isHangingUp: false,
    isEnded: false,
  })
  shim.epollCtl(epoll, EPOLL_CTL_ADD, fd, POLLIN, number)
  post({ type: 'open', listener, connection: number })
}

function drop(number: number, connection: Connection): void {
  if (!connection.isParked) shim.epollCtl(epoll, EPOLL_CTL_DEL, connection.fd, 0, 0)
  shim.close(connection.fd)
  for (const fd of connection.fds) shim.close(fd)
  connections.delete(number)
  post({ type: 'close', connection: number })
}

function read(number: number, connection: Connection): void {
  const { stream } = connection
  // As long as whole messages come in pieces that must be read apart, one after another.
  while (connection.unanswered < UNANSWERED_MAX) {
    const wanted = stream.wanted
    const space = wanted === undefined ? buffer : buffer.subarray(0, wanted)
    const got = shim.recvMsg(connection.fd, space, received, info, 0)
    if (got === -EAGAIN) break
    if (got === 0 && connection.framing === 'json') {
      connection.isEnded = true
      endAnswered(number, connection)
      return
    }
    if (got <= 0) {
      drop(number, connection)
      return
    }
    for (let k = 0; k < info[0]; k++) {
      // The newest are kept no longer than there is room: nobody asked for that many.
      if (connection.fds.length < FDS_MAX) connection.fds.push(received[k])
      else shim.close(received[k])
    }
    for (const item of stream.push(buffer.subarray(0, got))) {
      const { fds } = connection
      connection.fds = []
      connection.unanswered++
      post({ type: 'item', connection: number, item, fds })
    }
    if (wanted === undefined) break
  }
  watch(number, connection)
}

/** Ends a connection whose peer has said all, when it has been answered. */
function endAnswered(number: number, connection: Connection): void {
  const { isEnded, unanswered, output } = connection
  if (isEnded && unanswered === 0 && output.length === 0) drop(number, connection)
  else watch(number, connection)
}

/** Listens for what the connection can go on with. */
function watch(number: number, connection: Connection): void {
  const events =
    (connection.unanswered < UNANSWERED_MAX && !connection.isEnded ? POLLIN : 0) |
    (connection.output.length > 0 ? POLLOUT : 0)
  const { fd, isParked } = connection
  connection.isParked = events === 0
  if (events === 0) {
    if (!isParked) shim.epollCtl(epoll, EPOLL_CTL_DEL, fd, 0, 0)
  } else shim.epollCtl(epoll, isParked ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, events, number)
}

function write(number: number, connection: Connection): void {
  while (connection.output.length > 0) {
    const data = connection.output[0]
    const done = shim.sendMsg(connection.fd, data, 0, data.length, null, 0, 0)
    if (done === -EAGAIN) break
    if (done < 0) {
      drop(number, connection)
      return
    }
    connection.outputLength -= done
    if (done === data.length) connection.output.shift()
    else connection.output[0] = data.subarray(done)
  }
  if (connection.output.length === 0 && connection.isHangingUp) drop(number, connection)
  else endAnswered(number, connection)
}

/** Whatever `listener` has is ended; what is still to be said is said, as far as the peers take it. */
function ignore(listener: number): void {
  const own = listeners.get(listener)
  if (own !== undefined) shim.epollCtl(epoll, EPOLL_CTL_DEL, own.fd, 0, 0)
  listeners.delete(listener)
  for (const [number, connection] of connections) {
    if (connection.listener !== listener) continue
    connection.isHangingUp = true
    write(number, connection)
    if (connections.has(number)) drop(number, connection)
  }
  post({ type: 'ignored', listener })
}

function unwatch(watch: number): void {
  const fd = watches.get(watch)
  if (fd !== undefined) shim.epollCtl(epoll, EPOLL_CTL_DEL, fd, 0, 0)
  watches.delete(watch)
}

function serve(request: SocketRequest): void {
  switch (request.type) {
    case 'listen': {
      const { listener: number, fd, framing } = request
      listeners.set(number, { number, fd, framing })
      shim.epollCtl(epoll, EPOLL_CTL_ADD, fd, POLLIN, listenerData(number))
      return
    }
    case 'adopt':
      return connect(request.listener, request.fd, request.framing)
    case 'ignore':
      return ignore(request.listener)
    case 'watch':
      watches.set(request.watch, request.fd)
      shim.epollCtl(epoll, EPOLL_CTL_ADD, request.fd, POLLIN, WATCHES - request.watch)
      return
    case 'unwatch':
      unwatch(request.watch)
      return post({ type: 'unwatched', watch: request.watch })
    case 'close':
      isOpen = false
      return
    default:
      return serveConnection(request)
  }
}

function serveConnection(request: SocketRequest & { type: 'send' | 'answered' | 'hang-up' }): void {
  const connection = connections.get(request.connection)
  if (connection === undefined) return
  if (request.type === 'answered') {
    connection.unanswered--
    // There may be whole messages in the socket that nothing will announce again.
    if (connection.isEnded) endAnswered(request.connection, connection)
    else if (connection.unanswered === UNANSWERED_MAX - 1) watch(request.connection, connection)
    return
  }
  if (request.type === 'hang-up') connection.isHangingUp = true
  else {
    connection.output.push(request.data)
    connection.outputLength += request.data.length
    if (connection.outputLength > OUTPUT_MAX) {
      drop(request.connection, connection)
      return
    }
  }
  write(request.connection, connection)
}

function serveRequests(): void {
  shim.eventfdRead(eventFd)
  for (;;) {
    const message = receiveMessageOnPort(port)
    if (message === undefined) return
    serve(message.message)
  }
}

shim.epollCtl(epoll, EPOLL_CTL_ADD, eventFd, POLLIN, EVENT)
while (isOpen) {
  const count = shim.epollWait(epoll, table.id, 0, EVENTS_MAX, -1)
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
      if (connection === undefined) continue
      if ((events & POLLOUT) !== 0) write(data, connection)
      if ((events & ~POLLOUT) === 0 || !connections.has(data)) continue
      // It has said all, and is gone now altogether.
      if (connection.isEnded) drop(data, connection)
      else read(data, connection)
    }
  }
}
for (const [number, connection] of connections) drop(number, connection)
shim.close(epoll)
table.unmap()
port.close()
