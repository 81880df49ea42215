/**
 * Byte strings as a front-end and its driver, from the messages to the frames: the real session, the
 * real device and the engine's port in one thread, with memory and eventfds of the kernel's. Each
 * descriptor is closed once, each window unmapped, what lies outside the regions is never written, and
 * a ring that was stopped stands where frames were taken.
 */
import { ProtocolError } from '../../src/errors.ts'
import type { IoTier } from '../../src/io/tier.ts'
import { Burst, BURST_SIZE_MAX } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { Window } from '../../src/mem/window.ts'
import { EventSignals } from '../../src/native/event-signals.ts'
import { shim } from '../../src/native/shim.ts'
import type { EngineServices } from '../../src/port/contract.ts'
import { VirtioEnginePort } from '../../src/port/virtio/engine.ts'
import { VirtioScratch } from '../../src/port/virtio/scratch.ts'
import { COUNTERS_STRIDE } from '../../src/stats/counters.ts'
import type { VirtioCall } from '../../src/port/virtio/messages.ts'
import { GuestDevice } from '../../src/port/vhost-user/guest-device.ts'
import { MemoryPace } from '../../src/port/vhost-user/memory-pace.ts'
import {
  PORT_WINDOWS_MAX,
  WindowBudget,
  WindowPool,
  windowShares,
} from '../../src/port/vhost-user/window-shares.ts'
import { prepareEventFd } from '../../src/vhost-user/event-fd.ts'
import { VhostUserSession } from '../../src/vhost-user/session.ts'
import type { Features } from './features.ts'
import { check, checkBytes, checkEqual, Operands } from './features.ts'

const PAGE = 4096
const PAGES = 16
const LENGTH: number = PAGES * PAGE
const USER = 0x7000_0000_0000
const GUEST = 0x10_0000
const QUEUES = 4
/** In its page: the parts of a ring of up to 16 entries; buffers stand in the last pages. */
const [AVAIL_AT, USED_AT, BUFFERS] = [0x400, 0x800, 8 * PAGE]
const OPERATIONS_MAX = 60
const O_RDWR_CLOEXEC = 0o2000002
const NONBLOCK_CLOEXEC = 0o2004000
const F_PROTOCOL = 1n << 30n
const FEATURES = [0n, F_PROTOCOL, 1n << 32n, 1n << 34n, 1n << 29n, 1n << 15n, 1n << 26n, 1n << 28n]
const OFFERED: bigint = FEATURES.reduce((all, one) => all | one, 0n)

const fileFd = shim.memfdCreate('guest', 1)
shim.ftruncate(fileFd, LENGTH)
const guest = Window.map(LENGTH, { fd: fileFd })
const bytes = new Uint8Array(guest.buffer)
const halfWords = new Uint16Array(guest.buffer)
const words = new Int32Array(guest.buffer)
/** What stands in it where only the driver writes. */
const own = new Uint8Array(LENGTH)
const ownHalfWords = new Uint16Array(own.buffer)
const ownWords = new Int32Array(own.buffer)

function putHalf(at: number, value: number): void {
  halfWords[at] = value
  ownHalfWords[at] = value
}

function putWord(at: number, value: number): void {
  words[at] = value
  ownWords[at] = value
}

// --- who has which descriptor ----------------------------------------------------------------------

const open = new Set<number>()
const watched = new Set<number>()
let wrong = ''
const { close: closeForReal } = shim as { close: (this: void, fd: number) => number }

/** Stands in for the shim's while an input runs: a close of what is not open is a close too many. */
function closeOnce(fd: number): number {
  if (!open.delete(fd)) wrong ||= `descriptor ${fd} is closed and not open`
  if (watched.has(fd)) wrong ||= `descriptor ${fd} is closed while it is watched`
  return closeForReal(fd)
}

function opened(fd: number): number {
  check(fd >= 0, 'a descriptor')
  open.add(fd)
  return fd
}

