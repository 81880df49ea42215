/**
 * npm run fuzz [-- --seconds N | --inputs N] [--target NAME,...] [--jobs N] [--seed N] [--sanitizer]
 *              [--keep] [--target NAME --replay FILE]
 *
 * Mutates byte strings, an input that does something new further than others, and stops at the first
 * that finds a bug: an exception, a difference from a target's model, a crash or a hang. The input is
 * kept in test/fuzz/findings; the exit status is 1 then. `--keep` adds the smallest set of inputs
 * that does all that was seen to the corpus, which the property tests replay. See README.md.
 */
import type { ChildProcess } from 'node:child_process'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { FINDINGS, keep, readState, replayCommand, STATE_LENGTH } from './corpus.ts'

/** A worker that runs the same input for so long hangs. */
const HANG_S = 60

const { values } = parseArgs({
  options: {
    seconds: { type: 'string' },
    inputs: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    target: { type: 'string', default: '' },
    jobs: { type: 'string', default: '1' },
    sanitizer: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    replay: { type: 'string' },
  },
})
const jobs = Number(values.jobs)
/** Without a number the fuzzer goes on for a minute; a number of inputs takes as long as it takes. */
const seconds = values.seconds ?? (values.inputs === undefined ? '60' : 'Infinity')
const inputs =
  values.inputs === undefined ? 'Infinity' : String(Math.ceil(Number(values.inputs) / jobs))

function environment(): NodeJS.ProcessEnv {
  if (!values.sanitizer) return process.env
  execFileSync('make', ['-s', '-C', 'native-shim', 'sanitize'], { stdio: 'inherit' })
  const library = execFileSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
  return {
    ...process.env,
    FRAMEPUMP_SHIM: `${process.cwd()}/native-shim/build/Sanitize/framepump.node`,
    LD_PRELOAD: library,
    // The handler of SIGBUS is ours; memory of V8 that is never given back is none of a leak.
    ASAN_OPTIONS: 'detect_leaks=0:handle_sigbus=0',
  }
}

/** They end with us, whatever ends us. */
const workers = new Set<ChildProcess>()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    for (const worker of workers) worker.kill('SIGKILL')
    process.exit(1)
  })
}

/** Resolves to whether it found nothing. */
function work(number: number, directory: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  const state = join(directory, String(number))
  writeFileSync(state, new Uint8Array(STATE_LENGTH))
  const seed = Number(values.seed) + number
  const args = [
    `--state=${state}`,
    `--seed=${seed}`,
    `--seconds=${seconds}`,
    `--inputs=${inputs}`,
    `--target=${values.target}`,
    ...(values.keep && number === 0 ? ['--keep'] : []),
    ...(values.replay === undefined ? [] : [`--replay=${values.replay}`]),
  ]
  const worker = spawn(
    process.execPath,
    [fileURLToPath(new URL('worker.js', import.meta.url)), ...args],
    { stdio: 'inherit', env },
  )
  workers.add(worker)
  let hangs = false
  let before = -1
  const watch = setInterval(() => {
    const { count } = readState(state)
    hangs = count === before && count > 0
    before = count
    if (hangs) worker.kill('SIGKILL')
  }, HANG_S * 1000)
  return new Promise((resolve) => {
    worker.on('exit', (code, signal) => {
      clearInterval(watch)
      if (code === 0 || code === 2) process.exitCode = code
      // Findings it has told itself; whatever else ends it is one as well.
      else if (code !== 1) tellCrash(state, hangs ? 'hangs' : `ended by ${signal ?? code}`, seed)
      resolve(code === 0)
    })
  })
}

function tellCrash(state: string, how: string, seed: number): void {
  const { target, input } = readState(state)
  console.error(`${target}: ${how}`)
  // Before the first input it is no finding of one: a failure to start has told itself.
  if (target === '') return
  const path = keep(FINDINGS, target, input)
  console.error(`found with seed ${seed}; once more: ${replayCommand(target, path)}`)
}

const directory = mkdtempSync(join(tmpdir(), 'framepump-fuzz-'))
// However it ends.
process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
const env = environment()
const good = await Promise.all(
  Array.from({ length: jobs }, (_, number) => work(number, directory, env)),
)
if (good.includes(false) && process.exitCode !== 2) process.exitCode = 1
