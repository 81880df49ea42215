/** Classic BPF as a model: what a program returns for a frame. Source: linux/filter.h, bpf(4) of BSD. */

/** code, jt, jf, k */
export type Instruction = readonly [number, number, number, number]

/** As the shim takes programs. */
export const packed = (program: readonly Instruction[]): Int32Array =>
  Int32Array.from(program.flatMap(([code, jt, jf, k]) => [code | (jt << 16) | (jf << 24), k | 0]))

/** A filter: that byte of a frame is this. */
export const byteIs = (at: number, value: number): Int32Array =>
  packed([
    [0x30, 0, 0, at],
    [0x15, 0, 1, value],
    [0x06, 0, 0, 0xffff_ffff],
    [0x06, 0, 0, 0],
  ])

const LD_MODES = { imm: 0x00, abs: 0x20, ind: 0x40, mem: 0x60, len: 0x80 }
const SIZES: Readonly<Record<number, number>> = { 0x00: 4, 0x08: 2, 0x10: 1 }

const ALU: Readonly<Record<number, (a: number, b: number) => number | undefined>> = {
  0x00: (a, b) => a + b,
  0x10: (a, b) => a - b,
  0x20: (a, b) => Math.imul(a, b),
  0x30: (a, b) => (b === 0 ? undefined : Math.floor(a / b)),
  0x40: (a, b) => a | b,
  0x50: (a, b) => a & b,
  0x60: (a, b) => (b > 31 ? 0 : a << b),
  0x70: (a, b) => (b > 31 ? 0 : a >>> b),
  0x80: (a) => -a,
  0x90: (a, b) => (b === 0 ? undefined : a % b),
  0xa0: (a, b) => a ^ b,
}
const JUMPS: Readonly<Record<number, (a: number, b: number) => boolean>> = {
  0x10: (a, b) => a === b,
  0x20: (a, b) => a > b,
  0x30: (a, b) => a >= b,
  0x40: (a, b) => (a & b) !== 0,
}

/** All that an instruction may be: the code without its source, and whether that may be X. */
export const CODES = {
  load: [0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0x81, 0xb1, 0x01, 0x61],
  store: [0x02, 0x03],
  compute: Object.keys(ALU).flatMap((op) =>
    op === '128' ? [0x84] : [Number(op) | 4, Number(op) | 12],
  ),
  jump: [0x05, ...Object.keys(JUMPS).flatMap((op) => [Number(op) | 5, Number(op) | 13])],
  end: [0x06, 0x16],
  move: [0x07, 0x87],
} as const

/** The kernel would run it over a packet, and nothing in it asks for more than bytes. */
export function isSound(program: readonly Instruction[], at: number): boolean {
  const [code, jt, jf, k] = program[at]
  const behind = program.length - at - 1
  if (!Object.values(CODES).some((codes) => (codes as readonly number[]).includes(code)))
    return false
  if (behind === 0) return CODES.end.some((end) => end === code)
  if ([0x20, 0x28, 0x30, 0xb1].includes(code)) return k < 2 ** 31
  if ([0x60, 0x61, 0x02, 0x03].includes(code)) return k < 16
  if ([0x34, 0x94].includes(code)) return k !== 0
  if ([0x64, 0x74].includes(code)) return k < 32
  if (code === 0x05) return k < behind
  return (code & 7) !== 5 || (jt < behind && jf < behind)
}

/** What a sound program returns. */
export function runProgram(program: readonly Instruction[], frame: Uint8Array): number {
  let [a, x] = [0, 0]
  const memory = new Uint32Array(16)
  const load = (at: number, size: number): number | undefined => {
    if (at + size > frame.length) return undefined
    return frame.slice(at, at + size).reduce((value, byte) => value * 256 + byte, 0)
  }
  for (let at = 0; ; at++) {
    const [code, jt, jf, k] = program[at]
    const operand = (code & 8) === 0 ? k : x
    switch (code & 7) {
      case 0: {
        const value = loadA(code, k)
        if (value === undefined) return 0
        a = value
        break
      }
      case 1: {
        if (code === 0x01) x = k
        else if (code === 0x61) x = memory[k]
        else if (code === 0x81) x = frame.length
        else {
          const byte = load(k, 1)
          if (byte === undefined) return 0
          x = (byte & 15) * 4
        }
        break
      }
      case 2:
        memory[k] = a
        break
      case 3:
        memory[k] = x
        break
      case 4: {
        const value = ALU[code & 0xf0](a, operand)
        if (value === undefined) return 0
        a = value >>> 0
        break
      }
      case 5:
        if (code === 0x05) at += k
        else at += JUMPS[code & 0xf0](a, operand) ? jt : jf
        break
      case 6:
        return code === 0x16 ? a : k
      default:
        if (code === 0x07) x = a
        else a = x
    }
  }

  function loadA(code: number, k: number): number | undefined {
    switch (code & 0xe0) {
      case LD_MODES.imm:
        return k
      case LD_MODES.mem:
        return memory[k]
      case LD_MODES.len:
        return frame.length
      default:
        return load((code & 0xe0) === LD_MODES.ind ? k + x : k, SIZES[code & 0x18])
    }
  }
}
