/**
 * Tier `read-write`: batched non-blocking reads and writes in the shim, readiness by epoll. For
 * kernels and containers without io_uring. A batch is one io_submit(2) where that is cheaper, which is
 * measured before the start (a 1514-byte frame's read 0.4 instead of 1.9 us where a system call costs 1 us);
 * else, and for the smallest ones, a read(2) or write(2) each.
 *
 * A burst is read into the same slots each time and written before the next is read, so the slots
 * stay in the cache and no slot has to be tracked.
 */
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLET, POLLIN } from '../abi/epoll.ts'
import { EAGAIN, EBADF, EBADFD, EOPNOTSUPP } from '../abi/errno.ts'
import type { Burst } from '../mem/burst.ts'
import { FramePool, SLOT_CAPACITY, SLOT_HEADROOM, SLOT_STRIDE } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { makeEpoll } from '../native/event-fd.ts'
import {
  EPOLL_ROW_INTS,
  READ_ROW_INTS,
  SEGMENT_INTS,
  shim,
  WRITE_ROW_INTS,
} from '../native/shim.ts'
import type { Aio } from './aio.ts'
import { FrameReader } from './frame-reader.ts'
import type { IoTier, IoTierName, TapQueue, TierEvents, WatchedSocket } from './tier.ts'
import { WatchedSockets } from './watched-sockets.ts'

/** Frames per read call. */
const BURST_SIZE = 64
/** Fewer reads or writes are cheaper one by one: io_submit and io_getevents are two calls. */
const BATCH_MIN = 4
/** Ready descriptors told by one epoll_wait; the others wait for the next. */
const EVENTS_MAX = 256
/** Frames, and their segments, that wait for one write call. */
const WRITES_MAX = 1024
const SEGMENTS_MAX = 2048

/** Layout of the window of tables, in bytes. */
const READ_TABLE = 0
const EVENT_TABLE: number = READ_TABLE + BURST_SIZE * READ_ROW_INTS * 4
const WRITE_TABLE: number = EVENT_TABLE + EVENTS_MAX * EPOLL_ROW_INTS * 4
const SEND_TABLE: number = WRITE_TABLE + WRITES_MAX * WRITE_ROW_INTS * 4
const SEGMENT_TABLE: number = SEND_TABLE + WRITES_MAX * WRITE_ROW_INTS * 4
const TABLES_LENGTH: number = SEGMENT_TABLE + SEGMENTS_MAX * SEGMENT_INTS * 4

/** epoll data of the control eventfd, and of those that only wake; queues use their number. */
const EVENT_FD_DATA = -1
const WAKE_DATA = -2
/** Sockets: this less their number. */
const SOCKET_DATA = -3

const RETRY_MS = 20
const NO_LIMIT = 0x7fff_ffff

export class ReadWriteTier implements IoTier {
  readonly name: IoTierName = 'read-write'
  readonly spins: number = 5
  readonly #events: TierEvents
  readonly #eventFd: number
  #aio: Aio | null
  readonly #epoll: number
  readonly #pool: FramePool
  readonly #reader: FrameReader
  readonly #tables: Window
  readonly #rows: Int32Array
  readonly #queues: (TapQueue | null)[] = []
  readonly #sockets: WatchedSockets = new WatchedSockets()
  /** Numbers of the queues that may have frames, in the order in which they are read. */
  readonly #ready: Int32Array = new Int32Array(EVENTS_MAX)
  #readyCount = 0
  #readyAt = 0
  /** Frames that a turn may read, and those that this one still may. */
  #framesMax = NO_LIMIT
  #framesLeft = NO_LIMIT
  #writes = 0
  /** To sockets. */
  #sends = 0
  #segments = 0
  /** Port and bytes of each waiting write, for its counters; those to sockets from WRITES_MAX on. */
  readonly #writePort: Int32Array = new Int32Array(2 * WRITES_MAX)
  readonly #writeLength: Int32Array = new Int32Array(2 * WRITES_MAX)
  #stalled = 0
  #reading = 0
  #isPaused = false

