/**
 * A hostile guest beside a pair that wants nothing but a short round trip, all vhost-user front-ends
 * in one process, which never sleeps: what is late was late in the switch.
 *
 *     node hostile.js '{"attack": "tables", "hostile": ["/.../h0"], "queues": 64, "pair": [...], "seconds": 5}'
 *
 * The attacker's rings are written once; whatever the switch has used is offered again at once.
 */
import * as vhost from '../src/abi/vhost-user.ts'
import { Window } from '../src/mem/window.ts'
import { shim } from '../src/native/shim.ts'

/** What is dear about a chain of the attacker's, and for whom. */
export type Attack = 'none' | 'tables' | 'bytes' | 'segments' | 'gso' | 'receiver'

export interface HostileOptions {
  readonly attack: Attack
  /** Sockets of the hostile guests, and queue pairs of each. */
  readonly hostile: readonly string[]
  readonly queues: number
  /** Sockets of the two that are measured. */
  readonly pair: readonly [string, string]
  readonly seconds: number
}

export interface HostileResult {
  /** Round trips in microseconds, in the order of their length. */
  readonly roundTripsUs: readonly number[]
  /** Chains of the attacker's that were used. */
  readonly chains: number
}

const F_VERSION_1 = 1n << 32n
const F_PROTOCOL = 1n << 30n
const F_INDIRECT = 1n << 28n
const F_CSUM = 1n << 0n
const F_HOST_TSO4 = 1n << 11n
const F_MRG_RXBUF = 1n << 15n
const NONBLOCK_CLOEXEC = 0o2004000
const MFD_CLOEXEC = 1
const SOCK_STREAM = 1
const GUEST_BASE = 0x10_0000
const USER_BASE = 0x7f00_0000_0000
const HEADER_LENGTH = 12
const DESC_LENGTH = 16
const TABLE_LENGTH = 1024
const VIRTQ_DESC_F_NEXT = 1
const VIRTQ_DESC_F_WRITE = 2
const VIRTQ_DESC_F_INDIRECT = 4
const VIRTQ_AVAIL_F_NO_INTERRUPT = 1
const CONNECT_TRIES = 6000
const RING = 256
/** A queue's descriptors, avail and used ring, 4 KiB each, behind what all queues share. */
const QUEUE_STRIDE = 0x3000
const AVAIL = 0x1000
const USED = 0x2000
/** Shared by all queues: two tables, and a buffer for what is sent and one for what is received. */
const TABLES: readonly [number, number] = [0, 0x8000]
const SENT = 0x1_0000
const RECEIVED = 0x3_0000
const QUEUES = 0x5_0000
const LONG = 65_000
const SHORT = 60
/** As small as software segmentation takes. */
const GSO_SIZE = 128

const u32s = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)
const u64s = (...values: (number | bigint)[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values, BigInt).buffer)
const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

class Guest {
  readonly #fd: number
  readonly #memfd: number
  readonly #length: number
  readonly memory: Window
  readonly #view: DataView
  readonly #halfWords: Uint16Array
  readonly #used: number[]
  readonly kicks: number[] = []