const memoryFd = (): number => opened(shim.open(`/proc/self/fd/${fileFd}`, O_RDWR_CLOEXEC))
const eventFd = (): number => opened(shim.eventfd(0, NONBLOCK_CLOEXEC))

// --- the engine's side -------------------------------------------------------------------------------

const tier = {
  watch(fd: number): void {
    if (!open.has(fd)) wrong ||= `descriptor ${fd} is watched and not open`
    watched.add(fd)
  },
  unwatch(fd: number): void {
    if (!watched.delete(fd)) wrong ||= `descriptor ${fd} is unwatched and not watched`
  },
} as unknown as IoTier
const copies = new CopyProgram()
const counters = new Float64Array(COUNTERS_STRIDE)
const port = new VirtioEnginePort(
  0,
  tier,
  new VirtioScratch(copies),
  new EventSignals(-1),
  counters,
  {
    queueBroken: () => undefined,
    driverCalled: () => undefined,
  },
)
const received = new Burst()
const sent = new Burst()
const frames = Window.map(PAGE)
const ALL = Int32Array.from({ length: BURST_SIZE_MAX }, (_, k) => k)
for (let k = 0; k < 4; k++) {
  sent.window[k] = frames.id
  sent.length[k] = 60 + 400 * k
}

/** What a session asks of a guest's port. */
const ASKED: ReadonlySet<string> = new Set<VirtioCall['do']>([
  'negotiate',
  'memory',
  'start',
  'stop',
  'enable',
  'call',
  'kick',
  'queue-log',
  'log',
  'reset',
])
const services = { txOffloadsChanged: () => undefined } as unknown as EngineServices

function callPort(call: VirtioCall): unknown {
  if (!ASKED.has(call.do)) throw new Error(`nobody asks a guest's port to ${call.do}`)
  return port.call(call, services)
}

/** A turn of the engine: frames out of the guest, frames to it, and what was put is published. */
function turn(): void {
  for (let queue = 0; queue < Math.max(port.rxQueues, 1); queue++) {
    sent.count = 4
    port.transmit(sent, ALL, 0, 4, 0)
    const count = port.receive(received)
    for (let k = 0; k < count; k++) copies.addFrame(received, k, frames.id, 2048, 14)
    copies.run()
    port.endTurn()
    if (count > 0) port.release()
  }
  port.waitUs()
  port.wake()
  check(!port.stopIfFaulted(), 'no page is lost')
}

// --- the front-end's side ------------------------------------------------------------------------------

const u32s = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)
const u64s = (...values: number[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values.map(BigInt)).buffer)
const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))

interface Region {
  readonly page: number
  readonly pages: number
  readonly guestAddress: number
}

export async function fuzzGuestSession(input: Uint8Array, seen: Features): Promise<void> {
  const run = new GuestRun(new Operands(input), seen)
  const firstFree = probeWindow()
  wrong = ''
  shim.close = closeOnce
  try {
    await run.run()
    await run.close()
  } finally {
    shim.close = closeForReal
    const left = [...open]
    for (const fd of left) closeForReal(fd)
    open.clear()
    watched.clear()
    run.leaked = left.length
  }
  checkEqual(wrong, '', 'descriptors')
  checkEqual(run.leaked, 0, 'descriptors that are left open')
  check(probeWindow() <= firstFree, 'windows that are left mapped')
  run.checkMemory()
}

/** The lowest number that no window has. */
function probeWindow(): number {
  const number = shim.windowMap(-1, 1, 0, 0)
  shim.windowUnmap(number)
  return number
}

class GuestRun {
  leaked = 0
  readonly #in: Operands
  readonly #seen: Features
  readonly #budget = new WindowBudget(new WindowPool(windowShares(65530)))
  readonly #device: GuestDevice
  readonly #session: VhostUserSession
  #regions: Region[] = []
  /** Pages that were ever in a region: only they may be written. */
  readonly #shared = new Set<number>()
  #isOver = false
  /** Of the last message that was refused. */
  #error = ''
  #before = 0

