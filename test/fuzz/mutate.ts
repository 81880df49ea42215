/** Makes another input from one or two that are there. */

const LENGTH_MAX = 1024
const INTERESTING = [0, 1, 2, 4, 5, 9, 12, 16, 64, 127, 128, 255]

type Random = (limit: number) => number

export function mutate(input: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  let bytes = [...input]
  for (let count = 1 + random(6); count > 0; count--) bytes = change(bytes, other, random)
  return Uint8Array.from(bytes.slice(0, LENGTH_MAX))
}

function change(bytes: number[], other: Uint8Array, random: Random): number[] {
  const at = random(bytes.length + 1)
  const length = 1 + random(random(4) === 0 ? 64 : 8)
  switch (random(9)) {
    case 0:
      return bytes.map((byte, k) => (k === at ? random(256) : byte))
    case 1:
      return bytes.map((byte, k) => (k === at ? byte ^ (1 << random(8)) : byte))
    case 2:
      return bytes.map((byte, k) => (k === at ? INTERESTING[random(INTERESTING.length)] : byte))
    case 3:
      return bytes.map((byte, k) => (k === at ? byte + random(9) - 4 : byte) & 0xff)
    case 4:
      return [
        ...bytes.slice(0, at),
        ...Array.from({ length }, () => random(256)),
        ...bytes.slice(at),
      ]
    case 5:
      return [...bytes.slice(0, at), ...bytes.slice(at + length)]
    case 6:
      // Once more what is there.
      return [...bytes.slice(0, at + length), ...bytes.slice(at)]
    case 7: {
      const from = random(other.length + 1)
      return [...bytes.slice(0, at), ...other.slice(from, from + 4 * length), ...bytes.slice(at)]
    }
    default:
      return [...bytes.slice(0, at), ...other.slice(random(other.length + 1))]
  }
}
