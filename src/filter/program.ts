/**
 * Filters as programs: classic BPF, in the two ways in which people write it down.
 *
 *     tcpdump -ddd          one number, then a line for each instruction:  code jt jf k
 *     iptables -m bpf       the same with commas in the place of line breaks, which is how it is kept
 *
 * Source: linux/filter.h (struct sock_filter), tcpdump(1), iptables-extensions(8).
 */
import { ConfigError } from '../errors.ts'
import { shim } from '../native/shim.ts'

/** BPF_MAXINSNS */
export const INSTRUCTIONS_MAX = 4096
/** Longest text of a program: that many instructions. */
export const PROGRAM_TEXT_MAX: number = 6 + INSTRUCTIONS_MAX * 26

const INSTRUCTION = /^(\d{1,5})[ \t]+(\d{1,3})[ \t]+(\d{1,3})[ \t]+(\d{1,10})$/
const WORD_MAX = 0xffff_ffff
const HINT = "give what tcpdump -y EN10MB -ddd 'EXPRESSION' prints"

const [LINE_END, BLANK, COMMA, ZERO] = [10, 32, 44, 48]

/**
 * As the shim takes it: two words an instruction. Throws ConfigError BAD_FILTER, about the option `path`.
 *
 * Programs as they are written down by other programs are read by a plain loop, since frames wait for those of a
 * switch that is handed over: 31 of 4096 instructions take 13 ms, and took 70. All others are taken apart with care.
 */
export function parseProgram(text: string, path: string = ''): Int32Array {
  const plain = readPlain(text)
  if (plain !== undefined && shim.filterCheck(plain) === plain.length / 2) return plain
  return parseLines(text, path)
}

/** Without a blank or a zero too many; undefined: it is not so, or no program. */
function readPlain(text: string): Int32Array | undefined {
  // The count, and then four an instruction.
  const numbers = new Uint32Array(1 + 4 * INSTRUCTIONS_MAX)
  const end = text.endsWith('\n') ? text.length - 1 : text.length
  let count = 0
  let number = -1
  for (let at = 0; at <= end; at++) {
    const code = at < end ? text.charCodeAt(at) : LINE_END
    const digit = code - ZERO
    if (digit >= 0 && digit <= 9) {
      if (number === 0) return undefined
      number = number < 0 ? digit : number * 10 + digit
      continue
    }
    const isSeparator = count % 4 === 0 ? code === LINE_END || code === COMMA : code === BLANK
    if (!isSeparator || number < 0 || number > WORD_MAX || count === numbers.length) {
      return undefined
    }
    numbers[count++] = number
    number = -1
  }
  if (count === 1 || count !== 1 + 4 * numbers[0]) return undefined
  const program = new Int32Array(2 * numbers[0])
  for (let from = 1, to = 0; from < count; from += 4) {
    const code = numbers[from]
    const jt = numbers[from + 1]
    const jf = numbers[from + 2]
    if (code > 0xffff || jt > 0xff || jf > 0xff) return undefined
    program[to++] = code | (jt << 16) | (jf << 24)
    program[to++] = numbers[from + 3]
  }
  return program
}

/** However it is spaced, and with what is wrong with it. */
function parseLines(text: string, path: string): Int32Array {
  const refused = (why: string): ConfigError =>
    new ConfigError('BAD_FILTER', `not a filter program: ${why}`, { path, hint: HINT })
  const [count, ...lines] = text
    .split(/[,\n]/)
    .map((line) => line.trim())
    .filter((line) => line !== '')
  if (text.length > PROGRAM_TEXT_MAX || !/^\d{1,4}$/.test(count ?? '')) {
    throw refused('it does not begin with the number of its instructions')
  }
  if (Number(count) !== lines.length || lines.length === 0) {
    throw refused(`it has ${lines.length} instructions and says that it has ${count}`)
  }
  const program = new Int32Array(2 * lines.length)
  for (const [at, line] of lines.entries()) {
    const [code, jt, jf, k] = (INSTRUCTION.exec(line) ?? []).slice(1).map(Number)
    if (code === undefined || code > 0xffff || jt > 0xff || jf > 0xff || k > WORD_MAX) {
      throw refused(`instruction ${at} is no "code jt jf k": "${line.slice(0, 40)}"`)
    }
    program[2 * at] = code | (jt << 16) | (jf << 24)
    program[2 * at + 1] = k | 0
  }
  const sound = shim.filterCheck(program)
  if (sound === lines.length) return program
  if (lines.length > INSTRUCTIONS_MAX) {
    throw refused(`it has more than ${INSTRUCTIONS_MAX} instructions`)
  }
  throw refused(`instruction ${sound} ("${lines[sound]}") cannot be run over Ethernet frames`)
}

/** With commas. */
export function formatProgram(program: Int32Array): string {
  const lines: string[] = []
  for (let at = 0; at < program.length; at += 2) {
    const word = program[at]
    lines.push(`${word & 0xffff} ${(word >>> 16) & 0xff} ${word >>> 24} ${program[at + 1] >>> 0}`)
  }
  return [lines.length, ...lines].join(',')
}
