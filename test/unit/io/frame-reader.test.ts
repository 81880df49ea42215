/** What a TAP read delivered becomes a frame of a burst, or is left out with a reason. */
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { FrameReader } from '../../../src/io/frame-reader.ts'
import type { TierEvents } from '../../../src/io/tier.ts'
import { Burst, HEAD_WORDS, ZEROS_BEFORE } from '../../../src/mem/burst.ts'
import {
  FramePool,
  SLOT_CAPACITY,
  SLOT_HEADROOM,
  SLOT_STRIDE,
} from '../../../src/mem/frame-pool.ts'

const PORT = 7
const SLOTS = 4
const VNET_HDR_LENGTHS = [0, 10, 12, 14, 16, 20, 24]

const pool = new FramePool(SLOTS)
const bytes = new Uint8Array(pool.window.buffer)
const reader = new FrameReader(pool)
const burst = new Burst()

afterAll(() => pool.close())

let dropped: number[][]
/** Where a frame says that its TCP header is of 5 words; 0: nowhere. */
let doffAt = 0
const events: TierEvents = {
  writeFailed: () => undefined,
  queueFailed: () => undefined,
  dropped: (...counts) => void dropped.push(counts),
}

beforeEach(() => {
  dropped = []
  doffAt = 0
  bytes.fill(0)
})

interface Header {
  readonly flags?: number
  readonly gsoType?: number
  readonly hdrLen?: number
  readonly gsoSize?: number
  readonly csumStart?: number
  readonly csumOffset?: number
  readonly outerTh?: number
  readonly innerNh?: number
}

/** struct virtio_net_hdr: u8 flags, u8 gso_type, then u16 in little-endian order. */
function headerBytes(header: Header, length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(length))
  view.setUint8(0, header.flags ?? 0)
  view.setUint8(1, header.gsoType ?? 0)
  view.setUint16(2, header.hdrLen ?? 0, true)
  view.setUint16(4, header.gsoSize ?? 0, true)
  view.setUint16(6, header.csumStart ?? 0, true)
  view.setUint16(8, header.csumOffset ?? 0, true)
  if (length < 24) return new Uint8Array(view.buffer)
  view.setUint16(20, header.outerTh ?? 0, true)
  view.setUint16(22, header.innerNh ?? 0, true)
  return new Uint8Array(view.buffer)
}

/** 52:54:00:12:34:56 <- 02:00:00:00:00:09, type 0x88b5, then 1, 2, 3 ... */
function frameBytes(length: number): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, k) => (k - 13) & 0xff)
  frame.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 9, 0x88, 0xb5].slice(0, length))
  return frame
}

/** Puts reads into slots 0, 1 ... and reads them as one burst. */
function read(vnetHdrLength: number, reads: readonly { header?: Header; length: number }[]): void {
  reader.begin(burst, vnetHdrLength)
  reads.forEach(({ header = {}, length }, slot) => {
    const offset = slot * SLOT_STRIDE + SLOT_HEADROOM
    if (vnetHdrLength > 0) bytes.set(headerBytes(header, vnetHdrLength), offset)
    bytes.set(frameBytes(Math.max(0, length)), offset + vnetHdrLength)
    if (doffAt > 0) bytes[offset + vnetHdrLength + doffAt] = 0x5f
    reader.add(offset, vnetHdrLength + length)
  })
  reader.end(events, PORT)
}

