/** A front-end that does everything wrong, against a real switch: only its own port may suffer. */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { shim } from '../../../src/native/shim.ts'
import type { FrontEnd } from '../../support/front-end.ts'
import {
  BUFFER_LENGTH,
  F_LOG_ALL,
  F_PROTOCOL,
  F_VERSION_1,
  GUEST_BASE,
  MEMORY_LENGTH,
  RING_SIZE,
  u32s,
  u64,
  u64s,
  USER_BASE,
} from '../../support/front-end.ts'
import { HostileLab } from '../../support/hostile-lab.ts'
import { HugePages } from '../../support/huge-pages.ts'
import { sh, until } from '../../support/processes.ts'
import { randomFrom, shuffled } from '../../support/random.ts'

const NEED_REPLY = 9
const EAGAIN = 11
const AT_ONCE = 16
const GIBIBYTE = 2 ** 30
/** Has a bit for each page of the guest's memory. */
const LOG_LENGTH = 4096
const HUGE_PAGE = 0x20_0000
const HEADER_LENGTH = 12
/** MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB. */
const MFD_HUGE = 1 | 4 | (21 << 26)

let lab: HostileLab

beforeAll(async () => {
  lab = await HostileLab.open()
})
afterEach(() => lab.expectUnharmed(), 60_000)
afterAll(() => lab.close())

const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))

interface Message {
  readonly request: number
  readonly payload: Uint8Array
  readonly fds: number[]
}

/** What a good front-end says, in its order; replies are not waited for. */
function handshake(guest: FrontEnd): Message[] {
  const say = (request: number, payload = u32s(), fds: number[] = []): Message => ({
    request,
    payload,
    fds,
  })
  for (const queue of [0, 1]) {
    guest.kicks[queue] ??= shim.eventfd(0, 0o2004000)
    guest.calls[queue] ??= shim.eventfd(0, 0o2004000)
  }
  return [
    say(1),
    say(15),
    say(16, u64(0x1801fn)),
    say(3),
    say(2, u64(F_VERSION_1 | F_PROTOCOL)),
    say(17),
    say(5, guest.memoryTable(), [guest.memfd]),
    ...[0, 1].flatMap((queue) => [
      say(8, u32s(queue, RING_SIZE)),
      say(10, u32s(queue, 0)),
      say(9, guest.ringAddress(queue)),
      say(12, u64(BigInt(queue)), [guest.kicks[queue]]),
      say(13, u64(BigInt(queue)), [guest.calls[queue]]),
      say(14, u64(BigInt(queue)), [guest.calls[queue]]),
    ]),
    ...[0, 1].map((queue) => say(18, u32s(queue, 1))),
  ]
}

/** Further messages that a front-end may send to a port that runs. */
function further(guest: FrontEnd): Message[] {
  const slot = u64s(0, 0x4000_0000, 0x1000, USER_BASE + 0x4000_0000, 0)
  return [
    { request: 4, payload: u32s(), fds: [] },
    { request: 6, payload: u64s(4096, 0), fds: [guest.memfd] },
    { request: 7, payload: u32s(), fds: [guest.memfd] },
    { request: 11, payload: u32s(0, 0), fds: [] },
    { request: 19, payload: u64(0x0900_0000_0002n), fds: [] },
    { request: 20, payload: u64(1500n), fds: [] },
    { request: 36, payload: u32s(), fds: [] },
    { request: 37, payload: slot, fds: [guest.memfd] },
    { request: 38, payload: slot, fds: [] },
    { request: 39, payload: u64(5n), fds: [] },
    { request: 40, payload: u32s(), fds: [] },
  ]
}

