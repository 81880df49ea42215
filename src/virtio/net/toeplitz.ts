/**
 * The Toeplitz hash of RSS: for every set bit of the input, XOR in the 32 bits of the key that start
 * at that bit's number. One table row per input byte turns eight such bits into one lookup.
 *
 *     table[256 * n + value] = what input byte n contributes when it has this value
 *
 * Source: "RSS hashing functions" of Microsoft's NDIS documentation, to which VIRTIO 1.3 §5.1.6.4.3
 * refers; checked against its verification suite.
 */
import { FLOW_KEY_WORDS } from '../../wire/flow-key.ts'

/** Bytes of the longest key: what the longest input (two IPv6 addresses and ports) can use. */
export const TOEPLITZ_KEY_LENGTH_MAX: number = 4 * FLOW_KEY_WORDS + 4

export class Toeplitz {
  readonly #table: Int32Array = new Int32Array(4 * FLOW_KEY_WORDS * 256)

  /** Takes a key of 0..TOEPLITZ_KEY_LENGTH_MAX bytes; zeros stand behind a shorter one. Longer keys
   *  are the caller's mistake: what is too much is not used. */
  setKey(key: Uint8Array): void {
    const table = this.#table
    const byteAt = (index: number): number => key[index] ?? 0
    for (let byte = 0; byte < 4 * FLOW_KEY_WORDS; byte++) {
      // The key's 40 bits from this byte on; input bit 7 (the first) takes the upper 32 of them.
      const upper =
        (byteAt(byte) << 24) | (byteAt(byte + 1) << 16) | (byteAt(byte + 2) << 8) | byteAt(byte + 3)
      const lower = byteAt(byte + 4)
      const row = 256 * byte
      table[row] = 0
      for (let bit = 0; bit < 8; bit++) {
        const shift = 7 - bit
        const window = (upper << shift) | (lower >>> (8 - shift))
        const value = 1 << bit
        for (let rest = 0; rest < value; rest++) {
          table[row + value + rest] = window ^ table[row + rest]
        }
      }
    }
  }

  /**
   * The hash of the first `count` words, each big-endian in the input, as an int32.
   * @hot
   */
  hash(words: Int32Array, count: number): number {
    const table = this.#table
    let hash = 0
    let row = 0
    for (let at = 0; at < count; at++) {
      const word = words[at]
      hash ^=
        table[row + (word >>> 24)] ^
        table[row + 256 + ((word >>> 16) & 0xff)] ^
        table[row + 512 + ((word >>> 8) & 0xff)] ^
        table[row + 768 + (word & 0xff)]
      row += 1024
    }
    return hash
  }
}
