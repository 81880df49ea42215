/** The fuzzer's kept inputs: what found a bug once, and what goes the furthest. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { mutate } from '../fuzz/mutate.ts'
import { loadCorpus, TARGETS } from '../fuzz/targets.ts'
import { ROOT } from '../support/lab.ts'
import { randomFrom } from '../support/random.ts'

const CORPUS = join(ROOT, 'test/fuzz/corpus')
/** Of each input, beside itself. */
const MUTANTS = 20

test.each(TARGETS)('the corpus of $name, and mutants of it, find no bug', async ({ name, run }) => {
  const corpus = loadCorpus(CORPUS, name)
  const random = randomFrom(1)
  const seen = new Set<string>()
  for (const input of corpus) {
    await run(input, seen)
    for (let n = 0; n < MUTANTS; n++) {
      const other = corpus[random(corpus.length)]
      await run(mutate(input, other, random), seen)
    }
  }
  // It still goes far: a change of the format would leave it with little.
  expect(seen.size).toBeGreaterThan(200)
})
