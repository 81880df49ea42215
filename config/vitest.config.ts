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

/**
 * Of what is serial, two files at a time: they wait for conditions and never for time. Before them run, one by
 * one, those that `alone` names.
 */
const inPairs = (name: string, folder: string, alone: readonly string[]): object[] => {
  const files = alone.map((file) => `${folder}/${file}.test.ts`)
  const pairs = { include: [`${folder}/*.test.ts`], exclude: files, sequence: { groupOrder: 1 } }
  return [
    suite(`${name}-alone`, { ...serial(60_000), include: files }),
    suite(`${name}-pairs`, { ...serial(60_000), ...pairs, fileParallelism: true, maxWorkers: 2 }),
  ]
}

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
      // As CI runs them. Alone: what measures, and what needs the time that is allowed by default.
      ...inPairs('tier', 'test/integration', [
        'allocation',
        'incoming-waiting',
        'raw-socket-interface',
      ]),
      ...inPairs('any-tier', 'test/integration/any-tier', ['loops', 'readme']),
      suite('interop', serial(300_000)),
      suite('package', serial(300_000)),
    ],
  },
})
