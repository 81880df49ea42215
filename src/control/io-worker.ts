/**
 * The I/O thread: the one place that serves sockets which may carry descriptors (Node's own sockets
 * silently drop them). It waits in epoll, splits what arrives into messages, and posts them to the
 * main thread. A peer that stalls, floods or never reads stalls nobody else.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, POLLIN, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN } from '../abi/errno.ts'
import { Window } from '../mem/window.ts'
import { EPOLL_ROW_INTS, shim } from '../native/shim.ts'
import type { JsonItem } from './json-stream.ts'
import { JsonStream } from './json-stream.ts'

const CONNECTIONS_MAX = 64
/** Bytes that wait for a peer which does not read; more ends the connection. */
const OUTPUT_MAX = 4 * 1024 * 1024
/** Descriptors of one connection that no message has claimed. */
const FDS_MAX = 16
const EVENTS_MAX = 64
const READ_LENGTH = 65536

export interface IoWorkerData {
  readonly listenFd: number
  readonly eventFd: number
}

/** From the main thread. */
export type IoRequest =
  | { readonly type: 'send'; readonly connection: number; readonly data: Uint8Array }
  | { readonly type: 'hang-up'; readonly connection: number }
  | { readonly type: 'close' }

/** To the main thread. `fds` belong to the receiver. */
export type IoEvent =
  | { readonly type: 'open'; readonly connection: number }
  | {
      readonly type: 'item'
      readonly connection: number
      readonly item: JsonItem
      readonly fds: number[]
    }
  | { readonly type: 'close'; readonly connection: number }

interface Connection {
  readonly fd: number
  readonly stream: JsonStream
  readonly output: Uint8Array[]
  outputLength: number
  /** Received descriptors, oldest first, until a message takes them along. */
  fds: number[]
  isHangingUp: boolean
}

const { listenFd, eventFd } = workerData as IoWorkerData
const port = parentPort!
const epoll = shim.epollCreate()
const table = Window.map(EVENTS_MAX * EPOLL_ROW_INTS * 4)
const rows = new Int32Array(table.buffer)
const connections = new Map<number, Connection>()
const buffer = new Uint8Array(READ_LENGTH)
const received = new Int32Array(FDS_MAX)
const info = new Int32Array(2)
let nextConnection = 1
let isOpen = true

/** epoll data of the two descriptors that are no connection. */
const LISTEN = -1
const EVENT = -2

function post(event: IoEvent): void {
  port.postMessage(event)
}

function accept(): void {
  for (;;) {
    const fd = shim.accept(listenFd)
    if (fd < 0) return
    if (connections.size >= CONNECTIONS_MAX) {
      shim.close(fd)
      continue
    }
    const number = nextConnection++
    connections.set(number, {
      fd,
      stream: new JsonStream(),
      output: [],
      outputLength: 0,
      fds: [],
      isHangingUp: false,
    })
    shim.epollCtl(epoll, EPOLL_CTL_ADD, fd, POLLIN, number)
    post({ type: 'open', connection: number })
  }
}

function drop(number: number, connection: Connection): void {
  shim.epollCtl(epoll, EPOLL_CTL_DEL, connection.fd, 0, 0)
  shim.close(connection.fd)
  for (const fd of connection.fds) shim.close(fd)
  connections.delete(number)
  post({ type: 'close', connection: number })
}

function read(number: number, connection: Connection): void {
  const got = shim.recvMsg(connection.fd, buffer, received, info, 0)
  if (got === -EAGAIN) return
  if (got <= 0) {
    drop(number, connection)
    return
  }
  for (let k = 0; k < info[0]; k++) {
    // The newest are kept no longer than there is room: nobody asked for that many.
    if (connection.fds.length < FDS_MAX) connection.fds.push(received[k])
    else shim.close(received[k])
  }
  for (const item of connection.stream.push(buffer.subarray(0, got))) {
    const { fds } = connection
    connection.fds = []
    post({ type: 'item', connection: number, item, fds })
  }
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
  if (connection.output.length === 0 && connection.isHangingUp) {
    drop(number, connection)
    return
  }
  const events = connection.output.length > 0 ? POLLIN | POLLOUT : POLLIN
  shim.epollCtl(epoll, EPOLL_CTL_MOD, connection.fd, events, number)
}

function serve(request: IoRequest): void {
  if (request.type === 'close') {
    // What is still to be said is said, as far as the peers take it at once.
    for (const [number, connection] of connections) {
      connection.isHangingUp = true
      write(number, connection)
    }
    for (const [number, connection] of connections) drop(number, connection)
    isOpen = false
    return
  }
  const connection = connections.get(request.connection)
  if (connection === undefined) return
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

shim.epollCtl(epoll, EPOLL_CTL_ADD, listenFd, POLLIN, LISTEN)
shim.epollCtl(epoll, EPOLL_CTL_ADD, eventFd, POLLIN, EVENT)
while (isOpen) {
  const count = shim.epollWait(epoll, table.id, 0, EVENTS_MAX, -1)
  for (let k = 0; k < count; k++) {
    const events = rows[k * EPOLL_ROW_INTS]
    const data = rows[k * EPOLL_ROW_INTS + 1]
    if (data === LISTEN) accept()
    else if (data === EVENT) serveRequests()
    else {
      const connection = connections.get(data)
      if (connection === undefined) continue
      if ((events & POLLOUT) !== 0) write(data, connection)
      if ((events & ~POLLOUT) !== 0 && connections.has(data)) read(data, connection)
    }
  }
}
shim.close(epoll)
table.unmap()
port.close()
