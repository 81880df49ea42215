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
      suite('interop', serial(300_000)),
      suite('package', serial(300_000)),
    ],
  },
})
