/**
 * What a service manager is told of the daemon, by datagrams to the socket that NOTIFY_SOCKET names:
 *
 *     STATUS= ... -> READY=1 -> (RELOADING=1 -> READY=1)* -> STOPPING=1
 *                       \-> WATCHDOG=1 at half of WATCHDOG_USEC, while the engine thread answers
 *
 * The socket is connected before privileges are given up, and connected again when the manager was
 * restarted. Nothing waits for it, and without it everything else goes on. sd_notify(3)
 */
import { EAGAIN } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { shim } from '../native/shim.ts'
import { printable } from '../switch/printable.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'

const SOCK_DGRAM = 2
/** Messages that wait for room in the manager's queue, and how long until the next try. */
const WAITING_MAX = 16
const RETRY_MS = 100
/** STATUS= follows what happens at most so often. */
const STATUS_INTERVAL_MS = 1000
const REASON_LENGTH_MAX = 500

export interface NotifyEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined
  readonly WATCHDOG_USEC?: string | undefined
  readonly WATCHDOG_PID?: string | undefined
}

export class Notify {
  /** What the environment said of the manager, for a successor. */
  readonly environment: Readonly<Record<string, string>>
  readonly #address: string
  readonly #log: Log
  /** Half of what the manager waits; undefined: it does not watch. */
  readonly #watchdogMs: number | undefined
  readonly #fd: number
  readonly #waiting: string[] = []
  #watch: NodeJS.Timeout | undefined
  #statusTimer: NodeJS.Timeout | undefined
  #describe: (() => string) | undefined
  #lastStatus = ''
  #isFailing = false
  #reloads = 0
  #isStopping = false

  private constructor(
    address: string,
    watchdogUs: string | undefined,
    watchdogMs: number | undefined,
    fd: number,
    log: Log,
  ) {
    this.environment = {
      NOTIFY_SOCKET: address,
      ...(watchdogUs === undefined ? {} : { WATCHDOG_USEC: watchdogUs }),
    }
    this.#address = address
    this.#watchdogMs = watchdogMs
    this.#fd = fd
    this.#log = log
  }

