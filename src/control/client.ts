/** A QMP client: what ctl, show and capture use to talk to a daemon. */
import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { EAGAIN } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { FramepumpError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import { JsonStream } from '../sockets/json-stream.ts'

const SOCK_STREAM = 1
/** How long a full queue of connections is waited for, and how often it is tried again. */
const PATIENCE_MS = 2000
const RETRY_MS = 20
/** The largest table that limits allow, a million addresses, is a tenth of it. */
const ANSWER_LENGTH_MAX: number = 512 * 1024 * 1024

/** Members beyond QEMU's may be missing: it may be one. */
interface RemoteError {
  readonly class: string
  readonly desc: string
  readonly code?: string
  readonly hint?: string
  readonly port?: string
}

interface Message {
  readonly QMP?: unknown
  readonly return?: unknown
  readonly error?: RemoteError
  readonly event?: string
  readonly data?: Record<string, unknown>
  readonly id?: number
}

export class ControlClient {
  /** Emits `event` (name, data) and `close`. */
  readonly events: EventEmitter<{ event: [string, Record<string, unknown>]; close: [] }> =
    new EventEmitter()
  readonly #fd: number
  readonly #socket: Socket
  readonly #path: string
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >()
  #greeted: (() => void) | undefined
  #nextId = 1
  #isClosed = false
  /** Of its end. */
  #reason = 'it hung up'

  private constructor(path: string, fd: number) {
    this.#path = path
    this.#fd = fd
    this.#socket = new Socket({ fd })
    const stream = new JsonStream(ANSWER_LENGTH_MAX, parseAnswer)
    this.#socket.on('data', (bytes) => {
      for (const item of stream.push(bytes)) {
        if (item.error === undefined) this.#receive(item.value as Message)
        else this.#misunderstood(item.error)
      }
    })
    this.#socket.on('error', () => undefined)
    this.#socket.on('close', () => this.#ended())
  }

  /**
   * Connects and negotiates. Throws code DAEMON_UNREACHABLE. Once `deadline` is aborted nothing is waited
   * for any more, here and in commands.
   */
  static async connect(path: string, deadline?: AbortSignal): Promise<ControlClient> {
    const fd = shim.socketUnix(SOCK_STREAM)
    const result = fd < 0 ? fd : await connectInTime(fd, path)
    if (result < 0) {
      if (fd >= 0) shim.close(fd)
      throw unreachable(path, strerror(-result))
    }
    const client = new ControlClient(path, fd)
    const giveUp = (): void => {
      client.#reason = 'it does not answer'
      client.#socket.destroy()
    }
    deadline?.addEventListener('abort', giveUp)
    client.events.once('close', () => deadline?.removeEventListener('abort', giveUp))
    const greeting = new Promise<void>((resolve) => {
      client.#greeted = resolve
    })
    const closed = new Promise<never>((_, reject) => {
      client.events.once('close', () => reject(unreachable(path, client.#reason)))
    })
    closed.catch(() => undefined)
    // The time may have been over before anybody listened for that.
    if (deadline?.aborted === true) giveUp()
    await Promise.race([greeting, closed])
    await client.execute('qmp_capabilities')
    return client
  }

  /** One command; `fd` travels with it. Throws the daemon's error; code CONTROL_ERROR when it gives none. */
  execute(
    command: string,
    args: Readonly<Record<string, unknown>> = {},
    fd?: number,
  ): Promise<unknown> {
    if (this.#isClosed) return Promise.reject(unreachable(this.#path, this.#reason))
    const id = this.#nextId++
    const text = Buffer.from(`${JSON.stringify({ execute: command, arguments: args, id })}\r\n`)
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      if (fd === undefined) this.#socket.write(text)
      else this.#sendWithDescriptor(text, fd)
    })
  }

  /** Only on an idle connection: nothing that Node still holds back can be overtaken. */
  #sendWithDescriptor(text: Uint8Array, fd: number): void {
    const sent = shim.sendMsg(this.#fd, text, 0, text.length, Int32Array.of(fd), 1, 0)
    if (sent !== text.length) this.#socket.destroy(new Error('sendmsg'))
  }

  #receive(message: Message): void {
    if (message.QMP !== undefined) {
      this.#greeted?.()
    } else if (message.event !== undefined) {
      this.events.emit('event', message.event, message.data ?? {})
    } else if (message.id !== undefined) {
      const waiting = this.#waiting.get(message.id)
      this.#waiting.delete(message.id)
      const { error } = message
      if (error === undefined) waiting?.resolve(message.return)
      else waiting?.reject(asThrown(error))
    }
  }

  /** Which request that was to answer cannot be told: none of them is answered any more. */
  #misunderstood(reason: string): void {
    const error = new FramepumpError('CONTROL_ERROR', `the daemon's answer: ${reason}`, {
      hint: 'is it a framepump, and of this version?',
    })
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
    this.#socket.destroy()
  }

  #ended(): void {
    this.#isClosed = true
    for (const { reject } of this.#waiting.values()) reject(unreachable(this.#path, this.#reason))
    this.#waiting.clear()
    this.events.emit('close')
  }

  close(): void {
    this.#socket.end()
    this.#socket.unref()
  }
}

function asThrown({ desc, code = 'CONTROL_ERROR', hint, port }: RemoteError): FramepumpError {
  const error = new FramepumpError(code, desc, { hint })
  error.port = port
  return error
}

/** A daemon's JSON has nothing special, and may be long. */
function parseAnswer(bytes: Uint8Array): unknown {
  const { buffer, byteOffset, length } = bytes
  return JSON.parse(Buffer.from(buffer, byteOffset, length).toString('utf8')) as unknown
}

/** A daemon that many reach for at once has its queue of connections full (EAGAIN) for a moment. */
async function connectInTime(fd: number, path: string): Promise<number> {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    const result = shim.connectUnix(fd, path)
    if (result !== -EAGAIN || performance.now() > end) return result
    await setTimeout(RETRY_MS)
  }
}

function unreachable(path: string, reason: string): FramepumpError {
  return new FramepumpError('DAEMON_UNREACHABLE', `cannot reach a daemon at ${path}: ${reason}`, {
    hint: 'start one with framepump run, or give its --control path',
  })
}
