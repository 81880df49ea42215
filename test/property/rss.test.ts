/** The Toeplitz table against the definition bit by bit, and RSS on any bytes. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Rss, RSS_SUPPORTED_HASH_TYPES } from '../../src/virtio/net/rss.ts'
import { Toeplitz } from '../../src/virtio/net/toeplitz.ts'

/** For every set bit of the input, the 32 key bits from its number on. */
function toeplitz(key: Uint8Array, input: Uint8Array): number {
  const keyBit = (at: number): number => ((key[at >> 3] ?? 0) >> (7 - (at & 7))) & 1
  let hash = 0
  for (let at = 0; at < 8 * input.length; at++) {
    if (((input[at >> 3] >> (7 - (at & 7))) & 1) === 0) continue
    let window = 0
    for (let bit = 0; bit < 32; bit++) window = (window << 1) | keyBit(at + bit)
    hash ^= window
  }
  return hash
}

test('the table gives what the definition gives, for keys of any length', () => {
  const key = fc.uint8Array({ maxLength: 40 })
  const words = fc.int32Array({ maxLength: 9 })
  fc.assert(
    fc.property(key, words, (key, words) => {
      const own = new Toeplitz()
      own.setKey(key)
      const bytes = new Uint8Array(4 * words.length)
      const view = new DataView(bytes.buffer)
      words.forEach((word, at) => view.setInt32(4 * at, word))
      expect(own.hash(words, words.length)).toBe(toeplitz(key, bytes))
    }),
    { numRuns: 500 },
  )
})

test('any frame goes to an active queue, and is reported with an enabled type or none', () => {
  const head = fc.constantFrom([0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00])
  const next = fc.constantFrom(0, 6, 17, 43, 44, 51, 60, 135)
  const own = new Rss()
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 160, maxLength: 160 }),
      head,
      next,
      fc.nat({ max: 160 }),
      fc.nat({ max: RSS_SUPPORTED_HASH_TYPES }),
      fc.array(fc.nat({ max: 7 }), { minLength: 8, maxLength: 8 }),
      fc.integer({ min: 1, max: 8 }),
      (bytes, head, next, length, hashTypes, indirectionTable, pairs) => {
        bytes.set(head, 12)
        bytes[20] = next
        bytes[54] = next
        const hashKey = bytes.slice(0, 40)
        own.configure({
          isSteering: true,
          hashTypes,
          unclassifiedQueue: 7,
          indirectionTable,
          hashKey,
        })
        const queue = own.queueFor(bytes, 0, length, pairs)
        expect(queue).toBeGreaterThanOrEqual(0)
        expect(queue).toBeLessThan(pairs)
        if (own.hashReport === 0) expect(own.hashValue).toBe(0)
        else expect(hashTypes & (1 << (own.hashReport - 1))).not.toBe(0)
        // What lies behind the readable bytes is not looked at.
        const value = own.hashValue
        expect(own.queueFor(bytes.slice(0, length), 0, length, pairs)).toBe(queue)
        expect(own.hashValue).toBe(value)
      },
    ),
    { numRuns: 2000 },
  )
})
