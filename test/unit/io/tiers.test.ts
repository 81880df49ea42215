/**
 * Both tiers by the contract of io/tier.ts, without a TAP: packet sockets keep frames apart as a
 * TAP does. What is particular to TAPs is in test/integration.
 */
import { afterEach, describe, expect, test } from 'vitest'
import { EAGAIN, EBADF, EFAULT } from '../../../src/abi/errno.ts'
import { Aio } from '../../../src/io/aio.ts'
import { uringLack } from '../../../src/io/probe.ts'
import { ReadWriteTier } from '../../../src/io/read-write-tier.ts'
import type { IoTier, TierEvents } from '../../../src/io/tier.ts'
import { TapQueue } from '../../../src/io/tier.ts'
import { UringTier } from '../../../src/io/uring-tier.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { Window } from '../../../src/mem/window.ts'
import { shim } from '../../../src/native/shim.ts'
import type { IoTierName } from '../../../src/switch/api.ts'

const SOCK_SEQPACKET = 5
const O_NONBLOCK = 0o4000
const EFD_NONBLOCK_CLOEXEC = 0o2004000
/** Turns after which a test gives up: each waits for at most a hundredth of a second. */
const TURNS_MAX = 500
const WAIT_US = 10_000

interface Failure {
  readonly port: number
  readonly length: number
  readonly errno: number
}

class Bench implements TierEvents, Disposable {
  readonly tier: IoTier
  readonly burst: Burst = new Burst()
  readonly failures: Failure[] = []
  readonly failedQueues: [TapQueue, number][] = []
  readonly drops: number[][] = []
  readonly #eventFd: number = shim.eventfd(0, EFD_NONBLOCK_CLOEXEC)
  readonly #fds: number[] = []
  readonly #windows: Window[] = []
  readonly #scratch: Window = this.window(131_072)

