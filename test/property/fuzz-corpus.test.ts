/** The fuzzer's kept inputs: what found a bug once, and what goes the furthest. */
import { expect, test } from 'vitest'
import { CORPUS, INPUT_LENGTH_MAX, loadCorpus, SCRATCH_LENGTH } from '../fuzz/corpus.ts'
import { Features } from '../fuzz/features.ts'
import { mutate } from '../fuzz/mutate.ts'
import { TARGETS } from '../fuzz/targets.ts'
import { randomFrom } from '../support/random.ts'

/** Of each input, beside itself. */
const MUTANTS = 20
const scratch = new Uint8Array(SCRATCH_LENGTH)

test.each(TARGETS)('the corpus of $name, and mutants of it, find no bug', async (target) => {
  const corpus = loadCorpus(CORPUS, target.name)
  const random = randomFrom(1)
  const seen = new Features()
  for (const input of corpus) {
    await target.run(input, seen)
    for (let n = 0; n < MUTANTS; n++) {
      const other = corpus[random(corpus.length)]
      const limit = target.lengthMax ?? INPUT_LENGTH_MAX
      await target.run(scratch.subarray(0, mutate(scratch, limit, input, other, random)), seen)
    }
  }
  // It still goes far: a change of the format would leave it with little.
  expect(seen.size).toBeGreaterThan(target.featuresMin)
})
