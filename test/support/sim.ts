/**
 * The whole switch in one thread, with memory ports and a clock that tests turn: no kernel, no
 * threads, no time. The engine is the real one; the tier has no queues.
 */
import type { MacRows } from '../../src/engine/messages.ts'
import { MAC_ROW } from '../../src/engine/messages.ts'
import type { Burst } from '../../src/mem/burst.ts'
import type { IoTier, TapQueue, WatchedSocket } from '../../src/io/tier.ts'
import type { PortFailed } from '../../src/port/contract.ts'
import { MemoryEndpoint } from '../../src/port/memory/control.ts'
import { MemoryEnginePort } from '../../src/port/memory/engine.ts'
import { MemoryRing } from '../../src/port/memory/ring.ts'
import { readCounters, allocateCounters } from '../../src/stats/port-counters.ts'
import type { Clock } from '../../src/mem/clock.ts'
import { ENGINE_COUNTERS, SHARED_WORDS } from '../../src/engine/cells.ts'
import type { DozeOptions } from '../../src/engine/doze.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { GuardDrops, Pace, SnoopingSettings, StormChange } from '../../src/engine/messages.ts'
import { NO_SNOOPING } from '../../src/engine/messages.ts'
import type { OnLoops } from '../../src/engine/housekeeping.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { policyOf } from '../../src/switch/policy.ts'
import { whileTrue } from './bounded.ts'

const PORTS = 32

class NoTier implements IoTier {
  readonly name = 'read-write'
  readonly isReading = false
  readonly spins = 0
  addQueue(): void {}
  removeQueue(queue: TapQueue): void {
    queue.isClosing = true
  }
  watch(): void {}
  unwatch(): void {}
  watchSocket(fd: number): WatchedSocket {
    return { fd, id: 0, isArmed: false }
  }
  unwatchSocket(): void {}
  arm(): void {}
  pause(): void {}
  resume(): void {}
  limitFrames(): void {}
  nextBurst(_burst: Burst): TapQueue | null {
    return null
  }
  write(): void {}
  writeWithHeader(): void {}
  writeScattered(): void {}
  flush(): void {}
  endTurn(): boolean {
    return false
  }
  spin(): boolean {
    return false
  }
  retry(): void {}
  close(): void {}
}

class SimClock implements Clock {
  readonly time: Float64Array = new Float64Array(4)
  readonly words: Int32Array = new Int32Array(8)
  nowS = 1000
  read(): void {
    this.time[0] = this.nowS * 1e6
    this.words[4] = this.nowS
  }
}

export interface SimOptions extends DozeOptions {
  readonly pace?: Pace
  readonly macAgingS?: number
  readonly macTableSize?: number
  readonly groups?: number
  readonly snooping?: Partial<SnoopingSettings>
  readonly onPortFailed?: PortFailed
  readonly onLoops?: OnLoops
  readonly onStorms?: (changes: readonly StormChange[]) => void
  readonly onGuardDrops?: (drops: readonly GuardDrops[]) => void
}

export class Sim implements Disposable {
  readonly clock: SimClock = new SimClock()
  readonly engine: Engine
  readonly ports: MemoryEndpoint[] = []
  readonly engineCounters: Float64Array = new Float64Array(ENGINE_COUNTERS)
  readonly counters: Float64Array = new Float64Array(allocateCounters(PORTS))

  constructor(ports: number, options: SimOptions = {}) {
    this.engine = new Engine(
      {
        pace: options.pace ?? 'interrupt',
        macAgingS: options.macAgingS ?? 300,
        macTableSize: options.macTableSize ?? 1024,
        macSeed: 1,
        groups: options.groups ?? 0xffff,
        snooping: { ...NO_SNOOPING, ...options.snooping },
        counters: this.counters,
        engineCounters: this.engineCounters,
        shared: new Int32Array(SHARED_WORDS),
        sleepMaxUs: -1,
        clock: this.clock,
        onPortFailed: options.onPortFailed ?? (() => undefined),
        onLoops: options.onLoops ?? (() => undefined),
        onStorms: options.onStorms ?? (() => undefined),
        onGuardDrops: options.onGuardDrops ?? (() => undefined),
        ...(options.warmth === undefined ? {} : { warmth: options.warmth }),
      },
      () => new NoTier(),
    )
    for (let index = 0; index < ports; index++) this.addPort(index)
  }

  addPort(index: number, mtu = 0): void {
    const inward = MemoryRing.create()
    const outward = MemoryRing.create()
    const port = new MemoryEnginePort(index, inward, outward, this.engine.copies, this.counters)
    this.engine.addPort(port, mtu)
    this.ports[index] = new MemoryEndpoint(`p${index}`, inward, outward, () => undefined)
  }

  /** What a port is allowed from now on. */
  allow(port: number, options: SwitchingOptions): void {
    this.engine.forwarder.setPolicy(port, policyOf(options))
  }

  /** Sends a frame into a port and runs the switch until it is quiet. */
  send(port: number, frame: Uint8Array): void {
    if (!this.ports[port].send(frame)) throw new Error('ring full')
    whileTrue('turns with frames', () => this.engine.turn(false, 0) > 0)
  }

  /** Everything that the switch gave to a port since the last call. */
  receive(port: number): Uint8Array[] {
    const frames: Uint8Array[] = []
    for (;;) {
      const frame = this.ports[port].receive()
      if (frame === null) return frames
      frames.push(frame)
    }
  }

  count(port: number): ReturnType<typeof readCounters> {
    return readCounters(this.counters, port)
  }

  /** Moves time on and lets the housekeeping run; `carrier` sends the frame that wakes the switch. */
  wait(seconds: number): void {
    this.clock.nowS += seconds
  }

  [Symbol.dispose](): void {
    // Tests put ports of their own between these.
    this.ports.forEach((port) => port.close())
    this.engine.close()
  }
}

/** Rows of the MAC table: hi, lo, port, age. */
export function macRows({ rows }: MacRows): number[][] {
  return Array.from({ length: rows.length / MAC_ROW }, (_, row) =>
    Array.from(rows.subarray(row * MAC_ROW, (row + 1) * MAC_ROW)),
  )
}

/** A frame from bytes of its addresses: the last byte tells them apart. */
export function frame(destination: number, source: number, payload = 0, length = 60): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes.set(destination === 255 ? [255, 255, 255, 255, 255, 255] : [2, 0, 0, 0, 0, destination])
  bytes.set([2, 0, 0, 0, 0, source, 0x88, 0xb5], 6)
  new DataView(bytes.buffer).setUint32(14, payload)
  return bytes
}
