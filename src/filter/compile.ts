/**
 * Compiles filters that people write, pcap-filter(7): by libpcap, in a process of its own. The text is the
 * user's, and libpcap asks name servers for hosts that it names; what comes back is a program that is checked
 * like any other.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { ConfigError, SysError } from '../errors.ts'
import { shimPath } from '../native/shim.ts'
import type { Compiled } from './compiler.ts'
import { formatProgram, parseProgram } from './program.ts'

/** Characters of a text, at most. */
export const FILTER_LENGTH_MAX = 8192

/** Of a machine that does much else as well. */
const TIMEOUT_MS = 20_000
/** Debian's name, and that of others. What is not there is passed over. */
const LIBRARIES = 'libpcap.so.0.8:libpcap.so.1'
/** Texts whose programs are kept: those of all mirrors that a switch can have, and as many again. */
const KEPT_MAX = 64

const kept = new Map<string, string>()

/**
 * The program as text, see program.ts. Throws ConfigError BAD_FILTER, or SysError FILTER_COMPILER, whose texts begin
 * with whose filter it is.
 */
export async function compileFilter(text: string, whose: string): Promise<string> {
  const known = kept.get(text)
  if (known !== undefined) return known
  if (text.trim() === '' || text.length > FILTER_LENGTH_MAX || text.includes('\0')) {
    throw new ConfigError(
      'BAD_FILTER',
      `${whose}: a filter has 1 to ${FILTER_LENGTH_MAX} characters`,
    )
  }
  const { program, error } = await runCompiler(text, whose)
  if (error !== undefined) {
    throw new ConfigError('BAD_FILTER', `${whose}: filter "${text}": ${error}`, {
      hint: 'pcap-filter(7) says how filters are written',
    })
  }
  const made = formatProgram(parseProgram(program ?? ''))
  const [oldest] = kept.keys()
  if (kept.size >= KEPT_MAX) kept.delete(oldest)
  kept.set(text, made)
  return made
}

async function runCompiler(text: string, whose: string): Promise<Compiled> {
  const refused = (why: string, hint?: string): SysError =>
    new SysError('FILTER_COMPILER', `${whose}: filter "${text}" cannot be compiled: ${why}`, {
      hint,
    })
  const ended = await runProgram(text).catch((error: unknown) => {
    throw refused(
      `no process can be started: ${(error as Error).message}`,
      'give filter-program, or scripts: true in privileges',
    )
  })
  const { code, output } = ended
  if (code === null) throw refused(`libpcap took more than ${TIMEOUT_MS / 1000} s, or crashed`)
  if (code !== 0) throw refused('libpcap is not there', 'install it (Debian: libpcap0.8)')
  return JSON.parse(output) as Compiled
}

/** To its end; code null: by a signal. */
function runProgram(text: string): Promise<{ code: number | null; output: string }> {
  const path = fileURLToPath(new URL('../filter/compiler.js', import.meta.url))
  const env = { ...process.env, FRAMEPUMP_SHIM: shimPath, LD_PRELOAD: LIBRARIES }
  return new Promise((resolve, reject) => {
    // Throws where system calls are filtered.
    const child = spawn(process.execPath, [path], {
      env,
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    })
    let output = ''
    child.once('error', reject)
    child.stdin.on('error', () => undefined)
    child.stdin.end(text)
    child.stdout.setEncoding('utf8').on('data', (more: string) => (output += more))
    child.once('close', (code) => resolve({ code, output }))
  })
}