describe.each(VNET_HDR_LENGTHS)('with %i bytes of vnet_hdr', (vnetHdrLength) => {
  test('a frame is where the read put it, behind the header, with its first 16 bytes gathered', () => {
    read(vnetHdrLength, [{ length: 60 }, { length: 1514 }])
    expect(burst.count).toBe(2)
    expect(dropped).toEqual([])
    for (const [k, length] of [60, 1514].entries()) {
      expect(burst.window[k]).toBe(pool.window.id)
      expect(burst.offset[k]).toBe(k * SLOT_STRIDE + SLOT_HEADROOM + vnetHdrLength)
      expect(burst.length[k]).toBe(length)
      expect(burst.needs[k]).toBe(0)
      const heads = new Uint8Array(burst.heads.buffer, k * HEAD_WORDS * 4, 16)
      expect(heads.slice()).toEqual(frameBytes(16))
    }
  })

  test('the bytes before the frame are a vnet_hdr that says what the burst says', () => {
    read(vnetHdrLength, [{ length: 60 }])
    const before = burst.headLength[0]
    expect(before).toBe(vnetHdrLength === 0 ? ZEROS_BEFORE : vnetHdrLength)
    const least = Math.min(before, 24)
    const header = bytes.slice(burst.offset[0] - least, burst.offset[0])
    expect(header.every((byte) => byte === 0)).toBe(true)
    expect([burst.gso[0], burst.gsoSize[0], burst.csumOffset[0]]).toEqual([0, 0, 0])
  })

  test('less than an Ethernet header is no frame; an Ethernet header alone is one', () => {
    // Of the vnet_hdr alone too, and of less than it.
    for (const length of [13, 1, 0, -1]) {
      if (vnetHdrLength + length < 0) continue
      dropped = []
      read(vnetHdrLength, [{ length }])
      expect(burst.count).toBe(0)
      expect(dropped).toEqual([[PORT, 1, 0, 0]])
    }
    dropped = []
    read(vnetHdrLength, [{ length: 14 }])
    expect(burst.count).toBe(1)
    expect(burst.length[0]).toBe(14)
    expect(dropped).toEqual([])
  })

  test('a read that filled its slot was cut off; one byte less was not', () => {
    read(vnetHdrLength, [{ length: SLOT_CAPACITY - vnetHdrLength }])
    expect(burst.count).toBe(0)
    expect(dropped).toEqual([[PORT, 0, 0, 1]])
    dropped = []
    read(vnetHdrLength, [{ length: SLOT_CAPACITY - vnetHdrLength - 1 }])
    expect(burst.count).toBe(1)
    expect(dropped).toEqual([])
  })
})

