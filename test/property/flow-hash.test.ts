/** The flow hash: what must hold for every flow, and that no bytes lead it astray. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { flowHash } from '../../src/wire/flow-hash.ts'
import {
  bytesOf,
  ipv4Frame,
  ipv6Fragment,
  ipv6Frame,
  ports,
  SCTP,
  TCP,
  UDP,
} from '../support/flow-frames.ts'

const hashOf = (frame: Uint8Array): number => flowHash(frame, 0, frame.length)

const octets = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length })
const port = fc.nat({ max: 0xffff })
const protocol = fc.constantFrom(TCP, UDP, SCTP, 1, 47, 58)
const tags = fc.array(fc.tuple(fc.constantFrom(0x8100, 0x88a8, 0x9100), fc.nat({ max: 0xffff })), {
  maxLength: 2,
})
const extensions = fc.array(
  fc
    .tuple(fc.constantFrom(0, 43, 60), fc.nat({ max: 3 }))
    .map(([number, units]) => [number, bytesOf(0, units, new Uint8Array(6 + 8 * units))] as const),
  { maxLength: 3 },
)

test('both directions of a flow have one hash', () => {
  fc.assert(
    fc.property(octets(16), octets(16), port, port, protocol, tags, (a, b, p, q, number, tags) => {
      const [a4, b4] = [a.subarray(0, 4), b.subarray(0, 4)]
      expect(hashOf(ipv4Frame(b4, a4, number, ports(q, p)))).toBe(
        hashOf(ipv4Frame(a4, b4, number, ports(p, q), { tags })),
      )
      expect(hashOf(ipv6Frame(b, a, number, ports(q, p)))).toBe(
        hashOf(ipv6Frame(a, b, number, ports(p, q), { tags })),
      )
    }),
    { numRuns: 2000 },
  )
})

test('the fragments of a datagram have one hash', () => {
  fc.assert(
    fc.property(
      octets(16),
      octets(16),
      protocol,
      extensions,
      fc.integer({ min: 1, max: 0x1fff }),
      fc.boolean(),
      octets(24),
      (a, b, number, before, offset, hasMore, rest) => {
        const [a4, b4] = [a.subarray(0, 4), b.subarray(0, 4)]
        const fragment = offset | (hasMore ? 0x2000 : 0)
        expect(hashOf(ipv4Frame(a4, b4, number, rest, { fragment }))).toBe(
          hashOf(ipv4Frame(a4, b4, number, ports(1, 2), { fragment: 0x2000 })),
        )
        const first = [...before, ipv6Fragment(0, true)]
        const later = [...before, ipv6Fragment(offset, hasMore)]
        expect(hashOf(ipv6Frame(a, b, number, rest, { extensions: later }))).toBe(
          hashOf(ipv6Frame(a, b, number, ports(1, 2), { extensions: first })),
        )
      },
    ),
    { numRuns: 2000 },
  )
})

test('any bytes, cut anywhere, have an int32 that depends on nothing else', () => {
  const head = fc.constantFrom([0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00])
  fc.assert(
    fc.property(
      octets(128),
      head,
      fc.nat({ max: 128 }),
      octets(8),
      (bytes, head, length, noise) => {
        bytes.set(head, 12)
        const hash = flowHash(bytes, 0, length)
        expect(hash).toBe(hash | 0)
        const elsewhere = bytesOf(noise, bytes.subarray(0, length), noise)
        expect(flowHash(elsewhere, 8, length)).toBe(hash)
        expect(hashOf(bytes.slice(0, length))).toBe(hash)
      },
    ),
    { numRuns: 5000 },
  )
})

test('flows of one host pair spread over queues', () => {
  const queues = 8
  const flows = 8000
  const [a, b] = [bytesOf(10, 0, 0, 1), bytesOf(10, 0, 0, 2)]
  const count = new Int32Array(queues)
  for (let flow = 0; flow < flows; flow++) {
    count[(hashOf(ipv4Frame(a, b, TCP, ports(32768 + flow, 443))) >>> 0) % queues]++
  }
  // Eight standard deviations of a fair spread.
  const fair = flows / queues
  const allowed = 8 * Math.sqrt(fair)
  expect(Math.min(...count)).toBeGreaterThan(fair - allowed)
  expect(Math.max(...count)).toBeLessThan(fair + allowed)
})
