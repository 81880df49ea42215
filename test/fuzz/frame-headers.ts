/**
 * Byte strings as frames of a driver with offloads, each behind its vnet_hdr and cut anywhere: a frame
 * whose header lies leaves the burst and is counted; of the others the burst says what the frame is,
 * whatever the driver said of its headers' lengths.
 */
import { Burst } from '../../src/mem/burst.ts'
import { Window } from '../../src/mem/window.ts'
import type { Chain } from '../../src/virtio/ring/chain.ts'
import type { DeviceQueue } from '../../src/virtio/ring/device-queue.ts'
import { FrameSource } from '../../src/virtio/net/frame-source.ts'
import type { Features } from './features.ts'
import { checkEqual, Operands } from './features.ts'
import type { ModelVnetHeader } from './models/offload-model.ts'
import { MALFORMED, modelDescribed, modelNeeds, UNKNOWN_TYPE } from './models/offload-model.ts'
import { makeFrame } from './offloads.ts'

const FRAMES_MAX = 6
const LENGTH = 65536
const OFFLOADS = [0x1ef, 0x1ef, 0x6f, 1, 7]
const memory = Window.map(LENGTH)
const bytes = new Uint8Array(memory.buffer)
const source = new FrameSource()
const burst = new Burst()

interface Segment {
  readonly offset: number
  readonly length: number
}

/** A transmitq that has these chains. */
class Chains implements DeviceQueue {
  readonly size = 16
  broken = 0
  readonly #chains: (readonly Segment[])[]

  constructor(chains: (readonly Segment[])[]) {
    this.#chains = chains
  }

  hasChain(): boolean {
    return this.#chains.length > 0
  }

  take(chain: Chain): boolean {
    const segments = this.#chains.shift()
    if (segments === undefined) return false
    chain.clear()
    for (const { offset, length } of segments) {
      const at = chain.count++
      chain.window[at] = memory.id
      chain.offset[at] = offset
      chain.length[at] = length
      chain.readableLength += length
    }
    chain.readable = chain.count
    return true
  }

  takePlain(): number {
    return 0
  }
  untake(): void {}
  put(): void {}
  publish(): boolean {
    return false
  }
  enableKick(): boolean {
    return false
  }
  disableKick(): void {}
  logWritten(): void {}
  base(): number {
    return 0
  }

  close(): void {
    // It has no views.
  }
}

interface Sent {
  readonly frame: Uint8Array
  readonly header: ModelVnetHeader
  readonly hdrLength: number
}

export function fuzzFrameHeaders(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const kind = operands.byte()
  const offloads = OFFLOADS[kind % OFFLOADS.length]
  source.headerLength = (kind & 1) === 0 ? 24 : 12
  source.offloads = offloads
  const sents: Sent[] = []
  const chains: Segment[][] = []
  let at = 64
  while (sents.length < FRAMES_MAX && !operands.isAtEnd) {
    const { bytes: frame, header, cuts } = makeFrame(operands)
    const sent = { frame, header, hdrLength: operands.byte() }
    const whole = new Uint8Array(source.headerLength + frame.length)
    whole.set(headerBytes(sent).subarray(0, source.headerLength))
    whole.set(frame, source.headerLength)
    const segments: Segment[] = []
    let done = 0
    for (const cut of [...cuts, whole.length]) {
      const length = Math.min(cut, whole.length - done)
      if (length === 0) continue
      bytes.set(whole.subarray(done, done + length), at)
      segments.push({ offset: at, length })
      done += length
      at += length + 5
    }
    sents.push(sent)
    chains.push(segments)
  }
  const taken = fill(new Chains(chains))
  checkEqual(taken, sents.length, 'chains taken')
  checkBurst(sents, offloads, seen)
}

const fill = (queue: DeviceQueue): number => source.fill(queue, burst)

function headerBytes({ header, hdrLength }: Sent): Uint8Array {
  const header24 = new Uint8Array(24)
  const view = new DataView(header24.buffer)
  header24[0] = header.flags
  header24[1] = header.type
  view.setUint16(2, hdrLength, true)
  view.setUint16(4, header.gsoSize, true)
  view.setUint16(6, header.csumStart, true)
  view.setUint16(8, header.csumOffset, true)
  view.setUint16(10, 0xfafa, true)
  view.setUint16(20, header.outerTh, true)
  view.setUint16(22, header.innerNh, true)
  return header24
}

function checkBurst(sents: readonly Sent[], offloads: number, seen: Features): void {
  let [k, malformed, unknown] = [0, 0, 0]
  for (const { frame, header, hdrLength } of sents) {
    const isTunnel = (header.type & 0x60) !== 0
    // Bits that say nothing here are not passed on; without its words there is no tunnel.
    const known = {
      ...header,
      flags: header.flags & (isTunnel ? 9 : 1),
      ...(source.headerLength === 24 ? {} : { outerTh: 0, innerNh: 0 }),
    }
    const isSilent = (header.flags | header.type) === 0
    const needs = isSilent ? 0 : modelNeeds(known, frame.length)
    seen.add(needs, header.type, offloads, k)
    if (needs === UNKNOWN_TYPE) unknown++
    else if (needs === MALFORMED || (needs & ~offloads) !== 0) malformed++
    else {
      const should =
        known.type === 0
          ? {
              gso: known.flags | (hdrLength << 16),
              gsoSize: isSilent ? 0 : known.gsoSize | (known.csumStart << 16),
              csumOffset: isSilent ? 0 : known.csumOffset,
              needs,
            }
          : modelDescribed(frame, known, needs)
      if (should === null) {
        malformed++
        continue
      }
      checkEqual(burst.length[k], frame.length, `length of frame ${k}`)
      checkEqual(burst.gso[k], should.gso, `flags, type and hdr_len of frame ${k}`)
      checkEqual(burst.gsoSize[k], should.gsoSize, `gso_size and csum_start of frame ${k}`)
      checkEqual(burst.csumOffset[k], should.csumOffset, `csum_offset of frame ${k}`)
      checkEqual(burst.needs[k], should.needs, `needs of frame ${k}`)
      const head = new Uint8Array(burst.heads.buffer, 16 * k, 14)
      checkEqual(Buffer.compare(head, frame.subarray(0, 14)), 0, `head of frame ${k}`)
      k++
    }
  }
  checkEqual(burst.count, k, 'frames of the burst')
  checkEqual(source.malformed, malformed, 'malformed frames')
  checkEqual(source.unknownType, unknown, 'frames of an unknown type')
}
