/**
 * The control socket: QMP as QEMU speaks it. Sessions negotiate with qmp_capabilities, commands of
 * one session run in order, events go to all of them. The bytes are the I/O thread's.
 */
import { strerror } from '../abi/strerror.ts'
import { StateError, SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { Members } from '../schema/value.ts'
import { formatJson } from '../sockets/json-parser.ts'
import type { JsonItem } from '../sockets/json-stream.ts'
import type { SocketKeeper } from '../sockets/kept.ts'
import type { ListenErrors } from '../sockets/listen.ts'
import { isAnswered } from '../sockets/listen.ts'
import { ListeningSocket } from '../sockets/listening-socket.ts'
import type { SocketHandlers } from '../sockets/socket-thread.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import { nearest } from '../text.ts'
import { checkArguments } from './arguments.ts'
import { describeError, NotFound } from './error-answers.ts'
import type { EventData, EventName } from './events.ts'
import { GivenFds } from './given-fds.ts'
import type { Request } from './request.ts'
import { checkRequest, idOf } from './request.ts'
import type { ServerVersion, Session } from './session.ts'
import { NEGOTIATION, Pages } from './session.ts'

const BACKLOG = 64
/** Events that wait while a long answer is sent; more are lost for that client. */
const HELD_MAX = 1024

interface SessionState extends Session {
  /** We ended it: what it said is void. */
  isCut: boolean
  end(): void
  /** Messages that are not answered. */
  count: number
  last: Promise<void>
  /** While an answer is sent in pages: the events that wait for its end. */
  held: Record<string, unknown>[] | null
}

/** A client, as another process goes on with it: bytes in base64. */
interface HandedClient {
  readonly isNegotiated: boolean
  /** Of a request in the making. */
  readonly bytes: string
  /** What it has not taken yet. */
  readonly output: string
  /** Names of descriptors (getfd). */
  readonly given: readonly string[]
  /** Numbers of captures that end with it. Absent: there are none. */
  readonly captures?: readonly number[]
}

export interface HandedClients {
  readonly data: { readonly clients: readonly HandedClient[] }
  readonly fds: readonly number[]
}

interface CameSession {
  readonly isNegotiated: boolean
  readonly given: readonly (readonly [string, number])[]
  /** The client is here. */
  opened(session: Session): void
}

/** A command with what it acts on. */
export interface ServedCommand {
  readonly arguments: Members
  /** There may be others as well. */
  readonly isOpen: boolean
  run(args: Readonly<Record<string, unknown>>, session: Session): unknown
}

export class ControlServer {
  /** Where it was told to listen. */
  readonly #wantedPath: string
  readonly #sockets: SocketThread
  readonly #listener: number
  /** For clients that came from a predecessor, and its socket, at which some may wait still; -1: there was none. */
  #inherited = -1
  #inheritedFd = -1
  readonly #came: CameSession[] = []
  readonly #handlers: SocketHandlers
  readonly #socket: ListeningSocket
  readonly #commands: ReadonlyMap<string, ServedCommand>
  readonly #version: ServerVersion
  readonly #sessions = new Map<number, SessionState>()
  /** Those that another process is about to have. */
  readonly #moving = new Set<SessionState>()
  /** Whose clients are gone, while their last messages are dealt with. */
  readonly #closing = new Set<SessionState>()
  #isClosed = false

  /**
   * Binds and listens; throws when somebody else answers on the path. An instance that is to take
   * over (`isIncoming`) listens on `PATH.incoming` then.
   */
  constructor(
    path: string,
    commands: ReadonlyMap<string, ServedCommand>,
    version: ServerVersion,
    isIncoming: boolean = false,
    failed: (error: Error) => void = () => undefined,
    keeper?: SocketKeeper,
  ) {
    this.#wantedPath = path
    this.#commands = commands
    this.#version = version
    const first = isIncoming && isAnswered(path) ? `${path}.incoming` : path
    this.#socket = new ListeningSocket(first, BACKLOG, 'the control socket', listenErrors(first), {
      keeper,
    })
    try {
      this.#sockets = SocketThread.acquire()
    } catch (error) {
      this.#socket.close()
      throw error
    }
    this.#handlers = {
      opened: (connection, token) => this.#open(connection, token),
      received: (connection, item, fds) => this.#receive(connection, item as JsonItem, fds),
      closed: (connection, isCut) => this.#closed(connection, isCut),
      failed,
    }
    this.#listener = this.#sockets.listen(this.#socket.fd, 'json', this.#handlers)
  }

  /**
   * Moves the socket to the path that was wanted, also from under a predecessor that still answers
   * there. Sessions go on. Throws when the file cannot be renamed.
   */
  takePath(): void {
    if (this.path !== this.#wantedPath) this.#socket.file.moveTo(this.#wantedPath)
  }

  /** Where it listens. */
  get path(): string {
    return this.#socket.file.path
  }

  /** Tells every negotiated session. */
  sendEvent<E extends EventName>(event: E, data: EventData<E>): void {
    const us = Date.now() * 1000
    const timestamp = { seconds: Math.floor(us / 1e6), microseconds: us % 1e6 }
    for (const session of this.#sessions.values()) {
      // Without data there is no member of it, as with QEMU's.
      const said = Object.keys(data).length === 0 ? {} : { data }
      if (!session.isNegotiated) continue
      const message = { timestamp, event, ...said }
      if (session.held === null) this.#send(session.id, message)
      else if (session.held.length < HELD_MAX) session.held.push(message)
    }
  }

  /** Ends all sessions and removes the socket file, if it is still ours. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const listener of this.#listeners) await this.#sockets.ignore(listener)
    if (this.#inheritedFd >= 0) shim.close(this.#inheritedFd)
    for (const session of this.#sessions.values()) this.#endSession(session)
    this.#socket.close()
    await this.#sockets.release()
  }

  get #listeners(): readonly number[] {
    return this.#inherited < 0 ? [this.#listener] : [this.#listener, this.#inherited]
  }

  // --- a hand-over ------------------------------------------------------------------------------

  /**
   * Clients are not read any more, until `takeBack` or `handedOver`: all that another process needs to go on
   * with those that wait for nothing. The descriptors stay this one's: the socket's, then for each client its
   * own and those that it has given. `captures`: those that can go on there; the ones that end with a client that
   * stays cannot either, and are told.
   */
  async handOver(
    captures: readonly number[],
  ): Promise<{ handed: HandedClients; ending: readonly number[] }> {
    await Promise.all(this.#listeners.map((listener) => this.#sockets.suspend(listener)))
    const fds = [this.#socket.fd]
    const clients: HandedClient[] = []
    for (const listener of this.#listeners) {
      for (const { connection, fd, bytes, output, fds: half } of await this.#sockets.describe(
        listener,
      )) {
        const session = this.#sessions.get(connection)
        if (session === undefined || half.length > 0) continue
        const own = [...session.captures.keys()]
        // What ends with a client ends where it is, and it is told so.
        const mustStay = own.some((id) => !captures.includes(id))
        if (session.stays || session.count > 0 || mustStay) continue
        const given = [...session.fds.byName]
        this.#moving.add(session)
        fds.push(fd, ...given.map(([, one]) => one))
        clients.push({
          isNegotiated: session.isNegotiated,
          bytes: Buffer.from(bytes).toString('base64'),
          output: Buffer.from(output).toString('base64'),
          given: given.map(([name]) => name),
          ...(own.length === 0 ? {} : { captures: own }),
        })
      }
    }
    const all = [...this.#sessions.values(), ...this.#closing]
    const staying = all.filter((session) => !this.#moving.has(session))
    const ending = staying.flatMap((session) => [...session.captures.keys()])
    return { handed: { data: { clients }, fds }, ending }
  }

  takeBack(): void {
    this.#moving.clear()
    for (const listener of this.#listeners) this.#sockets.resume(listener)
  }

  /** Clients that another process has hear nothing more of this one; the others go on. */
  handedOver(): void {
    // The other one has a socket of its own, by the same path.
    this.#socket.keepNoMore()
    for (const { id, captures } of this.#moving) {
      captures.clear()
      this.#sockets.leave(id)
    }
    this.#moving.clear()
    for (const listener of this.#listeners) this.#sockets.resume(listener, true)
  }

  /**
   * Clients of a predecessor, as `handOver` told of them; the descriptors are this server's. Resolves when they are
   * here. `bind` has a capture end with a session.
   */
  async takeOver(
    { data: { clients }, fds }: HandedClients,
    bind: (session: Session, capture: number) => void,
  ): Promise<void> {
    const left = [...fds]
    this.#inheritedFd = left.shift()!
    // The socket has no name any more, but there may be some who wait at it.
    this.#inherited = this.#sockets.listen(this.#inheritedFd, 'json', this.#handlers)
    const here = clients.map(({ isNegotiated, bytes, output, given, captures = [] }) => {
      const fd = left.shift()!
      const owned = left.splice(0, given.length)
      const opened = new Promise<Session>((resolve) => {
        const named = given.map((name, k) => [name, owned[k]] as const)
        this.#came.push({ isNegotiated, given: named, opened: resolve })
      }).then((session) => captures.forEach((capture) => bind(session, capture)))
      const state = {
        bytes: new Uint8Array(Buffer.from(bytes, 'base64')),
        output: new Uint8Array(Buffer.from(output, 'base64')),
        fds: [],
      }
      const token = this.#came.length - 1
      this.#sockets.adopt(this.#inherited, fd, 'json', { state, token })
      return opened
    })
    await Promise.all(here)
  }

  #send(connection: number, value: unknown): void {
    this.#sendText(connection, `${formatJson(value)}\r\n`)
  }

  #sendText(connection: number, text: string): void {
    const data = Buffer.from(text)
    this.#sockets.send(connection, new Uint8Array(data))
  }

  #open(connection: number, token: number | undefined): void {
    const came = token === undefined ? undefined : this.#came[token]
    let end!: () => void
    const ended = new Promise<void>((resolve) => (end = resolve))
    const session: SessionState = {
      id: connection,
      fds: new GivenFds(),
      received: [],
      captures: new Map(),
      ended,
      end,
      isNegotiated: came?.isNegotiated ?? false,
      stays: false,
      isCut: false,
      count: 0,
      last: Promise.resolve(),
      held: null,
    }
    this.#sessions.set(connection, session)
    for (const [name, fd] of came?.given ?? []) session.fds.add(name, fd)
    // It has been greeted.
    if (came !== undefined) return came.opened(session)
    const version = { qemu: this.#version, package: 'framepump' }
    this.#send(connection, { QMP: { version, capabilities: [] } })
  }

  async #closed(connection: number, isCut: boolean): Promise<void> {
    const session = this.#sessions.get(connection)
    this.#sessions.delete(connection)
    if (session === undefined) return
    session.isCut = isCut
    this.#closing.add(session)
    await session.last
    this.#closing.delete(session)
    this.#endSession(session)
  }

  #receive(connection: number, item: JsonItem, fds: number[]): void {
    const session = this.#sessions.get(connection)
    if (session === undefined) {
      for (const fd of fds) shim.close(fd)
      return
    }
    session.count++
    session.last = session.last
      .then(() => this.#execute(session, item, fds))
      .finally(() => {
        session.count--
        this.#sockets.answered(connection)
      })
  }

  #endSession(session: SessionState): void {
    session.fds.close()
    for (const end of session.captures.values()) end()
    session.captures.clear()
    session.end()
  }

  async #execute(session: SessionState, item: JsonItem, fds: number[]): Promise<void> {
    if (session.isCut) {
      for (const fd of fds) shim.close(fd)
      return
    }
    session.received = fds
    let id: unknown
    let answer: Record<string, unknown>
    try {
      // First of all: an error answers for its request, too.
      id = idOf(item.value)
      if (item.error !== undefined) {
        if (item.value === undefined) throw new StateError('QMP_SYNTAX', item.error)
        throw new SysError('OUT_OF_RESOURCES', item.error)
      }
      const request = checkRequest(item.value)
      answer = { return: (await this.#dispatch(session, request)) ?? {} }
    } catch (error) {
      answer = { error: describeError(error) }
    } finally {
      // Descriptors that the command did not take, or that nobody asked for.
      for (const fd of session.received) shim.close(fd)
      session.received = []
    }
    const { return: value } = answer
    if (value instanceof Pages) await this.#sendPages(session, value, id)
    else this.#send(session.id, id === undefined ? answer : { ...answer, id })
  }

  /**
   * What cannot be begun is an error like any other; what cannot be continued ends the connection: nothing else can
   * be said in the midst of a value.
   */
  async #sendPages(session: SessionState, { pages }: Pages, id: unknown): Promise<void> {
    session.held = []
    const identity = id === undefined ? '' : `, "id": ${formatJson(id)}`
    let before = '{"return": ['
    try {
      for await (const page of pages) {
        if (page.length === 0) continue
        this.#sendText(session.id, before + page.map(formatJson).join(', '))
        before = ', '
        await this.#sockets.drained(session.id)
        if (!this.#sessions.has(session.id)) return
      }
      const start = before === ', ' ? '' : before
      this.#sendText(session.id, `${start}]${identity}}\r\n`)
    } catch (error) {
      if (before === ', ') {
        // Nothing can be said any more: what comes is not carried out, and events stay held.
        session.isCut = true
        this.#sockets.hangUp(session.id)
        return
      }
      this.#sendText(session.id, `{"error": ${formatJson(describeError(error))}${identity}}\r\n`)
    }
    for (const message of session.held.splice(0)) this.#send(session.id, message)
    session.held = null
  }

  #dispatch(session: SessionState, request: Request): unknown {
    if (!session.isNegotiated && request.execute !== NEGOTIATION) {
      throw new NotFound(`Expecting capabilities negotiation with '${NEGOTIATION}'`)
    }
    const command = this.#commands.get(request.execute)
    if (command === undefined) {
      const near = nearest(request.execute, [...this.#commands.keys()])
      const hint = near === undefined ? undefined : `did you mean "${near}"?`
      throw new NotFound(`The command ${request.execute} has not been found`, hint)
    }
    checkArguments(command, request.args)
    return command.run(request.args, session)
  }
}

function listenErrors(path: string): ListenErrors {
  return {
    notSocket: () =>
      new StateError('CONTROL_IN_USE', `${path} exists and is not a socket`, {
        hint: 'give another --control path',
      }),
    busy: (pid) => {
      const who = pid === null ? '' : ` (pid ${pid})`
      return new StateError(
        'CONTROL_IN_USE',
        `control socket ${path} is in use by another framepump${who}`,
        { hint: 'stop it, or give another --control path' },
      )
    },
    failed: (what, syscall, errno, hint) => {
      const reason = [what, strerror(errno)].filter((text) => text !== '').join(': ')
      return new SysError('CONTROL_SOCKET', `control socket ${path}: ${reason}`, {
        syscall,
        errno,
        path,
        hint,
      })
    },
  }
}
