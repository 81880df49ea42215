/** Captures: what is emitted is read back, and a damaged file never does harm. */
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { Recorder } from '../../src/capture/recorder.ts'
import { COUNT_DROPPED, COUNT_FRAMES, RING_HEAD, RING_TAIL } from '../../src/capture/ring.ts'
import { Burst } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { Window } from '../../src/mem/window.ts'
import { shim } from '../../src/native/shim.ts'
import { CaptureFormatError } from '../../src/wire/capture-visitor.ts'
import { pcapHeader, readPcap } from '../../src/wire/pcap.ts'
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  readPcapng,
  sectionHeader,
} from '../../src/wire/pcapng.ts'

interface Seen {
  readonly frame: Uint8Array
  readonly originalLength: number
  readonly timestampNs: bigint | null
  readonly interfaceId: number
}

/** One that is written: it has a time. */
type Given = Seen & { readonly timestampNs: bigint; readonly flags: number }

type Reader = typeof readPcap

/** Frames of a file, as copies; every offset is checked against the file. */
function read(bytes: Uint8Array, reader: Reader): { frames: Seen[]; isTruncated: boolean } {
  const frames: Seen[] = []
  let isTruncated = false
  reader(bytes, {
    frame(offset, length, originalLength, timestampNs, interfaceId) {
      if (offset < 0 || length < 0 || offset + length > bytes.length) {
        throw new RangeError(`frame of ${length} at ${offset}`)
      }
      const frame = bytes.slice(offset, offset + length)
      frames.push({ frame, originalLength, timestampNs, interfaceId })
    },
    truncated() {
      isTruncated = true
    },
  })
  return { frames, isTruncated }
}

const u32 = fc.nat(0xffff_ffff)
const bytesUpTo = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength })

/** Frames without an FCS (bits 5 to 8 of their flags), at most as long as they were. */
const captured = fc
  .record({
    interfaceId: fc.nat(3),
    timestampNs: fc.bigInt(0n, 2n ** 64n - 1n),
    frame: bytesUpTo(300),
    cut: fc.oneof(fc.constant(0), fc.nat(0xffff_0000)),
    flags: u32,
  })
  .map(({ cut, flags, ...one }) => ({
    ...one,
    originalLength: one.frame.length + cut,
    flags: (flags & ~0x1e0) >>> 0,
  }))
const names = fc.tuple(
  ...Array.from({ length: 4 }, () => fc.tuple(fc.string(), fc.string({ unit: 'grapheme' }))),
)

/** Where each block starts, and the end. */
function boundaries(blocks: readonly Uint8Array[]): number[] {
  const starts = [0]
  for (const block of blocks) starts.push(starts.at(-1)! + block.length)
  return starts
}

function pcapngBlocks(
  interfaces: readonly (readonly [string, string])[],
  frames: readonly Given[],
): Uint8Array[] {
  return [
    sectionHeader('property'),
    ...interfaces.map(([name, description]) => interfaceDescription(name, description, 262144)),
    ...frames.map((one) =>
      enhancedPacket(one.interfaceId, one.timestampNs, one.frame, one.originalLength, one.flags),
    ),
    ...interfaces.map((_, id) => interfaceStatistics(id, 1n, 2n, frames.length, 0)),
  ]
}

const concat = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))

const withoutFlags = ({ frame, originalLength, timestampNs, interfaceId }: Seen): Seen => ({
  frame,
  originalLength,
  timestampNs,
  interfaceId,
})

/** Options of an emitted block, by code. */
function options(block: Uint8Array, start: number): Map<number, Uint8Array> {
  const view = new DataView(block.buffer)
  const found = new Map<number, Uint8Array>()
  for (let at = start; view.getUint16(at, true) !== 0;) {
    const length = view.getUint16(at + 2, true)
    found.set(view.getUint16(at, true), block.slice(at + 4, at + 4 + length))
    at += 4 + ((length + 3) & ~3)
  }
  return found
}

