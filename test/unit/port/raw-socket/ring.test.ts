/** What stands in a receive ring becomes frames of a burst, or is left out and counted. */
import { afterEach, describe, expect, test } from 'vitest'
import { Burst } from '../../../../src/mem/burst.ts'
import { FRAME_LENGTH_MAX } from '../../../../src/port/raw-socket/geometry.ts'
import { ipFrame, payloadOf } from '../../../support/ip-frames.ts'
import type { SlotOptions } from '../../../support/packet-ring.ts'
import { KernelRing, STATUS } from '../../../support/packet-ring.ts'

const TAGGED = STATUS.vlan | STATUS.vlanTpid
const burst = new Burst()
let kernel: KernelRing

afterEach(() => {
  kernel.close()
  burst.framesMax = 256
  burst.bytesMax = 0x7fff_ffff
})

function plain(number: number, length = 60): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, k) => k & 0xff)
  frame.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 9, 0x88, 0xb5, number >> 8, number])
  return frame
}

/** Frame k of the burst as it lies in its window. */
function frameOf(k: number): Uint8Array {
  expect(burst.window[k]).toBe(kernel.window.id)
  return kernel.bytes.slice(burst.offset[k], burst.offset[k] + burst.length[k])
}

const frames = (): Uint8Array[] => Array.from({ length: burst.count }, (_, k) => frameOf(k))

function withTag(frame: Uint8Array, ...tag: number[]): Uint8Array {
  return Uint8Array.from([...frame.subarray(0, 12), ...tag, ...frame.subarray(12)])
}

