import { defineConfig } from 'vitest/config'

/** Suites by name. */
const suite = (name: string, extra: object = {}) => ({
  extends: true as const,
  test: { name, include: [`test/${name}/**/*.test.ts`], ...extra },
})

/** By default one core is left alone, which is half of two. */
const ON_ALL_CORES = { maxWorkers: '100%' }

/** Talks to real kernel devices and whole programs: its files run one after another. */
const serial = (testTimeout: number) => ({
  testTimeout,
  hookTimeout: testTimeout,
  maxWorkers: 1,
  fileParallelism: false,
})

/** Of what is serial, two files at a time: they wait for conditions and never for time. */
const inPairs = (folder: string, name: string, alone: readonly string[], testTimeout: number) =>
  suite(name, {
    ...serial(testTimeout),
    fileParallelism: true,
    maxWorkers: 2,
    include: [`${folder}/*.test.ts`],
    exclude: filesOf(folder, alone),
    sequence: { groupOrder: 1 },
  })

/** Those that measure, or need the time that is allowed by default, run before the pairs, one by one. */
const aloneAndPairs = (folder: string, name: string, alone: readonly string[]) => [
  suite(`${name}-alone`, { ...serial(60_000), include: filesOf(folder, alone) }),
  inPairs(folder, `${name}-pairs`, alone, 60_000),
]

const filesOf = (folder: string, files: readonly string[]): string[] =>
  files.map((file) => `${folder}/${file}.test.ts`)

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    pool: 'forks',
    setupFiles: ['test/support/equal-bytes.ts'],
    projects: [
      // On a machine that does something else as well, the slowest take long.
      suite('unit', { ...ON_ALL_CORES, testTimeout: 30_000 }),
      suite('property', { ...ON_ALL_CORES, testTimeout: 60_000 }),
      suite('sim', { ...ON_ALL_CORES, testTimeout: 60_000 }),
      suite('integration', { ...serial(60_000), sequence: { groupOrder: 1 } }),
      // As CI runs them.
      ...aloneAndPairs('test/integration', 'tier', [
        'allocation',
        'incoming-waiting',
        'raw-socket-interface',
      ]),
      ...aloneAndPairs('test/integration/any-tier', 'any-tier', ['loops', 'readme']),
      inPairs('test/interop', 'interop-pairs', [], 300_000),
      suite('interop', serial(300_000)),
      suite('package', serial(300_000)),
    ],
  },
})
