/** Rules of the project that no linter knows. Each failure lists the places. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { ERROR_CODES } from '../../config/error-codes.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SRC = join(ROOT, 'src')
const LINES_MAX = 500

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
  .map((name) => ({ name, text: readFileSync(join(SRC, name), 'utf8') }))

/** What each room may import besides itself, types included. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  'errors.ts': [],
  'text.ts': ['errors.ts', 'abi'],
  'index.ts': ['errors.ts', 'port', 'switch'],
  abi: ['errors.ts'],
  native: ['errors.ts', 'abi'],
  wire: ['abi'],
  schema: ['errors.ts', 'text.ts', 'abi'],
  stats: [],
  mem: ['errors.ts', 'abi', 'wire', 'native'],
  filter: ['errors.ts', 'abi', 'native'],
  sockets: ['errors.ts', 'text.ts', 'abi', 'mem', 'native'],
  virtio: ['errors.ts', 'abi', 'wire', 'mem', 'native'],
  'vhost-user': ['errors.ts', 'text.ts', 'abi', 'native', 'sockets', 'virtio'],
  offload: ['abi', 'wire', 'mem', 'native', 'stats'],
  io: ['errors.ts', 'text.ts', 'abi', 'wire', 'mem', 'native'],
  capture: ['errors.ts', 'text.ts', 'abi', 'wire', 'mem', 'native'],
  port: [
    'errors.ts',
    'text.ts',
    'abi',
    'schema',
    'wire',
    'mem',
    'native',
    'stats',
    'io',
    'capture',
    'virtio',
    'sockets',
    'vhost-user',
  ],
  engine: [
    'errors.ts',
    'text.ts',
    'abi',
    'wire',
    'mem',
    'native',
    'stats',
    'virtio',
    'io',
    'capture',
    'offload',
    'port',
  ],
  switch: [
    'errors.ts',
    'text.ts',
    'abi',
    'wire',
    'mem',
    'native',
    'stats',
    'sockets',
    'virtio',
    'vhost-user',
    'io',
    'capture',
    'filter',
    'port',
    'engine',
  ],
  handover: ['errors.ts', 'text.ts', 'abi', 'native', 'sockets', 'port', 'switch'],
  config: ['errors.ts', 'text.ts', 'abi', 'schema', 'filter', 'port', 'switch'],
  control: [
    'errors.ts',
    'text.ts',
    'abi',
    'schema',
    'mem',
    'native',
    'sockets',
    'port',
    'switch',
    'handover',
    'config',
  ],
  daemon: [
    'errors.ts',
    'text.ts',
    'abi',
    'native',
    'port',
    'switch',
    'handover',
    'config',
    'control',
  ],
  cli: [
    'errors.ts',
    'text.ts',
    'abi',
    'io',
    'native',
    'schema',
    'filter',
    'port',
    'switch',
    'handover',
    'config',
    'control',
    'daemon',
  ],
}

interface Import {
  readonly from: string
  readonly to: string
  readonly isType: boolean
}

const imports: Import[] = files.flatMap(({ name, text }) =>
  [
    ...text.matchAll(/^(?:import|export) (type )?[^'"]*?from '(\.[^']+)'/gms),
    ...text.matchAll(/\bimport\(()'(\.[^']+)'\)/g),
  ].map((match) => ({
    from: name,
    to: relative(SRC, join(SRC, dirname(name), match[2])),
    isType: match[1] === 'type ',
  })),
)
const roomOf = (name: string): string => name.split('/')[0]

test('imports go down the list of rooms only', () => {
  const wrong = imports.filter(({ from, to }) => {
    const [room, target] = [roomOf(from), roomOf(to)]
    return room !== target && !ROOMS[room].includes(target)
  })
  expect(wrong).toEqual([])
})

test('every file is reached from an entry', () => {
  const isEntry = (name: string): boolean =>
    ['index.ts', 'cli/main.ts', 'cli/demo-peer.ts'].includes(name) ||
    /(^|[-/])worker\.ts$/.test(name)
  const reached = new Set(files.map(({ name }) => name).filter(isEntry))
  for (const name of reached) {
    for (const { from, to } of imports) if (from === name) reached.add(to)
  }
  expect(files.map(({ name }) => name).filter((name) => !reached.has(name))).toEqual([])
})

/** What a file runs besides itself, types left out. */
function reachedFrom(...entries: string[]): Set<string> {
  const reached = new Set(entries)
  for (const name of reached) {
    for (const { from, to, isType } of imports) if (from === name && !isType) reached.add(to)
  }
  return reached
}

