import { defineConfig } from 'vitest/config'

/** Suites by name. */
const suite = (name: string, extra: object = {}) => ({
  extends: true as const,
  test: { name, include: [`test/${name}/**/*.test.ts`], ...extra },
})

/** Talks to real kernel devices and whole programs: its files run one after another. */
const serial = (testTimeout: number) => ({
  testTimeout,
  hookTimeout: testTimeout,
  maxWorkers: 1,
  fileParallelism: false,
})

/** Its hand-overs have the time that is allowed by default: nothing else runs beside it. */
const ALONE = 'test/integration/any-tier/readme.test.ts'

/** Of what is serial, two at a time: they wait for most of their time, for conditions and never for time. */
const inPairs = (name: string, include: string, ...exclude: string[]): object => ({
  extends: true as const,
  test: {
    ...serial(60_000),
    name,
    include: [include],
    exclude,
    fileParallelism: true,
    maxWorkers: 2,
    sequence: { groupOrder: 1 },
  },
})

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    pool: 'forks',
    projects: [
      // On a machine that does something else as well, the slowest take long.
      suite('unit', { testTimeout: 30_000 }),
      suite('property', { testTimeout: 60_000 }),
      suite('sim', { testTimeout: 60_000 }),
      suite('integration', serial(60_000)),
      // What does not depend on the tier, as CI runs it.
      suite('any-tier-alone', { ...serial(60_000), include: [ALONE] }),
      inPairs('any-tier-pairs', 'test/integration/any-tier/*.test.ts', ALONE),
      suite('interop', serial(300_000)),
      suite('package', serial(300_000)),
    ],
  },
})