/** Does it for every item, some at once, each with a front-end of its own. */
async function withEach<T>(
  items: readonly T[],
  attack: (guest: FrontEnd, item: T) => Promise<void>,
): Promise<void> {
  const left = [...items]
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) {
      const guest = await lab.connect()
      await attack(guest, item)
      lab.kill(guest)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

/** True: the back-end still talks to this front-end after all that it was sent. */
async function isServed(guest: FrontEnd): Promise<boolean> {
  try {
    guest.send(1)
    for (;;) if ((await guest.reply()).request === 1) return true
  } catch (error) {
    expect((error as Error).message).toBe('the back-end hung up')
    return false
  }
}

/** Whether a message has an index, and what it needs. */
const INDEXED = [8, 9, 10, 11, 18]
const INDEXED_U64 = [12, 13, 14]
const WITH_FDS = [5, 6, 7, 12, 13, 14, 37]

test('messages of a wrong size end their connection', async () => {
  const cases = Array.from({ length: 33 }, (_, which) =>
    [-1, 1, 8, 4000].map((change) => ({ which, change })),
  ).flat()
  await withEach(cases, async (guest, { which, change }) => {
    const messages = [...handshake(guest), ...further(guest)]
    // SET_LOG_FD has no payload, and what comes with it is not looked at.
    if (which >= messages.length || messages[which].request === 7) return
    const { request, payload, fds } = messages[which]
    const length = Math.max(0, payload.length + change)
    if (length === payload.length) return
    const wrong = new Uint8Array(length)
    wrong.set(payload.subarray(0, length))
    await guest.negotiate()
    guest.send(request, wrong, fds)
    expect(await isServed(guest), `message ${request} of ${length} bytes`).toBe(false)
  })
  const guest = await lab.connect()
  guest.sendBytes(u32s(1, 1, 0xffff_ffff))
  await guest.hungUp()
})

test('messages with a wrong number of descriptors end their connection', async () => {
  const cases = WITH_FDS.flatMap((request) =>
    [0, 2, 8, 17, 40].map((count) => ({ request, count })),
  )
  await withEach(cases, async (guest, { request, count }) => {
    const message = [...handshake(guest), ...further(guest)].find(
      (each) => each.request === request,
    )!
    await guest.negotiate()
    const fds = Array.from({ length: count }, () => guest.memfd)
    guest.send(request, message.payload, fds)
    expect(await isServed(guest), `message ${request} with ${count} descriptors`).toBe(false)
  })
  // Where none belongs they are closed.
  const others = [1, 2, 3, 8, 11, 15, 18, 36, 38, 40]
  await withEach(others, async (guest, request) => {
    const message = [...handshake(guest), ...further(guest)].find(
      (each) => each.request === request,
    )!
    await guest.negotiate()
    guest.send(request, message.payload, [guest.memfd, guest.memfd, guest.memfd])
    await isServed(guest)
  })
})

test('indices beyond the queues end their connection', async () => {
  const cases = [...INDEXED, ...INDEXED_U64].flatMap((request) =>
    [2, 255, 256, 0xffff_ffff].map((index) => ({ request, index })),
  )
  await withEach(cases, async (guest, { request, index }) => {
    // In the u64 ones the index is one byte, and 256 says that no descriptor comes.
    if (index > 255 && INDEXED_U64.includes(request)) return
    const message = handshake(guest).find((each) => each.request === request) ?? further(guest)[3]
    const payload = message.payload.slice()
    new DataView(payload.buffer).setUint32(0, index, true)
    await guest.negotiate()
    guest.send(request, payload, message.fds)
    expect(await isServed(guest), `message ${request} for queue ${index}`).toBe(false)
  })
})

test('unknown messages are refused, and end the connection when no answer is wanted', async () => {
  const numbers = [0, 21, 22, 26, 31, 35, 41, 42, 43, 99, 1000, 0x7fff_ffff, 0xffff_ffff]
  await withEach(numbers, async (guest, request) => {
    await guest.negotiate()
    guest.send(request, u32s(1, 2, 3), [guest.memfd], NEED_REPLY)
    const reply = await guest.reply()
    expect([reply.request, reply.flags, ...reply.payload]).toEqual([
      request,
      5,
      1,
      ...u64(0n).slice(1),
    ])
    guest.send(request, u32s(), [guest.memfd])
    expect(await isServed(guest)).toBe(false)
  })
})

test('a handshake may end at any byte', async () => {
  const lengths = await (async () => {
    const guest = await lab.connect()
    const all = handshake(guest).map(({ payload }) => 12 + payload.length)
    lab.kill(guest)
    return all
  })()
  const total = lengths.reduce((sum, length) => sum + length, 0)
  const cuts = Array.from({ length: total + 1 }, (_, cut) => cut)
  await withEach(cuts, async (guest, cut) => {
    let left = cut
    for (const { request, payload, fds } of handshake(guest)) {
      const bytes = joined(u32s(request, 1, payload.length), payload).slice(0, left)
      if (bytes.length > 0) guest.sendBytes(bytes, fds)
      left -= bytes.length
    }
    // Some are cut before they are read, some after.
    if (cut % 4 === 0) await new Promise((resolve) => setImmediate(resolve))
  })
})

test('the messages of a front-end come in any order', async () => {
  const seed = Date.now() | 0
  const random = randomFrom(seed)
  const rounds = Array.from({ length: 200 }, (_, round) => round)
  try {
    await withEach(rounds, async (guest, round) => {
      const messages = [...handshake(guest), ...further(guest)]
      // Wholly mixed, or after the features so that more of it is carried out.
      const first = round % 2 === 0 ? 0 : 5
      const order = [...messages.slice(0, first), ...shuffled(messages.slice(first), random)]
      for (const { request, payload, fds } of order) {
        guest.send(request, payload, fds, random(2) === 0 ? 1 : NEED_REPLY)
      }
      lab.flood()
      await isServed(guest)
    })
  } catch (error) {
    throw new Error(`with seed ${seed}`, { cause: error })
  }
})

test('a thousand connections in quick succession', async () => {
  for (let number = 0; number < 1000; number++) {
    const fd = shim.socketUnix(1)
    while (shim.connectUnix(fd, lab.path) === -EAGAIN) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    // A third says nothing, a third half a header, a third asks for something.
    const bytes = new Uint8Array([new Uint8Array(0), u32s(1), u32s(1, 1, 0)][number % 3])
    if (bytes.length > 0) shim.sendMsg(fd, bytes, 0, bytes.length, null, 0, 0)
    shim.close(fd)
  }
  await lab.expectUsable()
})

describe('while rings run', () => {
  /** A guest with buffers for frames, and frames on their way. */
  async function busyGuest(memfdFlags = 1): Promise<FrontEnd> {
    const guest = await lab.connect(memfdFlags)
    await guest.start()
    guest.post(16)
    for (let n = 0; n < 4; n++) lab.flood()
    await until('frames come', () => guest.usedIndex(0) >= 4)
    return guest
  }

  const table = (...rows: number[][]): Uint8Array =>
    joined(u32s(rows.length, 0), ...rows.map((row) => u64s(...row)))

  test('a memory table that overlaps ends the connection', async () => {
    const guest = await busyGuest()
    const rows = [
      [GUEST_BASE, MEMORY_LENGTH, USER_BASE, 0],
      [GUEST_BASE + 0x1000, 0x1000, USER_BASE + 0x1000_0000, 0],
    ]
    guest.send(5, table(...rows), [guest.memfd, guest.memfd])
    lab.flood()
    await guest.hungUp()
  })

  test('a slot over the memory that is there ends the connection', async () => {
    const guest = await busyGuest()
    guest.send(37, u64s(0, GUEST_BASE + 0x1000, 0x1000, USER_BASE + 0x1000_0000, 0), [guest.memfd])
    lab.flood()
    await guest.hungUp()
  })

  test('memory that shrinks to the rings breaks the queue', async () => {
    const guest = await busyGuest()
    guest.send(5, table([GUEST_BASE, 0x10_0000, USER_BASE, 0]), [guest.memfd])
    await guest.barrier()
    lab.flood()
    await lab.stateIs('failed')
    expect(lab.sw.port('g').error).toContain('outside the guest')
  })

  test('memory that shrinks into the rings stops them, until it is back', async () => {
    const guest = await busyGuest()
    for (const length of [0x2100, 0x1000, 0x400]) {
      guest.send(5, table([GUEST_BASE, length, USER_BASE, 0]), [guest.memfd])
      lab.flood()
    }
    await guest.barrier()
    guest.send(5, guest.memoryTable(), [guest.memfd])
    await guest.barrier()
    const before = guest.usedIndex(0)
    lab.flood()
    await until('frames come again', () => guest.usedIndex(0) !== before)
  })

  test('memory that vanishes stops them, until it is back', async () => {
    const guest = await busyGuest()
    for (let round = 0; round < 20; round++) {
      guest.send(5, table())
      lab.flood()
      guest.send(5, guest.memoryTable(), [guest.memfd])
      lab.flood()
    }
    await guest.barrier()
    expect(lab.state).toBe('connected')
  })

  test('memory of fewer bytes than its table says ends the connection', async () => {
    const guest = await busyGuest()
    guest.send(5, table([GUEST_BASE, 2 * MEMORY_LENGTH, USER_BASE, 0]), [guest.memfd])
    await guest.hungUp()
  })

  /** What is gone: how long the file still is, and where a buffer of which queue begins. */
  const truncations: readonly (readonly [string, number, number, number])[] = [
    ['the rings', 0, 0, HUGE_PAGE],
    ['a receive buffer with its header', HUGE_PAGE, 0, HUGE_PAGE],
    ['a receive buffer behind its header', HUGE_PAGE, 0, HUGE_PAGE - 12],
    ['a frame that is sent', HUGE_PAGE, 1, HUGE_PAGE + 4096],
    ['a frame that is sent behind its first bytes', HUGE_PAGE, 1, HUGE_PAGE - 40],
  ]

  async function truncate(
    memfdFlags: number,
    length: number,
    queue: number,
    buffer: number,
  ): Promise<void> {
    const guest = await lab.connect(memfdFlags)
    await guest.start()
    await lab.stateIs('connected')
    guest.descriptor(queue, 0, GUEST_BASE + buffer, BUFFER_LENGTH, queue === 0 ? 2 : 0)
    if (queue === 0) {
      guest.offer(queue, 0)
      shim.ftruncate(guest.memfd, length)
      lab.flood()
    } else {
      // For everybody, and with a sender: a frame without one is dropped before the rest is read.
      const addresses = [...Array.from({ length: 6 }, () => 0xff), 2, 0, 0, 0, 0, 3]
      new Uint8Array(guest.memory.buffer).set(addresses, buffer + HEADER_LENGTH)
      // In this order, and with the kick at the end: our own view of the ring is still there.
      shim.ftruncate(guest.memfd, length)
      guest.offer(queue, 0)
    }
    await guest.hungUp()
    await until('the port is not connected', () => lab.state !== 'connected')
    lab.kill(guest)
    await lab.expectUsable()
  }

  test.each(truncations)('4 KiB pages truncated under us: %s', async (_what, ...where) => {
    await truncate(1, ...where)
  })

  test.each([
    ['for a used ring', 0],
    ['for the frames', 1],
  ])('a dirty log truncated under us: %s', async (_what, flags) => {
    const guest = await lab.connect()
    await guest.start(F_VERSION_1 | F_PROTOCOL | F_LOG_ALL)
    const log = shim.memfdCreate('framepump-test-log', 1)
    shim.ftruncate(log, LOG_LENGTH)
    expect(await guest.askU64(6, u64s(LOG_LENGTH, 0), [log])).toBe(0n)
    for (const queue of [0, 1]) guest.send(9, guest.ringAddress(queue, flags, GUEST_BASE))
    await guest.barrier()
    guest.post(16)
    lab.flood()
    await until('a frame comes', () => guest.usedIndex(0) >= 1)
    expect(lab.state).toBe('connected')
    shim.ftruncate(log, 0)
    lab.flood()
    await guest.hungUp()
    shim.close(log)
    lab.kill(guest)
    await lab.expectUsable()
  })

  test('memory beyond what a port may have ends the connection, of all its front-ends together', async () => {
    // A switch of its own: of so many hostile guests before it the log would leave the lines out.
    const others = lab
    lab = await HostileLab.open()
    try {
      await exceedWindows()
    } finally {
      await lab.close()
      lab = others
    }
  })

  async function exceedWindows(): Promise<void> {
    const guest = await busyGuest()
    const sparse = shim.memfdCreate('framepump-test-guest', 1)
    shim.ftruncate(sparse, 600 * GIBIBYTE)
    const row = (gibibytes: number): Uint8Array =>
      u64s(2 ** 40, gibibytes * GIBIBYTE, USER_BASE + 2 ** 40, 0)
    const slot = (gibibytes: number): Uint8Array => joined(u64s(0), row(gibibytes))
    const refusal = 'has more than its share of 512 windows'
    guest.send(37, slot(20), [sparse])
    await guest.barrier()
    const second = await lab.connect()
    await second.negotiate()
    second.send(5, joined(u32s(1, 0), row(500)), [sparse])
    await second.hungUp()
    expect(lab.log.filter((line) => line.includes(refusal))).toHaveLength(1)
    lab.flood()
    await guest.barrier()
    guest.send(38, slot(20))
    guest.send(37, slot(600), [sparse])
    await guest.hungUp()
    shim.close(sparse)
    expect(lab.log.filter((line) => line.includes(refusal))).toHaveLength(2)
    lab.kill(guest)
    lab.kill(second)
    await lab.expectUsable()
  }

  describe('in huge pages', () => {
    let pages: HugePages
    beforeAll(() => {
      pages = new HugePages(8)
    })
    afterAll(() => pages.putBack())

    test.each(truncations)('2 MiB pages truncated under us: %s', async (_what, ...where) => {
      await truncate(MFD_HUGE, ...where)
    })
  })
})

describe('descriptors that are something else', () => {
  const open: number[] = []
  afterEach(() => {
    for (const fd of open.splice(0)) closeSync(fd)
  })
  const kept = (fd: number): number => {
    open.push(fd)
    return fd
  }

  function pipe(): number {
    const path = join(lab.directory, 'fifo')
    rmSync(path, { force: true })
    sh('mkfifo', path)
    return kept(openSync(path, constants.O_RDWR | constants.O_NONBLOCK))
  }

  function socket(): number {
    const fds = new Int32Array(2)
    expect(shim.socketPair(1, fds)).toBe(0)
    kept(fds[1])
    return kept(fds[0])
  }

  function memory(flags: number): number {
    const memfd = kept(shim.memfdCreate('framepump-test-other', flags))
    shim.ftruncate(memfd, MEMORY_LENGTH)
    return memfd
  }

  /** F_ADD_SEALS F_SEAL_FUTURE_WRITE; MFD_CLOEXEC | MFD_ALLOW_SEALING. */
  function sealed(): number {
    const memfd = memory(3)
    const program = 'open(my $file, "+<&=", 3); fcntl($file, 1033, 16) or die'
    const { status } = spawnSync('perl', ['-e', program], { stdio: ['ignore', 1, 2, memfd] })
    expect(status).toBe(0)
    return memfd
  }

  const readOnly = (): number => kept(openSync(`/proc/self/fd/${memory(1)}`, 'r'))
  const file = (): number => kept(openSync(join(lab.directory, 'file'), 'w+'))
  const directory = (): number => kept(openSync(lab.directory, 'r'))
  const device = (): number => kept(openSync('/dev/zero', 'r+'))
  const blockingEventfd = (): number => kept(shim.eventfd(0, 0))

  test.each<[string, () => number]>([
    ['a pipe', pipe],
    ['a socket', socket],
    ['an eventfd', blockingEventfd],
    ['a directory', directory],
    ['an empty file', file],
    ['a device', device],
    ['read-only memory', readOnly],
    ['memory that is sealed against writing', sealed],
  ])('as memory: %s', async (_what, make) => {
    const fd = make()
    for (const request of [5, 37]) {
      const guest = await lab.connect()
      await guest.negotiate()
      // Both have 8 bytes before the region; ADD_MEM_REG's mean nothing.
      guest.send(request, guest.memoryTable(), [fd])
      await guest.hungUp()
      lab.kill(guest)
    }
    await lab.expectUsable()
  })

  test.each<[string, () => number]>([
    ['a pipe', pipe],
    ['a socket', socket],
    ['a directory', directory],
    ['a file', file],
    ['a device', device],
    ['read-only memory', readOnly],
  ])('as kick, call and err: %s', async (_what, make) => {
    const fd = make()
    for (const request of [12, 13, 14]) {
      // Before the queues run, and while they do.
      for (const isRunning of [false, true]) {
        const guest = await lab.connect()
        if (isRunning) await guest.start()
        else await guest.negotiate()
        guest.send(request, u64(0n), [fd])
        await guest.hungUp()
        lab.kill(guest)
      }
    }
    await lab.expectUsable()
  })

  test.each([
    ['blocks', false],
    ['its sender has block once it is taken', true],
  ])('as call and err: an eventfd that is full and %s', async (_when, isLater) => {
    const guest = await lab.connect()
    await guest.start()
    const fd = blockingEventfd()
    expect(writeSync(fd, u64(0xffff_ffff_ffff_fffen))).toBe(8)
    for (const request of [13, 14]) {
      for (const queue of [0, 1]) guest.send(request, u64(BigInt(queue)), [fd])
    }
    await guest.barrier()
    // The flag belongs to the open file, which is the front-end's as well.
    if (isLater) shim.setStatusFlags(fd, shim.getStatusFlags(fd) & ~constants.O_NONBLOCK)
    guest.post(8)
    for (let n = 0; n < 4; n++) lab.flood()
    await lab.passesFrames()
    guest.setAvailIndex(1, 12345)
    shim.eventfdWrite(guest.kicks[1])
    await lab.stateIs('failed')
    await lab.passesFrames()
  })
})

test('a front-end that waits with rings it cannot have harms the one before it in nothing', async () => {
  const first = await lab.connect()
  await first.start()
  const second = await lab.connect()
  await second.negotiate()
  second.send(5, second.memoryTable(), [second.memfd])
  for (const queue of [0, 1]) {
    second.kicks[queue] = shim.eventfd(0, 0o2004000)
    for (const request of [12, 13]) {
      second.send(request, u64(BigInt(queue)), [second.kicks[queue]])
    }
    second.send(8, u32s(queue, RING_SIZE))
    // The last byte of the memory: it is there, and the ring is not.
    const at = USER_BASE + MEMORY_LENGTH - 1
    second.send(9, joined(u32s(queue, 0), u64s(at, at, at, 0)))
  }
  await second.barrier()
  for (const queue of [0, 1]) expect(await first.stopQueue(queue)).toBe(0)
  await first.barrier()
  lab.kill(first)
  await lab.stateIs('disconnected')
})
