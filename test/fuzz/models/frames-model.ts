/**
 * What becomes of frames at a guest's queues, from VIRTIO 1.3 §5.1.6: what a transmitq's chains are
 * as frames, and what stands in the buffers of a receiveq afterwards.
 */
import type { GuestModel, Part } from './guest-model.ts'
import type { ModelChain, RingModel } from './ring-model.ts'
import { EMPTY } from './ring-model.ts'

const ETHERNET = 14
/** 64 KiB behind an Ethernet header and two tags. */
const FRAME_MAX: number = 65535 + ETHERNET + 8
const FURTHER_PER_FRAME = 62
const FURTHER_IN_ALL = 4096
const FRAMES_MAX = 256
const SEGMENTS_MAX = 1024

export interface SourceFrame {
  /** Of the whole chain, the vnet_hdr included. */
  readonly parts: readonly Part[]
  readonly length: number
}

export interface SourceResult {
  taken: number
  malformed: number
  oversize: number
  readonly frames: SourceFrame[]
}

/** The next burst of a transmitq. All chains are put, whatever is in them. */
export function fillBurst(ring: RingModel, headerLength: number): SourceResult {
  const result: SourceResult = { taken: 0, malformed: 0, oversize: 0, frames: [] }
  let further = 0
  while (result.taken < FRAMES_MAX) {
    const kind = {
      isWritable: false,
      lengthMin: headerLength + ETHERNET,
      lengthMax: headerLength + FRAME_MAX,
    }
    for (const { part } of ring.takePlain(kind, FRAMES_MAX - result.taken)) {
      result.frames.push({ parts: [part], length: part.length - headerLength })
      result.taken++
    }
    if (result.taken === FRAMES_MAX || further + FURTHER_PER_FRAME > FURTHER_IN_ALL) break
    const chain = ring.take()
    if (chain === null) break
    ring.put(chain.id, chain.entries, 0)
    result.taken++
    const length = chain.readableLength - headerLength
    if (length < ETHERNET) result.malformed++
    else if (length > FRAME_MAX) result.oversize++
    else {
      const segments = withoutFirst(chain.readable, headerLength).length
      if (segments - 1 > FURTHER_PER_FRAME) result.malformed++
      else {
        further += segments - 1
        result.frames.push({ parts: chain.readable, length })
      }
    }
  }
  return result
}

/** What is behind the first `length` bytes. */
export function withoutFirst(parts: readonly Part[], length: number): Part[] {
  const rest: Part[] = []
  let skip = length
  for (const part of parts) {
    const gone = Math.min(skip, part.length)
    skip -= gone
    if (gone === part.length) continue
    rest.push({ ...part, offset: part.offset + gone, length: part.length - gone })
  }
  return rest
}

export function bytesOf(memory: GuestModel, parts: readonly Part[], most: number): Uint8Array {
  const bytes = new Uint8Array(most)
  let done = 0
  for (const { region, offset, length } of parts) {
    if (done >= most) break
    const some = Math.min(length, most - done)
    bytes.set(memory.regions[region].bytes.subarray(offset, offset + some), done)
    done += some
  }
  return bytes.subarray(0, done)
}

export interface SinkFrame {
  readonly bytes: Uint8Array
  /** Words of its vnet_hdr: flags | type << 8 | hdr_len << 16, gso_size | csum_start << 16, ... */
  readonly gso: number
  readonly gsoSize: number
  readonly csumOffset: number
  readonly tunnel: number
}

export interface SinkOptions {
  readonly headerLength: number
  readonly isMergeable: boolean
  readonly hasOffloads: boolean
}

export interface SinkResult {
  frames: number
  bytes: number
  tooLong: number
  /** Where something was written. */
  readonly written: Part[]
}

/** Frames into a receiveq, in their order; what finds no place is left out. */
export function deliverFrames(
  ring: RingModel,
  frames: readonly SinkFrame[],
  options: SinkOptions,
): SinkResult {
  const result: SinkResult = { frames: 0, bytes: 0, tooLong: 0, written: [] }
  for (const frame of frames) {
    const chains = chainsFor(ring, options.headerLength + frame.bytes.length, options.isMergeable)
    if (chains === 'none') {
      if (!ring.hasChain()) break
    } else if (chains === 'long') result.tooLong++
    else {
      write(ring, chains, headerOf(frame, chains.length, options), frame.bytes, result.written)
      result.frames++
      result.bytes += frame.bytes.length
    }
  }
  return result
}

function chainsFor(
  ring: RingModel,
  total: number,
  isMergeable: boolean,
): ModelChain[] | 'none' | 'long' {
  const chains: ModelChain[] = []
  let capacity = 0
  let segments = 0
  for (;;) {
    const chain = ring.take()
    if (chain === null) {
      ring.untake(chains.length)
      return 'none'
    }
    chains.push(chain)
    if (chain.writableLength === 0) {
      ring.broken = EMPTY
      ring.untake(chains.length)
      return 'none'
    }
    capacity += chain.writableLength
    segments += chain.writable.length
    if (segments <= SEGMENTS_MAX && capacity >= total) return chains
    if (segments > SEGMENTS_MAX || !isMergeable || chains.length === SEGMENTS_MAX) {
      ring.untake(chains.length)
      return 'long'
    }
  }
}

function headerOf(frame: SinkFrame, buffers: number, options: SinkOptions): Uint8Array {
  const bytes = new Uint8Array(24)
  const view = new DataView(bytes.buffer)
  if (options.hasOffloads) {
    view.setUint32(0, frame.gso, true)
    view.setUint32(4, frame.gsoSize, true)
    view.setUint16(8, frame.csumOffset, true)
    // gso_type: UDP_TUNNEL_IPV4 or _IPV6.
    if ((frame.gso & 0x6000) !== 0) view.setUint32(20, frame.tunnel, true)
  }
  view.setUint16(10, buffers, true)
  return bytes.subarray(0, options.headerLength)
}

/** Header and frame one behind the other, through the buffers; used lengths say how far. */
function write(
  ring: RingModel,
  chains: readonly ModelChain[],
  header: Uint8Array,
  frame: Uint8Array,
  written: Part[],
): void {
  const bytes = new Uint8Array(header.length + frame.length)
  bytes.set(header)
  bytes.set(frame, header.length)
  let done = 0
  for (const chain of chains) {
    const before = done
    for (const part of chain.writable) {
      const length = Math.min(part.length, bytes.length - done)
      if (length === 0) break
      ring.memory.regions[part.region].bytes.set(bytes.subarray(done, done + length), part.offset)
      written.push({ ...part, length })
      done += length
    }
    ring.put(chain.id, chain.entries, done - before)
  }
}
