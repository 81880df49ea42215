/** Headers of a burst's frames: read once, wherever the frames lie, and looked through once. */
import fc from 'fast-check'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { Burst, BURST_SIZE_MAX } from '../../../src/mem/burst.ts'
import { CopyProgram } from '../../../src/mem/copy-program.ts'
import { FLOW_HEADERS_MAX } from '../../../src/mem/frame-headers.ts'
import { Window } from '../../../src/mem/window.ts'
import { flowHash } from '../../../src/wire/flow-hash.ts'
import { HEADERS_MAX } from '../../../src/wire/headers.ts'
import { ipFrame, payloadOf, tunnelFrame } from '../../support/ip-frames.ts'

const window = Window.map(1 << 16)
const memory = new Uint8Array(window.buffer)
const burst = new Burst()
const { headers } = burst

beforeEach(() => burst.clear())

afterAll(() => {
  burst.close()
  window.unmap()
})

/** Puts a frame into the burst, in pieces of these lengths and a last one. */
function add(bytes: Uint8Array, cuts: readonly number[] = []): number {
  const k = burst.count++
  let at = 64 + k * 4096
  let done = 0
  if (burst.furtherTotal === 0 && cuts.length > 0) burst.furtherCount.fill(0)
  burst.window[k] = window.id
  burst.offset[k] = at
  burst.length[k] = bytes.length
  burst.furtherFirst[k] = burst.furtherTotal
  for (const [piece, length] of [...cuts, bytes.length].entries()) {
    const part = bytes.subarray(done, done + length)
    memory.set(part, at)
    if (piece === 0) burst.firstLength[k] = part.length
    else {
      const further = burst.furtherTotal++
      burst.furtherWindow[further] = window.id
      burst.furtherOffset[further] = at
      burst.furtherLength[further] = part.length
    }
    done += part.length
    at += part.length + 3
  }
  burst.furtherCount[k] = burst.furtherTotal - burst.furtherFirst[k]
  burst.gso[k] = 0
  burst.tunnel[k] = 0
  return k
}

/** Frame k as who is given it has it, from wherever its pieces lie. */
function bytesOf(its: Burst, k: number): Uint8Array {
  const copies = new CopyProgram()
  copies.addFrame(its, k, window.id, 60_000, its.length[k])
  copies.run()
  copies.close()
  return memory.slice(60_000, 60_000 + its.length[k])
}

const read = (k: number, length: number = HEADERS_MAX): number[] => {
  headers.want(k, length)
  headers.read()
  return [...headers.bytes.subarray(headers.at(k), headers.at(k) + headers.available(k))]
}

const plain = payloadOf(600)

describe('bytes', () => {
  test('are as many as were asked for, and as there are', () => {
    const [long, short] = [add(plain), add(plain.subarray(0, 60))]
    expect(read(long, 40)).toEqual([...plain.subarray(0, 40)])
    expect(read(short)).toEqual([...plain.subarray(0, 60)])
    expect(read(long)).toEqual([...plain.subarray(0, HEADERS_MAX)])
  })

  test('are read once: what a sender writes afterwards is not seen, but of bytes that are new', () => {
    const k = add(plain)
    read(k, 100)
    memory.fill(0xee, burst.offset[k], burst.offset[k] + 600)
    expect(read(k, 60)).toEqual([...plain.subarray(0, 100)])
    expect(read(k, 120)).toEqual([...plain.subarray(0, 100), ...Array<number>(20).fill(0xee)])
  })

  test('of a frame in pieces are put together, in one go or in two', () => {
    for (const cuts of [[1], [14, 1, 1], [100, 40], [60, 60, 60], [255, 1], [3, 0, 200]]) {
      for (const part of [1, 14, 15, 16, 60, 99, 100, 101, 140, 180, 255]) {
        burst.clear()
        add(payloadOf(20, 1))
        const k = add(plain, cuts)
        read(k, part)
        expect(read(k), `${cuts.join()} after ${part}`).toEqual([...plain.subarray(0, HEADERS_MAX)])
        expect(read(0)).toEqual([...payloadOf(20, 1)])
      }
    }
  })

  test('are read anew for the next burst, also after so many that their number begins anew', () => {
    const bursts = 0x3fff_0000 / 8 + 10
    const one = payloadOf(60, 7)
    read(add(plain))
    for (let n = 0; n < bursts; n++) {
      headers.forget()
      // The number of a burst in which the frame was known comes again.
      if (n % (bursts >> 2) === 0 || n > bursts - 12) {
        burst.clear()
        const k = add(n % 2 === 0 ? one : plain)
        expect(read(k)).toEqual([...(n % 2 === 0 ? one : plain.subarray(0, HEADERS_MAX))])
      }
    }
  })
})