  constructor(make: (eventFd: number, events: TierEvents) => IoTier) {
    this.tier = make(this.#eventFd, this)
  }

  writeFailed(port: number, length: number, errno: number): void {
    this.failures.push({ port, length, errno })
  }

  dropped(...counts: number[]): void {
    this.drops.push(counts)
  }

  queueFailed(queue: TapQueue, errno: number): void {
    this.failedQueues.push([queue, errno])
  }

  window(length: number): Window {
    const window = Window.map(length)
    this.#windows.push(window)
    return window
  }

  /** A queue of the tier, and the far end of its wire. */
  queue(port = 0, vnetHdrLength = 0): { queue: TapQueue; far: number } {
    const fds = new Int32Array(2)
    expect(shim.socketPair(SOCK_SEQPACKET, fds)).toBe(0)
    for (const fd of fds) {
      shim.setStatusFlags(fd, O_NONBLOCK)
      this.#fds.push(fd)
    }
    const queue = new TapQueue(fds[0], port, 0, vnetHdrLength)
    this.tier.addQueue(queue)
    return { queue, far: fds[1] }
  }

  closeFd(fd: number): void {
    this.#fds.splice(this.#fds.indexOf(fd), 1)
    shim.close(fd)
  }

  wake(): void {
    shim.eventfdWrite(this.#eventFd)
  }

  /** Sends a frame of `length` bytes that carries a number into a far end. */
  send(far: number, number: number, length = 60): void {
    const { id, buffer } = this.#scratch
    new DataView(buffer).setUint32(0, number)
    expect(shim.writeFrom(far, id, 0, length, 0)).toBe(length)
  }

  /** The next frame that came out at a far end, as [number, length]; null: none. */
  receive(far: number): [number, number] | null {
    const { id, buffer } = this.#scratch
    const length = shim.readInto(far, id, 65_536, 65_536)
    if (length === -EAGAIN) return null
    return [new DataView(buffer).getUint32(65_536), length]
  }

  /** Numbers of the frames in the burst. */
  numbers(): number[] {
    return Array.from({ length: this.burst.count }, (_, k) => {
      const word = this.burst.heads[k * 4]
      return (
        ((word & 0xff) << 24) |
        ((word & 0xff00) << 8) |
        ((word >>> 8) & 0xff00) |
        ((word >>> 24) & 0xff)
      )
    })
  }

  /** Runs turns until `isDone`, handing over each burst. */
  turns(isDone: () => boolean, take: (queue: TapQueue) => void = () => undefined): void {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      let queue: TapQueue | null
      while ((queue = this.tier.nextBurst(this.burst)) !== null) take(queue)
      if (isDone()) return
      this.tier.endTurn(WAIT_US)
    }
    throw new Error('the tier never did it')
  }

  [Symbol.dispose](): void {
    this.tier.close()
    for (const fd of this.#fds) shim.close(fd)
    shim.close(this.#eventFd)
    for (const window of this.#windows) window.unmap()
  }
}

const lacks = uringLack()
function openAio(): Aio {
  const aio = Aio.open()
  if (aio === null) throw new Error('this kernel has no AIO')
  return aio
}

const tiers: [IoTierName, string, (eventFd: number, events: TierEvents) => IoTier][] = [
  [
    'read-write',
    'a call each',
    (eventFd, events) => new ReadWriteTier(eventFd, events, () => null),
  ],
  ['read-write', 'by AIO', (eventFd, events) => new ReadWriteTier(eventFd, events, openAio)],
  ['io_uring-multishot', 'one ring', (eventFd, events) => new UringTier(eventFd, events)],
]

describe.each(tiers)('%s, %s', (name, _, make) => {
  const isMissing = name === 'io_uring-multishot' && lacks !== undefined
  const why = isMissing ? ` (skipped: ${lacks})` : ''
  let bench: Bench
  const start = (): Bench => (bench = new Bench(make))

  afterEach(() => bench?.[Symbol.dispose]())

  describe.skipIf(isMissing)(`reading${why}`, () => {
    test('knows its name', () => {
      expect(start().tier.name).toBe(name)
    })

    test('frames come in order, in bursts of one queue each', () => {
      const { tier, burst } = start()
      const queues = [bench.queue(3), bench.queue(4)]
      for (let n = 0; n < 100; n++) {
        bench.send(queues[0].far, n)
        bench.send(queues[1].far, 1000 + n, 61)
      }
      const got: number[][] = [[], []]
      bench.turns(
        () => got[0].length + got[1].length === 200,
        (queue) => {
          const at = queues.findIndex((one) => one.queue === queue)
          for (let k = 0; k < burst.count; k++) expect(burst.length[k]).toBe(60 + at)
          got[at].push(...bench.numbers())
        },
      )
      expect(got).toEqual([0, 1000].map((from) => Array.from({ length: 100 }, (_, n) => from + n)))
      expect(tier.isReading).toBe(true)
    })

    test('frames come while the engine is busy with others, and never sleeps nor spins', () => {
      const { tier, burst } = start()
      const { far } = bench.queue()
      tier.endTurn(0)
      bench.send(far, 7)
      let turns = 0
      while (tier.nextBurst(burst) === null && ++turns < TURNS_MAX) tier.endTurn(0)
      expect(bench.numbers()).toEqual([7])
    })

    test('far more frames than there are slots come through: every slot comes back', () => {
      const { far } = (start(), bench.queue())
      const FRAMES = 3000
      let sent = 0
      const got: number[] = []
      bench.turns(
        () => {
          for (; sent < FRAMES && sent - got.length < 100; sent++) bench.send(far, sent)
          return got.length === FRAMES
        },
        () => got.push(...bench.numbers()),
      )
      expect(got).toEqual(Array.from({ length: FRAMES }, (_, n) => n))
    })

    test('a turn reads as many frames as it may, of each queue in its turn', () => {
      const { tier, burst } = start()
      const MOST = 6
      const FRAMES = 90
      tier.limitFrames(MOST)
      const fars = [0, 1, 2].map((port) => bench.queue(port).far)
      for (let n = 0; n < FRAMES; n++) for (const far of fars) bench.send(far, n)
      const read = [0, 0, 0]
      const turns: number[][] = []
      let before = [0, 0, 0]
      bench.turns(
        () => {
          if (read.some((count, port) => count > before[port])) turns.push([...read])
          before = [...read]
          return read.every((count) => count === FRAMES)
        },
        ({ port }) => void (read[port] += burst.count),
      )
      const sums = turns.map((counts) => counts.reduce((sum, count) => sum + count, 0))
      // What is on its way already when the limit comes is read as well.
      for (let turn = 4; turn < sums.length; turn++) {
        expect(sums[turn] - sums[turn - 1]).toBeLessThanOrEqual(MOST)
      }
      // Half-way they are all half-way, more or less.
      const middle = turns.find((_, turn) => sums[turn] >= (3 * FRAMES) / 2)!
      for (const count of middle) expect(Math.abs(count - FRAMES / 2)).toBeLessThan(FRAMES / 3)
      tier.limitFrames(1000)
      for (let n = 0; n < FRAMES; n++) for (const far of fars) bench.send(far, n)
      let most = 0
      bench.turns(
        () => read.every((count) => count === 2 * FRAMES),
        ({ port }) => {
          read[port] += burst.count
          most = Math.max(most, burst.count)
        },
      )
      expect(most).toBeGreaterThan(2 * MOST)
    })

    test('queues that are never empty, more than there are slots, leave the others their frames', () => {
      const FRAMES = 5
      const { tier } = start()
      // The other tier reads 64 frames of each: two are enough work for a turn.
      const hogs = name === 'io_uring-multishot' ? 20 : 2
      const queues: TapQueue[] = []
      try {
        for (let n = 0; n < hogs; n++) {
          // Each read fills a slot.
          const fd = shim.open('/dev/random', O_NONBLOCK)
          queues.push(new TapQueue(fd, 1, n, 0))
          tier.addQueue(queues[n])
        }
        const { queue, far } = bench.queue()
        const got: number[] = []
        for (let n = 0; n < FRAMES; n++) {
          bench.send(far, n)
          bench.turns(
            () => got.length > n,
            (from) => {
              if (from === queue) got.push(...bench.numbers())
            },
          )
        }
        expect(got).toEqual(Array.from({ length: FRAMES }, (_, n) => n))
        // What fills a slot was cut off.
        for (const [port, , , oversize] of bench.drops) expect(port * oversize).toBeGreaterThan(0)
        expect(bench.drops.length).toBeGreaterThan(FRAMES)
        for (const one of queues) tier.removeQueue(one)
        bench.turns(() => queues.every((one) => !one.isReading))
      } finally {
        for (const { fd } of queues) shim.close(fd)
      }
    })

    test('frames are whole, up to the longest', () => {
      const { burst } = start()
      const { far } = bench.queue()
      const lengths = [14, 60, 1514, 9014, 65_000]
      const got: number[] = []
      let at = 0
      bench.turns(
        () => {
          if (got.length === at && at < lengths.length) bench.send(far, at, lengths[at++])
          return got.length === lengths.length
        },
        () => got.push(...burst.length.subarray(0, burst.count)),
      )
      expect(got).toEqual(lengths)
    })

    test('what is no frame is told, and the good ones around it come', () => {
      start()
      const { far } = bench.queue(9)
      bench.send(far, 1)
      bench.send(far, 2, 13)
      bench.send(far, 3)
      const got: number[] = []
      bench.turns(
        () => got.length === 2,
        () => got.push(...bench.numbers()),
      )
      expect(got).toEqual([1, 3])
      expect(bench.drops).toEqual([[9, 1, 0, 0]])
    })

    test('a queue that is removed is not read again, and the others are', () => {
      const { tier } = start()
      const [gone, kept] = [bench.queue(1), bench.queue(2)]
      bench.turns(() => gone.queue.isReading && kept.queue.isReading)
      tier.removeQueue(gone.queue)
      bench.turns(() => !gone.queue.isReading)
      bench.send(gone.far, 1)
      bench.send(kept.far, 2)
      const got: number[] = []
      bench.turns(
        () => got.length > 0,
        (queue) => {
          expect(queue).toBe(kept.queue)
          got.push(...bench.numbers())
        },
      )
      expect(got).toEqual([2])
      // The frame is still there for whoever reads the descriptor next.
      expect(shim.poll(gone.queue.fd, 1, 0)).toBe(1)
      // The number of the removed queue serves the next one.
      const next = bench.queue(5)
      bench.send(next.far, 7)
      bench.turns(
        () => got.length > 1,
        (queue) => {
          expect(queue).toBe(next.queue)
          got.push(...bench.numbers())
        },
      )
      expect(got).toEqual([2, 7])
    })

    test('paused, it reads nothing and loses nothing; resumed, it goes on in order', () => {
      const { tier } = start()
      const { far } = bench.queue()
      const got: number[] = []
      const take = (): void => void got.push(...bench.numbers())
      bench.send(far, 0)
      bench.turns(() => got.length === 1, take)
      tier.pause()
      bench.turns(() => !tier.isReading, take)
      const late = bench.queue()
      for (let n = 1; n < 20; n++) bench.send(far, n)
      bench.send(late.far, 100)
      // Whatever the tier waits for, it is not frames now.
      bench.wake()
      tier.endTurn(WAIT_US)
      bench.turns(() => true, take)
      expect(got).toEqual([0])
      tier.resume()
      bench.turns(() => got.length === 21, take)
      expect(got.filter((number) => number < 100)).toEqual(Array.from({ length: 20 }, (_, n) => n))
    })

    test('a descriptor that is none does no harm to the other queues', () => {
      start()
      const good = bench.queue(1)
      const bad = bench.queue(2)
      bench.turns(() => bad.queue.isReading)
      const { tier } = bench
      tier.removeQueue(bad.queue)
      bench.turns(() => !bad.queue.isReading)
      bench.closeFd(bad.queue.fd)
      const dead = new TapQueue(bad.queue.fd, 2, 0, 0)
      tier.addQueue(dead)
      bench.send(good.far, 1)
      const got: number[] = []
      bench.turns(
        () => got.length === 1 && !dead.isReading,
        () => got.push(...bench.numbers()),
      )
      expect(got).toEqual([1])
      expect(good.queue.isReading).toBe(true)
    })
  })

  describe.skipIf(isMissing)(`writing${why}`, () => {
    test('what is not in a window is not sent, and what stands around it is', () => {
      const { tier, burst } = start()
      const { queue, far } = bench.queue(3)
      const window = bench.window(1 << 16)
      const gone = Window.map(1 << 16)
      const view = new DataView(window.buffer)
      for (let n = 0; n < 8; n++) view.setUint32(n * 100, n)
      const { fd } = queue
      const end = 1 << 16
      gone.unmap()
      tier.write(fd, 3, window.id, 0, 60)
      tier.write(fd, 3, window.id, end - 59, 60)
      tier.write(fd, 3, window.id, -1, 60)
      tier.write(fd, 3, window.id, 0x7fff_ffff, 60)
      tier.write(fd, 3, gone.id, 0, 60)
      tier.write(fd, 3, 32_767, 0, 60)
      tier.write(fd, 3, window.id, 100, 60)
      tier.writeWithHeader(fd, 3, window.id, end - 11, 12, window.id, 200, 60)
      tier.writeWithHeader(fd, 3, window.id, 0, 12, gone.id, 200, 60)
      tier.writeWithHeader(fd, 3, window.id, 200, 12, window.id, 200, 60)
      burst.furtherCount[0] = 1
      burst.furtherFirst[0] = 0
      burst.window[0] = window.id
      burst.offset[0] = 300
      burst.firstLength[0] = 30
      burst.furtherWindow[0] = window.id
      burst.furtherOffset[0] = end - 29
      burst.furtherLength[0] = 30
      burst.length[0] = 60
      tier.writeScattered(fd, 3, window.id, 0, 0, burst, 0)
      burst.furtherOffset[0] = end - 30
      tier.writeScattered(fd, 3, window.id, 0, 0, burst, 0)
      tier.flush()
      const got: ([number, number] | null)[] = []
      for (let n = 0; n < 5; n++) got.push(bench.receive(far))
      expect(got).toEqual([[0, 60], [1, 60], [2, 72], [3, 60], null])
      expect(bench.failures).toHaveLength(8)
      expect(new Set(bench.failures.map(({ port, errno }) => `${port} ${errno}`))).toEqual(
        new Set([`3 ${EFAULT}`]),
      )
    })

    test('frames leave in order, with and without a header of their own, by several ports', () => {
      const { tier } = start()
      const ends = [bench.queue(0), bench.queue(1)]
      const window = bench.window(1 << 20)
      const view = new DataView(window.buffer)
      const HEADER_AT = 1 << 19
      for (let n = 0; n < 40; n++) {
        view.setUint32(n * 100, n)
        view.setUint32(HEADER_AT + n * 12, 5000 + n)
        const { fd } = ends[n & 1].queue
        if (n % 3 === 0) {
          tier.writeWithHeader(fd, n & 1, window.id, HEADER_AT + n * 12, 12, window.id, n * 100, 60)
        } else {
          tier.write(fd, n & 1, window.id, n * 100, 60)
        }
      }
      tier.flush()
      ends.forEach(({ far }, port) => {
        for (let n = port; n < 40; n += 2) {
          expect(bench.receive(far)).toEqual(n % 3 === 0 ? [5000 + n, 72] : [n, 60])
        }
        expect(bench.receive(far)).toBeNull()
      })
      expect(bench.failures).toEqual([])
    })

    test('more writes than any table holds leave in order', () => {
      const { tier } = start()
      const { queue, far } = bench.queue()
      const window = bench.window(1 << 20)
      const view = new DataView(window.buffer)
      const WRITES = 3000
      let read = 0
      for (let n = 0; n < WRITES; n++) {
        view.setUint32(n * 64, n)
        const header = (1 << 19) + (n % 1000) * 12
        if (n % 2 === 0) tier.write(queue.fd, 0, window.id, n * 64, 60)
        else tier.writeWithHeader(queue.fd, 0, window.id, n * 64, 4, window.id, header, 56)
        // The socket between has room for some hundred frames only.
        if (n % 64 === 63 || n === WRITES - 1) {
          tier.flush()
          for (let frame; (frame = bench.receive(far)) !== null;) expect(frame[0]).toBe(read++)
        }
      }
      expect(read).toBe(WRITES)
      expect(bench.failures).toEqual([])
    })

    test('what does not fit is told with its port and length; the rest leaves', () => {
      const { tier } = start()
      const [full, other] = [bench.queue(3), bench.queue(4)]
      const window = bench.window(4096)
      const WRITES = 1000
      for (let n = 0; n < WRITES; n++) tier.write(full.queue.fd, 3, window.id, 0, 700)
      tier.write(other.queue.fd, 4, window.id, 0, 60)
      tier.flush()
      let arrived = 0
      while (bench.receive(full.far) !== null) arrived++
      expect(bench.receive(other.far)).toEqual([0, 60])
      expect(arrived).toBeGreaterThan(0)
      expect(arrived).toBeLessThan(WRITES)
      bench.turns(() => bench.failures.length === WRITES - arrived)
      for (const failure of bench.failures) {
        expect(failure).toEqual({ port: 3, length: 700, errno: EAGAIN })
      }
      // Room again: the port is as good as before.
      tier.write(full.queue.fd, 3, window.id, 0, 61)
      tier.flush()
      expect(bench.receive(full.far)).toEqual([0, 61])
    })

    test('a write to a descriptor that is gone is told, and the others leave', () => {
      const { tier } = start()
      const { queue, far } = bench.queue(1)
      const window = bench.window(4096)
      tier.write(1 << 20, 2, window.id, 0, 99)
      tier.write(queue.fd, 1, window.id, 0, 60)
      tier.endTurn(0)
      bench.turns(() => bench.failures.length > 0)
      expect(bench.failures).toEqual([{ port: 2, length: 99, errno: EBADF }])
      expect(bench.receive(far)).toEqual([0, 60])
    })
  })

  describe.skipIf(isMissing)(`sleeping${why}`, () => {
    test('the control eventfd ends a sleep, each time', () => {
      start()
      bench.queue()
      for (let round = 0; round < 5; round++) {
        bench.turns(() => true)
        bench.wake()
        // For ever: if it did not wake, the test would hang until its time is up.
        bench.tier.endTurn(-1)
      }
      expect(bench.failures).toEqual([])
    })

    test('a frame ends a sleep', () => {
      start()
      const { queue, far } = bench.queue()
      bench.turns(() => queue.isReading)
      // The read itself is only in the kernel after this.
      bench.tier.endTurn(0)
      bench.send(far, 5)
      bench.tier.endTurn(-1)
      expect(bench.tier.nextBurst(bench.burst)).toBe(queue)
      expect(bench.numbers()).toEqual([5])
    })

    test('a spin finds a frame without a turn', () => {
      start()
      const { queue, far } = bench.queue()
      bench.turns(() => queue.isReading)
      bench.tier.endTurn(0)
      expect(bench.tier.nextBurst(bench.burst)).toBeNull()
      bench.send(far, 6)
      let spins = 0
      while (!bench.tier.spin() && spins < TURNS_MAX) spins++
      expect(spins).toBeLessThan(TURNS_MAX)
      expect(bench.tier.nextBurst(bench.burst)).toBe(queue)
    })
  })
})

test('an AIO context that does not work is given up: frames go on one by one', () => {
  const dead = openAio()
  dead.close()
  using bench = new Bench((eventFd, events) => new ReadWriteTier(eventFd, events, () => dead))
  const { queue, far } = bench.queue()
  const got: number[] = []
  for (let n = 0; n < 100; n++) bench.send(far, n)
  bench.turns(
    () => got.length === 100,
    () => got.push(...bench.numbers()),
  )
  expect(got).toEqual(Array.from({ length: 100 }, (_, n) => n))
  const scratch = bench.window(4096)
  for (let n = 0; n < 10; n++) bench.tier.write(queue.fd, 0, scratch.id, 0, 60)
  bench.tier.endTurn(0)
  for (let n = 0; n < 10; n++) expect(bench.receive(far)).toEqual([0, 60])
  expect(bench.failures).toEqual([])
})