describe.each([0, 10])('with a vnet_hdr of %i bytes', (length) => {
  test('frames pass in their order, also over the end of the ring', () => {
    kernel = new KernelRing(256, length)
    expect(kernel.slots).toBe(3)
    let sent = 0
    let received = 0
    for (let round = 0; round < 5; round++) {
      expect(kernel.ring.hasFrame()).toBe(false)
      for (let k = 0; k < 2; k++) expect(kernel.deliver(plain(sent++, 60 + sent))).toBe(true)
      expect(kernel.ring.hasFrame()).toBe(true)
      expect(kernel.read(burst)).toBe(2)
      expect(frames()).toEqual([plain(received++, 60 + received), plain(received++, 60 + received)])
      expect([...burst.headLength.subarray(0, 2)]).toEqual([length, length])
      kernel.ring.release()
    }
    expect(kernel.drops).toEqual([])
  })

  test('slots are given back after they were forwarded, and not before', () => {
    kernel = new KernelRing(256, length)
    for (let k = 0; k < 3; k++) kernel.deliver(plain(k))
    expect(kernel.deliver(plain(9))).toBe(false)
    expect(kernel.read(burst)).toBe(3)
    expect(burst.descriptors).toBe(3)
    expect(kernel.deliver(plain(9))).toBe(false)
    kernel.ring.release()
    expect([0, 1, 2].map((slot) => kernel.status(slot))).toEqual([0, 0, 0])
    expect(kernel.deliver(plain(9))).toBe(true)
    // A second time it gives nothing back that is the kernel's, or filled anew.
    kernel.ring.release()
    expect(kernel.status(0)).toBe(STATUS.user)
  })

  test('a burst ends at its limits, and goes on there', () => {
    kernel = new KernelRing(1024, length)
    for (let k = 0; k < 10; k++) kernel.deliver(plain(k, 1000))
    burst.framesMax = 4
    expect(kernel.read(burst)).toBe(4)
    kernel.ring.release()
    burst.framesMax = 256
    burst.bytesMax = 1500
    // The frame that exceeds it is the last.
    expect(kernel.read(burst)).toBe(2)
    expect(frameOf(0)).toEqual(plain(4, 1000))
    kernel.ring.release()
    burst.bytesMax = 0x7fff_ffff
    expect(kernel.read(burst)).toBe(4)
    expect(frameOf(3)).toEqual(plain(9, 1000))
  })

  test.each([
    ['802.1Q', { tpid: 0x8100, tci: 0xa064 }, [0x81, 0, 0xa0, 0x64]],
    ['802.1ad', { tpid: 0x88a8, tci: 100 }, [0x88, 0xa8, 0, 100]],
    ['a priority tag', { tpid: 0x8100, tci: 0xe000 }, [0x81, 0, 0xe0, 0]],
    ['VLAN 0, priority 0', { tpid: 0x8100, tci: 0 }, [0x81, 0, 0, 0]],
    [
      'one whose type the kernel does not tell',
      { tpid: 0, tci: 5, status: STATUS.vlan },
      [0x81, 0, 0, 5],
    ],
  ] as [string, SlotOptions, number[]][])('the tag is put back: %s', (_, options, tag) => {
    kernel = new KernelRing(512, length)
    const inner = withTag(plain(2), 0x81, 0, 0, 7)
    kernel.deliver(plain(1), { status: TAGGED, ...options })
    kernel.deliver(inner, { status: TAGGED, ...options })
    kernel.deliver(plain(3), { tci: 99, tpid: 0x8100 })
    expect(kernel.read(burst)).toBe(3)
    expect(frames()).toEqual([withTag(plain(1), ...tag), withTag(inner, ...tag), plain(3)])
    expect([...burst.heads.subarray(0, 4)]).toEqual([
      ...new Int32Array(withTag(plain(1), ...tag).slice(0, 16).buffer),
    ])
    expect(burst.headLength[0]).toBe(length)
    if (length > 0) {
      const header = kernel.bytes.slice(burst.offset[0] - length, burst.offset[0])
      expect(header).toEqual(new Uint8Array(length))
    }
  })

  test('what is no whole frame is counted, and its slot given back', () => {
    kernel = new KernelRing(1024, length)
    kernel.deliver(plain(1, 100), { length: 2000, snapLength: 100 })
    kernel.deliver(plain(2), { length: FRAME_LENGTH_MAX + 1 })
    kernel.deliver(plain(3, 20), { length: 13 })
    kernel.deliver(plain(4), { length: -1 })
    kernel.deliver(plain(5))
    expect(kernel.read(burst)).toBe(5)
    expect(frames()).toEqual([plain(5)])
    expect(kernel.drops).toEqual([[2, 0, 2]])
    kernel.ring.release()
    expect([0, 1, 2, 3, 4].map((slot) => kernel.status(slot))).toEqual([0, 0, 0, 0, 0])
  })

  test('what this machine has sent is left out silently', () => {
    kernel = new KernelRing(512, length)
    kernel.deliver(plain(1), { packetType: 4 })
    kernel.deliver(plain(2), { packetType: 3 })
    expect(kernel.read(burst)).toBe(2)
    expect(frames()).toEqual([plain(2)])
    expect(kernel.drops).toEqual([])
  })

  test('a frame says that others were lost before it', () => {
    kernel = new KernelRing(512, length)
    kernel.deliver(plain(1))
    kernel.read(burst)
    expect(kernel.ring.isLosing).toBe(false)
    kernel.deliver(plain(2), { status: STATUS.losing })
    kernel.read(burst)
    expect(kernel.ring.isLosing).toBe(true)
  })

  test('the longest frame passes, with its tag', () => {
    kernel = new KernelRing(512, length)
    const frame = plain(1, FRAME_LENGTH_MAX - 4)
    kernel.deliver(frame, { status: TAGGED, tpid: 0x8100, tci: 5 })
    expect(kernel.read(burst)).toBe(1)
    expect(frameOf(0)).toEqual(withTag(frame, 0x81, 0, 0, 5))
  })

  test('a network header at an odd place does not disturb', () => {
    kernel = new KernelRing(1024, length)
    for (const shift of [0, 1, 2, 3]) {
      kernel.deliver(plain(shift), { mac: kernel.frameAt + shift })
    }
    expect(kernel.read(burst)).toBe(4)
    expect(frames()).toEqual([0, 1, 2, 3].map((number) => plain(number)))
  })

  test('reading begins at the slot that the kernel fills next', () => {
    kernel = new KernelRing(512, length, 1500, 4)
    kernel.deliver(plain(7))
    expect(kernel.read(burst)).toBe(1)
    expect(frameOf(0)).toEqual(plain(7))
    kernel.ring.release()
    expect(kernel.status(4)).toBe(0)
  })
})