test('pcapng: every frame that was emitted is read back', () => {
  fc.assert(
    fc.property(names, fc.array(captured, { maxLength: 12 }), (interfaces, frames) => {
      const file = concat(pcapngBlocks(interfaces, frames))
      expect(file.length % 4).toBe(0)
      expect(read(file, readPcapng)).toEqual({
        frames: frames.map(withoutFlags),
        isTruncated: false,
      })
    }),
  )
})

test('pcapng: names and descriptions are in the interface description as they were given', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: 'grapheme' }),
      u32,
      (name, description, snapLength) => {
        const block = interfaceDescription(name, description, snapLength)
        const found = options(block, 16)
        expect(new DataView(block.buffer).getUint32(12, true)).toBe(snapLength)
        expect(Buffer.from(found.get(2)!).toString()).toBe(name)
        expect(Buffer.from(found.get(3)!).toString()).toBe(description)
        expect([...found.get(9)!]).toEqual([9])
      },
    ),
  )
})

test('pcapng: a file that is cut anywhere gives the frames that are whole', () => {
  fc.assert(
    fc.property(
      names,
      fc.array(captured, { maxLength: 5 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (interfaces, frames, part) => {
        const blocks = pcapngBlocks(interfaces, frames)
        const file = concat(blocks)
        // Less than the first block's head is not known to be pcapng.
        const length = 12 + Math.floor((file.length - 12) * part)
        const starts = boundaries(blocks)
        const whole = starts.filter((start) => start > 0 && start <= length).length
        const { frames: seen, isTruncated } = read(file.subarray(0, length), readPcapng)
        expect(seen).toHaveLength(Math.min(frames.length, Math.max(0, whole - 5)))
        expect(isTruncated).toBe(!starts.includes(length))
      },
    ),
  )
})

test('a damaged file is an error with a place in it, or frames within it', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 })
  fc.assert(
    fc.property(names, fc.array(captured, { maxLength: 4 }), damage, (interfaces, frames, hits) => {
      const pcapng = concat(pcapngBlocks(interfaces, frames))
      const pcap = concat([pcapHeader(65535), ...frames.map((one) => pcapRecord(one))])
      for (const [file, reader] of [
        [pcapng, readPcapng],
        [pcap, readPcap],
      ] as const) {
        for (const [at, value] of hits) file[at % file.length] = value
        try {
          read(file, reader)
        } catch (error) {
          if (!(error instanceof CaptureFormatError)) throw error
          expect(error.offset).toBeLessThan(file.length)
        }
      }
    }),
    { numRuns: 1000 },
  )
})

/** A record as the recorder writes it; seconds beyond 32 bits do not exist in pcap. */
function pcapRecord({ frame, originalLength, timestampNs }: Given): Uint8Array {
  const record = Buffer.alloc(16 + frame.length)
  record.writeUInt32LE(Number((timestampNs / 1_000_000_000n) & 0xffff_ffffn), 0)
  record.writeUInt32LE(Number(timestampNs % 1_000_000_000n), 4)
  record.writeUInt32LE(frame.length, 8)
  record.writeUInt32LE(originalLength, 12)
  record.set(frame, 16)
  return record
}

test('pcap: every record is read back', () => {
  fc.assert(
    fc.property(fc.array(captured, { maxLength: 12 }), (frames) => {
      const file = concat([pcapHeader(65535), ...frames.map((one) => pcapRecord(one))])
      const expected = frames.map((one) => ({
        ...withoutFlags(one),
        // Until 2106.
        timestampNs: one.timestampNs % (2n ** 32n * 1_000_000_000n),
        interfaceId: 0,
      }))
      expect(read(file, readPcap)).toEqual({ frames: expected, isTruncated: false })
    }),
  )
})

// --- the recorder against a model of its ring ------------------------------------------------

const RING = 4096
const SNAP = 200

