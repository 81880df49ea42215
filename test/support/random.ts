/** Numbers that look random and are the same for the same seed, for runs that can be repeated. */

/** Returns a function that gives whole numbers from 0 to below its argument (mulberry32). */
export function randomFrom(seed: number): (limit: number) => number {
  let state = seed | 0
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

export function shuffled<T>(items: readonly T[], random: (limit: number) => number): T[] {
  const result = [...items]
  for (let at = result.length - 1; at > 0; at--) {
    const other = random(at + 1)
    const item = result[at]
    result[at] = result[other]
    result[other] = item
  }
  return result
}
