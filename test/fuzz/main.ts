/**
 * npm run fuzz [-- --seconds N --seed N --target NAME --keep]
 *
 * Mutates byte strings for a time, an input that does something new further than others, and stops
 * at the first that finds a bug: that one is written to the corpus, which the property tests replay.
 * `--keep` also adds the smallest set of inputs that does all that was seen.
 */
import { parseArgs } from 'node:util'
import { randomFrom } from '../support/random.ts'
import { mutate } from './mutate.ts'
import { keep, loadCorpus, TARGETS } from './targets.ts'
import type { Target } from './targets.ts'

const CORPUS = `${process.cwd()}/test/fuzz/corpus`

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    target: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
})

interface Input {
  readonly bytes: Uint8Array
  readonly seen: Set<string>
}

async function run(target: Target, bytes: Uint8Array): Promise<Input> {
  const seen = new Set<string>()
  try {
    await target.run(bytes, seen)
  } catch (error) {
    console.error(`${target.name}: ${keep(CORPUS, target.name, bytes)}`)
    throw error
  }
  return { bytes, seen }
}

async function fuzz(target: Target, seconds: number, seed: number): Promise<void> {
  const random = randomFrom(seed)
  const known = new Set<string>()
  const pool: Input[] = []
  const learn = (input: Input): void => {
    const size = known.size
    for (const feature of input.seen) known.add(feature)
    if (known.size > size) pool.push(input)
  }
  const corpus = loadCorpus(CORPUS, target.name)
  for (const bytes of corpus) learn(await run(target, bytes))
  if (pool.length === 0) pool.push({ bytes: new Uint8Array(64), seen: new Set() })
  const end = Date.now() + seconds * 1000
  let runs = 0
  for (; Date.now() < end; runs++) {
    // The newest ones are the least known.
    const from =
      random(2) === 0 ? random(pool.length) : pool.length - 1 - random(Math.min(16, pool.length))
    learn(await run(target, mutate(pool[from].bytes, pool[random(pool.length)].bytes, random)))
  }
  console.log(`${target.name}: seed ${seed}, ${runs} runs, ${known.size} features, no bug`)
  if (values.keep) for (const { bytes } of smallest(pool, corpus)) keep(CORPUS, target.name, bytes)
}

/** Greedy: again and again the input with the most features that no other has shown. */
function smallest(pool: readonly Input[], corpus: readonly Uint8Array[]): Input[] {
  const left = pool.filter(({ bytes }) => !corpus.includes(bytes))
  const shown = new Set(
    pool.filter((input) => !left.includes(input)).flatMap(({ seen }) => [...seen]),
  )
  const chosen: Input[] = []
  const news = ({ seen }: Input): number => [...seen].filter((each) => !shown.has(each)).length
  while (chosen.length < KEPT_MAX) {
    const best = left.reduce((a, b) => (news(b) > news(a) ? b : a), left[0])
    if (best === undefined || news(best) === 0) break
    for (const feature of best.seen) shown.add(feature)
    chosen.push(best)
  }
  return chosen
}

/** Inputs that one run adds to the corpus of a target. */
const KEPT_MAX = 24

const targets = TARGETS.filter(({ name }) => (values.target ?? name) === name)
if (targets.length === 0) throw new Error(`no target ${values.target}`)
for (const target of targets) {
  await fuzz(target, Number(values.seconds) / targets.length, Number(values.seed))
}
