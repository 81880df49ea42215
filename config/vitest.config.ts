import { defineConfig } from 'vitest/config'

/** Suites by name; integration talks to real kernel devices, so its files run one after another. */
const suite = (name: string, extra: object = {}) => ({
  extends: true as const,
  test: { name, include: [`test/${name}/**/*.test.ts`], ...extra },
})

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    pool: 'forks',
    projects: [
      suite('unit'),
      suite('property', { testTimeout: 60_000 }),
      suite('sim', { testTimeout: 60_000 }),
      suite('integration', {
        testTimeout: 60_000,
        hookTimeout: 60_000,
        maxWorkers: 1,
        fileParallelism: false,
      }),
    ],
  },
})
