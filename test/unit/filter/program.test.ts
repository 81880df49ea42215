/** Programs as people write them down. */
import { expect, test } from 'vitest'
import { formatProgram, INSTRUCTIONS_MAX, parseProgram } from '../../../src/filter/program.ts'

/** `tcpdump -y EN10MB -ddd arp` */
const ARP = '4\n40 0 0 12\n21 0 1 2054\n6 0 0 262144\n6 0 0 0\n'
const refusal = (text: string): string => {
  try {
    parseProgram(text, 'filter-program')
  } catch (error) {
    return (error as Error).message
  }
  return ''
}

test('what tcpdump -ddd prints and what iptables takes are the same program', () => {
  const program = parseProgram(ARP)
  expect([...program]).toEqual([40, 12, 21 | (1 << 24), 2054, 6, 262_144, 6, 0])
  const text = formatProgram(program)
  expect(text).toBe('4,40 0 0 12,21 0 1 2054,6 0 0 262144,6 0 0 0')
  expect(parseProgram(text)).toEqual(program)
  expect(formatProgram(parseProgram('2,32 0 0 0,22 0 0 4294967295'))).toBe(
    '2,32 0 0 0,22 0 0 4294967295',
  )
})

test.each([
  ['', 'does not begin with the number'],
  ['tcp port 80', 'does not begin with the number'],
  ['0', 'has 0 instructions and says that it has 0'],
  ['3,6 0 0 1', 'has 1 instructions and says that it has 3'],
  ['1,6 0 0', 'instruction 0 is no "code jt jf k": "6 0 0"'],
  ['1,6 0 0 -1', 'instruction 0 is no'],
  ['1,65536 0 0 1', 'instruction 0 is no'],
  ['2,6 256 0 1,6 0 0 1', 'instruction 0 is no'],
  ['1,6 0 0 4294967296', 'instruction 0 is no'],
  ['2,6 0 0 1,40 0 0 12', 'instruction 1 ("40 0 0 12") cannot be run'],
  ['2,21 1 0 1,6 0 0 1', 'instruction 0 ("21 1 0 1") cannot be run'],
  ['2,40 0 0 4294963200,6 0 0 1', 'instruction 0 ("40 0 0 4294963200") cannot be run'],
  ['2,52 0 0 0,6 0 0 1', 'instruction 0 ("52 0 0 0") cannot be run'],
])('%j is refused', (text, why) => {
  expect(refusal(text)).toContain(why)
})

test('the longest program is one of 4096 instructions', () => {
  const lines = (count: number): string =>
    [count, ...Array.from({ length: count - 1 }, () => '0 0 0 4294967295'), '6 0 0 1'].join(',')
  expect(parseProgram(lines(INSTRUCTIONS_MAX))).toHaveLength(2 * INSTRUCTIONS_MAX)
  expect(refusal(lines(INSTRUCTIONS_MAX + 1))).toContain('more than 4096 instructions')
})
