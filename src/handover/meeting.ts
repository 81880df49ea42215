/** How the two ends of a hand-over find each other: `unix:PATH`, on which the target listens. */
import { setTimeout } from 'node:timers/promises'
import { EACCES, EAGAIN, ECONNREFUSED, ENOENT } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { ConfigError, StateError, SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from '../sockets/listen.ts'
import { SOCK_STREAM } from '../sockets/listen.ts'
import { ListeningSocket } from '../sockets/listening-socket.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import type { Log } from '../text.ts'
import { channelError } from './records.ts'
import { SocketChannel } from './socket-channel.ts'

const SCHEME = 'unix:'
const RETRY_MS = 10
const BACKLOG = 4

/** A socket's file is there a moment before somebody listens. */
const BOUND_MS = 200
/** While a target is still to come. */
const COMING: readonly number[] = [-ENOENT, -ECONNREFUSED, -EAGAIN]

/** The path of a URI, which came by that option. Throws ConfigError BAD_OPTION: descriptors pass by nothing else. */
export function pathOfUri(uri: string, option?: string): string {
  if (uri.startsWith(`${SCHEME}/`)) return uri.slice(SCHEME.length)
  const subject = option === undefined ? uri : `${option} ${uri}`
  throw new ConfigError('BAD_OPTION', `${subject}: descriptors pass by a UNIX socket only`, {
    hint: 'give unix:PATH, with the whole path',
  })
}

/**
 * The target's channel. It is waited for until `signal` is aborted, with an error that is thrown then.
 * Throws SysError HAND_OVER_CHANNEL, also when somebody else listens there.
 */
export async function connectTo(
  path: string,
  release: string,
  log: Log,
  signal?: AbortSignal,
): Promise<SocketChannel> {
  const fd = shim.socketUnix(SOCK_STREAM)
  const boundUntil = performance.now() + BOUND_MS
  for (;;) {
    const result = fd < 0 ? fd : shim.connectUnix(fd, path)
    if (result === 0) break
    const mayListen = result === -ECONNREFUSED && performance.now() < boundUntil
    const mayCome = signal === undefined ? mayListen : COMING.includes(result)
    if (signal?.aborted === true || !mayCome) {
      if (fd >= 0) shim.close(fd)
      signal?.throwIfAborted()
      throw new SysError(
        'HAND_OVER_CHANNEL',
        `nobody can be reached at ${path}: ${strerror(-result)}`,
        {
          syscall: 'connect',
          errno: -result,
          path,
          hint:
            result === -EACCES
              ? 'let both run as the same user'
              : 'start the target with --incoming, or give it migrate-incoming, first',
        },
      )
    }
    await setTimeout(RETRY_MS)
  }
  return channelOf(fd, release, log)
}

/** Throws when the peer is another user's. */
function channelOf(fd: number, release: string, log: Log): SocketChannel {
  const credentials = new Int32Array(3)
  const result = shim.peerCredentials(fd, credentials)
  const [pid, uid] = credentials
  if (result < 0 || !isTrusted(uid)) {
    shim.close(fd)
    throw channelError(`the other side runs as user ${uid}, which is neither root nor our own`)
  }
  return new SocketChannel(fd, release, log, pid)
}

const isTrusted = (uid: number): boolean => uid === 0 || uid === process.geteuid!()

/** Where a target waits for its source. */
export class Meeting {
  readonly path: string
  readonly #socket: ListeningSocket
  readonly #thread: SocketThread
  readonly #release: string
  readonly #log: Log

  /** Throws SysError HAND_OVER_CHANNEL. */
  constructor(path: string, release: string, log: Log) {
    this.path = path
    this.#release = release
    this.#log = log
    this.#socket = new ListeningSocket(path, BACKLOG, 'the hand-over', listenErrors(path))
    this.#thread = SocketThread.acquire()
  }

  /** The next peer of ours; others are left standing. Rejects when `signal` is aborted. */
  async accept(signal: AbortSignal): Promise<SocketChannel> {
    for (;;) {
      signal.throwIfAborted()
      const fd = shim.accept(this.#socket.fd)
      if (fd === -EAGAIN) await this.#wait(signal)
      else if (fd >= 0) {
        try {
          return channelOf(fd, this.#release, this.#log)
        } catch (error) {
          this.#log(`hand-over: refused a peer: ${(error as Error).message}`, 'warning')
        }
      }
    }
  }

  async #wait(signal: AbortSignal): Promise<void> {
    let told!: () => void
    const woken = new Promise<void>((resolve) => (told = resolve))
    const watch = this.#thread.watch(this.#socket.fd, told)
    signal.addEventListener('abort', told)
    await woken
    signal.removeEventListener('abort', told)
    if (signal.aborted) await this.#thread.unwatch(watch)
  }

  async close(): Promise<void> {
    this.#socket.close()
    await this.#thread.release()
  }
}

function listenErrors(path: string): ListenErrors {
  return {
    notSocket: () => new StateError('HAND_OVER_CHANNEL', `${path} exists and is not a socket`),
    busy: (pid) => {
      const who = pid === null ? '' : ` (pid ${pid})`
      return new StateError('HAND_OVER_CHANNEL', `another process listens on ${path}${who}`)
    },
    failed: (what, syscall, errno, hint) => {
      const reason = [what, strerror(errno)].filter((text) => text !== '').join(': ')
      return new SysError('HAND_OVER_CHANNEL', `${path}: ${reason}`, { syscall, errno, path, hint })
    },
  }
}
