/**
 * One connection of the I/O thread: what was received and not yet dealt with, what is to be written,
 * and what it is watched for.
 */
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, POLLIN, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN } from '../abi/errno.ts'
import { shim } from '../native/shim.ts'
import { JsonStream } from './json-stream.ts'
import { CONNECTION_FDS_MAX } from './limits.ts'
import { MessageStream } from './message-stream.ts'
import type { ConnectionState, Framing, SocketItem } from './socket-messages.ts'

/** Bytes that wait for a peer which does not read; more ends the connection. */
const OUTPUT_MAX = 4 * 1024 * 1024
/** Messages of one connection that the main thread has not answered for. */
const UNANSWERED_MAX = 64
/** The same of a guest, whose messages may be dear: it is held up after so many. */
const GUEST_UNANSWERED_MAX = 8
/** SCM_MAX_FD of the kernel. */
const FDS_RECEIVED_MAX = 253
const READ_LENGTH = 65536
const MSG_CTRUNC = 8

const LOST = `descriptors were lost: more than ${CONNECTION_FDS_MAX} came, or the process has no room for them`

interface Stream {
  readonly wanted?: number
  readonly pending?: Uint8Array | undefined
  push(bytes: Uint8Array): SocketItem[]
}

const buffer = new Uint8Array(READ_LENGTH)
const received = new Int32Array(FDS_RECEIVED_MAX)
const info = new Int32Array(2)

export class Connection {
  readonly number: number
  readonly listener: number
  readonly fd: number
  /** Of the peer's process. */
  readonly uid: number
  /** When it was last read from, or accepted. */
  lastMs: number
  hasSpoken = false
  /** Nothing more is read; it ends when all is written, or at this time. */
  endMs: number = Infinity
  /** The main thread waits until the peer has taken everything. */
  isAwaited = false
  /** The peer says nothing more, and waits for what it has asked (shutdown(2), `nc -N`). */
  #isEnded = false
  readonly #framing: Framing
  readonly #epoll: number
  readonly #stream: Stream
  readonly #output: Uint8Array[] = []
  #outputLength = 0
  /** Received descriptors, oldest first, until a message takes them along. */
  #fds: number[] = []
  /** Descriptors that came for the message in the making are gone. */
  #hasLost = false
  /** Messages that the main thread has not answered for: how many descriptors each had. */
  readonly #unanswered: number[] = []
  #unansweredFds = 0
  /** What epoll watches it for, 0: it is not in epoll. A peer that hung up is told of in any case. */
  #watched = 0
  /** Nothing is read; what is sent is written at once, or waits. */
  #isSuspended = false

  /** `state`: how far it has come already. */
  constructor(
    number: number,
    listener: number,
    fd: number,
    framing: Framing,
    epoll: number,
    state?: ConnectionState,
  ) {
    this.number = number
    this.listener = listener
    this.fd = fd
    this.lastMs = performance.now()
    this.#epoll = epoll
    this.#framing = framing
    this.#stream = framing === 'json' ? new JsonStream() : new MessageStream(state?.bytes)
    if (state !== undefined) {
      // Of a value in the making, which is not complete with it.
      if (framing === 'json') this.#stream.push(state.bytes)
      this.#fds.push(...state.fds)
      if (state.output.length > 0) this.#output.push(state.output)
      this.#outputLength = state.output.length
    }
    this.uid = shim.peerCredentials(fd, received) === 0 ? received[1] : -1
  }

  get isHangingUp(): boolean {
    return this.endMs !== Infinity
  }

  /** It does not read what it asked for. */
  get isDeaf(): boolean {
    return this.#outputLength > OUTPUT_MAX
  }

  get isBusy(): boolean {
    return this.#unanswered.length > 0
  }

  /** No more messages are read than are dealt with, and no descriptors while others are on their way. */
  get #mayRead(): boolean {
    return (
      !this.isHangingUp &&
      !this.#isEnded &&
      this.#unanswered.length <
        (this.#framing === 'json' ? UNANSWERED_MAX : GUEST_UNANSWERED_MAX) &&
      this.#unansweredFds === 0
    )
  }

