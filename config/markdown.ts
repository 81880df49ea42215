/** Definitions as tables in Markdown. */
import { FORMATS } from '../src/schema/formats.ts'
import type { Members, Value } from '../src/schema/value.ts'

export const code = (text: string): string => `\`${text}\``

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** How booleans are written: in files and option strings, or in JSON. */
export type Booleans = readonly [no: string, yes: string]
const WORDS: Booleans = ['off', 'on']
export const JSON_BOOLEANS: Booleans = ['false', 'true']

/** What a value may be, in a few words. */
export function mayBe(value: Value, [no, yes]: Booleans = WORDS): string {
  switch (value.kind) {
    case 'list':
      return `list of ${ofList(value.of)}`
    case 'map':
      return 'map of keys'
    case 'boolean':
      return `${code(yes)}, ${code(no)}`
    case 'choice':
      return value.values!.map(code).join(', ')
    case 'integer':
      return `${[...new Set(value.range)].join('..')}${unitOf(value)}`
    case 'size':
      return `${value.unit}; k, M, G and T are read`
    case 'number':
      return `number${value.unit === undefined ? '' : ` of ${value.unit}`}`
    case 'string':
      return value.format === undefined ? 'text' : FORMATS[value.format].name
    case 'script':
      return 'path'
    case 'name':
      return 'name or number'
    case 'any':
      return 'anything'
  }
}

function ofList(one: Value): string {
  if (one.kind === 'map') return 'maps'
  if (one.kind === 'list') return 'pairs'
  return one.kind === 'string' ? 'texts' : mayBe(one)
}

const unitOf = ({ unit }: { readonly unit?: string }): string =>
  unit === undefined ? '' : ` ${unit}`

export function defaultOf(value: Value, [no, yes]: Booleans = WORDS): string {
  if (value.default !== undefined) {
    const { default: given } = value
    return code(typeof given === 'boolean' ? (given ? yes : no) : String(given))
  }
  return value.required === true ? 'required' : (value.absent ?? '')
}

/** Those with a name: a row each. `more`: what stands in further columns. */
export function memberRows(
  members: Members,
  more: (member: Value) => readonly string[] = () => [],
  booleans: Booleans = WORDS,
): string[][] {
  return Object.entries(members).map(([name, member]) => [
    code(name),
    mayBe(member, booleans),
    defaultOf(member, booleans),
    member.description,
    ...more(member),
  ])
}
