/**
 * node test/fuzz/build/test/fuzz/mutations.js [NAME...]
 *
 * Plants bugs, one at a time, in a copy of the tree and says which suite finds each, and how soon. A
 * bug that nothing finds within a minute is a hole in the oracles: the exit status is 1 then. It is no
 * part of the test run; its result stands in README.md.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MUTATIONS } from './mutation-list.ts'
import type { Mutation } from './mutation-list.ts'

const SECONDS = 60
const COPIED = ['src', 'test', 'config', 'native-shim', 'package.json']
const root = process.cwd()

function run(directory: string, command: string, args: readonly string[]): number | null {
  const env = {
    ...process.env,
    FRAMEPUMP_SHIM: join(directory, 'native-shim/build/Release/framepump.node'),
  }
  return spawnSync(command, args, { cwd: directory, env, stdio: 'ignore', timeout: 300_000 }).status
}

/** Only what runs matters here: a bug may leave something unused. */
function build(directory: string): void {
  run(directory, 'make', ['-s', '-C', 'native-shim'])
  const unused = ['--noUnusedLocals', 'false', '--noUnusedParameters', 'false']
  const compiler = join(root, 'node_modules/.bin/tsc')
  const status = run(directory, compiler, ['-p', 'test/fuzz/tsconfig.build.json', ...unused])
  if (status !== 0) throw new Error('it does not compile')
}

/** Seconds until the suite failed; null: it did not. */
function find(directory: string, { suite, target }: Mutation, seconds: number): number | null {
  const start = performance.now()
  const status =
    suite === 'fuzz'
      ? run(directory, process.execPath, [
          'test/fuzz/build/test/fuzz/main.js',
          `--target=${target}`,
          `--seconds=${seconds}`,
          '--seed=1',
        ])
      : run(directory, process.execPath, [
          join(root, 'node_modules/vitest/vitest.mjs'),
          'run',
          '--config=config/vitest.config.ts',
          `--project=${suite}`,
          target,
        ])
  return status === 0 ? null : (performance.now() - start) / 1000
}

function plant(directory: string, { file, from, to }: Mutation): () => void {
  const path = join(directory, file)
  const text = readFileSync(path, 'utf8')
  const parts = text.split(from)
  if (parts.length !== 2) throw new Error(`"${from}" is ${parts.length - 1} times in ${file}`)
  writeFileSync(path, parts.join(to))
  return () => writeFileSync(path, text)
}

const names = process.argv.slice(2)
const chosen = MUTATIONS.filter(({ name }) => names.length === 0 || names.includes(name))
const directory = mkdtempSync(join(tmpdir(), 'framepump-mutations-'))
let missed = 0
try {
  for (const each of COPIED) cpSync(join(root, each), join(directory, each), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'))
  build(directory)
  // Nothing is found where there is nothing.
  const suites = new Map(
    chosen.map((mutation) => [`${mutation.suite} ${mutation.target}`, mutation]),
  )
  for (const [name, mutation] of suites) {
    if (find(directory, mutation, 3) !== null) throw new Error(`${name} fails without a bug`)
  }
  for (const mutation of chosen) {
    let result: string
    let remove = (): void => undefined
    try {
      remove = plant(directory, mutation)
      build(directory)
      const seconds = find(directory, mutation, SECONDS)
      result = seconds === null ? 'NOT FOUND' : `${Math.ceil(seconds)} s`
      if (seconds === null) missed++
    } catch (error) {
      missed++
      result = (error as Error).message
    }
    remove()
    const { name, suite, target } = mutation
    console.log(`| ${name} | ${mutation.file} | ${suite} ${target} | ${result} |`)
  }
} finally {
  rmSync(directory, { recursive: true })
}
console.log(`${chosen.length - missed} of ${chosen.length} found`)
process.exitCode = missed === 0 ? 0 : 1