/** What of the port room may be known elsewhere: not what a kind has in its folder. */
test('no other room knows the inside of a kind of port', () => {
  const inside = /^port\/[^/]+\//
  const shared = /^port\/interface\//
  const wrong = imports.filter(
    ({ from, to }) => roomOf(from) !== 'port' && inside.test(to) && !shared.test(to),
  )
  expect(wrong).toEqual([])
})

test('the engine thread runs no control plane, and the main thread no data plane', () => {
  const controlRooms = ['sockets', 'vhost-user', 'switch', 'config', 'control', 'daemon', 'cli']
  const onEngine = [...reachedFrom('engine/worker.ts')]
  expect(onEngine.length).toBeGreaterThan(50)
  const isControl = (name: string): boolean =>
    controlRooms.includes(roomOf(name)) || /(^|[./])control\.ts$/.test(name)
  expect(onEngine.filter(isControl)).toEqual([])
  const onMain = [...reachedFrom('index.ts', 'cli/main.ts')]
  expect(onMain.length).toBeGreaterThan(100)
  const asks = ['engine/client.ts', 'engine/cells.ts', 'engine/messages.ts']
  const isDataPlane = (name: string): boolean =>
    (['engine', 'offload'].includes(roomOf(name)) || /[./]engine\.ts$/.test(name)) &&
    !asks.includes(name)
  expect(onMain.filter(isDataPlane)).toEqual([])
})

test('every file says at its head what it is, and stays short', () => {
  const silent = files.filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text))
  expect(silent.map(({ name }) => name)).toEqual([])
  const long = files.filter(({ text }) => text.split('\n').length > LINES_MAX)
  expect(long.map(({ name }) => name)).toEqual([])
})

/** What allocates or blocks, in a body marked @hot. */
const NOT_HOT: readonly (readonly [string, RegExp])[] = [
  ['new', /\bnew (?!RangeError)/],
  ['view', /\.(subarray|slice)\(/],
  ['closure', /=>/],
  ['for..of', /for \((const|let) \S+ of /],
  ['iteration method', /\.(forEach|map|filter|reduce|push|splice)\(/],
  ['spread', /\.\.\./],
  ['template string', /`/],
  ['bigint', /BigInt|\d+n\b/],
  ['try', /\btry\b/],
  ['async', /\b(await|async)\b/],
  ['console', /\bconsole\b/],
]

/** Bodies of the functions whose doc comment has @hot. */
function hotBodies(text: string): string[] {
  return [...text.matchAll(/@hot[^/]*\*\/\s*/g)].flatMap((match) => {
    const start = match.index + match[0].length
    const open = text.indexOf('{', text.indexOf(')', start))
    const signature = text.slice(start, open)
    // An interface's method has no body.
    if (open < 0 || /\n\s*(\/\*\*|\})/.test(signature)) return []
    let depth = 0
    for (let at = open; at < text.length; at++) {
      if (text[at] === '{') depth++
      else if (text[at] === '}' && --depth === 0) return [text.slice(open, at + 1)]
    }
    return []
  })
}

test('what is marked @hot neither allocates nor throws nor logs', () => {
  const bodies = files.flatMap(({ name, text }) => hotBodies(text).map((body) => ({ name, body })))
  expect(bodies.length).toBeGreaterThan(40)
  const wrong = bodies.flatMap(({ name, body }) =>
    NOT_HOT.filter(([, pattern]) => pattern.test(body.replaceAll('#uring.push(', ''))).map(
      ([what]) => `${name}: ${what} in ${body.slice(0, 80)}`,
    ),
  )
  expect(wrong).toEqual([])
})

test('the table of error codes has those that are thrown, and no other', () => {
  const codes = files.flatMap(({ text }) =>
    [...text.matchAll(/(?:Error|super)\(\s*'([A-Z][A-Z_]+)'/g)].map((match) => match[1]),
  )
  expect(Object.keys(ERROR_CODES).toSorted()).toEqual([...new Set(codes)].toSorted())
})

test('every command has a row in src/cli/README.md', () => {
  const rows = readFileSync(join(SRC, 'cli/README.md'), 'utf8')
  const main = files.find(({ name }) => name === 'cli/commands.ts')!.text
  const commands = [...main.matchAll(/\.command\('(\w+)'\)/g)].map((match) => match[1])
  expect(commands.length).toBeGreaterThan(5)
  expect(commands.filter((name) => !rows.includes(`framepump ${name}`))).toEqual([])
})
