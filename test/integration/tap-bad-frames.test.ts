/**
 * Frames that the kernel, an interface or a limit refuses: dropped, counted by their reason, and
 * nothing else happens. The port stays open and the next good frame passes. Once per I/O tier.
 */
import { describe, expect, onTestFinished, test } from 'vitest'
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_UDP_TUNNEL_GSO } from '../../src/abi/if-tun.ts'
import type { createSwitch as CreateSwitch } from '../../src/index.ts'
import { chooseTier } from '../../src/io/probe.ts'
import { ReadWriteTier } from '../../src/io/read-write-tier.ts'
import { UringTier } from '../../src/io/uring-tier.ts'
import type { Burst } from '../../src/mem/burst.ts'
import { HEAD_WORDS } from '../../src/mem/burst.ts'
import { Window } from '../../src/mem/window.ts'
import { shim } from '../../src/native/shim.ts'
import type { PolledPort } from '../../src/port/contract.ts'
import { TapEnginePort } from '../../src/port/tap/engine.ts'
import type { CounterName } from '../../src/stats/counters.ts'
import { allocateCounters, readCounters } from '../../src/stats/port-counters.ts'
import type { MemoryPort, Switch } from '../../src/switch/api.ts'
import { KernelClock } from '../../src/mem/clock.ts'
import { ENGINE_COUNTERS, SHARED_WORDS } from '../../src/engine/cells.ts'
import { Engine } from '../../src/engine/engine.ts'
import { whileTrue } from '../support/bounded.ts'
import { frameHex, frameNumber, IFNAME, IO, Lab } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { NO_SNOOPING } from '../../src/engine/messages.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const io = IO as 'auto'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'
const EFD_NONBLOCK_CLOEXEC = 0o2004000
const TAP_NO_PI_VNET_HDR = 0x5002

const good = (number: number, length = 60): Uint8Array =>
  Buffer.from(frameHex(BROADCAST, SOURCE, number, length), 'hex')

/** The counters that are not zero. */
function counted(
  counters: Readonly<Record<CounterName, number>>,
): Partial<Record<CounterName, number>> {
  return Object.fromEntries(Object.entries(counters).filter(([, value]) => value !== 0))
}

describe.each([true, false])('from a memory port to a TAP with vnet_hdr=%s', (vnet_hdr) => {
  interface Bench extends AsyncDisposable {
    readonly lab: Lab
    readonly netns: string
    readonly sw: Switch
    readonly memory: MemoryPort
  }

  async function bench(mtu?: number): Promise<Bench> {
    const lab = new Lab()
    const netns = lab.netns()
    const sw = createSwitch({ io })
    await sw.addPort({ type: 'memory', id: 'm' })
    const limit = mtu === undefined ? {} : { mtu }
    await sw.addPort({ type: 'tap', id: 't', ifname: IFNAME, netns, vnet_hdr, up: true, ...limit })
    const close = async (): Promise<void> => {
      await sw.close()
      await lab[Symbol.asyncDispose]()
    }
    return { lab, netns, sw, memory: sw.memoryPort('m'), [Symbol.asyncDispose]: close }
  }

  test('runts: 13 bytes are refused at the door, 14 are a frame like any other', async () => {
    await using it = await bench()
    const receiver = await it.lab.receive(it.netns, 3)
    expect(() => it.memory.send(good(1).subarray(0, 13))).toThrow('a frame has 14 to 65549 bytes')
    for (const length of [14, 15, 60])
      expect(it.memory.send(good(length).slice(0, length))).toBe(true)
    const frames = await receiver.frames()
    expect(frames).toEqual(
      [14, 15, 60].map((n) => Buffer.from(good(n).slice(0, n)).toString('hex')),
    )
    expect(counted(it.sw.port('t').counters)).toEqual({ tx_frames: 3, tx_bytes: 89 })
  })

  test('runts from the interface come in as they are', async () => {
    await using it = await bench()
    // No kernel sends less than a header; its header alone it does.
    await it.lab.send(it.netns, [
      frameHex(BROADCAST, SOURCE, 1).slice(0, 28),
      frameHex(BROADCAST, SOURCE, 2),
    ])
    expect([...(await it.memory.next())]).toEqual([...good(1).subarray(0, 14)])
    expect([...(await it.memory.next())]).toEqual([...good(2)])
    expect(counted(it.sw.port('t').counters)).toEqual({ rx_frames: 2, rx_bytes: 74 })
  })

  test('a frame beyond the port’s mtu is dropped, one at it and the next good one pass', async () => {
    await using it = await bench(1000)
    const receiver = await it.lab.receive(it.netns, 2)
    // Two VLAN tags do not count against the mtu.
    for (const [n, length] of [1000 + 14 + 8 + 1, 1000 + 14, 9000, 65_549, 60].entries()) {
      expect(it.memory.send(good(n, length))).toBe(true)
    }
    expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([1, 4])
    expect(counted(it.sw.port('t').counters)).toEqual({
      tx_frames: 2,
      tx_bytes: 1074,
      tx_drop_mtu: 3,
    })
    expect(it.sw.port('t').state).toBe('open')
  })

  test('the longest frame that a memory port takes reaches the interface whole', async () => {
    await using it = await bench()
    const lengths = [65_521 + 14, 65_535, 65_536, 65_549, 60]
    const receiver = await it.lab.receive(it.netns, lengths.length)
    lengths.forEach((length, n) => expect(it.memory.send(good(n, length))).toBe(true))
    const frames = await receiver.frames()
    expect(frames.map((hex) => [frameNumber(hex), hex.length / 2])).toEqual([...lengths.entries()])
    expect(counted(it.sw.port('t').counters)).toEqual({
      tx_frames: lengths.length,
      tx_bytes: lengths.reduce((sum, length) => sum + length, 0),
    })
  })

  test('an interface that is down drops and counts, the port is not failed, up it passes', async () => {
    await using it = await bench()
    const drops = (): number => it.sw.port('t').counters.tx_drop_link_down
    for (let round = 0; round < 3; round++) {
      const before = drops()
      sh('ip', '-n', it.netns, 'link', 'set', IFNAME, 'down')
      for (let n = 0; n < 10; n++) it.memory.send(good(n))
      await until('all are counted', () => drops() === before + 10)
      expect(it.sw.port('t')).toMatchObject({ state: 'down', device: 'down', link: true })
      sh('ip', '-n', it.netns, 'link', 'set', IFNAME, 'up')
      const receiver = await it.lab.receive(it.netns, 1)
      it.memory.send(good(100 + round))
      expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([100 + round])
      // And the other way: reading goes on as well.
      await it.lab.send(it.netns, [frameHex(BROADCAST, SOURCE, 200 + round)])
      const frame = await it.memory.next()
      expect(frameNumber(Buffer.from(frame).toString('hex'))).toBe(200 + round)
    }
    expect(counted(it.sw.port('t').counters)).toEqual({
      tx_frames: 3,
      tx_bytes: 180,
      tx_drop_link_down: 30,
      rx_frames: 3,
      rx_bytes: 180,
    })
  })
})

