/** Makes another input from one or two that are there. Nothing is allocated: it is asked very often. */

const INTERESTING = [0, 1, 2, 4, 5, 9, 12, 16, 64, 127, 128, 255]

type Random = (limit: number) => number

/**
 * Writes a mutant of `input` into `to`, with parts of `other`; returns its length, at most `limit`,
 * which `to` has room for twice.
 */
export function mutate(
  to: Uint8Array,
  limit: number,
  input: Uint8Array,
  other: Uint8Array,
  random: Random,
): number {
  to.set(input)
  let length = input.length
  for (let count = 1 + random(5); count > 0; count--) {
    length = Math.min(change(to, length, other, random), limit)
  }
  return length
}

/** Moves what is behind `at` by `by` bytes; negative: to the front. */
function shift(to: Uint8Array, length: number, at: number, by: number): void {
  to.copyWithin(at + Math.max(by, 0), at + Math.max(-by, 0), length)
}

function change(to: Uint8Array, length: number, other: Uint8Array, random: Random): number {
  const at = random(length + 1)
  const some = 1 + random(random(4) === 0 ? 64 : 8)
  switch (random(10)) {
    case 0:
      if (at < length) to[at] = random(256)
      return length
    case 1:
      if (at < length) to[at] ^= 1 << random(8)
      return length
    case 2:
      if (at < length) to[at] = INTERESTING[random(INTERESTING.length)]
      return length
    case 3:
      if (at < length) to[at] += random(9) - 4
      return length
    case 4:
      shift(to, length, at, some)
      for (let k = 0; k < some; k++) to[at + k] = random(256)
      return length + some
    case 5: {
      const cut = Math.min(some, length - at)
      shift(to, length, at, -cut)
      return length - cut
    }
    case 6: {
      // Once more what is there.
      const again = Math.min(some, length - at)
      shift(to, length, at, again)
      return length + again
    }
    case 7: {
      const from = random(other.length + 1)
      const part = Math.min(4 * some, other.length - from)
      shift(to, length, at, part)
      for (let k = 0; k < part; k++) to[at + k] = other[from + k]
      return length + part
    }
    case 8: {
      const from = random(other.length + 1)
      for (let k = from; k < other.length; k++) to[at + k - from] = other[k]
      return at + other.length - from
    }
    default: {
      // The same length, and one part from elsewhere: what follows keeps its meaning.
      const from = random(other.length + 1)
      const part = Math.min(some, other.length - from, length - at)
      for (let k = 0; k < part; k++) to[at + k] = other[from + k]
      return length
    }
  }
}
