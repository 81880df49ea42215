/**
 * The process that runs inputs, each in a file that is mapped (corpus.ts): when the process dies or
 * hangs, main.ts knows on what.
 */
import { openSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Window } from '../../src/mem/window.ts'
import type { Scratch } from './fuzzer.ts'
import { Finding, Fuzzer, shorten } from './fuzzer.ts'
import {
  CORPUS,
  FINDINGS,
  keep,
  loadCorpus,
  replayCommand,
  STATE_COUNT_AT,
  STATE_INPUT_AT,
  STATE_LENGTH,
  STATE_NAME_AT,
} from './corpus.ts'
import { TARGETS } from './targets.ts'

/** What is done of one target before the next one has its turn. */
const SLICE_MS = 250
const PROGRESS_MS = 60_000

const { values } = parseArgs({
  options: {
    state: { type: 'string', default: '' },
    seconds: { type: 'string', default: '60' },
    inputs: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string', default: '' },
    keep: { type: 'boolean', default: false },
    replay: { type: 'string' },
  },
})

function openScratch(path: string): Scratch {
  const { buffer } = Window.map(STATE_LENGTH, { fd: openSync(path, 'r+') })
  const words = new Int32Array(buffer, 0, 1)
  const inputs = new Float64Array(buffer, STATE_COUNT_AT, 1)
  const name = new Uint8Array(buffer, STATE_NAME_AT, STATE_INPUT_AT - STATE_NAME_AT)
  return {
    bytes: new Uint8Array(buffer, STATE_INPUT_AT),
    starts(length) {
      words[0] = length
      inputs[0]++
    },
    goesOn() {
      inputs[0]++
    },
    names(target) {
      name.fill(0)
      name.set(new TextEncoder().encode(target))
    },
  }
}

const names = values.target === '' ? TARGETS.map(({ name }) => name) : values.target.split(',')
const unknown = names.find((name) => !TARGETS.some((target) => target.name === name))
if (unknown !== undefined) {
  const known = TARGETS.map(({ name }) => name).join(', ')
  console.error(`fuzz: there is no target ${unknown}; there are ${known}`)
  process.exit(2)
}
const seed = Number(values.seed)
const parent = process.ppid
const scratch = openScratch(values.state)

async function replay(path: string): Promise<void> {
  const fuzzer = fuzzerOf(names[0])
  const bytes = new Uint8Array(readFileSync(path))
  await fuzzer.learn([bytes])
  console.log(`${names[0]}: ${path} finds nothing`)
}

function fuzzerOf(name: string): Fuzzer {
  const number = TARGETS.findIndex((target) => target.name === name)
  return new Fuzzer(TARGETS[number], scratch, seed + 7919 * number)
}

/** Of a processor. */
function rate(runs: number, cpuMs: number): string {
  return `${Math.round((1000 * runs) / Math.max(cpuMs, 1))} a second and core`
}

async function fuzzAll(): Promise<void> {
  const fuzzers = names.map((name) => fuzzerOf(name))
  const start = performance.now()
  const end = start + 1000 * Number(values.seconds)
  const most = Number(values.inputs)
  for (const fuzzer of fuzzers) await fuzzer.learn(loadCorpus(CORPUS, fuzzer.target.name))
  const tell = (what: string): void => {
    const seconds = Math.round((performance.now() - start) / 1000)
    const cpuMs = fuzzers.reduce((sum, fuzzer) => sum + fuzzer.cpuMs, 0)
    console.log(
      `${what}${inputsOf(fuzzers)} inputs in ${seconds} s, ${rate(inputsOf(fuzzers), cpuMs)}`,
    )
  }
  let told = start
  for (let runs = 0; performance.now() < end && runs < most; runs = inputsOf(fuzzers)) {
    // Shares are shares of time: a fast target runs more inputs, a slow one is not forgotten.
    const shareOf = ({ cpuMs, target }: Fuzzer): number => cpuMs / (target.weight ?? 1)
    // Nobody waits for it any more.
    if (process.ppid !== parent) return
    const due = fuzzers.reduce((a, b) => (shareOf(b) < shareOf(a) ? b : a))
    await due.fuzz(Math.min(SLICE_MS, end - performance.now()), most - runs)
    if (performance.now() - told < PROGRESS_MS) continue
    told = performance.now()
    tell('')
  }
  for (const fuzzer of fuzzers) {
    const { target, runs, features, cpuMs } = fuzzer
    console.log(`${target.name}: ${runs} inputs, ${rate(runs, cpuMs)}, ${features.size} features`)
    if (!values.keep) continue
    const corpus = loadCorpus(CORPUS, target.name)
    for (const input of await fuzzer.smallest(corpus)) keep(CORPUS, target.name, input)
  }
  tell(`no finding with seed ${seed}: `)
}

function inputsOf(fuzzers: readonly Fuzzer[]): number {
  return fuzzers.reduce((sum, { runs }) => sum + runs, 0)
}

try {
  await (values.replay === undefined ? fuzzAll() : replay(values.replay))
} catch (error) {
  if (!(error instanceof Finding)) throw error
  console.error(`${error.target}: ${(error.cause as Error).stack ?? error.message}`)
  if (values.replay === undefined) {
    const target = TARGETS.find(({ name }) => name === error.target)!
    const short = await shorten(target, error.input, () => scratch.goesOn())
    const path = keep(FINDINGS, error.target, short)
    console.error(`found with seed ${seed}; once more: ${replayCommand(error.target, path)}`)
  }
  process.exit(1)
}
// What targets hold open (descriptors, windows) ends with the process.
process.exit(0)
