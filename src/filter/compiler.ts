/**
 * A program that compile.ts starts: a filter comes by stdin, what libpcap makes of it goes to stdout as JSON. It ends
 * with 1 when there is no libpcap.
 */
import { readFileSync, writeSync } from 'node:fs'
import { E2BIG, ENOSYS } from '../abi/errno.ts'
import { shim } from '../native/shim.ts'
import { formatProgram, INSTRUCTIONS_MAX } from './program.ts'

export interface Compiled {
  readonly program?: string
  /** What is wrong with the filter. */
  readonly error?: string
}

const MESSAGE_LENGTH = 512
const STDIN = 0
const STDOUT = 1

function compile(text: string): Compiled | undefined {
  const program = new Int32Array(2 * INSTRUCTIONS_MAX)
  const message = new Uint8Array(MESSAGE_LENGTH)
  const count = shim.filterCompile(text, program, message)
  if (count === -ENOSYS) return undefined
  if (count === -E2BIG) return { error: `it needs more than ${INSTRUCTIONS_MAX} instructions` }
  if (count >= 0) return { program: formatProgram(program.subarray(0, 2 * count)) }
  const end = message.indexOf(0)
  return { error: Buffer.from(message.buffer, 0, end).toString().trim() || 'libpcap refuses it' }
}

const compiled = compile(readFileSync(STDIN, 'utf8'))
if (compiled === undefined) process.exitCode = 1
else writeSync(STDOUT, JSON.stringify(compiled))
