/**
 * What a frame costs the kernel on its way from one descriptor to another, by each way that there is:
 * io_uring, a burst by Linux AIO, or a system call for each read and write. None is cheapest everywhere: a
 * system call costs 0.1 us on one machine and above 1 us on another (virtual machines, mitigations), and so
 * do the detours that save calls.
 *
 *     far end --64 short or 2 long frames--> near end -> [the calls of a tier's turn] -> near end --> far end
 *
 * The same calls as the tiers make, on packet sockets, which need no rights. TAPs in a namespace of their own
 * give the same ratios; writes alone, to a device that forgets them, do not tell what reads cost (0.45 us by
 * io_uring and 0.42 by calls where a TAP's frames took 2.9 and 3.9). What TypeScript does in between is not timed:
 * in the engine it is compiled code, here it is not yet. The ways take turns, so that
 * what disturbs one disturbs all; medians of the rounds have the steadier ratios than minima.
 */
import {
  CQE_WORDS,
  IORING_CQE_BUFFER_SHIFT,
  IORING_CQE_F_MORE,
  IORING_OP_READ_MULTISHOT,
  IORING_OP_WRITE,
  IOSQE_BUFFER_SELECT,
  IOSQE_CQE_SKIP_SUCCESS,
  RWF_NOWAIT,
} from '../abi/io-uring.ts'
import { EPOLL_CTL_ADD, POLLIN } from '../abi/epoll.ts'
import { FramepumpError, SysError } from '../errors.ts'
import { FramePool, SLOT_CAPACITY, SLOT_HEADROOM, SLOT_STRIDE } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { makeEpoll } from '../native/event-fd.ts'
import { READ_ROW_INTS, SEGMENT_INTS, shim, WRITE_ROW_INTS } from '../native/shim.ts'
import { Aio } from './aio.ts'
import { BUFFER_GROUP, BufferRing } from './buffer-ring.ts'
import { Uring } from './uring.ts'

/** `aio` and `calls` are both the tier read-write. */
export type Way = 'io_uring' | 'aio' | 'calls'

/** Nanoseconds a frame; Infinity: it does not work. */
export interface FrameCosts {
  /** 60 bytes, 64 of them in a turn. */
  readonly shortNs: number
  /** 65000 bytes, two in a turn, as TCP has them. */
  readonly longNs: number
}

export type WayCosts = Partial<Readonly<Record<Way, FrameCosts>>>

interface Load {
  readonly count: number
  readonly length: number
  readonly limitMs: number
}

const SHORT: Load = { count: 64, length: 60, limitMs: 25 }
const LONG: Load = { count: 2, length: 65_000, limitMs: 10 }
/**
 * A call costs so much more once the daemon has its filter of system calls, which is after the choice
 * (measured: 48 and 60 ns on two machines).
 */
const FILTER_NS = 50
const PAGE_WORDS = 1024
const ROUNDS_MIN = 8
const ROUNDS_MAX = 256
/** A burst that is not through after so many turns never will be. */
const TURNS_MAX = 64
const COUNT_MAX: number = SHORT.count
const SOCK_SEQPACKET = 5
const O_NONBLOCK = 0o4000

/** Layout of the window of tables, then the frame that is sent, then the one that came. */
const READS_AT = 0
const WRITES_AT: number = READS_AT + COUNT_MAX * READ_ROW_INTS * 4
const SEGMENTS_AT: number = WRITES_AT + COUNT_MAX * WRITE_ROW_INTS * 4
const EVENTS_AT: number = SEGMENTS_AT + COUNT_MAX * SEGMENT_INTS * 4
const SENT_AT = 8192
const CAME_AT: number = SENT_AT + SLOT_CAPACITY
const LENGTH: number = CAME_AT + SLOT_CAPACITY
/** Where a frame has its number: behind the Ethernet header. */
const NUMBER_AT = 14

/** Takes a tenth of a second. A way that cannot be had is left out. */
export function measureWays(ways: readonly Way[]): WayCosts {
  const exchanges: Exchange[] = []
  try {
    for (const way of ways) {
      const exchange = openExchange(way)
      if (exchange !== null) exchanges.push(exchange)
    }
    // The other way round the long ones would pass through the many slots that the short ones need.
    const long = measure(exchanges, LONG)
    const short = measure(exchanges, SHORT)
    return Object.fromEntries(
      exchanges.map(({ way, works }, at) => [
        way,
        works ? { shortNs: short[at], longNs: long[at] } : { shortNs: Infinity, longNs: Infinity },
      ]),
    )
  } finally {
    for (const exchange of exchanges) exchange.close()
  }
}