  /**
   * The manager's socket, if there is one. Its variables go from the environment: programs that the
   * daemon starts are not the service.
   */
  static open(log: Log): Notify | undefined {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = process.env as NotifyEnvironment
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) {
      Reflect.deleteProperty(process.env, name)
    }
    if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return undefined
    if (!/^[/@]./.test(NOTIFY_SOCKET)) {
      log(
        `notify: NOTIFY_SOCKET is neither a path nor @NAME, and not used: "${NOTIFY_SOCKET}"`,
        'warning',
      )
      return undefined
    }
    const fd = shim.socketUnix(SOCK_DGRAM)
    if (fd < 0) {
      log(`notify: no socket error="${strerror(-fd)}"`, 'warning')
      return undefined
    }
    const watchdogMs = watchdogInterval({ WATCHDOG_USEC, WATCHDOG_PID }, process.pid)
    const notify = new Notify(NOTIFY_SOCKET, WATCHDOG_USEC, watchdogMs, fd, log)
    notify.#send('STATUS=opening ports')
    return notify
  }

  /**
   * Everything is open. `describe` says in a line how it is; `answers` resolves when the engine thread
   * has answered, which it does between two of its turns.
   */
  ready(describe: () => string, answers: () => Promise<unknown>): void {
    this.#describe = describe
    this.#lastStatus = describe()
    // Also to a manager that started something else, which started this: npx, a shell.
    this.#send(`READY=1\nMAINPID=${process.pid}\nSTATUS=${this.#lastStatus}`)
    if (this.#watchdogMs !== undefined) this.#watchEngine(this.#watchdogMs, answers)
  }

  #watchEngine(intervalMs: number, answers: () => Promise<unknown>): void {
    let isAsking = false
    this.#watch = setInterval(() => {
      // One that does not answer is not asked again, and the manager not told that all is well.
      if (isAsking) return
      isAsking = true
      answers().then(
        () => {
          isAsking = false
          if (!this.#isStopping) this.#send('WATCHDOG=1')
        },
        () => undefined,
      )
    }, intervalMs).unref()
  }

  /** The manager listens to this process from now on, and heard nothing of it before. */
  again(): void {
    if (this.#describe === undefined || this.#isStopping || this.#reloads > 0) return
    this.#lastStatus = this.#describe()
    // The last sign of life may be the one before's, and almost too long ago.
    const isWatched = this.#watchdogMs !== undefined
    this.#send(`READY=1${isWatched ? '\nWATCHDOG=1' : ''}\nSTATUS=${this.#lastStatus}`)
  }

  /** Something has changed that the status tells. */
  changed(): void {
    this.#statusTimer ??= setTimeout(() => {
      this.#statusTimer = undefined
      if (this.#describe === undefined || this.#isStopping || this.#reloads > 0) return
      const status = this.#describe()
      if (status === this.#lastStatus) return
      this.#lastStatus = status
      this.#send(`STATUS=${status}`)
    }, STATUS_INTERVAL_MS).unref()
  }

  /** Around a reload or a hand-over; of several at once the first begins it and the last ends it. */
  async reloading<T>(reload: () => Promise<T>, what = 'reloading the config'): Promise<T> {
    if (this.#reloads++ === 0) {
      const now = process.hrtime.bigint() / 1000n
      this.#send(`RELOADING=1\nMONOTONIC_USEC=${now}\nSTATUS=${what}`)
    }
    let note = ''
    try {
      return await reload()
    } catch (error) {
      note = `, not reloaded: ${oneLine(error)}`
      throw error
    } finally {
      if (--this.#reloads === 0 && !this.#isStopping) {
        this.#lastStatus = `${this.#describe?.() ?? ''}${note}`
        this.#send(`READY=1\nSTATUS=${this.#lastStatus}`)
      }
    }
  }

  /** Another process is the service from now on, and says the rest itself. */
  handedOver(pid: number): void {
    if (this.#isStopping) return
    this.#isStopping = true
    clearInterval(this.#watch)
    clearTimeout(this.#statusTimer)
    this.#send(`READY=1\nMAINPID=${pid}\nSTATUS=handed over to process ${pid}`)
  }

  /** It ends, because of an error if there is one. A second call does nothing. */
  stopping(error?: unknown): void {
    if (this.#isStopping) return
    this.#isStopping = true
    clearInterval(this.#watch)
    clearTimeout(this.#statusTimer)
    const status = error === undefined ? 'closing ports' : `failed: ${oneLine(error)}`
    this.#send(`STOPPING=1\nSTATUS=${status}`)
  }

  /** Of the store of descriptors. False: the manager's queue is full. */
  tell(message: string, fds: readonly number[]): boolean {
    return this.#waiting.length === 0 && this.#isTaken(message, fds)
  }

  #send(message: string): void {
    if (this.#waiting.length === 0 && this.#isTaken(message)) return
    // Of these the next one says as much.
    if (message === 'WATCHDOG=1' || this.#waiting.length === WAITING_MAX) return
    this.#waiting.push(message)
    if (this.#waiting.length === 1) this.#retryLater()
  }

  #retryLater(): void {
    setTimeout(() => {
      while (this.#waiting.length > 0 && this.#isTaken(this.#waiting[0])) this.#waiting.shift()
      if (this.#waiting.length > 0) this.#retryLater()
    }, RETRY_MS).unref()
  }

  /** False: the manager's queue is full. What cannot be sent at all is done with as well. */
  #isTaken(message: string, fds: readonly number[] = []): boolean {
    let sent = this.#sendNow(message, fds)
    if (sent < 0 && sent !== -EAGAIN) {
      // Not yet connected, or to a manager that has gone.
      const connected = this.#connect()
      sent = connected < 0 ? connected : this.#sendNow(message, fds)
    }
    if (sent === -EAGAIN) return false
    if (sent < 0 && !this.#isFailing) {
      this.#log(`notify: ${this.#address} error="${strerror(-sent)}"`, 'warning')
    }
    this.#isFailing = sent < 0
    return true
  }

  #sendNow(message: string, fds: readonly number[]): number {
    this.#log(`notify: sends ${message.replaceAll('\n', ' ')}`, 'debug')
    const bytes = Buffer.from(message)
    const passed = fds.length === 0 ? null : Int32Array.from(fds)
    return shim.sendMsg(this.#fd, bytes, 0, bytes.length, passed, fds.length, 0)
  }

  #connect(): number {
    const isAbstract = this.#address.startsWith('@')
    return isAbstract
      ? shim.connectAbstract(this.#fd, this.#address.slice(1))
      : shim.connectUnix(this.#fd, this.#address)
  }
}

/** Milliseconds between two signs of life; undefined: nobody waits for one of this process. */
export function watchdogInterval(
  { WATCHDOG_USEC, WATCHDOG_PID }: NotifyEnvironment,
  pid: number,
): number | undefined {
  if (WATCHDOG_PID !== undefined && WATCHDOG_PID !== '' && Number(WATCHDOG_PID) !== pid) {
    return undefined
  }
  const microseconds = Number(WATCHDOG_USEC)
  if (!Number.isSafeInteger(microseconds) || microseconds <= 0) return undefined
  // Node takes what is longer than 2^31 ms for 1 ms; such a watchdog has days to spare.
  return Math.min(Math.max(Math.floor(microseconds / 2000), 1), 0x7fffffff)
}

function oneLine(error: unknown): string {
  return printable(explain(error)).slice(0, REASON_LENGTH_MAX)
}
