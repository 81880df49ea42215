/**
 * Guests that cost next to nothing, so that the switch is what limits: a vhost-user front-end with a
 * port for each socket path, in a process of its own. Guest k sends to guest k + 1, the last to the
 * first, from each of its addresses in turn.
 *
 *     node load.js '{"paths": [...], "addresses": 1, "ringSize": 256, "pid": 4711, "slices": 30}'
 *
 * Rings and frames are written once: descriptor n always describes buffer n and stands at place n of
 * the avail ring, which works because framepump uses chains in their order. What the switch has used
 * is offered again by a store to avail.idx.
 */
import { readdirSync, readFileSync } from 'node:fs'
import * as vhost from '../src/abi/vhost-user.ts'
import { Window } from '../src/mem/window.ts'
import { shim } from '../src/native/shim.ts'

export interface LoadOptions {
  readonly paths: readonly string[]
  /** Addresses behind each guest. */
  readonly addresses: number
  /** By guest: the VLANs in which its addresses are, in turn, by tags; none: it sends without. */
  readonly vlans?: readonly (readonly number[])[]
  /** Entries of each queue, a power of two; a buffer for each. */
  readonly ringSize: number
  /** The switch's process. */
  readonly pid: number
  /** Readings, of SLICE_MS each. */
  readonly slices: number
  /** Once each address has sent a frame they are quiet until the standard input ends; nothing is read. */
  readonly isQuiet?: boolean
}

export interface LoadResult {
  /** CPU time of the switch per frame that arrived, by slice; without those that lost many. */
  readonly nsPerFrame: readonly number[]
  /** Part of the frames that did not. */
  readonly lost: number
}

const F_VERSION_1 = 1n << 32n
const F_PROTOCOL = 1n << 30n
const NONBLOCK_CLOEXEC = 0o2004000
const MFD_CLOEXEC = 1
const SOCK_STREAM = 1
const GUEST_BASE = 0x10_0000
const USER_BASE = 0x7f00_0000_0000
const HEADER_LENGTH = 12
const FRAME_LENGTH = 64
const BUFFER_LENGTH = 2048
const IPV4_LENGTH = 20
const UDP_PORTS = [0x13, 0x88, 0x13, 0x89]
const DESC_LENGTH = 16
const VIRTQ_DESC_F_WRITE = 2
const VIRTQ_AVAIL_F_NO_INTERRUPT = 1
const WARM_UP_MS = 1000
/** Short ones, so that whoever disturbs spoils few of them. */
const SLICE_MS = 100
/** A slice that lost more does not count: the guests did not have their processor. */
const LOST_MAX = 0.01
/** Readings more, until one is good. */
const FURTHER_SLICES = 200
/** Rounds between two looks at the clock, with a kick for a switch that has fallen asleep. */
const ROUNDS = 1024
const CONNECT_TRIES = 6000

const u32s = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)
const u64s = (...values: (number | bigint)[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values, BigInt).buffer)
const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

class LoadGuest {
  readonly #fd: number
  readonly #size: number
  readonly #halfWords: Uint16Array
  readonly #kicks: number[] = []
  /** Half words of the two rings: avail.idx and used.idx of the receiveq, then of the transmitq. */
  readonly #indices: readonly number[]
  readonly #used = [0, 0]
  received = 0
  sent = 0