  constructor(operands: Operands, seen: Features) {
    this.#in = operands
    this.#seen = seen
    for (let page = 0; page < PAGES; page++) bytes.fill(page + 1, page * PAGE, (page + 1) * PAGE)
    // Empty rings.
    for (let queue = 0; queue < QUEUES; queue++) bytes.fill(0, queue * PAGE, (queue + 1) * PAGE)
    own.set(bytes)
    this.#device = new GuestDevice({
      windows: this.#budget,
      pace: new MemoryPace(),
      fileRoom: { take: () => true, giveBack: () => undefined },
      call: (call) => Promise.resolve(callPort(call)),
      claim: (device) => device.attach(),
      changed: () => Promise.resolve(),
      sendRarp: () => Promise.resolve(),
      canTakeMtu: (mtu) => mtu <= 9000,
    })
    this.#session = new VhostUserSession({
      device: this.#device,
      offered: () => OFFERED,
      queuePairsMax: QUEUES / 2,
      memorySlots: 12,
      acked: () => undefined,
      ended: () => undefined,
      closeFd: (fd) => void shim.close(fd),
      prepareEventFd,
      signalFd: (fd) => void shim.eventfdWrite(fd),
      log: () => undefined,
    })
  }

  async run(): Promise<void> {
    const first = this.#in.byte()
    // Most begin as every front-end does.
    if (first < 200) await this.#begin(first)
    for (let count = 0; count < OPERATIONS_MAX && !this.#in.isAtEnd && !this.#isOver; count++) {
      const operation = this.#in.byte() % 20
      await this.#operation(operation)
      turn()
      this.#seen.add(this.#before, operation, port.rxQueues, this.#regions.length)
      this.#before = operation
    }
  }

  async close(): Promise<void> {
    await this.#session.close()
    let free = 0
    while (this.#budget.take()) free++
    checkEqual(free, PORT_WINDOWS_MAX, 'windows that are given back')
  }

  checkMemory(): void {
    for (let page = 0; page < PAGES; page++) {
      if (this.#shared.has(page)) continue
      const [from, to] = [page * PAGE, (page + 1) * PAGE]
      checkBytes(bytes.subarray(from, to), own.subarray(from, to), `page ${page}, not shared`)
    }
  }

  /** Returns the reply's payload; null: none came. */
  async #send(
    request: number,
    payload: Uint8Array,
    fds: number[] = [],
  ): Promise<Uint8Array | null> {
    try {
      const reply = await this.#session.handle({ request, flags: 1, payload }, fds)
      if (reply === null) return null
      const header = new DataView(reply.buffer, reply.byteOffset)
      checkEqual(header.getUint32(0, true), request, 'request of a reply')
      checkEqual(header.getUint32(4, true), 5, 'flags of a reply')
      checkEqual(header.getUint32(8, true), reply.length - 12, 'length of a reply')
      return reply.subarray(12)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#seen.addText(error.message.slice(0, 50))
      this.#error = error.message
      if (error.isFatal) this.#isOver = true
      throw error
    }
  }

  async #try(request: number, payload: Uint8Array, fds: number[] = []): Promise<boolean> {
    try {
      await this.#send(request, payload, fds)
      return true
    } catch (error) {
      if (error instanceof ProtocolError) return false
      throw error
    }
  }

  async #begin(kind: number): Promise<void> {
    const features = OFFERED & ~((kind & 1) === 0 ? 1n << 34n : 0n) & ~(1n << 26n)
    await this.#send(1, u64s())
    await this.#send(2, u64s(Number((kind & 2) === 0 ? features : features & ~F_PROTOCOL)))
    await this.#setMemory([{ page: 0, pages: PAGES - 1, guestAddress: GUEST }])
    const pairs = 1 + ((kind >> 2) & 1)
    for (let queue = 0; queue < 2 * pairs; queue++) await this.#start(queue, 16)
  }

  async #start(queue: number, size: number): Promise<void> {
    await this.#try(8, u32s(queue, size))
    await this.#try(9, this.#addresses(queue, 0))
    await this.#try(12, u64s(queue), [eventFd()])
    await this.#try(13, u64s(queue), [eventFd()])
    await this.#try(18, u32s(queue, 1))
  }

  #addresses(queue: number, shift: number): Uint8Array {
    const at = USER + (queue % QUEUES) * PAGE
    const log = shift === 0 ? 0 : 1
    return join(u32s(queue, log), u64s(at + shift, at + USED_AT, at + AVAIL_AT, GUEST))
  }

  async #operation(operation: number): Promise<void> {
    const queue = this.#in.byte() % (QUEUES + 1)
    switch (operation) {
      case 0: {
        const features = FEATURES.filter((_, at) => ((queue * 37) >> at) & 1)
        await this.#try(2, u64s(Number(features.reduce((all, one) => all | one, 0n))))
        return
      }
      case 1:
        return this.#setMemory(Array.from({ length: queue }, () => this.#region()))
      case 2:
        return this.#addMemory(this.#region())
      case 3:
        return this.#removeMemory()
      case 4:
        await this.#try(8, u32s(queue, [1, 2, 16, 8, 0, 3, 32768, 65536][this.#in.byte() & 7]))
        return
      case 5:
        await this.#try(9, this.#addresses(queue, [0, 0, 16, 4, 1, PAGE][this.#in.byte() % 6]))
        return
      case 6:
        await this.#try(10, u32s(queue, this.#in.half() % 40))
        return
      case 7:
      case 8:
      case 9:
        await this.#giveEventFd([12, 13, 14][operation - 7], queue)
        return
      case 10:
        await this.#try(18, u32s(queue, this.#in.byte() & 1))
        return
      case 11:
        return this.#stop(queue)
      case 12: {
        const size = (this.#in.byte() & 7) * PAGE
        await this.#try(6, u64s(size, (this.#in.byte() & 7) * PAGE), this.#fds(memoryFd))
        return
      }
      case 13:
        return this.#start(queue, 16)
      case 14:
      case 15:
      case 16:
        return this.#drive(queue)
      case 17:
        putWord(this.#in.half() % (QUEUES * 1024), this.#in.word())
        return
      case 18:
        await this.#try(
          this.#in.byte() & 63,
          this.#in.take(this.#in.byte() & 63),
          this.#fds(eventFd),
        )
        return
      default:
        await this.#try(16, u64s(this.#in.byte()))
    }
  }

  /** Mostly one. */
  #fds(make: () => number): number[] {
    const byte = this.#in.byte()
    return Array.from({ length: byte < 220 ? 1 : byte & 3 }, make)
  }

  async #giveEventFd(request: number, queue: number): Promise<void> {
    const byte = this.#in.byte()
    const isNone = byte >= 230
    const make = byte < 215 ? eventFd : memoryFd
    const fds = isNone && byte < 250 ? [] : this.#fds(make)
    await this.#try(request, u64s(queue | (isNone ? 0x100 : 0)), fds)
  }

  // --- memory ---------------------------------------------------------------------------------------------

  #region(): Region {
    const byte = this.#in.byte()
    const page = byte % (PAGES - 1)
    // The file ends before some of them do.
    const beyond = byte >= 240 ? PAGES : 0
    const pages = 1 + beyond + ((byte >> 4) % (PAGES - 1 - page))
    // Some lie where others are, some adjoin them.
    const shift = (this.#in.byte() & 15) === 0 ? this.#in.signed() * PAGE : page * PAGE
    return { page, pages, guestAddress: Math.max(GUEST + shift, 0) }
  }

  #row({ page, pages, guestAddress }: Region): Uint8Array {
    return u64s(guestAddress, pages * PAGE, USER + page * PAGE, page * PAGE)
  }

  /** A front-end whose regions do not overlap has its way, another has not. */
  #checkRegions(regions: readonly Region[], isDone: boolean): void {
    const areApart = regions.every((one, at) =>
      regions.every((other, k) => {
        if (k <= at) return true
        const [a, b] = [one.guestAddress, other.guestAddress]
        return a + one.pages * PAGE <= b || b + other.pages * PAGE <= a
      }),
    )
    if (!areApart) check(!isDone, 'regions that overlap are refused')
    else if (!isDone) check(!this.#error.includes('overlap'), 'regions that adjoin are taken')
    if (isDone) {
      this.#regions = [...regions]
      for (const { page, pages } of regions) {
        for (let n = page; n < page + pages; n++) this.#shared.add(n)
      }
    }
  }

  async #setMemory(regions: readonly Region[]): Promise<void> {
    for (const { page, pages } of regions) {
      for (let n = page; n < page + pages; n++) this.#shared.add(n)
    }
    const payload = join(u32s(regions.length, 0), ...regions.map((region) => this.#row(region)))
    const isDone = await this.#try(5, payload, regions.map(memoryFd))
    this.#checkRegions(regions, isDone)
  }

  async #addMemory(region: Region): Promise<void> {
    const fds = this.#fds(memoryFd)
    const isRight = fds.length === 1
    const regions = [...this.#regions, region]
    for (let n = region.page; n < region.page + region.pages; n++) this.#shared.add(n)
    const isThere = this.#regions.some(
      (own) =>
        own.page === region.page &&
        own.pages === region.pages &&
        own.guestAddress === region.guestAddress,
    )
    const isDone = await this.#try(37, join(u64s(0), this.#row(region)), fds)
    if (!isRight) check(!isDone, 'a region without its descriptor is refused')
    if (!isThere) this.#checkRegions(regions, isDone)
  }

  async #removeMemory(): Promise<void> {
    const gone = this.#regions[this.#in.byte() % Math.max(this.#regions.length, 1)]
    if (gone === undefined) return
    check(await this.#try(38, join(u64s(0), this.#row(gone))), 'a region that is there is removed')
    this.#regions = this.#regions.filter((region) => region !== gone)
  }

  // --- rings ----------------------------------------------------------------------------------------------

  async #stop(queue: number): Promise<void> {
    try {
      const reply = await this.#send(11, u32s(queue, 0))
      checkEqual(reply?.length, 8, 'length of a base')
      checkEqual(new DataView(reply!.buffer, reply!.byteOffset).getUint32(0, true), queue, 'queue')
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      check(queue >= QUEUES || this.#isOver, 'a queue that is there is stopped')
    }
  }

  /** The driver makes a chain available, as a split queue has it. */
  #drive(queue: number): void {
    if (queue >= QUEUES) return
    const kind = this.#in.byte()
    const ring = queue * PAGE
    const index = halfWords[(ring + AVAIL_AT + 2) >> 1]
    const slot = index % 16
    const address = GUEST + BUFFERS + (this.#in.byte() % (6 * 16)) * 256
    const length = kind < 128 ? 1514 : this.#in.half()
    const flags = queue % 2 === 0 ? 2 : 0
    const at = (ring >> 2) + 4 * slot
    putWord(at, address)
    putWord(at + 1, 0)
    putWord(at + 2, length)
    putWord(at + 3, (kind & 7) === 7 ? this.#in.word() : flags)
    putHalf((ring + AVAIL_AT + 4) / 2 + slot, slot)
    putHalf((ring + AVAIL_AT + 2) >> 1, index + 1)
    // The same place as a packed ring has it, in its first lap.
    if ((kind & 8) !== 0) putWord(at + 3, slot | ((flags | 0x80) << 16))
  }
}
