/** The Markdown files: every relative link leads somewhere, and README.md stays a door. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const LINES_MAX = 200
/** Of a cell of a table: more is a text. */
const CELL_MAX = 110

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.md'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .trim()
  .split('\n')
  .filter((path) => existsSync(join(ROOT, path)))

const withoutCode = (text: string): string => text.replaceAll(/^```[^]*?^```$/gm, '')

/** What GitHub makes of the headings of a file. */
function anchors(path: string): string[] {
  return [...withoutCode(read(path)).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  )
}

interface Link {
  readonly from: string
  /** From the root on. */
  readonly path: string
  readonly anchor: string | undefined
}

const links: readonly Link[] = files.flatMap((from) =>
  [...withoutCode(read(from)).matchAll(/\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)/g)].map(
    ([, path, anchor]) => ({
      from,
      path: path === '' ? from : normalize(join(dirname(from), path)),
      anchor,
    }),
  ),
)

test('relative links and their anchors exist', () => {
  expect(links.length).toBeGreaterThan(40)
  const wrong = links.filter(
    ({ path, anchor }) =>
      !existsSync(join(ROOT, path)) || (anchor !== undefined && !anchors(path).includes(anchor)),
  )
  expect(wrong).toEqual([])
})

test('each reference is reached from README.md', () => {
  const reached = new Set(['README.md'])
  for (const from of reached) {
    for (const link of links)
      if (link.from === from && link.path.endsWith('.md')) reached.add(link.path)
  }
  expect(files.filter((path) => !reached.has(path))).toEqual([])
})

test('what README.md and other files of the package link to is in it', () => {
  const { files: packed } = JSON.parse(read('package.json')) as { files: string[] }
  const isPacked = (path: string): boolean =>
    packed.some((entry) => path === entry || path.startsWith(`${entry}/`))
  const missing = links
    .filter(({ from }) => from === 'README.md' || isPacked(from))
    .filter(({ path }) => path !== 'README.md' && !isPacked(path))
  expect(missing).toEqual([])
})

test('README.md is a door: short, without texts in cells of tables', () => {
  const lines = read('README.md').trimEnd().split('\n')
  expect(lines.length).toBeLessThan(LINES_MAX)
  const cells = lines.filter((line) => line.startsWith('|')).flatMap((line) => line.split(' | '))
  expect(cells.length).toBeGreaterThan(20)
  expect(cells.filter((cell) => cell.replace(/^\| |\|$/g, '').trim().length > CELL_MAX)).toEqual([])
})