describe('what is known of a frame', () => {
  const tcp = ipFrame({ payload: payloadOf(1000), vlans: [5] })
  const udp = ipFrame({ payload: payloadOf(1000), protocol: 'udp', isIpv6: true })

  test('is where its headers are; it is looked for once', () => {
    const [a, b, c] = [add(tcp.bytes), add(udp.bytes), add(plain)]
    for (const k of [a, b, c]) read(k)
    expect([a, b, c].map((k) => headers.parse(k))).toEqual([true, true, false])
    const { l3, l4, end } = tcp
    expect(headers.of(a)).toMatchObject({ l3, l4, end, protocol: 6, isIpv6: false, outerL4: 0 })
    expect(headers.of(b)).toMatchObject({ l4: udp.l4, protocol: 17, isIpv6: true })
    headers.bytes.fill(0)
    expect([a, b, c].map((k) => headers.parse(k))).toEqual([true, true, false])
  })

  test('of a tunnel is what is inside, if the vnet_hdr says so', () => {
    const whole = tunnelFrame(ipFrame({ payload: payloadOf(1000), checksum: 'partial' }))
    const { l3, l4, end, outerL3, outerL4 } = whole
    const [inside, outside] = [add(whole.bytes), add(whole.bytes)]
    burst.gso[inside] = 1 | (0x21 << 8)
    burst.tunnel[inside] = outerL4 | (l3 << 16)
    for (const k of [inside, outside]) read(k)
    expect(headers.parseGso(inside)).toBe(true)
    expect(headers.of(inside)).toMatchObject({ l3, l4, end, outerL3, outerL4, protocol: 6 })
    expect(headers.parse(outside)).toBe(true)
    expect(headers.of(outside)).toMatchObject({ l3: outerL3, l4: outerL4, outerL4: 0 })
  })

  test.each([
    [0x01, true],
    [0x81, true],
    [0x04, false],
    [0x05, false],
  ])('is compared with gso_type %i', (type, isRight) => {
    const k = add(tcp.bytes)
    burst.gso[k] = type << 8
    read(k)
    expect(headers.parseGso(k)).toBe(isRight)
  })

  test('goes with a frame that moves within the burst, and not to the one that takes its place', () => {
    add(plain)
    const [a, b] = [add(tcp.bytes), add(udp.bytes)]
    for (const k of [a, b]) read(k)
    const hash = headers.flowHash(a)
    headers.parse(a)
    memory.fill(0)
    burst.take(burst, a, 0)
    burst.take(burst, b, 1)
    expect(read(0)).toEqual([...tcp.bytes.subarray(0, HEADERS_MAX)])
    expect(headers.of(0).l4).toBe(tcp.l4)
    expect(headers.flowHash(0)).toBe(hash)
    expect(headers.parse(1)).toBe(true)
    expect(headers.of(1)).toMatchObject({ l4: udp.l4, protocol: 17 })
    expect(headers.flowHash(1)).toBe(flowHash(udp.bytes, 0, FLOW_HEADERS_MAX))
  })

  test('of one that was not asked for is nothing, also when it has moved', () => {
    const [a, b] = [add(udp.bytes), add(tcp.bytes)]
    read(a)
    headers.parse(a)
    burst.take(burst, b, a)
    expect(read(a)).toEqual([...tcp.bytes.subarray(0, HEADERS_MAX)])
    expect(headers.parse(a)).toBe(true)
    expect(headers.of(a).l4).toBe(tcp.l4)
  })

  test('the hash of a flow is the same, however much of the frame is there', () => {
    // Ports behind the bytes that count.
    const extensions = [
      [0, 96],
      [60, 24],
    ] as const
    const { bytes, l4 } = ipFrame({ isIpv6: true, extensions, payload: payloadOf(300) })
    expect(l4).toBeGreaterThan(FLOW_HEADERS_MAX)
    const k = add(bytes)
    read(k, FLOW_HEADERS_MAX)
    const hash = headers.flowHash(k)
    burst.clear()
    read(add(bytes))
    expect(headers.flowHash(k)).toBe(hash)
    expect(headers.flowLength(k)).toBe(FLOW_HEADERS_MAX)
    expect(flowHash(bytes, 0, HEADERS_MAX)).not.toBe(hash)
  })

  test('every frame of a burst has a place of its own', () => {
    for (let k = 0; k < BURST_SIZE_MAX; k++) burst.take(burst, k, BURST_SIZE_MAX - 1 - k)
    burst.clear()
    const frames = Array.from({ length: 12 }, (_, n) => payloadOf(100, n))
    const numbers = frames.map((bytes) => add(bytes))
    for (const k of numbers) headers.want(k, HEADERS_MAX)
    headers.read()
    expect(numbers.map((k) => read(k))).toEqual(frames.map((bytes) => [...bytes]))
  })
})

