/** Whoever matches on a code finds it tested: each one is raised in some test that names it. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const self = fileURLToPath(import.meta.url)
const read = (directory: string, ending: string): string[] =>
  readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(root, directory, name))
    .filter((path) => path !== self)
    .map((path) => readFileSync(path, 'utf8'))

const THROWN =
  /(?:new (?:Sys|Config|State|Framepump|Machine)Error|\bfail(?:ure)?)\(\s*'([A-Z][A-Z0-9_]+)'/g

test('every code is named in a test', () => {
  const sources = read('src', '.ts')
  const codes = new Set(
    sources.flatMap((text) => [...text.matchAll(THROWN)].map(([, code]) => code)),
  )
  expect(codes.size).toBeGreaterThan(40)
  const tests = read('test', '.test.ts').join('\n')
  const words = new Set(tests.match(/\b[A-Z][A-Z0-9_]+\b/g))
  expect([...codes].filter((code) => !words.has(code))).toEqual([])
})
