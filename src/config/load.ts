/**
 * The config file: YAML, checked against config/framepump.schema.json and the option table. Every
 * error names file, line, column and key.
 */
import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import type { ErrorObject, ValidateFunction } from 'ajv'
import type { Document, Node } from 'yaml'
import { isAlias, isCollection, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml'
import { ConfigError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import type { GroupAddresses, IoTierName, Pace } from '../switch/api.ts'
import { nearest } from './option-table.ts'
import { isText, portOptionsFromObject } from './port-options.ts'
import type { PrivilegeSettings, RawPrivileges } from './privileges.ts'
import { privilegeConflict, toPrivileges } from './privileges.ts'

const FILE_LENGTH_MAX = 16 * 1024 * 1024
const ALIASES_MAX = 100

/** What a config file says; absent means not said. */
export interface Config {
  readonly control?: string
  readonly stateDir?: string
  readonly pace?: Pace
  readonly io?: 'auto' | IoTierName
  readonly macAgingS?: number
  readonly macTableSize?: number
  readonly groupAddresses?: GroupAddresses
  readonly privileges?: PrivilegeSettings
  readonly ports: readonly PortOptions[]
  readonly links: readonly (readonly [string, string])[]
}

interface RawConfig {
  readonly control?: string
  readonly 'state-dir'?: string
  readonly engines?: number
  readonly pace?: Pace
  readonly io?: 'auto' | IoTierName
  readonly switch?: {
    readonly 'mac-aging-s'?: number
    readonly 'mac-table-size'?: number
    readonly 'group-addresses'?: GroupAddresses
  } | null
  readonly privileges?: RawPrivileges | null
  readonly ports?: readonly Record<string, unknown>[] | null
  readonly links?: readonly [string, string][] | null
}

export function loadConfig(path: string): Config {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new ConfigError('CONFIG_FILE', `${path}: cannot be read: ${code}`, {
      hint:
        code === 'EACCES'
          ? `the daemon runs as user ${process.geteuid?.()} now: that user must be able to read it`
          : undefined,
      cause,
    })
  }
  return parseConfig(text, path)
}

export function parseConfig(text: string, file: string): Config {
  if (text.length > FILE_LENGTH_MAX) {
    throw new ConfigError('CONFIG_FILE', `${file}: longer than ${FILE_LENGTH_MAX} bytes`)
  }
  const lines = new LineCounter()
  const document = parseDocument(text, {
    lineCounter: lines,
    uniqueKeys: true,
    // Its warnings would go to standard error past the log.
    logLevel: 'error',
  })
  const problem = document.errors[0]
  if (problem !== undefined) {
    const { line, col } = lines.linePos(problem.pos[0])
    // The first line says what; the rest draws the place.
    const what = problem.message.split('\n')[0].replace(/ at line \d+, column \d+:?$/, '')
    throw new ConfigError('CONFIG_SYNTAX', `${file}:${line}:${col}: ${what}`)
  }
  const place = new Places(document, lines, file)
  let raw: unknown
  try {
    raw = document.toJS({ maxAliasCount: ALIASES_MAX }) ?? {}
  } catch (cause) {
    throw new ConfigError('CONFIG_SYNTAX', `${file}:1:1: ${(cause as Error).message}`, { cause })
  }
  checkSchema(raw, place)
  return toConfig(raw as RawConfig, place)
}

/** Where in the file a path of keys stands. */
class Places {
  readonly #document: Document.Parsed
  readonly #lines: LineCounter
  readonly #file: string

  constructor(document: Document.Parsed, lines: LineCounter, file: string) {
    this.#document = document
    this.#lines = lines
    this.#file = file
  }

  /** `file:line:column` of the key that ends the path, or of the nearest thing around it. */
  of(path: readonly (string | number)[]): string {
    let node: unknown = this.#document.contents
    let found: Node | undefined = isNode(node) ? node : undefined
    for (const key of path) {
      if (!isCollection(node)) break
      if (isMap(node)) {
        const pair = node.items.find((item) => String(item.key) === String(key))
        if (pair === undefined) break
        if (isNode(pair.key)) found = pair.key
        node = pair.value
      } else {
        node = node.get(key, true)
        if (isNode(node)) found = node
      }
    }
    const { line, col } = this.#lines.linePos(found?.range?.[0] ?? 0)
    return `${this.#file}:${line}:${col}`
  }

  /** The text of a plain scalar, as `010` for what YAML takes for the number 10; else undefined. */
  source(path: readonly (string | number)[]): string | undefined {
    const node = this.#document.getIn(path, true)
    const scalar = isAlias(node) ? node.resolve(this.#document) : node
    return isScalar(scalar) ? scalar.source : undefined
  }

  error(path: readonly (string | number)[], message: string, hint?: string): ConfigError {
    const name = formatPath(path)
    const subject = name === '' ? '' : `${name}: `
    return new ConfigError('CONFIG_KEY', `${this.of(path)}: ${subject}${message}`, {
      path: name,
      hint,
    })
  }
}

function formatPath(path: readonly (string | number)[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? key : `${text}.${key}`
  }, '')
}

let validate: ValidateFunction | undefined

function checkSchema(raw: unknown, place: Places): void {
  if (validate === undefined) {
    const schema = new URL('../../config/framepump.schema.json', import.meta.url)
    validate = new Ajv({ strictTypes: false, verbose: true }).compile(
      JSON.parse(readFileSync(schema, 'utf8')) as object,
    )
  }
  if (validate(raw)) return
  throw schemaError(validate.errors![0], place)
}

function schemaError(error: ErrorObject, place: Places): ConfigError {
  const path = error.instancePath
    .split('/')
    .slice(1)
    .map((key) =>
      /^\d+$/.test(key) ? Number(key) : key.replaceAll('~1', '/').replaceAll('~0', '~'),
    )
  const parameters = error.params as Record<string, unknown>
  if (error.keyword === 'additionalProperties') {
    const key = String(parameters['additionalProperty'])
    const known = Object.keys((error.parentSchema?.['properties'] ?? {}) as object)
    const near = nearest(key, known)
    const hint = near === undefined ? `known are ${known.join(', ')}` : `did you mean "${near}"?`
    return place.error([...path, key], 'unknown key', hint)
  }
  if (path.at(-1) === 'engines') {
    return place.error(path, 'only 1 engine is supported for now')
  }
  if (error.keyword === 'enum') {
    return place.error(
      path,
      `must be one of ${(parameters['allowedValues'] as string[]).join(', ')}`,
    )
  }
  return place.error(path, error.message ?? 'is wrong')
}

function toConfig(raw: RawConfig, place: Places): Config {
  const ports = (raw.ports ?? []).map((object, index) => {
    try {
      return portOptionsFromObject(asWritten(object, index, place))
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const path = error.path === '' ? [] : [error.path]
      throw place.error(['ports', index, ...path], error.message, error.hint)
    }
  })
  checkIds(ports, place)
  const links = raw.links ?? []
  checkLinks(links, ports, place)
  const privileges = toPrivileges(raw.privileges)
  if (privileges !== undefined) {
    const wrong = privilegeConflict(privileges, ports)
    if (wrong !== undefined) throw place.error(['privileges', wrong.key], wrong.message)
  }
  const {
    'mac-aging-s': macAgingS,
    'mac-table-size': macTableSize,
    'group-addresses': groupAddresses,
  } = raw.switch ?? {}
  return {
    ...(raw.control === undefined ? {} : { control: raw.control }),
    ...(raw['state-dir'] === undefined ? {} : { stateDir: raw['state-dir'] }),
    ...(raw.pace === undefined ? {} : { pace: raw.pace }),
    ...(raw.io === undefined ? {} : { io: raw.io }),
    ...(macAgingS === undefined ? {} : { macAgingS }),
    ...(macTableSize === undefined ? {} : { macTableSize }),
    ...(groupAddresses === undefined ? {} : { groupAddresses }),
    ...(privileges === undefined ? {} : { privileges }),
    ports,
    links,
  }
}

/** Names that YAML takes for numbers (`010`, `1e3`, `+7`) are names: their text counts. */
function asWritten(
  object: Readonly<Record<string, unknown>>,
  index: number,
  place: Places,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).map(([key, value]) => {
      const isName = typeof value === 'number' && isText(object['type'], key)
      return [key, isName ? (place.source(['ports', index, key]) ?? value) : value]
    }),
  )
}

function checkIds(ports: readonly PortOptions[], place: Places): void {
  const seen = new Map<string, number>()
  ports.forEach(({ id }, index) => {
    const first = seen.get(id)
    if (first !== undefined) {
      const where = place.of(['ports', first, 'id'])
      throw place.error(['ports', index, 'id'], `"${id}" is already the id of a port at ${where}`)
    }
    seen.set(id, index)
  })
}

function checkLinks(
  links: readonly (readonly [string, string])[],
  ports: readonly PortOptions[],
  place: Places,
): void {
  const known = ports.map(({ id }) => id)
  const wired = new Set<string>()
  links.forEach((ends, index) => {
    ends.forEach((id, end) => {
      if (!known.includes(id)) {
        const near = nearest(id, known)
        const hint = near === undefined ? undefined : `did you mean "${near}"?`
        throw place.error(['links', index, end], `there is no port "${id}"`, hint)
      }
      if (wired.has(id)) {
        throw place.error(['links', index, end], `port "${id}" is wired already`)
      }
      wired.add(id)
    })
  })
}