/** struct virtio_net_hdr of 10 bytes. */
function header(
  type: number,
  hdrLen: number,
  gsoSize: number,
  start: number,
  offset: number,
): Uint8Array {
  const view = new DataView(new ArrayBuffer(10))
  view.setUint8(0, 1)
  view.setUint8(1, type)
  for (const [at, value] of [hdrLen, gsoSize, start, offset].entries()) {
    view.setUint16(2 + 2 * at, value, true)
  }
  return new Uint8Array(view.buffer)
}

test('the offsets of a vnet_hdr count the tag that is put back', () => {
  kernel = new KernelRing(512, 10)
  const payload = payloadOf(4000)
  const untagged = ipFrame({ payload, checksum: 'partial' })
  const tagged = ipFrame({ payload, vlans: [5], checksum: 'partial' })
  const { end, l4 } = untagged
  const status = TAGGED | STATUS.csumNotReady
  kernel.deliver(untagged.bytes, {
    status,
    tpid: 0x8100,
    tci: 5,
    header: header(1, end, 1400, l4, 16),
  })
  kernel.deliver(untagged.bytes, { status, tpid: 0x8100, tci: 5, header: header(0, 0, 0, l4, 16) })
  expect(kernel.read(burst)).toBe(2)
  expect(frames()).toEqual([tagged.bytes, tagged.bytes])
  expect([...burst.gso.subarray(0, 2)]).toEqual([1 | (1 << 8) | (tagged.end << 16), 1])
  expect([...burst.gsoSize.subarray(0, 2)]).toEqual([1400 | (tagged.l4 << 16), tagged.l4 << 16])
  // So does the header before the frame, which may be passed on as it is.
  const before = (k: number): Uint8Array =>
    kernel.bytes.slice(burst.offset[k] - 10, burst.offset[k])
  expect(before(0)).toEqual(header(1, tagged.end, 1400, tagged.l4, 16))
  expect(before(1)).toEqual(header(0, 0, 0, tagged.l4, 16))
})

test('without a vnet_hdr a frame without its checksum needs one, and a long one segments', () => {
  kernel = new KernelRing(512, 0)
  const short = ipFrame({ payload: payloadOf(100), checksum: 'partial' })
  const long = ipFrame({ payload: payloadOf(4000), checksum: 'partial' })
  const datagram = ipFrame({ payload: payloadOf(4000), protocol: 'udp', checksum: 'partial' })
  kernel.deliver(short.bytes, { status: STATUS.csumNotReady })
  kernel.deliver(datagram.bytes, { status: STATUS.csumNotReady })
  kernel.deliver(long.bytes, { status: STATUS.csumNotReady })
  kernel.deliver(short.bytes)
  expect(kernel.read(burst)).toBe(4)
  expect(frames()).toEqual([short.bytes, long.bytes, short.bytes])
  expect([...burst.gso.subarray(0, 3)]).toEqual([1, 1 | (1 << 8) | (long.end << 16), 0])
  expect([...burst.gsoSize.subarray(0, 3)]).toEqual([short.l4 << 16, 1460 | (long.l4 << 16), 0])
  expect([...burst.csumOffset.subarray(0, 3)]).toEqual([16, 16, 0])
  expect(kernel.drops).toEqual([[0, 0, 1]])
})
