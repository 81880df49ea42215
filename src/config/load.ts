/**
 * The config file: YAML, checked against its schema and the options of the kinds of ports. Every error
 * names file, line, column and key.
 */
import { readFileSync } from 'node:fs'
import type { ErrorObject } from 'ajv'
import type { Document, Node, YAMLParseError } from 'yaml'
import { isAlias, isCollection, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml'
import { ConfigError, gather, throwGathered } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { switchingOptions } from '../port/switching-options.ts'
import { BOOLEANS } from '../schema/read-option.ts'
import type {
  FdbEntry,
  GroupAddresses,
  IoTierName,
  MirrorOptions,
  Pace,
  SnoopingOptions,
} from '../switch/api.ts'
import type { LogFormat, LogLevel } from '../text.ts'
import { nearest, systemReason } from '../text.ts'
import type { RawMirror } from './mirrors.ts'
import { portsOfMirror, toMirror } from './mirrors.ts'
import { isText, portOptionsFromObject } from './port-options.ts'
import type { PrivilegeSettings } from './privileges.ts'
import { privilegeConflict, toPrivileges } from './privileges.ts'
import type { RawConfig } from './schema.ts'
import { describeFault, pathOf, Refused, toldOf } from './schema-faults.ts'
import { addressKey, tellTaken } from './static-addresses.ts'
import { validate } from './validate.ts'

const FILE_LENGTH_MAX = 16 * 1024 * 1024
const ALIASES_MAX = 100
/** What is wrong with a file, at most: behind the first error in YAML there may be one in each line. */
const ERRORS_MAX = 50

/** What a config file says; absent means not said. */
export interface Config {
  readonly control?: string
  readonly stateDir?: string
  readonly pace?: Pace
  readonly io?: 'auto' | IoTierName
  readonly logLevel?: LogLevel
  readonly logFormat?: LogFormat
  readonly macAgingS?: number
  readonly macTableSize?: number
  readonly groupAddresses?: GroupAddresses
  readonly snooping?: SnoopingOptions
  readonly privileges?: PrivilegeSettings
  readonly ports: readonly PortOptions[]
  readonly links: readonly (readonly [string, string])[]
  readonly mirrors?: readonly MirrorOptions[]
  readonly fdb?: readonly FdbEntry[]
}

export function loadConfig(path: string): Config {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new ConfigError('CONFIG_FILE', `${path}: cannot be read: ${systemReason(cause)}`, {
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
  throwGathered(
    document.errors.slice(0, ERRORS_MAX).map((error) => syntaxError(error, lines, file)),
  )
  const place = new Places(document, lines, file)
  let raw: unknown
  try {
    raw = document.toJS({ maxAliasCount: ALIASES_MAX }) ?? {}
  } catch (cause) {
    throw new ConfigError('CONFIG_SYNTAX', `${file}:1:1: ${(cause as Error).message}`, { cause })
  }
  const faults = toldOf(validate(raw))
  const errors = faults.map((error) => schemaError(error, place))
  const config = toConfig(isObject(raw) ? raw : {}, new Refused(faults), place, errors)
  throwGathered(place.inOrder(errors).slice(0, ERRORS_MAX))
  return config
}

function syntaxError(
  { pos, message }: YAMLParseError,
  lines: LineCounter,
  file: string,
): ConfigError {
  const { line, col } = lines.linePos(pos[0])
  // The first line says what; the rest draws the place.
  const what = message.split('\n')[0].replace(/ at line \d+, column \d+:?$/, '')
  return new ConfigError('CONFIG_SYNTAX', `${file}:${line}:${col}: ${what}`)
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === 'object' && !Array.isArray(value)

/** Where in the file a path of keys stands. */
class Places {
  readonly #document: Document.Parsed
  readonly #lines: LineCounter
  readonly #file: string
  /** Where in the file the errors are that were made here. */
  readonly #offsets = new Map<ConfigError, number>()

  constructor(document: Document.Parsed, lines: LineCounter, file: string) {
    this.#document = document
    this.#lines = lines
    this.#file = file
  }

  /** `file:line:column` of the key that ends the path, or of the nearest thing around it. */
  of(path: readonly (string | number)[]): string {
    const { line, col } = this.#lines.linePos(this.#offset(path))
    return `${this.#file}:${line}:${col}`
  }

  #offset(path: readonly (string | number)[]): number {
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
    return found?.range?.[0] ?? 0
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
    const text = `${this.of(path)}: ${subject}${message}`
    const error = new ConfigError('CONFIG_KEY', text, { path: name, hint })
    this.#offsets.set(error, this.#offset(path))
    return error
  }

  inOrder(errors: readonly ConfigError[]): ConfigError[] {
    const offset = (error: ConfigError): number => this.#offsets.get(error) ?? 0
    return errors.toSorted((one, other) => offset(one) - offset(other))
  }
}

function formatPath(path: readonly (string | number)[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? key : `${text}.${key}`
  }, '')
}

function schemaError(error: ErrorObject, place: Places): ConfigError {
  const path = pathOf(error)
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
  return place.error(path, describeFault(error))
}

/**
 * The config of a file, as far as it is right; what is wrong joins the errors. Of a value that the
 * schema has refused nothing more is said.
 */
function toConfig(raw: RawConfig, refused: Refused, place: Places, errors: ConfigError[]): Config {
  const objects = listOf(raw.ports, isObject)
  const ports = objects.flatMap(({ value, index }) => {
    const own: ConfigError[] = []
    const port = gather(own, () => portOptionsFromObject(asWritten(value, index, place)))
    for (const { path, message, hint } of own) {
      const key = path === '' ? [] : [path]
      errors.push(place.error(['ports', index, ...key], message, hint))
    }
    return port === undefined ? [] : [{ port, index }]
  })
  checkIds(ids(objects), place, errors)
  const links = listOf(raw.links, isPair)
  const known = new Set(ids(objects).map(({ id }) => id))
  checkLinks(links, known, place, errors)
  const options = ports.map(({ port }) => port)
  checkWired(ports, links, place, errors)
  const entries = toFdb(raw.fdb, refused, known, place, errors)
  const fdb = entries.map(({ value }) => value)
  tellTaken({ ports: options, fdb }, (list, at, message) => {
    const path =
      list === 'fdb' ? ['fdb', entries[at].index, 'mac'] : ['ports', ports[at].index, 'macs']
    errors.push(place.error(path, message))
  })
  const privileges = refused.has(['privileges']) ? undefined : toPrivileges(raw.privileges)
  if (privileges !== undefined) {
    const wrong = privilegeConflict(privileges, options)
    if (wrong !== undefined) errors.push(place.error(['privileges', wrong.key], wrong.message))
  }
  const {
    'mac-aging-s': macAgingS,
    'mac-table-size': macTableSize,
    'group-addresses': groupAddresses,
    snooping,
  } = raw.switch ?? {}
  const mirrors = toMirrors(raw, refused, known, place, errors)
  return {
    ...(raw.control === undefined ? {} : { control: raw.control }),
    ...(raw['state-dir'] === undefined ? {} : { stateDir: raw['state-dir'] }),
    ...(raw.pace === undefined ? {} : { pace: raw.pace }),
    ...(raw.io === undefined ? {} : { io: raw.io }),
    ...(raw['log-level'] === undefined ? {} : { logLevel: raw['log-level'] }),
    ...(raw['log-format'] === undefined ? {} : { logFormat: raw['log-format'] }),
    ...(macAgingS === undefined ? {} : { macAgingS }),
    ...(macTableSize === undefined ? {} : { macTableSize }),
    ...(groupAddresses === undefined ? {} : { groupAddresses }),
    ...(snooping === undefined || refused.has(['switch', 'snooping'])
      ? {}
      : { snooping: toSnooping(snooping) }),
    ...(privileges === undefined ? {} : { privileges }),
    ports: options,
    links: links.map(({ value }) => value),
    ...(fdb.length === 0 ? {} : { fdb }),
    ...(mirrors.length === 0 ? {} : { mirrors }),
  }
}

function toSnooping({
  igmp = false,
  mld = false,
  'max-groups': maxGroups,
  'max-groups-per-port': maxGroupsPerPort,
}: NonNullable<NonNullable<RawConfig['switch']>['snooping']>): SnoopingOptions {
  return {
    igmp: BOOLEANS[String(igmp)],
    mld: BOOLEANS[String(mld)],
    ...(maxGroups === undefined ? {} : { maxGroups }),
    ...(maxGroupsPerPort === undefined ? {} : { maxGroupsPerPort }),
  }
}

/** Those that are right. */
function toMirrors(
  raw: RawConfig & { readonly mirrors?: unknown },
  refused: Refused,
  known: ReadonlySet<string>,
  place: Places,
  errors: ConfigError[],
): MirrorOptions[] {
  const mirrors: MirrorOptions[] = []
  const wired = new Set(listOf(raw.links, isPair).flatMap(({ value }) => value))
  for (const { value, index } of listOf(raw['mirrors'], isObject)) {
    const wrong = (path: readonly (string | number)[], text: string, hint?: string): void =>
      void errors.push(place.error(['mirrors', index, ...path], text, hint))
    for (const [path, id] of portsOfMirror(value)) {
      if (refused.has(['mirrors', index, ...path])) continue
      if (!known.has(id)) wrong(path, `there is no port "${id}"`, didYouMean(id, known))
      if (path[0] === 'output-port' && wired.has(id)) wrong(path, `port "${id}" is on a link`)
    }
    if (refused.has(['mirrors', index])) continue
    const own: ConfigError[] = []
    const mirror = gather(own, () => toMirror(value as unknown as RawMirror))
    for (const { path, message, hint } of own) wrong(path === '' ? [] : [path], message, hint)
    if (mirror === undefined) continue
    if (mirrors.some(({ name }) => name === mirror.name)) {
      wrong(['name'], `"${mirror.name}" is already the name of a mirror`)
    } else mirrors.push(mirror)
  }
  return mirrors
}

interface Placed<T> {
  readonly value: T
  readonly index: number
}

/** Those entries of a list that are what they should be. */
function listOf<T>(list: unknown, isRight: (value: unknown) => value is T): Placed<T>[] {
  if (!Array.isArray(list)) return []
  return list.flatMap((value: unknown, index) => (isRight(value) ? [{ value, index }] : []))
}

const isPair = (value: unknown): value is [string, string] =>
  Array.isArray(value) && value.length === 2 && value.every((id) => typeof id === 'string')

/** Of all ports, also of those with wrong options: whoever names them makes no mistake. */
function ids(
  ports: readonly Placed<Record<string, unknown>>[],
): { readonly id: string; readonly index: number }[] {
  return ports.flatMap(({ value: { id }, index }) =>
    typeof id === 'string' || typeof id === 'number' ? [{ id: String(id), index }] : [],
  )
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

function checkIds(
  ports: readonly { readonly id: string; readonly index: number }[],
  place: Places,
  errors: ConfigError[],
): void {
  const seen = new Map<string, number>()
  for (const { id, index } of ports) {
    const first = seen.get(id)
    if (first === undefined) {
      seen.set(id, index)
      continue
    }
    const where = place.of(['ports', first, 'id'])
    const text = `"${id}" is already the id of a port at ${where}`
    errors.push(place.error(['ports', index, 'id'], text))
  }
}

function checkLinks(
  links: readonly Placed<readonly [string, string]>[],
  known: ReadonlySet<string>,
  place: Places,
  errors: ConfigError[],
): void {
  const wired = new Set<string>()
  for (const { value: ends, index } of links) {
    for (const [end, id] of ends.entries()) {
      if (!known.has(id)) {
        const text = `there is no port "${id}"`
        errors.push(place.error(['links', index, end], text, didYouMean(id, known)))
      } else if (wired.has(id)) {
        errors.push(place.error(['links', index, end], `port "${id}" is wired already`))
      }
    }
    for (const id of ends) wired.add(id)
  }
}

function didYouMean(id: string, known: ReadonlySet<string>): string | undefined {
  const near = nearest(id, [...known])
  return near === undefined ? undefined : `did you mean "${near}"?`
}

/** Each address once, at a port that there is. */
function toFdb(
  list: unknown,
  refused: Refused,
  known: ReadonlySet<string>,
  place: Places,
  errors: ConfigError[],
): Placed<FdbEntry>[] {
  const seen = new Set<string>()
  return listOf(list, isObject).flatMap(({ value, index }) => {
    const port = String(value['port'])
    if (!refused.has(['fdb', index, 'port']) && !known.has(port)) {
      const text = `there is no port "${port}"`
      errors.push(place.error(['fdb', index, 'port'], text, didYouMean(port, known)))
    }
    if (refused.has(['fdb', index])) return []
    const { mac, vlan = 0 } = value as unknown as FdbEntry
    const key = addressKey(mac, vlan)
    if (seen.has(key)) {
      errors.push(place.error(['fdb', index, 'mac'], `${mac} is there already`))
    }
    seen.add(key)
    return [{ value: { mac, vlan, port }, index }]
  })
}

/** A link passes everything: its ports have no options that say otherwise. */
function checkWired(
  ports: readonly { readonly port: PortOptions; readonly index: number }[],
  links: readonly Placed<readonly [string, string]>[],
  place: Places,
  errors: ConfigError[],
): void {
  const wired = new Set(links.flatMap(({ value }) => value))
  for (const { port, index } of ports) {
    if (!wired.has(port.id)) continue
    for (const key of switchingOptions(port)) {
      const hint = 'a link passes everything: leave it out, or the link'
      const message = `port "${port.id}" is on a link, where it cannot have this`
      errors.push(place.error(['ports', index, key], message, hint))
    }
  }
}