const ringFd = shim.memfdCreate('framepump-property', 1)
shim.ftruncate(ringFd, RING)
const ring = Window.map(RING, { fd: ringFd, mirrored: true })
shim.close(ringFd)
const source = Window.map(1 << 20)
const copies = new CopyProgram()

afterAll(() => {
  copies.close()
  source.unmap()
  ring.unmap()
})

/** A burst at a port, or the writer taking part of what the ring holds. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('burst' as const),
    port: fc.nat(2),
    isOutbound: fc.boolean(),
    low: u32,
    high: u32,
    lengths: fc.array(fc.integer({ min: 14, max: 400 }), { minLength: 1, maxLength: 20 }),
  }),
  fc.record({
    kind: fc.constant('drain' as const),
    part: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
)

test('recorder: the ring is never overrun, and what is in it is what had room', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
      fc.integer({ min: 0, max: 60 }),
      fc.array(step, { maxLength: 40 }),
      (startAt, countLimit, steps) => {
        const control = new Int32Array(new SharedArrayBuffer(64))
        const counts = new Float64Array(new SharedArrayBuffer(1024))
        control[RING_HEAD] = startAt
        control[RING_TAIL] = startAt
        const recorder = new Recorder(
          {
            window: ring.id,
            length: RING,
            control: control.buffer,
            counts: counts.buffer,
            format: 'pcapng',
            direction: 'both',
            snapLength: SNAP,
            countLimit,
          },
          3,
        )
        // Ports 0 and 1 are recorded, port 2 is not.
        const blocks = [0, 1].map((port) => interfaceDescription(`p${port}`, '', SNAP))
        blocks.forEach((block, port) => recorder.addInterface(port, port, block))

        const bytes = new Uint8Array(ring.buffer)
        const file: Uint8Array[] = [sectionHeader('property')]
        const drain = (length: number): void => {
          const at = control[RING_TAIL] & (RING - 1)
          file.push(bytes.slice(at, at + length))
          // Whatever is behind the tail is free: nobody may read it again.
          bytes.fill(0xee, at, at + length)
          control[RING_TAIL] = (control[RING_TAIL] + length) | 0
        }
        const burst = new Burst()
        const frames = new Uint8Array(source.buffer)
        const words = new Int32Array(8)
        const expected: Seen[] = []
        let room = RING - blocks[0].length - blocks[1].length
        let dropped = 0
        let serial = 0

        for (const one of steps) {
          if (one.kind === 'drain') {
            const length = Math.floor((RING - room) * one.part)
            drain(length)
            room += length
            continue
          }
          let offset = 1
          let lost = 0
          one.lengths.forEach((length, k) => {
            serial = (serial + 1) & 0xff
            frames.fill(serial, offset, offset + length)
            burst.window[k] = source.id
            burst.offset[k] = offset
            burst.length[k] = length
            offset += length + 3
            if (one.port === 2 || (countLimit > 0 && expected.length >= countLimit)) return
            const kept = Math.min(length, SNAP)
            const block = 44 + ((kept + 3) & ~3)
            if (block > room) {
              lost++
              return
            }
            room -= block
            expected.push({
              frame: new Uint8Array(kept).fill(serial),
              originalLength: length,
              timestampNs: (BigInt(one.high) << 32n) | BigInt(one.low),
              interfaceId: one.port,
            })
          })
          words.set([one.low, one.high], 2)
          const list = Int32Array.from(one.lengths.keys())
          const answer = recorder.record(
            burst,
            list,
            0,
            list.length,
            one.port,
            one.isOutbound,
            words,
            copies,
          )
          dropped += lost
          expect(answer).toBe(lost)
          expect((control[RING_HEAD] - control[RING_TAIL]) >>> 0).toBe(RING - room)
        }

        drain(RING - room)
        expect(read(concat(file), readPcapng)).toEqual({ frames: expected, isTruncated: false })
        expect(counts[COUNT_FRAMES]).toBe(expected.length)
        expect(counts[COUNT_DROPPED]).toBe(dropped)
      },
    ),
    { numRuns: 300 },
  )
})