// --- vnet_hdrs that only a hostile sender makes ------------------------------------------------

interface Header {
  readonly flags?: number
  readonly gsoType?: number
  readonly hdrLen?: number
  readonly gsoSize?: number
  readonly csumStart?: number
  readonly csumOffset?: number
}

interface Injected {
  readonly header: Header
  readonly frame: Uint8Array
}

/** Hands any bytes behind any vnet_hdr to the switch, as a guest without scruples would. */
class HostilePort implements PolledPort {
  readonly index = 0
  readonly rxQueues = 1
  readonly rxQueue = 0
  readonly txOffloads = 0
  waiting: Injected[] = []
  readonly #window: Window = Window.map(1 << 22)
  readonly #headLength: number

  constructor(headLength: number) {
    this.#headLength = headLength
  }

  receive(burst: Burst): number {
    const bytes = new Uint8Array(this.#window.buffer)
    const view = new DataView(this.#window.buffer)
    let at = 0
    const taken = this.waiting.splice(0, 256)
    for (const [k, { header, frame }] of taken.entries()) {
      const { flags = 0, gsoType = 0, hdrLen = 0 } = header
      const { gsoSize = 0, csumStart = 0, csumOffset = 0 } = header
      bytes.fill(0, at, at + this.#headLength)
      view.setUint8(at, flags)
      view.setUint8(at + 1, gsoType)
      view.setUint16(at + 2, hdrLen, true)
      view.setUint16(at + 4, gsoSize, true)
      view.setUint16(at + 6, csumStart, true)
      view.setUint16(at + 8, csumOffset, true)
      burst.gso[k] = view.getInt32(at, true)
      burst.gsoSize[k] = view.getInt32(at + 4, true)
      burst.csumOffset[k] = csumOffset
      at += this.#headLength
      bytes.set(frame, at)
      // Addresses that the switch forwards, also of what is too short to have any.
      const head = Uint8Array.from(good(0).subarray(0, HEAD_WORDS * 4))
      head.set(frame.subarray(0, head.length))
      burst.heads.set(new Int32Array(head.buffer), k * HEAD_WORDS)
      burst.window[k] = this.#window.id
      burst.offset[k] = at
      burst.length[k] = frame.length
      burst.headLength[k] = this.#headLength
      // What the frame reader would refuse is let through: the kernel is asked.
      burst.needs[k] = 0
      at = (at + frame.length + 3) & ~3
    }
    burst.count = taken.length
    return taken.length
  }

  release(): void {}
  waitUs(): number {
    return this.waiting.length === 0 ? -1 : 0
  }
  transmit(): void {}
  endTurn(): void {}
  close(): void {
    this.#window.unmap()
  }
}

/** The engine in this thread, with the tier of this run, a hostile port and a real TAP. */
class EngineBench implements AsyncDisposable {
  readonly lab: Lab = new Lab()
  readonly netns: string = this.lab.netns()
  readonly hostile: HostilePort
  readonly engine: Engine
  readonly failed: number[] = []
  readonly #counters: Float64Array = new Float64Array(allocateCounters(2))
  readonly #eventFd: number = shim.eventfd(0, EFD_NONBLOCK_CLOEXEC)
  readonly #tap: TapEnginePort
  readonly tapFd: number

  /** `headLength`: of the vnet_hdr that the frames bring; the TAP's is 12. */
  constructor(headLength: number) {
    const netnsFd = shim.open(`/run/netns/${this.netns}`, 0)
    const [name, stage] = [new Uint8Array(16), new Int32Array(1)]
    const flags = TAP_NO_PI_VNET_HDR
    this.tapFd = shim.tunOpen(netnsFd, '/dev/net/tun', IFNAME, flags, name, stage)
    shim.close(netnsFd)
    if (this.tapFd < 0) throw new Error(`tunOpen: ${this.tapFd}`)
    shim.tunSetVnetHdrSize(this.tapFd, 12)
    sh('ip', '-n', this.netns, 'link', 'set', IFNAME, 'up')
    const { name: tier } = chooseTier(io)
    this.engine = new Engine(
      {
        pace: 'interrupt',
        macAgingS: 300,
        macTableSize: 64,
        macSeed: 1,
        groups: 0xffff,
        snooping: NO_SNOOPING,
        counters: this.#counters,
        engineCounters: new Float64Array(ENGINE_COUNTERS),
        shared: new Int32Array(SHARED_WORDS),
        sleepMaxUs: -1,
        clock: new KernelClock(),
        onPortFailed: (port) => this.failed.push(port),
        onLoops: () => undefined,
        onStorms: () => undefined,
        onGuardDrops: () => undefined,
      },
      (events) =>
        tier === 'read-write'
          ? new ReadWriteTier(this.#eventFd, events)
          : new UringTier(this.#eventFd, events),
    )
    this.hostile = new HostilePort(headLength)
    this.engine.addPort(this.hostile, 0)
    this.#tap = new TapEnginePort(
      { index: 1, fds: [this.tapFd], vnetHdrLength: 12, txOffloads: 0x7f },
      this.engine.tier,
      this.#counters,
    )
    this.engine.addPort(this.#tap, 0)
  }

  /** Hands frames to the switch and runs it until so many more writes have failed. */
  async inject(failures: number, ...frames: Injected[]): Promise<void> {
    const goal = this.#drops() + failures
    this.hostile.waiting.push(...frames)
    // The kernel tells failures some at a time: a spin asks for the others, as the engine's loop does.
    await this.turnUntil(() => this.#drops() >= goal)
    // One more than expected would show now.
    this.engine.turn(false, 0)
    expect(this.#drops()).toBe(goal)
  }

  async turnUntil(isDone: () => boolean): Promise<void> {
    await until('the turns have done it', () => {
      whileTrue('turns', () => this.engine.turn(false, 0) > 0 || this.engine.tier.spin())
      return isDone()
    })
  }

  #drops(): number {
    const entries = Object.entries(readCounters(this.#counters, 1))
    return entries.reduce((sum, [name, n]) => sum + (name.includes('_drop_') ? n : 0), 0)
  }

  get tap(): Partial<Record<CounterName, number>> {
    return counted(readCounters(this.#counters, 1))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.engine.removePort(1)
    this.engine.removePort(0)
    this.engine.close()
    shim.close(this.tapFd)
    shim.close(this.#eventFd)
    await this.lab[Symbol.asyncDispose]()
  }
}

const PARTIAL: Header = { flags: 1, csumStart: 34, csumOffset: 16 }
const TCPV4: Header = { ...PARTIAL, gsoType: 1, hdrLen: 54, gsoSize: 1000 }

/** What Linux answers with EINVAL; the number of the frame is its place. */
const refused: Record<string, Injected> = {
  'TCPv4 whose csum_start is outside the frame': {
    header: { ...TCPV4, csumStart: 5000 },
    frame: good(0, 1514),
  },
  'a checksum field that ends outside the frame': {
    header: { ...PARTIAL, csumOffset: 1480 },
    frame: good(0, 1514),
  },
  'hdr_len longer than the frame': { header: { ...TCPV4, hdrLen: 2000 }, frame: good(0, 1514) },
  'hdr_len longer than the frame, and nothing else asked': {
    header: { hdrLen: 200 },
    frame: good(0),
  },
  'GSO without a size': { header: { ...TCPV4, gsoSize: 0 }, frame: good(0, 1514) },
  'a gso_type of nobody': { header: { ...TCPV4, gsoType: 2 }, frame: good(0, 1514) },
  'less than an Ethernet header': { header: {}, frame: good(0).subarray(0, 13) },
  'nothing at all behind the vnet_hdr': { header: {}, frame: new Uint8Array() },
}

describe.each([
  ['in one piece with the frame', 12],
  ['spelled anew for this TAP', 10],
])('a vnet_hdr that the kernel refuses, %s', (_, headLength) => {
  test.each(Object.entries(refused))(
    '%s: dropped, counted, and the next frame passes',
    async (_, bad) => {
      await using it = new EngineBench(headLength)
      const receiver = await it.lab.receive(it.netns, 1)
      await it.inject(1, bad)
      expect(it.tap).toEqual({ tx_drop_malformed: 1 })
      await it.inject(0, { header: {}, frame: good(7) })
      expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([7])
      expect(it.tap).toEqual({ tx_frames: 1, tx_bytes: 60, tx_drop_malformed: 1 })
      expect(it.failed).toEqual([])
    },
  )

  test('among many good ones, in one burst: those all arrive, in order', async () => {
    await using it = new EngineBench(headLength)
    const FRAMES = 200
    const bad = Object.values(refused)
    const frames = Array.from({ length: FRAMES }, (_, n) =>
      n % 3 === 1 ? bad[n % bad.length] : { header: {}, frame: good(n) },
    )
    const numbers = [...frames.keys()].filter((n) => n % 3 !== 1)
    const receiver = await it.lab.receive(it.netns, numbers.length)
    await it.inject(FRAMES - numbers.length, ...frames)
    expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual(numbers)
    expect(it.tap).toEqual({
      tx_frames: numbers.length,
      tx_bytes: 60 * numbers.length,
      tx_drop_malformed: FRAMES - numbers.length,
    })
    expect(it.failed).toEqual([])
  })

  test('while the interface is down, both reasons are counted and the port is not failed', async () => {
    await using it = new EngineBench(headLength)
    sh('ip', '-n', it.netns, 'link', 'set', IFNAME, 'down')
    await it.inject(1, { header: {}, frame: good(1) })
    expect(it.tap).toEqual({ tx_drop_link_down: 1 })
    await it.inject(Object.values(refused).length, ...Object.values(refused))
    // Which of the two the kernel finds first is its own affair.
    const { tx_drop_link_down = 0, tx_drop_malformed = 0, ...others } = it.tap
    expect(tx_drop_link_down + tx_drop_malformed).toBe(1 + Object.values(refused).length)
    expect(others).toEqual({})
    expect(it.failed).toEqual([])
  })
})

test('frames whose vnet_hdr the kernel cannot write are counted, and the next one comes', async () => {
  const LOST = 100
  await using it = new EngineBench(12)
  const offloads = (bits: number): void => expect(shim.tunSetOffload(it.tapFd, bits)).toBe(0)
  // For tunnels 12 bytes are too few, and for every other frame as long as they are on.
  offloads(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_UDP_TUNNEL_GSO)
  const send = (count: number): Promise<void> =>
    it.lab.send(
      it.netns,
      Array.from({ length: count }, (_, n) => frameHex(BROADCAST, SOURCE, n)),
    )
  await send(LOST)
  await it.turnUntil(() => it.tap.rx_drop_malformed === LOST)
  offloads(0)
  await send(1)
  await it.turnUntil(() => it.tap.rx_frames === 1)
  expect(it.tap).toEqual({ rx_drop_malformed: LOST, rx_frames: 1, rx_bytes: 60 })
  expect(it.failed).toEqual([])
})

test('a frame whose device is gone fails its port, once, and only that one', async () => {
  const it = new EngineBench(12)
  onTestFinished(() => it[Symbol.asyncDispose]())
  sh('ip', '-n', it.netns, 'link', 'del', IFNAME)
  await it.inject(5, ...Array.from({ length: 5 }, (_, n) => ({ header: {}, frame: good(n) })))
  expect(it.failed).toEqual([1])
  const before = it.tap
  // From now on it is a port whose link is down.
  await it.inject(1, { header: {}, frame: good(9) })
  const downs = (before.tx_drop_link_down ?? 0) + 1
  expect(it.tap).toEqual({ ...before, tx_drop_link_down: downs })
  expect(it.failed).toEqual([1])
})