/** The nanoseconds that a frame takes by each: the median of their rounds. */
function measure(exchanges: readonly Exchange[], load: Load): number[] {
  const all: number[][] = exchanges.map(() => [])
  const until = performance.now() + load.limitMs
  for (let round = 0; round < ROUNDS_MAX; round++) {
    if (round >= ROUNDS_MIN && performance.now() > until) break
    for (const [at, exchange] of exchanges.entries()) {
      if (exchange.works) all[at].push(exchange.round(load))
    }
  }
  return all.map((rounds) => Math.round(rounds.sort((a, b) => a - b)[rounds.length >> 1]))
}

function openExchange(way: Way): Exchange | null {
  try {
    const exchange = way === 'io_uring' ? new UringExchange(way) : new CallExchange(way)
    try {
      exchange.open()
      return exchange
    } catch (error) {
      exchange.close()
      throw error
    }
  } catch (error) {
    if (!(error instanceof FramepumpError)) throw error
    return null
  }
}

/** A way with its sockets, and a pool that it reads into. */
abstract class Exchange {
  readonly way: Way
  /** Every frame came, in order, and no other: else it is no way (an AIO that runs requests beside each other). */
  works = true
  protected readonly tables: Window = Window.map(LENGTH)
  protected readonly words: Int32Array = new Int32Array(this.tables.buffer)
  protected readonly pool: FramePool = new FramePool(COUNT_MAX)
  protected near = -1
  protected out = -1
  /** Nanoseconds in calls of this round. */
  protected spentNs = 0
  readonly #bytes: Uint8Array = new Uint8Array(this.tables.buffer)
  readonly #fds: number[] = []
  #far = -1
  #outFar = -1

  constructor(way: Way) {
    this.way = way
    // A page costs more to be had than to be filled.
    for (let at = 0; at < this.pool.words.length; at += PAGE_WORDS) this.pool.words[at] = 0
  }

  /** Throws SysError; then as well it is to be closed. */
  open(): void {
    const [near, far] = this.#pair()
    const [out, outFar] = this.#pair()
    this.near = near
    this.out = out
    this.#far = far
    this.#outFar = outFar
  }