describe('frames that are kept', () => {
  test('are what was read of them, and what lies behind that as it is', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.integer({ min: 14, max: 700 }),
            fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 5 }),
          ),
          { minLength: 1, maxLength: 12 },
        ),
        fc.constantFrom(64, HEADERS_MAX),
        (frames, length) => {
          const lasting = new Burst(() => undefined)
          try {
            burst.clear()
            const made = frames.map(([size], n) => payloadOf(size + n).slice(n))
            frames.forEach(([, cuts], n) => {
              add(
                made[n],
                cuts.filter(
                  (_, at) => cuts.slice(0, at + 1).reduce((a, b) => a + b) < made[n].length,
                ),
              )
            })
            lasting.clear()
            lasting.count = burst.count
            lasting.furtherTotal = burst.furtherTotal
            for (let k = 0; k < burst.count; k++) lasting.take(burst, k, k)
            for (let at = 0; at < burst.furtherTotal; at++) {
              lasting.furtherWindow[at] = burst.furtherWindow[at]
              lasting.furtherOffset[at] = burst.furtherOffset[at]
              lasting.furtherLength[at] = burst.furtherLength[at]
            }
            lasting.readHeaders(length)
            for (let k = 0; k < lasting.count; k++) expect(lasting.keep(k)).toBe(true)
            // Whoever has the memory writes to all that was looked at.
            frames.forEach((_, k) => {
              let left = Math.min(length, made[k].length)
              const spoil = (offset: number, size: number): void => {
                memory.fill(0xff, offset, offset + Math.min(size, left))
                left -= Math.min(size, left)
              }
              spoil(burst.offset[k], burst.isScattered(k) ? burst.firstLength[k] : made[k].length)
              for (let n = 0; n < (burst.isScattered(k) ? burst.furtherCount[k] : 0); n++) {
                const at = burst.furtherFirst[k] + n
                spoil(burst.furtherOffset[at], burst.furtherLength[at])
              }
            })
            frames.forEach((_, k) => {
              expect(bytesOf(lasting, k)).toEqual(made[k])
              const head = new Uint8Array(lasting.heads.slice(4 * k, 4 * k + 4).buffer)
              expect(head.subarray(0, 14)).toEqual(made[k].subarray(0, 14))
            })
          } finally {
            lasting.close()
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('are all kept as they came, with what was read of some since, when others have gone', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            size: fc.integer({ min: 14, max: 700 }),
            more: fc.boolean(),
            goes: fc.boolean(),
          }),
          {
            minLength: 1,
            maxLength: 12,
          },
        ),
        (frames) => {
          const own = 64
          const lasting = new Burst(() => undefined)
          try {
            burst.clear()
            const made = frames.map(({ size }, n) => payloadOf(size + n).slice(n))
            for (const bytes of made) add(bytes)
            lasting.clear()
            lasting.ownLength = own
            lasting.count = burst.count
            for (let k = 0; k < burst.count; k++) lasting.take(burst, k, k)
            lasting.gatherHeads()
            frames.forEach(({ more }, k) => {
              if (more) lasting.headers.want(k, HEADERS_MAX)
            })
            lasting.headers.read()
            const staying = frames.flatMap(({ goes }, k) => (goes ? [] : [k]))
            staying.forEach((k, to) => {
              if (k !== to) lasting.take(lasting, k, to)
            })
            lasting.count = staying.length
            expect(lasting.keepAll()).toBe(true)
            for (const [k, bytes] of made.entries()) {
              const looked = frames[k].more ? HEADERS_MAX : own
              memory.fill(0xff, burst.offset[k], burst.offset[k] + Math.min(looked, bytes.length))
            }
            staying.forEach((k, to) => {
              expect(bytesOf(lasting, to)).toEqual(made[k])
            })
          } finally {
            lasting.close()
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('stay until everything is written, through as many bursts as there may be', () => {
    const pending: (readonly [window: number, offset: number, bytes: Uint8Array])[] = []
    let flushes = 0
    let changed = 0
    const lasting = new Burst(() => {
      flushes++
      const whole = Buffer.from(Window.view(lasting.headers.windowId).buffer)
      for (const [id, offset, bytes] of pending.splice(0)) {
        const isThere = id === lasting.headers.windowId
        if (!isThere || whole.compare(bytes, 0, bytes.length, offset, offset + 60) !== 0) changed++
      }
    })
    for (let round = 0; round < 400; round++) {
      lasting.clear()
      const count = 1 + ((round * 7) % BURST_SIZE_MAX)
      lasting.count = count
      for (let k = 0; k < count; k++) {
        lasting.window[k] = window.id
        lasting.offset[k] = 64 * k
        lasting.length[k] = 60
        lasting.furtherCount[k] = 0
        memory.fill((round * 31 + k) & 0xff, 64 * k, 64 * k + 60)
      }
      lasting.readHeaders(HEADERS_MAX)
      // Some are kept, the last ones go.
      const kept = (round * 5) % (count + 1)
      lasting.count = kept
      expect(Array.from({ length: kept }, (_, k) => lasting.keep(k)).every(Boolean)).toBe(true)
      for (let k = 0; k < kept; k++) {
        const filling = new Uint8Array(60).fill((round * 31 + k) & 0xff)
        pending.push([lasting.window[k], lasting.offset[k], filling])
      }
    }
    expect(flushes).toBeGreaterThan(10)
    expect(changed).toBe(0)
    lasting.close()
  })
})