  private constructor(fd: number, size: number, memory: Window) {
    this.#fd = fd
    this.#size = size
    this.#halfWords = new Uint16Array(memory.buffer)
    this.#indices = [0, 1].flatMap((queue) => {
      const { avail, used } = ringPlaces(queue, size)
      return [(avail + 2) >> 1, (used + 2) >> 1]
    })
  }

  /** Guest `number` of `guests`. Resolves when its queues run. */
  static async connect(
    path: string,
    options: LoadOptions,
    number: number,
    guests: number,
  ): Promise<LoadGuest> {
    const { ringSize } = options
    const fd = shim.socketUnix(SOCK_STREAM)
    for (let tries = 0; shim.connectUnix(fd, path) < 0; tries++) {
      if (tries > CONNECT_TRIES) throw new Error(`nobody listens on ${path}`)
      await pause(10)
    }
    const length = ringPlaces(2, ringSize).descriptors
    const memfd = shim.memfdCreate('framepump-bench-guest', MFD_CLOEXEC)
    shim.ftruncate(memfd, length)
    const memory = Window.map(length, { fd: memfd })
    const next = (number + 1) % guests
    for (const queue of [0, 1]) writeRing(memory, queue, ringSize)
    writeFrames(memory, options, number, next)
    const guest = new LoadGuest(fd, ringSize, memory)
    await guest.#start(memfd, length)
    return guest
  }

  async #start(memfd: number, length: number): Promise<void> {
    const say = (request: number, payload: Uint8Array, fds: number[] = []): void =>
      this.#send(joined(u32s(request, vhost.VHOST_USER_VERSION, payload.length), payload), fds)
    say(vhost.VHOST_USER_GET_FEATURES, u32s())
    say(vhost.VHOST_USER_SET_OWNER, u32s())
    await this.#replied()
    say(vhost.VHOST_USER_SET_FEATURES, u64s(F_VERSION_1 | F_PROTOCOL))
    const table = joined(u32s(1, 0), u64s(GUEST_BASE, length, USER_BASE, 0))
    say(vhost.VHOST_USER_SET_MEM_TABLE, table, [memfd])
    for (const queue of [0, 1]) {
      const { descriptors, avail, used } = ringPlaces(queue, this.#size)
      this.#kicks[queue] = shim.eventfd(0, NONBLOCK_CLOEXEC)
      say(vhost.VHOST_USER_SET_VRING_NUM, u32s(queue, this.#size))
      say(vhost.VHOST_USER_SET_VRING_BASE, u32s(queue, 0))
      const addresses = [descriptors, used, avail].map((at) => USER_BASE + at)
      say(vhost.VHOST_USER_SET_VRING_ADDR, joined(u32s(queue, 0), u64s(...addresses, 0)))
      say(vhost.VHOST_USER_SET_VRING_KICK, u64s(queue), [this.#kicks[queue]])
      say(vhost.VHOST_USER_SET_VRING_ENABLE, u32s(queue, 1))
    }
    say(vhost.VHOST_USER_GET_FEATURES, u32s())
    await this.#replied()
  }

  #send(bytes: Uint8Array, fds: number[] = []): void {
    const sent = shim.sendMsg(this.#fd, bytes, 0, bytes.length, Int32Array.from(fds), fds.length, 0)
    if (sent !== bytes.length) throw new Error(`sendmsg: ${sent}`)
  }

  async #replied(): Promise<void> {
    const reply = new Uint8Array(20)
    for (let tries = 0; tries < CONNECT_TRIES; tries++) {
      const got = shim.recvMsg(this.#fd, reply, new Int32Array(1), new Int32Array(2), 0)
      if (got === reply.length) return
      await pause(10)
    }
    throw new Error('the switch does not answer')
  }

  /** Takes what the switch has put into the receiveq, and offers everything again. */
  serve(): void {
    this.received += this.#offerAgain(0)
    this.sent += this.#offerAgain(1)
  }

  #offerAgain(queue: number): number {
    const halfWords = this.#halfWords
    const used = Atomics.load(halfWords, this.#indices[2 * queue + 1])
    const count = (used - this.#used[queue]) & 0xffff
    if (count === 0) return 0
    this.#used[queue] = used
    Atomics.store(halfWords, this.#indices[2 * queue], (used + this.#size) & 0xffff)
    return count
  }

  kick(): void {
    shim.eventfdWrite(this.#kicks[1])
  }

  /** Makes all buffers available. */
  begin(): void {
    for (const queue of [0, 1]) {
      Atomics.store(this.#halfWords, this.#indices[2 * queue], this.#size)
    }
    this.kick()
  }
}

interface RingPlaces {
  readonly descriptors: number
  readonly avail: number
  readonly used: number
  readonly buffers: number
}

/** Offsets in the guest's memory: receiveq and transmitq, each a ring and its buffers. */
function ringPlaces(queue: number, size: number): RingPlaces {
  const page = (length: number): number => Math.ceil(length / 4096) * 4096
  const avail = page(size * DESC_LENGTH)
  const used = avail + page(6 + 2 * size)
  const buffers = used + page(6 + 8 * size)
  const at = queue * (buffers + size * BUFFER_LENGTH)
  return { descriptors: at, avail: at + avail, used: at + used, buffers: at + buffers }
}

function writeRing(memory: Window, queue: number, size: number): void {
  const view = new DataView(memory.buffer)
  const { descriptors, avail, buffers } = ringPlaces(queue, size)
  view.setUint16(avail, VIRTQ_AVAIL_F_NO_INTERRUPT, true)
  for (let n = 0; n < size; n++) {
    const at = descriptors + n * DESC_LENGTH
    view.setBigUint64(at, BigInt(GUEST_BASE + buffers + n * BUFFER_LENGTH), true)
    view.setUint32(at + 8, queue === 0 ? BUFFER_LENGTH : HEADER_LENGTH + FRAME_LENGTH, true)
    view.setUint16(at + 12, queue === 0 ? VIRTQ_DESC_F_WRITE : 0, true)
    view.setUint16(avail + 4 + 2 * n, n, true)
  }
}

/** UDP of IPv4 from each address of a guest to the same one of the next. */
function writeFrames(memory: Window, options: LoadOptions, from: number, to: number): void {
  const { ringSize, addresses, vlans = [] } = options
  const bytes = new Uint8Array(memory.buffer)
  const mac = (guest: number, which: number): number[] => [2, 0, 0, guest, which >> 8, which & 0xff]
  const { buffers } = ringPlaces(1, ringSize)
  const its = vlans[from] ?? []
  for (let n = 0; n < ringSize; n++) {
    const which = n % addresses
    const vlan = its[which % its.length]
    const tag = its.length === 0 ? [] : [0x81, 0, vlan >> 8, vlan & 0xff]
    const ip = ipv4(FRAME_LENGTH - 14 - tag.length, ipOf(from, which), ipOf(to, which))
    const frame = [...mac(to, which), ...mac(from, which), ...tag, 8, 0, ...ip]
    bytes.set(frame, buffers + n * BUFFER_LENGTH + HEADER_LENGTH)
  }
}

const ipOf = (guest: number, which: number): number[] => [10, guest + 1, which >> 8, which & 0xff]

/** A packet of that length, of which the rest is zeros. */
function ipv4(length: number, source: readonly number[], destination: readonly number[]): number[] {
  const header = [0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0, ...source, ...destination]
  let sum = 0
  for (let at = 0; at < IPV4_LENGTH; at += 2) sum += (header[at] << 8) | header[at + 1]
  const checksum = ~((sum & 0xffff) + (sum >>> 16))
  header[10] = (checksum >> 8) & 0xff
  header[11] = checksum & 0xff
  return [...header, ...UDP_PORTS, 0, length - IPV4_LENGTH, 0, 0]
}

function total(guests: readonly LoadGuest[]): { readonly sent: number; readonly received: number } {
  return guests.reduce(
    (sum, { sent, received }) => ({ sent: sum.sent + sent, received: sum.received + received }),
    { sent: 0, received: 0 },
  )
}

/** CPU time of all threads of a process. proc(5): its schedstat, in nanoseconds. */
function cpuNs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  return threads.reduce((sum, thread) => {
    const [ran] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')
    return sum + Number(ran)
  }, 0)
}

/** Serves the guests for a while. */
function serveFor(guests: readonly LoadGuest[], ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end) {
    for (let round = 0; round < ROUNDS; round++) {
      for (let k = 0; k < guests.length; k++) guests[k].serve()
    }
    for (const guest of guests) guest.kick()
  }
}

function measure({ pid, slices }: LoadOptions, guests: readonly LoadGuest[]): LoadResult {
  serveFor(guests, WARM_UP_MS)
  const start = total(guests)
  const nsPerFrame: number[] = []
  // On a machine that does something else as well there may be few that are whole.
  const isOver = (slice: number): boolean =>
    slice >= (nsPerFrame.length === 0 ? slices + FURTHER_SLICES : slices)
  for (let slice = 0; !isOver(slice); slice++) {
    const [before, cpuBefore] = [total(guests), cpuNs(pid)]
    serveFor(guests, SLICE_MS)
    const now = total(guests)
    const frames = now.received - before.received
    const isWhole = frames > 0 && frames >= (1 - LOST_MAX) * (now.sent - before.sent)
    if (isWhole) nsPerFrame.push((cpuNs(pid) - cpuBefore) / frames)
  }
  if (nsPerFrame.length === 0) throw new Error('something else keeps the processors busy')
  const end = total(guests)
  return { nsPerFrame, lost: 1 - (end.received - start.received) / (end.sent - start.sent) }
}

const options = JSON.parse(process.argv[2]) as LoadOptions
const guests: LoadGuest[] = []
for (const [k, path] of options.paths.entries()) {
  guests.push(await LoadGuest.connect(path, options, k, options.paths.length))
}
for (const guest of guests) guest.begin()
if (options.isQuiet === true) process.stdin.resume()
else process.stdout.write(`${JSON.stringify(measure(options, guests))}\n`)
