/**
 * One step of the data plane in process, without ports: segmentation of 64 KiB frames, and putting
 * their segments together again. Payload is in the cache as it is behind a read.
 */
import { join } from 'node:path'
import type * as BurstModule from '../src/mem/burst.ts'
import type * as CopyModule from '../src/mem/copy-program.ts'
import type * as WindowModule from '../src/mem/window.ts'
import type * as FinishModule from '../src/offload/finish-stage.ts'
import type * as MergeModule from '../src/offload/merge-stage.ts'
import { ROOT } from './topology.ts'

const FRAMES = 4
const SEGMENTS = 45
const SEGMENT_SIZE = 1448
const PAYLOAD: number = SEGMENTS * SEGMENT_SIZE
const STRIDE: number = 72 * 1024
const NEEDS_CSUM = 1
const TCPV4 = 1
const L4 = 34
const TCP_CHECKSUM = 16
/** TUN_F_CSUM and TUN_F_TSO4. */
const OFFLOADS = 3
/** IPv4 and TCP with a timestamp option; IP length, id and all checksums are left zero. */
const HEADERS = Buffer.from(
  '02000000000202000000000108004500000000004000400600000a0000010a000002' +
    '9c401451000000010102030480100100000000000101080a0000000100000002',
  'hex',
)

/** Gbit/s of L2 bytes: of the frames that were segmented, and of those put together. */
export interface OffloadSpeed {
  readonly segment: number
  readonly coalesce: number
}

export async function offloadSpeed(seconds: number): Promise<OffloadSpeed> {
  const load = async (module: string): Promise<unknown> => import(join(ROOT, 'build', module))
  const { Burst, SEGMENTS_MAX } = (await load('mem/burst.js')) as typeof BurstModule
  const { CopyProgram } = (await load('mem/copy-program.js')) as typeof CopyModule
  const { Window } = (await load('mem/window.js')) as typeof WindowModule
  const { Finisher, FinishStage } = (await load('offload/finish-stage.js')) as typeof FinishModule
  const { Merger, MergeStage } = (await load('offload/merge-stage.js')) as typeof MergeModule

  const memory = Window.map(2 * FRAMES * STRIDE)
  const bytes = new Uint8Array(memory.buffer)
  const counters = new Float64Array(64)
  const finisher = new Finisher(counters, () => undefined)
  const merger = new Merger(counters, () => undefined)
  const list = Int32Array.from({ length: 256 }, (_, k) => k)
  const copies = new CopyProgram()
  const whole = new Burst()
  const cut = new Burst()
  whole.hasOffloads = true
  for (let k = 0; k < FRAMES; k++) {
    const at = k * STRIDE
    bytes.set(HEADERS, at)
    bytes.fill(k + 1, at + HEADERS.length, at + HEADERS.length + PAYLOAD)
    // Flows of their own, else they would be one.
    bytes[at + 29] = k + 1
    place(whole, memory.id, at, HEADERS.length + PAYLOAD)
    whole.gso[k] = NEEDS_CSUM | (TCPV4 << 8) | (HEADERS.length << 16)
    whole.gsoSize[k] = SEGMENT_SIZE | (L4 << 16)
    whole.csumOffset[k] = TCP_CHECKSUM
    whole.needs[k] = OFFLOADS
  }

  /** Copies what it is given once, as frames that came in without offloads. */
  let at = FRAMES * STRIDE
  let given = 0
  const keep = {
    transmit(burst: BurstModule.Burst, _list: Int32Array, _first: number, count: number): void {
      for (let k = 0; k < count; k++) {
        copies.addFrame(burst, k, memory.id, at, burst.length[k])
        place(cut, memory.id, at, burst.length[k])
        at = (at + burst.length[k] + 3) & ~3
      }
      copies.run()
    },
  }
  const count = {
    transmit(_burst: BurstModule.Burst, _list: Int32Array, _first: number, frames: number): void {
      given += frames
    },
  }
  const finish = new FinishStage(finisher, count, 0, 0)
  const merge = new MergeStage(merger, count, 0, OFFLOADS)
  // As with every burst that comes, the headers are read anew.
  const segment = (): void => {
    whole.headers.forget()
    finisher.beginBurst(SEGMENTS_MAX)
    finish.transmit(whole, list, 0, FRAMES, 0)
  }
  const coalesce = (): void => {
    cut.headers.forget()
    merge.transmit(cut, list, 0, cut.count, 0)
  }
  finisher.beginBurst(SEGMENTS_MAX)
  new FinishStage(finisher, keep, 0, 0).transmit(whole, list, 0, FRAMES, 0)
  fillHeads(cut, bytes)
  coalesce()
  if (cut.count !== FRAMES * SEGMENTS || given !== FRAMES) throw new Error('offloads: wrong frames')

  const speed = (step: () => void): number => {
    const run = (wantedNs: number): number => {
      const start = process.hrtime.bigint()
      let rounds = 0
      let ns = 0
      for (; ns < wantedNs; ns = Number(process.hrtime.bigint() - start)) {
        for (let round = 0; round < 100; round++) step()
        rounds += 100
      }
      return (rounds * FRAMES * (HEADERS.length + PAYLOAD) * 8) / ns
    }
    run(2e8)
    return run(seconds * 1e9)
  }
  const result = { segment: speed(segment), coalesce: speed(coalesce) }
  finisher.close()
  merger.close()
  copies.close()
  whole.close()
  cut.close()
  memory.unmap()
  return result
}

function place(burst: BurstModule.Burst, window: number, offset: number, length: number): void {
  const k = burst.count++
  burst.window[k] = window
  burst.offset[k] = offset
  burst.length[k] = length
  burst.headLength[k] = 0
}

function fillHeads(burst: BurstModule.Burst, bytes: Uint8Array): void {
  for (let k = 0; k < burst.count; k++) {
    const head = bytes.slice(burst.offset[k], burst.offset[k] + 16)
    burst.heads.set(new Int32Array(head.buffer), 4 * k)
  }
}