  /** The context that `openAio` gives becomes the tier's; null: a system call for each frame. */
  constructor(eventFd: number, events: TierEvents, openAio: () => Aio | null = () => null) {
    this.#events = events
    this.#eventFd = eventFd
    this.#epoll = makeEpoll()
    this.#pool = new FramePool(BURST_SIZE)
    this.#reader = new FrameReader(this.#pool)
    this.#tables = Window.map(TABLES_LENGTH)
    this.#rows = new Int32Array(this.#tables.buffer)
    for (let slot = 0; slot < BURST_SIZE; slot++) {
      const row = READ_TABLE / 4 + slot * READ_ROW_INTS
      this.#rows[row] = this.#pool.window.id
      this.#rows[row + 1] = slot * SLOT_STRIDE + SLOT_HEADROOM
      this.#rows[row + 2] = SLOT_CAPACITY
    }
    shim.epollCtl(this.#epoll, EPOLL_CTL_ADD, eventFd, POLLIN, EVENT_FD_DATA)
    this.#aio = openAio()
  }

  get isReading(): boolean {
    return this.#reading > 0
  }

  addQueue(queue: TapQueue): void {
    let id = this.#queues.indexOf(null)
    if (id < 0) id = this.#queues.push(null) - 1
    queue.id = id
    queue.isClosing = false
    this.#queues[id] = queue
    if (!this.#isPaused) this.#watch(queue)
  }

  removeQueue(queue: TapQueue): void {
    queue.isClosing = true
    this.#unwatch(queue)
    this.#queues[queue.id] = null
    queue.id = -1
  }

  pause(): void {
    this.#isPaused = true
    for (const queue of this.#queues) if (queue !== null) this.#unwatch(queue)
    this.#readyCount = 0
    this.#readyAt = 0
  }

  resume(): void {
    this.#isPaused = false
    for (const queue of this.#queues) {
      if (queue !== null && queue.failure === 0) this.#watch(queue)
    }
  }

  watch(eventFd: number): void {
    // Edge-triggered: nobody reads it, each write is told once.
    shim.epollCtl(this.#epoll, EPOLL_CTL_ADD, eventFd, POLLIN | EPOLLET, WAKE_DATA)
  }

  unwatch(eventFd: number): void {
    shim.epollCtl(this.#epoll, EPOLL_CTL_DEL, eventFd, 0, 0)
  }

  watchSocket(fd: number): WatchedSocket {
    const socket = this.#sockets.add(fd)
    // Edge-triggered: told once, and nothing is asked of it while the engine is busy.
    shim.epollCtl(this.#epoll, EPOLL_CTL_ADD, fd, POLLIN | EPOLLET, SOCKET_DATA - socket.id)
    return socket
  }

  unwatchSocket(socket: WatchedSocket): void {
    this.#sockets.remove(socket)
    shim.epollCtl(this.#epoll, EPOLL_CTL_DEL, socket.fd, 0, 0)
  }

  /** @hot */
  arm(): void {
    // It is watched all the time.
  }

  limitFrames(most: number): void {
    this.#framesMax = most
  }

  /** @hot */
  nextBurst(burst: Burst): TapQueue | null {
    // The slots of the burst before this one are about to be overwritten.
    this.flush()
    while (this.#readyAt < this.#readyCount && this.#framesLeft > 0) {
      const queue = this.#queues[this.#ready[this.#readyAt++]]
      if (queue == null || !queue.isReading) continue
      const result = this.#read(queue)
      if (result > 0) {
        this.#framesLeft -= result
        this.#fill(burst, queue, result)
        return queue
      }
      if (result !== -EAGAIN) this.#readFailed(queue, -result)
    }
    return null
  }

  /**
   * A read beyond the last frame costs as much as an empty system call or request, so not many more
   * are asked for than came the last time. @hot
   */
  #read(queue: TapQueue): number {
    const asked = queue.readAhead < this.#framesLeft ? queue.readAhead : this.#framesLeft
    const aio = this.#aio
    const result =
      aio === null || asked < BATCH_MIN
        ? shim.readFrames(queue.fd, this.#tables.id, READ_TABLE, asked)
        : shim.aioReadFrames(aio.low, aio.high, queue.fd, this.#tables.id, READ_TABLE, asked)
    if (result === asked) queue.readAhead = 4 * asked < BURST_SIZE ? 4 * asked : BURST_SIZE
    else if (result > 0) queue.readAhead = result < asked >> 1 ? asked >> 1 : result + 1
    else if (result === -EOPNOTSUPP && aio !== null) {
      this.#giveUpAio()
      return this.#read(queue)
    }
    return result
  }

  /** It has turned out not to be what it was measured to be: never again. */
  #giveUpAio(): void {
    this.#aio?.close()
    this.#aio = null
  }

  /** @hot */
  #fill(burst: Burst, queue: TapQueue, count: number): void {
    const reader = this.#reader
    const rows = this.#rows
    reader.begin(burst, queue.vnetHdrLength)
    for (let slot = 0; slot < count; slot++) {
      const row = READ_TABLE / 4 + slot * READ_ROW_INTS
      reader.add(rows[row + 1], rows[row + 3])
    }
    reader.end(this.#events, queue.port)
  }

  /** @hot */
  write(fd: number, port: number, window: number, offset: number, length: number): void {
    this.#makeRoom(1)
    this.#addWrite(fd, port, length, 1)
    this.#addSegment(window, offset, length)
  }

  /** @hot */
  writeWithHeader(
    fd: number,
    port: number,
    headWindow: number,
    headOffset: number,
    headLength: number,
    window: number,
    offset: number,
    length: number,
  ): void {
    this.#makeRoom(2)
    this.#addWrite(fd, port, headLength + length, 2)
    this.#addSegment(headWindow, headOffset, headLength)
    this.#addSegment(window, offset, length)
  }

  /** @hot */
  writeScattered(
    fd: number,
    port: number,
    headWindow: number,
    headOffset: number,
    headLength: number,
    burst: Burst,
    k: number,
  ): void {
    const count = burst.furtherCount[k]
    const heads = headLength === 0 ? 0 : 1
    this.#makeRoom(heads + 1 + count)
    this.#addWrite(fd, port, headLength + burst.length[k], heads + 1 + count)
    if (heads !== 0) this.#addSegment(headWindow, headOffset, headLength)
    this.#addSegment(burst.window[k], burst.offset[k], burst.firstLength[k])
    const first = burst.furtherFirst[k]
    for (let at = first; at < first + count; at++) {
      this.#addSegment(burst.furtherWindow[at], burst.furtherOffset[at], burst.furtherLength[at])
    }
  }

  /** For one more write of so many segments. @hot */
  #makeRoom(segments: number): void {
    const isFull = this.#writes === WRITES_MAX || this.#sends === WRITES_MAX
    if (isFull || this.#segments + segments > SEGMENTS_MAX) this.flush()
  }

  /** @hot */
  #addWrite(fd: number, port: number, length: number, segmentCount: number): void {
    // The table of sockets' writes stands behind the other.
    const number = fd < 0 ? WRITES_MAX + this.#sends++ : this.#writes++
    const row = WRITE_TABLE / 4 + number * WRITE_ROW_INTS
    const rows = this.#rows
    rows[row] = fd < 0 ? ~fd : fd
    rows[row + 1] = this.#segments
    rows[row + 2] = segmentCount
    this.#writePort[number] = port
    this.#writeLength[number] = length
  }

  /** @hot */
  #addSegment(window: number, offset: number, length: number): void {
    const at = SEGMENT_TABLE / 4 + this.#segments * SEGMENT_INTS
    const rows = this.#rows
    rows[at] = window
    rows[at + 1] = offset
    rows[at + 2] = length
    this.#segments++
  }

  /** @hot */
  flush(): void {
    const writes = this.#writes
    const sends = this.#sends
    if (writes + sends === 0) return
    this.#writes = 0
    this.#sends = 0
    this.#segments = 0
    const tables = this.#tables.id
    if (sends > 0 && shim.sendFrames(tables, SEND_TABLE, sends, SEGMENT_TABLE) !== sends) {
      this.#tellFailed(WRITES_MAX, sends)
    }
    if (writes === 0) return
    const aio = this.#aio
    const whole =
      aio === null || writes < BATCH_MIN
        ? shim.writeFrames(tables, WRITE_TABLE, writes, SEGMENT_TABLE)
        : shim.aioWriteFrames(aio.low, aio.high, tables, WRITE_TABLE, writes, SEGMENT_TABLE)
    if (whole === writes) return
    if (whole < 0) this.#giveUpAio()
    this.#tellFailed(0, writes)
  }

  /** Of the writes [first, first + count). */
  #tellFailed(first: number, count: number): void {
    for (let k = first; k < first + count; k++) {
      const result = this.#rows[WRITE_TABLE / 4 + k * WRITE_ROW_INTS + 3]
      if (result < 0) {
        this.#events.writeFailed(this.#writePort[k], this.#writeLength[k], -result)
      }
    }
  }

  /** @hot */
  endTurn(waitUs: number): boolean {
    this.flush()
    this.#framesLeft = this.#framesMax
    // The others are read first in the next turn, before those that were read in this one are found again.
    if (this.#readyAt < this.#readyCount) return true
    // Without a TAP there is nothing to look for: what wakes a sleep needs no look while awake.
    if (waitUs === 0) return this.#reading > 0 && this.#wait(0)
    const timeoutMs = waitUs < 0 ? -1 : Math.ceil(waitUs / 1000)
    const isBounded = this.#stalled > 0 && (timeoutMs < 0 || timeoutMs > RETRY_MS)
    return this.#wait(isBounded ? RETRY_MS : timeoutMs)
  }

  /** Each spin is a system call. @hot */
  spin(): boolean {
    if (this.#reading === 0) return false
    this.#wait(0)
    return this.#readyCount > 0
  }

  retry(): void {
    if (this.#stalled === 0 || this.#isPaused) return
    this.#stalled = 0
    this.resume()
  }

  close(): void {
    shim.close(this.#epoll)
    this.#aio?.close()
    this.#pool.close()
    this.#tables.unmap()
  }

  /** True: something came. @hot */
  #wait(timeoutMs: number): boolean {
    const rows = shim.epollWait(this.#epoll, this.#tables.id, EVENT_TABLE, EVENTS_MAX, timeoutMs)
    let count = 0
    for (let k = 0; k < rows; k++) {
      const row = EVENT_TABLE / 4 + k * EPOLL_ROW_INTS
      const data = this.#rows[row + 1]
      if (data >= 0) this.#ready[count++] = data
      else if (data === EVENT_FD_DATA) shim.eventfdRead(this.#eventFd)
      else if (data <= SOCKET_DATA) this.#sockets.woke(SOCKET_DATA - data, this.#rows[row])
    }
    this.#readyCount = count
    this.#readyAt = 0
    return rows > 0
  }

  #watch(queue: TapQueue): void {
    if (queue.isReading) return
    if (shim.epollCtl(this.#epoll, EPOLL_CTL_ADD, queue.fd, POLLIN, queue.id) === 0) {
      queue.isReading = true
      this.#reading++
    }
  }

  #unwatch(queue: TapQueue): void {
    if (!queue.isReading) return
    shim.epollCtl(this.#epoll, EPOLL_CTL_DEL, queue.fd, 0, 0)
    queue.isReading = false
    this.#reading--
  }

  /** Not watched any more: for good, or until the next retry. */
  #readFailed(queue: TapQueue, errno: number): void {
    this.#unwatch(queue)
    if (errno === EBADFD || errno === EBADF) {
      queue.failure = errno
      this.#events.queueFailed(queue, errno)
    } else {
      this.#stalled++
    }
  }
}
