/** Any messages in any order: no descriptor is lost or closed twice, and no state goes wrong. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ProtocolError } from '../../src/errors.ts'
import { FakeConnection, OFFERED } from '../support/fake-device.ts'
import { u32s, u64, u64s } from '../support/front-end.ts'

const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
const index = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.constantFrom(255, 0xffff_ffff))
const place = fc.constantFrom(0, 0x1000, 0x10_0000, 0x1000_0000)
const region = fc
  .tuple(place, fc.constantFrom(0x1000, 0x10_0000), place)
  .map(([guest, size, user]) => u64s(guest, size, user, 0))
const state = fc.tuple(index, fc.constantFrom(0, 1, 7, 256, 65536)).map((pair) => u32s(...pair))

/** Mostly what a message should have. */
const plausible: Record<number, fc.Arbitrary<Uint8Array>> = {
  2: fc.constantFrom(OFFERED, OFFERED & ~(1n << 34n), 1n << 32n, 1n << 5n).map(u64),
  5: fc.array(region, { maxLength: 9 }).map((rows) => joined(u32s(rows.length, 0), ...rows)),
  6: fc.constant(u64s(4096, 0)),
  8: state,
  9: fc
    .tuple(index, fc.constantFrom(0, 1), place)
    .map(([queue, flags, at]) =>
      joined(u32s(queue, flags), u64s(at, at + 0x800, at + 0x400, 0x9000)),
    ),
  10: state,
  11: state,
  12: fc.constantFrom(0n, 1n, 3n, 0x100n, 0x101n, 200n).map(u64),
  13: fc.constantFrom(0n, 1n, 3n, 0x100n, 200n).map(u64),
  14: fc.constantFrom(0n, 1n, 0x100n, 200n).map(u64),
  16: fc.constantFrom(0x1801fn, 0n, 1n << 9n).map(u64),
  18: state,
  19: fc.constant(u64(0n)),
  20: fc.constantFrom(1500n, 65536n).map(u64),
  37: region.map((row) => joined(u64(0n), row)),
  38: region.map((row) => joined(u64(0n), row)),
  39: fc.constant(u64(15n)),
}
const message = fc.integer({ min: 0, max: 45 }).chain((request) =>
  fc.record({
    request: fc.constant(request),
    payload: fc.oneof(
      { weight: 12, arbitrary: plausible[request] ?? fc.constant(u32s()) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 48 }) },
    ),
    fdCount: fc.oneof(
      { weight: 8, arbitrary: fc.constant(-1) },
      { weight: 1, arbitrary: fc.integer({ min: 0, max: 8 }) },
    ),
    flags: fc.constantFrom(1, 1, 1, 9, 9, 5, 0),
  }),
)

/** How many descriptors belong to a message. */
function wanted(request: number, payload: Uint8Array): number {
  if (request === 5) return payload[0] ?? 0
  if ([12, 13, 14].includes(request)) return (payload[1] ?? 0) & 1 ? 0 : 1
  return [6, 7, 37].includes(request) ? 1 : 0
}

test('every descriptor has one owner at any time, and ends closed or the device’s', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 60 }), async (messages) => {
      const connection = new FakeConnection()
      await connection.handle(1)
      await connection.handle(16, u64(0x1801fn))
      let nextFd = 100
      for (const { request, payload, fdCount, flags } of messages) {
        const count = fdCount < 0 ? wanted(request, payload) : fdCount
        const fds = Array.from({ length: Math.min(count, 8) }, () => nextFd++)
        try {
          const reply = await connection.handle(request, payload, fds, flags)
          if (reply !== null) {
            const header = new Uint32Array(reply.slice(0, 12).buffer)
            expect([...header]).toEqual([request, 5, reply.length - 12])
          }
        } catch (error) {
          // A real connection ends here; going on only makes it harder.
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }
      await connection.session.close()
      const all = [...connection.closed, ...connection.device.fds].toSorted((a, b) => a - b)
      expect(all).toEqual(Array.from({ length: nextFd - 100 }, (_, n) => 100 + n))
    }),
    { numRuns: 3000 },
  )
})