  #pair(): readonly [number, number] {
    const fds = new Int32Array(2)
    const made = shim.socketPair(SOCK_SEQPACKET, fds)
    if (made < 0) throw new SysError('OUT_OF_RESOURCES', 'socketpair', { errno: -made })
    this.#fds.push(...fds)
    for (const fd of fds) shim.setStatusFlags(fd, O_NONBLOCK)
    return [fds[0], fds[1]]
  }

  /** Nanoseconds a frame; sending them and taking them off at the end is not timed. */
  round({ count, length }: Load): number {
    for (let k = 0; k < count; k++) {
      this.#bytes[SENT_AT + NUMBER_AT] = k
      const sent = shim.writeFrom(this.#far, this.tables.id, SENT_AT, length, 0)
      if (sent !== length) this.works = false
    }
    this.spentNs = 0
    if (this.works) this.forward(count)
    for (let k = 0; k < count; k++) {
      const came = shim.readInto(this.#outFar, this.tables.id, CAME_AT, SLOT_CAPACITY)
      if (came !== length || this.#bytes[CAME_AT + NUMBER_AT] !== k) this.works = false
    }
    return this.spentNs / count
  }

  /** As a turn of the tier with so many frames. */
  protected abstract forward(count: number): void

  /** `calls`: how many system calls there are in it. */
  protected timed(calls: number, call: () => number): number {
    const start = performance.now()
    const result = call()
    this.spentNs += (performance.now() - start) * 1e6 + calls * FILTER_NS
    return result
  }

  close(): void {
    this.pool.close()
    for (const fd of this.#fds) shim.close(fd)
    this.tables.unmap()
  }
}

/** io_submit and io_getevents. */
const AIO_CALLS = 2

/** Of the tier read-write. */
class CallExchange extends Exchange {
  #aio: Aio | null = null
  #epoll = -1

  override open(): void {
    super.open()
    if (this.way === 'aio') {
      this.#aio = Aio.open()
      if (this.#aio === null) throw new SysError('OUT_OF_RESOURCES', 'io_setup')
    }
    this.#epoll = makeEpoll()
    shim.epollCtl(this.#epoll, EPOLL_CTL_ADD, this.near, POLLIN, 0)
    for (let slot = 0; slot < COUNT_MAX; slot++) {
      const row = READS_AT / 4 + slot * READ_ROW_INTS
      this.words[row] = this.pool.window.id
      this.words[row + 1] = slot * SLOT_STRIDE + SLOT_HEADROOM
      this.words[row + 2] = SLOT_CAPACITY
    }
  }

  /** Few frames are read and written one by one, and one more is asked for than there are. */
  protected forward(count: number): void {
    const aio = count === SHORT.count ? this.#aio : null
    const asked = Math.min(count + 1, COUNT_MAX)
    const { id } = this.tables
    this.timed(1, () => shim.epollWait(this.#epoll, id, EVENTS_AT, 1, 0))
    const read = this.timed(aio === null ? asked : AIO_CALLS, () =>
      aio === null
        ? shim.readFrames(this.near, id, READS_AT, asked)
        : shim.aioReadFrames(aio.low, aio.high, this.near, id, READS_AT, asked),
    )
    if (read === count) this.#fillWrites(count)
    const written = this.timed(aio === null ? count : AIO_CALLS, () =>
      aio === null
        ? shim.writeFrames(id, WRITES_AT, count, SEGMENTS_AT)
        : shim.aioWriteFrames(aio.low, aio.high, id, WRITES_AT, count, SEGMENTS_AT),
    )
    if (read !== count || written !== count) this.works = false
  }

  #fillWrites(count: number): void {
    const words = this.words
    for (let k = 0; k < count; k++) {
      const [read, write] = [READS_AT / 4 + k * READ_ROW_INTS, WRITES_AT / 4 + k * WRITE_ROW_INTS]
      const segment = SEGMENTS_AT / 4 + k * SEGMENT_INTS
      words[write] = this.out
      words[write + 1] = k
      words[write + 2] = 1
      words[segment] = words[read]
      words[segment + 1] = words[read + 1]
      words[segment + 2] = words[read + 3]
    }
  }

  override close(): void {
    if (this.#epoll >= 0) shim.close(this.#epoll)
    this.#aio?.close()
    super.close()
  }
}

/** Of the tier io_uring-multishot. */
class UringExchange extends Exchange {
  #uring: Uring | null = null
  #free: BufferRing | null = null
  readonly #taken: Int32Array = new Int32Array(COUNT_MAX)
  #isReading = false

  override open(): void {
    super.open()
    this.#uring = new Uring(2 * COUNT_MAX, 4 * COUNT_MAX)
    this.#free = new BufferRing(this.#uring.fd, this.pool)
  }

  protected forward(count: number): void {
    const uring = this.#uring!
    let seen = 0
    for (let turns = 0; seen < count && turns < TURNS_MAX; turns++) {
      if (!this.#isReading) this.#startRead(uring)
      this.timed(1, () => uring.enter(0, -1))
      seen += this.#take(uring, this.#free!)
    }
    if (seen !== count || uring.pending > 0) this.works = false
  }

  #startRead(uring: Uring): void {
    this.#isReading = true
    const read = IORING_OP_READ_MULTISHOT | (IOSQE_BUFFER_SELECT << 8)
    uring.push(read, this.near, 0, 0, 0, 0, 0, 0, BUFFER_GROUP)
  }

  /** Writes what was read, and gives the slots back; returns how many frames. */
  #take(uring: Uring, free: BufferRing): number {
    const tail = uring.tail()
    let [count, bytes] = [0, 0]
    for (; uring.head !== tail; uring.head = (uring.head + 1) | 0) {
      const entry = uring.cqesAt + (uring.head & uring.cqMask) * CQE_WORDS
      const [result, flags] = [uring.cq[entry + 2], uring.cq[entry + 3]]
      if ((flags & IORING_CQE_F_MORE) === 0) this.#isReading = false
      if (result <= 0) continue
      const slot = flags >>> IORING_CQE_BUFFER_SHIFT
      this.#taken[count++] = slot
      bytes += result
      this.#pushWrite(uring, slot, result)
    }
    uring.publishHead()
    if (count === 0) return 0
    this.timed(1, () => uring.enter(0, -1))
    free.giveBack(this.#taken, count, bytes)
    if (!this.#isReading) free.widen()
    return count
  }

  #pushWrite(uring: Uring, slot: number, length: number): void {
    const address = this.pool.window.address + slot * SLOT_STRIDE + SLOT_HEADROOM
    const write = IORING_OP_WRITE | (IOSQE_CQE_SKIP_SUCCESS << 8)
    const high = Math.floor(address / 2 ** 32)
    uring.push(write, this.out, address | 0, high, length, RWF_NOWAIT, 0, 0, 0)
  }

  override close(): void {
    this.#free?.close()
    this.#uring?.close()
    super.close()
  }
}