  /** Watches for what it can go on with; false: nothing is left to do, or it cannot be watched. */
  watch(): boolean {
    const hasOutput = this.#output.length > 0
    if (!hasOutput && (this.isHangingUp || (this.#isEnded && !this.isBusy))) return false
    const wanted = (this.#mayRead ? POLLIN : 0) | (hasOutput ? POLLOUT : 0)
    const events = this.#isSuspended ? 0 : wanted
    const before = this.#watched
    if (events === before) return true
    this.#watched = events
    if (events === 0) return shim.epollCtl(this.#epoll, EPOLL_CTL_DEL, this.fd, 0, 0) === 0
    const op = before === 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
    return shim.epollCtl(this.#epoll, op, this.fd, events, this.number) === 0
  }

  /**
   * Reads messages for `take`, which gets their descriptors as well; called once nothing is to be
   * read, the peer is gone. False: the connection is to be dropped.
   */
  read(take: (item: SocketItem, fds: number[]) => void): boolean {
    if (this.isHangingUp || this.#isEnded) return false
    // As long as whole messages come in pieces that must be read apart, one after another.
    while (this.#mayRead) {
      const { wanted } = this.#stream
      const space = wanted === undefined ? buffer : buffer.subarray(0, wanted)
      const got = shim.recvMsg(this.fd, space, received, info, 0)
      if (got === -EAGAIN) break
      if (got === 0 && this.#framing === 'json') {
        this.#isEnded = true
        break
      }
      if (got <= 0) return false
      this.lastMs = performance.now()
      this.hasSpoken = true
      this.#keepFds(info[0], info[1])
      for (const item of this.#stream.push(buffer.subarray(0, got))) {
        const fds = this.#takeFds()
        this.#unanswered.push(fds.length)
        this.#unansweredFds += fds.length
        if (this.#hasLost) take({ ...item, error: LOST }, fds)
        else take(item, fds)
        this.#hasLost = false
      }
      if (wanted === undefined) break
    }
    return this.watch()
  }

  #keepFds(count: number, flags: number): void {
    if ((flags & MSG_CTRUNC) !== 0) this.#hasLost = true
    for (let at = 0; at < count; at++) {
      if (this.#fds.length < CONNECTION_FDS_MAX) this.#fds.push(received[at])
      else {
        this.#hasLost = true
        shim.close(received[at])
      }
    }
  }

  #takeFds(): number[] {
    const fds = this.#fds
    this.#fds = []
    return fds
  }

  /** The main thread has dealt with the oldest message. False: the connection is to be dropped. */
  answered(): boolean {
    this.#unansweredFds -= this.#unanswered.shift() ?? 0
    // There may be whole messages in the socket that nothing will announce again.
    return this.watch()
  }

  /** False: the connection is to be dropped. */
  send(data: Uint8Array): boolean {
    this.#output.push(data)
    this.#outputLength += data.length
    return !this.isDeaf && this.write()
  }

  /** Writes what the peer takes. False: the connection is to be dropped. */
  write(): boolean {
    while (this.#output.length > 0) {
      const data = this.#output[0]
      const done = shim.sendMsg(this.fd, data, 0, data.length, null, 0, 0)
      if (done === -EAGAIN) break
      if (done < 0) return false
      this.#outputLength -= done
      if (done === data.length) this.#output.shift()
      else this.#output[0] = data.subarray(done)
    }
    return this.watch()
  }

  /** Whether the main thread waits, and nothing is left to be written: it is to be told, once. */
  takeDrained(): boolean {
    if (!this.isAwaited || this.#output.length > 0) return false
    this.isAwaited = false
    return true
  }

  /** Ends by `endMs` at the latest. False: the connection is to be dropped now. */
  hangUp(endMs: number): boolean {
    if (!this.isHangingUp) this.endMs = endMs
    this.#closeFds()
    return this.write()
  }

  /** Neither read nor watched, until this is taken back. False: the connection is to be dropped. */
  suspend(isSuspended: boolean): boolean {
    this.#isSuspended = isSuspended
    return this.watch()
  }

  /** How far it has come, of one that is suspended and whose messages have been dealt with. */
  get state(): ConnectionState {
    const output = new Uint8Array(Buffer.concat(this.#output))
    return { bytes: this.#stream.pending ?? new Uint8Array(0), fds: [...this.#fds], output }
  }

  #closeFds(): void {
    for (const fd of this.#takeFds()) shim.close(fd)
  }

  close(): void {
    if (this.#watched !== 0) shim.epollCtl(this.#epoll, EPOLL_CTL_DEL, this.fd, 0, 0)
    shim.close(this.fd)
    this.#closeFds()
  }
}
