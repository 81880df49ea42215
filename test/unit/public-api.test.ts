/**
 * The declarations that programs are compiled against, beside a kept copy: no change of the public API goes
 * unnoticed. A wanted one: `npx vitest run --config config/vitest.config.ts test/unit/public-api.test.ts -u`,
 * and a line in CHANGELOG.md.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { PORT_SCHEMAS } from '../../src/port/kinds.control.ts'

const dist = fileURLToPath(new URL('../../dist/', import.meta.url))

/** What index.d.ts exports is declared in these. */
const FILES: readonly string[] = [
  'index.d.ts',
  'errors.d.ts',
  'switch/switch.d.ts',
  'switch/api.d.ts',
  'capture/options.d.ts',
  'port/api.d.ts',
  'port/options.d.ts',
  'port/port-schema.d.ts',
  ...Object.keys(PORT_SCHEMAS).map((type) => `port/${type}/options.d.ts`),
  'port/memory/options.d.ts',
  'stats/counters.d.ts',
]

/** Without comments, and without the texts of options. */
function declarations(path: string): string {
  const text = readFileSync(`${dist}${path}`, 'utf8')
    .replace(/ *\/\*[^]*?\*\/\n?/g, '')
    .replace(/^\s*readonly (description|absent): '(\\.|[^'])*';\n/gm, '')
    .replace(/^\s*\/\/.*\n/gm, '')
  return `// ${path}\n${text.trim()}\n`
}

test('it is what it was', async () => {
  await expect(FILES.map(declarations).join('\n')).toMatchFileSnapshot(
    '../fixtures/public-api.d.ts.txt',
  )
})

test('nothing is exported from elsewhere', () => {
  const sources = readFileSync(`${dist}index.d.ts`, 'utf8').matchAll(/from '\.\/([^']+)\.ts'/g)
  for (const [, source] of sources) expect(FILES).toContain(`${source}.d.ts`)
})

test.each(Object.entries(PORT_SCHEMAS))('editors show what options of %s mean', (type, schema) => {
  const files = [`port/${type}/options.d.ts`, 'port/port-schema.d.ts']
  const text = files.map((file) => readFileSync(`${dist}${file}`, 'utf8')).join('')
  const comments = text.matchAll(/\/\*\*\n +\* ([^\n]*)\n(?: +\*[^\n]*\n)* +readonly '?([\w-]+)/g)
  const documented = new Map(Array.from(comments, ([, first, name]) => [name, first]))
  for (const [name, { description }] of Object.entries(schema.options)) {
    if (!['id', 'mtu', 'gro'].includes(name)) expect(documented.get(name)).toBe(description)
    else expect(documented.get(name)).toBeDefined()
  }
})