describe('a vnet_hdr', () => {
  const TCP = {
    flags: 1,
    gsoType: 1,
    hdrLen: 66,
    gsoSize: 1448,
    csumStart: 34,
    csumOffset: 16,
  }

  test('with demands travels in the words of the burst', () => {
    read(12, [{ header: TCP, length: 9000 }])
    expect(burst.gso[0] & 0xffff).toBe(0x0101)
    expect(burst.gsoSize[0]).toBe(1448 | (34 << 16))
    expect(burst.csumOffset[0]).toBe(16)
    expect(burst.needs[0]).toBe(0x03)
  })

  test.each([
    ['TCP', TCP, 34 + 20],
    ['UDP', { ...TCP, gsoType: 5, csumOffset: 6 }, 34 + 8],
    ['TCP at an odd place', { ...TCP, csumStart: 35 }, 35 + 20],
  ] as const)('of %s is not believed in its hdr_len', (_, header, expected) => {
    // doff of five words, at the place where each of them looks.
    const isTcp = header.gsoType === 1
    if (isTcp) doffAt = header.csumStart + 12
    for (const hdrLen of [0, 66, 0xffff]) {
      read(12, [{ header: { ...header, hdrLen }, length: 9000 }])
      expect(burst.gso[0] >>> 16).toBe(expected)
    }
  })

  test('of 24 bytes tells of a tunnel, a shorter one cannot', () => {
    const header = { ...TCP, gsoType: 0x21, csumStart: 84, outerTh: 34, innerNh: 64 }
    read(24, [{ header, length: 9000 }])
    expect(burst.tunnel[0]).toBe(34 | (64 << 16))
    expect(burst.needs[0]).toBe(0x83)
    read(12, [{ header, length: 9000 }])
    expect(burst.count).toBe(0)
    expect(dropped).toEqual([[PORT, 1, 0, 0]])
  })

  /** Ethertype and IP header of the outer packet, from the first tag on. */
  const IPV4 = '080045'
  const IPV4_OPTIONS = '080046'
  const IPV6 = '86dd60'
  const [TAG, PROVIDER_TAG] = ['81000005', '88a80006']
  test.each([
    ['no tag', IPV4, 34, 34],
    ['a tag', TAG + IPV4, 34, 38],
    ['a tag, IPv4 options', TAG + IPV4_OPTIONS, 38, 42],
    ['a tag, IPv6', TAG + IPV6, 54, 58],
    ['two tags, of which the inner one was in the frame', PROVIDER_TAG + TAG + IPV4, 38, 42],
    ['a tag that a later kernel counts', TAG + IPV4, 38, 38],
    ['three tags, which nobody has', TAG + TAG + TAG + IPV4, 42, 42],
    ['offsets of something else', TAG + IPV4, 50, 50],
  ])('of a tunnel counts VLAN tags, which the kernel does not: %s', (_, type, told, expected) => {
    const innerNh = told + 30
    const csumStart = innerNh + 24
    const header = { ...TCP, gsoType: 0x21, csumStart, outerTh: told, innerNh }
    reader.begin(burst, 24)
    bytes.set(headerBytes(header, 24), SLOT_HEADROOM)
    bytes.set(frameBytes(9000), SLOT_HEADROOM + 24)
    bytes.set(Buffer.from(type, 'hex'), SLOT_HEADROOM + 24 + 12)
    reader.add(SLOT_HEADROOM, 24 + 9000)
    reader.end(events, PORT)
    expect(burst.tunnel[0] & 0xffff).toBe(expected)
    expect(burst.tunnel[0] >>> 16).toBe(innerNh + expected - told)
    // The header in front of the frame passes with it only if it is true.
    expect(burst.headLength[0]).toBe(expected === told ? 24 : 0)
  })

  test('of a plain frame is not believed: its other fields may hold anything', () => {
    const garbage = { hdrLen: 9, gsoSize: 0xffff, csumStart: 0xffff, csumOffset: 0xffff }
    read(12, [{ header: garbage, length: 60 }])
    expect(burst.count).toBe(1)
    expect([burst.gsoSize[0], burst.csumOffset[0], burst.needs[0]]).toEqual([0, 0, 0])
  })

  test('that contradicts the frame, or has a type of nobody, leaves the frame out', () => {
    read(12, [
      { header: { ...TCP, csumStart: 59 }, length: 60 },
      { header: TCP, length: 60 },
      { header: { ...TCP, gsoType: 2 }, length: 60 },
      { header: { ...TCP, gsoSize: 0 }, length: 60 },
    ])
    expect(burst.count).toBe(1)
    // The one that is left is the second, in place 0.
    expect(burst.offset[0]).toBe(SLOT_STRIDE + SLOT_HEADROOM + 12)
    expect(dropped).toEqual([[PORT, 2, 1, 0]])
  })
})

test('reasons are told once, with the burst that they came in', () => {
  read(12, [{ length: 5 }, { length: 60 }])
  read(12, [{ length: 60 }])
  expect(dropped).toEqual([[PORT, 1, 0, 0]])
  expect(burst.count).toBe(1)
})

test('a plain frame after one with demands has none of them', () => {
  const header = { flags: 1, gsoType: 1, gsoSize: 1000, csumStart: 34, csumOffset: 16 }
  read(12, [{ header, length: 2000 }])
  expect(burst.needs[0]).not.toBe(0)
  read(12, [{ length: 60 }])
  const { gso, gsoSize, csumOffset, needs } = burst
  expect([gso[0], gsoSize[0], csumOffset[0], needs[0]]).toEqual([0, 0, 0, 0])
})