  constructor(fd: number, queuePairs: number) {
    this.#fd = fd
    this.#length = QUEUES + 2 * queuePairs * QUEUE_STRIDE
    this.#memfd = shim.memfdCreate('framepump-bench-guest', MFD_CLOEXEC)
    shim.ftruncate(this.#memfd, this.#length)
    this.memory = Window.map(this.#length, { fd: this.#memfd })
    this.#view = new DataView(this.memory.buffer)
    this.#halfWords = new Uint16Array(this.memory.buffer)
    this.#used = Array.from({ length: 2 * queuePairs }, () => 0)
  }

  static async connect(path: string, queuePairs: number): Promise<Guest> {
    const fd = shim.socketUnix(SOCK_STREAM)
    for (let tries = 0; shim.connectUnix(fd, path) < 0; tries++) {
      if (tries > CONNECT_TRIES) throw new Error(`nobody listens on ${path}`)
      await pause(10)
    }
    return new Guest(fd, queuePairs)
  }

  async start(features: bigint): Promise<void> {
    const say = (request: number, payload: Uint8Array, fds: number[] = []): void =>
      this.#send(joined(u32s(request, vhost.VHOST_USER_VERSION, payload.length), payload), fds)
    say(vhost.VHOST_USER_SET_OWNER, u32s())
    say(vhost.VHOST_USER_GET_FEATURES, u32s())
    await this.#replied()
    say(vhost.VHOST_USER_SET_FEATURES, u64s(F_VERSION_1 | F_PROTOCOL | features))
    const table = joined(u32s(1, 0), u64s(GUEST_BASE, this.#length, USER_BASE, 0))
    say(vhost.VHOST_USER_SET_MEM_TABLE, table, [this.#memfd])
    for (let queue = 0; queue < this.#used.length; queue++) {
      const at = QUEUES + queue * QUEUE_STRIDE
      this.kicks[queue] = shim.eventfd(0, NONBLOCK_CLOEXEC)
      say(vhost.VHOST_USER_SET_VRING_NUM, u32s(queue, RING))
      say(vhost.VHOST_USER_SET_VRING_BASE, u32s(queue, 0))
      const places = [at, at + USED, at + AVAIL].map((place) => USER_BASE + place)
      say(vhost.VHOST_USER_SET_VRING_ADDR, joined(u32s(queue, 0), u64s(...places, 0)))
      say(vhost.VHOST_USER_SET_VRING_KICK, u64s(queue), [this.kicks[queue]])
      say(vhost.VHOST_USER_SET_VRING_ENABLE, u32s(queue, 1))
      this.#view.setUint16(at + AVAIL, VIRTQ_AVAIL_F_NO_INTERRUPT, true)
      // The socket holds no more than the messages of a few.
      say(vhost.VHOST_USER_GET_FEATURES, u32s())
      await this.#replied()
    }
  }

  #send(bytes: Uint8Array, fds: number[]): void {
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

  /** A descriptor at an offset of the memory. */
  describe(at: number, address: number, length: number, flags: number, next = 0): void {
    this.#view.setBigUint64(at, BigInt(GUEST_BASE + address), true)
    this.#view.setUint32(at + 8, length, true)
    this.#view.setUint16(at + 12, flags, true)
    this.#view.setUint16(at + 14, next, true)
  }

  /** All descriptors of a queue are the same, at the same place of the avail ring. */
  fill(queue: number, address: number, length: number, flags: number): void {
    const at = QUEUES + queue * QUEUE_STRIDE
    for (let n = 0; n < RING; n++) {
      this.describe(at + n * DESC_LENGTH, address, length, flags)
      this.#view.setUint16(at + AVAIL + 4 + 2 * n, n, true)
    }
  }

  /** A table of which the last `segments` are a byte each but for the last, the others nothing. */
  table(at: number, buffer: number, length: number, segments: number, write: number): void {
    for (let n = 0; n < TABLE_LENGTH; n++) {
      const isLast = n === TABLE_LENGTH - 1
      const place = n < TABLE_LENGTH - segments ? 0 : 1
      const flags = isLast ? write : write | VIRTQ_DESC_F_NEXT
      this.describe(at + n * DESC_LENGTH, buffer, isLast ? length : place, flags, n + 1)
    }
  }

  offer(queue: number, index: number): void {
    const at = (QUEUES + queue * QUEUE_STRIDE + AVAIL + 2) >> 1
    Atomics.store(this.#halfWords, at, index & 0xffff)
  }

  usedIndex(queue: number): number {
    return Atomics.load(this.#halfWords, (QUEUES + queue * QUEUE_STRIDE + USED + 2) >> 1)
  }

  /** Offers again what was used; returns how many chains. */
  offerAgain(queue: number): number {
    const used = this.usedIndex(queue)
    const count = (used - this.#used[queue]) & 0xffff
    if (count === 0) return 0
    this.#used[queue] = used
    this.offer(queue, used + RING)
    return count
  }

  kick(queue: number): void {
    shim.eventfdWrite(this.kicks[queue])
  }
}

const BROADCAST = [255, 255, 255, 255, 255, 255]

function frameBytes(to: readonly number[], from: number): number[] {
  return [...to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]
}

/** An IPv4 and a TCP header of a GSO frame, behind its vnet_hdr. */
function gsoBytes(): number[] {
  const vnet = [1, 1, 54, 0, GSO_SIZE & 0xff, GSO_SIZE >> 8, 34, 0, 16, 0, 0, 0]
  const total = LONG - 14
  const ip = [
    0x45,
    0,
    total >> 8,
    total & 0xff,
    0,
    0,
    0x40,
    0,
    64,
    6,
    1,
    1,
    10,
    0,
    0,
    1,
    10,
    0,
    0,
    2,
  ]
  const tcp = [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]
  return [...vnet, ...BROADCAST, 2, 0, 0, 0, 0, 9, 8, 0, ...ip, ...tcp]
}

function arm(guest: Guest, attack: Attack, queues: number): void {
  const bytes = new Uint8Array(guest.memory.buffer)
  bytes.set(frameBytes(BROADCAST, 9), SENT + HEADER_LENGTH)
  if (attack === 'gso') bytes.set(gsoBytes(), SENT)
  const tableLength = TABLE_LENGTH * DESC_LENGTH
  // Sent: a byte behind nothing; or a frame in as many pieces as there may be.
  if (attack === 'tables') guest.table(TABLES[1], SENT, 1, 1, 0)
  else guest.table(TABLES[1], SENT, SHORT, 62, 0)
  guest.table(TABLES[0], RECEIVED, 1, 1, VIRTQ_DESC_F_WRITE)
  for (let pair = 0; pair < queues; pair++) {
    const [receiveq, transmitq] = [2 * pair, 2 * pair + 1]
    if (attack === 'receiver') {
      guest.fill(receiveq, TABLES[0], tableLength, VIRTQ_DESC_F_INDIRECT)
      guest.fill(transmitq, SENT, HEADER_LENGTH + SHORT, 0)
    } else {
      guest.fill(receiveq, RECEIVED, 2048, VIRTQ_DESC_F_WRITE)
      if (attack === 'bytes' || attack === 'gso') {
        guest.fill(transmitq, SENT, HEADER_LENGTH + LONG, 0)
      } else guest.fill(transmitq, TABLES[1], tableLength, VIRTQ_DESC_F_INDIRECT)
    }
  }
}

const options = JSON.parse(process.argv[2]) as HostileOptions
const { attack, queues } = options
const pair: Guest[] = []
for (const [k, path] of options.pair.entries()) {
  const guest = await Guest.connect(path, 1)
  await guest.start(F_MRG_RXBUF)
  const bytes = new Uint8Array(guest.memory.buffer)
  bytes.set(frameBytes([2, 0, 0, 0, 0, 2 - k], k + 1), SENT + HEADER_LENGTH)
  guest.fill(0, RECEIVED, 2048, VIRTQ_DESC_F_WRITE)
  guest.fill(1, SENT, HEADER_LENGTH + SHORT, 0)
  guest.offer(0, RING)
  pair.push(guest)
}
const hostile: Guest[] = []
if (attack !== 'none') {
  for (const path of options.hostile) {
    const guest = await Guest.connect(path, queues)
    await guest.start(F_INDIRECT | F_CSUM | F_HOST_TSO4 | F_MRG_RXBUF)
    arm(guest, attack, queues)
    for (let queue = 0; queue < 2 * queues; queue++) guest.offer(queue, RING)
    for (let queue = 0; queue < 2 * queues; queue++) guest.kick(queue)
    hostile.push(guest)
  }
}

let chains = 0
let turn = 0
/** A queue of each hostile guest at a time: the pair is looked at in between. */
function provoke(): void {
  turn = (turn + 1) % (2 * queues)
  for (const guest of hostile) {
    const used = guest.offerAgain(turn)
    if ((turn & 1) === 1) chains += used
    if (used > 0) guest.kick(turn)
  }
}

/** Frames of others (floods) come in as well: only that the own one has been answered counts. */
const [a, b] = pair
const sent = [0, 0]
function send(from: number): void {
  sent[from] = (sent[from] + 1) & 0xffff
  pair[from].offer(1, sent[from])
  pair[from].kick(1)
}

/** Whether a frame of the other's has come; all buffers are offered again. */
function hasCome(guest: Guest, from: number): boolean {
  const bytes = new Uint8Array(guest.memory.buffer, RECEIVED + HEADER_LENGTH + 11, 1)
  const isOwn = Atomics.load(bytes, 0) === from
  guest.offerAgain(0)
  if (isOwn) Atomics.store(bytes, 0, 0)
  return isOwn
}

const roundTrips: number[] = []
const end = performance.now() + options.seconds * 1000
while (performance.now() < end) {
  const start = performance.now()
  send(0)
  let isBack = false
  let isThere = false
  while (!isBack) {
    provoke()
    if (!isThere && hasCome(b, 1)) {
      isThere = true
      send(1)
    } else if (isThere) {
      hasCome(b, 1)
      isBack = hasCome(a, 2)
    } else hasCome(a, 2)
    if (performance.now() - start > 5000) break
  }
  roundTrips.push((performance.now() - start) * 1000)
  const rest = performance.now() + 0.2
  while (performance.now() < rest) provoke()
}
const result: HostileResult = { roundTripsUs: roundTrips.sort((x, y) => x - y), chains }
process.stdout.write(`${JSON.stringify(result)}\n`)
